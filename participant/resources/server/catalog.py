"""The tables of a server as a participant sees them: plain data, made by a dialect, never changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from participant.resources.catalog import Refused
from participant.resources.server.columns import Column
from troth.v1 import participant_pb2

Named = TypeVar("Named")


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
    has_triggers: bool = False
    """Whether changing it may run code of the user's, as far as the catalog shows."""

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
