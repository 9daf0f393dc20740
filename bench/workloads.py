"""What is measured: each workload is a pure function of (seed, number of the step) that says what one transaction does,
at which participants. So every contender gets the same transactions in the same order, and what the tables must hold
afterwards follows from the numbers that committed (`bench.ledger`).

Three tables are enough for all of them, and every participant has them: accounts (a balance each, also of things in
stock), orders, and documents.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import NamedTuple

START = 1_000_000
"""On each account at first: enough that no `min` is met."""
ACCOUNTS, ORDERS, DOCUMENTS = "accounts", "orders", "documents"
COLUMNS = {ACCOUNTS: "balance", ORDERS: "item", DOCUMENTS: "body"}
"""Beside the key, `id`."""
DOCUMENT_BYTES = 16 * 1024
NUMBER_BYTES = 8
"""A document begins with the number of the step that wrote it."""

_MASK = (1 << 64) - 1


class Add(NamedTuple):
    """Adds to an account; not to be done when less than `min` would be left."""

    key: int
    by: int
    min: int | None = None


class Read(NamedTuple):
    """Reads an account."""

    key: int


class Insert(NamedTuple):
    """Makes an order of an item."""

    key: int
    item: int


class Put(NamedTuple):
    """Inserts a document, or replaces it."""

    key: int
    body: bytes


Operation = Add | Read | Insert | Put


class Branch(NamedTuple):
    """What one transaction does at one participant; they are numbered from 1."""

    participant: int
    operations: tuple[Operation, ...]

    @property
    def reads_only(self) -> bool:
        return all(isinstance(each, Read) for each in self.operations)


Branches = tuple[Branch, ...]


class Workload(NamedTuple):
    """One kind of load."""

    about: str
    participants: int
    accounts: int
    """At each participant, with the keys 0, 1, ..."""
    branches: Callable[[int, int], Branches]
    """Of (seed, number), where numbers count up from 0 and none is used twice. In the order in which rows are
    best locked by whoever locks one after the other."""
    in_flight: tuple[int, ...] = (256,)
    """What is measured when nothing else is asked for."""


def schema(integer: str, binary: str) -> list[str]:
    """Statements that make the tables, in the database's own words for 64-bit integers and for bytes."""
    types = {ACCOUNTS: integer, ORDERS: integer, DOCUMENTS: binary}
    return [
        f"CREATE TABLE {table} (id {integer} PRIMARY KEY NOT NULL, {COLUMNS[table]} {kind} NOT NULL)"
        for table, kind in types.items()
    ]


def draw(seed: int, number: int, which: int) -> int:
    """64 bits that look like chance: splitmix64, for `random.Random` takes longer to seed than a transaction."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03 + which * 0x8CB92BA72F3D8DD7) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


_MANY, _FEW = 10_000, 1_000
_HOT = 0
_PRICE = 7


def _transfer(seed: int, number: int) -> Branches:
    paid, got = draw(seed, number, 1) % _MANY, draw(seed, number, 2) % _MANY
    return Branch(1, (Add(paid, -1, 0),)), Branch(2, (Add(got, 1),))


def _order(seed: int, number: int) -> Branches:
    item, customer = draw(seed, number, 1) % _MANY, draw(seed, number, 2) % _MANY
    return (
        Branch(1, (Add(item, -1, 0),)),
        Branch(2, (Add(customer, -_PRICE, 0),)),
        Branch(3, (Insert(number, item),)),
    )


_WIDE = 8


def _wide(seed: int, number: int) -> Branches:
    """The first pays all others."""
    amounts = (1 - _WIDE, *(1 for _ in range(_WIDE - 1)))
    return tuple(Branch(at, (Add(draw(seed, number, at) % _MANY, by),)) for at, by in enumerate(amounts, start=1))


_WRITES_PERCENT = 10


def _read_mostly(seed: int, number: int) -> Branches:
    if draw(seed, number, 0) % 100 < _WRITES_PERCENT:
        return _transfer(seed, number)
    first, second = draw(seed, number, 1) % _MANY, draw(seed, number, 2) % _MANY
    return Branch(1, (Read(first),)), Branch(2, (Read(second),))


def _hot_row(seed: int, number: int) -> Branches:
    """The hot row last, so that whoever locks rows one after the other holds it for the shortest time."""
    return Branch(2, (Add(draw(seed, number, 1) % _MANY, 1),)), Branch(1, (Add(_HOT, 1),))


_ZIPF = list(accumulate(1 / rank for rank in range(1, _FEW + 1)))
"""The weights of the accounts before and up to each."""


def _zipf(seed: int, number: int, which: int) -> int:
    return min(bisect_left(_ZIPF, draw(seed, number, which) / (_MASK + 1) * _ZIPF[-1]), _FEW - 1)


def _contended(seed: int, number: int) -> Branches:
    paid, got = _zipf(seed, number, 1), _zipf(seed, number, 2)
    return Branch(1, (Read(paid), Add(paid, -1, 0))), Branch(2, (Read(got), Add(got, 1)))


def _single(seed: int, number: int) -> Branches:
    return (Branch(1, (Add(draw(seed, number, 1) % _MANY, 1),)),)


def _large(seed: int, number: int) -> Branches:
    key = draw(seed, number, 1) % _FEW
    noise = random.Random(draw(seed, number, 2)).randbytes(DOCUMENT_BYTES - NUMBER_BYTES)  # nothing to be compressed
    put = Put(key, number.to_bytes(NUMBER_BYTES, "big") + noise)
    return Branch(1, (put,)), Branch(2, (put,))


WORKLOADS: Mapping[str, Workload] = {
    "transfer": Workload("1 from an account to another", 2, _MANY, _transfer, (1, 16, 64, 256, 1024)),
    "order": Workload("stock, a customer's money, and a new order", 3, _MANY, _order),
    "wide": Workload("one account at each of 8 participants", _WIDE, _MANY, _wide),
    "read-mostly": Workload("two accounts read; one in ten is a transfer", 2, _MANY, _read_mostly),
    "hot-row": Workload("everybody adds to one account, and to another one", 2, _MANY, _hot_row),
    "contended": Workload("accounts read and changed, drawn by zipf", 2, _FEW, _contended),
    "single": Workload("one account at one participant", 1, _MANY, _single),
    "large": Workload("the same document of 16 KiB at both", 2, 0, _large),
}
