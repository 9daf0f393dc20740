"""A database with two tables, a participant's resource over it, and what a DBA sees."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from faults.cluster import eventually
from faults.servers import Database
from participant.resources.outside import OutsideResource
from participant.resources.postgresql import PostgreSQLResource
from tests.proxy import Proxy
from tests.server_subject import TwoTables
from tests.sqlite_tools import encode, insert, read

SCHEMA = """
CREATE TABLE accounts(id text PRIMARY KEY, balance bigint CHECK (balance >= 0));
CREATE TABLE orders(id int PRIMARY KEY, account text REFERENCES accounts, code text UNIQUE);
INSERT INTO accounts VALUES ('alice', 100), ('bob', 100);
"""

READY = b"Z\0\0\0\5I"
"""What the server says last when a connection stands."""


class PostgreSQLSubject(TwoTables):
    schema = (SCHEMA,)

    aliases = (
        (encode([read("orders", 17)]), encode([read("public.orders", "17")])),
        (encode([read("orders", 17)]), encode([read("ORDERS", 17.0)])),
        (encode([insert("orders", 17, account="alice")]), encode([insert("orders", "17", Account="alice")])),
    )
    lock_timeout_s = 0.4

    def make(self) -> OutsideResource:
        return PostgreSQLResource(self.database.dsn, lock_timeout_s=self.lock_timeout_s, pool=self.at_work_max)


class Link(Proxy):
    """A way to the server on which one side is gone, or says nothing more, and the other one does not hear of it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._ours: list[StreamWriter] = []
        self.silent = False
        """Whether connections that are made now have no answer but that they stand."""

    def lose(self) -> None:
        """Our side of all connections is gone; the server's stand."""
        for writer in self._ours:
            writer.transport.abort()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._ours.append(writer)
        there, back = await self.connect()
        answers = asyncio.create_task(self._answers(there, writer, self.silent))
        try:
            with suppress(ConnectionError):
                while data := await reader.read(1 << 16):
                    back.write(data)
            await asyncio.Event().wait()  # until this is cancelled the server hears of no end
        finally:
            answers.cancel()
            for each in (back, writer):
                each.close()

    async def _answers(self, reader: StreamReader, writer: StreamWriter, silent: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                if silent and data.endswith(READY):
                    return


@contextmanager
def server_set(database: Database, setting: str, value: str) -> Iterator[None]:
    """The whole server has another setting meanwhile; new connections find it so, and as before in the end."""

    def told(statement: str) -> None:
        database.execute(f"ALTER SYSTEM {statement}")
        database.execute("SELECT pg_reload_conf()")

    before = database.execute(f"SHOW {setting}")
    told(f"SET {setting} = '{value}'")
    eventually(lambda: database.execute(f"SHOW {setting}") == [(value,)])
    try:
        yield
    finally:
        told(f"RESET {setting}")
        eventually(lambda: database.execute(f"SHOW {setting}") == before)


def listed(database: Database) -> list[str]:
    """The names prepared in this database."""
    query = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared"
    return [gid for (gid,) in database.execute(query)]


def balance(database: Database, name: str = "alice") -> int:
    """As committed."""
    found: int = database.execute(f"SELECT balance FROM accounts WHERE id = '{name}'")[0][0]
    return found
