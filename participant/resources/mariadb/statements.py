"""The plan's steps in MariaDB's SQL, and what is made of the answers.

All statements of a branch go out together, XA PREPARE too, so rows that deny a step are found when everything has been
carried out; what was prepared by then is rolled back. Answers are judged in their order, also those before a statement
that failed. A `check` brings what it found. An `add` does not, as its own statement brings no rows, and another one for
each would cost every branch what only a NO needs: for that the branch is run again up to there, and rolled back
(`Unexplained`).

Values are written into the text by `literal` (under a sql_mode of ours, in which a backslash escapes). A statement of
the user's is itself such a value, of EXECUTE IMMEDIATE, with its own parameters behind USING: so it is one statement,
whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from asyncmy.constants import FIELD_TYPE

from participant.resources import ROWS_BYTES_MAX, No
from participant.resources.mariadb.session import PACKET_OVERHEAD, Result
from participant.resources.server.catalog import Table
from participant.resources.server.columns import NUMBERS, Column, Kind, SqlValue
from participant.resources.server.marks import marked
from participant.resources.server.steps import (
    Add,
    Check,
    Delete,
    Insert,
    Read,
    Sql,
    Stale,
    Step,
    Target,
    Update,
    Upsert,
)
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code
from troth.values import INTEGER_MAX

SHAPES_MAX = 4096
"""Texts kept of each sort; what falls out is made again."""

_UTC = "+00:00"
_SHARED = " LOCK IN SHARE MODE"
_REAL_KINDS = (Kind.REAL, Kind.SINGLE)
_TEXTS = (Kind.TEXT, Kind.PADDED)
_COMPARED = {"equals": "<=>", "at_least": ">=", "at_most": "<="}


class Unexplained(Exception):
    """An `add` found no row that it may change: it is missing, or the column is NULL, or a bound denies it."""

    def __init__(self, step: Add, at: int) -> None:
        super().__init__(step.target.label())
        self.step = step
        self.at = at
        """The place of its statement."""

    def look(self) -> str:
        """What it is about, as it is now: the column, and whether the `add` may change it."""
        target = self.step.target
        chosen = f"{_read_as(self.step.column)}, {_addable(self.step)}"
        return f"SELECT {chosen} FROM {target.table.sql}{_where(target)} FOR UPDATE"

    def denial(self, result: Result) -> No:
        """The NO, from the answer to `look`; perhaps Stale."""
        target = self.step.target
        if not result.rows:
            return target.missing()
        found, addable = result.rows[0]
        if addable == "1":
            words = f"{target.label()} was changed by another program at the same moment"
            return target.no(Code.CODE_LOCK_TIMEOUT, words)
        return _denied(self.step, self.step.column, found)


class Work(NamedTuple):
    """A plan as statements."""

    statements: tuple[str, ...]
    steps: tuple[tuple[int, Step], ...]
    """Each step with the place of its first statement."""

    def step_at(self, at: int) -> Step | None:
        """The step that the statement at that place belongs to."""
        before = [step for place, step in self.steps if place <= at]
        return before[-1] if before and 0 <= at < len(self.statements) else None

    def rows(self, results: Sequence[Result]) -> list[types_pb2.Row]:
        """What was read, of as many steps as have been carried out whole. Raises the No of the first that is denied,
        perhaps Stale, or Unexplained."""
        rows: list[types_pb2.Row] = []
        size = 0
        ends = [place for place, _ in self.steps[1:]] + [len(self.statements)]
        for (start, step), end in zip(self.steps, ends, strict=True):
            if end > len(results):
                break
            if isinstance(step, Add):
                if results[start].found != 1:
                    raise Unexplained(step, start)
                continue
            for row in _judged(step, results[start:end]):
                size += row.ByteSize()
                if size > ROWS_BYTES_MAX:
                    raise _no(step, Code.CODE_TOO_LARGE, f"the rows read have more than {ROWS_BYTES_MAX} bytes")
                rows.append(row)
        return rows


def work_of(steps: Iterable[Step], packet_bytes_max: int, unprepared: Mapping[str, str]) -> Work:
    """`unprepared` as in `catalog.Database`. Raises No for a statement that may not be run, or the server would not
    take."""
    statements: list[str] = []
    places: list[tuple[int, Step]] = []
    for step in steps:
        places.append((len(statements), step))
        if isinstance(step, Sql) and not step.read_only:
            _require_prepared(step, unprepared)
        for statement in _statements(step):
            most = packet_bytes_max - PACKET_OVERHEAD
            if len(statement) > most // 4 and len(statement.encode()) > most:
                message = f"its statement is longer than {most} bytes: raise max_allowed_packet at the server"
                raise _no(step, Code.CODE_TOO_LARGE, message)
            statements.append(statement)
    return Work(tuple(statements), tuple(places))


def read(target: Target) -> str:
    """The row as committed now, without a lock."""
    return f"SELECT {_columns(target.table)} FROM {target.table.sql}{_where(target)}"


def inserted_meanwhile(step: Upsert) -> No:
    """The NO to an `upsert` whose row was not there for its first statement, and was for its second."""
    words = f"{step.target.label()} was inserted by another program at the same moment"
    return step.target.no(Code.CODE_LOCK_TIMEOUT, words)


def row_of(target: Target, result: Result) -> types_pb2.Row:
    """Raises Stale."""
    if not result.rows:
        return target.row(None)
    columns = target.table.columns.values()
    try:
        return target.row([from_text(raw, column) for raw, column in zip(result.rows[0], columns, strict=True)])
    except _UNFIT_RAW as error:
        raise Stale(target) from error


# Values.


@lru_cache(SHAPES_MAX)
def quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def literal(raw: SqlValue) -> str:
    """A value as part of a statement."""
    if type(raw) is int:  # most are
        return str(raw)
    if raw is None:
        return "NULL"
    if isinstance(raw, bytes):
        return f"X'{raw.hex()}'"
    if isinstance(raw, str):
        return "'" + raw.replace("\\", "\\\\").replace("'", "''") + "'"
    if isinstance(raw, Decimal):
        return f"{raw:f}"
    return repr(raw) if isinstance(raw, float) else str(raw)


def from_text(raw: str | bytes | None, column: Column) -> SqlValue:
    """A value as the server writes it. An integer that no `Value` holds comes as a decimal, which is text there. Raises
    one of _UNFIT_RAW for what the server never writes for that type."""
    if isinstance(raw, bytes) and column.kind in NUMBERS:
        raise ValueError(f"bytes in a column of type {column.declared}")
    if raw is None or isinstance(raw, bytes):
        return raw
    return _READS.get(column.kind, str)(raw)


def _integer(raw: str) -> SqlValue:
    number = int(raw)
    return number if number <= INTEGER_MAX else Decimal(number)


_READS: Mapping[Kind, Callable[[str], SqlValue]] = {
    Kind.INTEGER: _integer,
    Kind.REAL: float,
    Kind.SINGLE: float,
    Kind.DECIMAL: Decimal,
    Kind.BLOB: str.encode,
    Kind.MOMENT: lambda raw: raw + _UTC,
}
_UNFIT_RAW = (ValueError, ArithmeticError)
"""What int, float and Decimal raise, and an integer that is too small for the wire."""


def _written(raw: SqlValue, column: Column) -> str:
    """A value for a column. The session's time zone is UTC, and the server reads no offset."""
    if column.kind is Kind.MOMENT and isinstance(raw, str):
        return literal(raw.removesuffix(_UTC))
    return literal(raw)


