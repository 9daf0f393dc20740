"""MariaDB's connections, sessions and the server itself are lost, at every statement: the outcome is what the server
has, a NO leaves nothing, and what was promised comes to be once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from faults.cluster import eventually
from faults.conformance.outside import FIRST, NAMESPACE, SECOND, on_a_loop
from faults.servers import Database, MariaDB
from participant.resources import No
from participant.resources.mariadb import MariaDBResource, pool
from participant.resources.mariadb.pool import Pool
from participant.resources.mariadb.resource import ServerFailed
from participant.resources.mariadb.session import Lost, Session, Unit
from participant.resources.outside import EndedElsewhere, ResourceRefused
from tests.cutter import Cutter
from tests.mariadb_tools import MariaDBSubject
from tests.sqlite_tools import add, encode, insert
from tests.staller import Staller
from troth.operations import sql
from troth.v1.types_pb2 import Code
from troth.words import AttemptId, Outcome

pytestmark = pytest.mark.needs_mariadb

SLOW = encode([add("accounts", "alice", "balance", 1), sql("SELECT SLEEP(0.5)", read_only=True)])


@pytest.fixture
def subject(mariadb_databases: Callable[[], Database]) -> MariaDBSubject:
    return MariaDBSubject(mariadb_databases)


SESSIONS = "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID()"
WAITING = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"


def waits(database: Database) -> bool:
    """Whether somebody waits for a row. Asked more often, the server would always give the same list."""
    time.sleep(0.15)
    return bool(database.execute(WAITING))


def killed(database: Database, like: str = "%") -> int:
    """Ends the sessions of a database, or those at a statement, as a DBA would; how many."""
    found = database.execute(f"{SESSIONS} AND db = '{database.name}' AND COALESCE(info, '') LIKE '{like}'")
    for (id,) in found:
        database.execute(f"KILL {id}")
    eventually(lambda: not {*found} & {*database.execute(SESSIONS)}, "they are gone")
    return len(found)


@asynccontextmanager
async def through(proxy: Cutter | Staller, subject: MariaDBSubject) -> AsyncIterator[MariaDBResource]:
    async with proxy.running() as dsn:
        resource = MariaDBResource(dsn, lock_timeout_s=subject.lock_timeout_s, pool=2)
        await resource.open(NAMESPACE)
        try:
            yield resource
        finally:
            await resource.close()


async def none_is_left(resource: MariaDBResource, attempt: AttemptId) -> None:
    await resource.abort(attempt)
    survey = await resource.survey()
    assert (survey.prepared, frozenset(survey.committed)) == (frozenset(), frozenset())


@pytest.mark.parametrize("answered", [False, True])
@on_a_loop
async def test_a_cut_in_prepare_is_a_no_that_leaves_nothing(subject: MariaDBSubject, answered: bool) -> None:
    cutter, before = Cutter(subject.database), await subject.state()
    async with through(cutter, subject) as resource:
        cutter.at, cutter.answered = b"XA PREPARE", answered
        with pytest.raises(No) as caught:
            await resource.prepare(FIRST, resource.plan(subject.change))
        assert cutter.cuts == 1
        assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_UNREACHABLE, True)
        assert (await resource.survey()).prepared == frozenset()
        await none_is_left(resource, FIRST)
        assert await subject.state() == before


@on_a_loop
async def test_lost_connections_are_made_again_and_no_more_than_there_were(subject: MariaDBSubject) -> None:
    async with subject.opened() as resource:
        assert isinstance(resource, MariaDBResource)
        for _ in range(3):
            for ender in filter(None, resource._pool._enders._sessions):
                ender.close()
            await asyncio.gather(*(resource.abort(AttemptId("log", number)) for number in range(40)))
        there = [each for each in resource._pool._all if each.lost is None]
        assert len(there) <= 1 + pool.ENDERS, "the keeper, and these"


@on_a_loop
async def test_what_cannot_be_rolled_back_is_no_no(subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(self: MariaDBResource, verb: str, attempt: AttemptId) -> bool:
        raise ServerFailed(f"XA {verb} of {attempt}: disk full")

    cutter = Cutter(subject.database)
    async with through(cutter, subject) as resource:
        cutter.at, cutter.answered = b"XA PREPARE", True
        with monkeypatch.context() as failing, capture_logs() as logged:
            failing.setattr(MariaDBResource, "_end_of_another", refused)
            with pytest.raises(ServerFailed, match="disk full"):
                await resource.prepare(FIRST, resource.plan(subject.change))
        assert "what is left of a branch cannot be rolled back" in [each["event"] for each in logged]
        await none_is_left(resource, FIRST)


@on_a_loop
async def test_a_no_waits_until_nothing_can_come_to_be(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server goes on with what it was told, when nobody is there any more to hear of it."""
    take = Pool.take

    async def taken(self: Pool, within_s: float) -> Session:
        session = await take(self, within_s)
        asyncio.get_running_loop().call_later(0.2, session._lose, "cut by the test")
        return session

    async def gone(self: MariaDBResource, session: Session) -> None:
        """Whoever does not wait for the end of the other side ..."""

    async with subject.opened() as resource:
        plan = resource.plan(SLOW)
        monkeypatch.setattr(Pool, "take", taken)
        for attempt in (FIRST, SECOND):
            with pytest.raises(No, match="cut by the test"):
                await resource.prepare(attempt, plan)
            await asyncio.sleep(1)
            found = (await resource.survey()).prepared
            assert found == (set() if attempt == FIRST else {SECOND})  # ... said NO to what then was prepared.
            monkeypatch.setattr(MariaDBResource, "_gone", gone)


