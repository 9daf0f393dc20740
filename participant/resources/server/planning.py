"""Operations become locks and steps: pure, from the catalog and the operations alone.

Locks here are on rows only, and only to keep branches of this participant that want one row from waiting for each
other inside the server, where each would hold a connection: read and check share, everything else excludes, two modes
on one row exclude. What constraints, other programs and `sql` make wait, the server's own locks do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from google.protobuf.message import DecodeError

from participant.resources import Lock, LockName, Mode, No, Plan
from participant.resources.conversion import Unfit
from participant.resources.server.catalog import NUMBERS, Catalog, Column, Kind, Number
from participant.resources.server.conversion import SqlValue, to_sql, to_unbounded
from participant.resources.server.steps import (
    SIGNS,
    Add,
    Check,
    Delete,
    Insert,
    Read,
    Sql,
    Step,
    Target,
    Update,
    Upsert,
)
from troth import reasons
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code
from troth.values import from_value

Convert = Callable[[types_pb2.Value, Column], SqlValue]

_LOOKING = (Check, Read)
_SHARED, _EXCLUSIVE = Mode.SHARED, Mode.EXCLUSIVE
_REAL_MAX = {Kind.REAL: 1.7976931348623157e308, Kind.SINGLE: 3.4028234663852886e38}
"""The greatest finite numbers: what a sum is held to when nothing tighter is asked."""


def plan(catalog: Catalog, operations: bytes) -> Plan:
    """The plan of an encoded `Operations`; its work is a tuple of steps. Raises No when it cannot be run whatever the
    data."""
    try:
        decoded = types_pb2.Operations.FromString(operations).operations
    except DecodeError as error:
        raise No(reasons.reason(Code.CODE_BAD_REQUEST, "the operations cannot be decoded")) from error
    if not decoded:
        raise No(reasons.reason(Code.CODE_BAD_OPERATION, "a branch needs at least one operation"))
    modes: dict[LockName, Mode] = {}
    steps, read_only = [], True
    for operation in decoded:
        step = _step(catalog, operation)
        steps.append(step)
        looks = only_looks(step)
        read_only = read_only and looks
        if not isinstance(step, Sql):
            lock, mode = step.target.lock, _SHARED if looks else _EXCLUSIVE
            modes[lock] = mode if modes.get(lock, mode) is mode else _EXCLUSIVE
    locks = tuple([Lock(name, mode) for name, mode in modes.items()])
    return Plan(locks, tuple(steps), read_only)


def only_looks(step: Step) -> bool:
    """Whether the step changes nothing."""
    return isinstance(step, _LOOKING) or (isinstance(step, Sql) and step.read_only)


def target_of(catalog: Catalog, position: int, name: str, key: Sequence[types_pb2.Value]) -> Target:
    """The row that a table's name and key values mean. Raises No."""
    table = catalog.table(name)
    if table is None:
        refused = catalog.why_refused(name)
        code, message = Code.CODE_NO_SUCH_TABLE, f"there is no table {name}"
        if refused is not None:
            code, message = Code.CODE_TABLE_NOT_SERVED, f"table {refused.name} cannot be served: {refused.why}"
        raise No(reasons.reason(code, message, operation=position, table=name, key=list(key)))

    def bad(code: Code, message: str, **fields: object) -> No:
        return No(reasons.reason(code, message, operation=position, table=table.name, key=list(key), **fields))

    if len(key) != len(table.key):
        names = ", ".join(column.name for column in table.key)
        raise bad(Code.CODE_BAD_KEY, f"the key of {table.name} is ({names}): {len(key)} values were given")
    parts = []
    for column, value in zip(table.key, key, strict=True):
        try:
            part = to_sql(value, column)
        except Unfit as error:
            message = f"key column {column.name}: {error}"
            raise bad(Code.CODE_WRONG_TYPE, message, column=column.name, found=value) from error
        if part is None:
            raise bad(Code.CODE_BAD_KEY, f"key column {column.name} may not be NULL", column=column.name)
        parts.append(part)
    return Target(position, table, tuple(parts), ("row", table.name, *parts))


def _step(catalog: Catalog, operation: types_pb2.Operation) -> Step:
    kind = operation.WhichOneof("kind")
    if kind == "sql":
        return _sql(operation)
    if kind not in _KINDS:
        message = "this resource has no operations of its own" if kind else "the operation says nothing to do"
        raise No(reasons.reason(Code.CODE_BAD_OPERATION, message, operation=operation.position, table=operation.table))
    target = target_of(catalog, operation.position, operation.table, operation.key)
    return _KINDS[kind](target, operation)


def _insert(target: Target, operation: types_pb2.Operation) -> Step:
    return Insert(target, {**target.named(), **_named(target, operation.insert.values)})


def _update(target: Target, operation: types_pb2.Operation) -> Step:
    named = _named(target, operation.update.values)
    if not named:
        raise target.no(Code.CODE_BAD_OPERATION, "an update needs a column that is not of the key")
    return Update(target, named)


