"""The plan's steps in PostgreSQL's SQL, and what is made of the answers.

Two ways lead from rows that deny a step to its NO. Where a value decides (`add` within bounds, `check` of a column),
the statement itself raises an error that carries the value it found: the server then skips the rest of the unit, even
PREPARE TRANSACTION, and the reason is exact also when the branch has changed the row before. Where the number of rows
decides, it is known only when the whole unit has been answered, and what was prepared by then is rolled back.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from psycopg.pq.abc import PGresult

from participant.resources import ROWS_BYTES_MAX, No
from participant.resources.postgresql.catalog import quote
from participant.resources.postgresql.session import Failure, Query, text
from participant.resources.server.catalog import Table
from participant.resources.server.columns import Column, Kind, SqlValue
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

SHAPES_MAX = 4096
"""Texts kept of each sort; what falls out is made again."""

_REAL_KINDS = (Kind.REAL, Kind.SINGLE)
_CASTS = {Kind.INTEGER: "int8", Kind.REAL: "float8", Kind.SINGLE: "float8", Kind.DECIMAL: "numeric"}
"""As what sums are computed, wider than the column where there is anything wider."""
_SHARED = " FOR SHARE"
_FOUND = re.compile(r"troth:(=(?P<value>.*))?:troth", re.DOTALL)
_COMPARED = {"equals": "IS NOT DISTINCT FROM", "at_least": ">=", "at_most": "<="}
_ONLY_READING = (Query("SAVEPOINT troth_read"), Query("SET TRANSACTION READ ONLY"))
_READ = (Query("RELEASE SAVEPOINT troth_read"),)
"""Around a statement that may only read: leaving a savepoint, what may be done is again what it was before."""


class Work(NamedTuple):
    """A plan as queries."""

    queries: tuple[Query, ...]
    steps: tuple[tuple[int, Step], ...]
    """Each step with the place of its statement among the queries."""
    runs_code: bool
    """Whether a statement or a trigger of the user's may change what the session is set to."""

    def step_at(self, at: int) -> Step | None:
        """The step that the query at that place belongs to."""
        before = [step for place, step in self.steps if place <= at]
        return before[-1] if before and at < len(self.queries) else None

    def rows(self, results: Sequence[PGresult]) -> bytes:
        """The encoded rows of what was read, once all was carried out. Raises No for a wrong number of rows; Stale."""
        rows: list[types_pb2.Row] = []
        size = 0
        for at, step in self.steps:
            for row in _judged(step, results[at]):
                size += row.ByteSize()
                if size > ROWS_BYTES_MAX:
                    raise _too_large(step)
                rows.append(row)
        return types_pb2.Rows(rows=rows).SerializeToString() if rows else b""


def work_of(steps: Iterable[Step], overriding: frozenset[Table]) -> Work:
    """`overriding` as in `catalog.Database`. Raises No for a statement that may not be run."""
    queries: list[Query] = []
    places: list[tuple[int, Step]] = []
    runs_code = False
    for step in steps:
        runs_code |= isinstance(step, Sql) or (not isinstance(step, Read | Check) and step.target.table.has_triggers)
        guarded = isinstance(step, Sql) and step.read_only
        queries += _ONLY_READING if guarded else ()
        places.append((len(queries), step))
        queries.append(_query(step, overriding))
        queries += _READ if guarded else ()
    return Work(tuple(queries), tuple(places), runs_code)


def found_in(step: Step | None, failure: Failure) -> No | None:
    """The NO of a statement that raised the value it found, perhaps Stale; None when it was another error."""
    matched = _FOUND.search(failure.message) if isinstance(step, Add | Check) else None
    if matched is None:
        return None
    assert isinstance(step, Add | Check)
    if step.column is None:
        assert isinstance(step, Check)
        return step.denied_presence()
    try:
        return step.denied(from_text(matched["value"], step.column))
    except _UNFIT_RAW:
        return Stale(step.target, step.column.name)


