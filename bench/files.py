"""The tables of a participant that keeps them in a SQLite file, filled and read beside it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.ledger import Rows
from bench.workloads import COLUMNS


def select(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a SELECT finds; the process that owns the file may run."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
        return connection.execute(sql).fetchall()


def rows(path: Path) -> Rows:
    """Everything in the tables."""
    return Rows(*(dict(select(path, f"SELECT id, {column} FROM {table}")) for table, column in COLUMNS.items()))
