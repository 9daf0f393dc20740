"""A driver of the shipped nodes for tests: virtual time, a network and disks that lose what they may lose.

One coordinator and some participants in one thread. Whoever holds a `World` decides what happens next: which message
arrives (late, twice, never), whose log is flushed, who crashes and who comes back. Disks keep exactly what was flushed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import coordinator.events as ce
import participant.events as pe
from coordinator.node import Coordinator
from coordinator.settings import CoordinatorSettings
from participant.node import Participant
from participant.resources import INTEGER_MAX, INTEGER_MIN, Add, InDoubt, Lock, Mode, No, Plan, Prepared, Resource
from participant.settings import ParticipantSettings
from troth.messages import Acknowledged, Mark, OnePhase, Peer, Prepare, Voted
from troth.reasons import reason
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code
from troth.words import Answer, AttemptId, Now, Outcome, Vote

LOG = "00000000000000aa"


def operations(*ops: tuple[Any, ...]) -> bytes:
    """("add", key, by[, min]), ("check", key, at_least), ("read", key), ("set", key, value) on one table of integers."""
    found = types_pb2.Operations()
    for position, (kind, key, *rest) in enumerate(ops):
        op = found.operations.add(position=position, table="t", key=[types_pb2.Value(text=key)])
        if kind == "add":
            op.add.column = "v"
            op.add.by.integer = rest[0]
            if len(rest) > 1:
                op.add.min.integer = rest[1]
        elif kind == "check":
            op.check.column = "v"
            op.check.at_least.integer = rest[0]
        elif kind == "read":
            op.read.SetInParent()
        else:
            op.upsert.values.add(name="v", value=types_pb2.Value(integer=rest[0]))
    return found.SerializeToString()


class Memory(Resource):
    """Integers by key, under the contract of `participant.resources`. Rows hold at least 0."""

    def __init__(self, data: dict[str, int]) -> None:
        self.data = data

    def plan(self, encoded: bytes) -> Plan:
        work = []
        modes: dict[str, list[tuple[Mode, Add | None]]] = {}
        for op in types_pb2.Operations.FromString(encoded).operations:
            key, kind = op.key[0].text, op.WhichOneof("kind")
            if kind == "add":
                low = op.add.min.integer if op.add.HasField("min") else INTEGER_MIN
                add = Add("v", op.add.by.integer, low, INTEGER_MAX, op.position)
                modes.setdefault(key, []).append((Mode.INCREMENT, add))
                work.append((kind, key, add, op.position))
            elif kind == "upsert":
                modes.setdefault(key, []).append((Mode.EXCLUSIVE, None))
                work.append((kind, key, op.upsert.values[0].value.integer, op.position))
            else:
                modes.setdefault(key, []).append((Mode.SHARED, None))
                work.append((kind, key, op.check.at_least.integer if kind == "check" else None, op.position))
        locks = []
        for key, wanted in modes.items():
            kinds = {mode for mode, _ in wanted}
            mode = kinds.pop() if len(kinds) == 1 else Mode.EXCLUSIVE
            adds = tuple(add for _, add in wanted if add is not None) if mode is Mode.INCREMENT else ()
            locks.append(Lock(("row", "t", key), mode, adds))
        return Plan(tuple(locks), tuple(work), all(kind in ("check", "read") for kind, *_ in work))

    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        rows = types_pb2.Rows()
        trial = dict(self.data)
        for kind, key, argument, position in plan.work:
            if kind == "add":
                if key not in trial:
                    raise No(reason(Code.CODE_ROW_MISSING, "no row", operation=position))
                trial[key] += argument.by
                if not argument.low <= trial[key] <= argument.high:
                    raise No(reason(Code.CODE_BELOW_MIN, "below", operation=position))
            elif kind == "upsert":
                trial[key] = argument
            elif kind == "check":
                if trial.get(key, -1) < argument:
                    raise No(reason(Code.CODE_CHECK_FAILED, "check", operation=position))
            else:
                row = rows.rows.add(position=position, table="t", present=key in trial)
                row.values.add(name="v", value=types_pb2.Value(integer=trial.get(key, 0)))
        return Prepared(rows.SerializeToString(), self._values(plan))

    def _values(self, plan: Plan) -> dict[Any, int]:
        locks = [lock for lock in plan.locks if lock.mode is Mode.INCREMENT]
        return {(lock.name, "v"): self.data[lock.name[2]] for lock in locks if lock.name[2] in self.data}

    def commit(self, attempt: AttemptId, plan: Plan) -> None:
        for kind, key, argument, _ in plan.work:
            if kind == "add":
                self.data[key] += argument.by
                assert argument.low <= self.data[key] <= argument.high, (
                    f"a YES was not applicable: {key} {self.data[key]}"
                )
            elif kind == "upsert":
                self.data[key] = argument

    def abort(self, attempt: AttemptId, plan: Plan | None) -> None:
        pass

    def recover(self, prepared: Sequence[tuple[AttemptId, bytes]]) -> list[InDoubt]:
        plans = [(attempt, self.plan(encoded)) for attempt, encoded in prepared]
        return [InDoubt(attempt, plan, self._values(plan)) for attempt, plan in plans]


@dataclass
class VoteDisk:
    """A participant's file, in memory."""

    data: dict[str, int]
    prepared: dict[AttemptId, pe.Try] = field(default_factory=dict)
    finished: dict[AttemptId, Outcome] = field(default_factory=dict)
    heuristics: dict[AttemptId, pe.Heuristic] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    applied: list[AttemptId] = field(default_factory=list)
    """Every attempt ever applied, in order: for the checks, not for the node."""

    def run(self, job: pe.Job) -> pe.JobResult:
        resource = Memory(self.data)
        if isinstance(job, pe.Try | pe.RunAlone):
            try:
                tried = resource.prepare(job.attempt, job.plan)
            except No as no:
                return pe.Denied(no.reason)
            if isinstance(job, pe.RunAlone):
                resource.commit(job.attempt, job.plan)
                self.finished[job.attempt] = Outcome.COMMITTED
                self.applied.append(job.attempt)
            elif not job.read_only:
                self.prepared[job.attempt] = job
            return pe.Tried(tried.rows, tried.values)
        if isinstance(job, pe.Apply):
            resource.commit(job.attempt, job.plan)
            del self.prepared[job.attempt]
            self.finished[job.attempt] = Outcome.COMMITTED
            self.applied.append(job.attempt)
        elif isinstance(job, pe.Undo):
            self.prepared.pop(job.attempt, None)
            self.finished[job.attempt] = Outcome.ABORTED
        elif isinstance(job, pe.Resolve):
            found = self.prepared.pop(job.attempt)
            if job.outcome is Outcome.COMMITTED:
                resource.commit(job.attempt, job.plan)
            self.heuristics[job.attempt] = pe.Heuristic(job.attempt, job.outcome, None, job.at, found.peers)
        elif isinstance(job, pe.Learn):
            self.heuristics[job.attempt] = self.heuristics[job.attempt]._replace(known=job.outcome)
        elif isinstance(job, pe.Forget):
            self.marks[job.log] = job.mark
            ended = [
                a
                for a in self.finished
                if a.log == job.log and a.number < job.mark.low and a.number not in job.mark.excepted
            ]
            for attempt in ended:
                del self.finished[attempt]
        else:
            self.addresses[job.log] = job.address
        return None

    def recovered(self) -> pe.Recovered:
        found = Memory(self.data).recover([(a, job.operations) for a, job in self.prepared.items()])
        prepared = [
            pe.Found(
                one.attempt,
                self.prepared[one.attempt].operations,
                one.plan,
                one.values,
                self.prepared[one.attempt].peers,
                0.0,
            )
            for one in found
        ]
        return pe.Recovered(
            tuple(prepared),
            tuple(self.finished.items()),
            tuple(self.heuristics.values()),
            tuple(self.marks.items()),
            tuple(self.addresses.items()),
        )


