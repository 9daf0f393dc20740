"""Replays operations in a scratch database and compares the outcome, row by row, with a participant's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from faults.auditor import twins
from faults.auditor.twins import SqlValue, Twin
from troth.v1.types_pb2 import Column, Operation, Sql, Value

CACHE_KIB = 64 * 1024
STATEMENTS = 1_000
"""Prepared statements that SQLite's module keeps."""


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


class Replay:
    """Replays operations. `whole`: the tables were empty before the first of them."""

    def __init__(self, path: Path, real: str, *, whole: bool, schema: str = "") -> None:
        """`path` is for the scratch database, `real` the URI of that with the tables; operations may name these with
        `schema` before them."""
        self.whole = whole
        self._schema = f"{schema.lower()}." if schema else ""
        self.skipped = 0
        """Operations that are of no table there: custom ones, and those of what is gone or not compared."""
        self.touched: set[Twin] = set()
        """Tables that a statement may have changed: nothing is known of their rows any more."""
        self._connection = sqlite3.connect(path, uri=True, isolation_level=None, cached_statements=STATEMENTS)
        self._connection.text_factory = lambda raw: raw.decode(errors="replace")
        self._connection.create_function("troth_sum", 2, twins.sum_of, deterministic=True)
        self._execute = self._connection.execute
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            self._execute(f"PRAGMA {setting}")
        self._execute("ATTACH ? AS real", (real,))
        self.tables = list(twins.find(self._connection))
        self._by_name = {twin.name.lower(): twin for twin in self.tables}
        self._execute("BEGIN")
        for twin in self.tables:
            self._execute(twin.definition)

    def close(self) -> None:
        self._connection.close()

    # Replaying. The common case is one statement that changes one row; where it does not, the row is looked at.

    def apply(self, operation: Operation) -> None:
        """One operation of a committed branch. Raises Impossible."""
        kind = operation.WhichOneof("kind")
        if kind in ("read", "check"):
            return
        if kind == "sql":
            self._touch(operation.sql)
            return
        twin = self._by_name.get(operation.table.lower().removeprefix(self._schema))
        if twin is None or kind == "custom" or len(operation.key) != len(twin.key):
            self.skipped += 1
            return
        if twin in self.touched:
            return
        key = [twin.stored(n, value) for n, value in zip(twin.key, operation.key, strict=True)]
        if kind == "add":
            self._add(twin, key, operation.add.column, operation.add.by)
        elif kind == "insert":
            self._insert(twin, key, operation.insert.values)
        elif kind == "update":
            self._update(twin, key, operation.update.values)
        elif kind == "upsert":
            self._upsert(twin, key, operation.upsert.values)
        else:
            self._delete(twin, key)

    def _touch(self, sql: Sql) -> None:
        """A statement cannot be replayed. One that names no table may change any, by a function or procedure."""
        if not sql.read_only:
            statement = sql.statement.lower()
            named = {twin for twin in self.tables if twin.name.lower().rpartition(".")[2] in statement}
            self.touched |= named or set(self.tables)

    def _insert(self, twin: Twin, key: list[SqlValue], values: Sequence[Column]) -> None:
        shape = twin.shape(values)
        parameters = [*key, *twin.named(shape, values)]
        if self._changed(shape.insert, parameters):
            return
        if self._present(twin, key):
            raise Impossible(f"{twin.label(key)} is inserted and was there already")
        self._execute(f"DELETE FROM {twin.scratch} WHERE {twin.where}", key)
        self._execute(shape.insert, parameters)

    def _update(self, twin: Twin, key: list[SqlValue], values: Sequence[Column]) -> None:
        shape = twin.shape(values)
        named = twin.named(shape, values)
        if self._changed(shape.update, [*named, *key]):
            return
        if not self._present(twin, key):
            raise Impossible(f"{twin.label(key)} is updated and was not there")
        self._learn(twin, key, shape.columns, named)

    def _upsert(self, twin: Twin, key: list[SqlValue], values: Sequence[Column]) -> None:
        if self._present(twin, key):
            self._update(twin, key, values)
        else:
            self._insert(twin, key, values)

    def _delete(self, twin: Twin, key: list[SqlValue]) -> None:
        if not self._present(twin, key):
            raise Impossible(f"{twin.label(key)} is deleted and was not there")
        self._execute(twin.insert(()), key)
        self._execute(f"UPDATE {twin.scratch} SET present = 0, known = NULL WHERE {twin.where}", key)

    def _add(self, twin: Twin, key: list[SqlValue], column: str, by: Value) -> None:
        n = twin.place(column)
        if n is None:
            self.skipped += 1
            return
        # Where the column is not known it is NULL, and stays so.
        sql = f"UPDATE {twin.scratch} SET c{n} = {twin.sum(n)} WHERE {twin.where} AND present"
        if self._changed(sql, [twin.stored(n, by), *key]):
            return
        if not self._present(twin, key):
            raise Impossible(f"{twin.label(key)} is added to and was not there")
        self._learn(twin, key, (), [])

    def _changed(self, sql: str, parameters: Sequence[SqlValue]) -> bool:
        return self._execute(sql, parameters).rowcount == 1

    def _present(self, twin: Twin, key: Sequence[SqlValue]) -> bool:
        """Whether the row is there, as far as can be known: one that was never seen may be, unless all is."""
        row = self._execute(f"SELECT present FROM {twin.scratch} WHERE {twin.where}", key).fetchone()
        return not self.whole if row is None else bool(row[0])

    def _learn(self, twin: Twin, key: list[SqlValue], columns: Sequence[int], named: list[SqlValue]) -> None:
        """Of a row that was there before the history these columns are known from now on."""
        others = [n for n in range(len(twin.columns)) if n not in twin.key]
        if self._changed(twin.insert(others), [*key, *[None] * len(others)]):
            known = twin.key_mask
        else:
            (text,) = self._execute(f"SELECT known FROM {twin.scratch} WHERE {twin.where}", key).fetchone()
            known = int(text, 16)
        known |= sum(1 << n for n in columns)
        settings = ", ".join([*(f"c{n} = ?" for n in columns), "known = ?"])
        mask = None if known == twin.all_known else f"{known:x}"
        self._execute(f"UPDATE {twin.scratch} SET {settings} WHERE {twin.where}", [*named, mask, *key])

    # Comparing.

    def count(self, twin: Twin) -> Counted:
        """The rows of a table by how much is known of them."""
        known, partly = self._execute(
            "SELECT count(*) FILTER (WHERE known IS NULL AND present), count(*) FILTER (WHERE known IS NOT NULL) "
            f"FROM {twin.scratch}"
        ).fetchone()
        (strangers,) = self._execute(f"SELECT count(*) {twin.strangers}").fetchone()
        return Counted(known, partly, 0 if self.whole else strangers)

    def rows(self, twin: Twin) -> int:
        """Of a table itself."""
        (found,) = self._execute(f"SELECT count(*) FROM real.{twins.quote(twin.name)}").fetchone()
        return int(found)

    def wrong(self, twin: Twin) -> Iterator[Wrong]:
        """Every row that is not what the history says."""
        width = len(twin.columns)
        for present, known, there, *rest in self._execute(twin.differing):
            found = _judge(twin, bool(present), known, bool(there), rest[:width], rest[width:])
            if found is not None:
                yield found
        if self.whole:
            names = ", ".join(f"r.{twins.quote(twin.columns[n])}" for n in twin.key)
            for key in self._execute(f"SELECT {names} {twin.strangers}"):
                yield Wrong("row-unexplained", f"{twin.label(key)} is there, and no entry of the history made it")


def _judge(
    twin: Twin, present: bool, known: str | None, there: bool, same: Sequence[int], values: Sequence[SqlValue]
) -> Wrong | None:
    """A row that differs; None when it does so only where nothing is known. `values`: pairs, the history's first."""
    label = twin.label([values[2 * n] for n in twin.key])
    if not there:
        return Wrong("row-missing", f"{label} is gone; its history leaves it there")
    if not present:
        return Wrong("row-unexplained", f"{label} is there; its history deletes it")
    mask = twin.all_known if known is None else int(known, 16)
    wrong = [n for n in range(len(twin.columns)) if mask >> n & 1 and not same[n]]
    if not wrong:
        return None
    differ = "; ".join(f"{twin.columns[n]} is {values[2 * n + 1]!r}, by its history {values[2 * n]!r}" for n in wrong)
    return Wrong("row-changed", f"{label}: {differ}")
