"""A schema as text that can be stored and compared, table by table, so that a difference can be named.

It says what an operation's result may depend on, and nothing else: white space, comments and the case of keywords do
not count, nor do indexes that are not unique (they are compared apart, by `objects`).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3

from participant.resources.ddl import fold, normal, read_table, tokens_of
from participant.resources.schema import quote, user_tables

Description = dict[str, dict[str, str]]
"""By table, by feature ("column balance", "primary key", ...): what it is."""


def describe(connection: sqlite3.Connection) -> Description:
    """Every table but Troth's and SQLite's own."""
    return {name: _table(connection, name) for name, kind in user_tables(connection) if kind == "table"}


def objects(connection: sqlite3.Connection) -> dict[str, str]:
    """Views, indexes that were made by name, triggers and virtual tables: kind and name, and the statement."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name")
    kinds = dict(user_tables(connection))
    return {
        f"{kind} {name}": normal(tokens_of(sql))
        for kind, name, sql in rows
        if not fold(name).startswith(("troth_", "sqlite_")) and (kind != "table" or kinds.get(name) == "virtual")
    }


def fingerprint(description: Description) -> str:
    """A short name of a description: equal descriptions have equal ones."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]


def differences(expected: Description, found: Description) -> list[str]:
    """One sentence for each difference, by table."""
    by_name = {fold(name): name for name in [*expected, *found]}
    sentences = []
    for folded in sorted(by_name):
        name = by_name[folded]
        before = next((table for other, table in expected.items() if fold(other) == folded), None)
        after = next((table for other, table in found.items() if fold(other) == folded), None)
        if before is None:
            sentences.append(f"table {name} is new")
        elif after is None:
            sentences.append(f"table {name} is missing")
        else:
            sentences += [f"table {name}: {difference}" for difference in compare(before, after)]
    return sentences


def compare(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """One sentence for each feature that differs."""
    sentences = []
    for feature in sorted({*before, *after}):
        if feature not in after:
            sentences.append(f"{feature} is missing")
        elif feature not in before:
            sentences.append(f"{feature} is new")
        elif before[feature] != after[feature]:
            sentences.append(f"{feature} was ({before[feature]}), is ({after[feature]})")
    return sentences


def _table(connection: sqlite3.Connection, name: str) -> dict[str, str]:
    sql = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", (name,)).fetchone()[0]
    text = read_table(sql)
    features = {"options": _options(connection, name)}
    rows = connection.execute(f"PRAGMA table_xinfo({quote(name)})").fetchall()
    for _, column, declared, not_null, default, _, hidden in rows:
        details = text.columns.get(fold(column))
        parts = [declared.upper(), "NOT NULL" if not_null else "", f"DEFAULT {default}" if default is not None else ""]
        parts += [f"COLLATE {details.collation}" if details and details.collation != "BINARY" else ""]
        parts += [f"AS ({normal(details.generating)})" if details and hidden else ""]
        features[f"column {fold(column)}"] = " ".join(part for part in parts if part)
    features["columns"] = ", ".join(fold(row[1]) for row in rows)
    features["primary key"] = ", ".join(fold(row[1]) for row in sorted(rows, key=lambda row: row[5]) if row[5])
    for check in text.checks:
        features[f"CHECK ({normal(check)})"] = ""
    if text.on_conflict:
        features["ON CONFLICT"] = normal(tokens_of(sql))
    features |= (
        _indexes(connection, name) | _foreign_keys(connection, name, text.deferrable) | _triggers(connection, name)
    )
    return features


def _options(connection: sqlite3.Connection, name: str) -> str:
    query = "SELECT wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ?"
    without_rowid, strict = connection.execute(query, (name,)).fetchone()
    options = [*(["WITHOUT ROWID"] if without_rowid else []), *(["STRICT"] if strict else [])]
    return ", ".join(options)


def _indexes(connection: sqlite3.Connection, name: str) -> dict[str, str]:
    """Unique indexes, and those that may fail a statement: on an expression or with a condition."""
    features = {}
    for _, index, unique, origin, partial in connection.execute(f"PRAGMA index_list({quote(name)})").fetchall():
        parts = [row for row in connection.execute(f"PRAGMA index_xinfo({quote(index)})").fetchall() if row[5]]
        columns = ", ".join(f"{row[2]} {row[4]}" if row[2] else "expression" for row in parts)
        sql = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?", (index,)
        ).fetchone()[0]
        if partial or any(row[2] is None for row in parts):
            features[f"index {index}"] = normal(tokens_of(sql))
        elif unique and origin != "pk":
            features[f"unique index ({columns})"] = ""
    return features


def _foreign_keys(connection: sqlite3.Connection, name: str, deferrable: bool) -> dict[str, str]:
    features: dict[str, list[str]] = {}
    for number, _, parent, own, other, on_update, on_delete, _ in sorted(
        connection.execute(f"PRAGMA foreign_key_list({quote(name)})").fetchall(), key=lambda row: row[:2]
    ):
        actions = f" ON UPDATE {on_update} ON DELETE {on_delete}"
        label = f"{fold(own)} to {fold(parent)}.{fold(other or 'key')}{actions}{' DEFERRABLE' if deferrable else ''}"
        features.setdefault(str(number), []).append(label)
    return {f"foreign key ({', '.join(parts)})": "" for parts in features.values()}


def _triggers(connection: sqlite3.Connection, name: str) -> dict[str, str]:
    query = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?)"
    return {f"trigger {trigger}": normal(tokens_of(sql)) for trigger, sql in connection.execute(query, (name,))}
