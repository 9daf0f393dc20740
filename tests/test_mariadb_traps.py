"""What MariaDB does that would tear a transaction silently, each shown on the server itself; what keeps it from us; and
what happened without that, switched off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import pymysql
import pytest

from faults.conformance.outside import FIRST, NAMESPACE, SECOND, THIRD, on_a_loop
from faults.servers import Database, MariaDB
from participant.resources import No
from participant.resources.mariadb import MariaDBResource, resource, statements
from participant.resources.mariadb.resource import ServerFailed
from participant.resources.mariadb.session import Failure, Result, Session
from participant.resources.outside import EndedElsewhere, ResourceRefused
from participant.resources.server.steps import Sql
from tests.mariadb_tools import MariaDBSubject
from tests.sqlite_tools import add, check, encode, insert, read, upsert
from troth.operations import sql
from troth.v1.types_pb2 import Code, Operation
from troth.words import AttemptId

pytestmark = pytest.mark.needs_mariadb

XID = "X'01',X'02'"


@pytest.fixture
def subject(mariadb_databases: Callable[[], Database]) -> MariaDBSubject:
    return MariaDBSubject(mariadb_databases)


@asynccontextmanager
async def opened(subject: MariaDBSubject) -> AsyncIterator[MariaDBResource]:
    made = subject.make()
    await made.open(NAMESPACE)
    try:
        yield made
    finally:
        await made.close()


@contextmanager
def cursor_of(database: Database) -> Iterator[Any]:
    """A DBA's session."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def prepare(cursor: Any, *work: str) -> None:
    for statement in (f"XA START {XID}", *work, f"XA END {XID}", f"XA PREPARE {XID}"):
        cursor.execute(statement)


def balances(subject: MariaDBSubject) -> list[int]:
    return [balance for (balance,) in subject.database.execute("SELECT balance FROM accounts ORDER BY id")]


async def no_of(made: MariaDBResource, *operations: Operation) -> No:
    """The NO to a branch, of which nothing is left."""
    with pytest.raises(No) as caught:
        await made.prepare(FIRST, made.plan(encode(list(operations))))
    assert (await made.survey()).prepared == frozenset()
    return caught.value


# NOTA does not mean finished.


def test_another_session_hears_nota_while_the_preparing_one_is_there(subject: MariaDBSubject) -> None:
    with cursor_of(subject.database) as one, cursor_of(subject.database) as other:
        prepare(one, "UPDATE accounts SET balance = 7")
        assert other.execute("XA RECOVER") == 1
        with pytest.raises(pymysql.OperationalError, match="XAER_NOTA"):
            other.execute(f"XA COMMIT {XID}")
        one.execute(f"XA COMMIT {XID}")


