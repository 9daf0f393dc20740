"""What goes into the participant's node, what comes out, and what it writes.

`Participant.step(event, now)` takes one event and returns effects. Jobs are what the writer thread runs, in the
order in which the node numbered them (`Write.n`, ascending by one); `Flushed` reports them durable, with their results.
"""

from __future__ import annotations

from typing import NamedTuple

from participant.resources import Plan
from troth.messages import Mark, Peer, ToCoordinator, ToParticipant
from troth.v1 import types_pb2
from troth.words import Answer, AttemptId, Outcome

# Jobs: one each in the writer's queue.


class Try(NamedTuple):
    """Try a branch; when it succeeds and is not read-only, insert its prepared record. Result: Tried or Denied."""

    attempt: AttemptId
    operations: bytes
    plan: Plan
    read_only: bool
    peers: tuple[Peer, ...]
    at: float
    """Wall time, for people."""
    tried: Tried | None = None
    """What a resource outside the file found, which has prepared the branch: only its record is to be written."""


class RunAlone(NamedTuple):
    """One-phase: try, apply and remember COMMITTED in one step. Result: Tried or Denied."""

    attempt: AttemptId
    operations: bytes
    plan: Plan
    at: float
    tried: Tried | None = None
    """What a resource outside the file found, which has committed the branch."""


class Apply(NamedTuple):
    """Apply a prepared branch, delete its prepared record, remember COMMITTED. No result."""

    attempt: AttemptId
    operations: bytes
    plan: Plan
    at: float


class Undo(NamedTuple):
    """Delete the prepared record (if any) and remember ABORTED; also the durable refusal of an attempt that has not
    voted or voted NO. No result."""

    attempt: AttemptId
    plan: Plan | None
    at: float


class Resolve(NamedTuple):
    """A heuristic outcome: apply or undo a prepared branch as a person said, keep it as heuristic with its peers, and
    write the audit log. No result."""

    attempt: AttemptId
    operations: bytes
    plan: Plan
    outcome: Outcome
    reason: str
    at: float


class Learn(NamedTuple):
    """The true outcome of a branch that was resolved by hand is known: keep both. No result."""

    attempt: AttemptId
    outcome: Outcome
    at: float


class Contradict(NamedTuple):
    """A branch turned out to be ended otherwise than its coordinator says, by somebody at the server that holds its
    data: keep it as heuristic, with both. No result."""

    attempt: AttemptId
    operations: bytes
    done: Outcome
    known: Outcome
    at: float


class Forget(NamedTuple):
    """Keep this mark (already the union of all) for the log and drop remembered attempts below it. No result."""

    log: str
    mark: Mark
    held: tuple[int, ...] = ()
    """Attempts below it that are not ended here: a resource outside the file goes on remembering them."""


class Note(NamedTuple):
    """Remember a coordinator log: its present epoch and address. No result."""

    log: str
    address: str


BranchJob = Try | RunAlone | Apply | Undo | Resolve | Learn | Contradict
"""Jobs of one branch: those that a resource outside the file has a part in."""

Job = BranchJob | Forget | Note


class Tried(NamedTuple):
    """The trial succeeded. `values` as in `resources.Prepared`."""

    rows: bytes
    values: dict[tuple[tuple[object, ...], str], int]


class Denied(NamedTuple):
    """The trial said no."""

    reason: types_pb2.Reason


JobResult = Tried | Denied | None


class Ended(NamedTuple):
    """A resource outside the file cannot end a branch as it was told: somebody has ended it there, in this way."""

    found: Outcome


# What is found at start.


class Heuristic(NamedTuple):
    """A branch that a person resolved."""

    attempt: AttemptId
    done: Outcome
    known: Outcome | None
    """The true outcome, once known."""
    at: float
    peers: tuple[Peer, ...]


class Found(NamedTuple):
    """A prepared record."""

    attempt: AttemptId
    operations: bytes
    plan: Plan
    values: dict[tuple[tuple[object, ...], str], int]
    peers: tuple[Peer, ...]
    at: float


