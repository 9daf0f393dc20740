"""Two-phase commit by hand over two MariaDB servers, with asyncmy: XA START, the work, XA END, XA PREPARE, XA COMMIT.

asyncmy is the driver that Troth's own participant has too: of those that there are the fastest (measured in
`participant/resources/mariadb/session.py`). A branch is prepared and ended by one session, as the server wants it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import asyncmy
from asyncmy.constants import CLIENT
from asyncmy.errors import Error

from bench.by_hand import ByHand, Refused, Session
from bench.databases import MariaDBs
from faults.servers import Database
from faults.servers.server import HOST

_REFUSALS = {1205: "lock wait timeout", 1213: "deadlock"}
"""MariaDB's documentation, "Error Codes"."""


class MariaDBSession(Session):
    upsert = "ON DUPLICATE KEY UPDATE body = VALUES(body)"

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._cursor = connection.cursor()

    async def begin(self, xid: str | None) -> None:
        await self.execute("BEGIN" if xid is None else f"XA START '{xid}'")

    async def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        self.statements += 1
        try:
            return int(await self._cursor.execute(sql, values or None))
        except Error as error:
            if error.args[0] not in _REFUSALS:
                raise
            raise Refused(_REFUSALS[error.args[0]]) from error

    async def prepare(self, xid: str) -> None:
        await self.execute(f"XA END '{xid}'")
        await self.execute(f"XA PREPARE '{xid}'")

    async def commit(self, xid: str | None) -> None:
        await self.execute("COMMIT" if xid is None else f"XA COMMIT '{xid}'")

    async def roll_back(self, xid: str | None) -> None:
        if xid is None:
            await self.execute("ROLLBACK")
            return
        for sql in ("XA END", "XA ROLLBACK"):
            with suppress(Error):  # none was begun here; or XA END says once more what went wrong
                await self.execute(f"{sql} '{xid}'")


class OnMariaDB(ByHand):
    name = "mariadb"
    kind = MariaDBs

    async def session(self, database: Database, stack: AsyncExitStack) -> Session:
        server = database.server
        connection = await asyncmy.connect(
            host=HOST,
            port=server.port,
            user=server.superuser,
            database=database.name,
            autocommit=True,
            client_flag=CLIENT.FOUND_ROWS,
        )
        stack.push_async_callback(connection.ensure_closed)
        return MariaDBSession(connection)