@dataclass
class DecisionDisk:
    """The coordinator's log, in memory."""

    epoch: int = 0
    entries: dict[int, ce.Entry] = field(default_factory=dict)
    heuristics: list[ce.Heuristic] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)
    horizon: float = 0.0

    def run(self, record: ce.Record) -> None:
        match record:
            case ce.Committed():
                ended = None if any(owed.updating for owed in record.branches) else record.at
                self._insert(
                    record.number,
                    record.id,
                    record.digest,
                    Outcome.COMMITTED,
                    record.branches,
                    0,
                    record.read,
                    None,
                    ended,
                )
            case ce.Aborted():
                for number in [n for n, e in self.entries.items() if e.id == record.id and e.state is None]:
                    del self.entries[number]
                self._insert(
                    record.number, record.id, record.digest, Outcome.ABORTED, (), 0, False, record.reason, record.at
                )
            case ce.Claimed():
                owed = (ce.Owed(record.participant, record.identity, True),)
                self._insert(
                    record.number, record.id, record.digest, None, owed, record.incarnation, record.read, None, None
                )
            case ce.Settled():
                entry = self.entries[record.number]
                self.entries[record.number] = entry._replace(state=Outcome.COMMITTED, ended_at=record.at)
            case ce.Dropped():
                del self.entries[record.number]
            case ce.Ended():
                self.entries[record.number] = self.entries[record.number]._replace(ended_at=record.at)
            case ce.Heuristic():
                self.heuristics.append(record)
                entry = self.entries[record.number]
                kept = (*entry.heuristics, (record.participant, record.done))
                self.entries[record.number] = entry._replace(heuristics=kept)
            case ce.Cleared():
                self.heuristics = [
                    h for h in self.heuristics if (h.number, h.participant) != (record.number, record.participant)
                ]
            case ce.Expired():
                self.horizon = max(self.horizon, record.horizon)
            case ce.Known():
                self.known[record.participant] = record.identity

    def _insert(
        self,
        number: int,
        id: str | None,
        digest: bytes | None,
        state: Any,
        branches: Any,
        incarnation: int,
        read: bool,
        why: Any,
        ended: float | None,
    ) -> None:
        assert id is None or id not in [e.id for e in self.entries.values()], f"{id} has two outcomes"
        self.entries[number] = ce.Entry(number, id, digest, state, branches, incarnation, read, why, 0.0, ended, ())

    def look_up(self, key: str | int) -> ce.Entry | None:
        if isinstance(key, int):
            return self.entries.get(key)
        return next((entry for entry in self.entries.values() if entry.id == key), None)

    def recovered(self) -> ce.Recovered:
        open_ = tuple(entry for entry in self.entries.values() if entry.ended_at is None)
        return ce.Recovered(open_, tuple(self.heuristics), self.horizon, tuple(self.known.items()))


