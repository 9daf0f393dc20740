"""What the participant's node remembers: branches, and what it knows of each coordinator's log."""

from __future__ import annotations

import enum

from participant.protocol import State
from participant.resources import Plan
from troth.messages import Mark, Peer
from troth.v1.types_pb2 import Reason
from troth.words import AttemptId, Outcome


class Due(enum.IntEnum):
    """What the timer is for."""

    LOCK = 1
    INQUIRE = 2
    FORGET = 3


class Branch:
    """One branch; `state` moves only in `Participant._move` (`node.py`)."""

    __slots__ = (
        "alone",
        "asked_at",
        "attempt",
        "callers",
        "carrying",
        "done",
        "from_before",
        "known",
        "operations",
        "peer_callers",
        "peers",
        "plan",
        "read_only",
        "reason",
        "rows",
        "since",
        "state",
        "why",
    )

    def __init__(self, attempt: AttemptId, since: float) -> None:
        self.attempt = attempt
        self.state = State.UNKNOWN
        self.since = since
        """Monotonic time of arrival, or of the start when it was found."""
        self.operations = b""
        self.plan: Plan | None = None
        self.alone = False
        """One-phase."""
        self.read_only = False
        self.peers: tuple[Peer, ...] = ()
        self.rows = b""
        self.reason: Reason | None = None
        self.callers: list[int] = []
        """Single calls that wait for its vote or acknowledgement."""
        self.peer_callers: list[int] = []
        self.carrying = 0
        """Jobs of it that a resource outside the file is doing its part of."""
        self.asked_at: float | None = None
        """When it asked first without any answer since."""
        self.from_before = False
        """Found in doubt at start, with its data at a resource outside the file: the life before may have ended it
        there and died before that was written down. So it votes no more, and is nobody else's work when it is ended."""
        self.why = ""
        """What its last inquiry brought, for people."""
        self.done: Outcome | None = None
        """What a person did."""
        self.known: Outcome | None = None
        """The true outcome of a branch that a person resolved."""

    @property
    def torn(self) -> bool:
        """A person resolved it otherwise than it truly ended (rule 12)."""
        return self.known is not None and self.known is not self.done


class Log:
    """What is known of one coordinator log."""

    __slots__ = ("address", "branches", "dirty", "excepted", "lane", "low", "name", "remembered")

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ""
        self.lane: int | None = None
        self.branches: dict[int, Branch] = {}
        self.low = 0
        self.excepted: frozenset[int] = frozenset()
        self.dirty = False
        """The mark has moved since it was last written, or a branch has ended below it."""
        self.remembered: list[int] = []
        """Heap of the numbers whose branches are in REMEMBERED."""

    def below(self, number: int) -> bool:
        """Below the low-water mark: below and not listed (rule 7)."""
        return number < self.low and number not in self.excepted

    def join(self, mark: Mark) -> None:
        """The union of all marks: what was once below stays below."""
        new = frozenset(mark.excepted)
        both = (n for n in self.excepted if n >= mark.low or n in new)
        self.excepted = frozenset(both) | frozenset(n for n in new if n >= self.low or n in self.excepted)
        self.low = max(self.low, mark.low)
