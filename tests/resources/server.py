"""The smallest server there can be: counters in memory that outlive the resource, prepared branches and all.

Operations are those of `memory.Counters`. Each counter that a branch names is locked for it alone from its prepare to
its end; who wants one waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from participant.resources import Lock, Mode, No, Plan, Prepared
from participant.resources.outside import EndedElsewhere, OutsideResource, ResourceRefused, Stray, Survey
from tests.resources.memory import Counters
from troth.messages import Mark
from troth.reasons import reason
from troth.v1 import participant_pb2, types_pb2
from troth.v1.types_pb2 import Code
from troth.words import AttemptId, Outcome

LOCK_TIMEOUT_S = 0.2
AT_WORK_MAX = 2
_LOOK_AGAIN_S = 0.002

Name = tuple[str, AttemptId]
"""By which the server knows a branch: the participant file, and the attempt."""


@dataclass
class Server:
    """What it holds."""

    counters: dict[str, int]
    prepared: dict[Name, tuple[Plan, float]] = field(default_factory=dict)
    """With the time when it was."""
    finished: dict[Name, bytes] = field(default_factory=dict)
    """With the operations of what was committed in one step; in the order committed."""
    locked: dict[str, Name] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    """The files that somebody works for."""


class OutsideCounters(OutsideResource):
    """A resource in front of such a server."""

    kind = "counters"

    def __init__(self, server: Server) -> None:
        self.server = server
        self.namespace = ""
        self.at_work = asyncio.Semaphore(AT_WORK_MAX)

    async def open(self, namespace: str) -> str:
        if namespace in self.server.open:
            raise ResourceRefused(f"somebody works for {namespace}")
        self.server.open.add(namespace)
        self.namespace = namespace
        return "the counters"

    async def close(self) -> None:
        self.server.open.discard(self.namespace)

    async def survey(self) -> Survey:
        prepared = self.server.prepared
        mine = frozenset(attempt for namespace, attempt in prepared if namespace == self.namespace)
        committed = {
            attempt: operations
            for (namespace, attempt), operations in self.server.finished.items()
            if namespace == self.namespace
        }
        strays = [
            Stray(str(name), time.monotonic() - at) for name, (_, at) in prepared.items() if name[0] != self.namespace
        ]
        return Survey(mine, committed, tuple(strays))

    def plan(self, operations: bytes) -> Plan:
        plan = Counters({}, set()).plan(operations)
        modes = [Mode.SHARED if lock.mode is Mode.SHARED else Mode.EXCLUSIVE for lock in plan.locks]
        return plan._replace(locks=tuple(Lock(lock.name, mode) for lock, mode in zip(plan.locks, modes, strict=True)))

    async def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        name = self.namespace, attempt
        async with self.locking(name, plan):
            prepared = self.tried(plan)
            if not plan.read_only:
                self.server.prepared[name] = plan, time.monotonic()
            return prepared

    async def run(self, attempt: AttemptId, operations: bytes, plan: Plan) -> Prepared:
        name = self.namespace, attempt
        async with self.locking(name, plan):
            prepared = self.tried(plan)
            self.apply(name, plan, operations)
            return prepared

    async def commit(self, attempt: AttemptId) -> None:
        name = self.namespace, attempt
        if name in self.server.prepared:
            plan, _ = self.server.prepared.pop(name)
            self.apply(name, plan)
            self.unlock(name)
        elif name not in self.server.finished:
            raise EndedElsewhere(attempt, Outcome.ABORTED)

    async def abort(self, attempt: AttemptId) -> None:
        name = self.namespace, attempt
        if name in self.server.finished:
            raise EndedElsewhere(attempt, Outcome.COMMITTED)
        self.server.prepared.pop(name, None)
        self.unlock(name)

    async def forget(self, log: str, mark: Mark) -> None:
        for name in [name for name in self.server.finished if self.is_below(name, log, mark)]:
            del self.server.finished[name]

    def is_below(self, name: Name, log: str, mark: Mark) -> bool:
        namespace, attempt = name
        is_ours = (namespace, attempt.log) == (self.namespace, log)
        return is_ours and attempt.number < mark.low and attempt.number not in mark.excepted

    async def read_row(self, table: str, key: Sequence[types_pb2.Value]) -> types_pb2.Row:
        raise No(reason(Code.CODE_BAD_OPERATION, "counters are no rows"))

    def tables(self) -> list[participant_pb2.TableStatus]:
        return []

    # At the server.

    def tried(self, plan: Plan) -> Prepared:
        return Counters(self.server.counters, set()).prepare(AttemptId("", 0), plan)._replace(values={})

    def apply(self, name: Name, plan: Plan, operations: bytes = b"") -> None:
        Counters(self.server.counters, set()).commit(name[1], plan)
        self.server.finished[name] = operations

    @asynccontextmanager
    async def locking(self, name: Name, plan: Plan) -> AsyncIterator[None]:
        """Has the counters for a branch, and keeps them when it is prepared. Raises No when that takes too long."""
        wanted = {counter for counter, _, _ in plan.work}
        try:
            async with asyncio.timeout(LOCK_TIMEOUT_S):
                await self.at_work.acquire()
                await self.lock(name, wanted)
        except TimeoutError:
            raise No(reason(Code.CODE_LOCK_TIMEOUT, "a counter was waited for too long")) from None
        try:
            yield
        finally:
            self.at_work.release()
            if name not in self.server.prepared:
                self.unlock(name)

    async def lock(self, name: Name, wanted: set[str]) -> None:
        try:
            while wanted & self.server.locked.keys():  # noqa: ASYNC110 - there is nothing to be told by
                await asyncio.sleep(_LOOK_AGAIN_S)
        except BaseException:
            self.at_work.release()
            raise
        self.server.locked |= dict.fromkeys(wanted, name)

    def unlock(self, name: Name) -> None:
        self.server.locked = {counter: owner for counter, owner in self.server.locked.items() if owner != name}
