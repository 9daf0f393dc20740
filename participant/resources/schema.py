"""Reads a file's schema and sorts its tables: served, or refused by name with every reason (DESIGN section 3,
"A YES is always applicable").

A table is refused when something in it could make an apply fail, or change more rows, than the locks of its operations
say. A refusal spreads along foreign keys (`_spread`): to the child of a refused parent, whose shared lock would be on
rows that nobody else locks, and to the parent whose rows drag others along (CASCADE) or are judged only at COMMIT
(deferrable).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import sqlite_utils

from participant.resources.catalog import Catalog, Column, ForeignKey, Refused, Table, UniqueIndex
from participant.resources.conversion import Kind, SqlValue, Unfit, fit, kind_of
from participant.resources.ddl import Bound, TableText, Token, fold, read_bounds, read_table, tokens_of, unsteady

OWN_PREFIX = "troth_"
"""Tables of this prefix are Troth's own and are nobody's to operate on."""

_HIDDEN_GENERATED = (2, 3)
_QUIET_ACTIONS = ("NO ACTION", "RESTRICT")
_OTHER_KINDS = {"view": "it is a view", "virtual": "it is a virtual table", "shadow": "it belongs to a virtual table"}


class NotConstant(ValueError):
    """A default that is not a literal."""


@dataclass
class _Draft:
    """A table while it is read."""

    name: str
    text: TableText
    columns: list[Column] = field(default_factory=list)
    shown: list[tuple[str, str, bool]] = field(default_factory=list)
    key: list[str] = field(default_factory=list)
    uniques: list[UniqueIndex] = field(default_factory=list)
    foreign_keys: list[ForeignKey] = field(default_factory=list)
    add_exclusive: bool = False
    reasons: list[str] = field(default_factory=list)
    drags: dict[str, str] = field(default_factory=dict)
    """Parents (folded) that cannot be served because of this table's foreign keys, and why."""

    def refuse(self, why: str) -> None:
        if why not in self.reasons:
            self.reasons.append(why)


def quote(name: str) -> str:
    """An identifier as SQL."""
    return '"' + name.replace('"', '""') + '"'


def load(connection: sqlite3.Connection) -> Catalog:
    """Reads the catalog of the main database of `connection`."""
    drafts: dict[str, _Draft] = {}
    refused: dict[str, Refused] = {}
    for name, kind in user_tables(connection):
        if kind == "table":
            drafts[fold(name)] = _draft(connection, name)
        else:
            refused[fold(name)] = Refused(name, (_OTHER_KINDS.get(kind, f"it is a {kind}"),))
    for draft in drafts.values():
        _read_foreign_keys(connection, draft, drafts)
    _spread(drafts)
    served = {}
    for folded, draft in drafts.items():
        if not draft.reasons:
            served[folded] = _table(draft)
        else:
            refused[folded] = Refused(draft.name, tuple(draft.reasons), tuple(draft.shown))
    return Catalog(served, refused)


