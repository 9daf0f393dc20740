"""What the tests of the SQLite resource share: a connection like the vote log's, and short ways to say operations."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from participant.resources import Plan, Prepared, Resource
from troth.v1 import types_pb2
from troth.v1.types_pb2 import Value
from troth.words import AttemptId

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTEMPT = AttemptId("0123456789abcdef", 1 << 40 | 1)


def open_like_the_log(schema: str, path: str = ":memory:") -> sqlite3.Connection:
    """A new database with the settings of the vote log and these tables."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.executescript(schema)
    return connection


@contextmanager
def batch(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction of the writer."""
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def value(raw: Any) -> Value:
    """A value of the wire from a Python one; None is NULL."""
    if isinstance(raw, Value):
        return raw
    if raw is None:
        return Value(null=True)
    kinds = {bool: "boolean", int: "integer", float: "real", str: "text", bytes: "blob"}
    return Value(**{kinds[type(raw)]: raw})


def raw_of(shown: Value) -> Any:
    """The inverse of `value`."""
    kind = shown.WhichOneof("kind")
    return None if kind in (None, "null") else getattr(shown, kind)


def columns(values: dict[str, Any]) -> list[types_pb2.Column]:
    return [types_pb2.Column(name=name, value=value(raw)) for name, raw in sorted(values.items())]


def keys(key: Any) -> list[Value]:
    return [value(part) for part in (key if isinstance(key, tuple | list) else (key,))]


def insert(table: str, key: Any, **values: Any) -> types_pb2.Operation:
    return types_pb2.Operation(table=table, key=keys(key), insert=types_pb2.Insert(values=columns(values)))


def update(table: str, key: Any, **values: Any) -> types_pb2.Operation:
    return types_pb2.Operation(table=table, key=keys(key), update=types_pb2.Update(values=columns(values)))


def upsert(table: str, key: Any, **values: Any) -> types_pb2.Operation:
    return types_pb2.Operation(table=table, key=keys(key), upsert=types_pb2.Upsert(values=columns(values)))


def delete(table: str, key: Any) -> types_pb2.Operation:
    return types_pb2.Operation(table=table, key=keys(key), delete=types_pb2.Delete())


def add(table: str, key: Any, column: str, by: Any, low: Any = None, high: Any = None) -> types_pb2.Operation:
    operation = types_pb2.Operation(table=table, key=keys(key), add=types_pb2.Add(column=column, by=value(by)))
    if low is not None:
        operation.add.min.CopyFrom(value(low))
    if high is not None:
        operation.add.max.CopyFrom(value(high))
    return operation


def check(table: str, key: Any, column: str = "", **requirement: Any) -> types_pb2.Operation:
    """`equals`, `at_least`, `at_most` with a value, or `exists` with True or False."""
    ((sign, wanted),) = requirement.items()
    told = types_pb2.Check(column=column)
    if sign == "exists":
        told.exists = wanted
    else:
        getattr(told, sign).CopyFrom(value(wanted))
    return types_pb2.Operation(table=table, key=keys(key), check=told)


def read(table: str, key: Any) -> types_pb2.Operation:
    return types_pb2.Operation(table=table, key=keys(key), read=types_pb2.Read())


def encode(operations: Iterable[types_pb2.Operation]) -> bytes:
    """The operations of one branch, numbered in order."""
    numbered = types_pb2.Operations()
    for position, operation in enumerate(operations):
        added = numbered.operations.add()
        added.CopyFrom(operation)
        added.position = position
    return numbered.SerializeToString()


def plan(resource: Resource, *operations: types_pb2.Operation) -> Plan:
    return resource.plan(encode(operations))


def prepare(resource: Resource, *operations: types_pb2.Operation) -> Prepared:
    """Plans and tries a branch."""
    return resource.prepare(ATTEMPT, plan(resource, *operations))


def run(resource: Resource, *operations: types_pb2.Operation) -> Prepared:
    """Plans a branch and runs it in one step."""
    return resource.run(ATTEMPT, plan(resource, *operations))


def rows_of(prepared: Prepared) -> list[dict[str, Any] | None]:
    """The rows read, None for one that is absent."""
    rows = types_pb2.Rows.FromString(prepared.rows).rows
    return [{each.name: raw_of(each.value) for each in row.values} if row.present else None for row in rows]
