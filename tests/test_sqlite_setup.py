"""Schemas applied, compared, adopted, kept; tables made from a first row."""

from __future__ import annotations

import sqlite3

import pytest

from participant.resources import No
from participant.resources.describe import describe, differences
from participant.resources.setup import BadSchema, adoption_report, apply_schema, compare_schema, create_table
from participant.resources.sqlite import SchemaChanged, SQLiteResource
from tests.sqlite_tools import ATTEMPT, add, batch, columns, encode, insert, open_like_the_log, run
from troth.v1.types_pb2 import Code, Column

SCHEMA = """-- money
CREATE TABLE accounts(id TEXT NOT NULL PRIMARY KEY, balance INTEGER NOT NULL DEFAULT 0 CHECK (balance >= 0)); /* ; */
CREATE UNIQUE INDEX by_balance ON accounts(balance); CREATE VIEW rich AS SELECT * FROM accounts WHERE balance > 9;
"""


def test_a_schema_is_applied_and_then_equal() -> None:
    connection = open_like_the_log("")
    apply_schema(connection, SCHEMA)
    assert not connection.in_transaction
    assert compare_schema(connection, SCHEMA) == []
    assert compare_schema(connection, SCHEMA.replace("INTEGER NOT NULL", "integer  /* 64 */ not null")) == []


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        (("balance >= 0", "balance >= 1"), "table accounts: CHECK (balance >= 1) is missing"),
        (("DEFAULT 0", "DEFAULT 5"), "table accounts: column balance was (INTEGER NOT NULL DEFAULT 5), is (INTEGER"),
        (("INDEX by_balance ON accounts(balance)", "INDEX by_balance ON accounts(id)"), "table accounts: unique index"),
        (("> 9", "> 8"), "view rich was"),
        (("CREATE VIEW", "CREATE TABLE t(a INTEGER PRIMARY KEY); CREATE VIEW"), "table t is missing"),
        (("PRIMARY KEY", ""), "table accounts: primary key was (), is (id)"),
    ],
)
def test_differences_are_named(changed: tuple[str, str], difference: str) -> None:
    connection = open_like_the_log(SCHEMA)
    assert any(told.startswith(difference) for told in compare_schema(connection, SCHEMA.replace(*changed)))


def test_tables_that_the_file_does_not_name_are_no_difference() -> None:
    connection = open_like_the_log(SCHEMA + "CREATE TABLE made(a INTEGER PRIMARY KEY);")
    assert compare_schema(connection, SCHEMA) == []


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO accounts VALUES('a', 1)",
        "PRAGMA foreign_keys = OFF",
        "BEGIN",
        "CREATE",
        "CREATE TEMP TABLE x(a INTEGER PRIMARY KEY)",
        "CREATE TABLE troth_x(a INTEGER PRIMARY KEY)",
        "CREATE TABLE x(a INTEGER PRIMARY KEY",
        "CREATE TABLE accounts(a INTEGER PRIMARY KEY)",
    ],
)
def test_a_bad_statement_is_named_and_nothing_is_applied(statement: str) -> None:
    connection = open_like_the_log("CREATE TABLE troth_marks(a INTEGER PRIMARY KEY);")
    with pytest.raises(BadSchema) as caught:
        apply_schema(connection, SCHEMA + statement)
    assert statement[:20] in str(caught.value)
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("troth_marks",)]
    assert not connection.in_transaction


def test_adoption_says_what_cannot_be_served_and_which_rows_break_rules() -> None:
    connection = open_like_the_log(SCHEMA + "CREATE TABLE bare(a INTEGER);")
    connection.execute("CREATE TABLE child(id INTEGER PRIMARY KEY, account TEXT REFERENCES accounts)")
    clean = {report.name: (report.served, report.why, report.problems) for report in adoption_report(connection)}
    assert clean == {
        "accounts": (True, "", ()),
        "bare": (False, "it has no primary key", ()),
        "child": (True, "", ()),
        "rich": (False, "it is a view", ()),
    }
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("INSERT INTO child VALUES(1, 'nobody')")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("INSERT INTO accounts VALUES('a', -1)")
    connection.execute("PRAGMA ignore_check_constraints = OFF")
    problems = {report.name: report.problems for report in adoption_report(connection)}
    assert problems["child"][0] == "a row has a foreign key to a row of accounts that is not there"
    assert any("CHECK" in problem for problem in problems["accounts"])