class Recovered(NamedTuple):
    """Everything the vote log holds at start."""

    prepared: tuple[Found, ...]
    finished: tuple[tuple[AttemptId, Outcome], ...]
    heuristics: tuple[Heuristic, ...]
    marks: tuple[tuple[str, Mark], ...]
    addresses: tuple[tuple[str, str], ...]
    """Log identity and the address its coordinator had."""


# Events.


class LaneOpened(NamedTuple):
    """A coordinator's lane opened. The effects begin with the `Hello` to answer with."""

    lane: int
    log: str
    address: str


class LaneLost(NamedTuple):
    """That lane is gone."""

    lane: int


class Received(NamedTuple):
    """Messages from the coordinator of `log`, by lane, or by a single call (`caller` set; its votes and
    acknowledgements go there as `Reply`)."""

    log: str
    messages: tuple[ToParticipant, ...]
    caller: int | None = None


class Flushed(NamedTuple):
    """Every job up to number `upto` is durable; the results of those that have one, in order."""

    upto: int
    results: tuple[tuple[int, Tried | Denied], ...]


class Carried(NamedTuple):
    """The resource outside the file has done its part of job `n` (`Carry`)."""

    n: int
    result: Tried | Denied | Ended | None
    """Tried or Denied of a trial; Ended of an end that contradicts another one; else None."""


class FoundEnded(NamedTuple):
    """A prepared branch is not prepared any more at the server that holds its data: somebody ended it there."""

    attempt: AttemptId
    outcome: Outcome


class CoordinatorAnswered(NamedTuple):
    """What the coordinator's Inquiries service said; None when it did not answer."""

    attempt: AttemptId
    answer: Answer | None


class PeerAnswered(NamedTuple):
    """What a peer said; None or NONE when it did not."""

    attempt: AttemptId
    peer: Peer
    answer: Answer | None


class PeerAsked(NamedTuple):
    """Somebody asks how an attempt ended (rule 6); answered by `Reply` with an `Answer`. `identity` is the file the
    question is meant for."""

    caller: int
    attempt: AttemptId
    identity: str


class ResolveAsked(NamedTuple):
    """A person resolves a branch; answered by `Reply` with a sentence, or `Refused`."""

    caller: int
    attempt: AttemptId
    outcome: Outcome
    reason: str


class Ticked(NamedTuple):
    """The time that was asked for by `WakeAt` has come."""


Event = (
    LaneOpened
    | LaneLost
    | Received
    | Flushed
    | Carried
    | FoundEnded
    | CoordinatorAnswered
    | PeerAnswered
    | PeerAsked
    | ResolveAsked
    | Ticked
)


# Effects.


class Hello(NamedTuple):
    """Answer the lane's hello with these questions."""

    lane: int
    questions: tuple[int, ...]


class Write(NamedTuple):
    """Queue this job; `forced` when something waits for it to be durable, be it an acknowledgement."""

    n: int
    job: Job
    forced: bool


class Carry(NamedTuple):
    """Have the resource outside the file do its part of this job, behind its part of every earlier job of the same
    attempt; `Carried` says when. Its record is queued only then."""

    n: int
    job: BranchJob


class Send(NamedTuple):
    """Send on the present lane of that log; dropped by the driver when there is none."""

    log: str
    message: ToCoordinator


class Reply(NamedTuple):
    """Answer a single call: a message, an Answer, a sentence, or Refused."""

    caller: int
    value: ToCoordinator | Answer | str | Refused


class Refused(NamedTuple):
    """A person's command that would contradict what is known; one sentence."""

    message: str


class AskCoordinator(NamedTuple):
    """Ask the Inquiries service at that address."""

    attempt: AttemptId
    address: str


class AskPeer(NamedTuple):
    """Ask that peer's Branches.Outcome."""

    attempt: AttemptId
    peer: Peer


class WakeAt(NamedTuple):
    """Send Ticked at this monotonic time (the earliest asked for counts)."""

    at: float


class Alarm(NamedTuple):
    """What needs a human: logged, counted, shown by status."""

    message: str


Effect = Hello | Write | Carry | Send | Reply | AskCoordinator | AskPeer | WakeAt | Alarm
