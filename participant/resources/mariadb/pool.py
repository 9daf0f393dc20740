"""The connections of one incarnation, and how those of an earlier one are known and ended.

Only the session that has prepared a branch may end it while it is connected: from any other the server answers NOTA
(1397). And not connected is not enough: while a session is being taken down there is a moment in which XA COMMIT from
another answers OK, *commits nothing*, and leaves the rows locked until the server is restarted (3 of 2,100 on MariaDB
10.11.19). After COM_RESET_CONNECTION and COM_CHANGE_USER that moment lasts for ever. So:

- a session is kept with the branch that it has prepared, and ends it: no connect, no wait, one round trip;
- so many are at most KEPT_PER_WORKER times the pool: for more the next end is waited for, and when none comes the one
  kept longest is closed, so that branches in doubt do not keep others out;
- the end of a branch whose session is gone waits until the server has taken that session down (`gone`);
- no session is ever reset.

Each session holds a user lock, `troth:SCOPE:SLOT`, for as long as it is there: so the server can be asked for the
sessions of one participant file, also those of an incarnation that was killed. The keeper holds `troth:SCOPE`, and
no other connection is used without it: of two processes with one identity only one works.

Nobody hears of a keeper that is lost but by asking on it, so that is done for each new connection, when it holds its
own lock (whoever gets the keeper's lock later sees it then), and at each survey; and it locks again.
The other way round the server does not hear of a client whose host lost its power: so it ends a keeper that asks
nothing for KEEPER_IDLE_S, and another incarnation waits for that. All other sessions may stay: that one kills them.
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections import OrderedDict

from participant.resources.mariadb.session import Address, Lost, Session, Unit
from participant.resources.outside import ResourceRefused
from participant.resources.server.places import Places, Shared, Unavailable
from participant.settings import LOOK_INTERVAL_MAX_S
from troth.words import AttemptId

ENDERS = 4
"""Connections for questions, and for ends whose own session is gone."""
KEPT_PER_WORKER = 4
ROOM_WITHIN_S = 2.0
"""How long a branch waits for another one's end when no more sessions may be kept."""
SLOTS_MAX = 512
"""Sessions of one participant file at the server; far more than a pool has."""
KEEPER_IDLE_S = int(2 * LOOK_INTERVAL_MAX_S)
"""How long the server lets a keeper be that asks nothing: twice the longest pause between two surveys."""
KEEPER_WITHIN_S = 5.0
"""How long a keeper may take to say that it has its lock, before another is made."""
FENCE_WITHIN_S = KEEPER_IDLE_S + 10.0
"""How long an earlier incarnation is waited for at start: also one whose host has lost its power."""
_TRX_UNREAD_S = 0.12, 0.25
"""INNODB_TRX is a copy, made anew for who asks when nobody has asked for 0.1 s (CACHE_MIN_IDLE_TIME_US in trx0i_s.cc):
so it is asked after a pause from this range, and drawn, as others may be asking at the same pace."""
_LOOK_AGAIN_S = 0.02
_STARTED = (
    "(SELECT UNIX_TIMESTAMP() - variable_value FROM information_schema.global_status WHERE variable_name = 'UPTIME')"
)
"""When the server began, in seconds: both are about the moment at which the statement began, so it stays the same."""


_LISTED = "SELECT id FROM information_schema.processlist"
"""Sessions that are there, or are being taken down."""


class Fenced(Exception):
    """Another process works for this identity now."""