def _read_as(column: Column) -> str:
    """How a column is selected: a FLOAT as the text that it prints as has lost digits."""
    name = quote(column.name)
    return f"CAST({name} AS DOUBLE)" if column.kind is Kind.SINGLE else name


# What is asked.


def _statements(step: Step) -> Sequence[str]:
    match step:
        case Insert(target, values):
            return [f"{_into(target.table, tuple(values))} VALUES ({_list(target.table, values)})"]
        case Update(target, values):
            return [f"UPDATE {target.table.sql} SET {_settings(target.table, values)}{_where(target)}"]
        case Upsert():
            return _upsert(step)
        case Delete(target):
            return [f"DELETE FROM {target.table.sql}{_where(target)}"]
        case Add():
            return [_add(step)]
        case Check(target, column, sign, wanted):
            chosen = "1" if column is None else f"{_compare(column, sign, wanted)}, {_read_as(column)}"
            return [f"SELECT {chosen} FROM {target.table.sql}{_where(target)}{_SHARED}"]
        case Read(target):
            return [read(target) + _SHARED]
        case Sql():
            return [_own(step)]


def _upsert(step: Upsert) -> Sequence[str]:
    """Not ON DUPLICATE KEY UPDATE, nor REPLACE: both take a row that has another unique value for the one meant. A row
    that comes to be between the two statements is neither changed nor inserted, which their counts tell."""
    target, values = step.target, step.values
    table = target.table
    absent = f"NOT EXISTS (SELECT 1 FROM {table.sql}{_where(target)})"
    inserted = f"{_into(table, tuple(values))} SELECT {_list(table, values)} FROM DUAL WHERE {absent}"
    if not step.changed:
        return [inserted]
    changed = {name: values[name] for name in step.changed}
    return [f"UPDATE {table.sql} SET {_settings(table, changed)}{_where(target)}", inserted]