def user_tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Name and kind (table, view, virtual, shadow) of everything but Troth's and SQLite's own, by name."""
    rows = connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main' ORDER BY name")
    return [(name, kind) for name, kind in rows if not fold(name).startswith((OWN_PREFIX, "sqlite_"))]


def literal(text: str) -> SqlValue:
    """The value of a literal as a DEFAULT clause writes it. A boolean counts as one. Raises NotConstant."""
    tokens = tokens_of(text)
    sign = 1
    if len(tokens) == 2 and tokens[0].text in ("-", "+") and tokens[1].kind == "number":
        sign = -1 if tokens[0].text == "-" else 1
        tokens = tokens[1:]
    if len(tokens) != 1:
        raise NotConstant(text)
    token = tokens[0]
    if token.word in ("NULL", "TRUE", "FALSE"):
        return {"NULL": None, "TRUE": True, "FALSE": False}[token.word]
    if token.kind == "string":
        return token.text[1:-1].replace("''", "'")
    if token.kind == "blob":
        return bytes.fromhex(token.text[2:-1])
    if token.kind == "number" and not token.text.lower().startswith("0x"):
        return sign * (int(token.text) if token.text.isdecimal() else float(token.text))
    raise NotConstant(text)


def _draft(connection: sqlite3.Connection, name: str) -> _Draft:
    sql = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", (name,)).fetchone()[0]
    draft = _Draft(name, read_table(sql))
    _read_columns(connection, draft)
    _read_indexes(connection, draft)
    _read_checks(draft)
    _read_clauses(connection, draft)
    _check_key(connection, draft)
    return draft


def _read_columns(connection: sqlite3.Connection, draft: _Draft) -> None:
    rows = connection.execute(f"PRAGMA table_xinfo({quote(draft.name)})").fetchall()
    draft.key = [row[1] for row in sorted(rows, key=lambda row: row[5]) if row[5]]
    without_rowid = connection.execute(
        "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (draft.name,)
    ).fetchone()[0]
    indexes = connection.execute(f"PRAGMA index_list({quote(draft.name)})").fetchall()
    has_key_index = any(row[3] == "pk" for row in indexes)  # INTEGER PRIMARY KEY DESC has one and takes NULL
    for _, name, declared, not_null, default, in_key, hidden in rows:
        generated = hidden in _HIDDEN_GENERATED
        if generated:
            declared = declared.upper().removesuffix("GENERATED ALWAYS").strip()
            draft.add_exclusive = True
        # Only the alias of the rowid, and keys WITHOUT ROWID, refuse NULL without saying NOT NULL.
        nullable = not (not_null or (in_key and (without_rowid or not has_key_index)))
        draft.shown.append((name, declared, nullable))
        kind = kind_of(declared)
        if kind is None:
            draft.refuse(f"column {name} has type {declared or 'none'}, not integer, real, text, blob or boolean")
            continue
        draft.columns.append(Column(name, kind, nullable, _default(draft, name, kind, default), generated))


def _default(draft: _Draft, name: str, kind: Kind, text: str | None) -> SqlValue:
    if text is None:
        return None
    try:
        value = literal(text)
        return None if value is None else fit(value, kind)
    except NotConstant:
        draft.refuse(f"the default of column {name} is not a constant")
    except Unfit:
        draft.refuse(f"the default of column {name} does not fit its type")
    return None


def _read_indexes(connection: sqlite3.Connection, draft: _Draft) -> None:
    # Settings and plugins of the library stay out of a connection that is not its own.
    database = sqlite_utils.Database(connection, recursive_triggers=False, execute_plugins=False)
    table = database.table(draft.name)
    for index, detail in zip(table.indexes, table.xindexes, strict=True):
        parts = [part for part in detail.columns if part.key]
        columns = tuple(part.name for part in parts)
        on_expression = None in columns
        if index.partial or on_expression:
            draft.add_exclusive = True
            _check_expression(draft, f"index {index.name}", _index_tokens(connection, index.name))
        if not index.unique:
            continue
        label = "the primary key" if index.origin == "pk" else f"unique index {index.name}"
        if index.partial or on_expression:
            draft.refuse(f"{label} is {'partial' if index.partial else 'on an expression'}")
            continue
        for part in parts:
            if part.coll.upper() != "BINARY" or _collation(draft, part.name) != "BINARY":
                draft.refuse(f"{label} compares column {part.name} with a collation other than BINARY")
            if _is_generated(draft, part.name):
                draft.refuse(f"{label} holds the generated column {part.name}")
        if index.origin != "pk":
            draft.uniques.append(UniqueIndex(index.name, columns))


def _index_tokens(connection: sqlite3.Connection, name: str) -> list[Token]:
    """The tokens of a CREATE INDEX behind ON and the table's name."""
    sql = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?", (name,)).fetchone()[0]
    tokens = tokens_of(sql)
    return tokens[next(i for i, token in enumerate(tokens) if token.text == "(") :]


def _collation(draft: _Draft, column: str) -> str:
    text = draft.text.columns.get(fold(column))
    return text.collation if text else "BINARY"


def _is_generated(draft: _Draft, column: str) -> bool:
    return any(each.name == column and each.generated for each in draft.columns)


def _read_checks(draft: _Draft) -> None:
    integers = frozenset(fold(column.name) for column in draft.columns if column.kind is Kind.INTEGER)
    for check in draft.text.checks:
        bounds = read_bounds(check, integers)
        if bounds is None:
            draft.add_exclusive = True
            _check_expression(draft, "a CHECK", check)
            continue
        draft.columns = [_bounded(column, bounds) for column in draft.columns]
    for name, text in draft.text.columns.items():
        _check_expression(draft, f"the generated column {name}", text.generating)


def _check_expression(draft: _Draft, where: str, tokens: list[Token]) -> None:
    found = unsteady(tokens)
    if found:
        draft.refuse(f"{where} uses {found}, whose answer may change or fail between the vote and the apply")


def _bounded(column: Column, bounds: Iterable[Bound]) -> Column:
    for bound in bounds:
        if bound.column == fold(column.name):
            column = replace(column, low=max(column.low, bound.low), high=min(column.high, bound.high))
    return column


