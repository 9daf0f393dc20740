"""Rows as the checks see them: the simulated participants' tables in plain Python, sharing no code with the engine.

A branch's work is a tuple of operations in the form that the workload wrote them, with each key as the one row that it
means however the request spelled it. The model runs them one after the other: what serial execution would have done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from faults.simulator.violation import Violation

SCHEMA = """
CREATE TABLE hot (k TEXT PRIMARY KEY NOT NULL, v INTEGER NOT NULL);
CREATE TABLE accounts (k INTEGER PRIMARY KEY, v INTEGER NOT NULL CHECK (v >= 0));
CREATE TABLE items (k INTEGER PRIMARY KEY, v INTEGER NOT NULL CHECK (v BETWEEN 0 AND 60), u INTEGER UNIQUE);
CREATE TABLE notes (k INTEGER PRIMARY KEY, body TEXT NOT NULL);
"""
"""What each simulated participant serves. `accounts` are only ever moved between, so their sum is conserved. `notes`
are large, so that a disk without room is met by a trial; the model knows a body by its length."""

TABLES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "hot": {"v": (float("-inf"), float("inf"))},
    "accounts": {"v": (0, float("inf"))},
    "items": {"v": (0, 60), "u": (float("-inf"), float("inf"))},
    "notes": {"body": (0, float("inf"))},
}
"""Bounds of every column but the key."""

Key: TypeAlias = int | str
Slot: TypeAlias = tuple[str, Key]
"""A row: table and key."""


class Op(NamedTuple):
    """One operation."""

    kind: str
    """insert, update, upsert, delete, add, at_least, at_most, equals, exists or read."""
    table: str
    key: Key
    values: tuple[tuple[str, int | None], ...] = ()
    """Of insert, update, upsert: columns; of add and of checks: the column and the number; of exists: 1 or 0."""
    low: int | None = None
    high: int | None = None
    """An add's own bounds."""

    @property
    def slot(self) -> Slot:
        return self.table, self.key


Work: TypeAlias = tuple[Op, ...]

LOOKS = frozenset({"read", "at_least", "at_most", "equals", "exists"})
"""Kinds that change nothing."""

Seen: TypeAlias = tuple[str, Key, tuple[tuple[str, int | None], ...] | None]
"""What a read brought back: table, key, and the columns beside the key or None for an absent row."""


@dataclass
class Rows:
    """One participant's rows: by table and key, columns beside the key."""

    rows: dict[Slot, dict[str, int | None]]

    def copy(self) -> Rows:
        return Rows({slot: dict(row) for slot, row in self.rows.items()})

    def run(self, work: Work) -> list[Seen]:
        """Runs a committed branch; what its reads see. Raises Violation when serial execution would have said NO."""
        seen: list[Seen] = []
        for op in work:
            if op.kind == "read":
                row = self.rows.get(op.slot)
                seen.append((op.table, op.key, None if row is None else tuple(sorted(row.items()))))
            else:
                self._require(_RUN[op.kind](self, op), op)
        return seen

    def _require(self, holds: bool, op: Op) -> None:
        if not holds:
            raise Violation(f"serial execution would refuse {op.kind} {op.table}/{op.key} {op.values}: {self._of(op)}")

    def _of(self, op: Op) -> str:
        return f"the row is {self.rows.get(op.slot)}"

    def _insert(self, op: Op) -> bool:
        if op.slot in self.rows:
            return False
        self.rows[op.slot] = {**dict.fromkeys(TABLES[op.table]), **dict(op.values)}
        return self._fits(op)

    def _update(self, op: Op) -> bool:
        if op.slot not in self.rows:
            return False
        self.rows[op.slot].update(op.values)
        return self._fits(op)

    def _upsert(self, op: Op) -> bool:
        return self._update(op) if op.slot in self.rows else self._insert(op)

    def _delete(self, op: Op) -> bool:
        return self.rows.pop(op.slot, None) is not None

    def _add(self, op: Op) -> bool:
        ((column, by),) = op.values
        row = self.rows.get(op.slot)
        if row is None or row[column] is None:
            return False
        total = row[column] = (row[column] or 0) + (by or 0)
        low_enough = op.high is None or total <= op.high
        return (op.low is None or total >= op.low) and low_enough and self._fits(op)

    def _fits(self, op: Op) -> bool:
        row = self.rows[op.slot]
        for column, (low, high) in TABLES[op.table].items():
            value = row[column]
            if column != "u" and (value is None or not low <= value <= high):
                return False
        unique = row.get("u")
        return unique is None or not any(
            slot != op.slot and slot[0] == op.table and other.get("u") == unique for slot, other in self.rows.items()
        )

    def _at_least(self, op: Op) -> bool:
        found, wanted = self._compared(op)
        return found is not None and wanted is not None and found >= wanted

    def _at_most(self, op: Op) -> bool:
        found, wanted = self._compared(op)
        return found is not None and wanted is not None and found <= wanted

    def _equals(self, op: Op) -> bool:
        found, wanted = self._compared(op)
        return op.slot in self.rows and found == wanted

    def _exists(self, op: Op) -> bool:
        return (op.slot in self.rows) == bool(op.values[0][1])

    def _compared(self, op: Op) -> tuple[int | None, int | None]:
        ((column, wanted),) = op.values
        return self.rows.get(op.slot, {}).get(column), wanted


_RUN: dict[str, Any] = {
    "insert": Rows._insert,
    "update": Rows._update,
    "upsert": Rows._upsert,
    "delete": Rows._delete,
    "add": Rows._add,
    "at_least": Rows._at_least,
    "at_most": Rows._at_most,
    "equals": Rows._equals,
    "exists": Rows._exists,
}


def number_in(value: object) -> int | None:
    """A column's value as the model has it."""
    return len(value) if isinstance(value, str) else value  # type: ignore[return-value]


def touched(work: Work) -> dict[Any, str]:
    """The rows that a branch touches and how: `look`, `add` or `write`."""
    found: dict[Any, str] = {}
    for op in work:
        how = "look" if op.kind in LOOKS else "add" if op.kind == "add" else "write"
        if found.setdefault(op.slot, how) != how:
            found[op.slot] = "write"
    return found


def footprint(work: Work) -> dict[Any, str]:
    """What a branch touches and how, named without the engine's planner: rows, and values that are to be unique."""
    found = touched(work)
    for op in work:
        for column, value in op.values:
            if column == "u" and value is not None and op.kind not in LOOKS and op.kind != "add":
                found["unique", op.table, value] = "write"
    return found


def clash(one: Work, other: Work) -> Any:
    """What two branches that are prepared at one time may not share, if anything: only looks, and only adds, may be."""
    wanted = footprint(one)
    for slot, how in footprint(other).items():
        if slot in wanted and (how != wanted[slot] or how == "write"):
            return slot
    return None
