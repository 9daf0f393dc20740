"""What each operation does to rows, and the reason for every NO, as data."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from participant.resources import INTEGER_MAX, INTEGER_MIN, No
from participant.resources.sqlite import ApplyFailed, SQLiteResource, TransactionLost
from participant.resources.steps import Run
from tests.sqlite_tools import (
    ATTEMPT,
    add,
    batch,
    check,
    delete,
    insert,
    open_like_the_log,
    plan,
    prepare,
    raw_of,
    read,
    rows_of,
    run,
    update,
    upsert,
)
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code

SCHEMA = """
CREATE TABLE accounts(id TEXT NOT NULL PRIMARY KEY, balance INTEGER CHECK (balance BETWEEN 0 AND 1000), rate REAL,
    open BOOLEAN NOT NULL DEFAULT TRUE, email TEXT UNIQUE, picture BLOB, name TEXT);
CREATE TABLE orders(id INTEGER PRIMARY KEY, account TEXT REFERENCES accounts, big INTEGER, total INTEGER AS (big * 2),
    note TEXT CHECK (length(note) < 9));
INSERT INTO accounts(id, balance, rate, email) VALUES('alice', 100, 0.5, 'a@b'), ('bob', NULL, NULL, NULL);
INSERT INTO orders(id, account, big) VALUES(1, 'alice', 5);
"""


@pytest.fixture
def connection() -> sqlite3.Connection:
    return open_like_the_log(SCHEMA)


@pytest.fixture
def resource(connection: sqlite3.Connection) -> SQLiteResource:
    return SQLiteResource(connection)


def denied(
    resource: SQLiteResource, connection: sqlite3.Connection, *operations: types_pb2.Operation
) -> dict[str, Any]:
    """The reason of the NO that a trial and a run both give, as plain data; nothing is changed by either."""
    reasons = []
    before = list(connection.iterdump())
    for attempt in (prepare, run):
        with batch(connection), pytest.raises(No) as caught:
            attempt(resource, *operations)
        reasons.append(caught.value.reason)
    assert reasons[0] == reasons[1]
    assert list(connection.iterdump()) == before
    reason = reasons[0]
    told: dict[str, Any] = {"code": Code.Name(reason.code).removeprefix("CODE_"), "operation": reason.operation}
    told |= {"key": [raw_of(part) for part in reason.key]}
    told |= {"column": reason.column} if reason.column else {}
    for name in ("required", "found"):
        told |= {name: raw_of(getattr(reason, name))} if reason.HasField(name) else {}
    assert reason.table
    assert reason.message
    assert not reason.participant, "the node's to fill in"
    return told


DENIED = [
    ([insert("accounts", "alice")], {"code": "ROW_EXISTS"}),
    ([update("accounts", "eve", balance=1)], {"code": "ROW_MISSING", "key": ["eve"]}),
    ([delete("accounts", "eve")], {"code": "ROW_MISSING", "key": ["eve"]}),
    ([add("accounts", "eve", "balance", 1)], {"code": "ROW_MISSING", "key": ["eve"]}),
    ([add("accounts", "bob", "balance", 1)], {"code": "ADD_ON_NULL", "key": ["bob"], "column": "balance"}),
    ([add("accounts", "bob", "rate", 1)], {"code": "ADD_ON_NULL", "key": ["bob"], "column": "rate"}),
    (
        [add("accounts", "alice", "balance", -60, low=50)],
        {"code": "BELOW_MIN", "column": "balance", "required": 50, "found": 100},
    ),
    (
        [add("accounts", "alice", "balance", -101)],
        {"code": "BELOW_MIN", "column": "balance", "required": 0, "found": 100},
    ),
    (
        [add("accounts", "alice", "balance", 901)],
        {"code": "ABOVE_MAX", "column": "balance", "required": 1000, "found": 100},
    ),
    (
        [
            add("accounts", "alice", "balance", -60),
            add("accounts", "alice", "balance", -60),
            add("accounts", "alice", "balance", 60),
        ],
        {"code": "BELOW_MIN", "operation": 1, "column": "balance", "required": 0, "found": 40},
    ),
    (
        [read("accounts", "alice"), add("accounts", "alice", "balance", -101)],
        {"code": "BELOW_MIN", "operation": 1, "column": "balance", "required": 0, "found": 100},
    ),
    (
        [add("accounts", "alice", "rate", 1, high=1.25)],
        {"code": "ABOVE_MAX", "column": "rate", "required": 1.25, "found": 0.5},
    ),
    (
        [add("orders", 1, "big", INTEGER_MAX)],
        {"code": "ABOVE_MAX", "key": [1], "column": "big", "required": INTEGER_MAX, "found": 5},
    ),
    (
        [update("orders", 1, big=-2), add("orders", 1, "big", INTEGER_MIN)],
        {"code": "BELOW_MIN", "operation": 1, "key": [1], "column": "big", "required": INTEGER_MIN, "found": -2},
    ),
    ([insert("accounts", "eve", email="a@b")], {"code": "UNIQUE", "key": ["eve"], "column": "email", "found": "a@b"}),
    ([update("accounts", "bob", email="a@b")], {"code": "UNIQUE", "key": ["bob"], "column": "email", "found": "a@b"}),
    ([upsert("accounts", "eve", email="a@b")], {"code": "UNIQUE", "key": ["eve"], "column": "email", "found": "a@b"}),
    (
        [insert("accounts", "eve", balance=-1)],
        {"code": "BELOW_MIN", "key": ["eve"], "column": "balance", "required": 0, "found": -1},
    ),
    (
        [update("accounts", "bob", balance=1001)],
        {"code": "ABOVE_MAX", "key": ["bob"], "column": "balance", "required": 1000, "found": 1001},
    ),
    ([update("orders", 1, note="much too long")], {"code": "CONSTRAINT", "key": [1]}),
    ([insert("orders", 2, account="eve")], {"code": "FOREIGN_KEY", "key": [2], "column": "account", "found": "eve"}),
    ([delete("accounts", "alice")], {"code": "FOREIGN_KEY"}),
    (
        [check("accounts", "alice", "balance", equals=99)],
        {"code": "CHECK_FAILED", "column": "balance", "required": 99, "found": 100},
    ),
    (
        [check("accounts", "alice", "balance", equals=None)],
        {"code": "CHECK_FAILED", "column": "balance", "required": None, "found": 100},
    ),
    (
        [check("accounts", "bob", "balance", at_most=5)],
        {"code": "CHECK_FAILED", "key": ["bob"], "column": "balance", "required": 5, "found": None},
    ),
    ([check("accounts", "eve", "balance", at_least=5)], {"code": "CHECK_FAILED", "key": ["eve"], "column": "balance"}),
    (
        [check("accounts", "eve", exists=True)],
        {"code": "CHECK_FAILED", "key": ["eve"], "required": True, "found": False},
    ),
    ([check("accounts", "alice", exists=False)], {"code": "CHECK_FAILED", "required": False, "found": True}),
]


@pytest.mark.parametrize(("operations", "told"), DENIED)
def test_denied(
    resource: SQLiteResource,
    connection: sqlite3.Connection,
    operations: list[types_pb2.Operation],
    told: dict[str, Any],
) -> None:
    assert denied(resource, connection, *operations) == {"operation": 0, "key": ["alice"], **told}


def test_a_not_null_column_without_a_default_must_be_given(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
    told = denied(SQLiteResource(connection), connection, insert("t", 1))
    assert told == {"code": "NOT_NULL", "operation": 0, "key": [1], "column": "n"}


def test_operations_run_in_order_and_reads_see_those_before(
    resource: SQLiteResource, connection: sqlite3.Connection
) -> None:
    with batch(connection):
        tried = prepare(
            resource,
            read("accounts", "eve"),
            insert("accounts", "eve", balance="7", open="false", picture=b"\0"),
            add("accounts", "eve", "balance", 3),
            read("accounts", "eve"),
            delete("accounts", "eve"),
            read("accounts", "eve"),
            check("accounts", "eve", exists=False),
        )
    row = {"id": "eve", "balance": 10, "rate": None, "open": False, "email": None, "picture": b"\0", "name": None}
    assert rows_of(tried) == [None, row, None]
    assert tried.values == {}, "under an exclusive lock there is nothing to share"


def test_a_read_carries_its_position_its_key_and_generated_columns(
    resource: SQLiteResource, connection: sqlite3.Connection
) -> None:
    with batch(connection):
        (row,) = types_pb2.Rows.FromString(prepare(resource, read("ORDERS", "1")).rows).rows
    assert (row.position, row.table, row.present, [raw_of(part) for part in row.key]) == (0, "orders", True, [1])
    assert [(each.name, raw_of(each.value)) for each in row.values] == [
        ("id", 1),
        ("account", "alice"),
        ("big", 5),
        ("total", 10),
        ("note", None),
    ]
    assert resource.read_row(connection, "orders", row.key) == row


def test_a_trial_leaves_nothing_and_a_commit_applies(resource: SQLiteResource, connection: sqlite3.Connection) -> None:
    planned = plan(
        resource,
        upsert("accounts", "alice", name="Alice"),
        upsert("accounts", "eve", balance=1),
        upsert("accounts", "bob"),
        update("orders", 1, account="bob"),
    )
    query = "SELECT id, balance, name, open FROM accounts ORDER BY id"
    before = connection.execute(query).fetchall()
    with batch(connection):
        resource.prepare(ATTEMPT, planned)
        assert connection.execute(query).fetchall() == before
        resource.abort(ATTEMPT, planned)
    with batch(connection):
        resource.commit(ATTEMPT, planned)
    assert connection.execute(query).fetchall() == [
        ("alice", 100, "Alice", 1),
        ("bob", None, None, 1),
        ("eve", 1, None, 1),
    ]
    assert connection.execute("SELECT account FROM orders").fetchall() == [("bob",)]


def test_values_under_increment_locks_are_those_before_the_branchs_own_adds(
    resource: SQLiteResource, connection: sqlite3.Connection
) -> None:
    operations = add("accounts", "alice", "balance", -40), add("accounts", "alice", "balance", -50)
    values = {(("row", "accounts", "alice"), "balance"): 100}
    with batch(connection):
        assert prepare(resource, *operations).values == values
        assert prepare(resource, *operations, update("accounts", "bob", balance=1)).values == values
        assert run(resource, *operations).values == values
    assert connection.execute("SELECT balance FROM accounts WHERE id = 'alice'").fetchone() == (10,)


def test_an_add_at_the_end_of_64_bits_stays_an_integer(
    resource: SQLiteResource, connection: sqlite3.Connection
) -> None:
    with batch(connection):
        run(resource, update("orders", 1, big=INTEGER_MAX - 1), add("orders", 1, "big", 1))
        run(resource, add("orders", 1, "big", INTEGER_MIN), add("orders", 1, "big", 0))
    assert connection.execute("SELECT big, typeof(big) FROM orders").fetchone() == (-1, "integer")


def test_upsert_never_eats_another_row(resource: SQLiteResource, connection: sqlite3.Connection) -> None:
    with batch(connection), pytest.raises(No):
        run(resource, upsert("accounts", "bob", email="a@b"))
    assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (2,)


def test_upsert_into_a_table_that_is_named_like_the_new_row() -> None:
    connection = open_like_the_log(
        "CREATE TABLE excluded(k INTEGER PRIMARY KEY, v TEXT); INSERT INTO excluded VALUES(1, 'old')"
    )
    resource = SQLiteResource(connection)
    with batch(connection):
        resource.commit(ATTEMPT, plan(resource, upsert("excluded", 1, v="new")))
    assert connection.execute("SELECT v FROM excluded").fetchall() == [("new",)]


def test_a_value_that_a_strict_table_refuses_is_a_constraint_and_so_a_no(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE strict_one(k INTEGER PRIMARY KEY, v INTEGER) STRICT")
    with pytest.raises(sqlite3.IntegrityError) as refused:
        connection.execute("INSERT INTO strict_one VALUES(1, 'x')")
    assert refused.value.sqlite_errorcode == 19 | 12 << 8  # SQLITE_CONSTRAINT_DATATYPE

    resource = SQLiteResource(connection)
    (step,) = plan(resource, insert("strict_one", 1, v=1)).work.steps
    with batch(connection), pytest.raises(No) as no:
        step._replace(parameters=(1, "x")).attempt(Run(connection.cursor(), keep=False))
    assert no.value.reason.code == Code.CODE_CONSTRAINT


def test_an_apply_that_changes_nothing_is_an_alarm(resource: SQLiteResource, connection: sqlite3.Connection) -> None:
    for operation in (
        update("accounts", "bob", name="x"),
        add("accounts", "bob", "balance", 1),
        add("accounts", "bob", "rate", 1),
    ):
        planned = plan(resource, operation)
        connection.execute("DELETE FROM accounts WHERE id = 'bob'")
        with pytest.raises(ApplyFailed):
            resource.commit(ATTEMPT, planned)


def test_a_trial_that_lost_the_transaction_stops_everything(
    resource: SQLiteResource, connection: sqlite3.Connection
) -> None:
    """Without one, each later statement would commit by itself (DESIGN section 4)."""
    planned = plan(resource, update("accounts", "bob", name="x"))
    lost = planned._replace(work=planned.work._replace(steps=(_RollsBack(),)))
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransactionLost):
        resource.prepare(ATTEMPT, lost)


class _RollsBack:
    """A step during which SQLite rolls the whole batch back, as it may on a full disk."""

    def attempt(self, run: Any) -> None:
        run.cursor.execute("ROLLBACK")


def test_another_error_is_no_vote(resource: SQLiteResource, connection: sqlite3.Connection) -> None:
    planned = plan(resource, update("accounts", "bob", name="x"))
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError):
        resource.prepare(ATTEMPT, planned)


def test_bytes_that_are_no_text_are_a_no_and_not_a_crash(
    resource: SQLiteResource, connection: sqlite3.Connection
) -> None:
    connection.execute("UPDATE accounts SET name = CAST(x'ff' AS TEXT) WHERE id = 'bob'")
    assert denied_code(resource, connection, read("accounts", "bob")) == "WRONG_TYPE"
    assert denied_code(resource, connection, check("accounts", "bob", "name", equals="x")) == "WRONG_TYPE"


def denied_code(resource: SQLiteResource, connection: sqlite3.Connection, operation: types_pb2.Operation) -> str:
    with batch(connection), pytest.raises(No) as caught:
        prepare(resource, operation)
    return Code.Name(caught.value.reason.code).removeprefix("CODE_")


def test_add_to_what_another_tool_stored_is_a_no(resource: SQLiteResource, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE orders SET big = 'many'")
    assert denied_code(resource, connection, add("orders", 1, "big", 1)) == "WRONG_TYPE"
    connection.execute("UPDATE orders SET big = 1.5")
    assert denied_code(resource, connection, add("orders", 1, "big", 1)) == "WRONG_TYPE"


def test_a_row_that_refers_to_itself(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE tree(id INTEGER PRIMARY KEY, up INTEGER REFERENCES tree)")
    resource = SQLiteResource(connection)
    with batch(connection):
        run(resource, insert("tree", 1, up=1), insert("tree", 2, up=1), delete("tree", 2), delete("tree", 1))
        with pytest.raises(No):
            run(resource, insert("tree", 3, up=4), insert("tree", 4))
    assert connection.execute("SELECT count(*) FROM tree").fetchone() == (0,)
