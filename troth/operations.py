"""Operations and transactions as an application writes them in Python.

The functions make the protobuf `Operation` itself, there is no second model of it; `Transaction` gathers them for
several participants and gives the request that is sent. Text and JSON Lines forms are in `troth.cli.text` and
`troth.cli.jsonlines`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self, TypeAlias

from troth.errors import BadInput
from troth.ids import new_id
from troth.v1 import types_pb2
from troth.v1.coordinator_pb2 import SubmitRequest
from troth.v1.types_pb2 import Branch, Operation, Value
from troth.values import INTEGER_MAX, Scalar, checked_text, set_value, to_value, value_text

Key: TypeAlias = Scalar | Sequence[Scalar]
"""A primary key: its only value, or one value for each column in primary-key order."""


class _Unset:
    """The type of UNSET: None means NULL, so something else must mean "not given"."""


UNSET: Final = _Unset()

_ONE_VALUE = (str, int, float, bytes, bytearray, memoryview)
"""What is never several values, although some are sequences."""


def insert(table: str, key: Key, values: Mapping[str, Scalar] | None = None) -> Operation:
    """Adds a row; NO when the key is there. Key columns need not be repeated in `values`; if they are, they agree."""
    operation = _on(table, key)
    operation.insert.SetInParent()
    _set_columns(operation.insert.values, values or {})
    return operation


def update(table: str, key: Key, values: Mapping[str, Scalar]) -> Operation:
    """Changes columns of a row; NO when it is missing. Key columns cannot change."""
    if not values:
        raise BadInput("update: expected at least one column to set")
    operation = _on(table, key)
    _set_columns(operation.update.values, values)
    return operation


def upsert(table: str, key: Key, values: Mapping[str, Scalar] | None = None) -> Operation:
    """Inserts the row, or changes the named columns when its key is there."""
    operation = _on(table, key)
    operation.upsert.SetInParent()
    _set_columns(operation.upsert.values, values or {})
    return operation


def delete(table: str, key: Key) -> Operation:
    """Removes a row; NO when it is missing."""
    operation = _on(table, key)
    operation.delete.SetInParent()
    return operation


def add(
    table: str,
    key: Key,
    column: str,
    by: int | float,
    *,
    min: int | float | None = None,
    max: int | float | None = None,
) -> Operation:
    """Adds `by` to a column; NO when the row is missing, the column is NULL, or the sum would leave [min, max]."""
    operation = _on(table, key)
    made = operation.add
    made.column = _named(column, "a column's name")
    _set_number(made.by, by, "by")
    if min is not None:
        _set_number(made.min, min, "min")
    if max is not None:
        _set_number(made.max, max, "max")
    return operation


def check(
    table: str,
    key: Key,
    column: str | None = None,
    *,
    equals: Scalar | _Unset = UNSET,
    at_least: Scalar | _Unset = UNSET,
    at_most: Scalar | _Unset = UNSET,
    exists: bool | None = None,
) -> Operation:
    """Requires something of a row, changing nothing: how a column compares, or with `exists` that the row is there
    (True) or not (False). NULL equals NULL; at least and at most are false for NULL."""
    given: dict[str, Any] = {"equals": equals, "at_least": at_least, "at_most": at_most}
    wanted = {name: to_value(value) for name, value in given.items() if not isinstance(value, _Unset)}
    if len(wanted) + (exists is not None) != 1:
        raise BadInput("check: expected exactly one of equals, at_least, at_most and exists")
    if (column is None) != (exists is not None):
        raise BadInput("check: expected a column with equals, at_least or at_most, and none with exists")
    if any(value.HasField("null") for name, value in wanted.items() if name != "equals"):
        raise BadInput("check: at_least and at_most need a value, not NULL")
    named = "" if column is None else _named(column, "a column's name")
    operation = _on(table, key)
    operation.check.CopyFrom(types_pb2.Check(column=named, exists=exists, **wanted))
    return operation


def read(table: str, key: Key) -> Operation:
    """Brings the row back with the outcome, under a shared lock."""
    operation = _on(table, key)
    operation.read.SetInParent()
    return operation


def custom(name: str, body: Any = None, *, read_only: bool = False) -> Operation:
    """An operation of a user's own resource; `body` is anything that JSON can say. `read_only` promises that it leaves
    the resource as it was."""
    try:
        text = json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"custom {name}: the body must be JSON: {error}") from error
    checked = checked_text(_named(name, "the operation's name"))
    return Operation(custom=types_pb2.Custom(name=checked, body=text, read_only=read_only))


def sql(
    statement: str, parameters: Iterable[Scalar] = (), *, rows: int | None = None, read_only: bool = False
) -> Operation:
    """A statement of the database's own, at a participant in front of PostgreSQL or MariaDB: `%s` where a parameter
    goes, `%%` for a percent sign. NO when it fails, or touches other than `rows` rows. With `read_only` it may only
    read, and the rows it finds come back with the outcome."""
    if isinstance(parameters, _ONE_VALUE):
        raise BadInput(f"sql: the parameters are a sequence of values, found {parameters!r}")
    made = Operation()
    made.sql.statement = checked_text(_named(statement, "a statement"), "a statement")
    for parameter in parameters:
        set_value(made.sql.parameters.add(), parameter)
    if rows is not None:
        made.sql.rows = row_count(rows)
    made.sql.read_only = read_only
    return made


def row_count(found: int) -> int:
    """A count of rows. Raises BadInput."""
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= INTEGER_MAX:
        raise BadInput(f"expected a count of rows, found {found!r}")
    return found


def _on(table: str, key: Key) -> Operation:
    """What all kinds have. The kind is then set in place: a part that is handed to a constructor would be copied."""
    operation = Operation()
    operation.table = _named(table, "a table's name")
    for part in _key_parts(key):
        set_value(operation.key.add(), part)
    return operation


def _named(found: str, what: str) -> str:
    if not isinstance(found, str) or not found:
        raise BadInput(f"expected {what}, found {found!r}")
    return checked_text(found, what)


def _set_number(value: Value, found: int | float, what: str) -> None:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise BadInput(f"add: {what} is a number, found {found!r}")
    set_value(value, found)


def _set_columns(columns: Any, values: Mapping[str, Scalar]) -> None:
    """By ascending name, so that the same content has the same bytes."""
    for name in sorted(values):
        column = columns.add()
        column.name = _named(name, "a column's name")
        set_value(column.value, values[name])


def key_values(key: Key) -> list[Value]:
    """The key's values in primary-key order. Raises BadInput for an empty key and for NULL in it."""
    return [to_value(part) for part in _key_parts(key)]


