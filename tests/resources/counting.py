"""The subject of the contract over `memory.Counters`."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from faults.conformance.resource import Subject
from participant.resources import Resource
from tests.resources.memory import Counters
from tests.sqlite_tools import encode
from troth.v1 import types_pb2
from troth.words import AttemptId


def custom(*operations: tuple[str, str, int | None]) -> bytes:
    return encode(
        types_pb2.Operation(custom=types_pb2.Custom(name=name, body=json.dumps({"counter": counter, "by": by})))
        for name, counter, by in operations
    )


class CountersSubject(Subject):
    """Counters in memory, with operations of their own."""

    resource: type[Counters] = Counters
    change = custom(("add", "a", -1), ("get", "a", None))
    increment = custom(("add", "a", -3), ("add", "b", 2), ("add", "a", 1))
    look = custom(("get", "a", None))
    denied = custom(("add", "a", 1), ("add", "b", -100))
    impossible = custom(("frobnicate", "a", 1))
    aliases: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self) -> None:
        self._counters = {"a": 10, "b": 20}
        self._applied: set[AttemptId] = set()

    def open(self) -> Resource:
        return self.resource(self._counters, self._applied)

    def state(self) -> Any:
        return dict(self._counters)

    def batch(self) -> AbstractContextManager[None]:
        return nullcontext()