@on_a_loop
async def test_a_connection_that_is_not_greeted_does_not_keep_others_out(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    staller = Staller(subject.database)
    async with through(staller, subject) as resource:
        monkeypatch.setattr("participant.resources.mariadb.session._CONNECT_WITHIN_S", 0.5)
        staller.ungreeted = 1
        async with asyncio.timeout(30):
            with pytest.raises(No, match=r"no connection within 0.5 s") as caught:
                await resource.prepare(FIRST, resource.plan(subject.increment))
            assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_UNREACHABLE, True)
            await resource.prepare(SECOND, resource.plan(subject.increment))
            staller.ungreeted = 1
            with pytest.raises(Lost):
                await resource._pool.knock()


@on_a_loop
async def test_a_peer_that_takes_no_bytes_is_given_up(subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    subject.database.execute("CREATE TABLE files(id int PRIMARY KEY, body longblob)")
    monkeypatch.setattr("participant.resources.mariadb.resource.ANSWER_WITHIN_S", 0.5)
    staller = Staller(subject.database)
    async with through(staller, subject) as resource:
        resource._pool.rest(await resource._pool._made())
        staller.stall()
        async with asyncio.timeout(30):
            with pytest.raises(No, match="no answer within") as caught:
                await resource.prepare(FIRST, resource.plan(encode([insert("files", 1, body=b"x" * (7 << 20))])))
        assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_UNREACHABLE, True)


