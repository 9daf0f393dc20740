"""Two-phase commit over two database servers, written by hand: what one does today without a coordinator.

Each worker has a session at each server and goes begin, the work, prepare, commit, statement by statement; the two
phases are at both servers at once. There is **no log of decisions**, as there is none where people write this: a crash
between the two phases leaves branches that nobody can decide. So it does less than the others, and is the stronger
rival for it. Besides, reads that change nothing take no locks, and a transaction that only reads or has a single branch
has one phase.

A server has one thread or process for each session, so `in_flight_max` transactions at most are open at once.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from bench.contender import Contender, Counts
from bench.databases import SERVERS_MAX, Databases
from bench.ledger import Rows
from bench.load import Answer, Load, Step, by_workers
from bench.workloads import Add, Branch, Insert, Operation, Put, Read, Workload
from faults.servers import Database
from troth.words import Outcome

Statement = tuple[str, Sequence[Any]]
"""Both drivers have `%s` where a value goes."""


class Refused(Exception):
    """The server could not do the work now; the message says why."""


class Session(ABC):
    """A connection to one server with at most one branch open. `xid` is the name of a branch with two phases, or None
    for one that has one; it is the same in all calls of a branch, and needs no quoting."""

    upsert: ClassVar[str]
    """What follows on an INSERT into documents, so that it replaces the body."""

    def __init__(self) -> None:
        self.statements = 0

    @abstractmethod
    async def begin(self, xid: str | None) -> None: ...

    @abstractmethod
    async def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """The number of rows that it found. Raises Refused."""

    @abstractmethod
    async def prepare(self, xid: str) -> None: ...

    @abstractmethod
    async def commit(self, xid: str | None) -> None:
        """What was prepared, when it has two phases."""

    @abstractmethod
    async def roll_back(self, xid: str | None) -> None:
        """What was not prepared."""

    async def work(self, xid: str | None, branch: Branch) -> str:
        """Why it cannot be done; empty when it was."""
        try:
            await self.begin(xid)
            for operation in branch.operations:
                if not await self.execute(*self._statement(operation, branch)):
                    return "a row is not there, or below min"
        except Refused as refused:
            return str(refused)
        return ""

    def _statement(self, operation: Operation, branch: Branch) -> Statement:
        match operation:
            case Add(key, by, None):
                return "UPDATE accounts SET balance = balance + %s WHERE id = %s", (by, key)
            case Add(key, by, least):
                sql = "UPDATE accounts SET balance = balance + %s WHERE id = %s AND balance + %s >= %s"
                return sql, (by, key, by, least)
            case Read(key):
                lock = "" if branch.reads_only else " FOR UPDATE"
                return f"SELECT balance FROM accounts WHERE id = %s{lock}", (key,)
            case Insert(key, item):
                return "INSERT INTO orders VALUES (%s, %s)", (key, item)
            case Put(key, body):
                return f"INSERT INTO documents VALUES (%s, %s) {self.upsert}", (key, body)


Pair = Mapping[int, Session]
"""A worker's sessions, by participant."""


class ByHand(Contender):
    """Two servers, or one for a workload with one participant."""

    participants_max = SERVERS_MAX
    in_flight_max = 256
    kind: ClassVar[type[Databases]]

    def __init__(self) -> None:
        self._databases = self.kind()
        self._pairs: list[Pair] = []
        self._statements = 0
        """Of sessions that are closed."""

    @classmethod
    def missing(cls) -> str:
        return cls.kind.missing()

    @abstractmethod
    async def session(self, database: Database, stack: AsyncExitStack) -> Session:
        """A new one, which ends with the stack."""

    async def start(self, folder: Path, workload: Workload) -> None:
        self._databases.start(workload)

    @asynccontextmanager
    async def connected(self, in_flight: int) -> AsyncIterator[None]:
        databases = self._databases.by_participant
        async with AsyncExitStack() as stack:
            for _ in range(in_flight):
                self._pairs.append({at: await self.session(databases[at], stack) for at in databases})
            try:
                yield
            finally:
                self._statements = self._statements_in_all()
                self._pairs.clear()

    def _statements_in_all(self) -> int:
        return self._statements + sum(session.statements for pair in self._pairs for session in pair.values())

    async def run(self, load: Load) -> None:
        await by_workers(load, [partial(self._transact, pair) for pair in self._pairs])

    async def _transact(self, pair: Pair, step: Step) -> Answer:
        one_phase = len(step.branches) == 1 or all(branch.reads_only for branch in step.branches)
        xid = None if one_phase else f"bench-{step.number}"
        there = [pair[branch.participant] for branch in step.branches]
        if refused := await self._worked(pair, xid, step.branches):
            # Nothing is open where a branch was not begun, and a rollback there does nothing.
            await asyncio.gather(*(session.roll_back(xid) for session in there))
            return Answer(Outcome.ABORTED, refused)
        if xid is not None:
            await asyncio.gather(*(session.prepare(xid) for session in there))
        await asyncio.gather(*(session.commit(xid) for session in there))
        return Answer(Outcome.COMMITTED)

    async def _worked(self, pair: Pair, xid: str | None, branches: Sequence[Branch]) -> str:
        """Why it cannot be done; empty when it was. A worker that is alone works at both servers at once; among others
        at one after the other, so that no two transactions wait for each other: each is faster there than the other."""
        works = [partial(pair[branch.participant].work, xid, branch) for branch in branches]
        if len(self._pairs) == 1:
            return next(filter(None, await asyncio.gather(*(work() for work in works))), "")
        for work in works:
            if refused := await work():
                return refused
        return ""

    async def settled(self) -> None:
        """Nothing is left to be done after an answer."""

    async def rows(self, participant: int) -> Rows:
        return self._databases.rows(participant)

    def processes(self) -> Mapping[str, int]:
        return self._databases.pids

    def dead(self) -> list[str]:
        return self._databases.dead()

    async def counts(self) -> Counts:
        """Every statement is a message, and so is its answer."""
        return Counts(messages=2 * self._statements_in_all())

    async def syncs_a_server(self) -> float | None:
        return await self._databases.syncs_a_server()

    async def close(self) -> None:
        self._databases.close()
