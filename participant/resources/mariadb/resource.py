"""A MariaDB database as what a participant guards: the contract of `participant.resources.outside`.

A branch is one packet: XA START, its statements, a row in `troth_finished`, XA END, XA PREPARE. That row becomes
visible with the work if the branch commits, and with nothing else; so an XID that the server does not know means
*committed* when the row is there and *rolled back, or never prepared* when it is not. The server's NOTA alone means
neither: it is also what another session hears while the one that prepared the branch is connected.

XA ROLLBACK is not forced, unlike XA PREPARE and XA COMMIT: one that was answered with OK is undone, and the branch
prepared again, when the server is killed before anything else forces its log, which happens every second (10 of 10 on
MariaDB 10.11.19). `abort` is then called again.

The XID is `troth:NAMESPACE.DATABASE:LOG` (this participant's file, a digest of the database's name, as the server does
not say to which one a prepared branch belongs, the coordinator's log) and the attempt's number.

Sessions run at READ COMMITTED: what a branch reads by row is locked, so that nothing stronger is gained for it, and the
gaps between rows stay free for others. Rows are counted as found, so an UPDATE to the same value counts. The sql_mode
is strict, whatever the server's is: what does not fit is an error.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from typing import Self, TypeVar, cast

import structlog

from participant.resources import No, Plan, Prepared
from participant.resources.mariadb import catalog, denials, opening, statements
from participant.resources.mariadb.opening import FINISHED
from participant.resources.mariadb.pool import Fenced, Pool
from participant.resources.mariadb.session import ANSWER_WITHIN_S, Address, Lost, NoAddress, Session, Unit, words
from participant.resources.mariadb.statements import Unexplained, Work, literal
from participant.resources.outside import ResourceRefused, Stray, Survey
from participant.resources.server import planning
from participant.resources.server.again import Again
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

T = TypeVar("T")

PREFIX = "troth:"
OPEN_WITHIN_S = 5.0
"""How long a server that is only starting, or not there yet, is waited for."""
CLEAN_WITHIN_S = 2.0
"""How long a NO waits until what is left of its branch is gone, when the server is there; then it goes out, and the
cleaning goes on."""
FORGET_MAX = 10_000
"""Rows of `troth_finished` that one statement drops."""
_COMMIT, _ROLLBACK = "COMMIT AND NO CHAIN NO RELEASE", "ROLLBACK AND NO CHAIN NO RELEASE"
"""Whatever completion_type a trigger has set."""
_STARTING_S = 0.1
_NOT_YET = ("Can't connect", "Lost connection", "refused", "No such file", "shutdown")
_UNREACHABLE = (Lost, Fenced)

SQL_MODE = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION"


class ServerFailed(Exception):
    """The server refuses what it must do, the end of a prepared branch, or did not do it: needs a human."""


class MariaDBResource(ServerResource):
    """Serves the tables of one database."""

    kind = "mariadb"

    def __init__(self, dsn: str, participant: str = "", *, lock_timeout_s: float = 5.0, pool: int = 16) -> None:
        """`participant` is named in the rows that it reads. `pool` is how many branches are worked on at a time; four
        times as many may be prepared with a session of their own. The server takes whole seconds of `lock_timeout_s`,
        so it is rounded up."""
        super().__init__()
        self._dsn, self._participant = dsn, participant
        self._lock_timeout_s = lock_timeout_s
        self._pool_size = pool
        self._strays: dict[str, float] = {}
        """Since when each has been seen, in monotonic time: the server does not say."""

    # Life.

    async def open(self, namespace: str) -> str:
        self._namespace = namespace
        try:
            address = Address.of(self._dsn)
            first = await _connected(address)
            try:
                self._server = await opening.examine(first, self._pool_size)
            finally:
                first.close()
            self._scope = f"{namespace}.{blake2b(self._server.database.encode(), digest_size=4).hexdigest()}"
            packet = self._server.packet_bytes_max
            with ExitStack() as unless_open:
                self._pool = Pool(address, self._scope, self._settings(), self._pool_size, packet)
                unless_open.callback(self._pool.close)
                await self._pool.fence()
                await self._rehearse()
                self._database = await catalog.load(await self._pool.ender())
                unless_open.pop_all()
            return self._server.place
        except NoAddress as error:
            raise ResourceRefused(f"this is no DSN: {words(error)}") from error
        except _UNREACHABLE as error:
            raise ResourceRefused(f"MariaDB does not take us in: {words(error)}") from error

    def _settings(self) -> tuple[str, ...]:
        """What each branch begins with: a trigger, or a function of the user's, may have set the session otherwise."""
        wait_s = max(1, math.ceil(self._lock_timeout_s))
        return (
            f"SET SESSION sql_mode = '{SQL_MODE}', innodb_lock_wait_timeout = {wait_s}, lock_wait_timeout = {wait_s},"
            " autocommit = 1, foreign_key_checks = 1, unique_checks = 1, check_constraint_checks = 1,"
            " sql_safe_updates = 0, sql_select_limit = DEFAULT, completion_type = 0, max_statement_time = 0,"
            " idle_transaction_timeout = 0, wait_timeout = 31536000, time_zone = '+00:00', timestamp = DEFAULT,"
            " character_set_client = utf8mb4, character_set_connection = utf8mb4, character_set_results = utf8mb4",
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
        )

    async def _rehearse(self) -> None:
        """Prepares a branch and rolls it back: what no look at settings can prove. Raises ResourceRefused."""
        attempt = AttemptId("rehearsal", 0)
        session = await self._pool.ender()
        xid = self._xid(attempt)
        await session.ask(f"XA ROLLBACK {xid}")  # left by a start that was killed just here
        unit = await session.ask(*self._branch((), attempt), f"XA ROLLBACK {xid}")
        if unit.failure is not None:
            session.close()
            raise ResourceRefused(f"MariaDB cannot prepare a branch here: {unit.failure.message}")

    async def close(self) -> None:
        for task in self._cleaning.values():
            task.cancel()
        self._pool.close()

    async def survey(self) -> Survey:
        """Also reads the catalog again, so that a table that was made or changed is served in time, and sees to it that
        the keeper is there: when no connection is made, nobody else does."""
        await self._persist(self._pool.hold, "is the keeper there?")
        # In this order, each with a snapshot of its own: what ends in between is in both, never in none.
        listed = await self._recoverable()
        rows = await self._asked(
            f"SELECT log, number, HEX(operations) FROM {FINISHED} WHERE identity = {literal(self._namespace)}"
            " ORDER BY position"  # which a branch takes once it has its locks
        )
        committed = {
            AttemptId(_text(log), int(_text(number))): bytes.fromhex(_text(operations or b""))
            for log, number, operations in rows
        }
        forcing = await self._asked(f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({opening.FORCING})")
        if unforced := opening.why_unforced({_text(name): _text(value) for name, value in forcing}):
            raise ResourceRefused(unforced)
        now = time.monotonic()
        names = [name for name, attempt in listed if attempt is None]
        self._strays = {name: self._strays.get(name, now) for name in names}
        strays = tuple(Stray(name, now - since) for name, since in self._strays.items())
        await self._reload()
        return Survey(frozenset(attempt for _, attempt in listed if attempt) - committed.keys(), committed, strays)

    # Branches.

    def plan(self, operations: bytes) -> Plan:
        planned = planning.plan(self._database.catalog, operations)
        packet = self._server.packet_bytes_max
        return planned._replace(work=statements.work_of(planned.work, packet, self._database.unprepared))

    async def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        work = cast(Work, plan.work)
        async with self._working() as working:
            if plan.read_only:
                return await self._look(working.session, attempt, work)
            prepared = await self._tried(working.session, attempt, work)
            working.keeps = attempt
            return prepared

    async def run(self, attempt: AttemptId, operations: bytes, plan: Plan) -> Prepared:
        work = cast(Work, plan.work)
        async with self._working() as working:
            session = working.session
            if plan.read_only:
                return await self._look(session, attempt, work)
            # Without the COMMIT: how many rows were touched is known only when this has been answered.
            prepared = await self._begun(session, work, "START TRANSACTION", self._remembering(attempt, operations))
            try:
                unit = await session.ask(_COMMIT)
            except Lost as lost:
                if await self._is_committed_by(session, attempt):
                    return prepared
                raise _unreachable(lost) from lost
            if unit.failure is not None:
                session.close()
                if await self._is_committed_by(session, attempt):
                    return prepared
                raise denials.denial(None, unit.failure, self._database)
            return prepared

    async def _look(self, session: Session, attempt: AttemptId, work: Work) -> Prepared:
        """A branch that changes nothing. XA PREPARE would make an entry of it that somebody has to end.

        InnoDB shows a commit before it forces it, so what was read may be lost in a crash; and the COMMIT of who only
        reads forces nothing. So another transaction follows that does, with a row that is gone again when it commits:
        the log is one, and is forced in its order."""
        forcing = (
            "START TRANSACTION",
            self._remembering(attempt),
            f"DELETE FROM {FINISHED} WHERE {self._where(attempt)}",
            _COMMIT,
        )
        return await self._begun(session, work, "START TRANSACTION READ ONLY", _COMMIT, *forcing)

    async def _begun(self, session: Session, work: Work, first: str, *last: str) -> Prepared:
        """A plain transaction. Raises No, and then it is rolled back."""
        try:
            unit = await session.begin(first, *work.statements, *last, within_s=self._patience_s(work))
        except Lost as lost:
            raise _unreachable(lost) from lost
        try:
            return await self._rows(work, unit)
        except (No, Unexplained) as error:
            await self._undone(session, _ROLLBACK)
            raise await self._explained(session, work, error) from None

    async def forget(self, log: str, mark: Mark) -> None:
        """By the keys of committed rows, and without waiting: one that a prepared branch has locked would hold up the
        ends that come behind on the same session. What could not be dropped goes with a later mark."""
        where = f"identity = {literal(self._namespace)} AND log = {literal(log)}"
        excepted = set(mark.excepted)
        after = -1
        while True:
            rows = await self._asked(
                f"SELECT number FROM {FINISHED} WHERE {where} AND number > {after} AND number < {mark.low}"
                f" ORDER BY number LIMIT {FORGET_MAX}"
            )
            if not rows:
                return
            numbers = [int(_text(number)) for (number,) in rows]
            after = numbers[-1]
            if below := [str(number) for number in numbers if number not in excepted]:
                await self._drop(f"{where} AND number IN ({','.join(below)})")

    async def _drop(self, where: str) -> None:
        """Without the hint a full scan is preferred for many keys, which meets the locks of prepared branches."""
        query = f"DELETE f FROM {FINISHED} AS f FORCE INDEX (PRIMARY) WHERE {where}"
        try:
            session = await self._pool.ender()
            unit = await session.ask(f"SET STATEMENT innodb_lock_wait_timeout = 0 FOR {query}")
        except _UNREACHABLE:
            return
        if unit.failure is not None and not denials.is_passing(unit.failure):
            raise ServerFailed(unit.failure.message)

    async def read_row(self, table: str, key: Sequence[types_pb2.Value]) -> types_pb2.Row:
        target = target_of(self._database.catalog, 0, table, key)
        async with self._working() as working:
            try:
                unit = await working.session.begin(statements.read(target))
            except Lost as lost:
                raise _unreachable(lost) from lost
            if unit.failure is not None:
                raise denials.denial(None, unit.failure, self._database)
            try:
                row = statements.row_of(target, unit.results[0])
            except Stale:
                await self._reload()
                raise
            row.participant = self._participant
            return row

    def tables(self) -> list[participant_pb2.TableStatus]:
        return self._database.catalog.statuses()

    # A branch at its session.

    def _working(self) -> _Working:
        return _Working(self._pool, self._lock_timeout_s)

    def _patience_s(self, work: Work) -> float:
        return ANSWER_WITHIN_S + self._lock_timeout_s * len(work.statements)

    def _branch(self, work: Sequence[str], attempt: AttemptId) -> tuple[str, ...]:
        xid = self._xid(attempt)
        return (f"XA START {xid}", *work, self._remembering(attempt), f"XA END {xid}", f"XA PREPARE {xid}")

    async def _tried(self, session: Session, attempt: AttemptId, work: Work) -> Prepared:
        """YES only when each statement of the branch has its answer, XA PREPARE as the last."""
        branch = self._branch(work.statements, attempt)
        try:
            unit = await session.begin(*branch, within_s=self._patience_s(work))
        except Lost as lost:
            await self._clean(session, attempt)
            raise _unreachable(lost) from lost
        try:
            prepared = await self._rows(work, unit)
            if not is_proven(unit, len(branch)):
                message = f"the server gave {len(unit.results)} answers to the {len(branch)} statements of the branch"
                raise No(reasons.reason(Code.CODE_RESOURCE, message))
            return prepared
        except (No, Unexplained) as error:
            if not await self._undone(session, f"XA ROLLBACK {self._xid(attempt)}", f"XA END {self._xid(attempt)}"):
                await self._clean(session, attempt)
            raise await self._explained(session, work, error) from None

    async def _rows(self, work: Work, unit: Unit) -> Prepared:
        """What the branch read. Raises its No, or Unexplained. A catalog that is out of date is read again."""
        try:
            rows = work.rows(unit.results[1:])
        except Stale:
            await self._reload()
            raise
        if unit.failure is not None:
            if unit.failure.number in denials.STALE:
                await self._reload()
            raise denials.denial(work.step_at(len(unit.results) - 1), unit.failure, self._database)
        for row in rows:
            row.participant = self._participant
        return Prepared(types_pb2.Rows(rows=rows).SerializeToString() if rows else b"", {})

    async def _explained(self, session: Session, work: Work, error: No | Unexplained) -> No:
        """Why the branch is denied, when it is rolled back."""
        if isinstance(error, No):
            return error
        again = ("START TRANSACTION", *work.statements[: error.at], error.look())
        try:
            unit = await session.begin(*again, within_s=self._patience_s(work))
        except Lost as lost:
            return _unreachable(lost)
        await self._undone(session, _ROLLBACK)
        if unit.failure is not None:
            return denials.denial(work.step_at(len(unit.results) - 1), unit.failure, self._database)
        no = error.denial(unit.results[-1])
        if isinstance(no, Stale):
            await self._reload()
        return no

    async def _undone(self, session: Session, undo: str, end: str = "") -> bool:
        """Rolls back what is open or prepared, after *any* NO: past a failed statement XA END and XA PREPARE would
        succeed, with the work that was done before it. `end` fails when the branch is ended, or is to be rolled back
        only. False when the session is lost, or given up, with what it had."""
        try:
            if end:
                await session.ask(end)
            unit = await session.ask(undo)
            if unit.failure is not None:
                session.close()
        except Lost:
            pass
        return session.lost is None

    async def _reload(self) -> None:
        """Reads the catalog again; what cannot be read now is read another time."""
        try:
            self._database = await catalog.load(await self._pool.ender())
        except _UNREACHABLE as error:
            log.info("the catalog could not be read", error=words(error))

    # What is left of a branch.

    async def _clean(self, session: Session, attempt: AttemptId) -> None:
        """Sees to it that nothing of the branch is, or comes to be, at the server. When that takes too long, or has to
        wait for the server, it goes on behind our back, until `abort` or the next incarnation finds it done. Raises
        ServerFailed: a NO would be one too early."""
        task = asyncio.create_task(self._cleaned(session, attempt))
        self._cleaning[attempt] = task
        task.add_done_callback(lambda _: self._cleaning.pop(attempt, None))
        try:
            await self._pool.knock()
        except Lost:
            return
        done, _ = await asyncio.wait({task}, timeout=CLEAN_WITHIN_S)
        if done:
            task.result()

    async def _cleaned(self, session: Session, attempt: AttemptId) -> None:
        try:
            await self._gone(session)
            await self._end_of_another("ROLLBACK", attempt)
        except ServerFailed as error:
            log.error("what is left of a branch cannot be rolled back", attempt=str(attempt), error=str(error))
            raise

    async def _gone(self, session: Session) -> None:
        """Waits until nothing of a session that is lost is at work at the server."""
        session.close()
        await self._persist(lambda: self._pool.gone(session), "is a lost session gone?")

    async def _is_committed_by(self, session: Session, attempt: AttemptId) -> bool:
        """Whether a lost session has carried out its COMMIT."""
        await self._gone(session)
        return await self._remembers(attempt)

    # Ends.

    async def _end(self, verb: str, attempt: AttemptId) -> bool:
        """XA COMMIT or XA ROLLBACK; False when the server has no such branch (any more)."""
        session = self._pool.keeper_of(attempt)
        if session is None:
            return await self._end_of_another(verb, attempt)
        try:
            unit = await session.ask(f"XA {verb} {self._xid(attempt)}")
            if unit.failure is None:
                self._pool.rest(session)
                return True
        except Lost:
            pass
        await self._gone(session)
        return await self._end_of_another(verb, attempt)

    async def _end_of_another(self, verb: str, attempt: AttemptId) -> bool:
        """The same for a branch whose session is gone."""
        again = Again("a session at MariaDB has this branch, and only it can end it", attempt=str(attempt))
        while True:
            unit = await self._surely(f"XA {verb} {self._xid(attempt)}")
            if unit.failure is None:
                if verb == "COMMIT" and not await self._remembers(attempt):
                    raise ServerFailed(
                        f"MariaDB answered XA COMMIT of {attempt} with OK and committed nothing: restart the server,"
                        " and the branch is prepared again"
                    )
                return True
            if unit.failure.number in denials.ROLLED_BACK:
                return False
            if unit.failure.number != denials.UNKNOWN_XID:
                raise ServerFailed(f"XA {verb} of {attempt}: {unit.failure.message}")
            if attempt not in {each for _, each in await self._recoverable()}:
                return False
            await again.pause()  # a session still has it: NOTA says nothing about its outcome

    async def _remembers(self, attempt: AttemptId) -> bool:
        """Whether the branch committed, for an XID that the server does not know."""
        return bool(await self._asked(f"SELECT 1 FROM {FINISHED} WHERE {self._where(attempt)}"))

    async def _recoverable(self) -> list[tuple[str, AttemptId | None]]:
        """What is prepared under a name with our prefix: as people see it, and the attempt if it is of this file."""
        found = []
        for _, gtrid_length, _, data in await self._asked("XA RECOVER"):
            raw = data if isinstance(data, bytes) else str(data).encode()
            at = int(_text(gtrid_length))
            gtrid, bqual = raw[:at].decode(errors="replace"), raw[at:].decode(errors="replace")
            if gtrid.startswith(PREFIX):
                found.append((f"{gtrid}:{bqual}", self._attempt_of(gtrid, bqual)))
        return found

    async def _asked(self, query: str) -> list[tuple[str | bytes | None, ...]]:
        """The rows of what the user in our place may ask. Raises ServerFailed."""
        unit = await self._surely(query)
        if unit.failure is not None:
            raise ServerFailed(unit.failure.message)
        return list(unit.results[0].rows)

    async def _surely(self, query: str) -> Unit:
        """Asks until there is an answer that is not about the moment. To be used for what may be done twice."""

        async def ask() -> Unit:
            unit = await (await self._pool.ender()).ask(query)
            if unit.failure is not None and denials.is_passing(unit.failure):
                raise Lost(unit.failure.message)
            return unit

        return await self._persist(ask, query)

    async def _persist(self, call: Callable[[], Awaitable[T]], query: str) -> T:
        """Calls until nothing is lost; `query` is what the log says of it."""
        again = Again("MariaDB is asked again and again", query=query)
        while True:
            try:
                return await call()
            except _UNREACHABLE as error:
                why = words(error)
            await again.pause(error=why)

    # Names.

    def _xid(self, attempt: AttemptId) -> str:
        """Hex literals, of 48 bytes at most (16 of identity, 8, 16 of log) and 19: the server takes 64 of each."""
        gtrid, bqual = f"{PREFIX}{self._scope}:{attempt.log}", str(attempt.number)
        return f"X'{gtrid.encode().hex()}',X'{bqual.encode().hex()}'"

    def _attempt_of(self, gtrid: str, bqual: str) -> AttemptId | None:
        scope, _, log = gtrid.removeprefix(PREFIX).partition(":")
        own = scope == self._scope and bqual.isdecimal() and bqual.isascii()
        return AttemptId(log, int(bqual)) if own else None

    def _names(self, attempt: AttemptId) -> tuple[str, str, str]:
        return literal(self._namespace), literal(attempt.log), str(attempt.number)

    def _where(self, attempt: AttemptId) -> str:
        """Its row in `troth_finished`."""
        named = zip(("identity", "log", "number"), self._names(attempt), strict=True)
        return " AND ".join(f"{name} = {value}" for name, value in named)

    def _remembering(self, attempt: AttemptId, operations: bytes | None = None) -> str:
        values = ", ".join((*self._names(attempt), literal(operations)))
        return f"INSERT INTO {FINISHED} (identity, log, number, operations) VALUES ({values})"


class _Working:
    """A session at work for one branch, while it is entered, which raises No when there is none."""

    session: Session

    def __init__(self, pool: Pool, within_s: float) -> None:
        self._pool, self._within_s = pool, within_s
        self.keeps: AttemptId | None = None
        """The branch that it has prepared and is kept for."""

    async def __aenter__(self) -> Self:
        try:
            self.session = await self._pool.take(self._within_s)
        except Unavailable as error:
            raise No(reasons.reason(Code.CODE_OVERLOADED, f"MariaDB: {error}")) from error
        except _UNREACHABLE as error:
            raise _unreachable(error) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.keeps is None:
            self._pool.give_back(self.session)
        else:
            self._pool.keep(self.keeps, self.session)


def is_proven(unit: Unit, statements: int) -> bool:
    """Whether the server has answered every statement of a branch, of which the last is XA PREPARE."""
    return unit.failure is None and len(unit.results) == statements


async def _connected(address: Address) -> Session:
    """A first connection; a server that is only starting is waited for."""
    deadline = asyncio.get_running_loop().time() + OPEN_WITHIN_S
    while True:
        try:
            return await Session.connect(address)
        except Lost as lost:
            if asyncio.get_running_loop().time() > deadline or not any(part in str(lost) for part in _NOT_YET):
                raise
        await asyncio.sleep(_STARTING_S)


def _text(raw: str | bytes | None) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)


def _unreachable(error: Exception) -> No:
    return No(reasons.reason(Code.CODE_UNREACHABLE, f"MariaDB cannot be reached: {words(error)}"))