def read(target: Target) -> Query:
    """The row as committed now, without a lock."""
    return Query(_look(target.table, tuple(target.table.columns), ""), _key(target))


def row_of(target: Target, result: PGresult) -> types_pb2.Row:
    """Raises Stale."""
    if not result.ntuples:
        return target.row(None)
    columns = target.table.columns.values()
    try:
        return target.row([from_text(text(result, 0, at), column) for at, column in enumerate(columns)])
    except _UNFIT_RAW as error:
        raise Stale(target) from error


def from_text(raw: str | None, column: Column) -> SqlValue:
    """A value as the server writes it. Raises one of _UNFIT_RAW for what it never writes for that type."""
    return None if raw is None else _READS.get(column.kind, str)(raw)


def _single(raw: str) -> float:
    """Exactly what is stored: the server writes the shortest decimal that means it in single precision."""
    number: float = struct.unpack("<f", struct.pack("<f", float(raw)))[0]
    return number


def _bytes(raw: str) -> bytes:
    return bytes.fromhex(raw.removeprefix("\\x"))


_READS: Mapping[Kind, Callable[[str], SqlValue]] = {
    Kind.INTEGER: int,
    Kind.REAL: float,
    Kind.SINGLE: _single,
    Kind.DECIMAL: lambda raw: Decimal(raw) if raw[-1].isdecimal() else raw,  # NaN and infinities are no number
    Kind.BLOB: _bytes,
    Kind.BOOLEAN: {"t": True, "true": True, "f": False, "false": False}.__getitem__,
}
_UNFIT_RAW = (ValueError, ArithmeticError, LookupError)
"""What int, float and Decimal raise, and an integer that is too large for the wire."""


# What is asked.


def _query(step: Step, overriding: frozenset[Table]) -> Query:
    match step:
        case Insert(target, values):
            sql = _insert(target.table, tuple(values), target.table in overriding)
            return Query(sql, _texts(values.values()))
        case Update(target, values):
            return Query(_update(target.table, tuple(values)), (*_texts(values.values()), *_key(target)))
        case Upsert(target, values, changed):
            sql = _upsert(target.table, tuple(values), changed, target.table in overriding)
            return Query(sql, _texts(values.values()))
        case Delete(target):
            return Query(_delete(target.table), _key(target))
        case Add():
            return _added(step)
        case Check(target, column, sign, wanted):
            if column is None:
                return Query(_presence(target.table, bool(wanted)), _key(target))
            return Query(_compare(target.table, column, sign), (*_key(target), _text(wanted)))
        case Read(target):
            return Query(_look(target.table, tuple(target.table.columns), _SHARED), _key(target))
        case Sql():
            return Query(_own(step), _texts(step.parameters), kept=False)


def _added(step: Add) -> Query:
    is_real = step.column.kind in _REAL_KINDS
    low, high = (step.low, step.high) if is_real else step.before()
    bounds = [bound for bound in (low, high) if bound is not None]
    sql = _add(step.target.table, step.column, low is not None, high is not None)
    return Query(sql, (*_key(step.target), _text(step.by), *_texts(bounds)))


@lru_cache(SHAPES_MAX)
def _insert(table: Table, columns: tuple[str, ...], overriding: bool) -> str:
    """Parameters: the columns, in order."""
    marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    system = " OVERRIDING SYSTEM VALUE" if overriding else ""
    return f"INSERT INTO {table.sql}({_list(columns)}){system} VALUES ({marks})"


@lru_cache(SHAPES_MAX)
def _upsert(table: Table, columns: tuple[str, ...], changed: tuple[str, ...], overriding: bool) -> str:
    """The same. The conflict target is the key: a clause without one would take another row's unique value for it."""
    settings = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in changed)
    target = _list(column.name for column in table.key)
    action = f"UPDATE SET {settings}" if changed else "NOTHING"
    return f"{_insert(table, columns, overriding)} ON CONFLICT ({target}) DO {action}"


