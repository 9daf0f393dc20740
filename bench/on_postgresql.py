"""Two-phase commit by hand over two PostgreSQL servers, with psycopg: BEGIN, the work, PREPARE TRANSACTION, COMMIT
PREPARED."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable

from bench.by_hand import ByHand, Refused, Session
from bench.databases import PostgreSQLs
from faults.servers import Database

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class PostgreSQLSession(Session):
    upsert = "ON CONFLICT (id) DO UPDATE SET body = excluded.body"

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    async def begin(self, xid: str | None) -> None:
        await self.execute("BEGIN")

    async def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        self.statements += 1
        try:
            return (await self._connection.execute(sql, values or None)).rowcount
        except (LockNotAvailable, DeadlockDetected) as error:
            raise Refused(type(error).__name__) from error

    async def prepare(self, xid: str) -> None:
        await self._end(f"PREPARE TRANSACTION '{xid}'")

    async def commit(self, xid: str | None) -> None:
        await self._end("COMMIT" if xid is None else f"COMMIT PREPARED '{xid}'")

    async def roll_back(self, xid: str | None) -> None:
        await self._end("ROLLBACK")

    async def _end(self, sql: str) -> None:
        """A PREPARE or COMMIT of what has failed before is answered with ROLLBACK, and without an error."""
        self.statements += 1
        told = (await self._connection.execute(sql)).statusmessage
        assert told is not None
        assert sql.startswith(told), f"{sql} was answered with {told}"


class OnPostgreSQL(ByHand):
    name = "postgresql"
    kind = PostgreSQLs

    async def session(self, database: Database, stack: AsyncExitStack) -> Session:
        connection = await psycopg.AsyncConnection.connect(database.dsn, autocommit=True)
        return PostgreSQLSession(await stack.enter_async_context(connection))
