"""One connection to the server: several statements go out in one packet, and their answers come back in order.

After an error the server carries out nothing more of the packet. So a branch is one round trip from XA START to XA
PREPARE, which is not even looked at when a statement before has failed.

asyncmy speaks the protocol. (PyMySQL in threads, both on one machine with two busy cores: 439 branches a second with 16
connections against 1,346, and 870 us of processor time each against 120; one statement to a packet halves both.) It
allows several statements on every connection, so whose text is not ours is run by EXECUTE IMMEDIATE, which takes one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncmy
from asyncmy import errors
from asyncmy.constants import CLIENT

from participant.resources.server.cancels import was_cancelled

ANSWER_WITHIN_S = 30.0
"""How long an answer may take, beside its waiting for locks, before its connection is given up."""
PACKET_OVERHEAD = 1024
_CONNECT_WITHIN_S = 5.0
"""How long a connection may take until it is there, greeted and logged in."""
_REACHED_BEFORE = 0.8
"""The part of it for reaching the server, all that the driver's own timeout is about. It is less than the whole, as the
driver could swallow a cancel then (see `cancels`), and wait for a greeting without end."""
_CLIENT_ERRORS = range(2000, 3000)
_ENDING_ERRORS = frozenset({1053, 1927})
"""Server shutdown, connection was killed: nothing more comes on this connection."""
_OPTIONS = frozenset({"unix_socket", "ssl_ca"})


class Lost(Exception):
    """The connection is gone, or silent for too long: what was asked on it may or may not have been done."""


class NoAddress(Exception):
    """A DSN that is none; says what is wrong with it."""


class Failure(NamedTuple):
    """What the server said of the statement that failed."""

    number: int
    """Its error code (MariaDB's documentation, "Error Codes")."""
    message: str


class Result(NamedTuple):
    """One statement's answer."""

    found: int
    """Rows that it found to change (not only those that it changed), or brings."""
    rows: Sequence[tuple[str | bytes | None, ...]]
    """Each field as the server writes it: bytes of what is binary, otherwise text."""
    columns: tuple[tuple[str, int], ...] | None
    """Name and type of each column; None for a statement that brings no rows."""


class Unit(NamedTuple):
    """The answers to some statements: one for each that was carried out, and what went wrong with the next."""

    results: list[Result]
    failure: Failure | None


class Address(NamedTuple):
    """Where a database is, and as whom it is used."""

    arguments: dict[str, Any]
    """For `asyncmy.connect`."""

    @classmethod
    def of(cls, dsn: str) -> Address:
        """From `mariadb://user:password@host:port/database?ssl_ca=FILE` (or `?unix_socket=PATH`). Raises NoAddress."""
        try:
            parts = urlsplit(dsn)
            port, options = parts.port or 3306, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        except ValueError as error:
            raise NoAddress(str(error)) from error
        database = unquote(parts.path.removeprefix("/"))
        if parts.scheme != "mariadb" or not database or "/" in database:
            raise NoAddress("expected mariadb://USER:PASSWORD@HOST:PORT/DATABASE")
        if unknown := sorted(options.keys() - _OPTIONS):
            raise NoAddress(f"unknown option {unknown[0]!r}; known are {', '.join(sorted(_OPTIONS))}")
        arguments: dict[str, Any] = {
            "host": parts.hostname or "127.0.0.1",
            "port": port,
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "database": database,
        }
        if "unix_socket" in options:
            arguments["unix_socket"] = options["unix_socket"]
        if "ssl_ca" in options:
            try:
                arguments["ssl"] = ssl.create_default_context(cafile=options["ssl_ca"])
            except OSError as error:
                raise NoAddress(f"ssl_ca {options['ssl_ca']}: {error}") from error
        return cls(arguments)


class Session:
    """Made by `connect`. One packet at a time; who holds a transaction open between two has it alone."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._busy = asyncio.Lock()
        self.id: int = connection.thread_id()
        """By which the server lists and ends it; it counts from 1 again when it begins anew."""
        self.server_began = ""
        """When that was, as it says itself; empty until it has been asked."""
        self.slot = 0
        """The number of the lock that it holds for as long as it is there (see `pool`); 0 for none."""
        self.packet_bytes_max = 1 << 20
        """What the server takes at once; at least so much, until it has been asked."""
        self.settings: tuple[str, ...] = ()
        """Statements that each branch begins with."""
        self.lost: Lost | None = None

    @classmethod
    async def connect(cls, address: Address) -> Session:
        """Raises Lost, with the server's words when it had any."""
        try:
            async with asyncio.timeout(_CONNECT_WITHIN_S):
                connection = await asyncmy.connect(
                    **address.arguments,
                    autocommit=None,
                    charset="utf8mb4",
                    client_flag=CLIENT.FOUND_ROWS,
                    connect_timeout=_CONNECT_WITHIN_S * _REACHED_BEFORE,
                    conv={},
                )
        except Exception as error:  # the driver raises RuntimeError too, when a connection breaks while it is made
            if was_cancelled():
                raise asyncio.CancelledError from error
            late = isinstance(error, TimeoutError)
            raise Lost(f"no connection within {_CONNECT_WITHIN_S:g} s" if late else words(error)) from error
        session = cls(connection)
        if was_cancelled():
            session.close()
            raise asyncio.CancelledError
        return session

    async def ask(self, *statements: str, within_s: float | None = None) -> Unit:
        """Sends the statements, as few packets as they fit in, and waits for the answers, for ANSWER_WITHIN_S unless
        told otherwise. Raises Lost, also when they do not come in time: the connection is given up then."""
        async with self._busy:
            if self.lost is not None:
                raise self.lost
            results: list[Result] = []
            patience = self._patience(ANSWER_WITHIN_S if within_s is None else within_s)
            try:
                for packet in self._packets(statements):
                    if failure := await self._answers(packet, results):
                        return Unit(results, failure)
            except Exception as error:  # whatever the driver raises: the stream is not to be trusted any more
                self._lose(words(error))
            except BaseException:
                self._lose("cancelled")
                raise
            finally:
                patience.cancel()
            if self.lost is not None:
                raise self.lost
            return Unit(results, None)

    async def begin(self, *statements: str, within_s: float | None = None) -> Unit:
        """`ask`, behind the session's settings, which have no answer of their own."""
        unit = await self.ask(*self.settings, *statements, within_s=within_s)
        return Unit(unit.results[len(self.settings) :], unit.failure)

    def _patience(self, within_s: float) -> asyncio.TimerHandle:
        """Loses the connection then, which wakes who waits on it; a fifth of what `asyncio.timeout` costs a branch."""
        return asyncio.get_running_loop().call_later(within_s, self._lose, f"no answer within {within_s:g} s")

    def close(self) -> None:
        """Lets the connection go. What it has prepared stays; what is only begun is rolled back."""
        self._lose("closed")

    def _packets(self, statements: Sequence[str]) -> list[str]:
        whole = ";".join(statements)
        if 4 * len(whole) < self.packet_bytes_max - PACKET_OVERHEAD:
            return [whole]
        packets: list[list[str]] = []
        room = 0
        for statement in statements:
            size = len(statement.encode()) + 1
            if not packets or size > room:
                packets.append([])
                room = self.packet_bytes_max - PACKET_OVERHEAD
            packets[-1].append(statement)
            room -= size
        return [";".join(packet) for packet in packets]

    async def _answers(self, packet: str, results: list[Result]) -> Failure | None:
        cursor = self._cursor
        try:
            await cursor.execute(packet)
            while True:
                description = cursor.description
                columns = None if description is None else tuple([(each[0], each[1]) for each in description])
                results.append(Result(cursor.rowcount, await cursor.fetchall() if columns else (), columns))
                if not await cursor.nextset():
                    return None
        except errors.Error as error:
            failure = failure_of(error)
            if failure is None:
                raise
            return failure

    def _lose(self, why: str) -> None:
        if self.lost is None:
            self.lost = Lost(why)
            with suppress(Exception):
                if (transport := self._connection._transport) is not None:
                    transport.abort()  # to close it waits for a peer to take what is unsent, and wakes nobody before
                self._connection.close()


def failure_of(error: BaseException) -> Failure | None:
    """The server's own error; None for one of the connection."""
    number = error.args[0] if error.args else None
    if not isinstance(number, int) or not number or number in _CLIENT_ERRORS or number in _ENDING_ERRORS:
        return None
    return Failure(number, str(error.args[1]) if len(error.args) > 1 else "")


def words(error: BaseException) -> str:
    """What it says, in one line."""
    said = error.args[1] if isinstance(error, errors.Error) and len(error.args) > 1 else error
    return " ".join(str(said).split()) or type(error).__name__
