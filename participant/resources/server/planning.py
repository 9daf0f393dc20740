"""Operations become locks and steps: pure, from the catalog and the operations alone.

Locks here are on rows only, and only to keep branches of this participant that want one row from waiting for each
other inside the server, where each would hold a connection: read and check share, everything else excludes, two modes
on one row exclude. What constraints, other programs and `sql` make wait, the server's own locks do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from participant.resources import Lock, LockName, Mode, No, Plan
from participant.resources.server.catalog import Catalog
from participant.resources.server.columns import NUMBERS, Column, Kind, Number
from participant.resources.server.steps import (
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
from participant.resources.targets import column_of, decoded, fitted, named, named_to_update, required, target_of
from troth import reasons
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code
from troth.values import from_value

_LOOKING = (Check, Read)
_SHARED, _EXCLUSIVE = Mode.SHARED, Mode.EXCLUSIVE
_REAL_MAX = {Kind.REAL: 1.7976931348623157e308, Kind.SINGLE: 3.4028234663852886e38}
"""The greatest finite numbers: what a sum is held to when nothing tighter is asked."""


def plan(catalog: Catalog, operations: bytes) -> Plan:
    """The plan of an encoded `Operations`; its work is a tuple of steps. Raises No when it cannot be run whatever the
    data."""
    modes: dict[LockName, Mode] = {}
    steps, read_only = [], True
    for operation in decoded(operations):
        step = _step(catalog, operation)
        steps.append(step)
        looks = only_looks(step)
        read_only = read_only and looks
        if not isinstance(step, Sql):
            lock, mode = step.target.name, _SHARED if looks else _EXCLUSIVE
            modes[lock] = mode if modes.get(lock, mode) is mode else _EXCLUSIVE
    locks = tuple([Lock(name, mode) for name, mode in modes.items()])
    return Plan(locks, tuple(steps), read_only)


def only_looks(step: Step) -> bool:
    """Whether the step changes nothing."""
    return isinstance(step, _LOOKING) or (isinstance(step, Sql) and step.read_only)


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
    return Insert(target, {**target.named(), **named(target, operation.insert.values)})


def _update(target: Target, operation: types_pb2.Operation) -> Step:
    return Update(target, named_to_update(target, operation.update.values))


def _upsert(target: Target, operation: types_pb2.Operation) -> Step:
    values = named(target, operation.upsert.values)
    return Upsert(target, {**target.named(), **values}, tuple(values))


def _delete(target: Target, operation: types_pb2.Operation) -> Step:
    return Delete(target)


def _add(target: Target, operation: types_pb2.Operation) -> Step:
    add = operation.add
    column = column_of(target, add.column)
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
    number = fitted(target, column, column.to_unbounded, value)
    if not isinstance(number, int | float | Decimal):
        raise target.no(Code.CODE_WRONG_TYPE, f"column {column.name}: a number is needed", column.name)
    return number


def _read(target: Target, operation: types_pb2.Operation) -> Step:
    return Read(target)


def _check(target: Target, operation: types_pb2.Operation) -> Step:
    return Check(target, *required(target, operation.check))


def _sql(operation: types_pb2.Operation) -> Step:
    sql = operation.sql
    position = operation.position
    if not sql.statement.strip():
        raise No(reasons.reason(Code.CODE_BAD_OPERATION, "the statement is empty", operation=position))
    if "\0" in sql.statement:  # where a driver of C would take it to end
        message = "the statement holds a character NUL"
        raise No(reasons.reason(Code.CODE_BAD_OPERATION, message, operation=position))
    for number, parameter in enumerate(sql.parameters, 1):
        wrong = "has no value" if parameter.WhichOneof("kind") is None else "holds a character NUL"
        if parameter.WhichOneof("kind") is None or "\0" in parameter.text:
            message = f"parameter {number} of the statement {wrong}"
            raise No(reasons.reason(Code.CODE_BAD_OPERATION, message, operation=position))
    parameters = tuple([from_value(parameter) for parameter in sql.parameters])
    return Sql(position, sql.statement, parameters, sql.rows if sql.HasField("rows") else None, sql.read_only)


_KINDS: Mapping[str | None, Callable[[Target, types_pb2.Operation], Step]] = {
    "insert": _insert,
    "update": _update,
    "upsert": _upsert,
    "delete": _delete,
    "add": _add,
    "check": _check,
    "read": _read,
}