def _add(step: Add) -> str:
    target, name = step.target, quote(step.column.name)
    return f"UPDATE {target.table.sql} SET {name} = {_sum(step)}{_where(target)} AND {_addable(step)}"


def _addable(step: Add) -> str:
    """The condition. Bounds hold of the sum for reals, otherwise of what was there before: no sum is computed that its
    type cannot hold. What the type itself sees to is left out."""
    column = step.column
    name = quote(column.name)
    is_real = column.kind in _REAL_KINDS
    low, high = (step.low, step.high) if is_real else step.before()
    held = _sum(step) if is_real else name
    condition = f"{name} IS NOT NULL"
    if low is not None and low != column.low:
        condition += f" AND {held} >= {literal(low)}"
    if high is not None and high != column.high:
        condition += f" AND {held} <= {literal(high)}"
    return condition


def _sum(step: Add) -> str:
    """Unsigned columns take away by subtracting: the server does not compute an unsigned number plus a negative one."""
    name, by = quote(step.column.name), literal(step.by)
    return f"{name} - {by[1:]}" if by.startswith("-") else f"{name} + {by}"


def _compare(column: Column, sign: str, wanted: SqlValue) -> str:
    """Equal is what is written the same; before and after are as the column's collation has it."""
    value = _written(wanted, column)
    if column.kind in _TEXTS and sign == "equals":
        return f"CONVERT({quote(column.name)} USING utf8mb4) COLLATE utf8mb4_nopad_bin <=> {value}"
    return f"{_read_as(column)} {_COMPARED[sign]} {value}"


@lru_cache(SHAPES_MAX)
def _into(table: Table, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table.sql}({', '.join(map(quote, columns))})"


@lru_cache(SHAPES_MAX)
def _columns(table: Table) -> str:
    return ", ".join(map(_read_as, table.columns.values()))


def _list(table: Table, values: Mapping[str, SqlValue]) -> str:
    return ", ".join(_written(raw, table.columns[name]) for name, raw in values.items())


def _settings(table: Table, values: Mapping[str, SqlValue]) -> str:
    return ", ".join(f"{quote(name)} = {_written(raw, table.columns[name])}" for name, raw in values.items())


def _where(target: Target) -> str:
    parts = zip(target.table.key, target.key, strict=True)
    return " WHERE " + " AND ".join([f"{quote(column.name)} = {_written(raw, column)}" for column, raw in parts])


# Statements of the user's.

_SPACE = re.compile(r"(?:[\s(]|#[^\n]*|-- [^\n]*|/\*(?![!M]).*?\*/)*", re.ASCII | re.DOTALL)
"""What may stand before the first word. A comment that the server carries out, /*! or /*M!, is none."""
_WORD = re.compile(r"[A-Za-z]*", re.ASCII)
_NAME = re.compile(r"[^\W\d][\w$]*")
_LOCKING = re.compile(r"\b(GET_LOCK|RELEASE_LOCK|RELEASE_ALL_LOCKS)\s*\(", re.ASCII | re.IGNORECASE)
"""By its user lock a session of ours is found and ended."""
_READING = ("SELECT", "VALUES", "WITH")
_CHANGING = ("DELETE", "INSERT", "REPLACE", "UPDATE")


