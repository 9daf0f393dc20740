"""What SQL servers share, without one: locks and steps from operations alone, and values in the one way they are
written. What the rows say is tested at the servers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from participant.resources import Lock, Mode, No
from participant.resources.catalog import Refused
from participant.resources.server.catalog import Catalog, Table
from participant.resources.server.columns import Column, Kind
from participant.resources.server.marks import marked
from participant.resources.server.planning import plan, target_of
from participant.resources.server.steps import Add, Sql, Upsert
from tests.sqlite_tools import add, check, delete, encode, insert, keys, read, update, upsert
from troth.operations import sql
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code, Value

COLUMNS = [
    Column("id", Kind.INTEGER, "integer", nullable=False, low=-(2**31), high=2**31 - 1),
    Column("n", Kind.INTEGER, "smallint unsigned", nullable=True, low=0, high=65535),
    Column("price", Kind.DECIMAL, "decimal(4,2)", False, low=Decimal("-99.99"), high=Decimal("99.99"), scale=2),
    Column("rate", Kind.REAL, "double", nullable=True),
    Column("Note", Kind.TEXT, "varchar(3)", nullable=True, characters=3, octets=5),
    Column("sum", Kind.INTEGER, "bigint", nullable=True, generated=True),
    Column("doc", Kind.OTHER, "json", nullable=True),
]
STOCK = Table("stock", '"s"."stock"', {column.name: column for column in COLUMNS}, (COLUMNS[0],))
CATALOG = Catalog({"stock": STOCK, "s.stock": STOCK}, {"gone": Refused("gone", ("it is a view",))})


def no(*operations: types_pb2.Operation) -> tuple[str, str]:
    with pytest.raises(No) as caught:
        plan(CATALOG, encode(operations))
    return Code.Name(caught.value.reason.code), caught.value.reason.message


def test_rows_are_locked_under_one_name_however_they_are_called() -> None:
    expected = (Lock(("row", "stock", 7), Mode.SHARED),)
    for table, key in (("stock", 7), ("s.stock", "7"), ("STOCK", 7.0)):
        assert plan(CATALOG, encode([read(table, key)])).locks == expected


@pytest.mark.parametrize(
    ("operations", "modes"),
    [
        ([read("stock", 1), check("stock", 1, exists=True)], [Mode.SHARED]),
        ([read("stock", 1), add("stock", 1, "n", 1)], [Mode.EXCLUSIVE]),
        ([add("stock", 1, "n", 1), add("stock", 1, "n", 1)], [Mode.EXCLUSIVE]),
        ([delete("stock", 2), read("stock", 1)], [Mode.EXCLUSIVE, Mode.SHARED]),
        ([sql("DELETE FROM stock")], []),
    ],
)
def test_who_shares_a_row(operations: list[types_pb2.Operation], modes: list[Mode]) -> None:
    assert [lock.mode for lock in plan(CATALOG, encode(operations)).locks] == modes


def test_what_only_reads() -> None:
    looks = [read("stock", 1), check("stock", 1, "n", equals=None), sql("SELECT 1", read_only=True)]
    assert plan(CATALOG, encode(looks)).read_only
    for change in (sql("SELECT 1"), upsert("stock", 1)):
        assert not plan(CATALOG, encode([*looks, change])).read_only


def test_steps_hold_values_as_the_server_has_them() -> None:
    operations = [upsert("stock", "1", price=2.5, NOTE="ab"), sql("SELECT %s", [1], rows=0)]
    step, statement = plan(CATALOG, encode(operations)).work
    assert isinstance(step, Upsert)
    assert step.values == {"id": 1, "price": Decimal("2.50"), "Note": "ab"}
    assert set(step.changed) == {"price", "Note"}
    assert statement == Sql(1, "SELECT %s", (1,), 0, False)


@pytest.mark.parametrize(
    ("operation", "before"),
    [
        (add("stock", 1, "n", -5), (5, 65535)),
        (add("stock", 1, "n", 5, 3), (0, 65530)),
        (add("stock", 1, "n", 70000), (0, -4465)),
        (add("stock", 1, "price", "0.01"), (Decimal("-99.99"), Decimal("99.98"))),
        (add("stock", 1, "price", 1, "0.5", "1.5"), (Decimal("-0.50"), Decimal("0.50"))),
    ],
)
def test_an_add_says_what_must_be_there_before(operation: types_pb2.Operation, before: tuple[Any, Any]) -> None:
    (step,) = plan(CATALOG, encode([operation])).work
    assert isinstance(step, Add)
    assert step.before() == before


def test_what_cannot_be_run_is_said_by_name() -> None:
    assert no() == ("CODE_BAD_OPERATION", "a branch needs at least one operation")
    assert no(types_pb2.Operation(table="stock")) == ("CODE_BAD_OPERATION", "the operation says nothing to do")
    assert no(read("nowhere", 1)) == ("CODE_NO_SUCH_TABLE", "there is no table nowhere")
    assert no(read("GONE", 1)) == ("CODE_TABLE_NOT_SERVED", "table gone cannot be served: it is a view")
    assert no(read("stock", (1, 2))) == ("CODE_BAD_KEY", "the key of stock is (id): 2 values were given")
    assert no(read("stock", None)) == ("CODE_BAD_KEY", "key column id may not be NULL")
    assert no(read("stock", 2**31)) == (
        "CODE_WRONG_TYPE",
        "key column id: 2147483648 does not fit type integer without loss",
    )
    assert no(update("stock", 1)) == ("CODE_BAD_OPERATION", "an update needs a column that is not of the key")
    assert no(update("stock", 1, id=2)) == ("CODE_BAD_KEY", "column id disagrees with the key")
    assert no(update("stock", 1, price=None)) == ("CODE_NOT_NULL", "column price may not be NULL")
    assert no(update("stock", 1, sum=1)) == ("CODE_BAD_OPERATION", "column sum is generated")
    assert no(update("stock", 1, nix=1)) == ("CODE_NO_SUCH_COLUMN", "table stock has no column nix")
    assert no(insert("stock", 1, note="x", Note="y")) == ("CODE_BAD_OPERATION", "column Note is named twice")
    assert no(add("stock", 1, "id", 1))[1] == "column id is part of a key: add cannot change it"
    assert no(add("stock", 1, "Note", 1)) == ("CODE_WRONG_TYPE", "column Note is varchar(3): not to be added to")
    assert no(add("stock", 1, "n", None))[1] == "column n: a number is needed"
    assert no(check("stock", 1, "n", at_least=None)) == ("CODE_BAD_OPERATION", "nothing is at least NULL")
    assert no(check("stock", 1, "doc", equals="{}"))[1].endswith("by an operation on a row: use sql")
    assert no(sql(" ")) == ("CODE_BAD_OPERATION", "the statement is empty")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (types_pb2.Sql(statement="UPDATE t SET n = 0\0 WHERE id = 1"), "the statement holds a character NUL"),
        (types_pb2.Sql(statement="x", parameters=[types_pb2.Value()]), "parameter 1 of the statement has no value"),
        (
            types_pb2.Sql(statement="x", parameters=[types_pb2.Value(integer=1), types_pb2.Value(text="a\0b")]),
            "parameter 2 of the statement holds a character NUL",
        ),
    ],
)
def test_a_statement_that_would_not_arrive_whole_is_refused(found: types_pb2.Sql, message: str) -> None:
    """Drivers of C take a NUL for the end: the first would have changed every row. Our own client sends none."""
    assert no(types_pb2.Operation(sql=found)) == ("CODE_BAD_OPERATION", message)


def test_a_text_fits_by_characters_and_by_bytes() -> None:
    for text in ("abc", "äb", "aß"):
        plan(CATALOG, encode([update("stock", 1, Note=text)]))
    for text in ("abcd", "äöü"):
        assert no(update("stock", 1, Note=text))[0] == "CODE_WRONG_TYPE"


def test_a_row_shows_its_key_as_it_is_written() -> None:
    target = target_of(CATALOG, 3, "stock", keys("7"))
    row = target.row([7, None, Decimal("1.50"), 0.5, "x", 1, "{}"])
    assert (row.position, row.table, list(row.key)) == (3, "stock", [Value(integer=7)])
    assert [column.value for column in row.values][:3] == [Value(integer=7), Value(null=True), Value(text="1.50")]


def test_where_parameters_go() -> None:
    def of(statement: str, *parameters: Any) -> str:
        (step,) = plan(CATALOG, encode([sql(statement, parameters)])).work
        return marked(step, "${}".format)

    assert of("UPDATE t SET a = %s, b = a %% 2 WHERE c = %s", 5, "x") == "UPDATE t SET a = $1, b = a % 2 WHERE c = $2"
    for statement, message in (
        ("SELECT %s", "the statement takes 1 parameters, and 2 are given"),
        ("SELECT %s, %s, %s", "the statement takes 3 parameters, and 2 are given"),
        ("SELECT %s, %s, %d", "%d in the statement: write %s or %%"),
        ("SELECT %s, %s, %", "% in the statement: write %s or %%"),
    ):
        with pytest.raises(No) as caught:
            of(statement, 5, "x")
        assert (caught.value.reason.code, caught.value.reason.message) == (Code.CODE_BAD_OPERATION, message)
