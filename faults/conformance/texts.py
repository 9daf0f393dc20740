"""Branches as bytes, and votes and ends as words."""

from __future__ import annotations

from collections.abc import Iterable

from troth.messages import OnePhaseEnded, Voted
from troth.reasons import code_name
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Operation
from troth.words import Outcome


def encoded(operations: Iterable[Operation]) -> bytes:
    """One branch, its operations numbered from 0."""
    branch = types_pb2.Operations(operations=operations)
    for position, operation in enumerate(branch.operations):
        operation.position = position
    return branch.SerializeToString(deterministic=True)


def vote_text(voted: Voted) -> str:
    """`the vote NO (below_min: ...)`."""
    why = f" ({code_name(voted.reason.code)}: {voted.reason.message})" if voted.reason and voted.reason.code else ""
    return f"the vote {voted.vote.name}{why}"


def end_text(ended: OnePhaseEnded) -> str:
    """The same for a one-phase attempt."""
    why = f" ({ended.reason.message})" if ended.reason else ""
    return f"{Outcome(ended.outcome).name}{why}"
