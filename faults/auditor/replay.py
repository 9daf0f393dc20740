"""A scratch database in which a history is replayed, beside the file that it is compared with.

Each table has a twin with its own columns (c0, c1, ...), with no constraint but the key, and two more: `present`, 0 for
a row that the history deleted, and `known`, NULL when every column is known, else a bit mask in hex of those that are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from troth.v1.types_pb2 import Operation, Value

SqlValue = int | float | str | bytes | None

CACHE_KIB = 64 * 1024
STATEMENTS = 1_000


class Impossible(Exception):
    """An operation that cannot have been applied where the history has it; one sentence."""


class Wrong(NamedTuple):
    """A row that is not what its history says."""

    kind: str
    sentence: str


class Counted(NamedTuple):
    """Rows of one table: fully known by the history, known in part, and not touched by it."""

    known: int
    partly: int
    uncovered: int


class Twin:
    """One table and its scratch copy."""

    def __init__(
        self, name: str, number: int, columns: Sequence[tuple[str, str, str | None]], key: Sequence[str]
    ) -> None:
        self.name = name
        self.scratch = f"t{number}"
        self.columns = [column for column, _, _ in columns]
        self.declared = [declared.upper() for _, declared, _ in columns]
        self.index = {column.lower(): n for n, column in enumerate(self.columns)}
        self.key = [self.index[column.lower()] for column in key]
        self.all_known = (1 << len(columns)) - 1
        self.key_mask = sum(1 << n for n in self.key)
        self.where = " AND ".join(f"c{n} = ?" for n in self.key)
        parts = [
            f"c{n} {quote(declared)}{f' DEFAULT ({default})' if default else ''}"
            for n, (_, declared, default) in enumerate(columns)
        ]
        names = ", ".join(f"c{n}" for n in self.key)
        self.ddl = (
            f"CREATE TABLE {self.scratch} ({', '.join(parts)}, present INTEGER NOT NULL DEFAULT 1, known TEXT, "
            f"PRIMARY KEY ({names}))"
        )

    def stored(self, n: int, value: Value) -> SqlValue:
        """As the column stores it, but for what SQLite's affinity does by itself."""
        which = value.WhichOneof("kind")
        raw: SqlValue = None if which in (None, "null") else getattr(value, which or "")
        if isinstance(raw, str) and "BOOL" in self.declared[n]:
            return {"true": 1, "false": 0}.get(raw, raw)
        return int(raw) if isinstance(raw, bool) else raw


