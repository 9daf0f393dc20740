"""Database servers that hold participants' data: databases that a person names, and private servers that are killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from typing import Any, NamedTuple, TypeVar

import click

from faults.chaos.tables import SERVER_SCHEMAS
from faults.servers import KINDS, PostgreSQL, Server, ServerError, ServerMissing
from troth.process.addresses import Address

_HOST = "127.0.0.1"
T = TypeVar("T")


class Place(NamedTuple):
    """One participant's database."""

    kind: str
    dsn: str
    server: str = ""
    """Where its server is dialled, when it is ours."""

    def through(self, address: str) -> str:
        """The DSN by another way."""
        return self.dsn.replace(self.server, address)


class Servers:
    """Private servers, by kind. Each ends with the thread that started it, so one thread does all."""

    def __init__(self) -> None:
        """Use `started`."""
        self._thread = ThreadPoolExecutor(1)
        self._servers: dict[str, Server] = {}

    @classmethod
    @asynccontextmanager
    async def started(cls, kinds: Sequence[str]) -> AsyncIterator[Servers]:
        """All take connections on entering; on leaving they are stopped and their data removed."""
        servers = cls()
        try:
            for kind in kinds:
                servers._servers[kind] = await servers._call(KINDS[kind])
                await servers.start(kind)
            yield servers
        except (ServerMissing, ServerError) as error:
            raise click.ClickException(str(error)) from error
        finally:
            for server in servers._servers.values():
                await servers._call(server.close)
            servers._thread.shutdown()

    @property
    def kinds(self) -> list[str]:
        return list(self._servers)

    async def create(self, kind: str, name: str) -> Place:
        """A new database."""
        database = await self._call(lambda: self._servers[kind].create(name))
        return Place(kind, database.dsn, str(Address(_HOST, self._servers[kind].port)))

    async def start(self, kind: str) -> None:
        """With the data that it had."""
        await self._call(self._servers[kind].start)

    async def kill(self, kind: str) -> None:
        await self._call(self._servers[kind].kill)

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def make_tables(kind: str, dsn: str) -> None:
    """Makes the tables of the workloads in an empty database. Raises click.ClickException."""
    try:
        connect, driver_error = _driver(kind)
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{kind} needs {error.name}: pip install 'troth[{kind}]'") from error
    try:
        with closing(connect(dsn)) as connection, closing(connection.cursor()) as cursor:
            schema = "current_schema()" if kind == PostgreSQL.name else "database()"
            cursor.execute(f"SELECT table_name FROM information_schema.tables WHERE table_schema = {schema}")
            if found := sorted(name for (name,) in cursor.fetchall()):
                raise click.ClickException(
                    f"the {kind} database has tables ({', '.join(found[:5])}): give an empty one, for it is written to"
                )
            for statement in SERVER_SCHEMAS[kind]:
                cursor.execute(statement)
            connection.commit()
    except (driver_error, OSError, ValueError) as error:
        raise click.ClickException(f"{kind}: {' '.join(str(error).split())}") from error


def _driver(kind: str) -> tuple[Callable[[str], Any], type[Exception]]:
    """How a DSN is connected to, and what the driver raises. Raises ModuleNotFoundError."""
    if kind == PostgreSQL.name:
        import psycopg

        return psycopg.connect, psycopg.Error
    import pymysql

    from faults.auditor import mariadb

    return mariadb.connected, pymysql.Error
