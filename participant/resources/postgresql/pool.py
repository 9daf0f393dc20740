"""The connections of one incarnation: as many for work as allowed, a few for ends, and the keeper.

What waits for a lock inside the server waits on a connection for work; commits, aborts and questions have connections
of their own, so that what would let the waiting go on is never behind it. The keeper holds an advisory lock on the
participant's identity, and no other connection is made without it: of two processes with one identity only one works.
"""

from __future__ import annotations

import asyncio
import secrets
from hashlib import blake2b

import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq.abc import PGresult

from participant.resources.outside import ResourceRefused
from participant.resources.postgresql.session import Lost, Query, Session, text
from participant.resources.server.places import Places, Shared

log = structlog.get_logger(__name__)

ENDERS = 8
"""Connections for ends: each carries out one end at a time, and the server forces several to disk at once."""
FENCE_WITHIN_S = 30.0
"""How long an earlier incarnation is waited for at start: longer than the server takes to see that it is gone."""
_SAY_AFTER_S = 1.0
_LOOK_AGAIN_S = 0.05
_CONNECT_WITHIN_S = 5
_SILENT_S = 10
"""After which a connection whose other side does not answer is given up by the system, ours and the server's."""
_KEEPALIVES = {"keepalives_idle": _SILENT_S // 2, "keepalives_interval": 1, "keepalives_count": _SILENT_S // 2}
_USER_TIMEOUT = {"tcp_user_timeout": _SILENT_S * 1000}
_AT_THE_SERVER = {**{f"tcp_{name}": value for name, value in _KEEPALIVES.items()}, **_USER_TIMEOUT}
"""The same as settings of a session; one by a local socket takes them, and does without."""
_HOLDER = (
    "pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted"
    " AND (l.classid::int8 << 32 | l.objid::int8) = $1::int8"
)
"""The server process that holds an advisory lock."""


class Fenced(Exception):
    """Another process works for this identity now."""


class Pool:
    """Raises psycopg.OperationalError, or Lost, wherever a connection has to be made and cannot be."""

    def __init__(self, dsn: str, identity: str, settings: dict[str, str], size: int) -> None:
        """`settings` are what every session begins with, and RESET ALL returns to. Raises psycopg.ProgrammingError for
        a DSN that is none."""
        self.name = f"troth:{identity}:{secrets.token_hex(4)}"
        """What its connections are called in pg_stat_activity: the identity, and this incarnation."""
        self._family = f"troth:{identity}:"
        begun = {**settings, **_AT_THE_SERVER}
        options = [conninfo_to_dict(dsn).get("options"), *(f"-c {name}={value}" for name, value in begun.items())]
        self._conninfo = make_conninfo(
            dsn,
            application_name=self.name,
            client_encoding="UTF8",
            options=" ".join(str(option) for option in options if option),
            connect_timeout=conninfo_to_dict(dsn).get("connect_timeout", _CONNECT_WITHIN_S),
            **_KEEPALIVES,
            **_USER_TIMEOUT,
        )
        self._key = str(int.from_bytes(blake2b(identity.encode(), digest_size=8).digest(), signed=True))
        self._places: Places[Session] = Places(size, self._made)
        self._all: set[Session] = set()
        self._enders: Shared[Session] = Shared(ENDERS, self._made)
        self._keeper: Session | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._resets: set[asyncio.Task[None]] = set()
        self._waited_for = ""

    async def fence(self) -> None:
        """Waits until this incarnation is the only one at the server. Raises ResourceRefused."""
        self._keeper = await self._connect()
        began = asyncio.get_running_loop().time()
        while not await self._try_lock(self._keeper):
            await self._patience(began, await self._holder(self._keeper), "holds the lock of this participant file")
        while others := await self._others(self._keeper):
            await self._patience(began, others, "still works for an earlier incarnation of this participant file")

    async def take(self, within_s: float) -> Session:
        """A connection for one branch, clean by the server's own word, to be given back. Raises Unavailable."""
        return await self._places.take(within_s)

    def give_back(self, session: Session) -> None:
        """The branch is over, or prepared. What is not idle by the server's word is closed."""
        if session.used_freely and session.idle:
            task = asyncio.create_task(self._reset(session))
            self._resets.add(task)
            task.add_done_callback(self._resets.discard)
            return
        if session.idle:
            self._places.rest(session)
        else:
            session.close()
        self._places.leave()

    async def ender(self) -> Session:
        """A connection for one unit that stands alone; others may use it at the same time."""
        return await self._enders.session()

    async def close(self) -> None:
        tasks = [*self._resets, *filter(None, [self._keeping])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for session in self._all:
            session.close()

    async def _reset(self, session: Session) -> None:
        """Undoes what statements of the user's did to the session, before another branch gets it."""
        try:
            unit = await session.ask(Query("DISCARD ALL", kept=False), within_s=_SILENT_S)
            if unit.failure is None and session.idle:
                session.forget_statements()
                session.used_freely = False
                self._places.rest(session)
            else:
                session.close()
        except Lost:
            pass
        finally:
            self._places.leave()

    async def _made(self) -> Session:
        """A new connection, under the keeper's lock."""
        if self._keeper is None or self._keeper.lost:
            if self._keeping is None or self._keeping.done():
                self._keeping = asyncio.create_task(self._keep())
            await asyncio.shield(self._keeping)  # all who wait for it hear the same, at the same time
        keeper = self._keeper
        assert keeper is not None
        session = await self._connect()
        try:
            await keeper.answer(Query("SELECT 1"))  # who gets its lock after this sees the new connection
        except BaseException:
            session.close()
            raise
        return session

    async def _keep(self) -> None:
        """Has the lock again, when the keeper's connection was lost. Raises Fenced."""
        keeper = await self._connect()
        try:
            await self._end_former(keeper)
            if not await self._try_lock(keeper):
                raise Fenced("another process works for this participant file at the server")
        except BaseException:
            keeper.close()
            raise
        self._keeper = keeper

    async def _connect(self) -> Session:
        session = await Session.connect(self._conninfo)
        self._all = {each for each in self._all if each.lost is None} | {session}
        return session

    async def _try_lock(self, keeper: Session) -> bool:
        found = await keeper.answer(Query("SELECT pg_try_advisory_lock($1::int8)", (self._key,)))
        return text(found, 0, 0) == "t"

    async def _holder(self, keeper: Session) -> str:
        """Who holds the lock."""
        query = Query(
            f"SELECT a.pid::text, coalesce(host(a.client_addr), 'a local socket') FROM {_HOLDER}", (self._key,)
        )
        return _people(await keeper.answer(query))

    async def _end_former(self, keeper: Session) -> None:
        """Waits until no other keeper of this incarnation has the lock, which is told to end: a server that has not
        heard that its connection is gone keeps it, and this process would be fenced by itself."""
        query = Query(
            f"SELECT pg_terminate_backend(pid) FROM {_HOLDER} AND application_name = $2", (self._key, self.name)
        )
        while (await keeper.answer(query)).ntuples:  # noqa: ASYNC110 - it is the server that is waited for
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _others(self, keeper: Session) -> str:
        """Who of our identity is not of this incarnation, once told to end: the lock is here, they work for nobody."""
        query = Query(
            "SELECT pid::text, coalesce(host(client_addr), 'a local socket'), pg_terminate_backend(pid)"
            " FROM pg_stat_activity WHERE datname = current_database()"
            " AND starts_with(application_name, $1) AND application_name <> $2",
            (self._family, self.name),
        )
        return _people(await keeper.answer(query))

    async def _patience(self, began: float, who: str, what: str) -> None:
        waited_s = asyncio.get_running_loop().time() - began
        if who and waited_s > FENCE_WITHIN_S:
            end = "SELECT pg_terminate_backend(PID)"
            raise ResourceRefused(f"PostgreSQL's {who} {what}: end that process, or run {end} there")
        if who and waited_s > _SAY_AFTER_S and who != self._waited_for:
            self._waited_for = who
            log.warning("the end of another incarnation is waited for", who=f"PostgreSQL's {who}", why=f"it {what}")
        await asyncio.sleep(_LOOK_AGAIN_S)


def _people(found: PGresult) -> str:
    each = [f"process {text(found, row, 0)} (from {text(found, row, 1)})" for row in range(found.ntuples)]
    return ", ".join(each)