class Pool:
    """Raises Lost wherever a connection has to be made and cannot be."""

    def __init__(
        self, address: Address, scope: str, settings: tuple[str, ...], size: int, packet_bytes_max: int
    ) -> None:
        """`scope` is the participant file and the database; `settings` is what every session, and every branch, begins
        with."""
        self._address, self._scope, self._settings = address, scope, settings
        self._packet_bytes_max = packet_bytes_max
        self._places: Places[Session] = Places(size, self._made)
        self._slots = asyncio.Semaphore((1 + KEPT_PER_WORKER) * size)
        """One for each session that is at work or kept."""
        self._kept: OrderedDict[AttemptId, Session] = OrderedDict()
        self._let_go: dict[AttemptId, Session] = {}
        self._all: set[Session] = set()
        self._enders: Shared[Session] = Shared(ENDERS, self._made)
        self._keeper: Session | None = None
        self._keepers_before: list[Session] = []
        """Those that were lost: the server may not know that yet, and they may have the lock."""
        self._making = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._looked = -math.inf
        """When the last look at who has a transaction began."""
        self._owning: set[int] = set()
        """What it saw."""

    # Work.

    async def take(self, within_s: float) -> Session:
        """A connection for one branch, with nothing open on it; then `give_back` or `keep` it. Raises Unavailable."""
        await self._slot()
        try:
            return await self._places.take(within_s)
        except BaseException:
            self._slots.release()
            raise

    async def _slot(self) -> None:
        """When too many are kept the next end is waited for."""
        while self._slots.locked():
            try:
                async with asyncio.timeout(ROOM_WITHIN_S):
                    await self._slots.acquire()
                return
            except TimeoutError:
                if not self._kept:
                    raise Unavailable(f"no branch ended within {ROOM_WITHIN_S:g} s") from None
                self.let_go()
        await self._slots.acquire()

    def let_go(self) -> None:
        """Closes the session that is kept longest: its branch stays prepared, and ends the slow way."""
        oldest, idle = self._kept.popitem(last=False)
        idle.close()
        self._let_go[oldest] = idle
        self._slots.release()

    def give_back(self, session: Session) -> None:
        """The branch is over. One on which something may be open is to be closed before."""
        self._places.leave()
        self._slots.release()
        self.rest(session)

    def keep(self, attempt: AttemptId, session: Session) -> None:
        """It has prepared the branch, and makes room for another at work."""
        self._places.leave()
        self._kept[attempt] = session

    def keeper_of(self, attempt: AttemptId) -> Session | None:
        """The session that has prepared the branch in this incarnation, whose end it is for now; it may be lost."""
        kept = self._kept.pop(attempt, None)
        if kept is not None:
            self._slots.release()
        return kept or self._let_go.pop(attempt, None)

    def rest(self, session: Session) -> None:
        """Nothing is open on it any more."""
        self._places.rest(session)

    # Ends and questions.

    async def ender(self) -> Session:
        """A connection for statements that stand alone; others may use it too."""
        return await self._enders.session()

    def close(self) -> None:
        for session in self._all:
            session.close()

    # Making.

    async def hold(self) -> None:
        """Sees to it that a keeper has its lock. Raises Fenced when another process has it."""
        async with self._making:
            await self._held()

    async def _made(self) -> Session:
        """A new connection, under the keeper's lock, holding one of its own."""
        async with self._making:
            session = await self._connect()
            try:
                await self._take_slot(session)
                await self._held()
            except BaseException:
                session.close()
                raise
            return session

    async def _take_slot(self, session: Session) -> None:
        taken = {each.slot for each in self._all}
        for slot in range(1, SLOTS_MAX + 1):
            if slot not in taken and await self._locked(session, self._lock(slot)):
                session.slot = slot
                return
        raise Lost(f"{SLOTS_MAX} sessions of this participant file are at the server")

    async def _held(self) -> None:
        """`hold`, for who is making."""
        if self._keeper is not None:
            if await self._has_lock(self._keeper):
                return
            self._keeper.close()
            self._keepers_before.append(self._keeper)
            self._keeper = None
        keeper = self._keeper = await self._connect_keeper()
        while self._keepers_before:
            await _taken_down(keeper, self._keepers_before[-1])
            self._keepers_before.pop()
        if not await self._locked(keeper, self._lock()):
            keeper.close()
            raise Fenced("another process works for this participant file at the server")

    async def _has_lock(self, keeper: Session) -> bool:
        query = f"SELECT IS_USED_LOCK({self._lock()}) = CONNECTION_ID()"
        try:
            unit = await keeper.ask(query, within_s=KEEPER_WITHIN_S)
        except Lost:
            return False
        return unit.failure is None and unit.results[0].rows[0][0] == "1"

    async def _connect_keeper(self) -> Session:
        return await self._connect(f"SET SESSION wait_timeout = {KEEPER_IDLE_S}")

    async def _connect(self, *more_settings: str) -> Session:
        session = await Session.connect(self._address)
        self._all = {each for each in self._all if each.lost is None} | {session}
        session.packet_bytes_max, session.settings = self._packet_bytes_max, self._settings
        unit = await _asked(session, *self._settings, *more_settings, f"SELECT {_STARTED}")
        session.server_began = str(unit.results[-1].rows[0][0])
        return session

    def _lock(self, slot: int | None = None) -> str:
        """A lock's name, as statements name it; the server keeps its locks apart from case."""
        name = f"troth:{self._scope}"
        return f"'{name}'" if slot is None else f"'{name}:{slot}'"

    async def _locked(self, session: Session, lock: str) -> bool:
        unit = await _asked(session, f"SELECT GET_LOCK({lock}, 0)")
        return unit.results[0].rows[0][0] == "1"

    # Those that are gone.

    async def gone(self, session: Session) -> None:
        """Waits until the server has taken a lost session down, which it is told to, and its transaction, if prepared,
        is nobody's. A server that has begun anew has: there the same number is another's. Raises Lost."""
        ender = await self.ender()  # one for all, so that the KILL does not reach another server than the question
        if await _taken_down(ender, session):
            while session.id in await self._owners(ender):
                pass  # the next look takes its time

    async def _owners(self, session: Session) -> set[int]:
        """The sessions that have a transaction, at a moment after this was called. Those who call while another looks
        share the look after that. Raises Lost."""
        now = asyncio.get_running_loop().time
        called = now()
        async with self._looking:
            looks = now()
            if self._looked < called:
                self._owning = await _looked(session)
                self._looked = looks
            return self._owning

    async def knock(self) -> None:
        """Raises Lost when the server takes no connection now."""
        (await Session.connect(self._address)).close()

    async def fence(self) -> None:
        """Waits until this incarnation is the only one at the server. Raises ResourceRefused."""
        self._keeper = await self._connect_keeper()
        deadline = asyncio.get_running_loop().time() + FENCE_WITHIN_S
        while not await self._locked(self._keeper, self._lock()):
            holder = await self._people(f"IS_USED_LOCK({self._lock()})")
            await self._patience(deadline, holder, "holds the lock of this participant file")
        slots = (
            f"WITH RECURSIVE slots(slot) AS (SELECT 1 UNION ALL SELECT slot + 1 FROM slots WHERE slot < {SLOTS_MAX})"
            f" SELECT IS_USED_LOCK(CONCAT('troth:{self._scope}:', slot)) AS id FROM slots HAVING id IS NOT NULL"
        )
        while others := [str(id) for (id,) in (await _asked(self._keeper, slots)).results[0].rows]:
            for id in others:
                await self._keeper.ask(f"KILL {id}")  # an error says that it left meanwhile
            who = await self._people(", ".join(others))
            await self._patience(deadline, who, "still works for an earlier incarnation of this participant file")
        await self._detached(self._keeper, deadline)

    async def _detached(self, keeper: Session, deadline: float) -> None:
        """Waits until the transactions of sessions that are listed no more are nobody's."""
        leaving = await self._owners(keeper) - await _ids(keeper, _LISTED)
        while leaving:
            await self._patience(deadline, f"session {', '.join(map(str, leaving))}", "is still being taken down")
            leaving &= await self._owners(keeper) - await _ids(keeper, _LISTED)

    async def _people(self, ids: str) -> str:
        """Who these sessions are."""
        assert self._keeper is not None
        query = f"SELECT id, user, host FROM information_schema.processlist WHERE id IN ({ids})"
        rows = (await _asked(self._keeper, query)).results[0].rows
        return ", ".join("session {} ({} from {})".format(*map(str, row)) for row in rows)

    async def _patience(self, deadline: float, who: str, what: str) -> None:
        if who and asyncio.get_running_loop().time() > deadline:
            raise ResourceRefused(f"MariaDB's {who} {what}: end that process, or run KILL ID there")
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _looked(session: Session) -> set[int]:
    """The sessions that have a transaction. The list is one that was made for this very question: of the session that
    asks, which has a transaction for it, a list shows the question for which it was made. Raises Lost."""
    while True:
        mark = secrets.token_hex(8)
        look = (
            f"SELECT trx_mysql_thread_id, trx_mysql_thread_id = CONNECTION_ID() AND trx_query LIKE '%{mark}%'"
            " FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> 0"
        )
        unit = await _asked(session, "START TRANSACTION WITH CONSISTENT SNAPSHOT", look, "COMMIT")
        rows = unit.results[1].rows
        if any(fresh == "1" for _, fresh in rows):
            return {int(str(id)) for id, _ in rows} - {session.id}
        await asyncio.sleep(random.uniform(*_TRX_UNREAD_S))


async def _taken_down(asker: Session, session: Session) -> bool:
    """Waits until the server lists a lost session no more, which it is told to end; its locks are gone then. False when
    the server has begun anew since. Raises Lost."""
    if asker.server_began != session.server_began:
        return False
    while await _ids(asker, f"{_LISTED} WHERE id = {session.id}"):
        await asker.ask(f"KILL {session.id}")  # an error says that it left meanwhile
        await asyncio.sleep(_LOOK_AGAIN_S)
    return True


async def _ids(session: Session, query: str) -> set[int]:
    return {int(str(id)) for (id,) in (await _asked(session, query)).results[0].rows}


async def _asked(session: Session, *queries: str) -> Unit:
    """An answer to what any user may ask. Raises Lost."""
    unit = await session.ask(*queries)
    if unit.failure is not None:
        session.close()
        raise Lost(unit.failure.message)
    return unit
