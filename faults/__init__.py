"""Breaks Troth on purpose and says whether it held. Imports every other room and is imported by none.

A product, not only our own tests: users run all of it, against their own participants too.
"""
