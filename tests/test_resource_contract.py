"""The contract suite over every resource."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from participant.resources import Resource
from participant.resources.sqlite import SQLiteResource
from tests.resources.contract import ResourceContract, Subject
from tests.resources.memory import Counters
from tests.sqlite_tools import add, batch, encode, insert, open_like_the_log, read
from troth.v1 import types_pb2
from troth.words import AttemptId


class SQLiteSubject(Subject):
    """Two ordinary tables."""

    change = encode([insert("orders", 1, account="alice"), add("accounts", "alice", "balance", -10), read("orders", 1)])
    increment = encode([add("accounts", "alice", "balance", -30), add("accounts", "alice", "balance", 10)])
    look = encode([read("accounts", "alice"), read("accounts", "nobody")])
    denied = encode([insert("orders", 1), add("accounts", "alice", "balance", -101)])
    impossible = encode([read("accounts", "alice"), read("nowhere", 1)])

    def __init__(self) -> None:
        self._connection = open_like_the_log(
            """CREATE TABLE accounts(id TEXT NOT NULL PRIMARY KEY, balance INTEGER CHECK (balance >= 0));
            CREATE TABLE orders(id INTEGER PRIMARY KEY, account TEXT REFERENCES accounts);
            INSERT INTO accounts VALUES('alice', 100);"""
        )

    def open(self) -> Resource:
        return SQLiteResource(self._connection)

    def state(self) -> Any:
        return [self._connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("accounts", "orders")]

    def batch(self) -> AbstractContextManager[None]:
        return batch(self._connection)


def custom(*operations: tuple[str, str, int | None]) -> bytes:
    return encode(
        types_pb2.Operation(custom=types_pb2.Custom(name=name, body=json.dumps({"counter": counter, "by": by})))
        for name, counter, by in operations
    )


class CountersSubject(Subject):
    """Counters in memory, with operations of their own."""

    change = custom(("add", "a", -1), ("get", "a", None))
    increment = custom(("add", "a", -3), ("add", "b", 2), ("add", "a", 1))
    look = custom(("get", "a", None))
    denied = custom(("add", "a", 1), ("add", "b", -100))
    impossible = custom(("frobnicate", "a", 1))

    def __init__(self) -> None:
        self._counters = {"a": 10, "b": 20}
        self._applied: set[AttemptId] = set()

    def open(self) -> Resource:
        return Counters(self._counters, self._applied)

    def state(self) -> Any:
        return dict(self._counters)

    def batch(self) -> AbstractContextManager[None]:
        return nullcontext()


class TestSQLite(ResourceContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return SQLiteSubject()


class TestCounters(ResourceContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return CountersSubject()