@lru_cache(SHAPES_MAX)
def _update(table: Table, changed: tuple[str, ...]) -> str:
    """Parameters: the columns, then the key."""
    settings = ", ".join(f"{quote(name)} = ${number}" for number, name in enumerate(changed, 1))
    return f"UPDATE {table.sql} SET {settings}{_where(table, len(changed))}"


@lru_cache(SHAPES_MAX)
def _delete(table: Table) -> str:
    """Parameters: the key."""
    return f"DELETE FROM {table.sql}{_where(table)}"


@lru_cache(SHAPES_MAX)
def _add(table: Table, column: Column, has_low: bool, has_high: bool) -> str:
    """Parameters: the key, the number, and its bounds: of the sum for reals, otherwise of what was there before, so
    that no sum is computed that its type cannot hold."""
    name, cast, by = quote(column.name), _CASTS[column.kind], len(table.key) + 1
    number = f"${by}::{cast}"
    held = f"{name} + {number}" if column.kind in _REAL_KINDS else name
    marks = iter(range(by + 1, by + 3))
    conditions = [f"{name} IS NOT NULL"]
    conditions += [f"{held} >= ${next(marks)}::{cast}"] if has_low else []
    conditions += [f"{held} <= ${next(marks)}::{cast}"] if has_high else []
    chosen = _unless(" AND ".join(conditions), f"{name} + {number}", name, cast)
    return f"UPDATE {table.sql} SET {name} = {chosen}{_where(table)}"


@lru_cache(SHAPES_MAX)
def _compare(table: Table, column: Column, sign: str) -> str:
    """Parameters: the key, and what the column is compared with, by the server's own comparison."""
    name = quote(column.name)
    chosen = _unless(f"{name} {_COMPARED[sign]} ${len(table.key) + 1}", "1", name, "int4")
    return f"SELECT {chosen} FROM {table.sql}{_where(table)}{_SHARED}"


@lru_cache(SHAPES_MAX)
def _presence(table: Table, wanted: bool) -> str:
    """Parameters: the key. One row when it is there and is wanted, none when it is not there."""
    found = "1" if wanted else f"('troth:' || left({quote(table.key[0].name)}::text, 0) || ':troth')::int4"
    return f"SELECT {found} FROM {table.sql}{_where(table)}{_SHARED}"


@lru_cache(SHAPES_MAX)
def _look(table: Table, columns: tuple[str, ...], lock: str) -> str:
    """Parameters: the key."""
    return f"SELECT {_list(columns)} FROM {table.sql}{_where(table)}{lock}"


def _unless(condition: str, result: str, name: str, cast: str) -> str:
    """`result` where the condition holds; otherwise the cast of a text that is no number fails, and tells the value."""
    found = f"('troth:' || coalesce('=' || {name}::text, '') || ':troth')::{cast}"
    return f"CASE WHEN {condition} THEN {result} ELSE {found} END"


def _where(table: Table, before: int = 0) -> str:
    """`before` is the number of parameters that come before the key."""
    parts = (f"{quote(column.name)} = ${number}" for number, column in enumerate(table.key, before + 1))
    return " WHERE " + " AND ".join(parts)


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(quote, names))


def _key(target: Target) -> tuple[str | bytes | None, ...]:
    return _texts(target.key)


def _texts(raws: Iterable[SqlValue]) -> tuple[str | bytes | None, ...]:
    return tuple([_text(raw) for raw in raws])


def _text(raw: SqlValue) -> str | bytes | None:
    """A value as the server reads it. Its type is left to the server, which knows it from where it stands."""
    if raw is None or isinstance(raw, str | bytes):
        return raw
    if isinstance(raw, Decimal):
        return f"{raw:f}"
    return repr(raw) if isinstance(raw, float) else str(raw).lower()


# Statements of the user's.

