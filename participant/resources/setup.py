"""What happens to tables outside of transactions: a schema file applied or compared, a table made from its first row,
an existing file looked over before it is adopted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from participant.resources import No
from participant.resources.ddl import fold, tokens_of
from participant.resources.describe import Description, compare, describe, differences, objects
from participant.resources.schema import OWN_PREFIX, load, quote, user_tables
from troth import reasons
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Code

_DEFINING = ("CREATE", "ALTER", "DROP")
_TYPES = {
    "integer": "INTEGER",
    "boolean": "BOOLEAN",
    "real": "REAL",
    "text": "TEXT",
    "blob": "BLOB",
    "null": "TEXT",
}
_CHECKED = (
    "columns and their types",
    "the primary key",
    "unique indexes and collations",
    "foreign keys, both ways",
    "CHECKs, defaults and generated columns",
    "triggers and ON CONFLICT clauses",
    "every row against its NOT NULLs, CHECKs, indexes and foreign keys",
)


class BadSchema(Exception):
    """The schema file cannot be used; the message names the statement."""


class TableReport(NamedTuple):
    """What looking over one table has found."""

    name: str
    served: bool
    why: str
    """Why it cannot be served; empty when it is."""
    checked: tuple[str, ...]
    problems: tuple[str, ...]
    """Rows that break the table's own rules: a file with any must not be adopted."""


def apply_schema(connection: sqlite3.Connection, sql_text: str) -> None:
    """Runs a schema file on a new database, all of it or nothing. Raises BadSchema for a statement that does not define
    something, that SQLite refuses, or that touches Troth's own tables.

    In one transaction of its own, durable when this returns; or in the one that is open."""
    statements = _statements(sql_text)
    if connection.in_transaction:
        _run(connection, statements)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _run(connection, statements)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def compare_schema(connection: sqlite3.Connection, sql_text: str) -> list[str]:
    """How the database differs from what the schema file would make, one sentence each; tables that the file does not
    name are no difference (`--create` may have made them). Raises BadSchema."""
    scratch = sqlite3.connect(":memory:", isolation_level=None)
    try:
        scratch.execute("PRAGMA foreign_keys = ON")
        apply_schema(scratch, sql_text)
        expected, expected_objects = describe(scratch), objects(scratch)
    finally:
        scratch.close()
    named = {fold(name) for name in expected}
    found: Description = {name: table for name, table in describe(connection).items() if fold(name) in named}
    there = objects(connection)
    others = compare(expected_objects, {name: sql for name, sql in there.items() if name in expected_objects})
    return differences(expected, found) + others


def adoption_report(connection: sqlite3.Connection) -> list[TableReport]:
    """Looks over every table of a user's database, rows included: takes time in proportion to the file. By name."""
    catalog = load(connection)
    problems = _problems(connection)
    general = problems.pop("", [])
    reports = []
    for name, _ in user_tables(connection):
        refused = catalog.refused.get(fold(name))
        found = (*problems.get(fold(name), ()), *general)
        reports.append(TableReport(name, refused is None, refused.why if refused else "", _CHECKED, found))
    return reports


def create_table(
    connection: sqlite3.Connection, table: str, key: Iterable[types_pb2.Column], values: Iterable[types_pb2.Column]
) -> bool:
    """Makes a table whose columns have the types of this first row; the row itself is not inserted. False when the
    table is there already, whatever its columns. Raises No (CODE_BAD_KEY, CODE_BAD_OPERATION, CODE_WRONG_TYPE).

    As sqlite-utils does: the types follow the values, NULL makes TEXT; key columns are NOT NULL besides."""
    if fold(table) in {fold(name) for name, _ in user_tables(connection)}:
        return False
    keys = list(key)
    _check_names(table, keys, list(values := list(values)))
    definitions = [f"{quote(column.name)} {_key_type(table, column)} NOT NULL" for column in keys]
    named = {fold(column.name) for column in keys}
    for column in values:
        if fold(column.name) not in named:
            definitions.append(f"{quote(column.name)} {_type(table, column)}")
    names = ", ".join(quote(column.name) for column in keys)
    connection.execute(f"CREATE TABLE {quote(table)}({', '.join(definitions)}, PRIMARY KEY ({names}))")
    return True


def _check_names(table: str, key: list[types_pb2.Column], values: list[types_pb2.Column]) -> None:
    reserved = (OWN_PREFIX, "sqlite_")
    if not table or "\0" in table or fold(table).startswith(reserved):
        raise No(reasons.reason(Code.CODE_BAD_OPERATION, f"a table cannot be called {table!r}", table=table))
    if not key:
        raise No(reasons.reason(Code.CODE_BAD_KEY, f"table {table} needs a key", table=table))
    for columns in (key, values):
        names = [fold(column.name) for column in columns]
        for name in names:
            if not name or "\0" in name or names.count(name) > 1:
                message = f"table {table} cannot have the column {name!r}"
                raise No(reasons.reason(Code.CODE_BAD_OPERATION, message, table=table, column=name))


def _key_type(table: str, column: types_pb2.Column) -> str:
    declared = _type(table, column)
    if declared not in ("INTEGER", "TEXT") or column.value.WhichOneof("kind") == "null":
        message = f"key column {column.name} must be an integer or text"
        raise No(reasons.reason(Code.CODE_WRONG_TYPE, message, table=table, column=column.name))
    return declared


def _type(table: str, column: types_pb2.Column) -> str:
    kind = column.value.WhichOneof("kind")
    if kind is None:
        message = f"column {column.name} has no value"
        raise No(reasons.reason(Code.CODE_WRONG_TYPE, message, table=table, column=column.name))
    return _TYPES[kind]


def _statements(sql_text: str) -> list[str]:
    """The statements of a file, each of which defines something."""
    statements, rest = [], ""
    for line in sql_text.split(";"):
        rest += line + ";"
        if sqlite3.complete_statement(rest):
            statements.append(rest)
            rest = ""
    if len(tokens_of(rest)) > 1:
        statements.append(rest)
    found = [(statement, [token for token in tokens_of(statement) if token.text != ";"]) for statement in statements]
    for statement, tokens in found:
        words = [token.word for token in tokens[:2]]
        if words and (words[0] not in _DEFINING or words[-1] in ("TEMP", "TEMPORARY")):
            raise BadSchema(f"only tables, indexes and the like are defined in a schema: {statement.strip()[:80]}")
    return [statement for statement, tokens in found if tokens]


def _run(connection: sqlite3.Connection, statements: list[str]) -> None:
    own = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE lower(tbl_name) LIKE 'troth\\_%' ESCAPE '\\'"
    before = connection.execute(own).fetchall()
    for statement in statements:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_ERROR":
                raise  # not the statement's fault: a full disk, say
            raise BadSchema(f"{error}: {statement.strip()[:80]}") from error
        if connection.execute(own).fetchall() != before:
            raise BadSchema(f"names that begin with {OWN_PREFIX} are Troth's own: {statement.strip()[:80]}")


def _problems(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Rows that break rules, by folded table; what integrity_check does not lay to a table stands under ""."""
    problems: dict[str, list[str]] = {}
    for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchall():
        sentences = problems.setdefault(fold(table), [])
        sentence = f"a row has a foreign key to a row of {parent} that is not there"
        if sentence not in sentences:
            sentences.append(sentence)
    for (message,) in connection.execute("PRAGMA integrity_check").fetchall():
        if message != "ok":
            problems.setdefault("", []).append(message)
    return problems


__all__ = ["BadSchema", "TableReport", "adoption_report", "apply_schema", "compare_schema", "create_table"]
