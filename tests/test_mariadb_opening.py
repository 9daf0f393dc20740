"""Servers, users and tables that cannot be guarded, each with the reason and what to change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

import asyncmy
import pytest
from structlog.testing import capture_logs

from faults.conformance.outside import FIRST, NAMESPACE, SECOND, THIRD, on_a_loop, prepare_branch, run_branch
from faults.servers import Database, MariaDB
from participant.resources import No
from participant.resources.mariadb import MariaDBResource, catalog, opening
from participant.resources.mariadb.session import Address, Lost, NoAddress, Result, Session, Unit
from participant.resources.outside import ResourceRefused
from tests.mariadb_tools import MariaDBSubject
from tests.sqlite_tools import add, check, encode, insert, keys, read
from troth.operations import sql
from troth.v1.types_pb2 import Code

pytestmark = pytest.mark.needs_mariadb


@pytest.fixture
def subject(mariadb_databases: Callable[[], Database]) -> MariaDBSubject:
    return MariaDBSubject(mariadb_databases)


@pytest.fixture
def limited(mariadb: MariaDB) -> Iterator[MariaDBSubject]:
    """In a database whose name does not begin with test_: in those everybody may do everything. Its `user` goes too."""
    subject = MariaDBSubject(lambda: mariadb.create("limited"))
    yield subject
    mariadb.execute(f"DROP USER IF EXISTS {user_of(subject)}")
    subject.database.drop()


def user_of(subject: MariaDBSubject) -> str:
    return f"u_{subject.database.name}@'127.0.0.1'"


async def refusal(dsn: str) -> str:
    resource = MariaDBResource(dsn)
    with pytest.raises(ResourceRefused) as caught:
        await resource.open(NAMESPACE)
    return str(caught.value)


def test_whatever_the_driver_raises_when_a_connection_breaks_while_it_is_made_is_a_lost_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As asyncmy under uvloop: RuntimeError, no error of its own. It ended a participant that was to roll back."""

    async def connect(**_: Any) -> None:
        raise RuntimeError("Transport does not expose socket instance")

    monkeypatch.setattr(asyncmy, "connect", connect)
    with pytest.raises(Lost, match="does not expose"):
        asyncio.run(Session.connect(Address.of("mariadb://u@127.0.0.1/d")))


@pytest.mark.parametrize(
    ("dsn", "why"),
    [
        ("postgresql://u@h/d", "expected mariadb://"),
        ("mariadb://u@h", "expected mariadb://"),
        ("mariadb://u@h:x/d", "Port"),
        ("mariadb://u@h/d?sslca=x", "unknown option 'sslca'; known are ssl_ca, unix_socket"),
        ("mariadb://u@h/d?ssl_ca=/nowhere", "ssl_ca /nowhere"),
    ],
)
def test_a_dsn_that_is_none(dsn: str, why: str) -> None:
    with pytest.raises(NoAddress, match=why):
        Address.of(dsn)
    assert asyncio.run(refusal(dsn)).startswith("this is no DSN")


def test_a_password_is_unquoted() -> None:
    assert Address.of("mariadb://u:a%40b@h/d").arguments["password"] == "a@b"


@on_a_loop
async def test_a_database_that_is_not_there(mariadb: MariaDB) -> None:
    assert "Unknown database 'nowhere'" in await refusal(mariadb.dsn.replace("/test", "/nowhere"))


@on_a_loop
async def test_a_password_that_is_wrong(mariadb: MariaDB) -> None:
    assert "Access denied" in await refusal(mariadb.dsn.replace("root@", "root:wrong@"))


def user(subject: MariaDBSubject, *grants: str) -> str:
    """The DSN of a user who may only do this."""
    database, name = subject.database, user_of(subject)
    database.execute(f"CREATE USER IF NOT EXISTS {name}")
    for grant in grants:
        database.execute(f"GRANT {grant.format(database.name)} TO {name}")
    return database.dsn.replace("root@", f"u_{database.name}@")


