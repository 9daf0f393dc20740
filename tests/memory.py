"""What `world.py` gives the nodes to stand on: a resource of integers, and disks that hold exactly what was flushed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import coordinator.events as ce
import participant.events as pe
from participant.resources import INTEGER_MAX, INTEGER_MIN, Add, InDoubt, Lock, Mode, No, Plan, Prepared, Resource
from troth.ids import time_of
from troth.messages import Mark
from troth.reasons import reason
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code
from troth.words import AttemptId, Outcome

LOG = "00000000000000aa"


def operations(*ops: tuple[Any, ...]) -> bytes:
    """("add", key, by[, min[, max]]), ("check", key, at_least), ("read", key), ("set", key, value): on integers."""
    found = types_pb2.Operations()
    for position, (kind, key, *rest) in enumerate(ops):
        op = found.operations.add(position=position, table="t", key=[types_pb2.Value(text=key)])
        if kind == "add":
            op.add.column = "v"
            op.add.by.integer = rest[0]
            if len(rest) > 1:
                op.add.min.integer = rest[1]
            if len(rest) > 2:
                op.add.max.integer = rest[2]
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
        work: list[tuple[Any, ...]] = []
        modes: dict[str, list[tuple[Mode, Add | None]]] = {}
        for op in types_pb2.Operations.FromString(encoded).operations:
            key, kind = op.key[0].text, op.WhichOneof("kind")
            if kind == "add":
                low = op.add.min.integer if op.add.HasField("min") else INTEGER_MIN
                high = op.add.max.integer if op.add.HasField("max") else INTEGER_MAX
                add = Add("v", op.add.by.integer, low, high, op.position)
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

    identity: str
    data: dict[str, int]
    prepared: dict[AttemptId, pe.Try] = field(default_factory=dict)
    finished: dict[AttemptId, Outcome] = field(default_factory=dict)
    heuristics: dict[AttemptId, pe.Heuristic] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    # For the checks, not for the node:
    initial: dict[str, int] = field(default_factory=dict)
    applied: list[AttemptId] = field(default_factory=list)
    """Every attempt ever applied, in order."""
    tried: dict[AttemptId, int] = field(default_factory=dict)
    """How many were applied when the attempt was tried, and so what it read."""

    def __post_init__(self) -> None:
        self.initial = dict(self.data)

    def run(self, job: pe.Job) -> pe.JobResult:
        resource = Memory(self.data)
        if isinstance(job, pe.Try | pe.RunAlone):
            try:
                tried = resource.prepare(job.attempt, job.plan)
            except No as no:
                return pe.Denied(no.reason)
            self.tried.setdefault(job.attempt, len(self.applied))
            if isinstance(job, pe.RunAlone):
                resource.commit(job.attempt, job.plan)
                self.finished[job.attempt] = Outcome.COMMITTED
                self.applied.append(job.attempt)
            elif not job.read_only:
                self._exclude(job)
                self.prepared[job.attempt] = job
            return pe.Tried(tried.rows, tried.values)
        if isinstance(job, pe.Apply):
            resource.commit(job.attempt, job.plan)
            del self.prepared[job.attempt]
            self.finished[job.attempt] = Outcome.COMMITTED
            self.applied.append(job.attempt)
        elif isinstance(job, pe.Undo):
            assert self.finished.get(job.attempt) is not Outcome.COMMITTED, f"{job.attempt} is undone after its commit"
            self.prepared.pop(job.attempt, None)
            self.finished[job.attempt] = Outcome.ABORTED
        elif isinstance(job, pe.Resolve):
            found = self.prepared.pop(job.attempt)
            if job.outcome is Outcome.COMMITTED:
                resource.commit(job.attempt, job.plan)
                self.applied.append(job.attempt)
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

    def _exclude(self, job: pe.Try) -> None:
        """No two prepared branches hold one row unless both only read or both only add."""
        wanted = {lock.name: lock.mode for lock in job.plan.locks}
        for other in self.prepared.values():
            for lock in other.plan.locks:
                mode = wanted.get(lock.name)
                apart = mode is not None and (mode is not lock.mode or mode is Mode.EXCLUSIVE)
                assert not apart, f"{job.attempt} and {other.attempt} are both prepared on {lock.name}"

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
    # For the checks, not for the node:
    outcomes: dict[str | int, Outcome] = field(default_factory=dict)
    """Every outcome that was ever durable, by attempt and by id."""
    by_hand: set[tuple[int, str]] = field(default_factory=set)
    """Every branch that a person settled here."""
    claimed: dict[int, str] = field(default_factory=dict)
    """Every one-phase attempt of a client's id."""

    def run(self, record: ce.Record) -> float | None:
        result = self._run(record)
        for entry in self.entries.values():
            if entry.state is not None:
                self._keep(entry.number, entry.state)
                self._keep(entry.id or str(AttemptId(LOG, entry.number)), entry.state)
        return result

    def _keep(self, key: str | int, outcome: Outcome) -> None:
        assert self.outcomes.setdefault(key, outcome) is outcome, f"{key} has two outcomes"

    def _run(self, record: ce.Record) -> float | None:
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
                self.claimed[record.number] = record.id
                owed = (ce.Owed(record.participant, record.identity, True),)
                self._insert(
                    record.number, record.id, record.digest, None, owed, record.incarnation, record.read, None, None
                )
            case ce.Settled():
                entry = self.entries[record.number]
                assert entry.state is None, f"{record.number} is settled and was not claimed"
                self.entries[record.number] = entry._replace(state=Outcome.COMMITTED, ended_at=record.at)
            case ce.Dropped():
                assert self.entries.pop(record.number).state is None, f"{record.number} is dropped and was not claimed"
            case ce.Ended():
                self.entries[record.number] = self.entries[record.number]._replace(ended_at=record.at)
            case ce.Heuristic():
                self._clear(record.number, record.participant)
                self.heuristics.append(record)
                if record.reason:
                    self.by_hand.add((record.number, record.participant))
            case ce.Cleared():
                self._clear(record.number, record.participant)
            case ce.Expired():
                return self._expire(record)
            case ce.Known():
                self.known[record.participant] = record.identity
        return None

    def _clear(self, number: int, participant: str) -> None:
        self.heuristics = [h for h in self.heuristics if (h.number, h.participant) != (number, participant)]

    def _expire(self, record: ce.Expired) -> float:
        self.horizon = max(self.horizon, record.horizon)
        kept = {h.number for h in self.heuristics}
        for entry in list(self.entries.values()):
            time = None if entry.id is None else time_of(entry.id)
            old = time < self.horizon if time is not None else (entry.ended_at or 0.0) < record.ended_before
            if old and entry.ended_at is not None and entry.number not in kept:
                del self.entries[entry.number]
        return self.horizon

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
        found = (entry for entry in self.entries.values() if key in (entry.id, entry.number))
        return next(map(self._whole, found), None)

    def _whole(self, entry: ce.Entry) -> ce.Entry:
        done = tuple((h.participant, h.done) for h in self.heuristics if h.number == entry.number)
        return entry._replace(heuristics=done)

    def recovered(self) -> ce.Recovered:
        open_ = tuple(self._whole(entry) for entry in self.entries.values() if entry.ended_at is None)
        return ce.Recovered(open_, tuple(self.heuristics), self.horizon, tuple(self.known.items()))
