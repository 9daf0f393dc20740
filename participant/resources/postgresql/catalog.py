"""Reads which tables are served, and of what their constraints are made, from pg_catalog.

Every table of the database but the system's and Troth's is listed. A table of the schema that is first in the
search_path goes by its bare name, any other by schema and name; both spellings work for the first.

Triggers, cascades, deferrable constraints, partial and expression indexes need no refusal here, as they do in SQLite:
PREPARE TRANSACTION has done everything that a commit would do, deferred constraints and triggers included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple, TypedDict

from participant.resources.catalog import Refused
from participant.resources.postgresql.session import Query, Session
from participant.resources.postgresql.session import text as field_of
from participant.resources.server.catalog import Catalog, Table
from participant.resources.server.columns import KEYS, Column, Kind

OWN_PREFIX = "troth_"

_TABLES = """
SELECT c.oid::text, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relispartition::text,
       c.relhassubclass::text, c.relhasrules::text, (n.nspname = current_schema())::text,
       (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))::text, current_user::text,
       EXISTS (SELECT FROM pg_trigger g WHERE NOT g.tgisinternal AND (
           g.tgrelid = c.oid OR g.tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid)) OR c.oid IN (
               SELECT confrelid FROM pg_constraint
               WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd')))))::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.relpersistence <> 't'
  AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
ORDER BY n.nspname, c.relname
"""
_COLUMNS = """
WITH RECURSIVE base(attrelid, attnum, type, typmod) AS (
    SELECT a.attrelid, a.attnum, a.atttypid, a.atttypmod
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.oid = ANY ($1::oid[])
  UNION ALL
    SELECT base.attrelid, base.attnum, t.typbasetype,
           CASE WHEN t.typtypmod <> -1 THEN t.typtypmod ELSE base.typmod END
    FROM base JOIN pg_type t ON t.oid = base.type WHERE t.typtype = 'd'
)
SELECT a.attrelid::text, a.attname, t.typname, t.typtype::text, base.typmod::text,
       format_type(a.atttypid, a.atttypmod), (a.attnotnull OR d.typnotnull)::text, (a.attgenerated <> '')::text,
       coalesce(l.collisdeterministic, true)::text,
       (SELECT json_agg(e.enumlabel)::text FROM pg_enum e WHERE e.enumtypid = t.oid),
       (a.attidentity = 'a')::text, (t.typnamespace = 'pg_catalog'::regnamespace)::text
FROM base JOIN pg_attribute a USING (attrelid, attnum) JOIN pg_type t ON t.oid = base.type
JOIN pg_type d ON d.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE t.typtype <> 'd' ORDER BY a.attrelid, a.attnum
"""
_RULES = """
WITH rules(rel, name, kind, late, columns, parent) AS (
    SELECT i.indrelid, x.relname, CASE WHEN i.indisprimary THEN 'p' ELSE 'u' END, NOT i.indimmediate,
           (SELECT json_agg(a.attname ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts), ''
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indisunique AND i.indisvalid
  UNION ALL
    SELECT f.conrelid, f.conname, 'f', f.condeferrable,
           (SELECT json_agg(a.attname ORDER BY k.n) FROM unnest(f.conkey) WITH ORDINALITY AS k(attnum, n)
            JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum), p.relname
    FROM pg_constraint f JOIN pg_class p ON p.oid = f.confrelid WHERE f.contype = 'f'
)
SELECT rel::oid::text, n.nspname, c.relname, name, kind, late::text, columns::text, parent, rn.nspname, r.relname
FROM rules JOIN pg_class c ON c.oid = rel JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class r ON r.oid = coalesce(pg_partition_root(rel), rel) JOIN pg_namespace rn ON rn.oid = r.relnamespace
WHERE rel = ANY ($1::oid[])
"""

_KINDS = {
    "int2": Kind.INTEGER,
    "int4": Kind.INTEGER,
    "int8": Kind.INTEGER,
    "float8": Kind.REAL,
    "float4": Kind.SINGLE,
    "numeric": Kind.DECIMAL,
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "bpchar": Kind.PADDED,
    "bytea": Kind.BLOB,
    "bool": Kind.BOOLEAN,
    "uuid": Kind.UUID,
    "date": Kind.DATE,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.MOMENT,
}
_INTEGER_BITS = {"int2": 16, "int4": 32, "int8": 64}
_HEADER = 4
"""What the modifiers of numeric, varchar and char are greater by than what they say."""

_NOT_TABLES = {
    "v": "it is a view",
    "m": "it is a materialized view",
    "f": "it is a foreign table: its rows are not here",
}


class Rule(NamedTuple):
    """A unique index or foreign key, by whose name the server says that it does not hold."""

    table: str
    """As statements name it; of a partition, the partitioned one."""
    kind: str
    """"p" for the primary key, "u" for another unique index, "f" for a foreign key."""
    columns: tuple[str, ...]
    """Without those of an expression."""
    parent: str


class Database(NamedTuple):
    """What was read."""

    catalog: Catalog
    rules: Mapping[tuple[str, str, str], Rule]
    """By schema, table and name."""
    overriding: frozenset[Table]
    """Tables with an identity column that only OVERRIDING SYSTEM VALUE sets."""


@dataclass
class _Draft:
    """A table while it is read."""

    schema: str
    name: str
    shown: str
    is_first: bool
    reasons: list[str] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    loose: set[str] = field(default_factory=set)
    """Columns whose collation calls different texts equal."""
    overriding: bool = False
    has_triggers: bool = False
    """Of its own, or it cascades in a database that has any."""


Rows = list[list[str | None]]


async def load(session: Session) -> Database:
    """Raises Lost, also when the catalog cannot be read now: it may be locked, or somebody cancels the question."""
    drafts = {row[0]: _draft(row) for row in await _rows(session, Query(_TABLES))}
    oids = "{" + ",".join(str(oid) for oid in drafts) + "}"
    for row in await _rows(session, Query(_COLUMNS, (oids,))):
        _read_column(drafts[row[0]], row)
    rules = {}
    for row in await _rows(session, Query(_RULES, (oids,))):
        oid, (schema, table, name, kind, deferrable, columns, parent, *root) = row[0], map(str, row[1:])
        names = _texts(columns)
        rules[schema, table, name] = Rule(".".join(map(quote, root)), kind, names, parent)
        if kind == "p":
            drafts[oid].key = names
            if deferrable == "true":
                drafts[oid].reasons.append("its primary key is deferrable: declare it NOT DEFERRABLE")
    return _database([draft for draft in drafts.values() if not draft.name.startswith(OWN_PREFIX)], rules)


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def _rows(session: Session, query: Query) -> Rows:
    result = await session.answer(query)
    return [[field_of(result, row, column) for column in range(result.nfields)] for row in range(result.ntuples)]


def _draft(row: Sequence[str | None]) -> _Draft:
    _, schema, name, kind, persistence, is_partition, has_children, has_rules, is_first, readable, role, fires = row
    assert schema is not None
    assert name is not None
    shown = name if is_first == "true" else f"{schema}.{name}"
    draft = _Draft(schema, name, shown, is_first == "true", has_triggers=fires == "true")
    if kind in _NOT_TABLES:
        draft.reasons.append(_NOT_TABLES[kind])
        return draft
    if persistence == "u":
        draft.reasons.append("it is unlogged, and empty after a crash: ALTER TABLE ... SET LOGGED")
    if is_partition == "true":
        draft.reasons.append("it is a partition: name the partitioned table")
    elif has_children == "true" and kind == "r":
        draft.reasons.append("other tables inherit from it, and its key is not unique over them")
    if has_rules == "true":
        draft.reasons.append("it has rules (CREATE RULE), which change what a statement does")
    if readable != "true":
        grants = f"GRANT USAGE ON SCHEMA {quote(schema)}, and SELECT ON {quote(schema)}.{quote(name)}, TO {role}"
        draft.reasons.append(f"role {role} may not read it: {grants}")
    return draft


def _read_column(draft: _Draft, row: Sequence[str | None]) -> None:
    _, name, type_name, _, modifier, declared, not_null, generated, deterministic, labels, always, built_in = row
    assert name is not None
    assert type_name is not None
    if deterministic != "true":
        draft.loose.add(name)
    draft.overriding |= always == "true"
    kind = _KINDS.get(type_name, Kind.OTHER) if built_in == "true" else Kind.OTHER
    is_enum = labels is not None
    column = Column(
        name,
        Kind.TEXT if is_enum else kind,
        declared or type_name,
        nullable=not_null != "true",
        generated=generated == "true",
        labels=frozenset(_texts(labels)) if is_enum else None,
        **_limits(kind, type_name, int(modifier or -1)),
    )
    draft.columns[name] = column


class _Limits(TypedDict, total=False):
    """The fields of `Column` that the type's name and modifier say."""

    low: int | Decimal
    high: int | Decimal
    scale: int
    characters: int


def _limits(kind: Kind, type_name: str, modifier: int) -> _Limits:
    if kind is Kind.INTEGER:
        half = 1 << _INTEGER_BITS[type_name] - 1
        return {"low": -half, "high": half - 1}
    if modifier < 0:
        return {}
    if kind is Kind.DECIMAL:
        precision, scale = modifier - _HEADER >> 16 & 0xFFFF, modifier - _HEADER & 0x7FF
        scale = scale - 0x800 if scale & 0x400 else scale
        most = Decimal((0, (9,) * precision, -scale))
        return {"low": most.copy_negate(), "high": most, "scale": scale}
    if kind in (Kind.TEXT, Kind.PADDED):
        return {"characters": modifier - _HEADER}
    return {"scale": modifier} if kind in (Kind.TIMESTAMP, Kind.MOMENT) else {}


def _database(drafts: Sequence[_Draft], rules: Mapping[tuple[str, str, str], Rule]) -> Database:
    served: dict[str, Table] = {}
    refused: dict[str, Refused] = {}
    overriding = set()
    for draft in sorted(drafts, key=lambda draft: draft.is_first):  # the first schema's last: its bare names win
        _check_key(draft)
        names = {draft.shown, f"{draft.schema}.{draft.name}"}
        if draft.reasons:
            shown = tuple((each.name, each.declared, each.nullable) for each in draft.columns.values())
            refused |= dict.fromkeys(names, Refused(draft.shown, tuple(draft.reasons), shown))
            continue
        key = tuple(draft.columns[name] for name in draft.key)
        sql = f"{quote(draft.schema)}.{quote(draft.name)}"
        table = Table(draft.shown, sql, draft.columns, key, draft.has_triggers)
        served |= dict.fromkeys(names, table)
        if draft.overriding:
            overriding.add(table)
    return Database(Catalog(served, refused), rules, frozenset(overriding))


def _check_key(draft: _Draft) -> None:
    if draft.reasons:
        return
    if not draft.key:
        draft.reasons.append("it has no primary key")
    for name in draft.key:
        column = draft.columns.get(name)
        if column is None:
            draft.reasons.append(f"key column {name} was made or renamed while the catalog was read")
            continue
        if column.kind not in KEYS:
            draft.reasons.append(f"key column {name} is {column.declared}, whose equal values can look different")
        if name in draft.loose:
            draft.reasons.append(f"key column {name} has a nondeterministic collation")
        if column.generated:
            draft.reasons.append(f"key column {name} is generated")


def _texts(array: str | None) -> tuple[str, ...]:
    return tuple(json.loads(array)) if array and array != "None" else ()