class Replay:
    """Replays operations. `whole`: the tables were empty before the first of them."""

    def __init__(self, path: Path, real: str, *, whole: bool) -> None:
        self.whole = whole
        self.skipped = 0
        """Operations that are of no table of the file: custom ones, and of tables that were dropped since."""
        self._connection = sqlite3.connect(path, uri=True, isolation_level=None, cached_statements=STATEMENTS)
        self._execute = self._connection.execute
        self._connection.text_factory = lambda raw: raw.decode(errors="replace")
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            self._execute(f"PRAGMA {setting}")
        self._execute("ATTACH ? AS real", (real,))
        self._twins = {twin.name.lower(): twin for twin in self._find_twins()}
        self._execute("BEGIN")
        for twin in self._twins.values():
            self._execute(twin.ddl)

    def close(self) -> None:
        self._connection.close()

    def _find_twins(self) -> Iterator[Twin]:
        rows = self._execute("SELECT name FROM real.sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for number, (name,) in enumerate(rows):
            if name.lower().startswith(("troth_", "sqlite_")):
                continue
            info = self._execute(f"PRAGMA real.table_xinfo({quote(name)})").fetchall()
            key = [row[1] for row in sorted(info, key=lambda row: row[5]) if row[5]]
            if key:
                yield Twin(name, number, [(row[1], row[2], row[4]) for row in info if row[6] == 0], key)

    # Applying.

    def apply(self, operation: Operation) -> None:
        """One operation of a committed branch. Raises Impossible."""
        kind = operation.WhichOneof("kind")
        if kind in ("read", "check"):
            return
        twin = self._twins.get(operation.table.lower())
        if twin is None or kind == "custom" or len(operation.key) != len(twin.key):
            self.skipped += 1
            return
        key = [twin.stored(n, value) for n, value in zip(twin.key, operation.key, strict=True)]
        change = _Change(self, twin, key)
        if kind == "insert":
            change.insert(operation.insert.values)
        elif kind == "update":
            change.update(operation.update.values)
        elif kind == "upsert":
            change.upsert(operation.upsert.values)
        elif kind == "add":
            change.add(operation.add.column, operation.add.by)
        else:
            change.delete()

    def run(self, sql: str, parameters: Sequence[SqlValue]) -> int:
        """Rows changed."""
        return self._execute(sql, parameters).rowcount

    def look(self, twin: Twin, key: Sequence[SqlValue]) -> tuple[bool, int] | None:
        """Whether the row is present and what of it is known; None when nothing is."""
        row = self._execute(f"SELECT present, known FROM {twin.scratch} WHERE {twin.where}", key).fetchone()
        if row is None:
            return None
        return bool(row[0]), twin.all_known if row[1] is None else int(row[1], 16)

    # Comparing.

    def tables(self) -> list[Twin]:
        return list(self._twins.values())

    def count(self, twin: Twin) -> Counted:
        ((known, partly),) = self._execute(
            f"SELECT count(*) FILTER (WHERE known IS NULL AND present), count(*) FILTER (WHERE known IS NOT NULL) "
            f"FROM {twin.scratch}"
        )
        ((uncovered,),) = self._execute(f"SELECT count(*) {self._strangers(twin)}")
        return Counted(known, partly, 0 if self.whole else uncovered)

    def wrong(self, twin: Twin) -> Iterator[Wrong]:
        """Every row that is not what the history says."""
        same = ", ".join(f"s.c{n} IS r.{quote(column)}" for n, column in enumerate(twin.columns))
        values = ", ".join(f"s.c{n}, r.{quote(column)}" for n, column in enumerate(twin.columns))
        there = f"r.{quote(twin.columns[twin.key[0]])} IS NOT NULL"
        rows = self._execute(
            f"SELECT s.present, s.known, {there}, {same}, {values} "
            f"FROM {twin.scratch} AS s LEFT JOIN real.{quote(twin.name)} AS r ON {self._joined(twin)} "
            f"WHERE NOT (s.present AND {there} AND {same.replace(', ', ' AND ')}) "
            f"AND (s.present OR {there})"
        )
        width = len(twin.columns)
        for present, known, is_there, *rest in rows:
            found = self._judge(twin, bool(present), known, bool(is_there), rest[:width], rest[width:])
            if found is not None:
                yield found
        if self.whole:
            names = ", ".join(f"r.{quote(twin.columns[n])}" for n in twin.key)
            for key in self._execute(f"SELECT {names} {self._strangers(twin)}"):
                yield Wrong("row-unexplained", f"{label(twin, key)} is there, and no entry of the history made it")

    def _judge(
        self, twin: Twin, present: bool, known: str | None, there: bool, same: Sequence[int], values: Sequence[SqlValue]
    ) -> Wrong | None:
        key = [values[2 * n] for n in twin.key]
        if not there:
            return Wrong("row-missing", f"{label(twin, key)} is gone; its history leaves it there")
        if not present:
            return Wrong("row-unexplained", f"{label(twin, key)} is there; its history deletes it")
        mask = twin.all_known if known is None else int(known, 16)
        wrong = [n for n in range(len(twin.columns)) if mask >> n & 1 and not same[n]]
        if not wrong:
            return None
        differ = "; ".join(
            f"{twin.columns[n]} is {values[2 * n + 1]!r}, by its history {values[2 * n]!r}" for n in wrong
        )
        return Wrong("row-changed", f"{label(twin, key)}: {differ}")

    def _joined(self, twin: Twin) -> str:
        return " AND ".join(f"s.c{n} = r.{quote(twin.columns[n])}" for n in twin.key)

    def _strangers(self, twin: Twin) -> str:
        """FROM and WHERE of the rows that no entry has touched."""
        return (
            f"FROM real.{quote(twin.name)} AS r LEFT JOIN {twin.scratch} AS s ON {self._joined(twin)} "
            "WHERE s.present IS NULL"
        )


class _Change:
    """One operation on one row, by as few statements as will do."""

    def __init__(self, replay: Replay, twin: Twin, key: list[SqlValue]) -> None:
        self._replay, self._twin, self._key = replay, twin, key

    def _named(self, values: Sequence[object]) -> dict[int, SqlValue]:
        """Values by column; those of columns that are gone are left out."""
        twin, named = self._twin, {}
        for each in values:
            n = twin.index.get(each.name.lower())  # type: ignore[attr-defined]
            if n is not None and n not in twin.key:
                named[n] = twin.stored(n, each.value)  # type: ignore[attr-defined]
        return named

    def insert(self, values: Sequence[object]) -> None:
        found = None
        if self._put(self._named(values), "OR IGNORE"):
            return
        found = self._replay.look(self._twin, self._key)
        assert found is not None
        if found[0]:
            raise Impossible(f"{self._label} is inserted and was there already")
        self._replace(self._named(values))

    def update(self, values: Sequence[object]) -> None:
        named = self._named(values)
        found = self._replay.look(self._twin, self._key)
        self._require(found, "updated")
        self._set(named, found)

    def upsert(self, values: Sequence[object]) -> None:
        named = self._named(values)
        found = self._replay.look(self._twin, self._key)
        if found is None and self._replay.whole:
            self._put(named)
        elif found is not None and not found[0]:
            self._replace(named)
        else:
            self._set(named, found)

    def delete(self) -> None:
        found = self._replay.look(self._twin, self._key)
        self._require(found, "deleted")
        if found is None:
            self._put({})
        self._run("present = 0, known = NULL", [])

    def add(self, column: str, by: Value) -> None:
        n = self._twin.index.get(column.lower())
        if n is None:
            self._replay.skipped += 1
            return
        number = self._twin.stored(n, by)
        if self._run(f"c{n} = c{n} + ?", [number], " AND present"):
            return  # a column that is not known is NULL, and stays so
        found = self._replay.look(self._twin, self._key)
        self._require(found, "added to")
        self._set({}, None)

    # Parts.

    @property
    def _label(self) -> str:
        return label(self._twin, self._key)

    def _require(self, found: tuple[bool, int] | None, what: str) -> None:
        gone = self._replay.whole if found is None else not found[0]
        if gone:
            raise Impossible(f"{self._label} is {what} and was not there")

    def _set(self, named: dict[int, SqlValue], found: tuple[bool, int] | None) -> None:
        """Sets columns of a row that is there; of one that was never seen nothing else is known."""
        twin = self._twin
        if found is None:
            self._put({n: None for n in range(len(twin.columns)) if n not in twin.key} | named)
        known = (found[1] if found else twin.key_mask) | sum(1 << n for n in named)
        mask = None if known == twin.all_known else f"{known:x}"
        settings = [f"c{n} = ?" for n in named]
        self._run(", ".join([*settings, "known = ?"]), [*named.values(), mask])

    def _put(self, named: dict[int, SqlValue], how: str = "") -> int:
        columns = [*self._twin.key, *named]
        names, marks = ", ".join(f"c{n}" for n in columns), ", ".join("?" * len(columns))
        sql = f"INSERT {how} INTO {self._twin.scratch} ({names}) VALUES ({marks})"
        return self._replay.run(sql, [*self._key, *named.values()])

    def _replace(self, named: dict[int, SqlValue]) -> None:
        self._replay.run(f"DELETE FROM {self._twin.scratch} WHERE {self._twin.where}", self._key)
        self._put(named)

    def _run(self, settings: str, parameters: list[SqlValue], more: str = "") -> int:
        sql = f"UPDATE {self._twin.scratch} SET {settings} WHERE {self._twin.where}{more}"
        return self._replay.run(sql, [*parameters, *self._key])


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def label(twin: Twin, key: Sequence[SqlValue]) -> str:
    """The row as people write it: accounts/alice."""
    return "/".join([twin.name, *map(str, key)])
