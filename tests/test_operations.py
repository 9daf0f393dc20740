"""Operations in their three forms (Python, text, JSON Lines): the same meaning, and errors that say where."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troth import operations
from troth.cli.jsonlines import parse_transaction, read_transactions
from troth.cli.render import row_json, row_text
from troth.cli.text import parse_operation, transaction_of
from troth.client.results import Row
from troth.errors import BadInput
from troth.ids import new_id, time_of
from troth.operations import Transaction, parse_row, row_name
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Operation, Value
from troth.values import INTEGER_MAX, INTEGER_MIN, from_value, json_to_value, to_value, value_to_json

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(INTEGER_MIN, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.binary()
)
unhurried = settings(deadline=None)
keys = st.lists(st.integers(INTEGER_MIN, INTEGER_MAX) | texts, min_size=1, max_size=3)


# Values.


@unhurried
@given(scalars)
def test_value_comes_back_as_it_was(found: Any) -> None:
    again = from_value(to_value(found))
    assert again == found
    assert type(again) is type(found)


@unhurried
@given(scalars)
def test_value_comes_back_through_json(found: Any) -> None:
    text = json.dumps(value_to_json(to_value(found)))
    assert json_to_value(json.loads(text)) == to_value(found)


def test_true_is_a_boolean_and_not_the_integer_1() -> None:
    assert to_value(True) == Value(boolean=True)
    assert to_value(1) == Value(integer=1)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (2**63, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
        ({1}, "not set"),
    ],
)
def test_what_no_column_holds_is_bad_input(found: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        to_value(found)


@pytest.mark.parametrize(
    "found",
    [{"$base64": True, "encoded": "!"}, {"$base64": False, "encoded": "aaaa"}, {"$base64": True}, {"x": 1}, [1]],
)
def test_an_object_that_is_no_blob_is_bad_input(found: Any) -> None:
    with pytest.raises(BadInput):
        json_to_value(found)


# Ids.


def test_new_ids_are_uuid7_in_order_and_carry_their_time() -> None:
    made = [new_id() for _ in range(100)]
    assert len(set(made)) == 100
    assert all(time_of(id) is not None for id in made)
    assert [time_of(id) for id in made] == sorted(time_of(id) or 0.0 for id in made)
    assert time_of("017f22e2-79b0-7cc3-98c4-dc0c0c07398f") == 1645557742.0  # RFC 9562, appendix A.6


@pytest.mark.parametrize(
    "id",
    [
        "order-17",
        "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
        "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-18c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f ",
        "017f22e279b07cc398c4dc0c0c07398f",
        "",
    ],
)
def test_an_id_that_is_no_lowercase_uuid7_carries_no_time(id: str) -> None:
    assert time_of(id) is None


# Names of rows.


@unhurried
@given(names, st.lists(names, min_size=1, max_size=3))
def test_row_name_says_the_row(table: str, key: list[str]) -> None:
    assert parse_row(row_name(table, [to_value(part) for part in key])) == (table, key)


def test_row_name_escapes_slashes_only() -> None:
    assert row_name("a/b", [Value(text="50%"), Value(text="%2F"), Value(integer=7)]) == "a%2Fb/50%/%252F/7"


@pytest.mark.parametrize("text", ["accounts", "accounts/", "/alice", "a//b", ""])
def test_row_without_table_or_key_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput, match="table/key"):
        parse_row(text)


# Transactions in Python.


def test_positions_count_through_the_whole_transaction() -> None:
    transaction = Transaction(id="t").at("p2").read("a", 1).at("p1").read("b", 2).at("p2").delete("a", 3)
    request = transaction.to_request(wait_applied=True, tag=7)
    assert [branch.participant for branch in request.branches] == ["p2", "p1"]  # In the order of first use.
    assert [[o.position for o in branch.operations.operations] for branch in request.branches] == [[0, 2], [1]]
    assert (request.id, request.wait_applied, request.tag, request.timeout_s) == ("t", True, 7, 0.0)


def test_columns_are_sorted_so_that_the_same_content_has_the_same_bytes() -> None:
    one, other = operations.insert("t", 1, {"b": 1, "a": 2}), operations.insert("t", 1, {"a": 2, "b": 1})
    assert one.SerializeToString() == other.SerializeToString()
    assert [column.name for column in one.insert.values] == ["a", "b"]


def test_a_transaction_has_one_id_for_all_its_submissions() -> None:
    transaction = Transaction().at("p1").read("t", 1)
    assert transaction.to_request().id == transaction.to_request().id
    assert time_of(transaction.id) is not None
    assert Transaction().id != transaction.id


def test_append_leaves_the_given_operation_as_it_was() -> None:
    operation = operations.read("t", 1)
    Transaction().append("p1", operations.read("t", 0)).append("p2", operation)
    assert operation.position == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Transaction().to_request(), "at least one operation"),
        (lambda: Transaction().read("t", 1), "name the participant first"),
        (lambda: Transaction(id=""), "id"),
        (lambda: Transaction(timeout_s=0), "above 0"),
        (lambda: Transaction(timeout_s=float("inf")), "above 0"),
        (lambda: operations.update("t", 1, {}), "at least one column"),
        (lambda: operations.read("", 1), "table"),
        (lambda: operations.read("t", []), "at least one value"),
        (lambda: operations.read("t", None), "never NULL"),
        (lambda: operations.read("t", ["a", None]), "never NULL"),
        (lambda: operations.add("t", 1, "c", True), "by is a number"),
        (lambda: operations.add("t", 1, "c", 1, min="0"), "min is a number"),  # type: ignore[arg-type]
        (lambda: operations.check("t", 1), "exactly one"),
        (lambda: operations.check("t", 1, "c", equals=1, at_least=0), "exactly one"),
        (lambda: operations.check("t", 1, "c", exists=True), "none with exists"),
        (lambda: operations.check("t", 1, equals=1), "a column with"),
        (lambda: operations.check("t", 1, "c", at_most=None), "not NULL"),
        (lambda: operations.custom("pay", {1, 2}), "JSON"),
        (lambda: operations.sql(""), "expected a statement"),
        (lambda: operations.sql("SELECT '\0'"), "NUL"),
        (lambda: operations.sql("SELECT %s", "x"), "a sequence of values"),
        (lambda: operations.sql("SELECT %s", [{1}]), "not set"),
        (lambda: operations.sql("SELECT 1", rows=-1), "a count of rows"),
        (lambda: operations.sql("SELECT 1", rows=True), "a count of rows"),
        (lambda: operations.sql("SELECT 1", rows=2**63), "a count of rows"),
    ],
)
def test_malformed_operations_are_bad_input(make: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


# Text.

SAME = [
    (
        "insert accounts/alice owner=alice balance:=5",
        operations.insert("accounts", "alice", {"owner": "alice", "balance": 5}),
    ),
    ("insert accounts/alice", operations.insert("accounts", "alice")),
    ("update accounts/alice 'note=a b' x:=null", operations.update("accounts", "alice", {"note": "a b", "x": None})),
    ("upsert stock/berlin/widget pieces:=1.5", operations.upsert("stock", ["berlin", "widget"], {"pieces": 1.5})),
    ("delete a%2Fb/c%2Fd", operations.delete("a/b", "c/d")),
    ("add accounts/alice balance -100 min=0", operations.add("accounts", "alice", "balance", -100, min=0)),
    ("add accounts/alice balance 1.5 max=1e3", operations.add("accounts", "alice", "balance", 1.5, max=1000.0)),
    ("check accounts/alice balance=7", operations.check("accounts", "alice", "balance", equals="7")),
    ("check accounts/alice balance:=7", operations.check("accounts", "alice", "balance", equals=7)),
    ("check accounts/alice balance>=7", operations.check("accounts", "alice", "balance", at_least="7")),
    ("check accounts/alice balance<=7", operations.check("accounts", "alice", "balance", at_most="7")),
    ("check accounts/alice exists", operations.check("accounts", "alice", exists=True)),
    ("check accounts/alice absent", operations.check("accounts", "alice", exists=False)),
    ("read accounts/17", operations.read("accounts", "17")),
    ("sql 'DELETE FROM t'", operations.sql("DELETE FROM t")),
    (
        "sql 'UPDATE t SET a = %s WHERE b = %s' rows=0 =5 :=5",
        operations.sql("UPDATE t SET a = %s WHERE b = %s", ["5", 5], rows=0),
    ),
    ("sql 'SELECT a FROM t' read-only = rows=1", operations.sql("SELECT a FROM t", [""], rows=1, read_only=True)),
    ("insert t/1 empty= url=http://x/?a=b", operations.insert("t", "1", {"empty": "", "url": "http://x/?a=b"})),
    (
        """insert t/1 'b:={"$base64": true, "encoded": "AAE="}'""",
        operations.insert("t", "1", {"b": b"\0\1"}),
    ),
]


@pytest.mark.parametrize(("text", "expected"), SAME)
def test_text_says_what_the_builder_makes(text: str, expected: Operation) -> None:
    assert parse_operation(f"p1: {text}") == ("p1", expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "token 1: expected a participant"),
        ("p1 add a/b c 1", "token 1: expected a participant and a colon"),
        ("p1:", "token 2: expected one of insert"),
        ("p1: ad a/b c 1", "token 2: .*did you mean add"),
        ("p1: add", "token 3: expected a row as table/key, found nothing"),
        ("p1: add alice c 1", "token 3: expected a row as table/key"),
        ("p1: add a/b", "token 4: expected the column to add to"),
        ("p1: add a/b c", "token 5: expected the number to add, found nothing"),
        ("p1: add a/b c ten", "token 5: expected a number, found 'ten'"),
        ("p1: add a/b c nan", "token 5: expected a number"),
        ("p1: add a/b c 1 low=0", "token 6: expected min=NUMBER or max=NUMBER"),
        ("p1: add a/b c 1 min=0 min=1", "token 7: expected min=NUMBER or max=NUMBER, each once"),
        ("p1: add a/b c 9223372036854775808", "token 5: .*64 bits"),
        (f"p1: add a/b c {'9' * 5000}", "token 5: .*finite"),
        ("p1: insert a/b c", "token 4: expected column=text or column:=json, found 'c'"),
        ("p1: insert a/b c>=1", "token 4: expected column=text or column:=json"),
        ("p1: insert a/b c=1 c=2", "token 5: column 'c' is set twice"),
        ("p1: insert a/b c:={", "token 4: not JSON"),
        ("p1: insert a/b c:=[1]", "token 4: expected one value, found a list"),
        ("p1: insert a/b c:=NaN", "token 4: .*finite"),
        ("p1: insert a/b 'c", "No closing quotation"),
        ("p1: update a/b", "token 3: update: expected at least one column"),
        ("p1: check a/b", "token 4: expected column=value"),
        ("p1: check a/b c>1", "token 4: expected column=value"),
        ("p1: check a/b exists now", "token 5: expected nothing more, found 'now'"),
        ("p1: read a/b c", "token 4: expected nothing more"),
        ("p1: sql", "token 3: expected a statement, in quotes, found nothing"),
        ("p1: sql DELETE FROM t", "token 4: expected a parameter as =text or :=json, rows=COUNT or read-only"),
        ("p1: sql DELETE rows=-1", "token 4: expected a parameter"),
        ("p1: sql DELETE rows=1 rows=1", "token 5: expected a parameter"),
        ("p1: sql SELECT :={", "token 4: not JSON"),
    ],
)
def test_an_error_in_text_says_which_token_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_operation(text)


@unhurried
@given(st.text())
def test_any_text_is_an_operation_or_bad_input(text: str) -> None:
    try:
        parse_operation(text)
    except BadInput:
        return


def test_operations_in_text_make_one_transaction() -> None:
    transaction = transaction_of(["p1: add a/x n -1", "p2: add a/y n 1"], id="t", timeout_s=2.0)
    assert transaction.operations[1][1].position == 1
    assert (transaction.id, transaction.timeout_s) == ("t", 2.0)


# JSON Lines.


def _json_of(operation: Operation) -> dict[str, Any]:
    """An operation as its author would write it in JSON; the inverse of what is tested."""
    kind = operation.WhichOneof("kind") or ""
    body: dict[str, Any] = {"table": operation.table, "key": [value_to_json(part) for part in operation.key]}
    found = getattr(operation, kind)
    if kind in ("insert", "update", "upsert"):
        body["values"] = {column.name: value_to_json(column.value) for column in found.values}
    elif kind in ("add", "check"):
        for field, value in found.ListFields():
            body[field.name] = value_to_json(value) if isinstance(value, Value) else value
        if found.HasField("exists") if kind == "check" else False:
            body["exists"] = found.exists
    elif kind == "sql":
        listed = [value_to_json(value) for value in found.parameters]
        body = {"statement": found.statement, "parameters": listed, "read_only": found.read_only}
        body |= {"rows": found.rows} if found.HasField("rows") else {}
    return {kind: body}


numbers = st.integers(INTEGER_MIN, INTEGER_MAX) | st.floats(allow_nan=False, allow_infinity=False)
columns = st.dictionaries(names, scalars, min_size=1, max_size=4)
any_operation = st.one_of(
    st.builds(operations.insert, names, keys, columns),
    st.builds(operations.update, names, keys, columns),
    st.builds(operations.upsert, names, keys, columns),
    st.builds(operations.delete, names, keys),
    st.builds(operations.read, names, keys),
    st.builds(operations.add, names, keys, names, numbers, min=st.none() | numbers, max=st.none() | numbers),
    st.builds(operations.check, names, keys, names, equals=scalars),
    st.builds(operations.check, names, keys, exists=st.booleans()),
    st.builds(
        operations.sql,
        names,
        st.lists(scalars, max_size=3),
        rows=st.none() | st.integers(0, INTEGER_MAX),
        read_only=st.booleans(),
    ),
)


@unhurried
@given(names, st.lists(st.tuples(names, any_operation), min_size=1, max_size=4))
def test_json_line_says_what_the_builder_makes(id: str, written: list[tuple[str, Operation]]) -> None:
    expected = Transaction(id)
    for participant, operation in written:
        expected.append(participant, operation)
    line = json.dumps({"id": id, "operations": [{"participant": p, **_json_of(o)} for p, o in written]})
    assert parse_transaction(line).to_request() == expected.to_request()


def test_json_line_of_the_documentation() -> None:
    line = (
        '{"id": "order-17", "timeout_s": 5, "operations": [{"participant": "p1", "add": '
        '{"table": "accounts", "key": "alice", "column": "balance", "by": -100, "min": 0}}]}'
    )
    expected = Transaction("order-17", 5).at("p1").add("accounts", "alice", "balance", -100, min=0)
    assert parse_transaction(line).to_request() == expected.to_request()


def _column_of(line: str, mark: str) -> int:
    return line.index(mark) + 1


@pytest.mark.parametrize(
    ("line", "mark", "message"),
    [
        ('{"operations": [', "", "not JSON"),
        ('{"operatoins": []}', '"operatoins"', "unknown key 'operatoins'; did you mean 'operations'"),
        ('{"id": "x", "id": "y"}', '"id": "y"', "the key 'id' comes twice"),
        ('{"a": {"x": 1, "y": [{"z": 1, "z": 2}]}}', '"z": 2', "the key 'z' comes twice"),
        ('{"operations": []}', "[]", "at least one operation"),
        ('{"id": 17, "operations": []}', "17", "expected text, found a number"),
        ('{"id": "", "operations": []}', '""', "expected text, found empty text"),
        ('{"timeout_s": "5", "operations": []}', '"5"', "seconds above 0"),
        ('{"operations": [{"participant": "p1"}]}', '{"participant"', "exactly one of insert"),
        ('{"operations": [{"read": {"table": "t", "key": 1}}]}', '{"read"', "the key 'participant' is missing"),
        ('{"operations": [{"participant": "p", "read": {"key": 1}}]}', '{"key"', "the key 'table' is missing"),
        ('{"operations": [{"participant": "p", "read": {"table": "t", "key": null}}]}', "null", "never NULL"),
        ('{"operations": [{"participant": "p", "read": {"table": "t", "key": NaN}}]}', "NaN", "finite"),
        ('{"operations": [{"participant": "p", "read": {"table": "t", "key": 1e999}}]}', "1e999", "finite"),
        (
            '{"operations": [{"participant": "p", "read": {"table": "t", "key": [1, {}]}}]}',
            "{}",
            "'\\$base64' is missing",
        ),
        (
            '{"operations": [{"participant":"p","upsert":{"table":"t","key":1,"values":{"é": 9223372036854775808}}}]}',
            "9223372036854775808",
            "64 bits",
        ),
        (
            '{"operations": [{"participant": "p", "add": {"table": "t", "key": 1, "column": "c", "by": "1"}}]}',
            '"1"',
            "expected a number, found text",
        ),
        (
            '{"operations": [{"participant": "p", "check": {"table": "t", "key": 1, "exists": 1}}]}',
            "1}",
            "expected true or false",
        ),
        (
            '{"operations": [{"participant": "p", "sql": {"statement": "x", "parameters": [1, [2]]}}]}',
            "[2]",
            "one value",
        ),
        (
            '{"operations": [{"participant": "p", "sql": {"statement": "x", "parameters": 7}}]}',
            "7}",
            "a list of values",
        ),
        ('{"operations": [{"participant": "p", "sql": {"statement": "x", "rows": 1.5}}]}', "1.5", "a count of rows"),
        ('{"operations": [{"participant": "p", "sql": {"rows": 1}}]}', '{"rows"', "'statement' is missing"),
        ("[1]", "[1]", "expected an object, found a list"),
    ],
)
def test_an_error_in_json_says_line_and_column(line: str, mark: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_transactions([b"\n", line.encode()], "orders.jsonl")
    column = _column_of(line, mark) if mark else len(line) + 1
    assert str(caught.value).startswith(f"orders.jsonl:2:{column}: ")


def test_a_number_of_many_digits_is_bad_input() -> None:
    line = '{"operations": [{"participant": "p", "read": {"table": "t", "key": %s}}]}' % ("9" * 10_000)
    with pytest.raises(BadInput, match="64 bits"):
        parse_transaction(line)


def test_text_that_is_not_utf8_or_nested_too_deeply_is_bad_input() -> None:
    with pytest.raises(BadInput, match="f:1:2: not UTF-8"):
        read_transactions([b"{\xff}"], "f")
    with pytest.raises(BadInput, match="too deeply"):
        parse_transaction("[" * 100_000)


@unhurried
@given(st.text())
def test_any_line_is_a_transaction_or_bad_input(line: str) -> None:
    try:
        parse_transaction(line)
    except BadInput:
        return


def _line(id: str, by: int) -> bytes:
    add = {"table": "t", "key": 1, "column": "c", "by": by}
    return json.dumps({"id": id, "operations": [{"participant": "p1", "add": add}]}).encode()


def test_the_same_id_with_the_same_content_is_one_transaction() -> None:
    found = read_transactions([_line("a", 1), _line("b", 1), _line("a", 1)], "f")
    assert [transaction.id for transaction in found] == ["a", "b"]


def test_the_same_id_with_other_content_is_bad_input() -> None:
    with pytest.raises(BadInput, match="f:3: the id 'a' is that of line 1, with other operations"):
        read_transactions([_line("a", 1), _line("b", 1), _line("a", 2)], "f")


def test_the_files_timeout_is_for_lines_without_their_own() -> None:
    line = b'{"timeout_s": 5, "operations": [{"participant": "p", "read": {"table": "t", "key": 1}}]}'
    found = read_transactions([line, _line("b", 1)], "f", timeout_s=9.0)
    assert [transaction.timeout_s for transaction in found] == [5.0, 9.0]


def test_a_custom_operation_carries_its_body_as_json() -> None:
    line = (
        '{"operations": [{"participant": "p", "custom": {"name": "pay", "body": {"a": [1, null]}, "read_only": true}}]}'
    )
    custom = parse_transaction(line).operations[0][1].custom
    assert (custom.name, json.loads(custom.body), custom.read_only) == ("pay", {"a": [1, None]}, True)


def test_a_blob_is_written_as_sqlite_utils_writes_it() -> None:
    encoded = base64.b64encode(b"\0\xff").decode()
    assert value_to_json(Value(blob=b"\0\xff")) == {"$base64": True, "encoded": encoded}


@pytest.mark.parametrize("key", [b"ab", bytearray(b"ab"), memoryview(b"ab")])
def test_bytes_of_any_kind_are_one_value_of_a_key(key: Any) -> None:
    assert [part.blob for part in operations.read("t", key).key] == [b"ab"]


def test_a_row_of_a_statement_is_shown_without_a_table_and_a_key() -> None:
    message = types_pb2.Row(position=2, participant="p1", present=True)
    message.values.add(name="total").value.integer = 5
    row = Row.of(message)
    assert row_json(row) == {"participant": "p1", "operation": 2, "present": True, "values": {"total": 5}}
    assert row_text(row) == "p1 total=5"
