"""What simulated clients ask for: works of one branch, and how a request spells them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from faults.simulator.model import LOOKS, Op, Rows, Work
from troth.v1 import types_pb2

HOT = ("x", "y")
ACCOUNTS = (1, 2, 3)
ITEMS = (1, 2, 3, 4)


class Part(NamedTuple):
    """The part of a transaction at one participant: what it does, and how the request says so."""

    participant: str
    work: Work
    operations: bytes

    @property
    def read_only(self) -> bool:
        return all(op.kind in LOOKS for op in self.work)

    @property
    def reads(self) -> bool:
        return any(op.kind == "read" for op in self.work)


Parts = tuple[Part, ...]


def initial_rows() -> Rows:
    """What every simulated file holds when it is new."""
    rows: dict[tuple[str, int | str], dict[str, int | None]] = {("hot", key): {"v": 10} for key in HOT}
    rows |= {("accounts", key): {"v": 12} for key in ACCOUNTS}
    rows |= {("items", key): {"v": 5, "u": key} for key in ITEMS[:2]}
    return Rows(rows)


def part(participant: str, work: Work, random: Random | None = None) -> Part:
    """The part with its request; with `random` integer keys are spelled in any way that means the same row."""
    operations = types_pb2.Operations()
    for position, op in enumerate(work):
        made = operations.operations.add(position=position, table=op.table)
        _spell(made.key.add(), op.key, random)
        _KINDS[op.kind](made, op)
    return Part(participant, work, operations.SerializeToString(deterministic=True))


def _spell(value: types_pb2.Value, key: int | str, random: Random | None) -> None:
    if isinstance(key, str):
        value.text = key
    elif random is None or (way := random.random()) < 0.6:
        value.integer = key
    elif way < 0.8:
        value.text = str(key)
    else:
        value.real = float(key)


def _put(value: types_pb2.Value, number: int | None) -> None:
    if number is None:
        value.null = True
    else:
        value.integer = number


def _values(columns: Sequence[tuple[str, int | None]], into: Callable[..., types_pb2.Column]) -> None:
    for name, number in sorted(columns):
        if name == "body":
            into(name=name).value.text = "x" * (number or 0)
        else:
            _put(into(name=name).value, number)


def _add(made: types_pb2.Operation, op: Op) -> None:
    ((made.add.column, by),) = op.values
    _put(made.add.by, by)
    if op.low is not None:
        _put(made.add.min, op.low)
    if op.high is not None:
        _put(made.add.max, op.high)


def _check(made: types_pb2.Operation, op: Op) -> None:
    ((made.check.column, number),) = op.values
    _put(getattr(made.check, op.kind), number)


def _exists(made: types_pb2.Operation, op: Op) -> None:
    made.check.exists = bool(op.values[0][1])


_KINDS: dict[str, Callable[[types_pb2.Operation, Op], None]] = {
    "insert": lambda made, op: _values(op.values, made.insert.values.add),
    "update": lambda made, op: _values(op.values, made.update.values.add),
    "upsert": lambda made, op: _values(op.values, made.upsert.values.add),
    "delete": lambda made, op: made.delete.SetInParent(),
    "add": _add,
    "at_least": _check,
    "at_most": _check,
    "equals": _check,
    "exists": _exists,
    "read": lambda made, op: made.read.SetInParent(),
}


# Styles of transactions. Each makes works by participant.

Works = dict[str, Work]


def add(table: str, key: int | str, by: int, low: int | None = None, high: int | None = None) -> Op:
    return Op("add", table, key, (("v", by),), low, high)


def look(table: str, key: int | str) -> Op:
    return Op("read", table, key)


def at_least(table: str, key: int | str, number: int) -> Op:
    return Op("at_least", table, key, (("v", number),))


def put(kind: str, table: str, key: int | str, **values: int | None) -> Op:
    return Op(kind, table, key, tuple(sorted(values.items())))


def transfer(random: Random, names: Sequence[str]) -> Works:
    """Money between accounts at two or three participants, or within one; nothing is made or lost."""
    several = random.sample(list(names), min(len(names), random.choice([1, 2, 2, 2, 3])))
    if len(several) == 1:
        source, target = random.sample(ACCOUNTS, 2)
        amount = random.randint(1, 9)
        return {several[0]: (add("accounts", source, -amount), add("accounts", target, amount))}
    amounts = [random.randint(1, 9) for _ in several[1:]]
    works: Works = {several[0]: (add("accounts", random.choice(ACCOUNTS), -sum(amounts), 0),)}
    for name, amount in zip(several[1:], amounts, strict=True):
        works[name] = (add("accounts", random.choice(ACCOUNTS), amount),)
    return works


def at_bounds(random: Random, names: Sequence[str]) -> Works:
    """Adds to one row near its bounds, one or two a branch."""

    def adds() -> Work:
        count = random.choice([1, 1, 2])
        return tuple(
            add(
                "hot",
                "x",
                random.choice([-9, -6, -4, -1, 1, 4, 6, 9]),
                *random.choice([(0, 20), (0, None), (None, None)]),
            )
            for _ in range(count)
        )

    return {name: adds() for name in random.sample(list(names), min(len(names), random.choice([1, 2, 2, 3])))}


def mixed(random: Random, names: Sequence[str]) -> Works:
    """Branches of any kind."""
    count = min(len(names), random.choice([1, 2, 2, 3]))
    return {name: _any(random) for name in random.sample(list(names), count)}


def _any(random: Random) -> Work:
    key, kind = random.choice(HOT), random.random()
    if kind < 0.25:
        return (add("hot", key, random.choice([-6, -3, -1, 2, 5]), 0),)
    if kind < 0.35:
        return (put("upsert", "hot", key, v=random.randrange(20)),)
    if kind < 0.5:
        return (look("hot", key),)
    if kind < 0.65:
        return (at_least("hot", key, 5), add("hot", key, -1, 0))
    if kind < 0.75:
        return (add("hot", "x", 3, 0), add("hot", "x", -4, 0))
    return _item(random)


def _item(random: Random) -> Work:
    """Rows that come and go, with values that must be unique."""
    key, kind = random.choice(ITEMS), random.random()
    unique = random.choice([None, 1, 2, 3])
    if kind < 0.3:
        return (put("upsert", "items", key, v=random.randrange(60), u=unique),)
    if kind < 0.5:
        return (put("insert", "items", key, v=random.randrange(60), u=unique),)
    if kind < 0.6:
        return (put("update", "items", key, u=unique),)
    if kind < 0.75:
        return (Op("delete", "items", key),)
    if kind < 0.9:
        return (add("items", key, random.choice([-20, -2, 1, 30])), look("items", random.choice(ITEMS)))
    return (Op("exists", "items", key, (("", random.randrange(2)),)), look("items", key))


def items(random: Random, names: Sequence[str]) -> Works:
    """Rows that come and go at one or two participants."""
    return {name: _item(random) for name in random.sample(list(names), random.choice([1, 2]))}


def reading(random: Random, names: Sequence[str]) -> Works:
    """Looks only."""
    count = random.choice([1, 2, 2, 3])

    def looks() -> Work:
        checked = (at_least("hot", random.choice(HOT), 1),) if random.random() < 0.4 else ()
        return (look("hot", random.choice(HOT)), look("accounts", random.choice(ACCOUNTS)), *checked)

    return {name: looks() for name in random.sample(list(names), min(count, len(names)))}


def looping(random: Random, names: Sequence[str]) -> Works:
    """Looks at one row and changes another, so that two of them can each miss what the other did (write skew)."""

    def crossed() -> Work:
        seen, changed = random.sample(HOT, 2)
        return (look("hot", seen), add("hot", changed, random.choice([-2, 1, 2]), 0))

    return {name: crossed() for name in random.sample(list(names), min(len(names), random.choice([1, 2, 2])))}


def crossing(random: Random, names: Sequence[str]) -> Works:
    """One row at every participant, some only looking, in any order."""
    works: Works = {}
    for name in random.sample(list(names), len(names)):
        works[name] = (
            (look("hot", "x"),) if random.random() < 0.5 else (put("upsert", "hot", "x", v=random.randrange(9)),)
        )
    return works


def notes(random: Random, names: Sequence[str]) -> Works:
    """Large rows beside small ones."""

    def written() -> Work:
        return (put("upsert", "notes", random.choice(ITEMS), body=random.choice([10, 9000])), _any(random)[0])

    return {name: written() for name in random.sample(list(names), random.choice([1, 2]))}


def alone(random: Random, names: Sequence[str]) -> Works:
    """One participant."""
    return {random.choice(list(names)): _any(random)}


STYLES: dict[str, Callable[[Random, Sequence[str]], Works]] = {
    "transfer": transfer,
    "bounds": at_bounds,
    "mixed": mixed,
    "items": items,
    "reading": reading,
    "looping": looping,
    "crossing": crossing,
    "alone": alone,
    "notes": notes,
}