def test_a_table_is_made_from_its_first_row() -> None:
    connection = open_like_the_log("")
    resource = SQLiteResource(connection)
    resource.recover([])
    key = columns({"shelf": 4, "town": "ulm"})
    values = columns({"a": 1, "b": True, "c": 0.5, "d": "x", "e": b"x", "f": None, "shelf": 4})
    with batch(connection):
        assert create_table(connection, "stock", key, values)
        resource.schema_changed()
        assert not create_table(connection, "STOCK", key, values)
        run(resource, insert("stock", (4, "ulm"), a=1, b=True, c=0.5, d="x", e=b"x", f=None))
    (status,) = resource.tables()
    assert list(status.key) == ["shelf", "town"]
    assert [(column.name, column.type, column.nullable) for column in status.columns] == [
        ("shelf", "integer", False),
        ("town", "text", False),
        ("a", "integer", True),
        ("b", "boolean", True),
        ("c", "real", True),
        ("d", "text", True),
        ("e", "blob", True),
        ("f", "text", True),
    ]


@pytest.mark.parametrize(
    ("table", "key", "values", "code"),
    [
        ("troth_x", {"id": 1}, {}, Code.CODE_BAD_OPERATION),
        ("sqlite_x", {"id": 1}, {}, Code.CODE_BAD_OPERATION),
        ("", {"id": 1}, {}, Code.CODE_BAD_OPERATION),
        ("t", {}, {"a": 1}, Code.CODE_BAD_KEY),
        ("t", {"id": 0.5}, {}, Code.CODE_WRONG_TYPE),
        ("t", {"id": None}, {}, Code.CODE_WRONG_TYPE),
        ("t", {"id": 1}, {"a": 1, "A": 2}, Code.CODE_BAD_OPERATION),
    ],
)
def test_a_table_that_cannot_be_made(table: str, key: dict[str, object], values: dict[str, object], code: Code) -> None:
    connection = open_like_the_log("")
    with pytest.raises(No) as caught:
        create_table(connection, table, columns(key), columns(values))
    assert caught.value.reason.code == code


def test_a_column_without_a_value_gives_no_type() -> None:
    with pytest.raises(No):
        create_table(open_like_the_log(""), "t", [Column(name="id")], [])


def test_a_schema_that_changed_while_branches_are_prepared_is_refused_by_name() -> None:
    connection = open_like_the_log(SCHEMA + "INSERT INTO accounts VALUES('a', 50);")
    prepared = [(ATTEMPT, encode([insert("accounts", "b")]))]
    assert SQLiteResource(connection).recover([]) == []
    assert len(SQLiteResource(connection).recover(prepared)) == 1
    connection.execute("DROP INDEX by_balance")
    connection.execute("CREATE TABLE other(a INTEGER PRIMARY KEY)")
    with pytest.raises(SchemaChanged) as caught:
        SQLiteResource(connection).recover(prepared)
    assert "table accounts: unique index (balance BINARY) is missing" in str(caught.value)
    assert "table other is new" in str(caught.value)
    assert not connection.in_transaction
    assert SQLiteResource(connection).recover([]) == [], "nothing prepared: the new schema is kept"
    assert len(SQLiteResource(connection).recover(prepared)) == 1


def test_recovery_reads_the_values_under_increment_locks() -> None:
    connection = open_like_the_log("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES(1, 7);")
    resource = SQLiteResource(connection)
    resource.recover([])
    operations = encode([add("t", 1, "n", -2), add("t", 1, "n", 1)])
    (found,) = resource.recover([(ATTEMPT, operations)])
    assert found.attempt == ATTEMPT
    assert found.plan == resource.plan(operations)
    assert found.values == {(("row", "t", 1), "n"): 7}


def test_the_fingerprint_is_of_what_counts() -> None:
    one = SQLiteResource(open_like_the_log("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER);"))
    same = SQLiteResource(open_like_the_log("create table T (id integer primary key, -- x\n N integer);"))
    other = SQLiteResource(open_like_the_log("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL);"))
    assert one.fingerprint() == one.fingerprint() != other.fingerprint()
    assert differences(describe(_of(one)), describe(_of(same))) == []


def _of(resource: SQLiteResource) -> sqlite3.Connection:
    return resource._connection


def test_foreign_keys_must_be_on() -> None:
    connection = open_like_the_log("")
    connection.execute("PRAGMA foreign_keys = OFF")
    with pytest.raises(ValueError, match="foreign_keys"):
        SQLiteResource(connection)