def _key_parts(key: Key) -> Sequence[Any]:
    if isinstance(key, _ONE_VALUE):
        return (key,)
    parts: Sequence[Any] = key if isinstance(key, Sequence) else (key,)
    if not parts:
        raise BadInput("a key has at least one value")
    if any(part is None for part in parts):
        raise BadInput("a key is never NULL")
    return parts


# The name of a row, as people write it: accounts/alice, stock/berlin/widget.


def row_name(table: str, key: Iterable[Value]) -> str:
    """`accounts/alice`: a slash inside is written %2F, and a % before 2F or 25 is written %25."""
    parts = [part.text if part.HasField("text") else value_text(part) for part in key]
    return "/".join(_escaped(part) for part in [table, *parts])


def parse_row(text: str) -> tuple[str, list[str]]:
    """The table and the key's values, as text, that a row's name says. Raises BadInput."""
    table, *key = [re.sub("%(2F|25)", _unescaped, part, flags=re.IGNORECASE) for part in text.split("/")]
    if not key or not table or "" in key:
        raise BadInput(f"expected a row as table/key (a slash inside is %2F), found {text!r}")
    return table, key


def _escaped(part: str) -> str:
    return re.sub("%(?=2F|25)", "%25", part, flags=re.IGNORECASE).replace("/", "%2F")


def _unescaped(match: re.Match[str]) -> str:
    return "%" if match[1] == "25" else "/"


