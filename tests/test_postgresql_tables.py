"""Which tables of a database are served, how each type goes there and back, and what the rows say no to."""

from __future__ import annotations

from typing import Any

import pytest

from faults.conformance.outside import FIRST, LOG, NAMESPACE, SECOND, on_a_loop, prepare_branch, run_branch
from faults.servers import Database
from participant.resources import No
from participant.resources.postgresql import PostgreSQLResource
from tests.postgresql_tools import SCHEMA
from tests.sqlite_tools import add, check, delete, encode, insert, keys, raw_of, read, update, upsert
from troth.operations import sql
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code
from troth.words import AttemptId

TABLES = """
CREATE TABLE plain(id bigint PRIMARY KEY, note text);
CREATE TABLE keyless(id int);
CREATE TABLE parted(id int, day date, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
CREATE TABLE parted_2026 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE parent(id int PRIMARY KEY);
CREATE TABLE child(more int) INHERITS (parent);
CREATE UNLOGGED TABLE volatile(id int PRIMARY KEY);
CREATE VIEW seen AS SELECT * FROM plain;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM plain;
CREATE TABLE ruled(id int PRIMARY KEY);
CREATE RULE r AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE folded(id text COLLATE loose PRIMARY KEY);
CREATE TABLE money(id numeric PRIMARY KEY);
CREATE TABLE late(id int PRIMARY KEY DEFERRABLE);
CREATE SCHEMA shop;
CREATE TABLE shop.plain(id int PRIMARY KEY);
CREATE TABLE "Odd "" name"("the key" int PRIMARY KEY, "a.b" text);
CREATE TABLE numbered(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, twice int GENERATED ALWAYS AS (1 + 1) STORED);
"""
REFUSED = {
    "keyless": "it has no primary key",
    "parted_2026": "it is a partition: name the partitioned table",
    "parent": "other tables inherit from it, and its key is not unique over them",
    "child": "it has no primary key",
    "volatile": "it is unlogged, and empty after a crash: ALTER TABLE ... SET LOGGED",
    "seen": "it is a view",
    "kept": "it is a materialized view",
    "ruled": "it has rules (CREATE RULE), which change what a statement does",
    "folded": "key column id has a nondeterministic collation",
    "money": "key column id is numeric, whose equal values can look different",
    "late": "its primary key is deferrable: declare it NOT DEFERRABLE",
}


