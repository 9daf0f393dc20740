"""What a branch does to the file, one step per operation, each able to be tried and to be applied.

Steps are made by `planning.py` with everything converted and every SQL text chosen; here they meet the rows. A trial
says NO for a constraint, a row count, a bound or a `check` that does not hold; any other error of SQLite goes up and
stops the process (DESIGN section 4).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from participant.resources import INTEGER_MAX, INTEGER_MIN, ROWS_BYTES_MAX, LockName, No, targets
from participant.resources import statements as sql_of
from participant.resources.catalog import Column, ForeignKey, Table
from participant.resources.conversion import Kind, SqlValue
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code

_CONSTRAINT_DATATYPE = 19 | 12 << 8
"""SQLITE_CONSTRAINT_DATATYPE, which Python 3.11 has no name for: a generated column of a STRICT table whose expression
gives another type. What operations name was converted before."""


Target = targets.Target[Table]


class ApplyFailed(Exception):
    """A prepared branch could not be applied. That must not happen: an alarm that stops the process."""


@dataclass(slots=True)
class Run:
    """One trial of a branch, or one run of it to keep."""

    cursor: sqlite3.Cursor
    keep: bool
    """Whether what is done stays: then escrow adds are written too, not only looked at."""
    rows: list[types_pb2.Row] = field(default_factory=list)
    rows_bytes: int = 0
    """Of `rows`."""
    values: dict[tuple[LockName, str], int] = field(default_factory=dict)
    """The present value of every column under an increment lock, before the branch's own adds."""
    sums: dict[tuple[LockName, str], int] = field(default_factory=dict)
    """The same after the adds so far."""


def look(cursor: sqlite3.Cursor, target: Target, columns: tuple[str, ...]) -> tuple[SqlValue, ...] | None:
    """These columns of the row, or None when it is absent."""
    try:
        row: tuple[SqlValue, ...] | None = cursor.execute(sql_of.look(target.table, columns), target.key).fetchone()
    except sqlite3.OperationalError as error:
        if hasattr(error, "sqlite_errorcode"):
            raise
        # Python's module, not SQLite, says so: another tool has stored bytes that are no text.
        raise target.no(Code.CODE_WRONG_TYPE, f"{target.label()} holds text that is not UTF-8") from error
    return row


class Write(NamedTuple):
    """An insert, update, upsert or delete."""

    target: Target
    sql: str
    parameters: tuple[SqlValue, ...]
    counts: tuple[int, ...]
    """The row counts that are right: 1, and 0 too for an upsert that has nothing to change."""
    values: Mapping[str, SqlValue] = MappingProxyType({})
    """Columns that it sets, by declared name."""
    parents: tuple[tuple[ForeignKey, Target], ...] = ()
    """The parent rows that its foreign keys name, to say which is missing."""

    def attempt(self, run: Run) -> None:
        try:
            run.cursor.execute(self.sql, self.parameters)
        except sqlite3.IntegrityError as error:
            raise _denied(run.cursor, error, self) from error
        if run.cursor.rowcount not in self.counts:
            raise self.target.missing()

    def apply(self, cursor: sqlite3.Cursor) -> None:
        cursor.execute(self.sql, self.parameters)
        if cursor.rowcount not in self.counts:
            raise ApplyFailed(f"{self.sql} changed {cursor.rowcount} rows at {self.target.label()}")


class EscrowAdd(NamedTuple):
    """An `add` under an increment lock. The column is an integer in no unique index, no foreign key and no CHECK but
    its bounds, and nothing else of the branch touches the row: so looking at the value is the whole trial."""

    target: Target
    column: Column
    by: int
    low: int
    high: int

    def attempt(self, run: Run) -> None:
        slot = (self.target.name, self.column.name)
        if slot not in run.sums:
            run.sums[slot] = run.values[slot] = present(run.cursor, self.target, self.column)
        before = run.sums[slot]
        after = before + self.by
        if not self.low <= after <= self.high:
            raise _outside(self.target, self.column, before, after, self.low, self.high)
        run.sums[slot] = after
        if run.keep:
            self.apply(run.cursor)

    def apply(self, cursor: sqlite3.Cursor) -> None:
        if not _add_integer(cursor, self.target, self.column, self.by, self.low, self.high):
            raise ApplyFailed(f"add {self.by} to {self.column.name} of {self.target.label()} found it out of bounds")