@on_a_loop
async def test_a_user_who_may_not_enough(limited: MariaDBSubject) -> None:
    subject, name = limited, limited.database.name
    dsn = user(subject, "SELECT ON {}.*")
    assert f"GRANT PROCESS ON *.* TO 'u_{name}'@'127.0.0.1'" in await refusal(dsn)
    user(subject, "PROCESS ON *.*")
    assert f"GRANT CREATE, SELECT, INSERT, DELETE ON `{name}`.troth_finished TO" in await refusal(dsn)
    user(subject, "CREATE ON {}.*")
    assert f"GRANT SELECT, INSERT, DELETE ON `{name}`.troth_finished TO" in await refusal(dsn)
    user(subject, "INSERT, DELETE ON {}.troth_finished")
    resource = MariaDBResource(dsn)
    await resource.open(NAMESPACE)
    try:
        with pytest.raises(No) as caught:
            await resource.prepare(FIRST, resource.plan(encode([insert("orders", 1)])))
        assert (caught.value.reason.code, caught.value.reason.operation) == (Code.CODE_BAD_OPERATION, 0)
        assert "the user that the participant connects as may not do this" in caught.value.reason.message
        assert (await resource.survey()).prepared == frozenset()
    finally:
        await resource.close()


@on_a_loop
async def test_a_server_that_is_down(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("participant.resources.mariadb.resource.OPEN_WITHIN_S", 0.2)
    assert "MariaDB does not take us in: Can't connect" in await refusal("mariadb://root@127.0.0.1:1/test")


@pytest.mark.parametrize(
    ("setting", "bad", "good", "why"),
    [
        ("read_only", "1", "0", "MariaDB is read_only"),
        ("innodb_flush_log_at_trx_commit", "2", "1", "set innodb_flush_log_at_trx_commit = 1"),
        ("max_connections", "50", "400", "max_connections is 50, and up to 85 are used"),
    ],
)
@on_a_loop
async def test_a_setting_that_does_not_do(subject: MariaDBSubject, setting: str, bad: str, good: str, why: str) -> None:
    subject.database.execute(f"SET GLOBAL {setting} = {bad}")
    try:
        assert why in await refusal(subject.database.dsn)
    finally:
        subject.database.execute(f"SET GLOBAL {setting} = {good}")


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"version": "8.0.36"}, "the server is 8.0.36, not MariaDB: MySQL's XA is another, and untested"),
        ({"version": "10.4.34-MariaDB"}, "10.5 or newer is needed"),
        ({"wsrep_on": "ON"}, "Galera cluster"),
        ({"log_bin": "ON", "sync_binlog": "0"}, "set sync_binlog = 1"),
        ({"log_bin": "ON", "sync_binlog": "1", "binlog_format": "STATEMENT"}, "set it to ROW"),
    ],
)
@on_a_loop
async def test_a_server_that_is_another(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], why: str
) -> None:
    """As it would answer: these are not at hand."""
    ask = Session.ask

    async def told(self: Session, *statements: str, **given: Any) -> Unit:
        unit = await ask(self, *statements, **given)
        if statements == opening._FACTS:
            found = {**dict(unit.results[0].rows), **facts}  # type: ignore[arg-type]
            unit.results[0] = Result(len(found), list(found.items()), unit.results[0].columns)
        return unit

    monkeypatch.setattr(Session, "ask", told)
    assert why in await refusal(subject.database.dsn)


@on_a_loop
async def test_a_server_that_becomes_read_only(limited: MariaDBSubject) -> None:
    """It takes nothing new, and a NO for it may be tried again; the ends of what is prepared wait."""
    subject = limited
    dsn = user(subject, "ALL ON {}.*", "PROCESS ON *.*")
    resource = MariaDBResource(dsn)
    await resource.open(NAMESPACE)
    try:
        await resource.prepare(FIRST, resource.plan(subject.increment))
        await resource.prepare(SECOND, resource.plan(encode([insert("orders", 1)])))
        subject.database.execute("SET GLOBAL read_only = 1")
        for tried in (prepare_branch, run_branch):
            with pytest.raises(No) as caught:
                await tried(resource, THIRD, subject.other)
            assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_NOT_SERVING, True)
        ends = asyncio.gather(resource.commit(FIRST), resource.abort(SECOND))
        assert (await resource.survey()).prepared == {FIRST, SECOND}
        assert not ends.done()
        subject.database.execute("SET GLOBAL read_only = 0")
        await ends
        survey = await resource.survey()
        assert (survey.prepared, survey.committed.keys()) == (frozenset(), {FIRST})
    finally:
        subject.database.execute("SET GLOBAL read_only = 0")
        await resource.close()


