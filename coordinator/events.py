"""What goes into the coordinator's node, what comes out, and what it writes.

`Coordinator.step(event, now)` takes one event and returns effects. Records are appended to the decision log in the
order in which the node numbered them (`Append.n`, ascending by one); `Durable` reports how far they are on disk.
"""

from __future__ import annotations

from typing import NamedTuple

from troth.messages import ToCoordinator, ToParticipant
from troth.v1 import types_pb2
from troth.words import Answer, Outcome

# Records of the decision log.


class Owed(NamedTuple):
    """A branch as the log names it. `updating` ones acknowledge a commit."""

    participant: str
    identity: str
    updating: bool


class Committed(NamedTuple):
    """The decision: the attempt committed, and these participants owe an acknowledgement. With no updating branch it
    is ended at once (an all-READ_ONLY outcome of a client's id)."""

    number: int
    id: str | None
    """The client's id; None when the coordinator assigned it (then `AttemptId.__str__` of the number is the id)."""
    digest: bytes
    branches: tuple[Owed, ...]
    read: bool
    """Whether rows were read, so that a later answer can say they are not kept."""
    at: float


class Aborted(NamedTuple):
    """A client's id is ABORTED for good. `digest` is None when `abort ID` wrote it: it matches any content.
    Replaces a Claimed record of the same id."""

    number: int
    id: str
    digest: bytes | None
    reason: types_pb2.Reason
    at: float


class Claimed(NamedTuple):
    """The submitted record of a one-phase attempt of a client's id (rule 13)."""

    number: int
    id: str
    digest: bytes
    participant: str
    identity: str
    incarnation: int
    read: bool
    at: float


class Settled(NamedTuple):
    """The claimed one-phase attempt committed: its outcome, ended."""

    number: int
    at: float


class Dropped(NamedTuple):
    """The claimed one-phase attempt aborted and the id is tried again: the attempt is forgotten, so aborted."""

    number: int


class Ended(NamedTuple):
    """Every owed acknowledgement of a committed attempt is in."""

    number: int
    at: float


class Heuristic(NamedTuple):
    """A participant acknowledged a commit as resolved by hand; or a person settled its branch here (`reason` set)."""

    number: int
    participant: str
    done: Outcome
    reason: str
    at: float


class Cleared(NamedTuple):
    """A person cleared the heuristic records of one branch."""

    number: int
    participant: str
    at: float


class Expired(NamedTuple):
    """Move the horizon to `horizon` (wall seconds), or further when more than `answers_max` ended outcomes would be
    left; keep it durably, and drop ended outcomes of ids with a time below it, and of ids without one and assigned
    ones that ended before `ended_before`. Result: the horizon reached, which never goes back."""

    horizon: float
    ended_before: float
    answers_max: int


class Known(NamedTuple):
    """The file identity now seen under a participant's name."""

    participant: str
    identity: str


Record = Committed | Aborted | Claimed | Settled | Dropped | Ended | Heuristic | Cleared | Expired | Known


# What a look-up or the start finds.


class Entry(NamedTuple):
    """One attempt as the decision log holds it."""

    number: int
    id: str | None
    digest: bytes | None
    state: Outcome | None
    """COMMITTED, ABORTED, or None for a one-phase attempt that is claimed and open."""
    branches: tuple[Owed, ...]
    incarnation: int
    """Of the claimed one-phase attempt; else 0."""
    read: bool
    reason: types_pb2.Reason | None
    at: float
    ended_at: float | None
    heuristics: tuple[tuple[str, Outcome], ...]


class Recovered(NamedTuple):
    """What the log holds at start: attempts not ended, the heuristics kept, and the rest of its state."""

    open: tuple[Entry, ...]
    heuristics: tuple[Heuristic, ...]
    horizon: float
    known: tuple[tuple[str, str], ...]
    """Participant names and the file identities last seen under them."""
    newest: str
    """The greatest UUIDv7 among the ids that the log holds; empty without one."""


# What clients hand in.


class Branch(NamedTuple):
    """The part of a submission at one participant; `operations` is an encoded `Operations`."""

    participant: str
    operations: bytes
    read_only: bool
    reads: bool
    """Whether it has a `read` operation."""
    length: int
    """Its number of operations."""