def _own(step: Sql) -> str:
    """Raises No. Only statements on rows: of all others none can be run in a branch, or they are about the session
    (SET, GET_LOCK apart) that the next branch gets, or (CALL) bring any number of answers."""
    spaces = _SPACE.match(step.statement)
    word = _WORD.match(step.statement, spaces.end() if spaces else 0)
    first = word[0].upper() if word else ""
    allowed = _READING if step.read_only else (*_CHANGING, *_READING)
    if first not in allowed:
        which = "a read-only statement" if step.read_only else "a statement of a branch"
        found = first or "something else"
        message = f"{which} begins with {', '.join(allowed[:-1])} or {allowed[-1]} at MariaDB, and here with {found}"
        raise step.no(Code.CODE_BAD_OPERATION, message)
    if locking := _LOCKING.search(step.statement):
        raise step.no(Code.CODE_BAD_OPERATION, f"a branch may not use the user locks of its session: {locking[1]}")
    using = f" USING {', '.join(map(literal, step.parameters))}" if step.parameters else ""
    return f"EXECUTE IMMEDIATE {literal(marked(step, lambda _: '?'))}{using}"


def _require_prepared(step: Sql, unprepared: Mapping[str, str]) -> None:
    """Raises No for a statement with the name of a table that takes part in no transaction: what it changes there would
    be seen at once, and stay. (One that a trigger or a function writes to is not seen here.)"""
    statement = step.statement.lower()
    words = set(_NAME.findall(statement))
    for name, engine in unprepared.items():
        if name in words or (not _NAME.fullmatch(name) and name in statement):
            message = f"table {name} has the engine {engine}, and only InnoDB prepares: a branch may not change it"
            raise step.no(Code.CODE_BAD_OPERATION, message)


# What is answered.


def _judged(step: Step, results: Sequence[Result]) -> Iterable[types_pb2.Row]:
    """The rows that a step brings. Raises No when what it found denies it."""
    match step:
        case Read(target):
            return [row_of(target, results[0])]
        case Sql():
            return _own_rows(step, results[0])
        case Check():
            _check(step, results[0])
        case Upsert():
            if step.changed and sum(result.found for result in results) != 1:
                raise inserted_meanwhile(step)
        case _:
            if results[0].found != 1:
                raise step.target.missing()
    return ()


def _check(step: Check, result: Result) -> None:
    if step.column is None:
        if bool(result.rows) is not step.wanted:
            raise step.denied_presence()
        return
    if not result.rows:
        raise step.denied_missing()
    holds, found = result.rows[0]
    if holds != "1":
        raise _denied(step, step.column, found)


def _denied(step: Add | Check, column: Column, found: str | bytes | None) -> No:
    """Why a column that holds this denies the step; perhaps Stale."""
    try:
        return step.denied(from_text(found, column))
    except _UNFIT_RAW:
        return Stale(step.target, column.name)


def _own_rows(step: Sql, result: Result) -> Iterable[types_pb2.Row]:
    if step.rows is not None and result.found != step.rows:
        raise step.denied_rows(result.found)
    if not step.read_only:
        return
    if result.columns is None:
        raise step.no(Code.CODE_BAD_OPERATION, "the statement brings no rows, but is said to be read-only")
    for row in result.rows:
        fields = zip(result.columns, row, strict=True)
        yield step.row({name: _ANY.to_value(_by_type(kind, raw)) for (name, kind), raw in fields})


_ANY = Column("", Kind.OTHER, "", nullable=True)
_INTEGERS = frozenset(
    {FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.INT24, FIELD_TYPE.LONG, FIELD_TYPE.LONGLONG, FIELD_TYPE.YEAR}
)


def _by_type(kind: int, raw: str | bytes | None) -> SqlValue:
    """Of a column that a statement brings: numbers but decimals as such, all else as text or bytes."""
    if raw is None or isinstance(raw, bytes):
        return raw
    if kind in _INTEGERS:
        return _integer(raw)
    return float(raw) if kind in (FIELD_TYPE.FLOAT, FIELD_TYPE.DOUBLE) else raw


def _no(step: Step, code: Code, message: str) -> No:
    return step.no(code, message) if isinstance(step, Sql) else step.target.no(code, message)
