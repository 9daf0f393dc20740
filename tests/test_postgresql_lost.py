"""Lost connections and dead servers: at every statement, and whatever the server did with it, the outcome is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from faults.cluster import eventually
from faults.conformance.outside import FIRST, LOG, NAMESPACE, SECOND, THIRD, on_a_loop
from faults.servers import Database, PostgreSQL
from participant.resources import No, Prepared
from participant.resources.outside import EndedElsewhere, ResourceRefused
from participant.resources.postgresql import PostgreSQLResource, pool, resource, session, statements
from participant.resources.postgresql.session import Query, Session
from tests.postgresql_tools import Link, PostgreSQLSubject, balance, listed, server_set
from tests.sqlite_tools import add, check, encode, insert, read
from troth.operations import sql
from troth.words import AttemptId

TRANSFER = [add("accounts", "alice", "balance", -10), add("accounts", "bob", "balance", 10)]
WORK = encode([*TRANSFER, read("accounts", "bob")])
QUERIES = 6
"""BEGIN, three operations, the finished row, PREPARE."""
SUICIDE = Query("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)", kept=False)


@pytest.fixture
def subject(postgresql_databases: Callable[[], Database]) -> PostgreSQLSubject:
    return PostgreSQLSubject(postgresql_databases)


@pytest.fixture
def strike(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], list[Session]]:
    """Once, in the first unit that holds a query that begins so, the server process dies before the query at that
    place. Tells whose it was."""
    send = Session.send

    def armed(beginning: str, at: int) -> list[Session]:
        struck: list[Session] = []

        def sending(self: Session, queries: Sequence[Query]) -> Any:
            if not struck and any(query.sql.startswith(beginning) for query in queries):
                struck.append(self)
                queries = [*queries[:at], SUICIDE, *queries[at:]]
            return send(self, queries)

        monkeypatch.setattr(Session, "send", sending)
        return struck

    return armed


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Session]]:
    """Once, the connection is gone on our side when the first unit with a query that begins so has been sent: the
    server carries it out, and nobody hears of it."""
    send = Session.send

    def armed(beginning: str) -> list[Session]:
        struck: list[Session] = []

        def sending(self: Session, queries: Sequence[Query]) -> Any:
            future = send(self, queries)
            if not struck and any(query.sql.startswith(beginning) for query in queries):
                struck.append(self)
                self._lose("cut by the test")
            return future

        monkeypatch.setattr(Session, "send", sending)
        return struck

    return armed


async def ended(database: Database, pid: int) -> None:
    """Returns once the server process is gone, with all that it was told to do."""
    there = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"
    await asyncio.to_thread(eventually, lambda: not database.execute(there), "the server process is gone")


def total(database: Database) -> tuple[int, int]:
    return balance(database), balance(database, "bob")


@on_a_loop
async def test_a_connection_that_was_made_while_the_keeper_was_lost_is_not_used(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have the lock by then, and have looked for connections before this one stood."""
    async with subject.opened() as opened:
        assert isinstance(opened, PostgreSQLResource)
        connect = pool.Pool._connect

        async def slow(self: pool.Pool) -> Session:
            made = await connect(self)
            assert self._keeper is not None
            subject.database.execute(f"SELECT pg_terminate_backend({self._keeper.pid})")
            await ended(subject.database, self._keeper.pid)
            return made

        with monkeypatch.context() as slowly:
            slowly.setattr(pool.Pool, "_connect", slow)
            with pytest.raises(No, match="cannot be reached"):
                await opened.prepare(FIRST, opened.plan(WORK))
        await opened.prepare(SECOND, opened.plan(WORK))


