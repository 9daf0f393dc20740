"""What operations name, held against a catalog: a row of a table that is served, its columns, their values; and how the
rows deny it.

Every resource plans and refuses by this, so that what is wrong with an operation is said in the same words everywhere.
What a catalog's tables and columns are is the resource's own matter; what is asked of them here is below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from google.protobuf.message import DecodeError

from participant.resources import LockName, No
from participant.resources.catalog import Refused
from participant.resources.conversion import Unfit
from troth import reasons
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code, Value
from troth.values import value_text

SIGNS = {"equals": "", "at_least": "at least ", "at_most": "at most "}
"""How a column is compared, and how that is said."""


class Column(Protocol):
    """A column, as far as operations need it."""

    @property
    def name(self) -> str: ...

    @property
    def nullable(self) -> bool: ...

    @property
    def generated(self) -> bool: ...

    def to_sql(self, value: Value) -> Any:
        """The value as the column holds it, in the one way in which it is written, so that it can name a lock; None for
        NULL. Raises Unfit."""

    def to_value(self, raw: Any) -> Value:
        """What was found in the column, as the wire has it."""


C = TypeVar("C", bound=Column)
C_co = TypeVar("C_co", bound=Column, covariant=True)


class Table(Protocol[C_co]):
    """A table that is served."""

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> Mapping[str, C_co]: ...

    @property
    def key(self) -> tuple[C_co, ...]: ...

    def column(self, name: str) -> C_co | None: ...


T = TypeVar("T", bound=Table[Any])
T_co = TypeVar("T_co", bound=Table[Any], covariant=True)


class Catalog(Protocol[T_co]):
    """All tables, by the names that operations may use."""

    def table(self, name: str) -> T_co | None: ...

    def why_refused(self, name: str) -> Refused | None: ...


class Target(NamedTuple, Generic[T_co]):
    """The row that an operation is about."""

    position: int
    table: T_co
    key: tuple[Any, ...]
    """As the columns hold it."""
    name: LockName

    def no(
        self, code: Code, message: str, column: str = "", required: Value | None = None, found: Value | None = None
    ) -> No:
        """A NO about this row, with what is known of it and nothing of any other."""
        extras = {"required": required, "found": found}
        fields = {name: value for name, value in extras.items() if value is not None}
        return _no(code, message, self.position, self.table.name, self.values(), column=column, **fields)

    def missing(self) -> No:
        return self.no(Code.CODE_ROW_MISSING, f"there is no {self.label()}")

    def there(self) -> No:
        return self.no(Code.CODE_ROW_EXISTS, f"{self.label()} is there already")

    def values(self) -> list[Value]:
        """The key as the wire shows it."""
        return [column.to_value(raw) for raw, column in zip(self.key, self.table.key, strict=True)]

    def named(self) -> dict[str, Any]:
        """The key's columns."""
        return {column.name: raw for column, raw in zip(self.table.key, self.key, strict=True)}

    def label(self) -> str:
        """The row as people write it."""
        parts = (value_text(value).replace("%", "%25").replace("/", "%2F") for value in self.values())
        return "/".join([self.table.name, *parts])

    def row(self, raws: Sequence[Any] | None) -> types_pb2.Row:
        """The row as it came back, every column in the table's order; None when it is absent."""
        row = types_pb2.Row(position=self.position, table=self.table.name, key=self.values(), present=raws is not None)
        if raws is not None:
            for column, raw in zip(self.table.columns.values(), raws, strict=True):
                row.values.add(name=column.name, value=column.to_value(raw))
        return row


class Check(NamedTuple, Generic[C]):
    """What a `check` requires of a row: its presence (`column` None), or how a column compares."""

    target: Target[Any]
    column: C | None
    sign: str
    """A key of SIGNS, or "exists"."""
    wanted: Any

    def denied_presence(self) -> No:
        """The row is there, and should not be; or the other way round."""
        present = not self.wanted
        message = f"{self.target.label()} is {'there' if present else 'not there'}"
        required, found = Value(boolean=bool(self.wanted)), Value(boolean=present)
        return self.target.no(Code.CODE_CHECK_FAILED, message, "", required, found)

    def denied_missing(self) -> No:
        """There is no row whose column could compare."""
        assert self.column is not None
        return self.target.no(Code.CODE_CHECK_FAILED, f"there is no {self.target.label()}", self.column.name)

    def denied(self, raw: Any) -> No:
        """The column holds `raw` instead."""
        assert self.column is not None
        column, target = self.column, self.target
        required, found = column.to_value(self.wanted), column.to_value(raw)
        wanted, held = value_text(required), value_text(found)
        message = f"column {column.name} of {target.label()} is {held}, not {SIGNS[self.sign]}{wanted}"
        return target.no(Code.CODE_CHECK_FAILED, message, column.name, required, found)


