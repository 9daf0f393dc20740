"""What the kit writes: rows of a table that it may fill, or operations that the user gives it.

A check writes at a `Place`. In a table each check has a row of its own, so that what one leaves locked disturbs no
other; operations that are given always mean the same place.
"""

from __future__ import annotations

import itertools
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from faults.conformance.check import Needs
from troth import operations as op
from troth.v1.participant_pb2 import TableStatus
from troth.v1.types_pb2 import Operation
from troth.values import Scalar

if TYPE_CHECKING:
    from faults.conformance.target import Target

TABLE = "conformance"
UNIQUE, BOUNDED, PARENT, CHILD = (f"{TABLE}_{name}" for name in ("unique", "bounded", "parent", "child"))

SCHEMA = f"""\
-- Tables for `troth check-participant`: with them it also checks that a YES holds against constraints.
CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY NOT NULL, n BIGINT NOT NULL, note TEXT);
CREATE TABLE {UNIQUE} (id INTEGER PRIMARY KEY NOT NULL, mark VARCHAR(40) UNIQUE);
CREATE TABLE {BOUNDED} (id INTEGER PRIMARY KEY NOT NULL, n INTEGER NOT NULL CHECK (n >= 0));
CREATE TABLE {PARENT} (id INTEGER PRIMARY KEY NOT NULL);
CREATE TABLE {CHILD} (id INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL REFERENCES {PARENT} (id));
"""

BEGIN = 100
"""What the number in a new row is."""
_POOL = 32
"""New rows are made so many at a time."""


class Place(ABC):
    """Where one check writes and looks."""

    @abstractmethod
    def write(self) -> Operation:
        """Changes what `look` shows, each time anew."""

    @abstractmethod
    def look(self) -> Operation:
        """Brings back what is there."""

    @abstractmethod
    def refused(self) -> Operation:
        """What the data refuse."""


class Work(ABC):
    """What there is to write."""

    offers: Needs
    """Which needs of checks it fulfils."""

    @abstractmethod
    def place(self, t: Target) -> Place:
        """A place to write, a new one where there can be several."""

    @abstractmethod
    def applied(self, operations: Sequence[Operation]) -> None:
        """A branch of these is committed."""

    @abstractmethod
    def clean(self, t: Target) -> None:
        """Takes away what was written, as far as that can be done."""


class Row(Place):
    """A row with a number in it, and what can be done with it."""

    def __init__(self, table: str, key: Scalar, column: str, filled: dict[str, Scalar] | None = None) -> None:
        self.table = table
        self.key = key
        self.column = column
        self._filled = filled or {}
        self._next = itertools.count(BEGIN + 1)

    def write(self) -> Operation:
        return self.update(next(self._next))

    def look(self) -> Operation:
        return op.read(self.table, self.key)

    def refused(self) -> Operation:
        return self.add(-1_000_000, low=0)

    def insert(self, number: int = BEGIN, **more: Scalar) -> Operation:
        return op.insert(self.table, self.key, {**self._filled, self.column: number, **more})

    def update(self, number: int) -> Operation:
        return op.update(self.table, self.key, {self.column: number})

    def add(self, by: int, low: int | None = None, high: int | None = None) -> Operation:
        return op.add(self.table, self.key, self.column, by, min=low, max=high)

    def at_least(self, number: int) -> Operation:
        return op.check(self.table, self.key, self.column, at_least=number)

    def delete(self) -> Operation:
        return op.delete(self.table, self.key)


class TableWork(Work):
    """Rows with fresh keys in one table, and in those of SCHEMA where they are."""

    def __init__(self, table: TableStatus, constraints: bool) -> None:
        """Raises ValueError for a table that has no key of one column or no integer column beside it, or has a column
        that nothing is known to fill with."""
        columns = {column.name: column for column in table.columns}
        numbers = [name for name, column in columns.items() if column.type == "integer" and name not in table.key]
        if len(table.key) != 1 or not numbers or columns[table.key[0]].type not in ("integer", "text"):
            raise ValueError(f"table {table.name} must have a key of one integer or text column, and an integer column")
        self.offers = Needs.TABLE | Needs.REFUSED | (Needs.CONSTRAINTS if constraints else Needs.NOTHING)
        self.table = table.name
        self.column = numbers[0]
        self._text_key = columns[table.key[0]].type == "text"
        wanted = [c for c in table.columns if not c.nullable and c.name not in (*table.key, self.column)]
        for column in wanted:
            if column.type not in _FILLINGS:
                raise ValueError(f"column {column.name} of table {table.name} may not be NULL, and is a {column.type}")
        self._filled = {column.name: _FILLINGS[column.type] for column in wanted}
        # Below 2**31, for key columns of four bytes; and so a key is the same number as a float.
        self._keys = itertools.count((1 + secrets.randbelow(2146)) * 1_000_000)
        self._pool: list[Row] = []
        self._written: list[tuple[str, Scalar]] = []

    def place(self, t: Target) -> Place:
        return self.row(t)

    def row(self, t: Target) -> Row:
        """A row of its own, committed, with BEGIN in it."""
        if not self._pool:
            self._pool = [self.absent() for _ in range(_POOL)]
            t.apply(*(row.insert() for row in self._pool))
        return self._pool.pop()

    def absent(self) -> Row:
        """A row that is not there."""
        return Row(self.table, self.key(self.table), self.column, self._filled)

    def key(self, table: str) -> Scalar:
        """A key that nobody has, noted so that its row is taken away in the end."""
        number = next(self._keys)
        key: Scalar = str(number) if self._text_key and table == self.table else number
        self._written.append((table, key))
        return key

    def applied(self, operations: Sequence[Operation]) -> None:
        """Nothing to note: every write is another one."""

    def clean(self, t: Target) -> None:
        children = [(table, key) for table, key in self._written if table == CHILD]
        others = [(table, key) for table, key in self._written if table != CHILD]
        for batch in (*_portions(children), *_portions(others)):
            t.apply_each(*(op.delete(table, key) for table, key in batch))


class GivenWork(Work):
    """Operations that the user gave, in the order given when there are several."""

    def __init__(self, writes: Sequence[Operation], reads: Sequence[Operation], refused: Sequence[Operation]) -> None:
        self.offers = Needs.REFUSED if refused else Needs.NOTHING
        self._place = _Given(writes, reads, refused)

    def place(self, t: Target) -> Place:
        return self._place

    def applied(self, operations: Sequence[Operation]) -> None:
        self._place.applied(operations)

    def clean(self, t: Target) -> None:
        """Nobody said how: what was written stays."""


class _Given(Place):
    def __init__(self, writes: Sequence[Operation], reads: Sequence[Operation], refused: Sequence[Operation]) -> None:
        self._writes, self._reads, self._refused = list(writes), reads, refused

    def write(self) -> Operation:
        """The same until it is applied, for it would then change nothing."""
        return self._writes[0]

    def applied(self, operations: Sequence[Operation]) -> None:
        if self._writes[0] in operations:
            self._writes.append(self._writes.pop(0))

    def look(self) -> Operation:
        return self._reads[0]

    def refused(self) -> Operation:
        return self._refused[0]


_FILLINGS: dict[str, Scalar] = {"integer": 0, "real": 0.0, "text": "", "blob": b"", "boolean": False}
"""What a column without NULL gets that no check looks at."""


def _portions(written: list[tuple[str, Scalar]], size: int = 64) -> Iterator[list[tuple[str, Scalar]]]:
    for begin in range(0, len(written), size):
        yield written[begin : begin + size]
