"""What coordinator and participant say to each other, as values.

Every message is of an attempt, named by its number in the coordinator's log (the lane says which log). `wire.py` turns
these into the lane's protobuf batches and back; the nodes and the simulator see only these.
"""

from __future__ import annotations

from typing import NamedTuple

from troth.v1 import types_pb2
from troth.words import Answer, Outcome, Vote


class Peer(NamedTuple):
    """An updating participant of an attempt, so that another one in doubt can ask it (rule 6)."""

    participant: str
    address: str
    identity: str


# From coordinator to participant.


class Prepare(NamedTuple):
    """Prepare this branch and vote."""

    number: int
    operations: bytes
    read_only: bool
    peers: tuple[Peer, ...]


class OnePhase(NamedTuple):
    """Decide this branch alone; only the named incarnation may (rule 13)."""

    number: int
    operations: bytes
    incarnation: int


class Commit(NamedTuple):
    """The attempt committed; acknowledge once it is durable there."""

    number: int


class Abort(NamedTuple):
    """The attempt aborted; never acknowledged."""

    number: int


class Release(NamedTuple):
    """A read-only branch may let its shared locks go; never acknowledged."""

    number: int


class Mark(NamedTuple):
    """Every attempt below `low` that is not in `excepted` (ascending) is ended (rule 7)."""

    low: int
    excepted: tuple[int, ...]


# Either way.


class Question(NamedTuple):
    """How did this attempt end? From a participant in doubt, or from the coordinator about a one-phase attempt."""

    number: int


class Answered(NamedTuple):
    """The answer to a question. NONE is never sent on a lane."""

    number: int
    answer: Answer


# From participant to coordinator.


class Voted(NamedTuple):
    """A vote, with the incarnation that gives it (rule 9)."""

    number: int
    vote: Vote
    incarnation: int
    rows: bytes = b""
    """An encoded `Rows`; joined by appending."""
    reason: types_pb2.Reason | None = None


class OnePhaseEnded(NamedTuple):
    """How a one-phase attempt ended: COMMITTED (durable) or ABORTED."""

    number: int
    outcome: Outcome
    rows: bytes = b""
    reason: types_pb2.Reason | None = None


class Acknowledged(NamedTuple):
    """The commit is durable here; or a person had resolved the branch, and how."""

    number: int
    heuristic: Outcome | None = None


ToParticipant = Prepare | OnePhase | Commit | Abort | Release | Mark | Question | Answered
ToCoordinator = Voted | OnePhaseEnded | Acknowledged | Question | Answered
