"""Servers that a YES could not be kept for are refused at start, each with what to change; bad input while serving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from faults.conformance.outside import FIRST, NAMESPACE, SECOND, THIRD, on_a_loop, run_branch
from faults.servers import Database, PostgreSQL
from faults.servers.server import ServerError
from participant.resources import No
from participant.resources.outside import ResourceRefused
from participant.resources.postgresql import PostgreSQLResource, catalog, opening, resource
from participant.resources.postgresql.session import Query, Session
from tests.postgresql_tools import SCHEMA, PostgreSQLSubject, listed, server_set
from tests.sqlite_tools import add, check, encode, insert, keys, read, update
from troth.operations import sql
from troth.v1.types_pb2 import Code


async def refused(dsn: str, pool: int = 2) -> str:
    opened = PostgreSQLResource(dsn, pool=pool)
    with pytest.raises(ResourceRefused) as caught:
        await opened.open(NAMESPACE)
    return str(caught.value)


@pytest.fixture
def subject(postgresql_databases: Callable[[], Database]) -> PostgreSQLSubject:
    return PostgreSQLSubject(postgresql_databases)


@contextmanager
def role(database: Database, name: str) -> Iterator[str]:
    """A role without privileges, and the DSN by it."""
    full = f"{name}_{database.name}"
    database.execute(f"CREATE ROLE {full} LOGIN")
    try:
        yield database.dsn.replace("postgres@", f"{full}@")
    finally:
        database.execute(f"DROP OWNED BY {full}")
        database.execute(f"DROP ROLE {full}")


@on_a_loop
async def test_who_is_not_let_in(postgresql_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "OPEN_WITHIN_S", 0.0)
    dsn = postgresql_database.dsn
    assert 'database "nowhere" does not exist' in await refused(dsn.replace(postgresql_database.name, "nowhere"))
    assert 'role "nobody" does not exist' in await refused(dsn.replace("postgres@", "nobody@"))
    assert "Connection refused" in await refused("host=127.0.0.1 port=1")
    assert (await refused("host=127.0.0.1 colour=red")).startswith("this is no DSN: invalid")


@on_a_loop
async def test_a_first_question_that_the_server_breaks_off_is_a_refusal(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_FACTS", "SELECT pg_sleep(60)")
    postgresql_database.execute(f"ALTER DATABASE {postgresql_database.name} SET statement_timeout = '100ms'")
    words = "PostgreSQL does not take us in: canceling statement due to statement timeout"
    assert (await refused(postgresql_database.dsn)).startswith(words)


@on_a_loop
async def test_a_wrong_password_is_said_without_it(postgresql_database: Database, postgresql: PostgreSQL) -> None:
    with role(postgresql_database, "locked"):
        config = postgresql.folder / "data" / "pg_hba.conf"
        before = config.read_text()
        config.write_text(f"host all locked_{postgresql_database.name} all scram-sha-256\n{before}")
        try:
            postgresql_database.execute("SELECT pg_reload_conf()")
            name = f"locked_{postgresql_database.name}:secret@"
            message = await refused(postgresql_database.dsn.replace("postgres@", name))
            while "password authentication failed" not in message:  # until the configuration is read again
                message = await refused(postgresql_database.dsn.replace("postgres@", name))
            assert "secret" not in message
        finally:
            config.write_text(before)
            postgresql_database.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fsync": "off"}, "fsync is off, .*: set fsync = on"),
        ({"default_transaction_read_only": "on"}, "takes no writes from role postgres: set default_transaction"),
        ({"max_connections": "6", "max_wal_senders": "0"}, r"max_connections is 6, and \d+ are needed"),
    ],
)
@pytest.mark.needs_postgresql
def test_a_server_set_up_otherwise(settings: dict[str, str], message: str) -> None:
    @on_a_loop
    async def attempt(dsn: str) -> None:
        opened = PostgreSQLResource(dsn, pool=2)
        with pytest.raises(ResourceRefused, match=message):
            await opened.open(NAMESPACE)

    with PostgreSQL(settings) as server:
        attempt(server.dsn)


@pytest.mark.needs_postgresql
@on_a_loop
async def test_prepared_transactions_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are by default: said at the start, by a look and by a try; without both, with each branch."""

    async def unrehearsed(self: PostgreSQLResource) -> None:
        pass

    with PostgreSQL({"max_prepared_transactions": "0"}) as server:
        server.execute(SCHEMA)
        assert "max_prepared_transactions is 0" in (message := await refused(server.dsn))
        assert "set max_prepared_transactions = 100" in message
        monkeypatch.setattr(opening, "_require", lambda holds, why: None)
        assert "cannot prepare a transaction here: prepared transactions are disabled" in await refused(server.dsn)
        monkeypatch.setattr(PostgreSQLResource, "_rehearse", unrehearsed)
        opened = PostgreSQLResource(server.dsn, pool=2)
        await opened.open(NAMESPACE)
        try:
            with pytest.raises(No, match="prepared transactions are disabled"):
                await opened.prepare(FIRST, opened.plan(encode([insert("orders", 1)])))
        finally:
            await opened.close()


