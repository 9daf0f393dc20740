"""The tables of a server as a participant sees them: plain data, made by a dialect, never changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from participant.resources.catalog import Refused
from troth.v1 import participant_pb2
from troth.words import Symbol

Number = int | float | Decimal

Named = TypeVar("Named")


class Kind(Symbol):
    """What a column holds, and how its values go over the wire (the `Value` of types.proto)."""

    INTEGER = "integer"
    """`integer`, within the bounds of the column's width."""
    REAL = "real"
    """`real`, in double precision."""
    SINGLE = "single"
    """`real`, in single precision: only what that holds exactly."""
    DECIMAL = "decimal"
    """`text`, such as "12.50": JSON and doubles have no decimals. Integers, and reals of at most 15 digits, are taken
    as the decimals that they print as."""
    TEXT = "text"
    """`text`, within the column's length, or one of its labels."""
    PADDED = "padded"
    """`text` without spaces at its end, which the server fills up and does not compare: char(n)."""
    BLOB = "blob"
    """`blob`."""
    BOOLEAN = "boolean"
    """`boolean`."""
    UUID = "uuid"
    """`text`, in lower case with hyphens."""
    DATE = "date"
    """`text`, "2026-11-26"."""
    TIMESTAMP = "timestamp"
    """`text`, "2026-11-26 18:17:10.5", without a zone."""
    MOMENT = "moment"
    """`text`, the same with an offset; UTC in what is read."""
    OTHER = "other"
    """Read as the server writes it, in `text`; not set, compared or added to but by `sql`, as what the text means
    (and whether anything is lost) is known to the server alone: JSON, arrays, intervals, ranges, addresses."""


NUMBERS = frozenset({Kind.INTEGER, Kind.REAL, Kind.SINGLE, Kind.DECIMAL})
"""Kinds that can be added to."""

KEYS = frozenset({Kind.INTEGER, Kind.TEXT, Kind.PADDED, Kind.BLOB, Kind.BOOLEAN, Kind.UUID, Kind.DATE})
"""Kinds that a key column may have: those whose equal values are written in one way only."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    kind: Kind
    declared: str
    """The type in the server's words."""
    nullable: bool
    generated: bool = False
    """Whether the server alone sets it."""
    low: Number | None = None
    """The least value of the type; None without a bound."""
    high: Number | None = None
    """The greatest."""
    scale: int | None = None
    """Digits after the point: of a decimal, or of a timestamp's seconds; None for any number (six, of a timestamp)."""
    characters: int | None = None
    """The greatest length of a text."""
    octets: int | None = None
    """The greatest length of a text (as UTF-8) or blob in bytes."""
    octets_min: int = 0
    """The least length of a blob."""
    labels: frozenset[str] | None = None
    """The only texts that there are, of an enumeration."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table that is served."""

    name: str
    """As operations and reasons name it."""
    sql: str
    """As statements name it: qualified and quoted."""
    columns: Mapping[str, Column]
    """By name, in the table's order."""
    key: tuple[Column, ...]
    """The primary key, in its own order."""

    def column(self, name: str) -> Column | None:
        """The column of that name; in other case, if there is but one."""
        return self.columns.get(name) or _only(self.columns, name)

    def is_key(self, name: str) -> bool:
        return any(column.name == name for column in self.key)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All tables of a database but Troth's and the server's own."""

    served: Mapping[str, Table]
    """By every name that operations may use; two names may mean one table."""
    refused: Mapping[str, Refused]

    def table(self, name: str) -> Table | None:
        """The served table of that name; in other case, if there is but one."""
        return self.served.get(name) or _only(self.served, name)

    def statuses(self) -> list[participant_pb2.TableStatus]:
        """Every table, served or not with the reason, by name."""
        statuses = []
        for table in {table.name: table for table in self.served.values()}.values():
            status = participant_pb2.TableStatus(name=table.name, key=[column.name for column in table.key])
            for column in table.columns.values():
                status.columns.add(name=column.name, type=column.kind.value, nullable=column.nullable)
            statuses.append(status)
        for refused in {refused.name: refused for refused in self.refused.values()}.values():
            status = participant_pb2.TableStatus(name=refused.name, not_served=refused.why)
            for name, declared, nullable in refused.columns:
                status.columns.add(name=name, type=declared, nullable=nullable)
            statuses.append(status)
        return sorted(statuses, key=lambda status: status.name)

    def why_refused(self, name: str) -> Refused | None:
        return self.refused.get(name) or _only(self.refused, name)


def _only(named: Mapping[str, Named], name: str) -> Named | None:
    folded = name.casefold()
    found = {id(each): each for other, each in named.items() if other.casefold() == folded}
    return next(iter(found.values())) if len(found) == 1 else None