@on_a_loop
async def test_with_a_binary_log_it_works_on_this_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is prepared, committed and run outlives a kill with a binary log too; what a replica then has is another
    matter, and warned of. Settings with which it would not hold are refused."""
    settings = {"log_bin": "log", "sync_binlog": "1", "server_id": "1", "binlog_format": "ROW"}
    with MariaDB(settings) as server:
        subject = MariaDBSubject(lambda: server.create("logged"))
        with capture_logs() as logged:
            async with subject.opened() as resource:
                await resource.prepare(FIRST, resource.plan(subject.change))
                await resource.prepare(SECOND, resource.plan(subject.other))
                await resource.commit(SECOND)
                await run_branch(resource, THIRD, subject.other)
                server.kill()
        assert [each["event"] for each in logged if "MDEV-21469" in each["event"]]
        server.start()
        async with subject.opened() as resource:
            survey = await resource.survey()
            assert (survey.prepared, survey.committed.keys()) == ({FIRST}, {SECOND, THIRD})
            await resource.commit(FIRST)
            assert subject.database.execute("SELECT balance FROM accounts ORDER BY id") == [(90,), (102,)]
        server.execute("SET GLOBAL sync_binlog = 0")
        assert "set sync_binlog = 1" in await refusal(subject.database.dsn)
        server.execute("SET GLOBAL sync_binlog = 1")
        server.execute("SET GLOBAL binlog_format = 'STATEMENT'")
        assert "set it to ROW" in await refusal(subject.database.dsn)
        monkeypatch.setattr(opening, "_binlog", lambda facts: None)  # and is found by a try all the same
        assert "cannot prepare a branch here: Cannot execute statement" in await refusal(subject.database.dsn)


REFUSED = {
    "heap(id int)": "no primary key",
    "half(id text, PRIMARY KEY (id(3)))": "only a prefix of column id is in its primary key",
    "amounts(id decimal(10, 2) PRIMARY KEY)": "key column id is decimal(10,2), whose equal values can look different",
    "loose(id int PRIMARY KEY) ENGINE=Aria": "its engine is Aria, and only InnoDB prepares: ALTER TABLE",
}


@on_a_loop
async def test_tables_that_are_not_served(subject: MariaDBSubject) -> None:
    for table in REFUSED:
        subject.database.execute(f"CREATE TABLE {table}")
    subject.database.execute("CREATE VIEW seen AS SELECT * FROM accounts")
    async with subject.opened() as resource:
        found = {table.name: table.not_served for table in resource.tables()}
        for table, why in {**REFUSED, "seen(": "it is a view"}.items():
            assert why in found[table.split("(")[0]]
        assert (found["accounts"], found["orders"]) == ("", "")
        assert "troth_finished" not in found
        with pytest.raises(No, match="table heap cannot be served: it has no primary key"):
            resource.plan(encode([read("heap", 1)]))


@on_a_loop
async def test_a_table_that_is_made_later_is_served_after_a_survey(subject: MariaDBSubject) -> None:
    async with subject.opened() as resource:
        subject.database.execute("CREATE TABLE later(id int PRIMARY KEY)")
        with pytest.raises(No):
            resource.plan(encode([read("later", 1)]))
        await resource.survey()
        await resource.run(FIRST, encode([insert("later", 1)]), resource.plan(encode([insert("later", 1)])))
        subject.database.execute("DROP TABLE later")
        with pytest.raises(No) as caught:
            await resource.prepare(FIRST, resource.plan(encode([read("later", 1)])))
        assert caught.value.reason.code == Code.CODE_NO_SUCH_TABLE


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bigint", "x1"),
        ("bigint", "-99999999999999999999"),
        ("double", "x1"),
        ("decimal(5, 2)", "x1"),
    ],
)
@on_a_loop
async def test_a_column_that_becomes_text_while_it_is_served(subject: MariaDBSubject, kind: str, value: str) -> None:
    """What is read is not of the type in the catalog. Nothing stays prepared, and the catalog is read again."""
    subject.database.execute(f"CREATE TABLE things(id int PRIMARY KEY, v {kind})")
    subject.database.execute("INSERT INTO things VALUES (1, 1)")

    async def refused(branch: Awaitable[object]) -> None:
        with pytest.raises(No, match=r"a table was changed at the server .*: things") as caught:
            await branch
        assert (caught.value.reason.code, caught.value.reason.retryable) == (Code.CODE_NOT_SERVING, True)
        assert subject.database.execute("XA RECOVER") == []
        assert subject.database.execute("SELECT * FROM orders") == []
        (things,) = [status for status in resource.tables() if status.name == "things"]
        assert [column.type for column in things.columns] == ["integer", "text"]

    async with subject.opened() as resource:
        assert isinstance(resource, MariaDBResource)
        served = resource._database
        steps = (read("things", 1), check("things", 1, "v", equals=1))
        branches = [[step] for step in steps] + [[insert("orders", 1), step] for step in steps]
        plans = [resource.plan(encode(branch)) for branch in branches]
        subject.database.execute("ALTER TABLE things MODIFY v varchar(30)")
        subject.database.execute(f"UPDATE things SET v = '{value}'")
        await refused(resource.read_row("things", keys(1)))
        for plan in plans:
            for branch in (resource.prepare(FIRST, plan), resource.run(SECOND, b"", plan)):
                resource._database = served
                await refused(branch)


@on_a_loop
async def test_a_number_that_becomes_bytes_while_it_is_served(subject: MariaDBSubject) -> None:
    subject.database.execute("CREATE TABLE things(id int PRIMARY KEY, v int)")
    subject.database.execute("INSERT INTO things VALUES (1, 1)")
    async with subject.opened() as resource:
        plan = resource.plan(encode([read("things", 1)]))
        subject.database.execute("ALTER TABLE things MODIFY v blob")
        with pytest.raises(No, match="changed at the server"):
            await resource.prepare(FIRST, plan)


@on_a_loop
async def test_an_add_to_a_column_that_becomes_a_decimal(subject: MariaDBSubject) -> None:
    """Why it is denied is found by another look."""
    subject.database.execute("CREATE TABLE things(id int PRIMARY KEY, v int)")
    subject.database.execute("INSERT INTO things VALUES (1, 1)")
    async with subject.opened() as resource:
        change = encode([add("things", 1, "v", 1, high=2)])
        plan = resource.plan(change)
        subject.database.execute("ALTER TABLE things MODIFY v decimal(5, 2)")
        subject.database.execute("UPDATE things SET v = 1.5")
        with pytest.raises(No, match="changed at the server") as caught:
            await resource.prepare(FIRST, plan)
        assert (caught.value.reason.retryable, caught.value.reason.column) == (True, "v")
        with pytest.raises(No, match=r"column v of things/1 would be 2\.50, above 2"):
            await resource.prepare(SECOND, resource.plan(change))


@on_a_loop
async def test_a_key_that_is_renamed_while_the_catalog_is_read(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Session.ask

    async def renaming(self: Session, *statements: str, **given: Any) -> Unit:
        if catalog._COLUMNS not in statements:
            return await ask(self, *statements, **given)
        units = []
        for statement in statements:
            if statement == catalog._INDEXES:
                subject.database.execute("ALTER TABLE orders RENAME COLUMN id TO number")
            units.append(await ask(self, statement, **given))
        return Unit([result for unit in units for result in unit.results], None)

    async with subject.opened() as resource:
        with monkeypatch.context() as patched:
            patched.setattr(Session, "ask", renaming)
            await resource.survey()
        why = {status.name: status.not_served for status in resource.tables()}
        assert why["orders"] == "key column number was made or renamed while the catalog was read"
        assert why["accounts"] == ""
        await resource.survey()
        assert {status.not_served for status in resource.tables()} == {""}


@on_a_loop
async def test_more_than_a_packet_goes_out_in_several(subject: MariaDBSubject) -> None:
    subject.database.execute("CREATE TABLE files(id int PRIMARY KEY, body longblob)")
    size = 6 << 20
    async with subject.opened() as resource:
        operations = encode([insert("files", id, body=b"x" * size) for id in range(3)])
        await resource.prepare(FIRST, resource.plan(operations))
        await resource.commit(FIRST)
        assert subject.database.execute("SELECT SUM(LENGTH(body)) FROM files") == [(3 * size,)]
        with pytest.raises(No) as caught:
            resource.plan(encode([insert("files", 9, body=b"x" * (9 << 20))]))
        assert caught.value.reason.code == Code.CODE_TOO_LARGE


@on_a_loop
async def test_what_is_set_at_the_server_does_not_change_what_a_branch_means(subject: MariaDBSubject) -> None:
    """A sql_mode that truncates, and in which a backslash is one."""
    with closing(subject.database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'")
        try:
            async with subject.opened() as resource:
                text = "a\\'b\\\\"
                await resource.run(
                    FIRST, encode([insert("accounts", text)]), resource.plan(encode([insert("accounts", text)]))
                )
                assert (await resource.read_row("accounts", insert("accounts", text).key)).present
                cut = sql("INSERT INTO accounts(id) VALUES (%s)", ["x" * 30])
                with pytest.raises(No) as caught:
                    await resource.prepare(FIRST, resource.plan(encode([cut])))
                assert caught.value.reason.code == Code.CODE_WRONG_TYPE
        finally:
            cursor.execute("SET GLOBAL sql_mode = DEFAULT")