@on_a_loop
async def test_a_catalog_that_is_not_answered_is_read_another_time(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A survey that waited for it would be the last one."""
    staller = Staller(subject.database)
    async with through(staller, subject) as resource:
        subject.database.execute("CREATE TABLE later(id int PRIMARY KEY)")
        for _ in range(pool.ENDERS):
            await resource._pool.ender()
        staller.stall()
        monkeypatch.setattr("participant.resources.mariadb.session.ANSWER_WITHIN_S", 0.5)
        async with asyncio.timeout(30):
            await resource._reload()
            assert "later" not in {table.name for table in resource.tables()}
            monkeypatch.undo()
            for _ in range(pool.ENDERS):
                (await resource._pool.ender()).close()
            await resource._reload()
        assert "later" in {table.name for table in resource.tables()}


@pytest.mark.parametrize("answered", [False, True])
@on_a_loop
async def test_a_cut_in_the_commit_is_carried_out_once(subject: MariaDBSubject, answered: bool) -> None:
    cutter = Cutter(subject.database)
    async with through(cutter, subject) as resource:
        await resource.prepare(FIRST, resource.plan(subject.increment))
        cutter.at, cutter.answered = b"XA COMMIT", answered
        await resource.commit(FIRST)
        assert cutter.cuts == 1
        assert subject.database.execute("SELECT balance FROM accounts WHERE id = 'alice'") == [(98,)]
        assert (await resource.survey()).committed.keys() == {FIRST}


@pytest.mark.parametrize("answered", [False, True])
@on_a_loop
async def test_a_cut_in_the_abort_is_carried_out(subject: MariaDBSubject, answered: bool) -> None:
    cutter, before = Cutter(subject.database), await subject.state()
    async with through(cutter, subject) as resource:
        await resource.prepare(FIRST, resource.plan(subject.change))
        cutter.at, cutter.answered = b"XA ROLLBACK", answered
        await resource.abort(FIRST)
        assert cutter.cuts == 1
        await none_is_left(resource, FIRST)
        assert await subject.state() == before


@pytest.mark.parametrize("at", [b"START TRANSACTION", b"\x03COMMIT"])
@pytest.mark.parametrize("answered", [False, True])
@on_a_loop
async def test_a_cut_in_a_run_is_known_before_it_is_told(subject: MariaDBSubject, at: bytes, answered: bool) -> None:
    cutter = Cutter(subject.database)
    async with through(cutter, subject) as resource:
        cutter.at, cutter.answered = at, answered
        committed = at == b"\x03COMMIT" and answered
        if committed:
            await resource.run(FIRST, subject.increment, resource.plan(subject.increment))
        else:
            with pytest.raises(No) as caught:
                await resource.run(FIRST, subject.increment, resource.plan(subject.increment))
            assert caught.value.reason.retryable
        assert cutter.cuts == 1
        balance = 98 if committed else 100
        assert subject.database.execute("SELECT balance FROM accounts WHERE id = 'alice'") == [(balance,)]
        assert (await resource.survey()).committed.keys() == ({FIRST} if committed else set())


@on_a_loop
async def test_a_session_killed_at_any_statement_leaves_nothing(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await subject.state()
    async with subject.opened() as resource:
        assert isinstance(resource, MariaDBResource)
        branch = resource._branch
        plan = resource.plan(subject.change)
        for at in range(len(branch(plan.work.statements, FIRST)) + 1):

            def waiting(work: Sequence[str], attempt: AttemptId, at: int = at) -> tuple[str, ...]:
                statements = branch(work, attempt)
                return (*statements[:at], "DO SLEEP(5)", *statements[at:])

            monkeypatch.setattr(resource, "_branch", waiting)
            attempt = AttemptId("a" * 16, 100 + at)
            trying = asyncio.create_task(resource.prepare(attempt, plan))
            while not await asyncio.to_thread(killed, subject.database, "%SLEEP(5)%"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            with pytest.raises(No) as caught:
                await trying
            assert caught.value.reason.retryable
            await none_is_left(resource, attempt)
            assert await subject.state() == before


@on_a_loop
async def test_a_branch_outlives_its_session(subject: MariaDBSubject) -> None:
    async with subject.opened() as resource:
        await resource.prepare(FIRST, resource.plan(subject.change))
        await resource.prepare(SECOND, resource.plan(subject.other))
        assert killed(subject.database) > 2
        assert (await resource.survey()).prepared == {FIRST, SECOND}
        await resource.abort(FIRST)
        await resource.commit(SECOND)
        assert (await resource.survey()).committed.keys() == {SECOND}
        assert subject.database.execute("SELECT balance FROM accounts ORDER BY id") == [(100,), (101,)]


@on_a_loop
async def test_the_server_is_killed_between_prepare_and_commit(
    subject: MariaDBSubject, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NO that waited for the server would wait for good: here it has no bound, and the server comes back later."""
    monkeypatch.setattr("participant.resources.mariadb.resource.CLEAN_WITHIN_S", None)
    async with subject.opened() as resource:
        await resource.prepare(FIRST, resource.plan(subject.change))
        await resource.prepare(SECOND, resource.plan(subject.other))
        await asyncio.to_thread(mariadb.kill)
        with pytest.raises(No) as caught:
            await resource.prepare(AttemptId("a" * 16, 9), resource.plan(subject.other))
        assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_UNREACHABLE, True)
        ending = asyncio.gather(resource.commit(FIRST), resource.abort(SECOND))
        await asyncio.sleep(0.1)
        mariadb.start()  # in this thread, with which it would end
        await ending
        survey = await resource.survey()
        assert (survey.prepared, frozenset(survey.committed)) == (frozenset(), {FIRST})
        assert subject.database.execute("SELECT balance FROM accounts ORDER BY id") == [(90,), (100,)]