class ExclusiveAdd(NamedTuple):
    """An `add` under an exclusive lock: on a REAL column, in a unique index, under CHECKs of other forms, or beside
    other operations on the row."""

    target: Target
    column: Column
    by: int | float
    low: int | float
    high: int | float

    def attempt(self, run: Run) -> None:
        try:
            done = self._add(run.cursor)
        except sqlite3.IntegrityError as error:
            raise _denied(run.cursor, error, Write(self.target, "", (), ())) from error
        if not done:
            raise self._outside(run.cursor)

    def apply(self, cursor: sqlite3.Cursor) -> None:
        if not self._add(cursor):
            raise ApplyFailed(f"add {self.by} to {self.column.name} of {self.target.label()} changed nothing")

    def _add(self, cursor: sqlite3.Cursor) -> bool:
        target = self.target
        if isinstance(self.by, int):
            return _add_integer(cursor, target, self.column, self.by, int(self.low), int(self.high))
        sql = sql_of.add_real(target.table, self.column.name)
        cursor.execute(sql, (self.by, *target.key, self.by, self.low, self.high))
        return cursor.rowcount == 1

    def _outside(self, cursor: sqlite3.Cursor) -> No:
        target = self.target
        before = _number(cursor, target, self.column)
        return _outside(target, self.column, before, before + self.by, self.low, self.high)


class Check(targets.Check[Column]):
    """A `check`: of the row's presence, or of a column."""

    __slots__ = ()

    def attempt(self, run: Run) -> None:
        names = (self.column.name,) if self.column else ()
        row = look(run.cursor, self.target, names)
        if self.column is None:
            if (row is not None) != self.wanted:
                raise self.denied_presence()
        elif row is None:
            raise self.denied_missing()
        elif not _holds(self.sign, row[0], self.wanted):
            raise self.denied(row[0])


class Read(NamedTuple):
    """A `read`: the row comes back."""

    target: Target

    def attempt(self, run: Run) -> None:
        row = read_row(run.cursor, self.target)
        run.rows_bytes += row.ByteSize()
        if run.rows_bytes > ROWS_BYTES_MAX:
            message = f"the rows read up to {self.target.label()} have more than {ROWS_BYTES_MAX} bytes"
            raise self.target.no(Code.CODE_TOO_LARGE, message)
        run.rows.append(row)


Step = Write | EscrowAdd | ExclusiveAdd | Check | Read
Change = Write | EscrowAdd | ExclusiveAdd


def read_row(cursor: sqlite3.Cursor, target: Target) -> types_pb2.Row:
    """The row as it is now, every column in the table's order."""
    return target.row(look(cursor, target, tuple(target.table.columns)))


def present(cursor: sqlite3.Cursor, target: Target, column: Column) -> int:
    """The integer that an `add` starts from. Raises No when the row or the integer is missing."""
    number = _number(cursor, target, column)
    assert isinstance(number, int)
    return number


def _number(cursor: sqlite3.Cursor, target: Target, column: Column) -> int | float:
    row = look(cursor, target, (column.name,))
    if row is None:
        raise target.missing()
    if row[0] is None:
        raise target.no(Code.CODE_ADD_ON_NULL, f"column {column.name} of {target.label()} is NULL", column.name)
    wanted = int if column.kind is Kind.INTEGER else float
    if not isinstance(row[0], wanted):
        message = f"column {column.name} of {target.label()} does not hold its declared type"
        raise target.no(Code.CODE_WRONG_TYPE, message, column.name, found=column.to_value(row[0]))
    return row[0]


def _add_integer(cursor: sqlite3.Cursor, target: Target, column: Column, by: int, low: int, high: int) -> bool:
    """Adds when the sum lies within the bounds; says whether it did."""
    least, most = max(low - by, INTEGER_MIN), min(high - by, INTEGER_MAX)
    if least > most:
        return False
    cursor.execute(sql_of.add_integer(target.table, column.name), (by, *target.key, least, most))
    return cursor.rowcount == 1