@on_a_loop
async def test_nota_is_not_read_as_an_outcome(subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(subject) as made:
        await made.prepare(FIRST, made.plan(subject.increment))
        kept = made._pool.keeper_of(FIRST)  # and no more known: from any other session, NOTA
        assert kept is not None
        ending = asyncio.create_task(made.commit(FIRST))
        await asyncio.sleep(0.3)
        assert not ending.done()
        kept.close()
        await ending
        assert balances(subject) == [98, 100]


@on_a_loop
async def test_without_a_look_at_what_is_prepared_it_would_be(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(self: MariaDBResource) -> list[Any]:
        return []

    async with opened(subject) as made:
        await made.prepare(FIRST, made.plan(subject.increment))
        assert made._pool.keeper_of(FIRST) is not None
        monkeypatch.setattr(MariaDBResource, "_recoverable", none)
        with pytest.raises(EndedElsewhere):  # and it is prepared
            await made.commit(FIRST)


# XA COMMIT from another session can answer OK and commit nothing.


def test_a_reset_session_loses_its_branch_and_the_commit_says_ok() -> None:
    """Until the server is restarted the rows stay locked; then the branch is prepared again."""
    with MariaDB() as server:
        subject = MariaDBSubject(lambda: server.create("lost"))
        with cursor_of(subject.database) as one:
            prepare(one, "UPDATE accounts SET balance = 7")
            one.connection._execute_command(0x1F, b"")  # COM_RESET_CONNECTION
            one.connection._read_ok_packet()
            subject.database.execute(f"XA COMMIT {XID}")
            assert balances(subject) == [100, 100]
            assert subject.database.execute("XA RECOVER") == []
        server.kill()
        server.start()
        subject.database.execute(f"XA COMMIT {XID}")
        assert balances(subject) == [7, 7]


@on_a_loop
async def test_an_ok_without_a_commit_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def believed(self: MariaDBResource, attempt: AttemptId) -> bool:
        return True

    with MariaDB() as server:
        subject = MariaDBSubject(lambda: server.create("lost"))
        async with opened(subject) as made:
            for attempt, operations in ((FIRST, subject.increment), (SECOND, subject.other)):
                await made.prepare(attempt, made.plan(operations))
                kept = made._pool.keeper_of(attempt)
                assert kept is not None
                await kept._connection._execute_command(0x1F, b"")
                await kept._connection.read_packet()
            with pytest.raises(ServerFailed, match="with OK and committed nothing: restart the server"):
                await made.commit(FIRST)
            monkeypatch.setattr(MariaDBResource, "_remembers", believed)
            await made.commit(SECOND)
            monkeypatch.undo()
            assert balances(subject) == [100, 100]
        server.kill()
        server.start()
        async with opened(subject) as made:
            assert (await made.survey()).prepared == {FIRST, SECOND}
            await made.commit(FIRST)
            await made.commit(SECOND)
            assert balances(subject) == [98, 101]


@on_a_loop
async def test_a_branch_whose_session_was_closed_commits(subject: MariaDBSubject) -> None:
    """Without the wait for the server to take it down, one in some hundreds was lost: too few to be shown each time."""
    async with opened(subject) as made:
        for number in range(15):
            attempt = FIRST._replace(number=FIRST.number + number)
            await made.prepare(attempt, made.plan(subject.increment))
            made._pool.let_go()
            await made.commit(attempt)
        assert balances(subject) == [70, 100]


# After a failed statement XA END and XA PREPARE succeed.


def test_past_a_failed_statement_the_rest_is_prepared(subject: MariaDBSubject) -> None:
    with cursor_of(subject.database) as cursor:
        cursor.execute(f"XA START {XID}")
        cursor.execute("UPDATE accounts SET balance = 7 WHERE id = 'alice'")
        with pytest.raises(pymysql.IntegrityError):
            cursor.execute("INSERT INTO accounts VALUES ('bob', 1)")
        cursor.execute(f"XA END {XID}")
        cursor.execute(f"XA PREPARE {XID}")
        cursor.execute(f"XA COMMIT {XID}")
    assert balances(subject) == [7, 100]


FAILS_IN_THE_MIDDLE = (add("accounts", "alice", "balance", 1), insert("accounts", "bob"), read("accounts", "bob"))


@on_a_loop
async def test_a_failed_statement_is_a_no(subject: MariaDBSubject) -> None:
    async with opened(subject) as made:
        no = await no_of(made, *FAILS_IN_THE_MIDDLE)
        assert (no.reason.code, no.reason.operation, no.reason.retryable) == (Code.CODE_ROW_EXISTS, 1, False)
        assert balances(subject) == [100, 100]


@on_a_loop
async def test_without_the_guards_it_would_be_a_yes(subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    """One statement to a packet and errors passed over: the number of answers tells. Without that too, a false YES."""

    def one_each(self: Session, queries: tuple[str, ...]) -> list[str]:
        return list(queries)

    answers = Session._answers

    async def never_failing(self: Session, packet: str, results: list[Result]) -> Failure | None:
        await answers(self, packet, results)
        return None

    async with opened(subject) as made:
        plan = made.plan(encode(list(FAILS_IN_THE_MIDDLE[:2])))
        monkeypatch.setattr(Session, "_packets", one_each)
        monkeypatch.setattr(Session, "_answers", never_failing)
        with pytest.raises(No, match="answers to the"):
            await made.prepare(FIRST, plan)
        monkeypatch.setattr(resource, "is_proven", lambda unit, count: True)
        monkeypatch.setattr(statements.Work, "rows", lambda self, results: [])
        await made.prepare(SECOND, plan)
        await made.commit(SECOND)
        assert balances(subject) == [101, 100]


# Statements that end the branch, or hold several.


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t(a int)",
        "TRUNCATE accounts",
        "COMMIT",
        "/* x */ (commit)",
        "XA END X'00'",
        "/*!50000 XA */ END X'00'",
        "SET autocommit = 1",
        "LOCK TABLES accounts WRITE",
        "CALL p()",
        "BEGIN NOT ATOMIC COMMIT; END",
        "",
        "-- nothing",
    ],
)
@on_a_loop
async def test_a_statement_that_is_not_on_rows_is_refused_by_its_first_word(
    subject: MariaDBSubject, statement: str
) -> None:
    async with opened(subject) as made:
        operation = Operation(sql={"statement": statement})
        with pytest.raises(No) as caught:
            made.plan(encode([operation]))
        assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_BAD_OPERATION, False)