class Opened:
    """A resource over a database, and branches through their whole life."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.resource = PostgreSQLResource(database.dsn, "p1", pool=2, lock_timeout_s=1.0)
        self._number = 0

    async def __aenter__(self) -> Opened:
        await self.resource.open(NAMESPACE)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.resource.close()

    async def does(self, *operations: types_pb2.Operation) -> list[types_pb2.Row]:
        self._number += 1
        attempt = AttemptId(LOG, self._number)
        plan = self.resource.plan(encode(operations))
        prepared = await self.resource.prepare(attempt, plan)
        if not plan.read_only:
            await self.resource.commit(attempt)
        return list(types_pb2.Rows.FromString(prepared.rows).rows)

    async def denies(self, *operations: types_pb2.Operation) -> types_pb2.Reason:
        with pytest.raises(No) as caught:
            await self.does(*operations)
        return caught.value.reason

    async def row(self, table: str, key: Any) -> dict[str, Any]:
        row = await self.resource.read_row(table, keys(key))
        assert row.present
        return {each.name: raw_of(each.value) for each in row.values}


def script(database: Database, text: str) -> None:
    for statement in text.split(";\n"):
        if statement.strip():
            database.execute(statement)


@on_a_loop
async def test_which_tables_are_served(postgresql_database: Database) -> None:
    script(postgresql_database, TABLES)
    async with Opened(postgresql_database) as opened:
        statuses = {status.name: status for status in opened.resource.tables()}
        assert {name: status.not_served for name, status in statuses.items() if status.not_served} == REFUSED
        served = {name for name, status in statuses.items() if not status.not_served}
        assert served == {"plain", "parted", "shop.plain", 'Odd " name', "numbered"}
        assert list(statuses["parted"].key) == ["day", "id"]
        reason = await opened.denies(insert("seen", 1))
        assert (reason.code, reason.message) == (
            Code.CODE_TABLE_NOT_SERVED,
            "table seen cannot be served: it is a view",
        )
        await opened.does(insert("parted", ("2026-11-26", 1)), insert("shop.plain", 5), insert('Odd " name', 1))
        await opened.does(update('Odd " name', 1, **{"a.b": "x"}), insert("numbered", 7), insert("public.plain", 1))
        assert (await opened.denies(insert("parted", ("2026-11-26", 1)))).code == Code.CODE_ROW_EXISTS
        assert (await opened.denies(update("numbered", 7, twice=3))).message == "column twice is generated"
        assert await opened.row('Odd " name', 1) == {"the key": 1, "a.b": "x"}
        assert await opened.row("numbered", 7) == {"id": 7, "twice": 2}


TYPES = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE DOMAIN cents AS numeric(8, 2) CHECK (value >= 0);
CREATE TABLE types(id uuid PRIMARY KEY, small smallint, big bigint, price cents, free numeric, double float8,
  single real, label varchar(5), padded char(4), raw bytea, yes boolean, day date, local timestamp(3),
  moment timestamptz, feeling mood, document jsonb, list int[], span interval);
"""
KEY = "01234567-89ab-cdef-0123-456789abcdef"
LOSSLESS: list[tuple[str, Any, Any]] = [
    ("small", "-32768", -32768),
    ("big", 2**63 - 1, 2**63 - 1),
    ("price", 12.5, "12.50"),
    ("price", "0.10", "0.10"),
    ("price", 3, "3.00"),
    ("free", "12345678901234567890.123456789", "12345678901234567890.123456789"),
    ("free", 0.1, "0.1"),
    ("double", 0.1, 0.1),
    ("double", 1e-320, 1e-320),
    ("single", 0.5, 0.5),
    ("single", 16777216, 16777216.0),
    ("label", "äöü%'", "äöü%'"),
    ("padded", "ab", "ab"),
    ("raw", bytes(range(256)), bytes(range(256))),
    ("yes", 1, True),
    ("day", "2024-02-29", "2024-02-29"),
    ("local", "2026-11-26T18:17:10.125", "2026-11-26 18:17:10.125"),
    ("moment", "2026-11-26 18:17:10+02:00", "2026-11-26 16:17:10+00"),
    ("feeling", "glad", "glad"),
]
LOSSY = [
    ("small", 32768),
    ("big", 0.5),
    ("price", "0.125"),
    ("price", -1000000),
    ("free", 0.1 + 0.2),
    ("free", "NaN"),
    ("double", "0.12345678901234567890123"),
    ("single", 0.1),
    ("single", 1e300),
    ("label", "sixsix"),
    ("padded", "a "),
    ("raw", "text"),
    ("yes", 2),
    ("day", "2023-02-29"),
    ("local", "2026-11-26 18:17:10.1255"),
    ("local", "2026-11-26 18:17:10+00"),
    ("moment", "2026-11-26 18:17:10"),
    ("feeling", "angry"),
    ("document", "{}"),
    ("list", "{1}"),
    ("span", "1 day"),
]


@on_a_loop
async def test_values_go_there_and_back_without_loss(postgresql_database: Database) -> None:
    script(postgresql_database, TYPES)
    async with Opened(postgresql_database) as opened:
        await opened.does(insert("types", KEY.upper()))
        for column, value, shown in LOSSLESS:
            await opened.does(update("types", KEY.replace("-", ""), **{column: value}))
            assert (await opened.row("types", KEY))[column] == shown
            await opened.does(check("types", KEY, column, equals=value))
            await opened.does(check("types", KEY, column, equals=shown))
        for column, value in LOSSY:
            reason = await opened.denies(update("types", KEY, **{column: value}))
            assert (reason.code, reason.column) == (Code.CODE_WRONG_TYPE, column)
        assert (await opened.denies(insert("types", "not-a-uuid"))).code == Code.CODE_WRONG_TYPE


@on_a_loop
async def test_what_only_a_statement_sets_is_read_as_text(postgresql_database: Database) -> None:
    script(postgresql_database, TYPES)
    async with Opened(postgresql_database) as opened:
        statement = (
            "INSERT INTO types(id, document, list, span, free, double) VALUES (%s, %s, %s, %s, 'NaN', 'Infinity')"
        )
        await opened.does(sql(statement, [KEY, '{"a": 100}', "{1,2}", "1 day"], rows=1))
        row = await opened.row("types", KEY)
        shown = [row[name] for name in ("document", "list", "span", "free", "double")]
        assert shown == ['{"a": 100}', "{1,2}", "1 day", "NaN", "inf"]
        reason = await opened.denies(update("types", KEY, document="{}"))
        assert reason.message.endswith("'{}' cannot become type jsonb by an operation on a row: use sql")


