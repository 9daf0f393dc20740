"""A cancel that a driver swallows while it connects still ends who waits for the connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from asyncmy import errors

from participant.resources.mariadb import session as mariadb
from participant.resources.postgresql import session as postgresql

CONNECTS: dict[str, tuple[str, Exception, Callable[[], Awaitable[Any]]]] = {
    "postgresql": (
        "psycopg.AsyncConnection.connect",
        psycopg.OperationalError("refused"),
        lambda: postgresql.Session.connect("host=localhost"),
    ),
    "mariadb": (
        "asyncmy.connect",
        errors.OperationalError(2003, "refused"),
        lambda: mariadb.Session.connect(mariadb.Address.of("mariadb://u@localhost/d")),
    ),
}


class Made:
    """A connection that is there when the cancel comes, with as much as a session looks at."""

    backend_pid = 1
    closed = False
    _transport = None

    def __init__(self, socket: int) -> None:
        self.pgconn, self.socket = self, socket

    def cursor(self) -> None:
        return None

    def thread_id(self) -> int:
        return 1

    def close(self) -> None:
        self.closed = True

    finish = close


@pytest.mark.parametrize("made", [False, True], ids=["refused", "made"])
@pytest.mark.parametrize("kind", CONNECTS)
def test_a_cancel_that_is_swallowed_ends_the_task_and_leaves_no_connection(
    kind: str, made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, refused, connect = CONNECTS[kind]
    with socket.socket() as end:
        connection = Made(end.fileno())

        async def swallows(*_: object, **__: object) -> Made:
            """As asyncio.wait_for does when what it waits for is done just then."""
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if made:
                return connection
            raise refused

        async def main() -> None:
            task = asyncio.ensure_future(connect())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        monkeypatch.setattr(name, swallows)
        asyncio.run(main())
        assert connection.closed is made
