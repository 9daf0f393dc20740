"""Reads which tables are served, and of what their constraints are made, from information_schema.

Every table of the database but Troth's is listed. Triggers, cascades and checks need no refusal here, as they do in
SQLite: a prepared branch has done everything that a commit would do.

Two texts that a column's collation calls equal (alice and Alice, "a" and "a ") name one row, but two of Troth's own
locks: those only keep branches from waiting inside the server, whose own locks are the truth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from participant.resources.catalog import Refused
from participant.resources.mariadb.session import Lost, Session
from participant.resources.mariadb.statements import quote
from participant.resources.server.catalog import Catalog, Table
from participant.resources.server.columns import KEYS, Column, Kind

OWN_PREFIX = "troth_"

_TABLES = """
SELECT table_name, table_type, coalesce(engine, '') FROM information_schema.tables
WHERE table_schema = DATABASE() ORDER BY table_name
"""
_COLUMNS = """
SELECT table_name, column_name, data_type, column_type, is_nullable, is_generated, character_maximum_length,
       character_octet_length, numeric_precision, numeric_scale, datetime_precision
FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position
"""
_INDEXES = """
SELECT table_name, index_name, column_name, sub_part FROM information_schema.statistics
WHERE table_schema = DATABASE() AND non_unique = 0 ORDER BY table_name, index_name, seq_in_index
"""
_FOREIGN = """
SELECT table_name, constraint_name, column_name, referenced_table_name FROM information_schema.key_column_usage
WHERE table_schema = DATABASE() AND referenced_table_name IS NOT NULL
ORDER BY table_name, constraint_name, ordinal_position
"""

_KINDS = {
    "tinyint": Kind.INTEGER,
    "smallint": Kind.INTEGER,
    "mediumint": Kind.INTEGER,
    "int": Kind.INTEGER,
    "bigint": Kind.INTEGER,
    "float": Kind.SINGLE,
    "double": Kind.REAL,
    "decimal": Kind.DECIMAL,
    "char": Kind.PADDED,
    "varchar": Kind.TEXT,
    "tinytext": Kind.TEXT,
    "text": Kind.TEXT,
    "mediumtext": Kind.TEXT,
    "longtext": Kind.TEXT,
    "enum": Kind.TEXT,
    "binary": Kind.BLOB,
    "varbinary": Kind.BLOB,
    "tinyblob": Kind.BLOB,
    "blob": Kind.BLOB,
    "mediumblob": Kind.BLOB,
    "longblob": Kind.BLOB,
    "uuid": Kind.UUID,
    "date": Kind.DATE,
    "datetime": Kind.TIMESTAMP,
    "timestamp": Kind.MOMENT,
}
_INTEGER_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_NOT_TABLES = {"VIEW": "it is a view", "SEQUENCE": "it is a sequence"}
_LABEL = re.compile(r"'((?:[^']|'')*)'")


class Rule(NamedTuple):
    """A unique index or a foreign key, by whose name the server says that it does not hold."""

    columns: tuple[str, ...]
    parent: str = ""
    """The table that a foreign key refers to."""


class Database(NamedTuple):
    """What was read."""

    catalog: Catalog
    rules: Mapping[tuple[str, str], Rule]
    """By table and name; the primary key's is PRIMARY."""
    unprepared: Mapping[str, str]
    """Tables that take part in no transaction, in lower case, with their engine."""


@dataclass
class _Draft:
    """A table while it is read."""

    name: str
    reasons: list[str] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)
    other_engine: str = ""


