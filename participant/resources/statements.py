"""The SQL of the hot path: one text per table and set of columns, so that prepared statements are found again."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from participant.resources.catalog import Table
from participant.resources.schema import quote

SHAPES_MAX = 4096
"""Texts kept of each sort; what falls out is made again."""

ADD_REAL_MAX = 1.7976931348623157e308
"""The greatest finite double: what a sum of reals is held to when nothing tighter is asked."""


def _where(table: Table) -> str:
    return " WHERE " + " AND ".join(f"{quote(column.name)} = ?" for column in table.key)


def _list(names: Iterable[str]) -> str:
    return ", ".join(quote(name) for name in names)


@lru_cache(SHAPES_MAX)
def insert(table: Table, columns: tuple[str, ...]) -> str:
    """Parameters: the columns, in order."""
    return _insert(quote(table.name), columns)


def _insert(into: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {into}({_list(columns)}) VALUES({', '.join('?' * len(columns))})"


@lru_cache(SHAPES_MAX)
def upsert(table: Table, columns: tuple[str, ...], changed: tuple[str, ...]) -> str:
    """Parameters: the columns, in order; those of `changed` are set when the key is present. The conflict target is the
    key: REPLACE, or a clause without a target, would eat another row that holds one of the unique values. The alias is
    for a table that is itself called excluded, whose columns would otherwise be set to what they are."""
    settings = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in changed)
    target = _list(column.name for column in table.key)
    inserted = _insert(f"{quote(table.name)} AS troth_row", columns)
    return f"{inserted} ON CONFLICT({target}) DO {f'UPDATE SET {settings}' if changed else 'NOTHING'}"


@lru_cache(SHAPES_MAX)
def update(table: Table, changed: tuple[str, ...]) -> str:
    """Parameters: the columns, then the key."""
    settings = ", ".join(f"{quote(name)} = ?" for name in changed)
    return f"UPDATE {quote(table.name)} SET {settings}{_where(table)}"


@lru_cache(SHAPES_MAX)
def delete(table: Table) -> str:
    """Parameters: the key."""
    return f"DELETE FROM {quote(table.name)}{_where(table)}"


@lru_cache(SHAPES_MAX)
def add_integer(table: Table, column: str) -> str:
    """Parameters: the number, the key, and what the column must lie between before. So no sum is ever computed that
    could leave 64 bits, where SQLite would turn it into a REAL."""
    name = quote(column)
    condition = f"typeof({name}) = 'integer' AND {name} BETWEEN ? AND ?"
    return f"UPDATE {quote(table.name)} SET {name} = {name} + ?{_where(table)} AND {condition}"


@lru_cache(SHAPES_MAX)
def add_real(table: Table, column: str) -> str:
    """Parameters: the number, the key, the number again, and what the sum must lie between."""
    name = quote(column)
    condition = f"typeof({name}) = 'real' AND {name} + ? BETWEEN ? AND ?"
    return f"UPDATE {quote(table.name)} SET {name} = {name} + ?{_where(table)} AND {condition}"


@lru_cache(SHAPES_MAX)
def look(table: Table, columns: tuple[str, ...]) -> str:
    """Parameters: the key. No columns: only whether the row is there."""
    return f"SELECT {_list(columns) or '1'} FROM {quote(table.name)}{_where(table)}"
