"""The checks, one module for each subject, in the order in which they are run. Importing this registers them all."""

from __future__ import annotations

from faults.conformance.checks import (  # noqa: F401  # isort: skip
    hello,
    votes,
    repeats,
    commits,
    marks,
    questions,
    peers,
    reads,
    one_phase,
    people,
    locks,
    escrow,
    constraints,
    odd,
)