async def load(session: Session) -> Database:
    """Raises Lost."""
    unit = await session.ask(_TABLES, _COLUMNS, _INDEXES, _FOREIGN)
    if unit.failure is not None:
        raise Lost(unit.failure.message)
    tables, columns, indexes, foreign = [[tuple(map(_text, row)) for row in result.rows] for result in unit.results]
    drafts = {name: _draft(name, kind, engine) for name, kind, engine in tables}
    for name, *column in columns:
        if name in drafts:  # made between the two questions
            made = _column(*column)
            drafts[name].columns[made.name] = made
    rules: dict[tuple[str, str], Rule] = {}
    for name, index, column_name, part in indexes:
        rules[name, index] = Rule((*rules.get((name, index), Rule(())).columns, column_name))
        if index == "PRIMARY" and part and name in drafts:
            drafts[name].reasons.append(f"only a prefix of column {column_name} is in its primary key")
    for name, constraint, column_name, parent in foreign:
        rules[name, constraint] = Rule((*rules.get((name, constraint), Rule(())).columns, column_name), parent)
    return _database(list(drafts.values()), rules)


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else "" if raw is None else str(raw)


def _draft(name: str, kind: str, engine: str) -> _Draft:
    draft = _Draft(name)
    if kind in _NOT_TABLES:
        draft.reasons.append(_NOT_TABLES[kind])
    elif engine != "InnoDB":
        draft.other_engine = engine or "unknown"
        draft.reasons.append(
            f"its engine is {draft.other_engine}, and only InnoDB prepares: ALTER TABLE ... ENGINE=InnoDB"
        )
    return draft


def _column(
    name: str,
    data_type: str,
    declared: str,
    nullable: str,
    generated: str,
    characters: str,
    octets: str,
    precision: str,
    scale: str,
    fraction: str,
) -> Column:
    kind = _KINDS.get(data_type, Kind.OTHER)
    limits: dict[str, Any] = {}
    if kind is Kind.INTEGER:
        bits = _INTEGER_BITS[data_type]
        unsigned = "unsigned" in declared
        limits["low"] = 0 if unsigned else -(1 << bits - 1)
        limits["high"] = (1 << bits if unsigned else 1 << bits - 1) - 1
    elif kind is Kind.DECIMAL:
        most = Decimal((0, (9,) * int(precision), -int(scale)))
        limits = {
            "low": Decimal(0) if "unsigned" in declared else most.copy_negate(),
            "high": most,
            "scale": int(scale),
        }
    elif data_type == "enum":
        limits["labels"] = frozenset(label.replace("''", "'") for label in _LABEL.findall(declared))
    elif kind in (Kind.TEXT, Kind.PADDED):
        limits = {"characters": int(characters), "octets": int(octets)}
    elif kind is Kind.BLOB:
        limits["octets"] = int(octets)
        if data_type == "binary":  # the server fills up what is shorter, and what was written is not what is read
            limits["octets_min"] = int(octets)
    elif kind in (Kind.TIMESTAMP, Kind.MOMENT):
        limits["scale"] = int(fraction)
    return Column(name, kind, declared, nullable=nullable == "YES", generated=generated == "ALWAYS", **limits)


def _database(drafts: Sequence[_Draft], rules: Mapping[tuple[str, str], Rule]) -> Database:
    served: dict[str, Table] = {}
    refused: dict[str, Refused] = {}
    for draft in drafts:
        if draft.name.startswith(OWN_PREFIX):
            continue
        key = rules.get((draft.name, "PRIMARY"), Rule(())).columns
        _check_key(draft, key)
        if draft.reasons:
            shown = tuple((each.name, each.declared, each.nullable) for each in draft.columns.values())
            refused[draft.name] = Refused(draft.name, tuple(draft.reasons), shown)
        else:
            columns = tuple(draft.columns[name] for name in key)
            served[draft.name] = Table(draft.name, quote(draft.name), draft.columns, columns)
    unprepared = {draft.name.lower(): draft.other_engine for draft in drafts if draft.other_engine}
    return Database(Catalog(served, refused), rules, unprepared)


def _check_key(draft: _Draft, key: Sequence[str]) -> None:
    if draft.reasons:
        return
    if not key:
        draft.reasons.append("it has no primary key")
    for name in key:
        column = draft.columns.get(name)
        if column is None:
            draft.reasons.append(f"key column {name} was made or renamed while the catalog was read")
            continue
        if column.kind not in KEYS:
            draft.reasons.append(f"key column {name} is {column.declared}, whose equal values can look different")
        if column.generated:
            draft.reasons.append(f"key column {name} is generated")
