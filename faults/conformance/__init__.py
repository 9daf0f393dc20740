"""The conformance kit: does somebody's own participant, or resource, keep the contract?

`troth check-participant` (`cli.py`) speaks the public wire contract to a participant of any make, as its coordinator
and as its peers, kills it where it is told how to start it again, and says rule by rule what holds. For a Python
resource class the same is a pytest suite (`resource.py`). It finds what breaks a rule within a few messages; it cannot
prove that none is ever broken.
"""
