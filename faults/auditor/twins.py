"""A table of a participant's file and its twin in a scratch database: names, types and the SQL between them.

The twin has the table's columns as c0, c1, ..., with no constraint but the key, and two more: `present`, 0 for a row
that the history deleted, and `known`, NULL when every column is known, else a bit mask in hex of those that are.
"""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

from troth.v1.types_pb2 import Column, Value

SqlValue = int | float | str | bytes | None

UNKNOWN_DEFAULT = "CURRENT_TIMESTAMP"
"""Stands for every default that is no constant: what it gave is not known."""
DECIMAL, UUID_TEXT, MOMENT = "TEXT of a decimal", "TEXT of a uuid", "TEXT of a moment"
LOOSE_KEY = "TEXT of a loose key"
"""Types of columns that were copied from a server. SQLite gives them the affinity TEXT."""
_EXACT = Context(prec=1200)


def _boolean(raw: SqlValue) -> SqlValue:
    return {"true": 1, "false": 0}.get(raw, raw) if isinstance(raw, str) else raw


def _decimal(raw: SqlValue) -> SqlValue:
    try:
        number = Decimal(str(raw)).normalize(_EXACT)
    except InvalidOperation:
        return raw
    return f"{number or abs(number):f}" if number.is_finite() else str(number)


def _uuid(raw: SqlValue) -> SqlValue:
    try:
        return str(UUID(str(raw)))
    except ValueError:
        return raw


def _moment(raw: SqlValue) -> SqlValue:
    try:
        found = datetime.fromisoformat(str(raw))
    except ValueError:
        return raw
    return (found.astimezone(UTC) if found.tzinfo else found).isoformat(sep=" ")


def _loose(raw: SqlValue) -> SqlValue:
    """Near to what collations call equal: without case, accents and spaces at the end."""
    text = unicodedata.normalize("NFD", str(raw).casefold()).rstrip(" ")
    return "".join(letter for letter in text if not unicodedata.combining(letter))


NORMAL: Mapping[str, Callable[[SqlValue], SqlValue]] = {
    DECIMAL: _decimal,
    UUID_TEXT: _uuid,
    MOMENT: _moment,
    LOOSE_KEY: _loose,
}
"""The one way in which their values are written. NULL is not asked about."""


def sum_of(one: SqlValue, other: SqlValue) -> SqlValue:
    """For decimals."""
    if one is None or other is None:
        return None
    return _decimal(str(_EXACT.add(Decimal(str(one)), Decimal(str(other)))))


def _normal(declared: str) -> Callable[[SqlValue], SqlValue]:
    if "BOOL" in declared.upper():
        return _boolean
    return NORMAL.get(declared, lambda raw: raw)


class _Shape(NamedTuple):
    """Columns that an operation names, without those of the key and those that the table no longer has."""

    places: tuple[int, ...]
    """Where they stand in the operation."""
    columns: tuple[int, ...]
    insert: str
    """Parameters: the key, then the columns. Nothing when the row has a twin, present or not."""
    update: str
    """Parameters: the columns, then the key. Nothing unless the row is present and known."""


