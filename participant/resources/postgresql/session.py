"""One connection to the server, used in libpq's pipeline mode: units of queries go out as they come, answers come back
in order, and nobody waits in between.

A *unit* is what stands between two syncs: after an error the server skips the rest of it, and goes on with the next
(PostgreSQL's manual, 34.5). So a branch is one unit: its PREPARE TRANSACTION is not even looked at when a statement
before has failed. All queries go by the extended protocol, which takes one statement each.

psycopg makes the connection; its `pq` module (libpq itself) is used beyond that, because what its cursors cost for each
statement is many times what libpq costs. Nothing here knows what the queries mean.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import psycopg
from psycopg import pq
from psycopg.pq import DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from participant.resources.server.cancels import was_cancelled

ANSWER_WITHIN_S = 30.0
"""How long a unit may take beside its waiting for locks, before its connection is given up."""
KEPT_MAX = 1000
"""Statements that a session keeps parsed; beyond that they are parsed each time."""
_BINARY, _TEXT = 1, 0
_SYNC, _ABORTED, _IDLE = ExecStatus.PIPELINE_SYNC, ExecStatus.PIPELINE_ABORTED, TransactionStatus.IDLE
_ERRORS = frozenset({ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE})
_COPYING = frozenset({ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH})


class Lost(Exception):
    """The connection is gone, or silent for too long: what was asked on it may or may not have been done."""


class Query(NamedTuple):
    """One statement with its parameters: text, or bytes for a binary one."""

    sql: str
    parameters: tuple[str | bytes | None, ...] = ()
    kept: bool = True
    """Whether its text comes again and is worth keeping parsed at the server."""


class Failure(NamedTuple):
    """What the server said of the query that failed."""

    sqlstate: str
    message: str
    detail: str
    schema: str
    table: str
    column: str
    constraint: str

    def words(self) -> str:
        return f"{self.message} ({self.detail})" if self.detail else self.message


class Unit(NamedTuple):
    """The answers to a unit: a result for each query that was carried out, and what went wrong with the next one."""

    results: list[PGresult]
    failure: Failure | None

    def tag(self, at: int) -> str:
        """The command tag of one query, as PREPARE TRANSACTION; empty when it was not carried out."""
        return (self.results[at].command_status or b"").decode() if -len(self.results) <= at < len(self.results) else ""


class _Pending:
    """A unit whose answers are not all there."""

    __slots__ = ("failure", "future", "left", "results")

    def __init__(self, future: asyncio.Future[Unit]) -> None:
        self.future = future
        self.left: deque[str | None] = deque()
        """The commands without an answer: None for a query, its text for the parse before it."""
        self.results: list[PGresult] = []
        self.failure: Failure | None = None


class Session:
    """Made by `connect`. Not to be shared by those who hold a transaction open between two units."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Pending] = deque()
        self._kept: dict[str, bytes] = {}
        self._named = 0
        self._result: PGresult | None = None
        self._writing = False
        self._socket = self._pgconn.socket
        self.lost: Lost | None = None
        self.used_freely = False
        """Set by who runs statements of the user's, which may change what the session is set to."""
        self.pid = self._pgconn.backend_pid
        self.started = ""
        """When the backend began, as the server writes it: with `pid` it names this backend and no later one."""

    @classmethod
    async def connect(cls, conninfo: str) -> Session:
        """Raises psycopg.OperationalError."""
        try:
            connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
        except psycopg.OperationalError as error:
            if was_cancelled():
                raise asyncio.CancelledError from error
            raise
        session = cls(connection)
        try:
            if was_cancelled():
                raise asyncio.CancelledError
            await session._look_at_itself()
        except Lost as lost:
            raise psycopg.OperationalError(str(lost)) from lost
        except BaseException:
            session.close()
            raise
        return session

    async def _look_at_itself(self) -> None:
        """Learns which server process this is: with less, a broken connection could never be settled."""
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._readable)
        unit = await self.ask(
            Query("SELECT pid::text, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        )
        found = unit.results[0] if unit.failure is None else None
        pid, started = (text(found, 0, 0), text(found, 0, 1)) if found and found.ntuples else (None, None)
        if pid is None or started is None:
            raise psycopg.OperationalError("pg_stat_activity does not list this connection")
        self.pid, self.started = int(pid), started

    @property
    def announced_pid(self) -> int:
        """The process that the connection was told it speaks to: another than `pid` behind a pooler."""
        return self._pgconn.backend_pid

    @property
    def idle(self) -> bool:
        """Whether, by the server's own last word, no transaction is open and nothing is under way."""
        return self.lost is None and not self._pending and self._pgconn.transaction_status == _IDLE

    async def ask(self, *queries: Query, within_s: float | None = None) -> Unit:
        """Sends a unit and waits for its answers, for ANSWER_WITHIN_S unless told. Raises Lost, also when they do not
        come in time: the connection is given up then."""
        future = self.send(queries)
        if within_s is None:
            within_s = ANSWER_WITHIN_S
        patience = self._loop.call_later(within_s, self._lose, f"no answer within {within_s:g} s")
        try:
            return await future
        finally:
            patience.cancel()

    async def answer(self, query: Query) -> PGresult:
        """The answer to what any role may ask. Raises Lost, also when the server refuses it: it may be locked, take too
        long, or be cancelled by somebody."""
        unit = await self.ask(query)
        if unit.failure is not None:
            raise Lost(unit.failure.words())
        return unit.results[0]

    def send(self, queries: Sequence[Query]) -> asyncio.Future[Unit]:
        """The same without waiting."""
        future: asyncio.Future[Unit] = self._loop.create_future()
        if self.lost is not None:
            future.set_exception(self.lost)
            return future
        pending = _Pending(future)
        self._pending.append(pending)
        try:
            for query in queries:
                self._send(query, pending)
            self._pgconn.pipeline_sync()  # and sends, as far as the socket takes it
        except psycopg.OperationalError as error:
            self._lose(str(error))
            return future
        self._flush()
        return future

    def forget_statements(self) -> None:
        """After DISCARD ALL, which drops them at the server."""
        self._kept.clear()

    def close(self) -> None:
        """Lets the connection go; what waits hears Lost."""
        self._lose("closed")

    def _send(self, query: Query, pending: _Pending) -> None:
        sql, parameters, kept = query
        values = [each.encode() if isinstance(each, str) else each for each in parameters]
        formats = [_BINARY if isinstance(each, bytes) else _TEXT for each in parameters]
        name = self._kept.get(sql) if kept else b""
        if name is None:
            name = b""
            if len(self._kept) < KEPT_MAX:
                self._named += 1
                name = self._kept[sql] = b"t%d" % self._named
                self._pgconn.send_prepare(name, sql.encode())
                pending.left.append(sql)
        if name:
            self._pgconn.send_query_prepared(name, values, formats)
        else:
            self._pgconn.send_query_params(sql.encode(), values, None, formats)
        pending.left.append(None)

    def _flush(self) -> None:
        """Sends what is left, now and when the socket takes more."""
        try:
            more = self._pgconn.flush()
        except psycopg.OperationalError as error:
            self._lose(str(error))
            return
        if more and not self._writing:
            self._loop.add_writer(self._socket, self._flush)
        elif not more and self._writing:
            self._loop.remove_writer(self._socket)
        self._writing = bool(more)

    def _readable(self) -> None:
        pgconn = self._pgconn
        try:
            pgconn.consume_input()
            while self._pending and not pgconn.is_busy():
                self._take(pgconn.get_result())
        except psycopg.OperationalError as error:
            self._lose(str(error))
            return
        if self.lost is None and pgconn.status != pq.ConnStatus.OK:
            self._lose(pgconn.get_error_message())

    def _take(self, result: PGresult | None) -> None:
        """One result of the first unit; None ends each command's."""
        pending = self._pending[0]
        if result is None:
            result, self._result = self._result, None
            if result is not None and pending.left:
                self._answered(pending, pending.left.popleft(), result)
        elif (status := result.status) == _SYNC:
            self._pending.popleft()
            if not pending.future.done():
                pending.future.set_result(Unit(pending.results, pending.failure))
        elif status in _COPYING:  # cannot be pipelined, and there is no way back
            self._lose("COPY is not allowed in pipeline mode")
        else:
            self._result = result

    def _answered(self, pending: _Pending, parsed: str | None, result: PGresult) -> None:
        if (status := result.status) in _ERRORS:
            pending.failure = pending.failure or _failure(result)
        elif status != _ABORTED:
            if parsed is None:
                pending.results.append(result)
            return
        if parsed is not None:
            self._kept.pop(parsed, None)

    def _lose(self, why: str) -> None:
        if self.lost is not None:
            return
        self.lost = Lost(why.strip() or "the server closed the connection")
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
        self._pgconn.finish()
        for pending in self._pending:
            if not pending.future.done():
                pending.future.set_exception(self.lost)
                pending.future.exception()  # seen: nobody may be waiting
        self._pending.clear()


def text(result: PGresult, row: int, column: int) -> str | None:
    """One field of a result in text format."""
    raw = result.get_value(row, column)
    return None if raw is None else raw.decode()


def _failure(result: PGresult) -> Failure:
    def field(which: DiagnosticField) -> str:
        return (result.error_field(which) or b"").decode(errors="replace")

    message = field(DiagnosticField.MESSAGE_PRIMARY) or result.get_error_message()
    return Failure(
        field(DiagnosticField.SQLSTATE),
        message,
        field(DiagnosticField.MESSAGE_DETAIL),
        field(DiagnosticField.SCHEMA_NAME),
        field(DiagnosticField.TABLE_NAME),
        field(DiagnosticField.COLUMN_NAME),
        field(DiagnosticField.CONSTRAINT_NAME),
    )
