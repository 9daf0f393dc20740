"""Operations on MariaDB's own types: what is read is what was written, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from faults.conformance.outside import LOG, NAMESPACE, on_a_loop, prepare_branch, run_branch
from faults.servers import Database
from participant.resources import No
from participant.resources.mariadb import MariaDBResource, session
from tests.mariadb_tools import MariaDBSubject
from tests.sqlite_tools import add, check, delete, encode, insert, raw_of, read, update, upsert
from troth.operations import sql
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code, Operation
from troth.words import AttemptId, number_of

pytestmark = pytest.mark.needs_mariadb

TYPES = """CREATE TABLE kinds(id int PRIMARY KEY, tiny tinyint, flag boolean, small smallint unsigned,
big bigint unsigned, single float, real_ double, amount decimal(10, 2), fixed char(5), name varchar(5), body text,
octets varbinary(4),
uuid16 binary(4), tag enum('a', 'it''s'), day date, at datetime(3), moment timestamp(6) NULL, doc json, span time,
uid uuid, latin varchar(5) CHARACTER SET latin1) CHARACTER SET utf8mb4"""


class Branches:
    """One resource, and branches that are run on it."""

    def __init__(self, resource: MariaDBResource) -> None:
        self.resource = resource
        self._count = 0

    async def run(self, *operations: Operation) -> list[types_pb2.Row]:
        """Prepared and committed; the rows."""
        self._count += 1
        attempt = AttemptId(LOG, number_of(1, self._count))
        plan = self.resource.plan(encode(list(operations)))
        prepared = await self.resource.prepare(attempt, plan)
        if not plan.read_only:
            await self.resource.commit(attempt)
        return list(types_pb2.Rows.FromString(prepared.rows).rows)

    async def code(self, *operations: Operation) -> str:
        """Of the NO."""
        with pytest.raises(No) as caught:
            await self.run(*operations)
        assert (await self.resource.survey()).prepared == frozenset()
        return Code.Name(caught.value.reason.code).removeprefix("CODE_")

    async def read(self, table: str, key: Any) -> dict[str, Any]:
        (row,) = await self.run(read(table, key))
        return {column.name: raw_of(column.value) for column in row.values}


@asynccontextmanager
async def branches(subject: MariaDBSubject) -> AsyncIterator[Branches]:
    resource = MariaDBResource(subject.database.dsn, "p1", lock_timeout_s=1)
    await resource.open(NAMESPACE)
    try:
        yield Branches(resource)
    finally:
        await resource.close()


@pytest.fixture
def subject(mariadb_databases: Callable[[], Database]) -> MariaDBSubject:
    return MariaDBSubject(mariadb_databases)


WRITTEN = {
    "tiny": [-128, 127],
    "flag": [0, 1],
    "small": [0, 65535],
    "big": [0, 2**63 - 1],
    "single": [0.5, 16777216.0, -1.0],
    "real_": [0.1, 1e300, -2.5],
    "amount": ["0.00", "-12345678.90"],
    "fixed": ["abc", ""],
    "name": ["a\\b'c", "🙂"],
    "latin": ["é", "a "],
    "body": ["x" * 70, "a;b%s? -- \n"],
    "octets": [b"", b"\0\xff'\\"],
    "uuid16": [b"\0\0\0\0", b"abc "],
    "tag": ["a", "it's"],
    "day": ["2026-11-26"],
    "at": ["2026-11-26 18:17:10.500"],
    "doc": ['{"a": 1}'],
    "uid": ["123e4567-e89b-12d3-a456-426614174000"],
}


@on_a_loop
async def test_what_is_written_is_what_is_read(subject: MariaDBSubject) -> None:
    subject.database.execute(TYPES)
    async with branches(subject) as at:
        await at.run(insert("kinds", 1))
        for column, values in WRITTEN.items():
            for written in (*values, None):
                await at.run(update("kinds", 1, **{column: written}))
                assert (await at.read("kinds", 1))[column] == written, column
                if column != "at":
                    await at.run(check("kinds", 1, column, equals=written))
        await at.run(update("kinds", 1, moment="2026-11-26T18:17:10.5+02:00"))
        assert (await at.read("kinds", 1))["moment"] == "2026-11-26 16:17:10.500000+00:00"
        subject.database.execute("UPDATE kinds SET span = '10:00:01', big = 18446744073709551615, single = 0.1")
        found = await at.read("kinds", 1)
        assert (found["span"], found["big"], found["single"]) == (
            "10:00:01",
            "18446744073709551615",
            0.10000000149011612,
        )


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        ("tiny", 128),
        ("small", -1),
        ("big", -1),
        ("single", 0.1),
        ("amount", "1.005"),
        ("amount", "123456789.00"),
        ("fixed", "abcdef"),
        ("fixed", "abc "),
        ("name", "abcdef"),
        ("octets", b"12345"),
        ("uuid16", b"123"),
        ("tag", "b"),
        ("day", "2026-02-30"),
        ("at", "2026-11-26 18:17:10.5001"),
        ("moment", "2026-11-26 18:17:10"),
        ("span", "10:00:01"),
        ("uid", "x"),
        ("latin", "🙂"),
    ],
)
@on_a_loop
async def test_what_does_not_fit_is_refused(subject: MariaDBSubject, column: str, wrong: Any) -> None:
    subject.database.execute(TYPES)
    async with branches(subject) as at:
        assert await at.code(insert("kinds", 1, **{column: wrong})) == "WRONG_TYPE"


@on_a_loop
async def test_each_operation_and_its_no(subject: MariaDBSubject) -> None:
    async with branches(subject) as at:
        await at.run(insert("orders", 1, account="alice", code="x"), update("orders", 1, code="y"))
        await at.run(upsert("orders", 2, code="z"), upsert("orders", 2, code="w"), upsert("orders", 2, code="w"))
        await at.run(upsert("orders", 3), upsert("orders", 3), delete("orders", 3))
        assert await at.read("orders", 2) == {"id": 2, "account": None, "code": "w"}
        nos = {
            "ROW_EXISTS": [insert("orders", 1)],
            "ROW_MISSING": [update("orders", 9, code="q")],
            "UNIQUE": [insert("orders", 9, code="y")],
            "FOREIGN_KEY": [insert("orders", 9, account="nobody")],
            "CONSTRAINT": [update("accounts", "bob", balance=-1)],
            "CHECK_FAILED": [check("accounts", "bob", "balance", at_least=101)],
            "BELOW_MIN": [add("accounts", "bob", "balance", -50), add("accounts", "bob", "balance", -60, low=0)],
            "ABOVE_MAX": [add("accounts", "bob", "balance", 1, high=100)],
            "ADD_ON_NULL": [insert("accounts", "eve"), add("accounts", "eve", "balance", 1)],
            "NO_SUCH_COLUMN": [update("orders", 1, nothing=1)],
        }
        for code, operations in nos.items():
            assert await at.code(*operations) == code
        assert await at.code(delete("accounts", "alice")) == "FOREIGN_KEY"
        assert await at.code(add("accounts", "nobody", "balance", 1)) == "ROW_MISSING"
        await at.run(check("accounts", "nobody", exists=False), check("accounts", "bob", exists=True))
        assert await at.code(check("accounts", "nobody", exists=True)) == "CHECK_FAILED"
        assert subject.database.execute("SELECT * FROM accounts ORDER BY id") == [("alice", 100), ("bob", 100)]


@on_a_loop
async def test_a_denied_add_tells_what_it_found_in_its_own_branch(subject: MariaDBSubject) -> None:
    async with branches(subject) as at:
        operations = [add("accounts", "bob", "balance", -50), add("accounts", "bob", "balance", -60, low=0)]
        for tried in (prepare_branch, run_branch):
            with pytest.raises(No) as caught:
                await tried(at.resource, AttemptId(LOG, 9), encode(operations))
            reason = caught.value.reason
            assert (reason.operation, reason.found.integer, reason.required.integer) == (1, 50, 0)
            assert reason.message == "column balance of accounts/bob would be -10, below 0"


@on_a_loop
async def test_sums_at_the_ends_of_their_types(subject: MariaDBSubject) -> None:
    subject.database.execute(TYPES)
    subject.database.execute("INSERT INTO kinds(id, tiny, big, real_, amount) VALUES (1, 127, 5, 1e308, 99999999.99)")
    async with branches(subject) as at:
        assert await at.code(add("kinds", 1, "tiny", 1)) == "ABOVE_MAX"
        assert await at.code(add("kinds", 1, "big", -6)) == "BELOW_MIN"
        assert await at.code(add("kinds", 1, "amount", "0.01")) == "ABOVE_MAX"
        await at.run(add("kinds", 1, "tiny", -255), add("kinds", 1, "big", -5), add("kinds", 1, "amount", "-0.99"))
        found = await at.read("kinds", 1)
        assert (found["tiny"], found["big"], found["amount"]) == (-128, 0, "99999999.00")
        assert await at.code(add("kinds", 1, "real_", 1e308)) in ("ABOVE_MAX", "WRONG_TYPE")


@on_a_loop
async def test_statements_take_parameters_and_bring_rows(subject: MariaDBSubject) -> None:
    async with branches(subject) as at:
        statement = (
            "SELECT id, balance / 2 AS half, %s AS a, %s AS b, %s AS c, '100%%' AS d FROM accounts WHERE id = %s"
        )
        (row,) = await at.run(sql(statement, [1, "it's \\ ?", None, "bob"], rows=1, read_only=True))
        shown = {column.name: raw_of(column.value) for column in row.values}
        assert shown == {"id": "bob", "half": "50.0000", "a": 1, "b": "it's \\ ?", "c": None, "d": "100%"}
        assert (row.participant, row.table, list(row.key), row.present) == ("p1", "", [], True)
        await at.run(sql("UPDATE accounts SET balance = balance + %s", [1], rows=2), read("accounts", "bob"))
        for wrong in ("SELECT %s", "SELECT %d", "SELECT ?", "SELEC 1", "SELECT 1; SELECT 2"):
            assert await at.code(sql(wrong)) == "BAD_OPERATION"
        assert await at.code(sql("SELECT * FROM nowhere")) == "NO_SUCH_TABLE"
        assert await at.code(sql("DELETE FROM orders", read_only=True)) == "BAD_OPERATION"


@on_a_loop
async def test_a_server_that_does_not_answer_is_given_up(
    subject: MariaDBSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with branches(subject) as at:
        made = await at.resource._pool.take(1)
        with pytest.raises(session.Lost, match="no answer within"):
            await made.ask("DO SLEEP(5)", within_s=0.2)
        at.resource._pool.give_back(made)
        await at.run(read("accounts", "bob"))
