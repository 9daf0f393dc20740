"""What the tables must hold: worked out from the numbers of the steps that committed, and compared with what they hold.

A step whose outcome is not known may have happened or not, so the rows that it wanted to change are not judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from bench.workloads import DOCUMENT_BYTES, NUMBER_BYTES, START, Add, Branches, Insert, Operation, Put, Read, Workload

_SHOWN = 3
"""Rows that one complaint names."""


class Rows(NamedTuple):
    """Everything in the tables of one participant, by key."""

    accounts: Mapping[int, int]
    orders: Mapping[int, int]
    documents: Mapping[int, bytes]


class Ledger:
    """Of one workload at one contender, from its first transaction to its last."""

    def __init__(self, workload: Workload, seed: int) -> None:
        self._workload = workload
        self._seed = seed
        self.participants = range(1, workload.participants + 1)
        self._balances = {at: dict.fromkeys(range(workload.accounts), START) for at in self.participants}
        self._orders: dict[int, dict[int, int]] = {at: {} for at in self.participants}
        self._writers: dict[int, set[int]] = defaultdict(set)
        """By key of a document, the steps that may have written what is there."""
        self._excused: set[tuple[str, int, int]] = set()
        """Table, participant and key of what steps of unknown outcome wanted to change."""

    def committed(self, numbers: Iterable[int]) -> None:
        """These have happened, each once."""
        for number in numbers:
            for at, operation in _each(self._workload.branches(self._seed, number)):
                self._happened(number, at, operation)

    def _happened(self, number: int, at: int, operation: Operation) -> None:
        match operation:
            case Add(key, by):
                self._balances[at][key] += by
            case Insert(key, item):
                self._orders[at][key] = item
            case Put(key):
                self._writers[key].add(number)
            case Read():
                pass

    def unknown(self, numbers: Iterable[int]) -> None:
        """These may have happened."""
        for number in numbers:
            for at, operation in _each(self._workload.branches(self._seed, number)):
                table = {Add: "accounts", Insert: "orders", Put: "documents"}.get(type(operation))
                if table is not None:
                    self._excused.add((table, at, operation.key))
                if isinstance(operation, Put):
                    self._writers[operation.key].add(number)

    def complaints(self, found: Mapping[int, Rows]) -> list[str]:
        """What is not as it must be, in sentences; none when all is well. `found` is by participant."""
        said: list[str] = []
        for at in self.participants:
            said += self._compared("accounts", at, self._balances[at], found[at].accounts)
            said += self._compared("orders", at, self._orders[at], found[at].orders)
            said += self._documents(at, found[at].documents)
        said += self._differing(found)
        return said

    def _compared(self, table: str, at: int, wanted: Mapping[int, int], found: Mapping[int, int]) -> Iterator[str]:
        if wanted == found:
            return
        keys = [
            key
            for key in sorted(wanted.keys() | found.keys())
            if wanted.get(key) != found.get(key) and (table, at, key) not in self._excused
        ]
        if keys:
            rows = ", ".join(f"{key} has {found.get(key)}, not {wanted.get(key)}" for key in keys[:_SHOWN])
            sums = f"the sum is {sum(found.values())}, not {sum(wanted.values())}"
            yield f"{table} at p{at}: {sums}; {len(keys)} rows are wrong: {rows}"

    def _documents(self, at: int, found: Mapping[int, bytes]) -> Iterator[str]:
        """Each is one that a step wrote under that key, whole; each key that was written is there."""
        for key, body in found.items():
            number = int.from_bytes(body[:NUMBER_BYTES], "big")
            if len(body) != DOCUMENT_BYTES or number not in self._writers.get(key, ()):
                yield f"documents at p{at}: what is under {key} was never committed"
            elif body != self._written(number):
                yield f"documents at p{at}: what is under {key} is damaged"
        missing = [key for key in self._writers if key not in found and ("documents", at, key) not in self._excused]
        if missing:
            yield f"documents at p{at}: {len(missing)} are missing"

    def _written(self, number: int) -> bytes:
        ((put,), *_) = [branch.operations for branch in self._workload.branches(self._seed, number)]
        assert isinstance(put, Put)
        return put.body

    def _differing(self, found: Mapping[int, Rows]) -> Iterator[str]:
        """Participants that hold other documents than the first."""
        first = found[1].documents
        for at in self.participants:
            others = found[at].documents
            keys = [key for key in first.keys() | others.keys() if first.get(key) != others.get(key)]
            if wrong := [key for key in sorted(keys) if ("documents", at, key) not in self._excused]:
                yield f"documents: p1 and p{at} hold different ones under {len(wrong)} keys, as {wrong[0]}"


def _each(branches: Branches) -> Iterator[tuple[int, Operation]]:
    """Every operation, with its participant."""
    for branch in branches:
        for operation in branch.operations:
            yield branch.participant, operation