class Transaction:
    """One transaction to be submitted: operations at participants, in the order in which they are written.

    >>> transfer = Transaction().at("p1").add("accounts", "alice", "balance", -100, min=0)
    >>> transfer.at("p2").add("accounts", "bob", "balance", 100)

    It has an id from the start (`id`, or a new UUIDv7), so submitting the same object again never runs it twice.
    `timeout_s` is how long the coordinator tries before it aborts; None leaves that to the client."""

    def __init__(self, id: str | None = None, timeout_s: float | None = None) -> None:
        self.id = new_id() if id is None else _named(id, "a transaction's id")
        self.timeout_s = None if timeout_s is None else checked_timeout(timeout_s)
        self.operations: list[tuple[str, Operation]] = []
        """Participant and operation; each operation's `position` is its index here."""
        self._participant: str | None = None

    def at(self, participant: str) -> Self:
        """What is written next runs there."""
        self._participant = _named(participant, "a participant's name")
        return self

    def insert(self, table: str, key: Key, values: Mapping[str, Scalar] | None = None) -> Self:
        """See `troth.operations.insert`."""
        return self._then(insert(table, key, values))

    def update(self, table: str, key: Key, values: Mapping[str, Scalar]) -> Self:
        """See `troth.operations.update`."""
        return self._then(update(table, key, values))

    def upsert(self, table: str, key: Key, values: Mapping[str, Scalar] | None = None) -> Self:
        """See `troth.operations.upsert`."""
        return self._then(upsert(table, key, values))

    def delete(self, table: str, key: Key) -> Self:
        """See `troth.operations.delete`."""
        return self._then(delete(table, key))

    def add(
        self,
        table: str,
        key: Key,
        column: str,
        by: int | float,
        *,
        min: int | float | None = None,
        max: int | float | None = None,
    ) -> Self:
        """See `troth.operations.add`."""
        return self._then(add(table, key, column, by, min=min, max=max))

    def check(
        self,
        table: str,
        key: Key,
        column: str | None = None,
        *,
        equals: Scalar | _Unset = UNSET,
        at_least: Scalar | _Unset = UNSET,
        at_most: Scalar | _Unset = UNSET,
        exists: bool | None = None,
    ) -> Self:
        """See `troth.operations.check`."""
        return self._then(check(table, key, column, equals=equals, at_least=at_least, at_most=at_most, exists=exists))

    def read(self, table: str, key: Key) -> Self:
        """See `troth.operations.read`."""
        return self._then(read(table, key))

    def custom(self, name: str, body: Any = None, *, read_only: bool = False) -> Self:
        """See `troth.operations.custom`."""
        return self._then(custom(name, body, read_only=read_only))

    def sql(
        self, statement: str, parameters: Iterable[Scalar] = (), *, rows: int | None = None, read_only: bool = False
    ) -> Self:
        """See `troth.operations.sql`."""
        return self._then(sql(statement, parameters, rows=rows, read_only=read_only))

    def _then(self, operation: Operation) -> Self:
        if self._participant is None:
            raise BadInput('name the participant first: Transaction().at("p1")')
        self._place(self._participant, operation)
        return self

    def append(self, participant: str, operation: Operation) -> Self:
        """Adds an operation made elsewhere, as a copy with its position in this transaction."""
        placed = Operation()
        placed.CopyFrom(operation)
        self._place(_named(participant, "a participant's name"), placed)
        return self

    def _place(self, participant: str, operation: Operation) -> None:
        operation.position = len(self.operations)
        self.operations.append((participant, operation))

    def branches(self) -> list[Branch]:
        """One branch for each participant, in the order of first use. Raises BadInput when there is no operation."""
        return list(self.to_request().branches)

    def to_request(self, *, wait_applied: bool = False, tag: int = 0) -> SubmitRequest:
        """The message to send; `timeout_s` is 0 (the coordinator's default) when none was given. Raises BadInput when
        there is no operation."""
        if not self.operations:
            raise BadInput("a transaction has at least one operation")
        request = SubmitRequest(id=self.id, timeout_s=self.timeout_s or 0.0, wait_applied=wait_applied, tag=tag)
        placed: dict[str, Any] = {}
        for participant, operation in self.operations:
            operations = placed.get(participant)
            if operations is None:
                branch = request.branches.add()
                branch.participant = participant
                operations = placed[participant] = branch.operations.operations
            operations.append(operation)
        return request


def checked_timeout(found: float) -> float:
    """Seconds, more than zero and finite. Raises BadInput."""
    right_type = isinstance(found, int | float) and not isinstance(found, bool)
    if not (right_type and math.isfinite(found) and found > 0):
        raise BadInput(f"a timeout is a number of seconds above 0, found {found!r}")
    return float(found)
