"""The locks of operations, known from the operations alone (DESIGN section 3, "Locks")."""

from __future__ import annotations

import pytest

from participant.resources import INTEGER_MAX, INTEGER_MIN, Add, Lock, LockName, Mode, No, Plan
from participant.resources.sqlite import SQLiteResource
from tests.sqlite_tools import add, check, delete, insert, open_like_the_log, plan, read, update, upsert
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code

SHARED, INCREMENT, EXCLUSIVE = Mode.SHARED, Mode.INCREMENT, Mode.EXCLUSIVE

SCHEMA = """
CREATE TABLE Accounts(id INTEGER PRIMARY KEY, balance INTEGER CHECK (balance >= 0), rate REAL, name TEXT,
    email TEXT, town TEXT DEFAULT 'bern', number INTEGER);
CREATE UNIQUE INDEX by_email ON Accounts(email);
CREATE UNIQUE INDEX by_number ON Accounts(town, number);
CREATE TABLE stock(place TEXT NOT NULL, item INTEGER NOT NULL, n INTEGER, PRIMARY KEY (item, place));
CREATE TABLE orders(id TEXT NOT NULL PRIMARY KEY, account TEXT REFERENCES accounts, place TEXT DEFAULT 'hall',
    item TEXT, n INTEGER, FOREIGN KEY (place, item) REFERENCES stock(place, item));
CREATE TABLE odd(id INTEGER PRIMARY KEY, n INTEGER, m INTEGER, CHECK (n <> m));
CREATE TABLE bare(x INTEGER);
"""


@pytest.fixture
def resource() -> SQLiteResource:
    return SQLiteResource(open_like_the_log(SCHEMA))


def locks(planned: Plan) -> dict[LockName, Mode]:
    return {lock.name: lock.mode for lock in planned.locks}


def code_of(resource: SQLiteResource, *operations: types_pb2.Operation) -> str:
    with pytest.raises(No) as caught:
        plan(resource, *operations)
    return Code.Name(caught.value.reason.code).removeprefix("CODE_")


@pytest.mark.parametrize("key", [17, "17", 17.0])
def test_one_row_has_one_name_however_its_key_is_written(resource: SQLiteResource, key: object) -> None:
    assert locks(plan(resource, delete("accounts", key))) == {("row", "Accounts", 17): EXCLUSIVE}


def test_names_are_matched_without_case_and_shown_as_declared(resource: SQLiteResource) -> None:
    planned = plan(resource, add("ACCOUNTS", 1, "BALANCE", 5))
    assert planned.locks == (Lock(("row", "Accounts", 1), INCREMENT, (Add("balance", 5, 0, INTEGER_MAX, 0),)),)


def test_a_key_is_in_the_order_of_the_primary_key(resource: SQLiteResource) -> None:
    assert locks(plan(resource, read("stock", ("7", "hall")))) == {("row", "stock", 7, "hall"): SHARED}
    assert code_of(resource, read("stock", ("hall", "7"))) == "WRONG_TYPE"


def test_two_modes_on_one_name_make_exclusive_and_equal_ones_stay(resource: SQLiteResource) -> None:
    row: LockName = ("row", "stock", 1, "a")
    one, other = add("stock", (1, "a"), "n", 1), add("stock", (1, "a"), "n", -2, low=-5)
    assert locks(plan(resource, read("stock", (1, "a")), check("stock", (1, "a"), exists=True))) == {row: SHARED}
    assert plan(resource, one, other).locks == (
        Lock(row, INCREMENT, (Add("n", 1, INTEGER_MIN, INTEGER_MAX, 0), Add("n", -2, -5, INTEGER_MAX, 1))),
    )
    for others in (
        [read("stock", (1, "a")), one],
        [one, read("stock", (1, "a"))],
        [one, delete("stock", (1, "a")), one],
    ):
        assert plan(resource, *others).locks == (Lock(row, EXCLUSIVE),)


def test_insert_locks_new_unique_values_and_a_default_counts_as_named(resource: SQLiteResource) -> None:
    assert locks(plan(resource, insert("accounts", 1, email="a@b", number=4))) == {
        ("row", "Accounts", 1): EXCLUSIVE,
        ("index", "by_email"): SHARED,
        ("unique", "by_email", "a@b"): EXCLUSIVE,
        ("index", "by_number"): SHARED,
        ("unique", "by_number", "bern", 4): EXCLUSIVE,
    }
    assert locks(plan(resource, insert("accounts", 1))) == {("row", "Accounts", 1): EXCLUSIVE}, "NULL takes none"


def test_update_locks_only_the_unique_indexes_it_names(resource: SQLiteResource) -> None:
    row: LockName = ("row", "Accounts", 1)
    assert locks(plan(resource, update("accounts", 1, name="x"))) == {row: EXCLUSIVE}
    assert locks(plan(resource, update("accounts", 1, number=4))) == {row: EXCLUSIVE, ("index", "by_number"): EXCLUSIVE}
    assert locks(plan(resource, update("accounts", 1, number=None))) == {row: EXCLUSIVE}
    assert locks(plan(resource, delete("accounts", 1))) == {row: EXCLUSIVE}


def test_upsert_locks_what_it_would_insert_or_the_whole_index(resource: SQLiteResource) -> None:
    row: LockName = ("row", "Accounts", 1)
    assert locks(plan(resource, upsert("accounts", 1, email=None))) == {row: EXCLUSIVE}
    assert locks(plan(resource, upsert("accounts", 1, number=2)))[("index", "by_number")] is EXCLUSIVE
    both = locks(plan(resource, upsert("accounts", 1, number=2, town="ulm")))
    assert both[("unique", "by_number", "ulm", 2)] is EXCLUSIVE
    assert both[("index", "by_number")] is SHARED