@on_a_loop
async def test_an_implicit_commit_would_be_refused_by_the_server(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unguarded(step: Sql) -> str:
        return step.statement

    monkeypatch.setattr(statements, "_own", unguarded)
    async with opened(subject) as made:
        for statement in ("CREATE TABLE t(a int)", "COMMIT", "BEGIN", "TRUNCATE orders"):
            no = await no_of(made, add("accounts", "bob", "balance", 1), sql(statement))
            assert no.reason.code == Code.CODE_BAD_OPERATION
            assert balances(subject) == [100, 100]


SEVERAL = "UPDATE accounts SET balance = 7; XA END {0}; XA COMMIT {0} ONE PHASE; XA START {0}"


@on_a_loop
async def test_several_statements_are_not_one(subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(subject) as made:
        several = SEVERAL.format(made._xid(FIRST))
        no = await no_of(made, sql(several))
        assert no.reason.code == Code.CODE_BAD_OPERATION
        assert balances(subject) == [100, 100]


@on_a_loop
async def test_as_text_they_would_be_run(subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "_own", lambda step: step.statement)
    async with opened(subject) as made:
        with pytest.raises(No):
            await made.prepare(FIRST, made.plan(encode([sql(SEVERAL.format(made._xid(FIRST)))])))
        assert balances(subject) == [7, 7]  # a NO, and committed


@pytest.mark.parametrize("name", ["notes", "my-notes"])
@on_a_loop
async def test_a_table_without_transactions_is_not_changed(subject: MariaDBSubject, name: str) -> None:
    subject.database.execute(f"CREATE TABLE `{name}`(id int PRIMARY KEY) ENGINE=MyISAM")
    note = sql(f"INSERT INTO `{name}` VALUES (1)")
    async with opened(subject) as made:
        for operation, code in ((read(name, 1), Code.CODE_TABLE_NOT_SERVED), (note, Code.CODE_BAD_OPERATION)):
            no = await no_of(made, operation)
            assert no.reason.code == code
            assert "engine MyISAM" in no.reason.message or "engine is MyISAM" in no.reason.message
        made._database = made._database._replace(unprepared={})
        await made.prepare(FIRST, made.plan(encode([note])))
        await made.abort(FIRST)
        assert subject.database.execute(f"SELECT * FROM `{name}`") == [(1,)]  # so the guard is needed


# What is prepared keeps its locks.


@on_a_loop
async def test_locks_of_what_is_prepared_outlive_the_server(subject: MariaDBSubject, mariadb: MariaDB) -> None:
    """Those of its rows, and of its tables."""
    async with opened(subject) as made:
        await made.prepare(FIRST, made.plan(subject.increment))
    mariadb.kill()
    mariadb.start()
    for statement in (
        "SELECT balance FROM accounts WHERE id = 'alice' FOR UPDATE NOWAIT",
        "ALTER TABLE accounts NOWAIT ADD COLUMN note int",
    ):
        with pytest.raises(pymysql.OperationalError, match="Lock wait timeout"):
            subject.database.execute(statement)
    async with opened(subject) as made:
        with pytest.raises(No) as caught:
            await made.prepare(SECOND, made.plan(subject.increment))
        assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_LOCK_TIMEOUT, True)
        await made.commit(FIRST)
    assert balances(subject) == [98, 100]


# Readers.


@on_a_loop
async def test_a_reader_is_not_prepared(subject: MariaDBSubject) -> None:
    async with opened(subject) as made:
        await made.prepare(FIRST, made.plan(subject.look))
        assert subject.database.execute("XA RECOVER") == []
        with cursor_of(subject.database) as cursor:  # without the guard: an entry that somebody has to end
            prepare(cursor, "SELECT * FROM accounts")
            assert len(subject.database.execute("XA RECOVER")) == 1


@pytest.mark.parametrize("at_once", [False, True])
@on_a_loop
async def test_what_a_reader_was_shown_is_durable(subject: MariaDBSubject, at_once: bool) -> None:
    """A commit is shown before it is forced, and the COMMIT of a reader forces nothing. What is written here and in no
    hurry to be forced is a transaction that goes on; the server forces it by itself once a second."""
    position = "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'Innodb_lsn_{}'"
    forced = []
    async with opened(subject) as made:
        with cursor_of(subject.database) as cursor:
            cursor.execute("START TRANSACTION")
            for number in range(5):
                cursor.execute(f"UPDATE accounts SET balance = {number} WHERE id = 'bob'")
                ((written,),) = subject.database.execute(position.format("current"))
                if at_once:
                    await made.run(FIRST, subject.look, made.plan(subject.look))
                else:
                    await made.prepare(FIRST, made.plan(subject.look))
                ((durable,),) = subject.database.execute(position.format("flushed"))
                forced.append(int(durable) >= int(written))
        assert all(forced)
        survey = await made.survey()
        assert (survey.prepared, frozenset(survey.committed)) == (frozenset(), frozenset())


@on_a_loop
async def test_a_statement_that_is_said_to_read_cannot_write(subject: MariaDBSubject) -> None:
    subject.database.execute(
        "CREATE FUNCTION spend() RETURNS int MODIFIES SQL DATA BEGIN UPDATE accounts SET balance = 0; RETURN 1; END"
    )
    async with opened(subject) as made:
        no = await no_of(made, sql("SELECT spend()", read_only=True))
        assert no.reason.code == Code.CODE_BAD_OPERATION
        assert balances(subject) == [100, 100]


# Waiting.


@on_a_loop
async def test_a_lock_timeout_takes_back_the_whole_branch(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes back the statement only."""

    async def unguarded(self: MariaDBResource, session: Session, undo: str, end: str = "") -> bool:
        return True

    both = (add("accounts", "alice", "balance", 1), add("accounts", "bob", "balance", 1))
    alice = "SELECT balance FROM accounts WHERE id = 'alice' FOR UPDATE NOWAIT"
    async with opened(subject) as made:
        with cursor_of(subject.database) as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute("UPDATE accounts SET balance = balance WHERE id = 'bob'")
            no = await no_of(made, *both)
            assert (no.reason.code, no.reason.retryable) == (Code.CODE_LOCK_TIMEOUT, True)
            assert subject.database.execute(alice) == [(100,)]
            with monkeypatch.context() as without:
                without.setattr(MariaDBResource, "_undone", unguarded)
                await no_of(made, *both)
                with pytest.raises(pymysql.OperationalError, match="Lock wait timeout"):  # a NO that holds a lock
                    subject.database.execute(alice)
            cursor.execute("ROLLBACK")
    async with opened(subject) as made:
        assert balances(subject) == [100, 100]
        await made.prepare(SECOND, made.plan(subject.increment))
        await made.commit(SECOND)


@on_a_loop
async def test_a_deadlock_is_a_no_for_one_and_a_yes_for_the_other(subject: MariaDBSubject) -> None:
    subject.lock_timeout_s = 10
    nap = sql("SELECT SLEEP(0.3)", read_only=True)
    touch = [sql(f"UPDATE accounts SET balance = balance + 1 WHERE id = '{id}'") for id in ("alice", "bob")]
    async with opened(subject) as made:
        plans = [made.plan(encode([touch[0], nap, touch[1]])), made.plan(encode([touch[1], nap, touch[0]]))]
        ended = await asyncio.gather(
            made.prepare(FIRST, plans[0]), made.prepare(SECOND, plans[1]), return_exceptions=True
        )
        (no,) = [each for each in ended if isinstance(each, No)]
        assert (no.reason.code, no.reason.retryable) == (Code.CODE_LOCK_TIMEOUT, True)
        (winner,) = (await made.survey()).prepared
        await made.commit(winner)
        assert balances(subject) == [101, 101]
        await made.prepare(THIRD, made.plan(encode(touch)))  # on the session that was the victim
        await made.abort(THIRD)


# Names and rows.


@on_a_loop
async def test_an_upsert_does_not_take_another_row_for_its_own(subject: MariaDBSubject) -> None:
    """INSERT ... ON DUPLICATE KEY UPDATE does, and REPLACE deletes it."""
    subject.database.execute("INSERT INTO orders VALUES (1, 'bob', 'x')")
    async with opened(subject) as made:
        no = await no_of(made, upsert("orders", 2, code="x", account="alice"))
        assert no.reason.code == Code.CODE_UNIQUE
        assert subject.database.execute("SELECT * FROM orders") == [(1, "bob", "x")]
        subject.database.execute(
            "INSERT INTO orders VALUES (2, 'alice', 'x') ON DUPLICATE KEY UPDATE account = 'alice'"
        )
        assert subject.database.execute("SELECT * FROM orders") == [(1, "alice", "x")]


@on_a_loop
async def test_an_upsert_whose_row_comes_between_its_statements_is_a_no(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its UPDATE finds no row and its INSERT one, so that neither writes, and neither fails."""
    answers = Session._answers

    async def inserted(self: Session, packet: str, results: list[Result]) -> Failure | None:
        failure = await answers(self, packet, results)
        if packet.startswith("UPDATE `accounts`"):
            subject.database.execute("INSERT INTO accounts VALUES ('carol', 1)")
        return failure

    async with opened(subject) as made:
        with monkeypatch.context() as between:
            between.setattr(Session, "_packets", lambda self, queries: list(queries))
            between.setattr(Session, "_answers", inserted)
            no = await no_of(made, upsert("accounts", "carol", balance=7))
        assert (no.reason.code, no.reason.retryable) == (Code.CODE_LOCK_TIMEOUT, True)
        await made.prepare(SECOND, made.plan(encode([upsert("accounts", "carol", balance=7)])))
        await made.commit(SECOND)
        assert balances(subject) == [100, 100, 7]


# What the user's own code does to a session, by a trigger.


@contextmanager
def trigger_sets(database: Database, setting: str) -> Iterator[None]:
    database.execute(f"CREATE TRIGGER sets BEFORE INSERT ON orders FOR EACH ROW SET SESSION {setting}")
    yield
    database.execute("DROP TRIGGER sets")


@pytest.mark.parametrize("guarded", [True, False])
@on_a_loop
async def test_a_row_that_is_there_is_seen_whatever_a_trigger_has_set(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    if not guarded:
        monkeypatch.setattr(Session, "begin", Session.ask)
    absent = encode([check("accounts", "alice", exists=False), add("accounts", "bob", "balance", 1)])
    with trigger_sets(subject.database, "sql_select_limit = 0"):
        subject.at_work_max = 1
        async with opened(subject) as made:
            await made.prepare(FIRST, made.plan(encode([insert("orders", 1)])))
            await made.commit(FIRST)
            if guarded:
                with pytest.raises(No, match="is there"):
                    await made.prepare(SECOND, made.plan(absent))
            else:
                await made.prepare(SECOND, made.plan(absent))
                await made.abort(SECOND)


@on_a_loop
async def test_a_moment_is_the_same_one_whatever_a_trigger_has_set(subject: MariaDBSubject) -> None:
    subject.database.execute("CREATE TABLE events(id int PRIMARY KEY, at timestamp NULL)")
    with trigger_sets(subject.database, "time_zone = '+05:00'"):
        subject.at_work_max = 1
        async with opened(subject) as made:
            for attempt, operation in (
                (FIRST, insert("orders", 1)),
                (SECOND, insert("events", 1, at="2024-01-01 12:00:00+00:00")),
            ):
                await made.prepare(attempt, made.plan(encode([operation])))
                await made.commit(attempt)
    assert subject.database.execute("SELECT UNIX_TIMESTAMP(at) FROM events") == [(1704110400,)]


@pytest.mark.parametrize("completion", [1, 2])
@on_a_loop
async def test_the_next_branch_begins_whatever_a_trigger_makes_of_a_commit(
    subject: MariaDBSubject, completion: int
) -> None:
    """completion_type: with CHAIN another transaction begins, with RELEASE the session ends."""
    with trigger_sets(subject.database, f"completion_type = {completion}"):
        subject.at_work_max = 1
        async with opened(subject) as made:
            operations = encode([insert("orders", 1)])
            await made.run(FIRST, operations, made.plan(operations))
            await made.prepare(SECOND, made.plan(encode([add("accounts", "bob", "balance", 1)])))
            await made.commit(SECOND)
    assert balances(subject) == [100, 101]


@pytest.mark.parametrize("statement", ["SELECT RELEASE_ALL_LOCKS()", "SELECT get_lock ('x', 0)"])
@on_a_loop
async def test_a_branch_may_not_use_the_locks_by_which_its_session_is_found(
    subject: MariaDBSubject, statement: str
) -> None:
    async with opened(subject) as made:
        with pytest.raises(No, match="user locks") as caught:
            made.plan(encode([sql(statement, read_only=True)]))
        assert caught.value.reason.code == Code.CODE_BAD_OPERATION


@on_a_loop
async def test_a_server_that_no_longer_forces_what_it_answers_is_not_used_on(
    subject: MariaDBSubject, mariadb: MariaDB
) -> None:
    async with opened(subject) as made:
        mariadb.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 0")
        try:
            with pytest.raises(ResourceRefused, match="set innodb_flush_log_at_trx_commit = 1"):
                await made.survey()
        finally:
            mariadb.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        await made.survey()


@pytest.mark.parametrize("other", ["Alice", "alice "])
@on_a_loop
async def test_two_texts_that_a_collation_calls_equal_are_one_row(subject: MariaDBSubject, other: str) -> None:
    """And two of Troth's own locks: the server's keep them apart."""
    async with opened(subject) as made:
        change = add("accounts", "alice", "balance", -60, low=0)
        again = add("accounts", other, "balance", -60, low=0)
        plans = [made.plan(encode([each])) for each in (change, again)]
        assert plans[0].locks != plans[1].locks
        await made.prepare(FIRST, plans[0])
        waiting = asyncio.create_task(made.prepare(SECOND, plans[1]))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await made.commit(FIRST)
        with pytest.raises(No) as caught:
            await waiting
        assert caught.value.reason.code == Code.CODE_BELOW_MIN
        no = await no_of(made, insert("accounts", other))
        assert no.reason.code == Code.CODE_ROW_EXISTS


@on_a_loop
async def test_an_update_to_the_same_value_finds_its_row(subject: MariaDBSubject) -> None:
    """The server counts rows that it changed, unless it is asked for those that it found."""
    with cursor_of(subject.database) as cursor:
        assert cursor.execute("UPDATE accounts SET balance = 100 WHERE id = 'alice'") == 0
    async with opened(subject) as made:
        same = sql("UPDATE accounts SET balance = 100 WHERE id = %s", ["alice"], rows=1)
        await made.prepare(FIRST, made.plan(encode([same])))
        await made.commit(FIRST)
        no = await no_of(made, sql("UPDATE accounts SET balance = 5", rows=1))
        assert (no.reason.code, no.reason.found.integer) == (Code.CODE_CHECK_FAILED, 2)
        assert balances(subject) == [100, 100]
