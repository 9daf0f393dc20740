"""The traps of PREPARE TRANSACTION, each on a real server, and each shown to catch who has no guard against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from faults.conformance.outside import (
    FIRST,
    LOG,
    NAMESPACE,
    SECOND,
    STRANGER,
    THIRD,
    on_a_loop,
    prepare_branch,
    run_branch,
)
from faults.servers import Database
from participant.resources import No
from participant.resources.outside import EndedElsewhere, OutsideResource, ResourceRefused, Stray
from participant.resources.postgresql import PostgreSQLResource, opening, resource, statements
from participant.resources.postgresql.resource import ServerFailed
from participant.resources.postgresql.session import Query, Session, Unit
from tests.postgresql_tools import PostgreSQLSubject, balance, listed
from tests.sqlite_tools import add, delete, encode, insert, update
from troth.operations import sql
from troth.v1.types_pb2 import Code

INSUFFICIENT = encode([add("accounts", "alice", "balance", -101)])
MISSING = encode([update("accounts", "nobody", balance=1)])


@pytest.fixture
def subject(postgresql_databases: Callable[[], Database]) -> PostgreSQLSubject:
    return PostgreSQLSubject(postgresql_databases)


async def voted_no(opened: Any, operations: bytes) -> Code:
    with pytest.raises(No) as caught:
        await opened.prepare(FIRST, opened.plan(operations))
    return caught.value.reason.code


def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements one by one, errors dropped: what a program sees that looks at exceptions of the last call only, as
    psycopg's tpc_prepare() does not raise one for a transaction that has failed."""
    ask = Session.ask

    async def one_by_one(self: Session, *queries: Query, within_s: float | None = None) -> Unit:
        units = [await ask(self, query) for query in queries]
        return Unit([unit.results[0] for unit in units if unit.results], None if len(units) > 1 else units[0].failure)

    monkeypatch.setattr(Session, "ask", one_by_one)


@on_a_loop
async def test_prepare_of_a_failed_transaction_is_answered_with_rollback_and_no_error(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements.Work, "rows", lambda self, results: b"")  # the guard under test stands alone
    async with subject.opened() as opened:
        careless(monkeypatch)
        assert await voted_no(opened, INSUFFICIENT) == Code.CODE_RESOURCE
        monkeypatch.setattr(resource, "is_proven", lambda unit: True)
        await opened.prepare(SECOND, opened.plan(INSUFFICIENT))  # a YES
        assert listed(subject.database) == []  # a false one


