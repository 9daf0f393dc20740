"""The tables of a file as the SQLite resource sees them: plain data, made by `schema.py`, never changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from participant.resources import INTEGER_MAX, INTEGER_MIN
from participant.resources.conversion import Kind, SqlValue, to_sql, to_value
from participant.resources.ddl import fold
from troth.v1.types_pb2 import Value


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `low` and `high` are what CHECKs leave an integer column: the escrow bounds of every `add`."""

    name: str
    kind: Kind
    nullable: bool
    default: SqlValue = None
    generated: bool = False
    low: int = INTEGER_MIN
    high: int = INTEGER_MAX

    def to_sql(self, value: Value) -> SqlValue:
        """`value` as the column stores it. Raises Unfit."""
        return to_sql(value, self.kind)

    def to_value(self, raw: SqlValue) -> Value:
        """What was found in the column, as the wire has it."""
        return to_value(raw, self.kind)


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index besides the primary key; `columns` as the table declares them, in the index's order."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`columns` of the child, each beside the column of the parent's primary key that it names, in that key's order."""

    columns: tuple[str, ...]
    parent: str


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table that is served."""

    name: str
    columns: Mapping[str, Column]
    """By declared name, in the table's order."""
    key: tuple[Column, ...]
    """The primary key, in its own order."""
    uniques: tuple[UniqueIndex, ...]
    foreign_keys: tuple[ForeignKey, ...]
    add_exclusive: bool
    """Whether `add` may meet more than the bounds of its column: a CHECK of another form, a generated column, an index
    on an expression or with a condition."""

    def column(self, name: str) -> Column | None:
        """The column of that name, in any case of ASCII letters."""
        found = self.columns.get(name)
        if found is not None:
            return found
        folded = fold(name)
        return next((column for column in self.columns.values() if fold(column.name) == folded), None)

    def is_key(self, name: str) -> bool:
        """Whether the declared name is one of the key's columns."""
        return any(column.name == name for column in self.key)


@dataclass(frozen=True, slots=True)
class Refused:
    """A table that is there and cannot be served, and why, as sentences for people."""

    name: str
    reasons: tuple[str, ...]
    columns: tuple[tuple[str, str, bool], ...] = ()
    """Name, declared type, and whether NULL is allowed, as far as they are known."""

    @property
    def why(self) -> str:
        return "; ".join(self.reasons)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All tables of a file but Troth's and SQLite's own, by folded name."""

    served: Mapping[str, Table]
    refused: Mapping[str, Refused]

    def table(self, name: str) -> Table | None:
        """The served table of that name, in any case of ASCII letters."""
        return self.served.get(name) or self.served.get(fold(name))

    def why_refused(self, name: str) -> Refused | None:
        return self.refused.get(fold(name))
