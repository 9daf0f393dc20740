"""What a database server holds of one participant's data, copied in one consistent snapshot into a scratch database:
which branches are prepared and committed, and the rows. Nothing there is changed.

`postgresql.py` and `mariadb.py` ask the servers. The tables keep their names and columns, so that a history is replayed
against them as against a participant's own file; what SQLite would not compare as the server does is brought into one
way of writing on both sides (`twins.NORMAL`), or left out and said.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from faults.auditor.files import Unreadable
from faults.auditor.twins import NORMAL, SqlValue, quote

KINDS = ("postgresql", "mariadb")
"""As in `troth_meta`; a module here each, and an extra of the package that brings its driver."""
AT_WORK_WITHIN_S = 5.0
"""How long sessions of a participant that was stopped, or killed, may take to be gone."""

_HELD = """
CREATE TABLE troth_held (position INTEGER PRIMARY KEY, log TEXT NOT NULL, number INTEGER NOT NULL,
                         committed INTEGER NOT NULL, operations BLOB, UNIQUE (log, number))
"""


class Branch(NamedTuple):
    """A prepared branch, by the names in it."""

    namespace: str
    log: str
    number: int


class Stray(NamedTuple):
    """Prepared there for another participant file."""

    name: str
    age_s: float | None
    """None where the server does not tell."""


class Column(NamedTuple):
    """A column as it is copied."""

    name: str
    type: str
    """As the server calls it."""
    declared: str
    """The type in the scratch database: one of SQLite's, or a name in `twins.NORMAL`; empty when it is not compared."""
    sql: str
    """What is selected."""
    default: str | None = None
    """In SQL that SQLite understands."""


class Table(NamedTuple):
    """A table as it is copied."""

    name: str
    """As operations name it."""
    sql: str
    columns: Sequence[Column]
    key: Sequence[str]
    refused: str = ""
    """Why its rows cannot be compared, when the server says so."""

    @property
    def compared(self) -> list[Column]:
        return [column for column in self.columns if column.declared]

    @property
    def left_out(self) -> list[str]:
        """Columns that are not compared, with their types."""
        return [f"{column.name} ({column.type})" for column in self.columns if not column.declared]

    @property
    def why_not(self) -> str:
        """Why none of its rows is compared, if so."""
        keys = [column for column in self.columns if column.name in self.key and not column.declared]
        if self.refused or not keys:
            return self.refused or ("" if self.key else "it has no primary key")
        return f"its key column {keys[0].name} is {keys[0].type}"


class Snapshot(ABC):
    """One consistent view of a database."""

    place: str
    """The database by a name that no other one has."""
    schema = ""
    """Of tables that go by their bare names."""

    @abstractmethod
    def prepared(self) -> Iterator[tuple[Branch | None, str, float | None]]:
        """What is prepared under a name with our prefix: what it says, the name, its age. What has ended since the
        snapshot is among it."""

    @abstractmethod
    def committed(self, namespace: str) -> Iterator[tuple[str, int, bytes | None]]:
        """What the namespace remembers as committed: log, number, and its operations if it was one-phase; of two that
        changed one row the first before the second."""

    @abstractmethod
    def tables(self, names: Collection[str]) -> Iterator[Table]:
        """Those that are among the names, in lower case."""

    @abstractmethod
    def rows(self, table: Table) -> Iterator[Sequence[SqlValue]]:
        """All rows of a table."""


class Copied:
    """What was found, in the scratch database."""

    def __init__(self, path: Path, kind: str, snapshot: Snapshot) -> None:
        self.kind, self.place, self.schema = kind, snapshot.place, snapshot.schema
        self.uri = f"{path.as_uri()}?mode=rw"
        self.strays: list[Stray] = []
        self.left_out: list[str] = []
        """What of the tables is not compared, a phrase each."""
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = OFF")
        self.connection.execute("PRAGMA synchronous = OFF")

    def __str__(self) -> str:
        return f"{self.kind} {shown(self.place)}"

    def held(self) -> Iterator[tuple[str, int, bool, bytes | None]]:
        """Log, number, whether committed, and the operations of what was committed in one step; in order."""
        rows = self.connection.execute("SELECT log, number, committed, operations FROM troth_held ORDER BY log, number")
        return ((log, number, bool(committed), operations) for log, number, committed, operations in rows)

    def committed(self) -> Iterator[tuple[str, int, bytes | None]]:
        """Log, number and operations of what is committed, in the server's order."""
        return self.connection.execute(
            "SELECT log, number, operations FROM troth_held WHERE committed ORDER BY position"
        )

    def count(self) -> str:
        """How much of it, for people."""
        total, committed = self.connection.execute("SELECT count(*), total(committed) FROM troth_held").fetchone()
        return f"{total - committed:.0f} prepared, {committed:.0f} remembered as committed"


def copy(kind: str, snapshot: Snapshot, namespace: str, tables: Collection[str], path: Path) -> Copied:
    """Copies what belongs to the namespace, and the tables of these names (lower case), to a new file."""
    copied = Copied(path, kind, snapshot)
    with copied.connection:
        copied.connection.execute("BEGIN")
        copied.connection.execute(_HELD)
        committed = ((log, number, 1, operations) for log, number, operations in snapshot.committed(namespace))
        copied.connection.executemany("INSERT INTO troth_held VALUES (NULL, ?, ?, ?, ?)", committed)
        for branch, name, age_s in snapshot.prepared():
            if branch is None or branch.namespace != namespace:
                copied.strays.append(Stray(name, age_s))
            else:  # it was looked at before the snapshot, so one that has ended since is committed above
                held = "INSERT OR IGNORE INTO troth_held VALUES (NULL, ?, ?, 0, NULL)"
                copied.connection.execute(held, (branch.log, branch.number))
        for table in snapshot.tables(tables):
            _copy(copied, table, snapshot.rows(table) if not table.why_not else ())
    return copied


def _copy(copied: Copied, table: Table, rows: Iterable[Sequence[SqlValue]]) -> None:
    if table.why_not:
        copied.left_out.append(f"table {table.name} ({table.why_not})")
        return
    copied.left_out += [f"{table.name}.{column}" for column in table.left_out]
    columns = [_definition(column) for column in table.compared]
    key = ", ".join(map(quote, table.key))
    copied.connection.execute(f"CREATE TABLE {quote(table.name)} ({', '.join(columns)}, PRIMARY KEY ({key}))")
    marks = ", ".join("?" * len(columns))
    normal = [NORMAL.get(column.declared, _same) for column in table.compared]
    copied.connection.executemany(
        f"INSERT INTO {quote(table.name)} VALUES ({marks})",
        ([raw if raw is None else change(raw) for change, raw in zip(normal, row, strict=True)] for row in rows),
    )


def _definition(column: Column) -> str:
    default = "" if column.default is None else f" DEFAULT {column.default}"
    return f"{quote(column.name)} {quote(column.declared)}{default}"


def _same(raw: SqlValue) -> SqlValue:
    return raw


def shown(place: str) -> str:
    """The name of a database without what it says of itself before that."""
    return place.rpartition(": ")[2]


def check_kind(kind: str, dsn: str) -> None:
    """Raises Unreadable for a DSN whose scheme is another server's."""
    scheme, is_url, _ = dsn.partition("://")
    named = {"postgres": "postgresql", "mysql": "mariadb"}.get(scheme, scheme)
    if is_url and named != kind:
        raise Unreadable(f"they are at {kind}, and the DSN given is of {named}")
