"""The smallest resource there can be: counters in memory, each an integer that never falls below zero.

Operations are its own (`custom`): `add` with a body {"counter": name, "by": number}, and `get` with {"counter": name}.
What is committed lives in the `counters` handed in, which outlives the resource as a file would.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from participant.resources import INTEGER_MAX, Add, InDoubt, Lock, LockName, Mode, No, Plan, Prepared, Resource
from troth.reasons import reason
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code
from troth.words import AttemptId


class Counters(Resource):
    """A resource whose commits are durable at once and idempotent by attempt, as one outside the file must be."""

    def __init__(self, counters: dict[str, int], applied: set[AttemptId]) -> None:
        self._counters = counters
        self._applied = applied

    def plan(self, operations: bytes) -> Plan:
        work = []
        modes: dict[LockName, Mode] = {}
        adds: dict[LockName, list[Add]] = {}
        for operation in types_pb2.Operations.FromString(operations).operations:
            body = json.loads(operation.custom.body)
            name: LockName = ("counter", body["counter"])
            if operation.custom.name not in ("add", "get"):
                message = f"no such operation: {operation.custom.name}"
                raise No(reason(Code.CODE_BAD_OPERATION, message, operation=operation.position))
            by = body.get("by")
            mode = Mode.SHARED if by is None else Mode.INCREMENT
            modes[name] = mode if modes.get(name, mode) is mode else Mode.EXCLUSIVE
            if by is not None:
                adds.setdefault(name, []).append(Add("value", by, 0, INTEGER_MAX, operation.position))
            work.append((body["counter"], by, operation.position))
        locks = tuple(
            Lock(name, mode, tuple(adds[name]) if mode is Mode.INCREMENT else ()) for name, mode in modes.items()
        )
        return Plan(locks, tuple(work), not adds)

    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        after = dict(self._counters)
        rows = types_pb2.Rows()
        for counter, by, position in plan.work:
            if by is None:
                row = rows.rows.add(position=position, table=counter, present=counter in after)
                row.values.add(name="value", value=types_pb2.Value(integer=after.get(counter, 0)))
                continue
            after[counter] = after.get(counter, 0) + by
            if after[counter] < 0:
                message = f"{counter} would be {after[counter]}"
                raise No(reason(Code.CODE_BELOW_MIN, message, operation=position, table=counter))
        return Prepared(rows.SerializeToString(), self._values(plan))

    def commit(self, attempt: AttemptId, plan: Plan) -> None:
        if attempt in self._applied:
            return
        for counter, by, _ in plan.work:
            self._counters[counter] = self._counters.get(counter, 0) + (by or 0)
        self._applied.add(attempt)

    def abort(self, attempt: AttemptId, plan: Plan | None) -> None:
        """Nothing was left behind."""

    def recover(self, prepared: Sequence[tuple[AttemptId, bytes]]) -> list[InDoubt]:
        plans = [(attempt, self.plan(operations)) for attempt, operations in prepared]
        return [InDoubt(attempt, plan, self._values(plan)) for attempt, plan in plans]

    def _values(self, plan: Plan) -> dict[tuple[LockName, str], int]:
        increments = [lock for lock in plan.locks if lock.mode is Mode.INCREMENT]
        return {(lock.name, "value"): self._counters.get(lock.name[1], 0) for lock in increments}
