"""A PostgreSQL database as what a participant guards: the contract of `participant.resources.outside`.

A branch is one pipelined unit: BEGIN, its statements, a row in `troth_finished`, PREPARE TRANSACTION. That row becomes
visible with the work if the branch commits, and with nothing else, so a global name that the server does not know means
*committed* when the row is there and *rolled back, or never prepared* when it is not. The name, at most 200 bytes, is
`troth:NAMESPACE:LOG:NUMBER`: this participant's file, the coordinator's log, the attempt.

A YES is believed for one reason: the server's command tag says PREPARE TRANSACTION. (Of a transaction that has failed
before, the server answers PREPARE with the tag ROLLBACK and no error.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, cast

import psycopg
import structlog

from participant.resources import No, Plan, Prepared
from participant.resources.outside import ResourceRefused, Stray, Survey
from participant.resources.postgresql import catalog, denials, opening, statements
from participant.resources.postgresql.pool import Fenced, Pool
from participant.resources.postgresql.session import ANSWER_WITHIN_S, Lost, Query, Session, Unit, text
from participant.resources.postgresql.statements import Work
from participant.resources.server import planning
from participant.resources.server.again import LEAST_S, Again
from participant.resources.server.places import Unavailable
from participant.resources.server.resource import ServerResource
from participant.resources.server.steps import Stale
from participant.resources.targets import target_of
from troth import reasons
from troth.messages import Mark
from troth.v1 import participant_pb2, types_pb2
from troth.v1.types_pb2 import Code
from troth.words import AttemptId

log = structlog.get_logger(__name__)

PREFIX = "troth:"
OPEN_WITHIN_S = 5.0
"""How long a server that is only starting, or not there yet, is waited for."""
CLEAN_WITHIN_S = 2.0
"""How long a NO waits until what is left of its branch is gone; then it goes out, and the cleaning goes on."""
_STARTING_S = 0.1
_BEGIN, _COMMIT, _ROLLBACK = Query("BEGIN"), Query("COMMIT"), Query("ROLLBACK")
_FORCING = Query("SELECT pg_logical_emit_message(true, 'troth', '')")
"""Something to be forced: the COMMIT of who only reads forces nothing."""
_PREPARED_TAG, _COMMITTED_TAG = "PREPARE TRANSACTION", "COMMIT"
_NOT_YET = ("starting up", "shutting down", "recovery mode", "Connection refused", "No such file")
_UNREACHABLE = (psycopg.OperationalError, Lost, Fenced)


class ServerFailed(Exception):
    """The server refuses what it must do, the end of a prepared branch: needs a human."""


class PostgreSQLResource(ServerResource):
    """Serves the tables of one database."""

    kind = "postgresql"

    def __init__(self, dsn: str, participant: str = "", *, lock_timeout_s: float = 5.0, pool: int = 16) -> None:
        """`participant` is named in the rows that it reads. `pool` is how many branches are worked on at a time."""
        super().__init__()
        self._dsn, self._participant = dsn, participant
        self._lock_timeout_s = lock_timeout_s
        self._pool_size = pool
        self._tasks: set[asyncio.Task[None]] = set()

    # Life.

    async def open(self, namespace: str) -> str:
        self._namespace = namespace
        try:
            first = await _connected(self._dsn)
            try:
                self._server = await opening.examine(first, self._pool_size)
            finally:
                first.close()
            self._pool = Pool(self._dsn, namespace, self._settings(), self._pool_size)
            try:
                await self._pool.fence()
                await opening.require_reach(await self._pool.ender(), f"{PREFIX}{namespace}:")
                await self._rehearse()
                self._database = await catalog.load(await self._pool.ender())
                return self._server.place
            except BaseException:
                await self._pool.close()
                raise
        except psycopg.ProgrammingError as error:
            raise ResourceRefused(f"this is no DSN: {_line(error)}") from error
        except _UNREACHABLE as error:
            raise ResourceRefused(f"PostgreSQL does not take us in: {_line(error)}") from error

    def _settings(self) -> dict[str, str]:
        """What each session begins with: how values are written, and how long a lock is waited for."""
        return {
            "lock_timeout": str(max(1, round(self._lock_timeout_s * 1000))),
            "synchronous_commit": self._server.synchronous_commit,
            "datestyle": "ISO",
            "timezone": "UTC",
            "bytea_output": "hex",
            "extra_float_digits": "1",
        }

    async def _rehearse(self) -> None:
        """Prepares a branch and rolls it back: what no look at settings can prove. Raises ResourceRefused."""
        attempt = AttemptId("rehearsal", 0)
        session = await self._pool.ender()
        await session.ask(self._ending("ROLLBACK", attempt))  # left by a start that was killed just here
        unit = await session.ask(_BEGIN, self._remembering(attempt), self._preparing(attempt))
        if unit.failure is None and is_proven(unit):
            unit = await session.ask(self._ending("ROLLBACK", attempt))
        if unit.failure is not None:
            raise ResourceRefused(f"PostgreSQL cannot prepare a transaction here: {unit.failure.words()}")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.close()

    def _behind(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts what nobody need wait for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def survey(self) -> Survey:
        """Also reads the catalog again, so that a table that was made or changed is served in time."""
        listed = Query(
            "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::text FROM pg_prepared_xacts"
            " WHERE database = current_database() AND starts_with(gid, $1)",
            (PREFIX,),
        )
        finished = Query(
            f"SELECT log, number::text, encode(operations, 'hex') FROM {self._server.finished}"
            " WHERE identity = $1 ORDER BY position",  # a branch takes its position once it has its locks
            (self._namespace,),
        )
        # In this order, each with a snapshot of its own: what ends in between is in both, never in none.
        before, after = [self._answer(await self._surely(query)) for query in (listed, finished)]
        committed = {AttemptId(log, int(number)): bytes.fromhex(operations) for log, number, operations in after}
        prepared, strays = set(), []
        for gid, age in before:
            attempt = self._attempt_of(gid)
            if attempt is None:
                strays.append(Stray(gid, float(age)))
            elif attempt not in committed:
                prepared.add(attempt)
        if self._answer(await self._surely(Query("SHOW fsync"))) != [("on",)]:
            raise ResourceRefused(opening.UNFORCED)
        await self._reload()
        return Survey(frozenset(prepared), committed, tuple(strays))

    # Branches.

    def plan(self, operations: bytes) -> Plan:
        planned = planning.plan(self._database.catalog, operations)
        return planned._replace(work=statements.work_of(planned.work, self._database.overriding))

    async def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        work = cast(Work, plan.work)
        async with self._working(work) as session:
            if plan.read_only:
                return await self._look(session, work)
            queries = (_BEGIN, *work.queries, *self._last(work, attempt), self._preparing(attempt))
            try:
                unit = await session.ask(*queries, within_s=self._patience_s(work))
            except Lost as lost:
                await self._clean(session, attempt)
                raise _unreachable(lost) from lost
            if unit.failure is not None:
                raise await self._denied(session, work, unit)
            try:
                if not is_proven(unit):
                    message = f"the server answered PREPARE TRANSACTION with {unit.tag(-1) or 'nothing'}"
                    raise No(reasons.reason(Code.CODE_RESOURCE, message))
                return Prepared(self._rows(work, unit), {})
            except No:
                await self._clean(session, attempt)
                raise

    async def run(self, attempt: AttemptId, operations: bytes, plan: Plan) -> Prepared:
        work = cast(Work, plan.work)
        async with self._working(work) as session:
            if plan.read_only:
                return await self._look(session, work)
            try:  # without a COMMIT: how many rows were touched is known only when it has been answered
                unit = await session.ask(
                    _BEGIN, *work.queries, *self._last(work, attempt, operations), within_s=self._patience_s(work)
                )
            except Lost as lost:
                raise _unreachable(lost) from lost
            if unit.failure is not None:
                raise await self._denied(session, work, unit)
            try:
                prepared = Prepared(self._rows(work, unit), {})
            except No:
                await _rolled_back(session)
                raise
            try:
                unit = await session.ask(_COMMIT)
            except Lost as lost:
                if await self._is_committed_by(session, attempt):
                    return prepared
                raise _unreachable(lost) from lost
            if unit.failure is not None:
                raise denials.denial(None, unit.failure, self._database)
            if unit.tag(-1) != _COMMITTED_TAG:
                message = f"the server answered COMMIT with {unit.tag(-1)}"
                raise No(reasons.reason(Code.CODE_RESOURCE, message))
            return prepared

    async def _look(self, session: Session, work: Work) -> Prepared:
        """A branch that changes nothing: its COMMIT makes sure that what it saw is on disk, also what another program
        has committed without waiting for that."""
        try:
            unit = await session.ask(
                _BEGIN, *work.queries, *self._guard(work), _FORCING, _COMMIT, within_s=self._patience_s(work)
            )
        except Lost as lost:
            raise _unreachable(lost) from lost
        if unit.failure is not None:
            raise await self._denied(session, work, unit)
        return Prepared(self._rows(work, unit), {})

    async def forget(self, log: str, mark: Mark) -> None:
        excepted = "{" + ",".join(map(str, mark.excepted)) + "}"
        where = "identity = $1 AND log = $2 AND number < $3::int8 AND number <> ALL ($4::int8[])"
        parameters = self._namespace, log, str(mark.low), excepted
        query = Query(f"DELETE FROM {self._server.finished} WHERE {where}", parameters)
        self._answer(await self._surely(query))

    async def read_row(self, table: str, key: Sequence[types_pb2.Value]) -> types_pb2.Row:
        target = target_of(self._database.catalog, 0, table, key)
        async with self._working(None) as session:
            try:
                unit = await session.ask(statements.read(target))
            except Lost as lost:
                raise _unreachable(lost) from lost
            if unit.failure is not None:
                raise denials.denial(None, unit.failure, self._database)
            try:
                row = statements.row_of(target, unit.results[0])
            except Stale:
                self._behind(self._reload())
                raise
            row.participant = self._participant
            return row

    def tables(self) -> list[participant_pb2.TableStatus]:
        return self._database.catalog.statuses()

    # A branch's connection.

    def _working(self, work: Work | None) -> _Working:
        return _Working(self._pool, self._lock_timeout_s, freely=work is not None and work.runs_code)

    def _patience_s(self, work: Work) -> float:
        return ANSWER_WITHIN_S + self._lock_timeout_s * len(work.steps)

    def _last(self, work: Work, attempt: AttemptId, operations: bytes | None = None) -> tuple[Query, ...]:
        """What comes behind the work."""
        return (*self._guard(work), self._remembering(attempt, operations))

    def _guard(self, work: Work) -> tuple[Query, ...]:
        """What the user's code, once all of it has run, may have set (by a function): who owns the prepared
        transaction, or that its commit is not waited for."""
        if not work.runs_code:
            return ()
        return (
            Query("SET CONSTRAINTS ALL IMMEDIATE"),
            Query("RESET SESSION AUTHORIZATION"),
            Query("RESET ROLE"),
            Query(f"SET LOCAL synchronous_commit = {self._server.synchronous_commit}"),
        )

    def _rows(self, work: Work, unit: Unit) -> bytes:
        """Raises No for a wrong number of rows, and for a catalog that is out of date, which is read again then."""
        try:
            encoded = work.rows(unit.results[1:])
        except Stale:
            self._behind(self._reload())
            raise
        if encoded and self._participant:
            rows = types_pb2.Rows.FromString(encoded)
            for row in rows.rows:
                row.participant = self._participant
            encoded = rows.SerializeToString()
        return encoded

    async def _denied(self, session: Session, work: Work, unit: Unit) -> No:
        """The NO of a unit that failed, once its transaction is gone."""
        assert unit.failure is not None
        await _rolled_back(session)
        step = work.step_at(len(unit.results) - 1)
        stale = denials.is_stale(step, unit.failure)
        if stale:
            session.close()
        no = denials.denial(step, unit.failure, self._database)
        if stale or isinstance(no, Stale) or unit.failure.sqlstate in denials.NOT_THERE:
            self._behind(self._reload())
        return no

    async def _reload(self) -> None:
        """Reads the catalog again; what cannot be read now is read another time."""
        try:
            self._database = await catalog.load(await self._pool.ender())
        except _UNREACHABLE as error:
            log.info("the catalog could not be read", error=_line(error))

    # What is left of a branch.

    async def _clean(self, session: Session, attempt: AttemptId) -> None:
        """Sees to it that nothing of the branch is, or comes to be, at the server; when that takes too long it goes on
        behind our back, until `abort` or the next incarnation finds it done."""
        task = self._cleaning[attempt] = self._behind(self._cleaned(session, attempt))
        task.add_done_callback(lambda _: self._cleaning.pop(attempt, None))
        done, _ = await asyncio.wait({task}, timeout=CLEAN_WITHIN_S)
        if done:
            task.result()

    async def _cleaned(self, session: Session, attempt: AttemptId) -> None:
        try:
            if session.lost is not None:
                await self._gone(session)
            await self._end("ROLLBACK", attempt)
        except ServerFailed as error:
            log.error("what is left of a branch cannot be rolled back", attempt=str(attempt), error=str(error))
            raise

    async def _gone(self, session: Session) -> None:
        """Waits until the server process behind a lost connection is there no more, with what it was told."""
        query = Query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid = $1::int4 AND backend_start = $2::timestamptz",
            (str(session.pid), session.started),
        )
        while True:
            if not self._answer(await self._surely(query)):
                return
            await asyncio.sleep(LEAST_S)

    async def _is_committed_by(self, session: Session, attempt: AttemptId) -> bool:
        """Whether a lost connection has carried out its COMMIT."""
        await self._gone(session)
        return await self._remembers(attempt)

    # Ends.

    async def _end(self, verb: str, attempt: AttemptId) -> bool:
        """COMMIT PREPARED or ROLLBACK PREPARED; False when the server knows no such name."""
        unit = await self._surely(self._ending(verb, attempt))
        if unit.failure is None:
            return True
        if unit.failure.sqlstate == denials.UNKNOWN_GID:
            return False
        raise ServerFailed(f"{verb} PREPARED of {attempt}: {unit.failure.words()}")

    async def _remembers(self, attempt: AttemptId) -> bool:
        """Whether the branch committed, for a name that the server does not know."""
        where = "identity = $1 AND log = $2 AND number = $3::int8"
        query = Query(f"SELECT 1 FROM {self._server.finished} WHERE {where}", self._names(attempt))
        return bool(self._answer(await self._surely(query)))

    async def _surely(self, query: Query) -> Unit:
        """Asks until there is an answer that is not about the moment. To be used for what may be done twice."""
        again = Again("PostgreSQL is asked again and again", query=query.sql)
        while True:
            try:
                unit = await (await self._pool.ender()).ask(query)
                if unit.failure is None or not denials.is_passing(unit.failure):
                    return unit
                why = unit.failure.words()
            except _UNREACHABLE as error:
                why = _line(error)
            await again.pause(error=why)

    def _answer(self, unit: Unit) -> list[tuple[str, ...]]:
        """The rows of what any role in our place may ask. Raises ServerFailed."""
        if unit.failure is not None:
            raise ServerFailed(unit.failure.words())
        result = unit.results[0]
        return [
            tuple(text(result, row, column) or "" for column in range(result.nfields)) for row in range(result.ntuples)
        ]

    # Names.

    def _gid(self, attempt: AttemptId) -> str:
        return f"{PREFIX}{self._namespace}:{attempt.log}:{attempt.number}"

    def _attempt_of(self, gid: str) -> AttemptId | None:
        """The inverse, for names of ours alone."""
        identity, _, rest = gid.removeprefix(PREFIX).partition(":")
        log, _, number = rest.rpartition(":")
        attempt = AttemptId(log, int(number)) if number.isdecimal() and number.isascii() else None
        return attempt if identity == self._namespace and attempt and self._gid(attempt) == gid else None

    def _names(self, attempt: AttemptId) -> tuple[str, str, str]:
        return self._namespace, attempt.log, str(attempt.number)

    def _remembering(self, attempt: AttemptId, operations: bytes | None = None) -> Query:
        return Query(
            f"INSERT INTO {self._server.finished} (identity, log, number, operations) VALUES ($1, $2, $3, $4)",
            (*self._names(attempt), operations),
        )

    def _preparing(self, attempt: AttemptId) -> Query:
        return Query(f"PREPARE TRANSACTION '{self._gid(attempt)}'", kept=False)

    def _ending(self, verb: str, attempt: AttemptId) -> Query:
        return Query(f"{verb} PREPARED '{self._gid(attempt)}'", kept=False)


class _Working:
    """A session at work for one branch, while it is entered, which raises No when there is none."""

    __slots__ = ("_freely", "_pool", "_session", "_within_s")

    def __init__(self, pool: Pool, within_s: float, *, freely: bool) -> None:
        self._pool, self._within_s, self._freely = pool, within_s, freely

    async def __aenter__(self) -> Session:
        try:
            session = self._session = await self._pool.take(self._within_s)
        except Unavailable as error:
            raise No(reasons.reason(Code.CODE_OVERLOADED, f"PostgreSQL: {error}")) from error
        except _UNREACHABLE as error:
            raise _unreachable(error) from error
        session.used_freely = self._freely
        return session

    async def __aexit__(self, *_: object) -> None:
        self._pool.give_back(self._session)


def is_proven(unit: Unit) -> bool:
    """Whether the server itself says that the branch is prepared."""
    return unit.tag(-1) == _PREPARED_TAG


async def _connected(dsn: str) -> Session:
    """A first connection; a server that is only starting is waited for."""
    deadline = asyncio.get_running_loop().time() + OPEN_WITHIN_S
    while True:
        try:
            return await Session.connect(dsn)
        except psycopg.OperationalError as error:
            if asyncio.get_running_loop().time() > deadline or not any(part in str(error) for part in _NOT_YET):
                raise
        await asyncio.sleep(_STARTING_S)


async def _rolled_back(session: Session) -> None:
    """Ends a transaction that failed. On a connection that breaks here the server does it."""
    with suppress(Lost):
        await session.ask(_ROLLBACK)


def _unreachable(error: Exception) -> No:
    return No(reasons.reason(Code.CODE_UNREACHABLE, f"PostgreSQL cannot be reached: {_line(error)}"))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