def _upsert(target: Target, operation: types_pb2.Operation) -> Step:
    named = _named(target, operation.upsert.values)
    return Upsert(target, {**target.named(), **named}, tuple(named))


def _delete(target: Target, operation: types_pb2.Operation) -> Step:
    return Delete(target)


def _add(target: Target, operation: types_pb2.Operation) -> Step:
    add = operation.add
    column = _column(target, add.column)
    if target.table.is_key(column.name):
        message = f"column {column.name} is part of a key: add cannot change it"
        raise target.no(Code.CODE_BAD_OPERATION, message, column.name)
    if column.kind not in NUMBERS:
        message = f"column {column.name} is {column.declared}: not to be added to"
        raise target.no(Code.CODE_WRONG_TYPE, message, column.name)
    most = _REAL_MAX.get(column.kind)
    low, high = (column.low, column.high) if most is None else (-most, most)
    if add.HasField("min"):
        least = _number(target, column, add.min)
        low = least if low is None else max(low, least)
    if add.HasField("max"):
        greatest = _number(target, column, add.max)
        high = greatest if high is None else min(high, greatest)
    return Add(target, column, _number(target, column, add.by), low, high)


def _number(target: Target, column: Column, value: types_pb2.Value) -> Number:
    number = _fitted(target, column, value, to_unbounded)
    if not isinstance(number, int | float | Decimal):
        raise target.no(Code.CODE_WRONG_TYPE, f"column {column.name}: a number is needed", column.name)
    return number


def _read(target: Target, operation: types_pb2.Operation) -> Step:
    return Read(target)


def _check(target: Target, operation: types_pb2.Operation) -> Step:
    check = operation.check
    sign = check.WhichOneof("requirement")
    if sign is None or (sign == "exists") == bool(check.column):
        raise target.no(Code.CODE_BAD_OPERATION, "a check needs a column and a value, or exists", check.column)
    if sign == "exists":
        return Check(target, None, sign, check.exists)
    column = _column(target, check.column, to_set=False)
    value: types_pb2.Value = getattr(check, sign)
    if sign != "equals" and value.WhichOneof("kind") == "null":
        raise target.no(Code.CODE_BAD_OPERATION, f"nothing is {SIGNS[sign]}NULL", column.name)
    return Check(target, column, sign, _fitted(target, column, value))


def _sql(operation: types_pb2.Operation) -> Step:
    sql = operation.sql
    position = operation.position
    if not sql.statement.strip():
        raise No(reasons.reason(Code.CODE_BAD_OPERATION, "the statement is empty", operation=position))
    for number, parameter in enumerate(sql.parameters, 1):
        if parameter.WhichOneof("kind") is None:
            message = f"parameter {number} of the statement has no value"
            raise No(reasons.reason(Code.CODE_BAD_OPERATION, message, operation=position))
    parameters = tuple([from_value(parameter) for parameter in sql.parameters])
    return Sql(position, sql.statement, parameters, sql.rows if sql.HasField("rows") else None, sql.read_only)


def _named(target: Target, values: Iterable[types_pb2.Column]) -> dict[str, SqlValue]:
    """The columns named by an operation, converted, without those of the key, which must agree."""
    named: dict[str, SqlValue] = {}
    key = target.named()
    for each in values:
        column = _column(target, each.name)
        if column.name in named:
            raise target.no(Code.CODE_BAD_OPERATION, f"column {column.name} is named twice", column.name)
        raw = _fitted(target, column, each.value)
        if column.name in key and key[column.name] != raw:
            raise target.no(Code.CODE_BAD_KEY, f"column {column.name} disagrees with the key", column.name)
        if raw is None and not column.nullable:
            raise target.no(Code.CODE_NOT_NULL, f"column {column.name} may not be NULL", column.name)
        named[column.name] = raw
    return {name: raw for name, raw in named.items() if name not in key}


def _column(target: Target, name: str, *, to_set: bool = True) -> Column:
    column = target.table.column(name)
    if column is None:
        raise target.no(Code.CODE_NO_SUCH_COLUMN, f"table {target.table.name} has no column {name}", name)
    if to_set and column.generated:
        raise target.no(Code.CODE_BAD_OPERATION, f"column {column.name} is generated", column.name)
    return column


def _fitted(target: Target, column: Column, value: types_pb2.Value, convert: Convert = to_sql) -> SqlValue:
    try:
        return convert(value, column)
    except Unfit as error:
        raise target.no(Code.CODE_WRONG_TYPE, f"column {column.name}: {error}", column.name, found=value) from error


_KINDS: Mapping[str | None, Callable[[Target, types_pb2.Operation], Step]] = {
    "insert": _insert,
    "update": _update,
    "upsert": _upsert,
    "delete": _delete,
    "add": _add,
    "check": _check,
    "read": _read,
}
