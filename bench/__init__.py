"""Measures Troth, beside its rivals and alone, with everything forced to disk and every row verified. Imports the other
rooms and is imported by none.

`troth bench` starts all that it measures, on loopback and in temporary folders, and ends it again. What it says is of
the machine that it ran on, load included: contenders take turns in one run, so that they share its moods.
"""

import os

# Before anything loads gRPC, which has a word for every process that is started while it runs.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