def _outside(
    target: Target, column: Column, before: int | float, after: int | float, low: int | float, high: int | float
) -> No:
    """The NO to `after`; `before` is what was found."""
    below = after < low
    bound = low if below else high
    message = f"column {column.name} of {target.label()} would be {after}, {'below' if below else 'above'} {bound}"
    code = Code.CODE_BELOW_MIN if below else Code.CODE_ABOVE_MAX
    return target.no(code, message, column.name, column.to_value(bound), column.to_value(before))


def _denied(cursor: sqlite3.Cursor, error: sqlite3.IntegrityError, write: Write) -> No:
    """What a constraint said to `write`, as a NO. Raises the error again when it is no constraint of a row."""
    target, label = write.target, write.target.label()
    match error.sqlite_errorname:
        case "SQLITE_CONSTRAINT_PRIMARYKEY" | "SQLITE_CONSTRAINT_ROWID":
            return target.there()
        case "SQLITE_CONSTRAINT_UNIQUE":
            return _not_unique(write, error)
        case "SQLITE_CONSTRAINT_NOTNULL":
            column = next((name for name in target.table.columns if str(error).endswith(f".{name}")), "")
            return target.no(Code.CODE_NOT_NULL, f"column {column} of {target.table.name} may not be NULL", column)
        case "SQLITE_CONSTRAINT_FOREIGNKEY":
            return _no_parent(write, cursor)
        case "SQLITE_CONSTRAINT_CHECK":
            return _out_of_bounds(write) or target.no(
                Code.CODE_CONSTRAINT, f"a CHECK of {target.table.name} does not hold for {label}"
            )
    if error.sqlite_errorcode == _CONSTRAINT_DATATYPE:
        return target.no(Code.CODE_CONSTRAINT, f"{label} would hold a value that is not of its column's type")
    raise error


def _not_unique(write: Write, error: sqlite3.IntegrityError) -> No:
    table, values = write.target.table, write.values
    for index in table.uniques:
        if str(error).endswith(": " + ", ".join(f"{table.name}.{name}" for name in index.columns)):
            found = None
            if len(index.columns) == 1 and index.columns[0] in values:
                column = table.columns[index.columns[0]]
                found = column.to_value(values[column.name])
            names = ", ".join(index.columns)
            message = f"another row of {table.name} holds the value of {names}"
            return write.target.no(Code.CODE_UNIQUE, message, names, found=found)
    return write.target.no(Code.CODE_UNIQUE, f"another row of {table.name} holds a value that must be unique")


def _no_parent(write: Write, cursor: sqlite3.Cursor) -> No:
    for key, parent in write.parents:
        if parent.name != write.target.name and look(cursor, parent, ()) is None:
            found = parent.values()[0] if len(key.columns) == 1 else None
            message = f"there is no {parent.label()}, which {write.target.label()} refers to"
            return write.target.no(Code.CODE_FOREIGN_KEY, message, ", ".join(key.columns), found=found)
    return write.target.no(Code.CODE_FOREIGN_KEY, f"other rows refer to {write.target.label()}")


def _out_of_bounds(write: Write) -> No | None:
    for name, raw in write.values.items():
        column = write.target.table.columns[name]
        if isinstance(raw, int) and not column.low <= raw <= column.high:
            return _outside(write.target, column, raw, raw, column.low, column.high)
    return None


def _holds(sign: str, raw: SqlValue, wanted: SqlValue) -> bool:
    if sign == "equals":
        return raw == wanted
    if isinstance(raw, int | float) and isinstance(wanted, int | float):
        return raw >= wanted if sign == "at_least" else raw <= wanted
    if isinstance(raw, str) and isinstance(wanted, str):
        return raw >= wanted if sign == "at_least" else raw <= wanted
    if isinstance(raw, bytes) and isinstance(wanted, bytes):
        return raw >= wanted if sign == "at_least" else raw <= wanted
    return False