@on_a_loop
async def test_a_pipelined_prepare_goes_out_before_the_row_count_is_known(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with subject.opened() as opened:
        assert await voted_no(opened, MISSING) == Code.CODE_ROW_MISSING
        assert listed(subject.database) == []
        monkeypatch.setattr(statements.Work, "rows", lambda self, results: b"")
        await opened.prepare(SECOND, opened.plan(MISSING))  # a YES to what changed nothing
        assert len(listed(subject.database)) == 1


@on_a_loop
async def test_a_wrong_row_count_of_a_statement_leaves_nothing(subject: PostgreSQLSubject) -> None:
    async with subject.opened() as opened:
        operations = encode([sql("UPDATE accounts SET balance = 0", rows=1)])
        for tried in (prepare_branch, run_branch):
            with pytest.raises(No) as caught:
                await tried(opened, FIRST, operations)
            assert caught.value.reason.message == "the statement touched 2 rows, not 1"
            assert (listed(subject.database), balance(subject.database)) == ([], 100)


@on_a_loop
async def test_after_an_error_the_server_skips_up_to_the_sync(subject: PostgreSQLSubject) -> None:
    """So every end has a sync of its own: an unknown name in between says nothing about its neighbours."""
    async with subject.opened() as opened:
        for attempt, name in ((FIRST, "alice"), (THIRD, "bob")):
            await opened.prepare(attempt, opened.plan(encode([add("accounts", name, "balance", 1)])))
        ends = (opened.commit(FIRST), opened.commit(SECOND), opened.commit(THIRD))
        assert [type(each) for each in await asyncio.gather(*ends, return_exceptions=True)] == [
            type(None),
            EndedElsewhere,
            type(None),
        ]
    session = await Session.connect(subject.database.dsn)
    unit = await session.ask(Query("SELECT 1"), Query("SELECT 1/0"), Query("SELECT 3"))
    session.close()
    assert len(unit.results) == 1
    assert unit.failure is not None
    assert unit.failure.sqlstate == "22012"


@on_a_loop
async def test_an_unknown_name_is_never_an_outcome(subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    """42704 is the answer for "finished already" and for "never prepared" alike: the finished table tells which."""
    async with subject.opened() as opened:
        await opened.prepare(FIRST, opened.plan(subject.change))
        subject.database.execute(f"ROLLBACK PREPARED '{listed(subject.database)[0]}'")  # a DBA
        with pytest.raises(EndedElsewhere, match="ended as ABORTED"):
            await opened.commit(FIRST)
        await opened.prepare(SECOND, opened.plan(subject.change))
        subject.database.execute(f"COMMIT PREPARED '{listed(subject.database)[0]}'")
        with pytest.raises(EndedElsewhere, match="ended as COMMITTED"):
            await opened.abort(SECOND)
        await opened.commit(SECOND)

        async def finished(self: PostgreSQLResource, attempt: object) -> bool:
            return True

        monkeypatch.setattr(PostgreSQLResource, "_remembers", finished)
        await opened.commit(FIRST)  # "done", of what was rolled back


@on_a_loop
async def test_another_database_s_branches_are_not_ours(
    subject: PostgreSQLSubject, postgresql_databases: Callable[[], Database]
) -> None:
    """pg_prepared_xacts lists those of the whole server; only from their own database can they be ended."""
    other = postgresql_databases()
    strange = "troth:somebody:else:1"
    prepare(other, "troth:elsewhere:else:1")
    prepare(subject.database, strange)
    prepare(subject.database, "not of troth")
    async with subject.opened() as opened:
        survey = await opened.survey()
        assert survey.prepared == frozenset()
        assert [stray.name for stray in survey.strays] == [strange]
        assert all(isinstance(stray, Stray) and 0 <= stray.age_s < 60 for stray in survey.strays)
    prepare(other, f"troth:{NAMESPACE}:{LOG}:{FIRST.number}")
    with pytest.raises(ResourceRefused, match=f"prepared in database {other.name} by role postgres"):
        await subject.make().open(NAMESPACE)


@on_a_loop
async def test_taken_for_ours_they_could_not_be_ended(
    subject: PostgreSQLSubject, postgresql_databases: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unguarded(session: Session, prefix: str) -> None:
        pass

    send = Session.send

    def unfiltered(self: Session, queries: Sequence[Query]) -> Any:
        filter = "database = current_database() AND "
        return send(self, [query._replace(sql=query.sql.replace(filter, "")) for query in queries])

    prepare(postgresql_databases(), f"troth:{NAMESPACE}:{LOG}:{FIRST.number}")
    monkeypatch.setattr(opening, "require_reach", unguarded)
    async with subject.opened() as opened:
        assert (await opened.survey()).prepared == frozenset()
        monkeypatch.setattr(Session, "send", unfiltered)
        assert (await opened.survey()).prepared == {FIRST}
        with pytest.raises(ServerFailed, match="belongs to another database"):
            await opened.commit(FIRST)


def prepare(database: Database, gid: str) -> None:
    with database.connect() as connection:
        connection.autocommit = True
        for statement in ("BEGIN", f"PREPARE TRANSACTION '{gid}'"):
            connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMPORARY TABLE t(id int)",
        "NOTIFY somebody",
        "LISTEN somebody",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SELECT pg_export_snapshot()",
    ],
)
@on_a_loop
async def test_what_prepare_refuses_is_a_no_with_the_server_s_reason(
    subject: PostgreSQLSubject, statement: str
) -> None:
    async with subject.opened() as opened:
        with pytest.raises(No, match=r"the server cannot do this in a branch: cannot PREPARE") as caught:
            await opened.prepare(FIRST, opened.plan(encode([add("accounts", "bob", "balance", 1), sql(statement)])))
        assert not caught.value.reason.retryable
        assert (listed(subject.database), balance(subject.database, "bob")) == ([], 100)
        await opened.prepare(SECOND, opened.plan(subject.other))


@on_a_loop
async def test_a_read_only_branch_is_never_prepared(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PREPARE costs an fsync and a slot even then."""
    sent: list[str] = []
    send = Session.send

    def noted(self: Session, queries: Sequence[Query]) -> Any:
        sent.extend(query.sql for query in queries)
        return send(self, queries)

    async with subject.opened() as opened:
        monkeypatch.setattr(Session, "send", noted)
        await opened.prepare(FIRST, opened.plan(subject.look))
        sent = sent[sent.index("BEGIN") :]
        assert sent[-1] == "COMMIT"
        assert not [each for each in sent if "PREPARE" in each or "INSERT" in each]
        await opened.prepare(SECOND, opened.plan(subject.look)._replace(read_only=False))
        assert len(listed(subject.database)) == 1  # an entry that somebody has to end


# Transaction control inside of a branch.


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "; commit",
        "/* a /* nested */ one */ END",
        "-- a line\nROLLBACK",
        "\tabort",
        "BEGIN",
        "START TRANSACTION",
        "PREPARE TRANSACTION 'mine'",
        "COMMIT AND CHAIN",
        "savepoint s",
        "SET SESSION AUTHORIZATION postgres",
        "COPY t FROM STDIN",
        "EXECUTE t5",
    ],
)
@on_a_loop
async def test_a_branch_cannot_end_its_transaction(subject: PostgreSQLSubject, statement: str) -> None:
    async with subject.opened() as opened:
        operations = encode([add("accounts", "bob", "balance", 1), sql(statement)])
        with pytest.raises(No) as caught:
            opened.plan(operations)
        assert (caught.value.reason.code, caught.value.reason.operation) == (Code.CODE_BAD_OPERATION, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1; COMMIT",
        "DO $$ BEGIN COMMIT; END $$",
        "CALL ends()",
        "SELECT set_config('transaction_read_only', 'x', true)",
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "SELECT 1/0",
        "SELECT pg_sleep(0), nothing",
    ],
)
@on_a_loop
async def test_nothing_of_a_branch_stays_whatever_its_statement_tries(
    subject: PostgreSQLSubject, statement: str
) -> None:
    subject.database.execute("CREATE PROCEDURE ends() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'")
    async with subject.opened() as opened:
        operations = encode([add("accounts", "bob", "balance", 1), sql(statement)])
        for tried in (prepare_branch, run_branch):
            with pytest.raises(No):
                await tried(opened, FIRST, operations)
            assert (listed(subject.database), balance(subject.database, "bob")) == ([], 100)
        await opened.prepare(SECOND, opened.plan(subject.other))


@on_a_loop
async def test_what_the_first_word_hides_does_commit_without_its_guard(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "_UNFIT", {})
    async with subject.opened() as opened:
        plan = opened.plan(encode([add("accounts", "bob", "balance", 1), sql("COMMIT"), sql("SELECT 1/0")]))
        with pytest.raises(No):
            await opened.prepare(FIRST, plan)
        assert balance(subject.database, "bob") == 101  # a NO, and yet


@on_a_loop
async def test_a_statement_that_may_only_read_cannot_write(subject: PostgreSQLSubject) -> None:
    async with subject.opened() as opened:
        for statement in (
            "UPDATE accounts SET balance = 0",
            "WITH gone AS (DELETE FROM accounts RETURNING 1) SELECT * FROM gone",
            "SELECT writes()",
        ):
            subject.database.execute(
                "CREATE OR REPLACE FUNCTION writes() RETURNS void LANGUAGE sql AS 'UPDATE accounts SET balance = 0'"
            )
            operations = [sql(statement, read_only=True), add("accounts", "bob", "balance", 1)]
            with pytest.raises(No, match="said to be read-only") as caught:
                await opened.prepare(FIRST, opened.plan(encode(operations)))
            assert not caught.value.reason.retryable
        operations = [sql("SELECT balance FROM accounts", read_only=True), add("accounts", "bob", "balance", 1)]
        await opened.prepare(SECOND, opened.plan(encode(operations)))  # what may be written is as before
        await opened.commit(SECOND)
    assert (balance(subject.database), balance(subject.database, "bob")) == (100, 101)


@on_a_loop
async def test_what_is_only_said_to_be_read_only_would_write(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "_ONLY_READING", ())
    monkeypatch.setattr(statements, "_READ", ())
    async with subject.opened() as opened:
        writing = opened.plan(encode([sql("UPDATE accounts SET balance = 0", read_only=True)]))
        assert writing.read_only
        await opened.prepare(FIRST, writing)  # READ_ONLY, whose locks are shared and whose outcome nobody waits for
    assert balance(subject.database) == 0


@pytest.fixture
def tricks(subject: PostgreSQLSubject) -> Iterator[bytes]:
    """A branch that gives its session to another role, and makes its commits lazy: set_config() is no statement that a
    first word gives away."""
    database = subject.database
    role = f"other_{database.name}"
    database.execute(f"CREATE ROLE {role}")
    database.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}")
    settings = [f"SELECT set_config('role', '{role}', false)", "SELECT set_config('synchronous_commit', 'off', false)"]
    yield encode([add("accounts", "bob", "balance", 1), *map(sql, settings)])
    for gid in listed(database):
        database.execute(f"ROLLBACK PREPARED '{gid}'")
    database.execute(f"DROP OWNED BY {role}")
    database.execute(f"DROP ROLE {role}")


OWNERS = "SELECT owner FROM pg_prepared_xacts WHERE database = current_database()"
SET = encode([sql("SELECT current_user, current_setting('synchronous_commit')", read_only=True)])


async def set_at(opened: OutsideResource, subject: PostgreSQLSubject) -> bytes:
    """What is set on the sessions for work, whichever is next."""
    return b"".join([(await opened.prepare(THIRD, opened.plan(SET))).rows for _ in range(subject.at_work_max)])


@on_a_loop
async def test_a_function_cannot_give_the_branch_to_another_role_or_make_its_commit_lazy(
    subject: PostgreSQLSubject, tricks: bytes
) -> None:
    """Only its owner can end a prepared transaction."""
    async with subject.opened() as opened:
        await opened.prepare(FIRST, opened.plan(tricks))
        assert subject.database.execute(OWNERS) == [("postgres",)]
        await opened.commit(FIRST)
        left = await set_at(opened, subject)
        assert (b"postgres" in left, b"other" in left, b"off" in left) == (True, False, False)


@on_a_loop
async def test_what_is_not_put_back_stays_with_the_branch_and_the_session(
    subject: PostgreSQLSubject, tricks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements.Work, "runs_code", False)
    async with subject.opened() as opened:
        await opened.prepare(FIRST, opened.plan(tricks))
        assert subject.database.execute(OWNERS) == [(f"other_{subject.database.name}",)]
        left = await set_at(opened, subject)
        assert (b"other" in left, b"off" in left) == (True, True)
        await opened.commit(FIRST)


TRIGGER = """
CREATE FUNCTION sets() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM set_config('lock_timeout', '77', false); RETURN NULL; END $$;
CREATE TRIGGER t AFTER INSERT OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION sets()
"""
LOCK_TIMEOUT = encode([sql("SELECT current_setting('lock_timeout')", read_only=True)])


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("table", ["orders", "days_1", "sons"])
@on_a_loop
async def test_what_a_trigger_sets_ends_with_its_branch(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch, table: str, guarded: bool
) -> None:
    """Of the table, of a partition, of one that it cascades to."""
    for statement in (
        "CREATE TABLE days(id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (9)",
        "CREATE TABLE fathers(id int PRIMARY KEY)",
        "CREATE TABLE sons(id int PRIMARY KEY REFERENCES fathers ON DELETE CASCADE)",
        "INSERT INTO fathers VALUES (1)",
        "INSERT INTO sons VALUES (1)",
        TRIGGER.format(table),
    ):
        subject.database.execute(statement)
    if not guarded:
        monkeypatch.setattr(statements.Work, "runs_code", False)
    changes = {"orders": insert("orders", 1), "days_1": insert("days", 1), "sons": delete("fathers", 1)}
    async with subject.opened() as opened:
        await opened.prepare(FIRST, opened.plan(encode([changes[table]])))
        await opened.commit(FIRST)
        left = b"".join(
            [(await opened.prepare(THIRD, opened.plan(LOCK_TIMEOUT))).rows for _ in range(subject.at_work_max)]
        )
    assert (b"77" in left) is not guarded


# Waiting.


@on_a_loop
async def test_a_deadlock_over_two_databases_is_ended_by_the_lock_timeout(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for what the other has prepared at the other one, and no deadlock detector sees that."""

    async def crossed(ended_within_s: float) -> set[type]:
        one, other = subject.anew(), subject.anew()
        async with one.opened() as here, other.opened(STRANGER) as there:
            plan = here.plan(subject.increment)
            await here.prepare(FIRST, plan)
            await there.prepare(SECOND, plan)
            crossing = [
                asyncio.create_task(there.prepare(FIRST, plan)),
                asyncio.create_task(here.prepare(SECOND, plan)),
            ]
            done, waiting = await asyncio.wait(crossing, timeout=ended_within_s)
            await here.abort(FIRST)
            await there.abort(SECOND)
            await asyncio.gather(*waiting)
            return {type(each.exception()) for each in done}

    assert await crossed(30) == {No}
    settings = PostgreSQLResource._settings
    monkeypatch.setattr(PostgreSQLResource, "_settings", lambda self: {**settings(self), "lock_timeout": "0"})
    assert await crossed(4 * subject.lock_timeout_s) == set()


@on_a_loop
async def test_an_attempt_is_remembered_in_the_transaction_of_its_work(subject: PostgreSQLSubject) -> None:
    async with subject.opened() as opened:
        await opened.prepare(FIRST, opened.plan(encode([insert("orders", 5)])))
        assert subject.database.execute("SELECT * FROM troth_finished") == []
        await opened.commit(FIRST)
        rows = subject.database.execute("SELECT f.xmin = o.xmin, number FROM troth_finished f, orders o")
        assert rows == [(True, FIRST.number)]