@on_a_loop
async def test_ends_wait_while_the_table_of_what_is_finished_is_locked(subject: PostgreSQLSubject) -> None:
    """Several at a time on one connection, whose first question of that kind fails before it is parsed."""
    subject.lock_timeout_s = 0.2
    async with subject.opened() as opened:
        with subject.database.connect() as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE troth_finished")
            unknown = [asyncio.create_task(opened.commit(AttemptId(LOG, number))) for number in range(100, 116)]
            done, _ = await asyncio.wait(unknown, timeout=1.5)
            assert not done
            other.execute("COMMIT")
        found = await asyncio.gather(*unknown, return_exceptions=True)
        assert {type(each) for each in found} == {EndedElsewhere}


# The server process dies.


@pytest.mark.parametrize("at", range(QUERIES + 1))
@on_a_loop
async def test_prepare_answers_no_and_leaves_nothing(
    subject: PostgreSQLSubject, strike: Callable[[str, int], list[Session]], at: int
) -> None:
    """Also when PREPARE itself was carried out, and only its answer is missing."""
    async with subject.opened() as opened:
        plan = opened.plan(WORK)
        struck = strike("PREPARE", at)
        with pytest.raises(No, match="cannot be reached") as caught:
            await opened.prepare(FIRST, plan)
        assert struck
        assert caught.value.reason.retryable
        assert listed(subject.database) == []
        await opened.prepare(SECOND, plan)
        await opened.commit(SECOND)
        await opened.abort(FIRST)
    assert total(subject.database) == (90, 110)


@pytest.mark.parametrize("at", range(QUERIES))
@on_a_loop
async def test_run_answers_no_and_leaves_nothing_before_its_commit(
    subject: PostgreSQLSubject, strike: Callable[[str, int], list[Session]], at: int
) -> None:
    async with subject.opened() as opened:
        struck = strike("BEGIN", at)
        with pytest.raises(No) as caught:
            await opened.run(FIRST, WORK, opened.plan(WORK))
        assert struck
        assert caught.value.reason.retryable
        assert total(subject.database) == (100, 100)
        assert (await opened.survey()).committed.keys() == frozenset()


@pytest.mark.parametrize(("at", "committed"), [(0, False), (1, True)])
@on_a_loop
async def test_run_waits_until_it_knows(
    subject: PostgreSQLSubject, strike: Callable[[str, int], list[Session]], at: int, committed: bool
) -> None:
    async with subject.opened() as opened:
        strike("COMMIT", at)
        if committed:
            prepared = await opened.run(FIRST, WORK, opened.plan(WORK))
            assert b"bob" in prepared.rows
        else:
            with pytest.raises(No):
                await opened.run(FIRST, WORK, opened.plan(WORK))
        assert total(subject.database) == ((90, 110) if committed else (100, 100))
        assert (await opened.survey()).committed.keys() == ({FIRST} if committed else frozenset())


@pytest.mark.parametrize("at", range(2))
@pytest.mark.parametrize("verb", ["COMMIT", "ROLLBACK"])
@on_a_loop
async def test_an_end_is_carried_out_once(
    subject: PostgreSQLSubject, strike: Callable[[str, int], list[Session]], verb: str, at: int
) -> None:
    """Also when it was carried out, and its answer is missing."""
    async with subject.opened() as opened:
        await opened.prepare(FIRST, opened.plan(WORK))
        struck = strike(f"{verb} PREPARED", at)
        await (opened.commit if verb == "COMMIT" else opened.abort)(FIRST)
        assert struck
        assert listed(subject.database) == []
    assert total(subject.database) == ((90, 110) if verb == "COMMIT" else (100, 100))


# The connection breaks, and the server goes on.

SLOW = encode([add("accounts", "alice", "balance", -10), sql("SELECT pg_sleep(0.5)")])