class Submission(NamedTuple):
    """One transaction to run. `id` is empty when the coordinator shall assign one."""

    id: str
    digest: bytes
    branches: tuple[Branch, ...]
    timeout_s: float
    wait_applied: bool


# Events.


class Submitted(NamedTuple):
    """A client submits; answered by one `Reply` with a Result."""

    client: int
    submission: Submission


class AbortAsked(NamedTuple):
    """A client fences an id; answered by one `Reply` with a Result."""

    client: int
    id: str


class ResolveAsked(NamedTuple):
    """A person settles a branch here, or clears its heuristic records; answered by `Reply` with a sentence or
    Refusal."""

    client: int
    id: str
    participant: str
    outcome: Outcome | None
    """None to clear."""
    reason: str


class LookedUp(NamedTuple):
    """What the log holds for a look-up: by client's id (str) or by attempt number (int)."""

    key: str | int
    entry: Entry | None


class Decided(NamedTuple):
    """What `decide` returned for an id: the first writer's attempt and outcome (rule 2)."""

    id: str
    number: int
    outcome: Outcome


class Durable(NamedTuple):
    """Every record up to number `upto` is on disk."""

    upto: int


class HorizonMoved(NamedTuple):
    """The result of an Expired record: ids with a time below this are refused as expired (rule 11)."""

    horizon: float


class LaneOpened(NamedTuple):
    """A lane is open; the hello's facts."""

    participant: str
    identity: str
    incarnation: int
    address: str
    questions: tuple[int, ...]


class LaneLost(NamedTuple):
    """A lane is gone, or could not be opened, and why."""

    participant: str
    why: str


class Received(NamedTuple):
    """Messages from a participant's present lane."""

    participant: str
    messages: tuple[ToCoordinator, ...]


class Asked(NamedTuple):
    """A participant asks by a single call; answered by `Reply` with an Answer (NONE: alarm, no answer)."""

    client: int
    log: str
    number: int


class Ticked(NamedTuple):
    """The time that was asked for by `WakeAt` has come."""


Event = (
    Submitted
    | AbortAsked
    | ResolveAsked
    | LookedUp
    | Decided
    | Durable
    | HorizonMoved
    | LaneOpened
    | LaneLost
    | Received
    | Asked
    | Ticked
)


# Effects.


class Append(NamedTuple):
    """Queue this record; `forced` when something waits for it."""

    n: int
    record: Record
    forced: bool


class Decide(NamedTuple):
    """Ask the register; it answers with `Decided`, at once or later."""

    id: str
    number: int
    outcome: Outcome


class Undecide(NamedTuple):
    """The id's entry in the register may be dropped from memory: it is closed, and the log holds what must last."""

    id: str


class LookUp(NamedTuple):
    """Look in the log, behind everything queued; answered with `LookedUp`."""

    key: str | int


class Send(NamedTuple):
    """Send on the present lane of that participant; dropped by the driver when there is none."""

    participant: str
    message: ToParticipant


class Result(NamedTuple):
    """How a submission (or an abort) ended for the client."""

    id: str
    outcome: Outcome
    reason: types_pb2.Reason | None = None
    rows: bytes = b""
    """An encoded `Rows`."""
    rows_not_kept: bool = False
    applied: bool = False
    attempts: int = 0


class Refusal(NamedTuple):
    """A person's command that would contradict what is known; one sentence."""

    message: str


class Reply(NamedTuple):
    """Answer a client."""

    client: int
    value: Result | Answer | str | Refusal


class Closed(NamedTuple):
    """A submission's outcome became known: for those who watch."""

    id: str
    outcome: Outcome
    reason: types_pb2.Reason | None


class WakeAt(NamedTuple):
    """Send Ticked at this monotonic time (the earliest asked for counts)."""

    at: float


class Alarm(NamedTuple):
    """What needs a human: logged, counted, shown by status."""

    message: str


Effect = Append | Decide | Undecide | LookUp | Send | Reply | Closed | WakeAt | Alarm