@on_a_loop
async def test_sums_keep_their_bounds_and_their_digits(postgresql_database: Database) -> None:
    script(postgresql_database, TYPES)
    async with Opened(postgresql_database) as opened:
        await opened.does(insert("types", KEY, small=-30000, big=2**63 - 1, price="0.30", free="1", double=0.5))
        await opened.does(add("types", KEY, "small", 40000), add("types", KEY, "price", "-0.10", low=0))
        await opened.does(add("types", KEY, "free", "1e-30"), add("types", KEY, "double", 0.25, high=1))
        row = await opened.row("types", KEY)
        assert [row[name] for name in ("small", "price", "free", "double")] == [
            10000,
            "0.20",
            "1.000000000000000000000000000001",
            0.75,
        ]
        cases: list[tuple[types_pb2.Operation, Code, str]] = [
            (add("types", KEY, "small", 30000), Code.CODE_ABOVE_MAX, "would be 40000, above 32767"),
            (add("types", KEY, "big", 1), Code.CODE_ABOVE_MAX, "would be 9223372036854775808, above 92233720"),
            (add("types", KEY, "price", "-0.21", low="0"), Code.CODE_BELOW_MIN, "would be -0.01, below 0.00"),
            (add("types", KEY, "price", "-0.21"), Code.CODE_CONSTRAINT, "a value|cents"),
            (add("types", KEY, "double", 1, high=1), Code.CODE_ABOVE_MAX, "would be 1.75, above 1.0"),
            (add("types", KEY, "single", 1), Code.CODE_ADD_ON_NULL, "is NULL"),
            (add("types", KEY, "label", 1), Code.CODE_WRONG_TYPE, "not to be added to"),
            (add("types", "0" * 32, "small", 1), Code.CODE_ROW_MISSING, "there is no types/00000000-0000"),
        ]
        for operation, code, message in cases:
            reason = await opened.denies(operation)
            assert (Code.Name(reason.code), reason.operation) == (Code.Name(code), 0), reason.message
            assert any(part in reason.message for part in message.split("|"))


@on_a_loop
async def test_reasons_are_those_of_sqlite(postgresql_database: Database) -> None:
    postgresql_database.execute(SCHEMA)
    async with Opened(postgresql_database) as opened:
        await opened.does(insert("orders", 1, account="alice", code="x"))
        cases: list[tuple[list[types_pb2.Operation], Code, str]] = [
            ([insert("orders", 1)], Code.CODE_ROW_EXISTS, "orders/1 is there already"),
            ([update("orders", 2, code="y")], Code.CODE_ROW_MISSING, "there is no orders/2"),
            ([delete("orders", 2)], Code.CODE_ROW_MISSING, "there is no orders/2"),
            ([insert("orders", 2, code="x")], Code.CODE_UNIQUE, "another row of orders holds the value of code"),
            ([upsert("orders", 2, code="x")], Code.CODE_UNIQUE, "another row of orders holds the value of code"),
            ([delete("accounts", "alice")], Code.CODE_FOREIGN_KEY, "other rows refer to accounts/alice"),
            (
                [insert("orders", 2, account="eve")],
                Code.CODE_FOREIGN_KEY,
                "there is no accounts/eve, which orders/2 refers to",
            ),
            (
                [update("accounts", "alice", balance=-1)],
                Code.CODE_CONSTRAINT,
                "a CHECK of accounts does not hold for accounts/alice",
            ),
            (
                [check("accounts", "alice", "balance", at_least=101)],
                Code.CODE_CHECK_FAILED,
                "column balance of accounts/alice is 100, not at least 101",
            ),
            (
                [insert("accounts", "new", balance=5), add("accounts", "new", "balance", -6, low=0)],
                Code.CODE_BELOW_MIN,
                "column balance of accounts/new would be -1, below 0",
            ),
        ]
        for operations, code, message in cases:
            reason = await opened.denies(*operations)
            assert (Code.Name(reason.code), reason.message) == (Code.Name(code), message)
            assert reason.operation == len(operations) - 1
            assert not reason.retryable
        rows = await opened.does(read("orders", 1), read("orders", 2))
        assert [(row.present, row.participant, row.position) for row in rows] == [(True, "p1", 0), (False, "p1", 1)]


@on_a_loop
async def test_a_deferred_constraint_is_judged_by_prepare(postgresql_database: Database) -> None:
    postgresql_database.execute(SCHEMA)
    postgresql_database.execute(
        "ALTER TABLE orders ADD FOREIGN KEY (account) REFERENCES accounts DEFERRABLE INITIALLY DEFERRED"
    )
    postgresql_database.execute("ALTER TABLE orders DROP CONSTRAINT orders_account_fkey")
    async with Opened(postgresql_database) as opened:
        operations = encode([insert("orders", 1, account="eve")])
        for attempt, tried in ((FIRST, prepare_branch), (SECOND, run_branch)):
            with pytest.raises(No) as caught:
                await tried(opened.resource, attempt, operations)
            assert caught.value.reason.code == Code.CODE_FOREIGN_KEY
        await opened.does(insert("orders", 1, account="eve"), insert("accounts", "eve"))