@on_a_loop
async def test_a_no_waits_until_nothing_can_come_to_be(
    subject: PostgreSQLSubject, cut: Callable[[str], list[Session]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with subject.opened() as opened:
        struck = cut("PREPARE")
        with pytest.raises(No):
            await opened.prepare(FIRST, opened.plan(SLOW))
        await ended(subject.database, struck[0].pid)
        assert listed(subject.database) == []

        async def gone(self: PostgreSQLResource, session: Session) -> None:
            """Whoever does not wait for the end of the other side ..."""

        monkeypatch.setattr(PostgreSQLResource, "_gone", gone)
        struck = cut("PREPARE")
        with pytest.raises(No):
            await opened.prepare(SECOND, opened.plan(SLOW))
        await ended(subject.database, struck[0].pid)
        assert len(listed(subject.database)) == 1  # ... said NO to what then was prepared.


@on_a_loop
async def test_run_is_not_answered_while_its_commit_may_yet_be(
    subject: PostgreSQLSubject, cut: Callable[[str], list[Session]]
) -> None:
    subject.database.execute(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END'"
    )
    subject.database.execute(
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION slowly()"
    )
    async with subject.opened() as opened:
        struck = cut("COMMIT")
        try:
            await opened.run(FIRST, subject.change, opened.plan(subject.change))
            committed = {FIRST}
        except No:
            committed = set()
        await ended(subject.database, struck[0].pid)
        assert (await opened.survey()).committed.keys() == committed
        assert balance(subject.database) == (90 if committed else 100)


@pytest.mark.parametrize("verb", ["COMMIT", "ROLLBACK"])
@on_a_loop
async def test_an_end_that_nobody_heard_of(
    subject: PostgreSQLSubject, cut: Callable[[str], list[Session]], verb: str
) -> None:
    async with subject.opened() as opened:
        await opened.prepare(FIRST, opened.plan(WORK))
        cut(f"{verb} PREPARED")
        await (opened.commit if verb == "COMMIT" else opened.abort)(FIRST)
        assert (await opened.survey()).committed.keys() == ({FIRST} if verb == "COMMIT" else frozenset())


@on_a_loop
async def test_a_silent_server_is_given_up(subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "ANSWER_WITHIN_S", 0.2)
    async with subject.opened() as opened:
        slow = encode([add("accounts", "alice", "balance", -10), sql("SELECT pg_sleep(30)")])
        with pytest.raises(No, match="no answer within"):
            await opened.prepare(FIRST, opened.plan(slow))
        monkeypatch.undo()
        await opened.prepare(SECOND, opened.plan(WORK))


@on_a_loop
async def test_a_server_that_falls_silent_behind_the_handshake_is_given_up(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link(subject.database)
    async with link.running() as dsn:
        opened = PostgreSQLResource(dsn, lock_timeout_s=subject.lock_timeout_s, pool=subject.at_work_max)
        await opened.open(NAMESPACE)
        try:
            link.silent = True
            monkeypatch.setattr(session, "ANSWER_WITHIN_S", 0.2)
            async with asyncio.timeout(30):
                with pytest.raises(No, match="no answer within") as caught:
                    await opened.prepare(FIRST, opened.plan(WORK))
                assert caught.value.reason.retryable
                link.silent = False
                monkeypatch.undo()
                await opened.prepare(SECOND, opened.plan(WORK))
                await opened.abort(SECOND)
        finally:
            await opened.close()


# The server dies. It is started in this thread, for it ends with the one that starts it.


@on_a_loop
async def test_what_was_prepared_outlives_kill_9_of_the_server(
    subject: PostgreSQLSubject, postgresql: PostgreSQL
) -> None:
    """With its locks; and an end that was asked for meanwhile is carried out when the server is back."""
    async with subject.opened() as opened:
        await opened.prepare(FIRST, opened.plan(WORK))
        postgresql.kill()
        with pytest.raises(No, match="cannot be reached") as caught:
            await opened.prepare(SECOND, opened.plan(WORK))
        assert caught.value.reason.retryable
        ending = asyncio.create_task(opened.commit(FIRST))
        await asyncio.sleep(0.2)
        assert not ending.done()
        postgresql.start()
        async with asyncio.timeout(10):
            await ending
        assert total(subject.database) == (90, 110)
        await opened.prepare(THIRD, opened.plan(WORK))
    postgresql.kill()
    postgresql.start()
    async with subject.opened() as later:
        survey = await later.survey()
        assert (set(survey.prepared), set(survey.committed)) == ({THIRD}, {FIRST})
        with pytest.raises(No, match="lock_timeout_s"):
            await later.prepare(SECOND, later.plan(WORK))
        await later.abort(THIRD)


def lazily_written(database: Database) -> AbstractContextManager[None]:
    """What is committed without being forced is not on disk for a while."""
    return server_set(database, "wal_writer_delay", "10s")


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("when", ["", "DEFERRABLE INITIALLY DEFERRED"])
@on_a_loop
async def test_a_trigger_cannot_make_a_one_phase_commit_lazy(
    subject: PostgreSQLSubject, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, when: str, guarded: bool
) -> None:
    for statement in (
        "CREATE FUNCTION lazy() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM set_config('synchronous_commit', 'off', false); RETURN NULL; END $$",
        f"CREATE CONSTRAINT TRIGGER lazily AFTER INSERT ON orders {when} FOR EACH ROW EXECUTE FUNCTION lazy()",
    ):
        subject.database.execute(statement)
    if not guarded:
        monkeypatch.setattr(statements.Work, "runs_code", False)
    with lazily_written(subject.database):
        async with subject.opened() as opened:
            operations = encode([insert("orders", 1)])
            await opened.run(FIRST, operations, opened.plan(operations))
            postgresql.kill()
            postgresql.start()
        assert bool(subject.database.execute("SELECT id FROM orders")) is guarded


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("look", ["SELECT balance FROM accounts WHERE id = 'alice'", ""])
@on_a_loop
async def test_what_a_reader_was_shown_is_durable(
    subject: PostgreSQLSubject, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, look: str, guarded: bool
) -> None:
    """Also a change, or a row's being gone, that another program has committed without waiting for the disk."""
    operation = sql(look, read_only=True) if look else check("accounts", "bob", exists=False)
    if not guarded:
        monkeypatch.setattr(resource, "_FORCING", Query("SELECT 1"))
    with lazily_written(subject.database):
        async with subject.opened() as opened:
            with postgresql.connect(subject.database.name) as other:
                other.execute("SET synchronous_commit = off")
                other.execute(
                    "WITH gone AS (DELETE FROM accounts WHERE id = 'bob')"
                    " UPDATE accounts SET balance = 777 WHERE id = 'alice'"
                )
            found = await opened.prepare(FIRST, opened.plan(encode([operation])))
            assert bool(found.rows) is bool(look)
            postgresql.kill()
            postgresql.start()
        rows = [("alice", 777)] if guarded else [("alice", 100), ("bob", 100)]
        assert subject.database.execute("SELECT * FROM accounts ORDER BY id") == rows


@on_a_loop
async def test_what_a_no_could_not_clean_is_cleaned_behind_it(
    subject: PostgreSQLSubject, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to PREPARE is lost, and the server with it: the NO goes out, and the branch goes when it is back."""
    monkeypatch.setattr(resource, "CLEAN_WITHIN_S", 0.1)
    async with subject.opened() as opened:
        ask = Session.ask

        async def lost(self: Session, *queries: Query, within_s: float | None = None) -> Any:
            unit = await ask(self, *queries, within_s=within_s)
            if queries[-1].sql.startswith("PREPARE"):
                postgresql.kill()
                self.close()
                return await ask(self)
            return unit

        monkeypatch.setattr(Session, "ask", lost)
        with pytest.raises(No):
            await opened.prepare(FIRST, opened.plan(WORK))
        monkeypatch.setattr(Session, "ask", ask)
        postgresql.start()
        assert len(listed(subject.database)) == 1
        async with asyncio.timeout(10):
            await opened.abort(FIRST)
        assert listed(subject.database) == []


# Incarnations.


async def died_at_work(subject: PostgreSQLSubject) -> tuple[PostgreSQLResource, asyncio.Task[Prepared], int]:
    """An incarnation whose lock is gone, as a kill of its process would do it, while a server process is at a branch
    of it; with that process."""
    first = subject.make()
    assert isinstance(first, PostgreSQLResource)
    await first.open(NAMESPACE)
    running = asyncio.create_task(first.prepare(FIRST, first.plan(SLOW)))
    at_work = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    [(pid,)] = await asyncio.to_thread(eventually, lambda: subject.database.execute(at_work))
    keeper = first._pool._keeper
    assert keeper is not None
    keeper.close()
    return first, running, pid


@on_a_loop
async def test_a_second_process_with_the_same_file_is_refused_by_name(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "FENCE_WITHIN_S", 0.2)
    async with subject.opened():
        second = subject.make()
        with pytest.raises(ResourceRefused, match=r"process \d+ \(from 127.0.0.1\) holds the lock"):
            await second.open(NAMESPACE)


@on_a_loop
async def test_what_an_earlier_incarnation_is_still_at_ends_before_the_next_begins(
    subject: PostgreSQLSubject,
) -> None:
    """A participant that was killed leaves server processes that finish what they were told; one that is at work would
    prepare a branch after the survey of the next life has said that there is none."""
    first, running, pid = await died_at_work(subject)
    async with subject.opened() as later:
        found = (await later.survey()).prepared
        await ended(subject.database, pid)
        assert (await later.survey()).prepared == found
        with pytest.raises(No, match="cannot be reached"):
            await running
        with pytest.raises(No, match="another process works"):
            await first.prepare(SECOND, first.plan(WORK))
        await first.close()
        for attempt in found:
            await later.abort(attempt)


@on_a_loop
async def test_without_a_wait_for_them_a_branch_would_come_to_be_behind_the_survey(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(self: pool.Pool, keeper: Session) -> str:
        return ""

    monkeypatch.setattr(pool.Pool, "_others", nobody)
    first, running, _ = await died_at_work(subject)
    async with subject.opened() as later:
        assert (await later.survey()).prepared == frozenset()
        await running
        assert (await later.survey()).prepared == {FIRST}
        await first.close()


@on_a_loop
async def test_a_keeper_that_the_server_still_has_keeps_nobody_out(subject: PostgreSQLSubject) -> None:
    """Our side of every connection is gone, and the server has not heard of it: the old keeper has the lock."""
    link = Link(subject.database)
    async with link.running() as dsn:
        opened = PostgreSQLResource(dsn, lock_timeout_s=subject.lock_timeout_s, pool=subject.at_work_max)
        await opened.open(NAMESPACE)
        try:
            await opened.prepare(FIRST, opened.plan(WORK))
            keeper = opened._pool._keeper
            assert keeper is not None
            link.lose()
            async with asyncio.timeout(30):
                await opened.commit(FIRST)
                await opened.prepare(SECOND, opened.plan(WORK))
                await opened.abort(SECOND)
            await ended(subject.database, keeper.pid)
        finally:
            await opened.close()
    assert total(subject.database) == (90, 110)


@on_a_loop
async def test_the_server_looks_whether_our_side_is_there(subject: PostgreSQLSubject) -> None:
    """By its own settings a process of which nobody hears any more, and its lock, would stay for two hours."""
    noted = "INSERT INTO noted SELECT setting::int FROM pg_settings WHERE starts_with(name, 'tcp_') ORDER BY name"
    subject.database.execute("CREATE TABLE noted(setting int)")
    async with subject.opened() as opened:
        await opened.run(FIRST, b"", opened.plan(encode([sql(noted, rows=4)])))
    count, idle, interval, user_timeout_ms = [setting for (setting,) in subject.database.execute("TABLE noted")]
    assert 0 < idle + count * interval < pool.FENCE_WITHIN_S
    assert 0 < user_timeout_ms < 1000 * pool.FENCE_WITHIN_S