def _read_clauses(connection: sqlite3.Connection, draft: _Draft) -> None:
    if draft.text.on_conflict:
        draft.refuse("it has an ON CONFLICT clause")
    triggers = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?) ORDER BY name",
        (draft.name,),
    )
    for (trigger,) in triggers.fetchall():
        draft.refuse(f"it has the trigger {trigger}")


def _check_key(connection: sqlite3.Connection, draft: _Draft) -> None:
    if not draft.key:
        draft.refuse("it has no primary key")
    for column in draft.columns:
        if column.name not in draft.key:
            continue
        if column.kind not in (Kind.INTEGER, Kind.TEXT):
            draft.refuse(f"key column {column.name} is {column.kind.value}, not integer or text")
        if column.nullable:
            draft.refuse(f"key column {column.name} may be NULL: declare it NOT NULL")
        if column.generated:
            draft.refuse(f"key column {column.name} is generated")
        if _collation(draft, column.name) != "BINARY":
            draft.refuse(f"key column {column.name} has a collation other than BINARY")
    if draft.reasons:
        return
    where = " AND ".join(f"{quote(name)} = NULL" for name in draft.key)
    for statement in (
        f"INSERT INTO {quote(draft.name)}({quote(draft.key[0])}) VALUES(NULL)",
        f"DELETE FROM {quote(draft.name)} WHERE {where}",
    ):
        try:  # compiled, not run: finds missing collations and functions, and foreign keys without a parent key
            connection.execute(f"EXPLAIN {statement}").fetchall()
        except sqlite3.OperationalError as error:
            draft.refuse(f"SQLite cannot write to it: {error}")


def _read_foreign_keys(connection: sqlite3.Connection, draft: _Draft, drafts: dict[str, _Draft]) -> None:
    rows = connection.execute(f"PRAGMA foreign_key_list({quote(draft.name)})").fetchall()
    for number in sorted({row[0] for row in rows}):
        parts = sorted((row for row in rows if row[0] == number), key=lambda row: row[1])
        parent = drafts.get(fold(parts[0][2]))
        loud = sorted({action for row in parts for action in row[5:7] if action not in _QUIET_ACTIONS})
        own = [_declared(draft, row[3]) for row in parts]
        label = f"the foreign key ({', '.join(own)})"
        if loud:
            draft.refuse(f"{label} has {' and '.join(loud)}")
        if draft.text.deferrable:
            draft.refuse("it has a deferrable foreign key")
        if parent is not None and (loud or draft.text.deferrable):
            draft.drags[fold(parent.name)] = f"table {draft.name} refers to it with " + (
                " and ".join(loud) if loud else "a deferrable foreign key"
            )
        if any(_is_generated(draft, name) for name in own):
            draft.refuse(f"{label} holds a generated column")
        _read_parent(draft, parent, parts, own, label)


def _read_parent(draft: _Draft, parent: _Draft | None, parts: list[tuple], own: list[str], label: str) -> None:  # type: ignore[type-arg]
    if parent is None:
        draft.refuse(f"{label} refers to {parts[0][2]}, which is not a table here")
        return
    named = [fold(row[4]) for row in parts] if parts[0][4] is not None else [fold(name) for name in parent.key]
    if len(named) != len(own) or sorted(named) != sorted(fold(name) for name in parent.key):
        draft.refuse(f"{label} refers to other columns of {parent.name} than its primary key")
        return
    by_parent = dict(zip(named, own, strict=True))
    draft.foreign_keys.append(ForeignKey(tuple(by_parent[fold(name)] for name in parent.key), parent.name))


def _declared(draft: _Draft, name: str) -> str:
    return next((shown for shown, _, _ in draft.shown if fold(shown) == fold(name)), name)


def _spread(drafts: dict[str, _Draft]) -> None:
    """Refuses the parents that are dragged along, then children of refused parents until nothing changes."""
    for draft in drafts.values():
        for parent, why in draft.drags.items():
            drafts[parent].refuse(why)
    changed = True
    while changed:
        changed = False
        for draft in drafts.values():
            for key in draft.foreign_keys:
                if drafts[fold(key.parent)].reasons and not draft.reasons:
                    draft.refuse(f"its parent {key.parent} cannot be served")
                    changed = True


def _table(draft: _Draft) -> Table:
    columns = {column.name: column for column in draft.columns}
    key = tuple(columns[name] for name in draft.key)
    uniques, foreign_keys = tuple(draft.uniques), tuple(draft.foreign_keys)
    return Table(draft.name, columns, key, uniques, foreign_keys, draft.add_exclusive)