def test_add_on_a_unique_column_locks_the_index_and_the_row(resource: SQLiteResource) -> None:
    assert locks(plan(resource, add("accounts", 1, "number", 1))) == {
        ("index", "by_number"): EXCLUSIVE,
        ("row", "Accounts", 1): EXCLUSIVE,
    }


def test_add_is_exclusive_on_a_real_and_under_other_checks(resource: SQLiteResource) -> None:
    assert locks(plan(resource, add("accounts", 1, "rate", 0.5))) == {("row", "Accounts", 1): EXCLUSIVE}
    assert locks(plan(resource, add("odd", 1, "n", 1))) == {("row", "odd", 1): EXCLUSIVE}


def test_add_is_bounded_by_the_tightest(resource: SQLiteResource) -> None:
    (lock,) = plan(resource, add("accounts", 1, "balance", -1, low=-9, high="50")).locks
    assert (lock.adds[0].low, lock.adds[0].high) == (0, 50)


def test_a_foreign_key_locks_its_parent_by_the_parents_types(resource: SQLiteResource) -> None:
    row: LockName = ("row", "orders", "o")
    assert locks(plan(resource, insert("orders", "o", account="17", item="5"))) == {
        row: EXCLUSIVE,
        ("row", "Accounts", 17): SHARED,
        ("row", "stock", 5, "hall"): SHARED,
    }
    assert locks(plan(resource, update("orders", "o", place=None, item="5"))) == {row: EXCLUSIVE}
    assert locks(plan(resource, update("orders", "o", n=1))) == {row: EXCLUSIVE}
    assert locks(plan(resource, upsert("orders", "o", place="x", item="5")))[("row", "stock", 5, "x")] is SHARED


def test_part_of_a_composite_foreign_key_and_add_to_one_are_refused(resource: SQLiteResource) -> None:
    assert code_of(resource, update("orders", "o", item="5")) == "BAD_OPERATION"
    assert code_of(resource, upsert("orders", "o", place="x")) == "BAD_OPERATION"
    assert code_of(resource, add("orders", "o", "account", 1)) == "BAD_OPERATION"
    assert code_of(resource, add("stock", (1, "a"), "item", 1)) == "BAD_OPERATION"


def test_a_parent_that_no_row_can_be_is_refused(resource: SQLiteResource) -> None:
    assert code_of(resource, insert("orders", "o", account=" 17")) == "FOREIGN_KEY"


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (read("nowhere", 1), "NO_SUCH_TABLE"),
        (read("troth_schema", 1), "NO_SUCH_TABLE"),
        (read("bare", 1), "TABLE_NOT_SERVED"),
        (read("accounts", (1, 2)), "BAD_KEY"),
        (read("accounts", ()), "BAD_KEY"),
        (read("accounts", None), "BAD_KEY"),
        (read("accounts", "x"), "WRONG_TYPE"),
        (insert("accounts", 1, id=2), "BAD_KEY"),
        (insert("accounts", 1, nothing=2), "NO_SUCH_COLUMN"),
        (insert("accounts", 1, name="a", NAME="b"), "BAD_OPERATION"),
        (insert("accounts", 1, balance="much"), "WRONG_TYPE"),
        (insert("accounts", 1, balance=2.5), "WRONG_TYPE"),
        (insert("accounts", 1, rate=float("nan")), "WRONG_TYPE"),
        (insert("accounts", 1, id=None), "BAD_KEY"),
        (update("accounts", 1), "BAD_OPERATION"),
        (update("accounts", 1, id=1), "BAD_OPERATION"),
        (add("accounts", 1, "name", 1), "WRONG_TYPE"),
        (add("accounts", 1, "balance", 0.5), "WRONG_TYPE"),
        (add("accounts", 1, "balance", None), "WRONG_TYPE"),
        (check("accounts", 1, "balance", exists=True), "BAD_OPERATION"),
        (check("accounts", 1, equals=1), "BAD_OPERATION"),
        (check("accounts", 1, "balance", at_least=None), "BAD_OPERATION"),
        (types_pb2.Operation(table="accounts"), "BAD_OPERATION"),
        (types_pb2.Operation(custom=types_pb2.Custom(name="x")), "BAD_OPERATION"),
        (types_pb2.Operation(sql=types_pb2.Sql(statement="DELETE FROM accounts")), "BAD_OPERATION"),
    ],
)
def test_what_cannot_be_run_whatever_the_data(
    resource: SQLiteResource, operation: types_pb2.Operation, code: str
) -> None:
    assert code_of(resource, operation) == code


def test_nothing_to_do_and_what_cannot_be_decoded_are_refused(resource: SQLiteResource) -> None:
    assert code_of(resource) == "BAD_OPERATION"
    with pytest.raises(No) as caught:
        resource.plan(b"\xff")
    assert caught.value.reason.code == Code.CODE_BAD_REQUEST


def test_a_branch_is_read_only_when_it_only_checks_and_reads(resource: SQLiteResource) -> None:
    assert plan(resource, read("accounts", 1), check("accounts", 2, exists=False)).read_only
    assert not plan(resource, read("accounts", 1), add("accounts", 2, "balance", 0)).read_only


def test_a_reason_names_the_operation_and_the_row_and_nothing_else(resource: SQLiteResource) -> None:
    with pytest.raises(No) as caught:
        plan(resource, read("accounts", 1), insert("Accounts", "17", balance="x"))
    reason = caught.value.reason
    assert (reason.operation, reason.table, reason.key[0].integer) == (1, "Accounts", 17)
    assert (reason.column, reason.found.text, reason.retryable) == ("balance", "x", False)