@on_a_loop
async def test_the_server_is_killed_in_a_commit(subject: MariaDBSubject, mariadb: MariaDB) -> None:
    """And both participant and server start again: what was prepared is found, and committed."""
    async with subject.opened() as resource:
        await resource.prepare(FIRST, resource.plan(subject.change))
        await asyncio.to_thread(mariadb.kill)
    mariadb.start()
    async with subject.opened() as later:
        assert (await later.survey()).prepared == {FIRST}
        await later.commit(FIRST)
        assert (await later.survey()).committed.keys() == {FIRST}


@on_a_loop
async def test_a_rollback_that_a_crash_takes_back_is_done_again(subject: MariaDBSubject, mariadb: MariaDB) -> None:
    """XA ROLLBACK is answered before it is durable; now and then something else forces it in time."""
    before = await subject.state()
    for number in range(1, 6):
        attempt = AttemptId("a" * 16, number)
        async with subject.opened() as resource:  # its sessions are lost with each kill
            await resource.prepare(attempt, resource.plan(subject.change))
            await resource.abort(attempt)
            mariadb.kill()
            mariadb.start()
            if (await resource.survey()).prepared == {attempt}:
                await none_is_left(resource, attempt)
                assert await subject.state() == before
                return
    pytest.fail("no rollback was taken back: is it durable now?")


@on_a_loop
async def test_a_later_session_with_the_number_of_a_lost_one_is_left_alone(
    subject: MariaDBSubject, mariadb: MariaDB
) -> None:
    """A server counts its sessions from 1 again when it begins anew."""
    async with subject.opened() as resource:
        assert isinstance(resource, MariaDBResource)
        lost = await resource._pool.take(1)
        await asyncio.to_thread(mariadb.kill)
        mariadb.start()
        while (other := mariadb.connect(subject.database.name)).thread_id() < lost.id:
            other.close()
        with other.cursor() as cursor:
            assert other.thread_id() == lost.id
            cursor.execute("START TRANSACTION")
            cursor.execute("UPDATE accounts SET balance = 1")
            await asyncio.wait_for(resource._pool.gone(lost), 1)
            cursor.execute("COMMIT")
        other.close()
        assert subject.database.execute("SELECT balance FROM accounts") == [(1,), (1,)]


@asynccontextmanager
async def others_looking(mariadb: MariaDB) -> AsyncIterator[None]:
    """Somebody asks who has a transaction again and again, so that InnoDB makes no new list for anybody."""
    stop = threading.Event()

    def look() -> None:
        with mariadb.connect() as connection, connection.cursor() as cursor:
            while not stop.wait(0.02):
                cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_trx")

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(look))
        await asyncio.sleep(0.3)
        yield
        stop.set()


@on_a_loop
async def test_a_list_of_transactions_that_others_keep_old_is_not_believed(
    subject: MariaDBSubject, mariadb: MariaDB
) -> None:
    """By such a list a transaction could be taken as nobody's, and XA COMMIT from another session commit nothing."""
    any_list = "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx"
    async with subject.opened() as resource:
        assert isinstance(resource, MariaDBResource)
        with mariadb.connect(subject.database.name) as owner, owner.cursor() as cursor:
            async with others_looking(mariadb):
                cursor.execute("START TRANSACTION")
                cursor.execute("UPDATE accounts SET balance = 1")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1):
                        await resource._pool._owners(await resource._pool.ender())
                assert owner.thread_id() not in await pool._ids(await resource._pool.ender(), any_list)
            assert owner.thread_id() in await resource._pool._owners(await resource._pool.ender())


