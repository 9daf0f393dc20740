"""What a branch does at a server, one step per operation, with everything converted; a dialect writes the statements.

Each step also knows what to say when the rows deny it, so that every server gives the same reason in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from participant.resources import No, targets
from participant.resources.server.catalog import Table
from participant.resources.server.columns import EXACT, Column, Number, SqlValue, minus
from troth import reasons
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code, Value
from troth.values import value_text

Target = targets.Target[Table]

CHANGED = "a table was changed at the server since the statement was planned"


class Stale(No):
    """A column holds what its type in the catalog cannot have: the type was changed since the catalog was read."""

    def __init__(self, target: Target, column: str = "") -> None:
        super().__init__(target.no(Code.CODE_NOT_SERVING, f"{CHANGED}: {target.table.name}", column).reason)


class Insert(NamedTuple):
    """Adds the row."""

    target: Target
    values: Mapping[str, SqlValue]
    """The columns to set, those of the key among them."""


class Update(NamedTuple):
    """Changes columns of the row, which must be there."""

    target: Target
    values: Mapping[str, SqlValue]
    """The columns to set, none of the key."""


class Upsert(NamedTuple):
    """Adds the row, or changes columns of the one that has its key."""

    target: Target
    values: Mapping[str, SqlValue]
    """The columns to set, those of the key among them."""
    changed: tuple[str, ...]
    """Those to set when the row is there; may be none."""


class Delete(NamedTuple):
    """Removes the row, which must be there."""

    target: Target


class Add(NamedTuple):
    """Adds a number to a column of the row, which must be there."""

    target: Target
    column: Column
    by: Number
    low: Number | None
    """The tightest of the operation's bound and the type's; None without one."""
    high: Number | None

    def before(self) -> tuple[Number | None, Number | None]:
        """What an integer or a decimal must lie between before: so no sum is computed that its type cannot hold."""
        low = None if self.low is None else minus(self.low, self.by)
        high = None if self.high is None else minus(self.high, self.by)
        return _narrower(low, self.column.low, high, self.column.high)

    def denied(self, before: SqlValue) -> No:
        """Why the column, which holds `before`, takes no such sum."""
        target, column = self.target, self.column
        if before is None:
            message = f"column {column.name} of {target.label()} is NULL"
            return target.no(Code.CODE_ADD_ON_NULL, message, column.name)
        found = column.to_value(before)
        if isinstance(before, str | bytes):  # NaN, or another number that is none
            message = f"column {column.name} of {target.label()} is {value_text(found)}: not to be added to"
            return target.no(Code.CODE_WRONG_TYPE, message, column.name, found=found)
        after = _plus(before, self.by)
        below = self.low is not None and after < self.low
        bound = self.low if below else self.high
        message = (
            f"column {column.name} of {target.label()} would be {_shown(after)}, "
            f"{'below' if below else 'above'} {_shown(bound)}"
        )
        code = Code.CODE_BELOW_MIN if below else Code.CODE_ABOVE_MAX
        return target.no(code, message, column.name, column.to_value(bound), found)


class Check(targets.Check[Column]):
    """Requires something of the row: its presence, or how a column compares."""

    __slots__ = ()


class Read(NamedTuple):
    """Brings the row back."""

    target: Target


class Sql(NamedTuple):
    """A statement of the server's own."""

    position: int
    statement: str
    """With `%s` where a parameter goes, and `%%` for a percent sign."""
    parameters: tuple[SqlValue, ...]
    rows: int | None
    """How many rows it must touch (bring, when it only reads); None for any number."""
    read_only: bool

    def no(self, code: Code, message: str) -> No:
        return No(reasons.reason(code, message, operation=self.position))

    def denied_rows(self, found: int) -> No:
        """It touched another number of rows than it must."""
        verb = "brought" if self.read_only else "touched"
        message = f"the statement {verb} {found} rows, not {self.rows}"
        required, held = Value(integer=self.rows), Value(integer=found)
        return No(
            reasons.reason(Code.CODE_CHECK_FAILED, message, operation=self.position, required=required, found=held)
        )

    def row(self, values: Mapping[str, Value]) -> types_pb2.Row:
        """A row that it brought; of two columns of one name the last is kept."""
        row = types_pb2.Row(position=self.position, present=True)
        for name, value in values.items():
            row.values.add(name=name, value=value)
        return row


Step = Insert | Update | Upsert | Delete | Add | Check | Read | Sql
OnRow = Insert | Update | Upsert | Delete | Add | Check | Read


def not_unique(step: OnRow, columns: Sequence[str]) -> No:
    """Another row holds the values of these columns (none: it is not known which)."""
    target, values = step.target, getattr(step, "values", {})
    if not columns:
        return target.no(Code.CODE_UNIQUE, f"another row of {target.table.name} holds a value that must be unique")
    names, found = ", ".join(columns), None
    if len(columns) == 1 and columns[0] in values:
        found = target.table.columns[columns[0]].to_value(values[columns[0]])
    message = f"another row of {target.table.name} holds the value of {names}"
    return target.no(Code.CODE_UNIQUE, message, names, found=found)


def is_null(step: OnRow, column: str) -> No:
    """The column, left out or set by a trigger, would be NULL."""
    message = f"column {column} of {step.target.table.name} may not be NULL"
    return step.target.no(Code.CODE_NOT_NULL, message, column)


def no_parent(step: OnRow, columns: Sequence[str], parent: str) -> No:
    """A foreign key of these columns names a row of `parent` that is not there."""
    target, names = step.target, ", ".join(columns)
    values = getattr(step, "values", {})
    found = None
    if len(columns) == 1 and columns[0] in values:
        found = target.table.columns[columns[0]].to_value(values[columns[0]])
    shown = f"{parent}/{value_text(found)}" if found is not None else f"row of {parent}"
    message = f"there is no {shown}, which {target.label()} refers to"
    return target.no(Code.CODE_FOREIGN_KEY, message, names, found=found)


def referred_to(step: OnRow) -> No:
    """Other rows refer to the one that would go."""
    return step.target.no(Code.CODE_FOREIGN_KEY, f"other rows refer to {step.target.label()}")


def constraint(step: OnRow) -> No:
    """A CHECK, or another rule of the table, does not hold."""
    table = step.target.table
    return step.target.no(Code.CODE_CONSTRAINT, f"a CHECK of {table.name} does not hold for {step.target.label()}")


def _narrower(
    low: Number | None, least: Number | None, high: Number | None, most: Number | None
) -> tuple[Number | None, Number | None]:
    """The intersection of two ranges, either end of which may be open."""
    if low is None or (least is not None and least > low):
        low = least
    if high is None or (most is not None and most < high):
        high = most
    return low, high


def _plus(number: SqlValue, by: Number) -> Number:
    if isinstance(number, Decimal) or isinstance(by, Decimal):
        return EXACT.add(Decimal(number), Decimal(by))  # type: ignore[arg-type]
    assert isinstance(number, int | float)
    return number + by


def _shown(number: Number | None) -> str:
    return f"{number:f}" if isinstance(number, Decimal) else str(number)