@pytest.mark.parametrize(("setting", "ours"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
@on_a_loop
async def test_a_lazy_commit_is_made_a_durable_one(subject: PostgreSQLSubject, setting: str, ours: str) -> None:
    """Also behind a statement that may have changed it."""
    subject.database.execute(f"ALTER DATABASE {subject.database.name} SET synchronous_commit = {setting}")
    subject.database.execute("CREATE TABLE noted(setting text)")
    subject.database.execute(
        "CREATE FUNCTION notes() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO noted VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$"
    )
    async with subject.opened() as opened:
        subject.database.execute(
            "CREATE TRIGGER n AFTER INSERT ON troth_finished FOR EACH ROW EXECUTE FUNCTION notes()"
        )
        lazy = "SELECT set_config('synchronous_commit', 'off', false)"
        for attempt, operations in ((FIRST, [insert("orders", 1)]), (SECOND, [insert("orders", 2), sql(lazy)])):
            await run_branch(opened, attempt, encode(operations))
    assert subject.database.execute("SELECT setting FROM noted") == [(ours,)] * 2


@on_a_loop
async def test_a_server_that_no_longer_forces_what_it_answers_is_not_used_on(subject: PostgreSQLSubject) -> None:
    async with subject.opened() as opened:
        with server_set(subject.database, "fsync", "off"):
            await asyncio.sleep(0.5)  # until our session has heard of it, too
            with pytest.raises(ResourceRefused, match="set fsync = on"):
                await opened.survey()


@on_a_loop
async def test_a_pool_larger_than_the_server(postgresql_database: Database) -> None:
    assert "less than the 101 branches" in await refused(postgresql_database.dsn, 101)


@pytest.mark.parametrize(
    ("fact", "other", "why"),
    [
        ("pg_is_in_recovery()", "true", "PostgreSQL is a standby: connect to its primary"),
        ("current_setting('server_version_num')", "'110022'", "12 or newer is needed"),
        ("current_setting('server_encoding')", "'SQL_ASCII'", "SQL_ASCII, where text has no meaning"),
    ],
)
@on_a_loop
async def test_a_server_that_is_another(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch, fact: str, other: str, why: str
) -> None:
    """As it would answer: these are not at hand."""
    monkeypatch.setattr(opening, "_FACTS", opening._FACTS.replace(fact, other))
    assert why in await refused(postgresql_database.dsn)


@on_a_loop
async def test_a_pooler_in_between(postgresql_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It announces a process of its own, and another one answers."""
    monkeypatch.setattr(Session, "announced_pid", 1)
    assert "a connection pooler stands before PostgreSQL" in await refused(postgresql_database.dsn)


@on_a_loop
async def test_a_role_without_a_schema(postgresql_database: Database) -> None:
    postgresql_database.execute(f"ALTER DATABASE {postgresql_database.name} SET search_path = nowhere")
    assert "has no schema in its search_path" in await refused(postgresql_database.dsn)


@on_a_loop
async def test_privileges(subject: PostgreSQLSubject) -> None:
    """First the finished table; then each table and each statement for itself."""
    database = subject.database
    with role(database, "clerk") as dsn:
        message = await refused(dsn)
        clerk = f"clerk_{database.name}"
        assert f'GRANT CREATE ON SCHEMA "public" TO "{clerk}", or as another role: CREATE TABLE' in message
        for statement in message.partition("as another role: ")[2].split("; "):  # what is said helps
            database.execute(statement)
        database.execute(f"GRANT SELECT ON accounts TO {clerk}")
        opened = PostgreSQLResource(dsn, pool=2)
        await opened.open(NAMESPACE)
        try:
            why = {status.name: status.not_served for status in opened.tables()}
            assert why["accounts"] == ""
            assert why["orders"].startswith(f"role {clerk} may not read it: GRANT")
            with pytest.raises(No, match="the role that the participant connects as may not do this") as caught:
                await opened.prepare(FIRST, opened.plan(encode([add("accounts", "bob", "balance", 1)])))
            assert not caught.value.reason.retryable
            assert caught.value.reason.operation == 0
        finally:
            await opened.close()


@pytest.mark.needs_postgresql
@on_a_loop
async def test_no_place_is_left_for_a_prepared_transaction() -> None:
    with PostgreSQL({"max_prepared_transactions": "2"}) as server:
        server.execute(SCHEMA)
        opened = PostgreSQLResource(server.dsn, pool=2)
        await opened.open(NAMESPACE)
        try:
            for attempt, name in ((FIRST, "alice"), (SECOND, "bob")):
                await opened.prepare(attempt, opened.plan(encode([add("accounts", name, "balance", 1)])))
            with pytest.raises(No, match="maximum number of prepared transactions reached") as caught:
                await opened.prepare(THIRD, opened.plan(encode([insert("orders", 1)])))
            assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_OVERLOADED, True)
            await opened.commit(FIRST)
            await opened.prepare(THIRD, opened.plan(encode([insert("orders", 1)])))
        finally:
            await opened.close()
        server.stop()  # and fewer places than are taken keep it from starting; nothing is lost by that
        server._settings["max_prepared_transactions"] = "1"
        with pytest.raises(ServerError, match=r'maximum number of prepared transactions|increase "?max_prepared'):
            server.start()
        server._settings["max_prepared_transactions"] = "2"
        server.start()
        assert len(listed(Database(server, server.database))) == 2


@on_a_loop
async def test_a_server_that_turns_read_only(subject: PostgreSQLSubject) -> None:
    """What is prepared is ended all the same."""
    async with subject.opened() as opened:
        await opened.prepare(SECOND, opened.plan(subject.increment))
        await opened.prepare(THIRD, opened.plan(subject.other))
        subject.database.execute(f"ALTER DATABASE {subject.database.name} SET default_transaction_read_only = on")
        subject.database.execute(  # which of its sessions begin with
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with pytest.raises(No):
            await opened.prepare(FIRST, opened.plan(subject.change))
        with pytest.raises(No, match="takes no writes") as caught:
            await opened.prepare(FIRST, opened.plan(subject.change))
        assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_NOT_SERVING, True)
        await opened.commit(SECOND)
        await opened.abort(THIRD)
        survey = await opened.survey()
        assert (survey.prepared, survey.committed.keys()) == (frozenset(), {SECOND})


@on_a_loop
async def test_a_full_disk_is_a_no_that_may_be_tried_again(subject: PostgreSQLSubject) -> None:
    """As the server says it (53100); a disk that is full for its log ends the server, which is a lost connection."""
    subject.database.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE disk_full USING MESSAGE = 'could not extend file'; END $$"
    )
    subject.database.execute("CREATE TRIGGER f BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION full_disk()")
    async with subject.opened() as opened:
        with pytest.raises(No, match="the server's disk is full: could not extend file") as caught:
            await opened.prepare(FIRST, opened.plan(subject.change))
        assert caught.value.reason.retryable
        assert listed(subject.database) == []


@on_a_loop
async def test_a_table_that_changes_while_it_is_served(subject: PostgreSQLSubject) -> None:
    async with subject.opened() as opened:
        with pytest.raises(No, match="there is no table stock"):
            opened.plan(encode([insert("stock", 1)]))
        subject.database.execute("CREATE TABLE stock(id int PRIMARY KEY, n int)")
        await opened.survey()
        await opened.prepare(FIRST, opened.plan(encode([insert("stock", 1, n=1)])))
        await opened.commit(FIRST)
        read_plan = opened.plan(encode([update("stock", 1, n=2)]))
        subject.database.execute("ALTER TABLE stock DROP COLUMN n")
        with pytest.raises(No, match="no such column") as caught:
            await opened.prepare(SECOND, read_plan)
        assert caught.value.reason.code == Code.CODE_NO_SUCH_COLUMN
        subject.database.execute("DROP TABLE stock")
        with pytest.raises(No, match=r"no such table|no table stock"):
            await opened.prepare(THIRD, opened.plan(encode([insert("stock", 2)])))


@on_a_loop
async def test_a_catalog_that_cannot_be_read_now_is_read_another_time(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is locked for longer than lock_timeout_s; then when the question is cancelled."""
    async with subject.opened() as opened:
        subject.database.execute("CREATE TABLE stock(id int PRIMARY KEY)")
        with subject.database.connect() as connection, connection.transaction():
            connection.execute("LOCK TABLE pg_constraint IN ACCESS EXCLUSIVE MODE")
            await opened.survey()
        with monkeypatch.context() as patched:
            cancelled = "SELECT pg_cancel_backend(pg_backend_pid())::text, pg_sleep(30)::text"
            patched.setattr(catalog, "_TABLES", cancelled)
            await opened.survey()
        assert "stock" not in {status.name for status in opened.tables()}
        await opened.prepare(FIRST, opened.plan(subject.change))
        await opened.abort(FIRST)
        await opened.survey()
        assert "stock" in {status.name for status in opened.tables()}


@on_a_loop
async def test_a_key_that_is_renamed_while_the_catalog_is_read(
    subject: PostgreSQLSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = catalog._rows

    async def renaming(session: Session, query: Query) -> catalog.Rows:
        if query.sql == catalog._RULES:
            subject.database.execute("ALTER TABLE orders RENAME id TO number")
        return await rows(session, query)

    async with subject.opened() as opened:
        with monkeypatch.context() as patched:
            patched.setattr(catalog, "_rows", renaming)
            await opened.survey()
        why = {status.name: status.not_served for status in opened.tables()}
        assert why["orders"] == "key column number was made or renamed while the catalog was read"
        assert why["accounts"] == ""
        await opened.survey()
        assert {status.not_served for status in opened.tables()} == {""}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bigint", "x1"),
        ("bigint", "99999999999999999999"),
        ("numeric", ""),
        ("float4", "1e300"),
        ("bytea", "x1"),
        ("boolean", "yes"),
    ],
)
@on_a_loop
async def test_a_column_that_becomes_text_while_it_is_served(subject: PostgreSQLSubject, kind: str, value: str) -> None:
    """What is read is not of the type in the catalog. Nothing stays prepared, and the catalog is read again."""
    subject.database.execute(f"CREATE TABLE things(id int PRIMARY KEY, v {kind})")
    subject.database.execute("INSERT INTO things VALUES (1)")
    async with subject.opened() as opened:
        assert isinstance(opened, PostgreSQLResource)
        plans = [opened.plan(encode([*first, read("things", 1)])) for first in ([], [insert("orders", 1)])]
        subject.database.execute(f"ALTER TABLE things ALTER v TYPE text USING '{value}'")
        with pytest.raises(No, match="changed at the server"):
            await opened.read_row("things", keys(1))
        for plan in plans:
            for branch in (opened.prepare(FIRST, plan), opened.run(SECOND, b"", plan)):
                with pytest.raises(No, match=r"a table was changed at the server .*: things") as caught:
                    await branch
                assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_NOT_SERVING, True)
                assert (listed(subject.database), subject.database.execute("TABLE orders")) == ([], [])
        await asyncio.gather(*opened._tasks)
        (things,) = [status for status in opened.tables() if status.name == "things"]
        assert [column.type for column in things.columns] == ["integer", "text"]


@on_a_loop
async def test_a_check_of_a_column_that_becomes_text(subject: PostgreSQLSubject) -> None:
    subject.database.execute("CREATE TABLE things(id int PRIMARY KEY, v int)")
    subject.database.execute("INSERT INTO things VALUES (1, 1)")
    async with subject.opened() as opened:
        assert isinstance(opened, PostgreSQLResource)
        plan = opened.plan(encode([check("things", 1, "v", equals=1)]))
        subject.database.execute("ALTER TABLE things ALTER v TYPE text USING 'x' || v")
        with pytest.raises(No, match="changed at the server") as caught:
            await opened.prepare(FIRST, plan)
        assert (caught.value.reason.retryable, caught.value.reason.column) == (True, "v")
        await asyncio.gather(*opened._tasks)
        with pytest.raises(No, match="column v of things/1 is x1, not 1"):
            await opened.prepare(SECOND, opened.plan(encode([check("things", 1, "v", equals="1")])))


@on_a_loop
async def test_a_failure_in_the_middle_says_which_operation(subject: PostgreSQLSubject) -> None:
    async with subject.opened() as opened:
        operations = [
            add("accounts", "bob", "balance", 1),
            sql("SELECT 1 / (balance - 101) FROM accounts"),
            insert("orders", 1),
        ]
        with pytest.raises(No, match="division by zero") as caught:
            await opened.prepare(FIRST, opened.plan(encode(operations)))
        assert caught.value.reason.operation == 1