def decoded(operations: bytes) -> Sequence[types_pb2.Operation]:
    """The operations of a branch, at least one. Raises No."""
    try:
        found = types_pb2.Operations.FromString(operations).operations
    except DecodeError as error:
        raise No(reasons.reason(Code.CODE_BAD_REQUEST, "the operations cannot be decoded")) from error
    if not found:
        raise No(reasons.reason(Code.CODE_BAD_OPERATION, "a branch needs at least one operation"))
    return found


def target_of(catalog: Catalog[T], position: int, name: str, key: Sequence[Value]) -> Target[T]:
    """The row that a table's name and key values mean. Raises No."""
    table = catalog.table(name)
    if table is None:
        raise _no_table(catalog, position, name, key)
    if len(key) != len(table.key):
        names = ", ".join(column.name for column in table.key)
        message = f"the key of {table.name} is ({names}): {len(key)} values were given"
        raise _no(Code.CODE_BAD_KEY, message, position, table.name, key)
    parts = []
    for column, value in zip(table.key, key[:], strict=True):  # a slice of protobuf's is a list, quicker to go through
        try:
            part = column.to_sql(value)
        except Unfit as error:
            message = f"key column {column.name}: {error}"
            raise _no(
                Code.CODE_WRONG_TYPE, message, position, table.name, key, column=column.name, found=value
            ) from error
        if part is None:
            message = f"key column {column.name} may not be NULL"
            raise _no(Code.CODE_BAD_KEY, message, position, table.name, key, column=column.name)
        parts.append(part)
    return Target(position, table, tuple(parts), ("row", table.name, *parts))


def column_of(target: Target[Table[C]], name: str, *, to_set: bool = True) -> C:
    """The column that an operation names. Raises No."""
    column = target.table.column(name)
    if column is None:
        raise target.no(Code.CODE_NO_SUCH_COLUMN, f"table {target.table.name} has no column {name}", name)
    if to_set and column.generated:
        raise target.no(Code.CODE_BAD_OPERATION, f"column {column.name} is generated", column.name)
    return column


def fitted(target: Target[Any], column: Column, convert: Callable[[Value], Any], value: Value) -> Any:
    """The value as `convert` has it for this column. Raises No."""
    try:
        return convert(value)
    except Unfit as error:
        raise target.no(Code.CODE_WRONG_TYPE, f"column {column.name}: {error}", column.name, found=value) from error


def named(target: Target[Any], values: Sequence[types_pb2.Column]) -> dict[str, Any]:
    """The columns named by an operation, converted, without those of the key, which must agree. Raises No."""
    found: dict[str, Any] = {}
    key = target.named()
    for each in values[:]:
        column = column_of(target, each.name)
        if column.name in found:
            raise target.no(Code.CODE_BAD_OPERATION, f"column {column.name} is named twice", column.name)
        raw = fitted(target, column, column.to_sql, each.value)
        if column.name in key and key[column.name] != raw:
            raise target.no(Code.CODE_BAD_KEY, f"column {column.name} disagrees with the key", column.name)
        if raw is None and not column.nullable:
            raise target.no(Code.CODE_NOT_NULL, f"column {column.name} may not be NULL", column.name)
        found[column.name] = raw
    return {name: raw for name, raw in found.items() if name not in key}


def named_to_update(target: Target[Any], values: Sequence[types_pb2.Column]) -> dict[str, Any]:
    """The same of an update, which names one at least."""
    found = named(target, values)
    if not found:
        raise target.no(Code.CODE_BAD_OPERATION, "an update needs a column that is not of the key")
    return found


def required(target: Target[Table[C]], check: types_pb2.Check) -> tuple[C | None, str, Any]:
    """What a `check` requires: the column, None for the row's presence; how it is compared; and with what. Raises
    No."""
    sign = check.WhichOneof("requirement")
    if sign is None or (sign == "exists") == bool(check.column):
        raise target.no(Code.CODE_BAD_OPERATION, "a check needs a column and a value, or exists", check.column)
    if sign == "exists":
        return None, sign, check.exists
    column = column_of(target, check.column, to_set=False)
    value: Value = getattr(check, sign)
    if sign != "equals" and value.WhichOneof("kind") == "null":
        raise target.no(Code.CODE_BAD_OPERATION, f"nothing is {SIGNS[sign]}NULL", column.name)
    return column, sign, fitted(target, column, column.to_sql, value)


def _no_table(catalog: Catalog[Any], position: int, name: str, key: Sequence[Value]) -> No:
    refused = catalog.why_refused(name)
    if refused is None:
        return _no(Code.CODE_NO_SUCH_TABLE, f"there is no table {name}", position, name, key)
    message = f"table {refused.name} cannot be served: {refused.why}"
    return _no(Code.CODE_TABLE_NOT_SERVED, message, position, name, key)


def _no(code: Code, message: str, position: int, table: str, key: Sequence[Value], **fields: Any) -> No:
    return No(reasons.reason(code, message, operation=position, table=table, key=list(key), **fields))