_SPACE = re.compile(r"(?:[\s;]|--[^\r\n]*)+", re.ASCII)
_COMMENT_PART = re.compile(r"/\*|\*/")
_WORD = re.compile(r"[A-Za-z_]*", re.ASCII)
_CONTROL = frozenset(
    {"begin", "start", "commit", "end", "rollback", "abort", "prepare", "savepoint", "release", "set", "reset"}
)
_UNFIT = {
    **dict.fromkeys(_CONTROL, "the transaction and its settings are the participant's: it cannot be run by a branch"),
    "copy": "COPY cannot be pipelined: use INSERT",
    "discard": "DISCARD is about a session, which a branch does not own",
    "deallocate": "DEALLOCATE is about a session, which a branch does not own",
    "execute": "EXECUTE runs what a session has prepared, which a branch does not own",
}
"""By first word: what is refused before it could run. The extended protocol takes one statement, so the first word says
which it is; what a procedure or DO block tries of the kind, the server refuses inside of a transaction block."""


def first_word(statement: str) -> str:
    """In lower case, behind spaces, semicolons and comments as PostgreSQL skips them; empty for another beginning."""
    at = 0
    while True:
        if matched := _SPACE.match(statement, at):
            at = matched.end()
        elif statement.startswith("/*", at):
            at = _comment_end(statement, at)
        else:
            word = _WORD.match(statement, at)
            return word[0].lower() if word else ""


def _comment_end(statement: str, at: int) -> int:
    """Behind the comment that begins there: they nest."""
    depth = 0
    for part in _COMMENT_PART.finditer(statement, at):
        depth += 1 if part[0] == "/*" else -1
        if not depth:
            return part.end()
    return len(statement)


def _own(step: Sql) -> str:
    """The statement with parameters as the server numbers them. Raises No."""
    word = first_word(step.statement)
    if word in _UNFIT:
        raise step.no(Code.CODE_BAD_OPERATION, f"{word.upper()}: {_UNFIT[word]}")
    if not word and "(" not in step.statement:
        raise step.no(Code.CODE_BAD_OPERATION, "the statement is empty")
    return marked(step, "${}".format)


# What is answered.


def _judged(step: Step, result: PGresult) -> Iterable[types_pb2.Row]:
    """The rows that a step brings. Raises No when their number denies it."""
    if isinstance(step, Read):
        return [row_of(step.target, result)]
    if isinstance(step, Sql):
        return _own_rows(step, result)
    count = result.command_tuples or 0
    if isinstance(step, Check):
        if not count and step.wanted is not False:
            raise step.denied_missing() if step.column else step.denied_presence()
    elif count != 1 and not (isinstance(step, Upsert) and not step.changed):
        if isinstance(step, Insert | Upsert):
            message = f"a trigger or rule of {step.target.table.name} keeps {step.target.label()} from being written"
            raise step.target.no(Code.CODE_CONSTRAINT, message)
        raise step.target.missing()
    return ()


def _own_rows(step: Sql, result: PGresult) -> Iterable[types_pb2.Row]:
    count = result.command_tuples or 0
    if step.rows is not None and count != step.rows:
        raise step.denied_rows(count)
    if not step.read_only:
        return
    columns = [((result.fname(at) or b"").decode(), _BY_OID.get(result.ftype(at), str)) for at in range(result.nfields)]
    for row in range(result.ntuples):
        values = {}
        for at, (name, convert) in enumerate(columns):
            raw = text(result, row, at)
            values[name] = _ANY.to_value(None if raw is None else convert(raw))
        yield step.row(values)


def _too_large(step: Step) -> No:
    where = f"up to {step.target.label()}" if not isinstance(step, Sql) else "by the statement"
    message = f"the rows read {where} have more than {ROWS_BYTES_MAX} bytes"
    if isinstance(step, Sql):
        return step.no(Code.CODE_TOO_LARGE, message)
    return step.target.no(Code.CODE_TOO_LARGE, message)


_ANY = Column("", Kind.OTHER, "", nullable=True)
_BY_OID: Mapping[int, Callable[[str], SqlValue]] = {
    16: _READS[Kind.BOOLEAN],
    17: _bytes,
    20: int,
    21: int,
    23: int,
    700: _single,
    701: float,
}
"""Of the columns that a statement brings, by the fixed number of their type (pg_type.dat): the others are text."""