@pytest.mark.parametrize("verb", ["COMMIT", "ROLLBACK"])
@on_a_loop
async def test_a_dba_ends_a_branch_by_hand(subject: MariaDBSubject, mariadb: MariaDB, verb: str) -> None:
    async with subject.opened() as resource:
        assert isinstance(resource, MariaDBResource)
        await resource.prepare(FIRST, resource.plan(subject.change))
        killed(subject.database)
        await asyncio.to_thread(mariadb.wait_let_go)
        subject.database.execute(f"XA {verb} {resource._xid(FIRST)}")
        found = Outcome.COMMITTED if verb == "COMMIT" else Outcome.ABORTED
        with pytest.raises(EndedElsewhere) as caught:
            await (resource.abort if verb == "COMMIT" else resource.commit)(FIRST)
        assert caught.value.found is found
        await (resource.commit if verb == "COMMIT" else resource.abort)(FIRST)


@on_a_loop
async def test_two_processes_of_one_file_do_not_both_work(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "FENCE_WITHIN_S", 0.3)
    async with subject.opened() as resource:
        await resource.prepare(FIRST, resource.plan(subject.change))
        other = subject.make()
        with pytest.raises(ResourceRefused, match=r"session \d+ \(root from 127.0.0.1:\d+\) holds the lock"):
            await other.open(NAMESPACE)
        await other.close()
        await resource.commit(FIRST)


@on_a_loop
async def test_sessions_of_a_killed_incarnation_are_ended_before_another_works(subject: MariaDBSubject) -> None:
    """One waits at the server for a lock when its process dies, and would go on when it gets it."""
    resource = subject.make()
    await resource.open(NAMESPACE)
    await resource.prepare(FIRST, resource.plan(subject.increment))
    waiting = asyncio.create_task(resource.prepare(SECOND, resource.plan(subject.increment)))
    await asyncio.to_thread(eventually, lambda: waits(subject.database), "it waits")
    dies(resource)
    async with subject.opened() as later:
        assert (await later.survey()).prepared == {FIRST}
        await later.commit(FIRST)
        with pytest.raises(No):
            await waiting
        assert (await later.survey()).prepared == frozenset()
    await resource.close()


def keeper_at(resource: MariaDBResource, database: Database) -> int | None:
    """The session that has the lock of the participant file, by the server's word."""
    ((id,),) = database.execute(f"SELECT IS_USED_LOCK('troth:{resource._scope}')")
    return id