class Twin:
    """One table."""

    def __init__(
        self, name: str, scratch: str, columns: Sequence[tuple[str, str, str | None]], key: Sequence[str]
    ) -> None:
        """`columns`: name, declared type and default as the schema writes it."""
        self.name, self.scratch = name, scratch
        self.columns = [column for column, _, _ in columns]
        self._normal = [_normal(declared) for _, declared, _ in columns]
        self._declared = columns
        self._unknown = {n for n, (_, _, default) in enumerate(columns) if default == UNKNOWN_DEFAULT}
        self._index = {column.lower(): n for n, column in enumerate(self.columns)}
        self.key = [self._index[column.lower()] for column in key]
        self.all_known = (1 << len(columns)) - 1
        self.key_mask = sum(1 << n for n in self.key)
        self.where = " AND ".join(f"c{n} = ?" for n in self.key)
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    @property
    def definition(self) -> str:
        """The twin as SQL. Its column types give it the table's affinities: 17.0 becomes 17 in both."""
        columns = [
            f"c{n} {quote(declared)}{'' if default is None else f' DEFAULT ({default})'}"
            for n, (_, declared, default) in enumerate(self._declared)
        ]
        names = ", ".join(f"c{n}" for n in self.key)
        more = f"present INTEGER NOT NULL DEFAULT 1, known TEXT, PRIMARY KEY ({names})"
        return f"CREATE TABLE {self.scratch} ({', '.join(columns)}, {more})"

    def place(self, column: str) -> int | None:
        """The column's number; None when the table no longer has it."""
        return self._index.get(column.lower())

    def stored(self, n: int, value: Value) -> SqlValue:
        """As the column stores it, but for what SQLite's affinity does by itself."""
        which = value.WhichOneof("kind")
        if which is None or which == "null":
            return None
        raw: SqlValue = getattr(value, which)
        return self._normal[n](raw)

    def sum(self, n: int) -> str:
        """The column and a parameter added up."""
        return f"troth_sum(c{n}, ?)" if self._declared[n][1] == DECIMAL else f"c{n} + ?"

    def shape(self, values: Iterable[Column]) -> _Shape:
        names = tuple(each.name for each in values)
        shape = self._shapes.get(names)
        if shape is None:
            shape = self._shapes[names] = self._shaped(names)
        return shape

    def named(self, shape: _Shape, values: Sequence[Column]) -> list[SqlValue]:
        """The values of the shape's columns."""
        return [self.stored(n, values[place].value) for place, n in zip(shape.places, shape.columns, strict=True)]

    def _shaped(self, names: Sequence[str]) -> _Shape:
        found = [(place, n) for place, name in enumerate(names) if (n := self.place(name)) is not None]
        found = [(place, n) for place, n in found if n not in self.key]
        columns = tuple(n for _, n in found)
        settings = ", ".join([f"c{n} = ?" for n in columns] or ["present = 1"])
        update = f"UPDATE {self.scratch} SET {settings} WHERE {self.where} AND present AND known IS NULL"
        return _Shape(tuple(place for place, _ in found), columns, self.insert(columns), update)

    def insert(self, columns: Iterable[int]) -> str:
        """Parameters: the key, then these columns; the others get their defaults, as far as these are known."""
        given = {*self.key, *columns}
        names = [f"c{n}" for n in (*self.key, *columns)]
        marks = ["?"] * len(names)
        if unknown := self._unknown - given:
            names += ["known", *(f"c{n}" for n in sorted(unknown))]
            known = self.all_known - sum(1 << n for n in unknown)
            marks += [f"'{known:x}'", *["NULL"] * len(unknown)]
        return f"INSERT OR IGNORE INTO {self.scratch} ({', '.join(names)}) VALUES ({', '.join(marks)})"

    # Comparing with the table itself, in the database that is attached as `real`.

    @cached_property
    def joined(self) -> str:
        return " AND ".join(f"s.c{n} = r.{quote(self.columns[n])}" for n in self.key)

    @property
    def differing(self) -> str:
        """A SELECT of every row whose twin is not the same: present, known, there, then for each column whether it is
        the same, then for each column both values."""
        pairs = [(f"s.c{n}", f"r.{quote(column)}") for n, column in enumerate(self.columns)]
        same = [f"{ours} IS {theirs}" for ours, theirs in pairs]
        values = [value for pair in pairs for value in pair]
        there = f"r.{quote(self.columns[self.key[0]])} IS NOT NULL"
        return (
            f"SELECT s.present, s.known, {there}, {', '.join(same)}, {', '.join(values)} "
            f"FROM {self.scratch} AS s LEFT JOIN real.{quote(self.name)} AS r ON {self.joined} "
            f"WHERE (s.present OR {there}) AND NOT (s.present AND {there} AND {' AND '.join(same)})"
        )

    @property
    def strangers(self) -> str:
        """FROM and WHERE of the rows that have no twin."""
        return (
            f"FROM real.{quote(self.name)} AS r LEFT JOIN {self.scratch} AS s ON {self.joined} WHERE s.present IS NULL"
        )

    def label(self, key: Sequence[SqlValue]) -> str:
        """The row as people write it: accounts/alice."""
        return "/".join([self.name, *map(str, key)])


def find(connection: sqlite3.Connection) -> Iterator[Twin]:
    """A twin for every table in `real` that has a primary key; others are never served."""
    names = connection.execute("SELECT name FROM real.sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    for number, (name,) in enumerate(names):
        if name.lower().startswith(("troth_", "sqlite_")):
            continue
        info = connection.execute(f"PRAGMA real.table_xinfo({quote(name)})").fetchall()
        key = [row[1] for row in sorted(info, key=lambda row: row[5]) if row[5]]
        if key:
            plain = [(row[1], row[2], row[4]) for row in info if row[6] == 0]  # generated columns follow from others
            yield Twin(name, f"t{number}", plain, key)


def quote(name: str) -> str:
    """An identifier as SQL."""
    return '"' + name.replace('"', '""') + '"'
