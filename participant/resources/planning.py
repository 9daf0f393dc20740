"""Operations become locks and steps: pure, from the catalog and the operations alone (DESIGN section 3, "Locks").

What a trial in isolation cannot see is locked, per operation and not net:

- the row, exclusively; for an `add` to an integer that nothing but bounds constrains, in increment mode;
- for each unique index that the operation can change: the index shared and the new values exclusively, or the index
  exclusively where the new values are not known; a key with a NULL in it conflicts with nothing and takes none;
- the parent row of each foreign key that the operation sets, shared, named by the parent's column types.

A column that an insert leaves out has its constant default, so its value is known. An upsert's is not: the default if
it inserts, what was there if it updates; only when it names no column of an index or key is the default all it can set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from participant.resources import Add, Lock, LockName, Mode, No, Plan
from participant.resources import statements as sql_of
from participant.resources.catalog import Catalog, Column, ForeignKey, Table
from participant.resources.conversion import Kind, SqlValue, Unfit, fit
from participant.resources.ddl import fold
from participant.resources.steps import Change, Check, EscrowAdd, ExclusiveAdd, Read, Step, Target, Write
from participant.resources.targets import column_of, decoded, fitted, named, named_to_update, required, target_of
from troth import reasons
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code

Named = dict[str, SqlValue]
"""Column values by declared name."""

_NUMBERS = (int, float)


class Work(NamedTuple):
    """A planned branch: its steps in order, those that change something, and whether the file is written in a trial."""

    steps: tuple[Step, ...]
    changes: tuple[Change, ...]
    only_looks: bool
    """True when trying it writes nothing: all its changes are escrow adds."""


_LOOKS = (Check, Read)
_LOOKING_CHANGES: frozenset[type] = frozenset({EscrowAdd})
"""Changes whose trial writes nothing."""


class Locks:
    """The locks of one branch as they add up: one name once, in its strongest mode, in the order they were met."""

    __slots__ = ("_locks", "mixed")

    def __init__(self) -> None:
        self._locks: dict[LockName, Lock] = {}
        self.mixed = False
        """Whether different modes have met on one name."""

    def want(self, name: LockName, mode: Mode) -> None:
        """Two different modes on one name make EXCLUSIVE."""
        held = self._locks.get(name)
        if held is None:
            self._locks[name] = Lock(name, mode)
        elif held.mode is not mode:
            self._mix(name)

    def want_add(self, name: LockName, add: Add) -> None:
        """An increment lock, with its add behind those before."""
        held = self._locks.get(name)
        if held is None:
            self._locks[name] = Lock(name, Mode.INCREMENT, (add,))
        elif held.mode is Mode.INCREMENT:
            self._locks[name] = Lock(name, Mode.INCREMENT, (*held.adds, add))
        else:
            self._mix(name)

    def _mix(self, name: LockName) -> None:
        self._locks[name] = Lock(name, Mode.EXCLUSIVE)
        self.mixed = True

    def mode(self, name: LockName) -> Mode:
        return self._locks[name].mode

    def all(self) -> tuple[Lock, ...]:
        return tuple(self._locks.values())


class _Branch:
    """One call of `plan`."""

    __slots__ = ("catalog", "locks", "steps")

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.locks = Locks()
        self.steps: list[Step] = []


def plan(catalog: Catalog, operations: bytes) -> Plan:
    """The plan of an encoded `Operations`. Raises No when it cannot be run whatever the data."""
    branch = _Branch(catalog)
    for operation in decoded(operations):
        _operation(branch, operation)
    locks, steps = branch.locks, tuple(branch.steps)
    if locks.mixed:
        steps = tuple([_settle(step, locks) if type(step) is EscrowAdd else step for step in steps])
    changes = tuple([step for step in steps if not isinstance(step, _LOOKS)])
    return Plan(locks.all(), Work(steps, changes, set(map(type, changes)) <= _LOOKING_CHANGES), not changes)


_ELSEWHERE = {
    "custom": "this resource has no operations of its own",
    "sql": "statements run at PostgreSQL and MariaDB participants only: here, use operations on rows",
}
"""What this resource does not do, and why."""


def _operation(branch: _Branch, operation: types_pb2.Operation) -> None:
    kind = operation.WhichOneof("kind")
    plan_kind = _KINDS.get(kind)
    if plan_kind is None:
        message = _ELSEWHERE[kind] if kind else "the operation says nothing to do"
        raise No(reasons.reason(Code.CODE_BAD_OPERATION, message, operation=operation.position, table=operation.table))
    plan_kind(branch, target_of(branch.catalog, operation.position, operation.table, operation.key), operation)


def _insert(branch: _Branch, target: Target, operation: types_pb2.Operation) -> None:
    values = named(target, operation.insert.values)
    branch.locks.want(target.name, Mode.EXCLUSIVE)
    table, columns = target.table, {**target.named(), **values}
    complete = {**_defaults(table), **columns} if table.uniques or table.foreign_keys else columns
    for index in table.uniques:
        _lock_unique(branch, index.name, [complete[name] for name in index.columns])
    parents = [_lock_parent(branch, target, key, complete) for key in table.foreign_keys]
    sql = sql_of.insert(table, tuple(columns))
    branch.steps.append(_write(target, sql, tuple(columns.values()), (1,), columns, parents))


def _update(branch: _Branch, target: Target, operation: types_pb2.Operation) -> None:
    values = named_to_update(target, operation.update.values)
    branch.locks.want(target.name, Mode.EXCLUSIVE)
    table = target.table
    known = {**target.named(), **values}
    for index in table.uniques:
        if values.keys() & set(index.columns):
            _lock_known_part(branch, index.name, index.columns, known)
    parents = []
    for key in table.foreign_keys:
        if values.keys() & set(key.columns):
            _require_whole(target, key, known)
            parents.append(_lock_parent(branch, target, key, known))
    sql = sql_of.update(table, tuple(values))
    branch.steps.append(_write(target, sql, (*values.values(), *target.key), (1,), values, parents))


def _upsert(branch: _Branch, target: Target, operation: types_pb2.Operation) -> None:
    values = named(target, operation.upsert.values)
    branch.locks.want(target.name, Mode.EXCLUSIVE)
    table, columns = target.table, {**target.named(), **values}
    complete = {**_defaults(table), **columns} if table.uniques or table.foreign_keys else columns
    for index in table.uniques:
        names_some = bool(values.keys() & set(index.columns))
        _lock_known_part(branch, index.name, index.columns, columns if names_some else complete)
    parents = []
    for key in table.foreign_keys:
        if values.keys() & set(key.columns):
            _require_whole(target, key, columns)
        parents.append(_lock_parent(branch, target, key, complete))
    sql = sql_of.upsert(table, tuple(columns), tuple(values))
    counts = (1,) if values else (0, 1)
    branch.steps.append(_write(target, sql, tuple(columns.values()), counts, columns, parents))


def _write(
    target: Target,
    sql: str,
    parameters: tuple[SqlValue, ...],
    counts: tuple[int, ...],
    values: Named,
    parents: list[tuple[ForeignKey, Target] | None],
) -> Write:
    return Write(target, sql, parameters, counts, values, tuple([parent for parent in parents if parent]))


def _delete(branch: _Branch, target: Target, operation: types_pb2.Operation) -> None:
    branch.locks.want(target.name, Mode.EXCLUSIVE)
    branch.steps.append(Write(target, sql_of.delete(target.table), target.key, (1,)))


def _add(branch: _Branch, target: Target, operation: types_pb2.Operation) -> None:
    add = operation.add
    column = column_of(target, add.column)
    rule = _rule_of(target.table, column.name)
    if rule.code is not None:
        raise target.no(rule.code, rule.why, column.name)
    by, low, high = _number(target, column, add.by), rule.low, rule.high
    if add.HasField("min"):
        low = max(low, _number(target, column, add.min))
    if add.HasField("max"):
        high = min(high, _number(target, column, add.max))
    for index in rule.indexes:
        branch.locks.want(index, Mode.EXCLUSIVE)
    if rule.exclusive:
        branch.locks.want(target.name, Mode.EXCLUSIVE)
        branch.steps.append(ExclusiveAdd(target, column, by, low, high))
    else:
        by, low, high = int(by), int(low), int(high)
        branch.locks.want_add(target.name, Add(column.name, by, low, high, target.position))
        branch.steps.append(EscrowAdd(target, column, by, low, high))


class _AddRule(NamedTuple):
    """What an `add` to one column meets, whatever the row and the number."""

    code: Code | None
    """Why there is no such `add`; None when there is."""
    why: str
    indexes: tuple[LockName, ...]
    """Unique indexes that it changes, by a value that is not known before."""
    exclusive: bool
    """Whether it needs the row for itself."""
    low: int | float
    """The bounds of the column, or of its type."""
    high: int | float


@lru_cache(sql_of.SHAPES_MAX)
def _rule_of(table: Table, name: str) -> _AddRule:
    column = table.columns[name]
    if table.is_key(name) or any(name in key.columns for key in table.foreign_keys):
        why = f"column {name} is part of a key: add cannot change it"
        return _AddRule(Code.CODE_BAD_OPERATION, why, (), True, 0, 0)
    if column.kind not in (Kind.INTEGER, Kind.REAL):
        why = f"column {name} is {column.kind.value}: not to be added to"
        return _AddRule(Code.CODE_WRONG_TYPE, why, (), True, 0, 0)
    indexes = tuple(("index", index.name) for index in table.uniques if name in index.columns)
    if column.kind is Kind.REAL:
        return _AddRule(None, "", indexes, True, -sql_of.ADD_REAL_MAX, sql_of.ADD_REAL_MAX)
    return _AddRule(None, "", indexes, bool(indexes) or table.add_exclusive, column.low, column.high)


def _settle(add: EscrowAdd, locks: Locks) -> Step:
    """Once all operations are seen: it stays an escrow add while its row is locked in increment mode only."""
    return add if locks.mode(add.target.name) is Mode.INCREMENT else ExclusiveAdd(*add)


def _number(target: Target, column: Column, value: types_pb2.Value) -> int | float:
    number = fitted(target, column, column.to_sql, value)
    if not isinstance(number, _NUMBERS):
        raise target.no(Code.CODE_WRONG_TYPE, f"column {column.name}: a number is needed", column.name)
    return number


def _read(branch: _Branch, target: Target, operation: types_pb2.Operation) -> None:
    branch.locks.want(target.name, Mode.SHARED)
    branch.steps.append(Read(target))


def _check(branch: _Branch, target: Target, operation: types_pb2.Operation) -> None:
    branch.locks.want(target.name, Mode.SHARED)
    branch.steps.append(Check(target, *required(target, operation.check)))


def _defaults(table: Table) -> Named:
    return {column.name: column.default for column in table.columns.values()}


def _lock_known_part(branch: _Branch, index: str, columns: tuple[str, ...], known: Mapping[str, SqlValue]) -> None:
    """Locks the new values of a unique index, or the whole index when one of them is not known."""
    values = [known[name] for name in columns if name in known]
    if len(values) == len(columns) or None in values:
        _lock_unique(branch, index, values)
    else:
        branch.locks.want(("index", index), Mode.EXCLUSIVE)


def _lock_unique(branch: _Branch, index: str, values: list[SqlValue]) -> None:
    if None not in values:
        branch.locks.want(("index", index), Mode.SHARED)
        branch.locks.want(("unique", index, *values), Mode.EXCLUSIVE)


def _require_whole(target: Target, key: ForeignKey, known: Named) -> None:
    if not known.keys() >= set(key.columns):
        names = ", ".join(key.columns)
        raise target.no(Code.CODE_BAD_OPERATION, f"the columns ({names}) of a foreign key are changed together", names)


def _lock_parent(
    branch: _Branch, target: Target, key: ForeignKey, known: Mapping[str, SqlValue]
) -> tuple[ForeignKey, Target] | None:
    """Locks the parent row, shared; None when a NULL among the columns means that there is none."""
    raws = [known[name] for name in key.columns]
    if None in raws:
        return None
    parent = branch.catalog.served[fold(key.parent)]
    try:
        parts = tuple(fit(raw, column.kind) for raw, column in zip(raws, parent.key, strict=True))
    except Unfit as error:
        message = f"no row of {parent.name} can have this key"
        raise target.no(Code.CODE_FOREIGN_KEY, message, ", ".join(key.columns)) from error
    name = ("row", parent.name, *parts)
    branch.locks.want(name, Mode.SHARED)
    return key, Target(target.position, parent, parts, name)


_KINDS: Mapping[str | None, Callable[[_Branch, Target, types_pb2.Operation], None]] = {
    "insert": _insert,
    "update": _update,
    "upsert": _upsert,
    "delete": _delete,
    "add": _add,
    "check": _check,
    "read": _read,
}