@dataclass
class Letter:
    """A message on its way on one lane."""

    lane: int
    to: str
    message: Any


class World:
    """Everything, and the moves that a test can make."""

    def __init__(
        self,
        participants: Sequence[str] = ("a", "b"),
        data: dict[str, int] | None = None,
        coordinator_settings: CoordinatorSettings | None = None,
        participant_settings: ParticipantSettings | None = None,
    ) -> None:
        self.names = list(participants)
        self.coordinator_settings = coordinator_settings or CoordinatorSettings()
        self.participant_settings = participant_settings or ParticipantSettings()
        self.mono = 1000.0
        self.decision_disk = DecisionDisk()
        self.vote_disks = {name: VoteDisk(dict(data or {"x": 10, "y": 10})) for name in self.names}
        self.identities = {name: f"file-{name}" for name in self.names}
        self.registers: dict[str, tuple[int, Outcome]] = {}
        self.coordinator: Coordinator | None = None
        self.participants: dict[str, Participant] = {}
        self.queues: dict[str, list[tuple[int, Any, bool]]] = {}
        self.net: list[Letter] = []
        self.calls: list[Callable[[], None]] = []
        """Single calls between participants on their way."""
        self.lanes: dict[str, int] = {}
        self.wakes: dict[str, float] = {}
        self.replies: dict[int, Any] = {}
        """What clients heard, by client number."""
        self.alarms: list[str] = []
        self.trace: list[str] = []
        self._counter = 0
        self._lane = 0
        self.votes: dict[tuple[int, str], Any] = {}
        """Every vote that left a participant: (number, name) -> Voted."""
        self.acknowledged: set[tuple[int, str]] = set()
        self.sent: dict[int, dict[str, Any]] = {}
        """Every prepare and one-phase request that was sent: number -> participant -> message."""
        self.ids: dict[int, str] = {}
        """The transaction id of every attempt that was sent."""
        self.submitted: dict[int, str] = {}
        """The id that each client submitted under, "" when it chose none."""
        for name in self.names:
            self.start(name)
        self.start("coordinator")
        for name in self.names:
            self.open_lane(name)

    # Moves.

    @property
    def now(self) -> Now:
        return Now(self.mono, self.mono)

    def start(self, name: str) -> None:
        """A new incarnation from what is on its disk."""
        self.queues[name] = []
        self._counter += 1
        if name == "coordinator":
            self.decision_disk.epoch += 1
            self.registers = {
                e.id: (e.number, e.state) for e in self.decision_disk.entries.values() if e.id and e.state
            }
            disk = self.decision_disk
            addresses = {each: f"addr-{each}" for each in self.names}
            self.coordinator = Coordinator(LOG, disk.epoch, self.coordinator_settings, addresses, disk.recovered())
            self.perform("coordinator", self.coordinator.start(self.now))
        else:
            disk_ = self.vote_disks[name]
            node = Participant(
                name,
                self.identities[name],
                self._counter,
                self.participant_settings,
                Memory(disk_.data).plan,
                disk_.recovered(),
            )
            self.participants[name] = node
            self.perform(name, node.start(self.now))

    def crash(self, name: str, surviving: int = 0) -> None:
        """Kills a process. The first `surviving` queued jobs reached the disk unannounced; the rest are lost."""
        self.trace.append(f"crash {name} ({surviving} of {len(self.queues[name])} unannounced survive)")
        for _, job, _ in self.queues[name][:surviving]:
            self._run(name, job)
        self.queues[name] = []
        self.wakes.pop(name, None)
        if name == "coordinator":
            self.coordinator = None
            for each in list(self.lanes):
                self.lose_lane(each)
        else:
            del self.participants[name]
            self.lose_lane(name)

    def open_lane(self, name: str) -> None:
        """The coordinator dials; both say hello."""
        if self.coordinator is None or name not in self.participants or name in self.lanes:
            return
        self._lane += 1
        self.lanes[name] = self._lane
        node = self.participants[name]
        self.feed(name, pe.LaneOpened(self._lane, LOG, "coordinator"))

    def lose_lane(self, name: str) -> None:
        """The lane breaks; what was on it is lost or may still arrive at the coordinator's side never."""
        lane = self.lanes.pop(name, None)
        if lane is None:
            return
        self.trace.append(f"lane {name} lost")
        self.net = [letter for letter in self.net if letter.lane != lane]
        if name in self.participants:
            self.feed(name, pe.LaneLost(lane))
        if self.coordinator is not None:
            self.feed("coordinator", ce.LaneLost(name, "lost"))

    def flush(self, name: str, count: int | None = None) -> None:
        """Makes the first `count` queued jobs durable (all by default) and tells the node."""
        queue = self.queues[name][:count]
        if not queue:
            return
        self.queues[name] = self.queues[name][len(queue) :]
        results = [(n, self._run(name, job)) for n, job, _ in queue]
        upto = queue[-1][0]
        if name == "coordinator":
            self.feed(name, ce.Durable(upto))
        else:
            self.feed(name, pe.Flushed(upto, tuple((n, r) for n, r in results if r is not None)))

    def deliver(self, index: int = 0, *, keep: bool = False) -> None:
        """One message arrives; kept when it is to arrive again."""
        letter = self.net[index] if keep else self.net.pop(index)
        name = (
            letter.to
            if letter.to != "coordinator"
            else next(n for n, lane in self.lanes.items() if lane == letter.lane)
        )
        if self.lanes.get(name) != letter.lane:
            return
        self.trace.append(f"-> {letter.to}: {_short(letter.message)}")
        if letter.to == "coordinator":
            self.feed("coordinator", ce.Received(name, (letter.message,)))
        else:
            self.feed(name, pe.Received(LOG, (letter.message,)))

    def pass_time(self, seconds: float) -> None:
        """Time passes; whoever asked to be woken is."""
        self.mono += seconds
        for name in sorted(n for n, at in self.wakes.items() if at <= self.mono):
            del self.wakes[name]
            self.feed(name, ce.Ticked() if name == "coordinator" else pe.Ticked())

    def submit(
        self, *branches: tuple[str, bytes], id: str = "", timeout_s: float = 30.0, wait_applied: bool = False
    ) -> int:
        """A client submits; its number. `replies` has the answer once it is there."""
        self._counter += 1
        parts = []
        for name, encoded in branches:
            work = Memory({}).plan(encoded)
            reads = any(kind == "read" for kind, *_ in work.work)
            parts.append(ce.Branch(name, encoded, work.read_only, reads, len(work.work)))
        digest = repr(branches).encode()
        client = self._counter
        self.submitted[client] = id
        self.feed("coordinator", ce.Submitted(client, ce.Submission(id, digest, tuple(parts), timeout_s, wait_applied)))
        return client

    def abort(self, id: str) -> int:
        self._counter += 1
        client = self._counter
        self.feed("coordinator", ce.AbortAsked(client, id))
        return client

    def settle(self, rounds: int = 200) -> None:
        """Flushes and delivers everything until nothing moves."""
        for _ in range(rounds):
            busy = False
            for name in ["coordinator", *self.names]:
                if self.queues[name] and (name == "coordinator" or name in self.participants):
                    self.flush(name)
                    busy = True
            while self.net:
                self.deliver()
                busy = True
            while self.calls:
                self.calls.pop(0)()
                busy = True
            if not busy:
                return
        raise AssertionError("the world does not come to rest")

    def heal(self) -> None:
        """Everything up, everything connected, time enough: liveness must follow."""
        if self.coordinator is None:
            self.start("coordinator")
        for name in self.names:
            if name not in self.participants:
                self.start(name)
        for _ in range(60):
            for name in self.names:
                self.open_lane(name)
            self.settle()
            self.pass_time(1.0)
        self.settle()

    # Inside.

    def feed(self, name: str, event: Any) -> None:
        node: Any = self.coordinator if name == "coordinator" else self.participants.get(name)
        if node is not None:
            self.perform(name, node.step(event, self.now))

    def perform(self, name: str, effects: Sequence[Any]) -> None:
        for effect in effects:
            match effect:
                case ce.Append() | pe.Write():
                    job = effect.record if isinstance(effect, ce.Append) else effect.job
                    self.queues[name].append((effect.n, job, effect.forced))
                case ce.Decide():
                    won = self.registers.setdefault(effect.id, (effect.number, effect.outcome))
                    self.feed(name, ce.Decided(effect.id, *won))
                case ce.Undecide():
                    self.registers.pop(effect.id, None)
                case ce.LookUp():
                    # Behind everything queued, so that is flushed first.
                    self.flush(name)
                    self.feed(name, ce.LookedUp(effect.key, self.decision_disk.look_up(effect.key)))
                case ce.Send():
                    self._watch_send(effect)
                    if effect.participant in self.lanes:
                        self.net.append(Letter(self.lanes[effect.participant], effect.participant, effect.message))
                case pe.Send():
                    self._watch(name, effect.message)
                    if name in self.lanes:
                        self.net.append(Letter(self.lanes[name], "coordinator", effect.message))
                case pe.Hello():
                    node = self.participants[name]
                    hello = ce.LaneOpened(name, node.identity, node.incarnation, f"addr-{name}", effect.questions)
                    self.feed("coordinator", hello)
                case ce.Reply() | pe.Reply():
                    client = effect.client if isinstance(effect, ce.Reply) else effect.caller
                    assert client not in self.replies, f"client {client} is answered twice"
                    self.replies[client] = effect.value
                case pe.AskCoordinator():
                    self.calls.append(lambda n=name, a=effect.attempt: self._ask_coordinator(n, a))
                case pe.AskPeer():
                    self.calls.append(lambda n=name, a=effect.attempt, p=effect.peer: self._ask_peer(n, a, p))
                case ce.WakeAt() | pe.WakeAt():
                    self.wakes[name] = min(effect.at, self.wakes.get(name, effect.at))
                case ce.Alarm() | pe.Alarm():
                    self.alarms.append(f"{name}: {effect.message}")

    def _watch_send(self, effect: ce.Send) -> None:
        if isinstance(effect.message, Prepare | OnePhase):
            assert self.coordinator is not None
            number = effect.message.number
            self.sent.setdefault(number, {})[effect.participant] = effect.message
            submission = self.coordinator.attempts[number].submission
            assert submission is not None
            self.ids[number] = submission.id

    def _watch(self, name: str, message: Any) -> None:
        if isinstance(message, Voted):
            attempt = AttemptId(LOG, message.number)
            if message.vote is Vote.YES:
                disk = self.vote_disks[name]
                known = attempt in disk.prepared or attempt in disk.finished or attempt in disk.heuristics
                assert known, f"{name} voted YES for {message.number} without a durable record"
        elif isinstance(message, Acknowledged) and message.heuristic is None:
            self.acknowledged.add((message.number, name))

    def _ask_coordinator(self, name: str, attempt: AttemptId) -> None:
        self._counter += 1
        answer: Answer | None = None
        if self.coordinator is not None:
            self.feed("coordinator", ce.Asked(self._counter, attempt.log, attempt.number))
            answer = self.replies.get(self._counter)
        self.feed(name, pe.CoordinatorAnswered(attempt, answer))

    def _ask_peer(self, name: str, attempt: AttemptId, peer: Peer) -> None:
        self._counter += 1
        answer: Answer | None = None
        if peer.participant in self.participants:
            self.feed(peer.participant, pe.PeerAsked(self._counter, attempt, peer.identity))
            if self._counter not in self.replies and self.queues[peer.participant]:
                self.flush(peer.participant)
            answer = self.replies.get(self._counter)
        if name in self.participants:
            self.feed(name, pe.PeerAnswered(attempt, peer, answer))

    def _run(self, name: str, job: Any) -> Any:
        if name == "coordinator":
            self.decision_disk.run(job)
            return None
        return self.vote_disks[name].run(job)

    # Checks.

    def check(self, initial: dict[str, int] | None = None) -> None:
        """Agreement, validity, stability, at most once, nothing left over: from the disks and from what clients heard.
        To be called when everything has come to rest."""
        committed: dict[int, set[str]] = {}
        for name, disk in self.vote_disks.items():
            assert len(disk.applied) == len(set(disk.applied)), f"{name} applied an attempt twice"
            assert not disk.prepared, f"{name} is still in doubt about {list(disk.prepared)}"
            assert not list(self.participants[name].lock_table.listing()), f"{name} still holds locks"
            for attempt in disk.applied:
                committed.setdefault(attempt.number, set()).add(name)
        for number, names in committed.items():
            updating = {n for n, m in self.sent[number].items() if isinstance(m, OnePhase) or not m.read_only}
            assert names == updating, f"attempt {number} is torn: applied at {names}, sent to {updating}"
        by_id: dict[str, int] = {}
        for number in committed:
            id = self.ids[number]
            assert id not in by_id, f"{id} committed twice: {by_id[id]} and {number}"
            by_id[id] = number
        told: dict[str, set[Outcome]] = {}
        for client, id in self.submitted.items():
            result = self.replies.get(client)
            if result is not None and result.outcome in (Outcome.COMMITTED, Outcome.ABORTED):
                told.setdefault(id or f"client {client}", set()).add(result.outcome)
                reads = any(not self._writes(n) for n in self.sent if self.ids[n] == result.id)
                if result.outcome is Outcome.ABORTED:
                    assert result.id not in by_id, f"{result.id}: told ABORTED, and it committed"
                else:
                    assert result.id in by_id or reads, f"{result.id}: told COMMITTED, and it did not"
        assert all(len(outcomes) == 1 for outcomes in told.values()), f"clients heard both outcomes: {told}"
        self._check_data(committed, initial or {"x": 10, "y": 10})
        assert self.coordinator is not None
        left = {number: attempt.state.value for number, attempt in self.coordinator.attempts.items()}
        assert not left, f"attempts left: {left}"
        assert not self.coordinator.submissions, f"submissions left: {self.coordinator.submissions}"

    def _writes(self, number: int) -> bool:
        return any(isinstance(m, OnePhase) or not m.read_only for m in self.sent[number].values())

    def _check_data(self, committed: dict[int, set[str]], initial: dict[str, int]) -> None:
        """Each file holds what replaying its commits in the order applied gives."""
        for name, disk in self.vote_disks.items():
            replay = Memory(dict(initial))
            for attempt in disk.applied:
                replay.commit(attempt, replay.plan(self.sent[attempt.number][name].operations))
            assert replay.data == disk.data, f"{name} holds {disk.data}, its commits give {replay.data}"


def _short(message: Any) -> str:
    return f"{type(message).__name__}({message[0] & 0xFFFF if isinstance(message[0], int) else message[0]})"