@pytest.mark.parametrize("looks", [False, True])
@on_a_loop
async def test_a_keeper_that_a_restart_has_ended_locks_again(
    subject: MariaDBSubject, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    """Before anything else is connected; when nothing is, at the next look."""
    monkeypatch.setattr(pool, "FENCE_WITHIN_S", 0.3)
    async with subject.opened() as resource:
        assert isinstance(resource, MariaDBResource)
        mariadb.kill()
        mariadb.start()
        assert keeper_at(resource, subject.database) is None
        if looks:
            await resource.survey()
        else:
            await resource.prepare(FIRST, resource.plan(subject.increment))
        assert keeper_at(resource, subject.database) is not None
        other = subject.make()
        with pytest.raises(ResourceRefused, match="holds the lock"):
            await other.open(NAMESPACE)
        await other.close()


@on_a_loop
async def test_a_keeper_that_is_ended_while_nothing_happens_locks_again(subject: MariaDBSubject) -> None:
    async with subject.opened() as resource:
        assert isinstance(resource, MariaDBResource)
        before = keeper_at(resource, subject.database)
        subject.database.execute(f"KILL {before}")
        await asyncio.to_thread(eventually, lambda: keeper_at(resource, subject.database) is None, "it is gone")
        await resource.survey()
        assert keeper_at(resource, subject.database) not in (None, before)


@on_a_loop
async def test_a_session_that_is_made_while_another_process_takes_over_does_not_work(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_slot = Pool._take_slot

    async def overtaken(self: Pool, session: Session) -> None:
        monkeypatch.undo()
        dies(resource)
        await later.open(NAMESPACE)
        await take_slot(self, session)

    resource, later = subject.make(), subject.make()
    await resource.open(NAMESPACE)
    monkeypatch.setattr(Pool, "_take_slot", overtaken)
    with pytest.raises(No, match="another process works"):
        await resource.prepare(FIRST, resource.plan(subject.increment))
    assert (await later.survey()).prepared == frozenset()
    await later.close()
    await resource.close()


@on_a_loop
async def test_a_keeper_that_the_server_still_lists_is_ended_before_another_locks(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does not know that it is lost: it would keep us out ourselves."""
    monkeypatch.setattr(pool, "KEEPER_WITHIN_S", 0.3)
    staller = Staller(subject.database)
    async with through(staller, subject) as resource:
        before = keeper_at(resource, subject.database)
        staller.stall()
        await resource._pool.hold()
        assert keeper_at(resource, subject.database) not in (None, before)


@on_a_loop
async def test_a_keeper_whose_host_has_lost_its_power_does_not_keep_another_incarnation_out(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "KEEPER_IDLE_S", 1)
    monkeypatch.setattr(pool, "FENCE_WITHIN_S", 15.0)
    staller = Staller(subject.database)
    async with through(staller, subject) as resource:
        await resource.prepare(FIRST, resource.plan(subject.increment))
        staller.stall()
        async with subject.opened() as later:
            assert (await later.survey()).prepared == {FIRST}
            await later.commit(FIRST)


def dies(resource: MariaDBResource) -> None:
    """As the kernel does it for a process that dies with the lock of its file; its other sessions are to be found."""
    keeper = resource._pool._keeper
    assert keeper is not None
    keeper.close()


@on_a_loop
async def test_without_that_a_branch_would_come_to_be_behind_the_survey(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Session.ask

    async def none_found(self: Session, *statements: str, within_s: float | None = None) -> Unit:
        unguarded = [each.replace("HAVING id IS NOT NULL", "HAVING FALSE") for each in statements]
        return await ask(self, *unguarded, within_s=within_s)

    resource = subject.make()
    await resource.open(NAMESPACE)
    running = asyncio.create_task(resource.prepare(FIRST, resource.plan(SLOW)))
    at_work = f"{SESSIONS} AND state = 'User sleep'"
    await asyncio.to_thread(eventually, lambda: subject.database.execute(at_work), "it sleeps")
    dies(resource)
    monkeypatch.setattr(Session, "ask", none_found)
    async with subject.opened() as later:
        assert (await later.survey()).prepared == frozenset()
        await running
        assert (await later.survey()).prepared == {FIRST}
    await resource.close()


@on_a_loop
async def test_branches_in_doubt_hold_a_bounded_number_of_connections(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a session that was let go of: each such end waits until the server has let go of the branch too."""
    monkeypatch.setattr(pool, "KEPT_PER_WORKER", 1)
    monkeypatch.setattr(pool, "ROOM_WITHIN_S", 0.02)
    for id in range(20):
        subject.database.execute(f"INSERT INTO accounts VALUES ('row{id}', 0)")
    async with subject.opened() as resource:
        attempts = [AttemptId("a" * 16, number) for number in range(1, 21)]
        for id, attempt in enumerate(attempts):
            await resource.prepare(attempt, resource.plan(one_row(id)))
        count = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{subject.database.name}'"
        ((sessions,),) = subject.database.execute(count)
        assert sessions <= 2 * subject.at_work_max + pool.ENDERS + 2
        assert (await resource.survey()).prepared == set(attempts)
        await asyncio.gather(*map(resource.commit, attempts))
        assert (await resource.survey()).committed.keys() == set(attempts)
    assert subject.database.execute("SELECT SUM(balance) FROM accounts WHERE id LIKE 'row%'") == [(20,)]


def one_row(id: int) -> bytes:
    return encode([add("accounts", f"row{id}", "balance", 1)])
