"""What the coordinator's node remembers: submissions, attempts with their branches, lanes."""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

from coordinator.events import (
    Branch,
)
from coordinator.protocol import State
from troth.messages import Peer
from troth.v1.types_pb2 import Reason
from troth.words import Now, Vote


class Due(enum.IntEnum):
    """What the timer is for."""

    ATTEMPT = 1
    RETRY = 2
    MARK = 3
    EXPIRE = 4


class Waiter(NamedTuple):
    """A client that waits for an outcome."""

    client: int
    wait_applied: bool
    until: float
    """Monotonic time at which it is answered with what is known."""
    digest: bytes | None = None
    """Of the content that it submitted; None for `abort ID`, which asks about any content."""


class Open:
    """A submission whose outcome is not yet known: `branches` is empty for a fence (`abort ID`) and for a one-phase
    attempt found at start, until somebody submits its content again."""

    __slots__ = (
        "abort_wanted",
        "attempt",
        "attempts",
        "branches",
        "chosen",
        "deadline",
        "digest",
        "first",
        "id",
        "looking",
        "reason",
        "resume",
        "since",
        "steps",
        "submitted_at",
        "timed",
        "waiters",
    )

    def __init__(self, id: str, *, chosen: bool, digest: bytes | None, branches: tuple[Branch, ...], now: Now) -> None:
        self.id = id
        self.chosen = chosen
        self.digest = digest
        self.branches = branches
        self.deadline = now.mono
        self.timed = 0.0
        """The deadline that a timer is set for."""
        self.resume = math.inf
        """When the pause between two attempts is over; infinite while it waits for lanes."""
        self.waiters: list[Waiter] = []
        self.attempt: Attempt | None = None
        self.attempts = 0
        self.first = 0
        """The number behind an assigned id; an attempt that starts at once has it."""
        self.looking = False
        """The log is being looked through for the id."""
        self.abort_wanted = False
        self.reason: Reason | None = None
        """Why the last attempt failed."""
        self.since = now.mono
        self.submitted_at = now.wall
        self.steps: list[tuple[float, str, str]] = []


class Part:
    """One branch of an attempt as the coordinator follows it."""

    __slots__ = ("branch", "identity", "incarnation", "vote")

    def __init__(self, branch: Branch, identity: str, incarnation: int) -> None:
        self.branch = branch
        self.identity = identity
        """The file that the branch was sent to; only that file can answer for it."""
        self.incarnation = incarnation
        self.vote: Vote | None = None


class Attempt:
    """One attempt; `state` moves only in `Coordinator._move`."""

    __slots__ = (
        "alone",
        "applied",
        "due",
        "id",
        "missing",
        "number",
        "owed",
        "parts",
        "read",
        "rows",
        "rows_lost",
        "since",
        "state",
        "submission",
    )

    def __init__(self, number: int, id: str, submission: Open | None, since: float) -> None:
        self.number = number
        self.id = id
        """The transaction's."""
        self.submission = submission
        self.state = State.NEW
        self.since = since
        self.due = math.inf
        """When its timer is due; an earlier entry of the heap no longer counts."""
        self.parts: dict[str, Part] = {}
        self.missing = 0
        self.alone = False
        """One-phase."""
        self.read = False
        self.rows: list[bytes] = []
        self.rows_lost = False
        self.owed: dict[str, str] = {}
        """Participants that have not acknowledged the commit, with the file identity that owes it."""
        self.applied: list[Waiter] = []
        """Clients that wait until everybody has applied."""


class Lane:
    """What is known of one participant."""

    __slots__ = ("address", "identity", "incarnation", "known", "open", "peer", "unanswered", "why")

    def __init__(self, address: str) -> None:
        self.address = address
        self.peer: Peer | None = None
        """How prepares name it to the others, as its last hello said."""
        self.open = False
        self.identity = ""
        self.incarnation = 0
        self.known = ""
        """The identity last seen under this name, kept in the log."""
        self.unanswered: set[int] = set()
        """Questions of its hello that must be answered before the first prepare (rule 6)."""
        self.why = "not connected yet"

    @property
    def ready(self) -> bool:
        return self.open and not self.unanswered
