"""Two-phase commit over two PostgreSQL servers, written by hand: what one does today without a coordinator.

Each worker has a connection to each server and goes BEGIN, the work, PREPARE TRANSACTION, COMMIT PREPARED, statement by
statement; the two phases are at both servers at once. There is **no log of decisions**, as there is none where
people write this: a crash between the two phases leaves branches that nobody can decide. So it does less than the
others, and is the stronger rival for it. Besides, reads that change nothing take no locks, a transaction that only
reads ends with COMMIT, and one with a single branch has one phase.

PostgreSQL has one process per connection, so `in_flight_max` transactions at most are open at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable

from bench.contender import Contender, Counts
from bench.ledger import Rows
from bench.load import Answer, Load, Step, by_workers
from bench.workloads import COLUMNS, START, Add, Branch, Insert, Operation, Put, Read, Workload, schema
from faults.servers import PostgreSQL, ServerMissing
from troth.words import Outcome

LOCK_TIMEOUT = "1s"
"""Each server sees its own locks only, so a deadlock over both ends by time."""
_SETTINGS = {"max_connections": "600", "max_prepared_transactions": "512", "lock_timeout": LOCK_TIMEOUT}
_FLUSHES_KNOWN_FROM = 150000
"""The version with pg_stat_force_next_flush: before it the counts come too late."""

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Pair = Mapping[int, Connection]
"""A worker's connections, by participant."""


class OnPostgreSQL(Contender):
    """Two servers, or one for a workload with one participant."""

    name = "postgresql"
    participants_max = 2
    in_flight_max = 256

    def __init__(self) -> None:
        self._servers: dict[int, PostgreSQL] = {}
        self._pairs: list[Pair] = []
        self._statements = 0

    @classmethod
    def missing(cls) -> str:
        try:
            PostgreSQL.find()
        except ServerMissing as error:
            return str(error)
        return ""

    async def start(self, folder: Path, workload: Workload) -> None:
        for at in range(1, workload.participants + 1):
            server = self._servers[at] = PostgreSQL(_SETTINGS)
            server.start()
            async with await self._connection(at) as connection:
                for statement in schema("BIGINT", "BYTEA"):
                    await connection.execute(statement)
                keys = f"generate_series(0, {workload.accounts - 1}) AS key"
                await connection.execute(f"INSERT INTO accounts SELECT key, {START} FROM {keys}")
                await connection.execute("VACUUM ANALYZE")

    async def _connection(self, at: int) -> Connection:
        return await psycopg.AsyncConnection.connect(self._servers[at].dsn, autocommit=True)

    @asynccontextmanager
    async def connected(self, in_flight: int) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for _ in range(in_flight):
                pair = {at: await stack.enter_async_context(await self._connection(at)) for at in self._servers}
                self._pairs.append(pair)
            try:
                yield
            finally:
                self._pairs.clear()

    async def run(self, load: Load) -> None:
        await by_workers(load, [partial(self._transact, pair) for pair in self._pairs])

    # One transaction.

    async def _transact(self, pair: Pair, step: Step) -> Answer:
        refused = await self._worked(pair, step.branches)
        there = [pair[branch.participant] for branch in step.branches]
        if refused:
            await self._at_all(there, "ROLLBACK")
            return Answer(Outcome.ABORTED, refused)
        if len(there) == 1 or all(branch.reads_only for branch in step.branches):
            await self._at_all(there, "COMMIT")
        else:
            await self._at_all(there, f"PREPARE TRANSACTION 'bench-{step.number}'")
            await self._at_all(there, f"COMMIT PREPARED 'bench-{step.number}'")
        return Answer(Outcome.COMMITTED)

    async def _worked(self, pair: Pair, branches: Sequence[Branch]) -> str:
        """Why it cannot be done; empty when it was. A worker that is alone works at both servers at once; among others
        at one after the other, so that no two transactions wait for each other: each is faster there than the other."""
        works = [partial(self._work, pair[branch.participant], branch) for branch in branches]
        if len(self._pairs) == 1:
            return next(filter(None, await asyncio.gather(*(work() for work in works))), "")
        for work in works:
            if refused := await work():
                return refused
        return ""

    async def _work(self, connection: Connection, branch: Branch) -> str:
        """The same of one branch."""
        try:
            await self._execute(connection, "BEGIN")
            for operation in branch.operations:
                changed = await self._execute(connection, *_statement(operation, branch))
                if not changed:
                    return "a row is not there, or below min"
        except (LockNotAvailable, DeadlockDetected) as error:
            return type(error).__name__
        return ""

    async def _at_all(self, connections: Iterable[Connection], sql: str) -> None:
        await asyncio.gather(*(self._ended(connection, sql) for connection in connections))

    async def _ended(self, connection: Connection, sql: str) -> None:
        """A PREPARE or COMMIT of what has failed before is answered with ROLLBACK, and without an error."""
        self._statements += 1
        told = (await connection.execute(sql)).statusmessage
        assert told is not None
        assert sql.startswith(told), f"{sql} was answered with {told}"

    async def _execute(self, connection: Connection, sql: str, values: Sequence[Any] = ()) -> int:
        """The number of rows."""
        self._statements += 1
        return (await connection.execute(sql, values or None)).rowcount

    # Around it.

    async def settled(self) -> None:
        """Nothing is left to be done after an answer."""

    async def rows(self, participant: int) -> Rows:
        async with await self._connection(participant) as connection:
            found: list[dict[int, Any]] = [
                dict(await (await connection.execute(f"SELECT id, {column} FROM {table}")).fetchall())
                for table, column in COLUMNS.items()
            ]
        return Rows(*found)

    def processes(self) -> Mapping[str, int]:
        return {f"server {at}": server.pid for at, server in self._servers.items()}

    def dead(self) -> list[str]:
        return [f"server {at}:\n{server.text()}" for at, server in self._servers.items() if not server.running]

    async def counts(self) -> Counts:
        """Every statement is a message, and so is its answer."""
        if any(connection.info.server_version < _FLUSHES_KNOWN_FROM for connection in self._pairs[0].values()):
            return Counts(messages=2 * self._statements)
        for pair in self._pairs:
            for connection in pair.values():
                await connection.execute("SELECT pg_stat_force_next_flush()")
        flushes = 0
        for connection in self._pairs[0].values():
            row = await (await connection.execute("SELECT wal_sync FROM pg_stat_wal")).fetchone()
            assert row is not None
            flushes += row[0]
        return Counts(flushes=flushes, messages=2 * self._statements)

    async def close(self) -> None:
        for server in self._servers.values():
            server.close()


def _statement(operation: Operation, branch: Branch) -> tuple[str, Sequence[Any]]:
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
            sql = "INSERT INTO documents VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
            return sql, (key, body)
