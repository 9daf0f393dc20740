"""DESIGN section 3, "A YES is always applicable": branches whose locks go together are tried, then applied in any
order, with any of them aborted, and no apply may fail. Locks are compared with reality, at random.

TROTH_TEST_ROUNDS multiplies the number of rounds; a failure prints its seed, and TROTH_TEST_SEED runs that one alone.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterable
from typing import Any

import pytest

from participant.locks import Changes, LockTable
from participant.resources import INTEGER_MAX, INTEGER_MIN, Add, Lock, LockName, Mode, No, Plan
from participant.resources.sqlite import SQLiteResource
from tests.sqlite_tools import (
    ATTEMPT,
    add,
    check,
    delete,
    encode,
    insert,
    open_like_the_log,
    read,
    rows_of,
    update,
    upsert,
)
from troth.v1 import types_pb2

SCHEMA = """
CREATE TABLE parents(id INTEGER PRIMARY KEY, balance INTEGER CHECK (balance >= 0 AND balance <= 100),
    code TEXT UNIQUE DEFAULT 'c1', rank INTEGER UNIQUE, note TEXT);
CREATE TABLE places(town TEXT NOT NULL, shelf INTEGER NOT NULL, stock INTEGER NOT NULL DEFAULT 3 CHECK (stock >= 0),
    label TEXT, PRIMARY KEY (shelf, town)) WITHOUT ROWID;
CREATE TABLE children(id TEXT NOT NULL PRIMARY KEY, parent INTEGER REFERENCES parents(id) DEFAULT 1,
    elder TEXT REFERENCES children, town TEXT, shelf TEXT,
    a INTEGER, b INTEGER DEFAULT 1, total INTEGER CHECK (total BETWEEN -9 AND 9), big INTEGER,
    UNIQUE (a, b), FOREIGN KEY (town, shelf) REFERENCES places(town, shelf));
CREATE TABLE loose(id INTEGER PRIMARY KEY, x INTEGER DEFAULT 0, y INTEGER DEFAULT 0, r REAL, CHECK (x + y <= 10));
CREATE TABLE parts(town TEXT NOT NULL, shelf INTEGER NOT NULL, line INTEGER NOT NULL, serial INTEGER, kind TEXT,
    PRIMARY KEY (town, shelf, line), FOREIGN KEY (shelf, town) REFERENCES places);
CREATE UNIQUE INDEX parts_serial ON parts(serial, town);
"""

SEED_ROWS = """
INSERT INTO parents VALUES(1, 50, 'c2', 1, NULL), (2, 5, 'c3', NULL, 'n'), (4, 95, NULL, 3, 'n');
INSERT INTO places VALUES('b', 1, 3, NULL), ('k', 2, 1, 'l');
INSERT INTO children VALUES('1', 1, NULL, 'b', '1', 1, 1, 0, 0), ('x', 2, '1', NULL, NULL, 2, NULL, 5, NULL);
INSERT INTO loose VALUES(1, 5, 2, 0.5), (2, 0, 0, NULL);
INSERT INTO parts VALUES('b', 1, 1, 1, 'k'), ('k', 2, 1, NULL, NULL);
"""

IDS = [1, 2, 3, 4]
NAMES = ["1", "2", "x", "y"]
TOWNS = ["b", "k"]
SHELVES = [1, 2]
EDGES = [INTEGER_MIN, INTEGER_MIN + 1, -1, 0, 1, INTEGER_MAX - 1, INTEGER_MAX]


class Pending:
    """The reference for locks: the simplest that follows DESIGN, with escrow in the worst case of every pending add."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []

    def grants(self, plan: Plan, present: dict[tuple[LockName, str], int]) -> bool:
        """Whether these locks go together with all pending ones."""
        return all(self._goes(lock, present) for lock in plan.locks)

    def _goes(self, lock: Lock, present: dict[tuple[LockName, str], int]) -> bool:
        held = [other for plan in self.plans for other in plan.locks if other.name == lock.name]
        if any(other.mode is not lock.mode or lock.mode is Mode.EXCLUSIVE for other in held):
            return False
        return lock.mode is not Mode.INCREMENT or self._fits(lock, held, present)

    @staticmethod
    def _fits(lock: Lock, held: list[Lock], present: dict[tuple[LockName, str], int]) -> bool:
        adds: list[Add] = [one for each in [*held, lock] for one in each.adds]
        for column in {one.column for one in lock.adds}:
            mine = [one for one in adds if one.column == column]
            least = present[(lock.name, column)] + sum(min(one.by, 0) for one in mine)
            most = present[(lock.name, column)] + sum(max(one.by, 0) for one in mine)
            if any(least < one.low or most > one.high for one in mine):
                return False
        return True


class Dice:
    """Random operations on few rows and few values, so that branches meet: now and then all want the same new unique
    value, or add to the same row."""

    def __init__(self, rng: random.Random, resource: SQLiteResource) -> None:
        self.rng = rng
        self.fresh = 10
        self.focus: tuple[str, Any] | None = None
        self.resource = resource

    def is_there(self, table: str, key: Any) -> bool:
        plan = self.resource.plan(encode([read(table, key)]))
        return rows_of(self.resource.prepare(ATTEMPT, plan))[0] is not None

    def branch(self) -> list[types_pb2.Operation]:
        if self.rng.random() < 0.15:
            self.fresh += 1
            tables = ["parents", "places", "children", "loose", "parts"]
            focus = self.rng.choice(tables)
            self.focus = (focus, self.key(focus)) if self.rng.random() < 0.4 else None
        return [self.operation() for _ in range(self.rng.choice([1, 1, 1, 1, 2, 3]))]

    def operation(self) -> types_pb2.Operation:
        table = self.rng.choice(["parents", "children", "children", "places", "loose", "parts"])
        key = self.key(table)
        if self.focus and self.rng.random() < 0.6:
            return self.add(*self.focus)
        likely = ["update", "update", "upsert", "delete", "add", "add", "look"]
        if not self.is_there(table, key) and self.rng.random() < 0.9:
            likely = ["insert", "insert", "insert", "upsert", "look"]
        match self.rng.choice(likely):
            case "insert":
                return insert(table, key, **self.values(table))
            case "update":
                return update(table, key, **self.values(table))
            case "upsert":
                return upsert(table, key, **self.values(table))
            case "delete":
                return delete(table, key)
            case "add":
                return self.add(table, key)
        return self.rng.choice([read(table, key), check(table, key, exists=True), check(table, key, exists=False)])

    def key(self, table: str) -> Any:
        pick = self.rng.choice
        match table:
            case "places":
                return (pick(SHELVES), pick(TOWNS))
            case "parts":
                return (pick(TOWNS), pick(SHELVES), pick([1, 2]))
            case "children":
                return pick([*NAMES, 1])
        return pick([*IDS, "2", 3.0])

    def values(self, table: str) -> dict[str, Any]:
        pick = self.rng.choice
        all_of: dict[str, dict[str, Any]] = {
            "parents": {
                "balance": pick([0, 5, 50, 100, 101, None]),
                "code": pick(["c1", f"c{self.fresh}", None]),
                "rank": pick([self.fresh, self.fresh + 1, None]),
            },
            "places": {"stock": pick([0, 2, 4, -1]), "label": pick(["l", None])},
            "children": {
                "parent": pick([*IDS, None]),
                "elder": pick([*NAMES, None]),
                "town": pick([*TOWNS, None]),
                "shelf": pick([*SHELVES, None]),
                "a": pick([1, self.fresh, self.fresh, None]),
                "b": pick([1, self.fresh, None]),
                "total": pick([0, 0, 4, -4, 9, 10]),
                "big": pick(EDGES),
            },
            "loose": {"x": pick([0, 4, 9]), "y": pick([0, 4, 6]), "r": pick([0.5, 1.0])},
            "parts": {"serial": pick([self.fresh, self.fresh, None]), "kind": pick(["k", None])},
        }
        chance = self.rng.choice([0.2, 0.5, 0.9])
        return {name: raw for name, raw in all_of[table].items() if self.rng.random() < chance}

    def add(self, table: str, key: Any) -> types_pb2.Operation:
        pick = self.rng.choice
        by: int | float
        match table:
            case "parents":
                column, by = pick([("balance", pick([-60, -30, -5, 5, 30, 60]))] * 3 + [("rank", pick([1, -1]))])
            case "places":
                column, by = "stock", pick([-2, -1, 1])
            case "children":
                column, by = pick([("total", pick([-5, -3, 3, 5])), ("big", pick(EDGES)), ("a", 1), ("b", -1)])
            case "parts":
                column, by = "serial", pick([1, -1])
            case _:
                column, by = pick([("x", pick([-3, 3])), ("y", 3), ("r", 0.1)])
        low, high = (pick([None, 0, -10]), pick([None, 10, 100])) if self.rng.random() < 0.3 else (None, None)
        return add(table, key, column, by, low, high)


RANGE_CHECK = "SELECT count(*) FROM children WHERE typeof(big) NOT IN ('integer', 'null')"


def contents(connection: sqlite3.Connection) -> list[list[tuple[Any, ...]]]:
    tables = ("parents", "places", "children", "loose", "parts")
    return [connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in tables]


def integers_are_integers(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute(RANGE_CHECK).fetchone()[0] == 0)


class Round:
    """Some transactions after each other on one file, several pending at a time."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.connection = open_like_the_log(SCHEMA + SEED_ROWS)
        self.resource = SQLiteResource(self.connection)
        self.dice = Dice(self.rng, self.resource)
        self.patience = self.rng.choice([0.1, 0.2, 0.4])
        self.pending = Pending()
        self.told: list[str] = []
        self.prepared = 0
        self.together = 0

    def play(self, steps: int) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        for _ in range(steps):
            if self.pending.plans and self.rng.random() < self.patience:
                self.end_one()
            else:
                self.try_one()
        while self.pending.plans:
            self.end_one()
        assert integers_are_integers(self.connection)
        assert self.connection.execute("PRAGMA foreign_key_check").fetchall() == []
        self.connection.execute("COMMIT")
        assert self.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        self.connection.close()

    def try_one(self) -> None:
        operations = self.dice.branch()
        before = contents(self.connection)
        try:
            plan = self.resource.plan(encode(operations))
            tried = self.resource.prepare(ATTEMPT, plan)
        except No:
            assert contents(self.connection) == before, "a NO leaves nothing"
            return
        assert contents(self.connection) == before, "a trial leaves nothing"
        if not self.pending.grants(plan, tried.values):
            return
        self.told.append(f"prepared {operations} with {plan.locks}")
        self.prepared += 1
        self.together += bool(self.pending.plans)
        if not plan.read_only:
            self.pending.plans.append(plan)

    def end_one(self) -> None:
        plan = self.pending.plans.pop(self.rng.randrange(len(self.pending.plans)))
        if self.rng.random() < 0.3:
            self.told.append(f"aborted {plan.work.changes}")
            self.resource.abort(ATTEMPT, plan)
            return
        self.told.append(f"applying {plan.work.changes}")
        self.resource.commit(ATTEMPT, plan)


class RoundWithLockTable(Round):
    """The same behind the participant's own lock table: a branch is tried once it holds all its locks, waits until
    then, and a wait that no outcome could end is a NO."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.table = LockTable()
        self.waiting: dict[int, Plan] = {}
        self.held: dict[int, Plan] = {}
        self.number = 0

    def try_one(self) -> None:
        try:
            plan = self.resource.plan(encode(self.dice.branch()))
        except No:
            return
        self.number += 1
        self.waiting[self.number] = plan
        self.together += bool(self.held)
        self.advance(self.table.request(self.number, plan.locks))

    def advance(self, changes: Changes) -> None:
        for owner, _ in changes.hopeless:
            del self.waiting[int(str(owner))]
        for owner in changes.ready:
            self.try_ready(int(str(owner)))

    def try_ready(self, owner: int) -> None:
        plan = self.waiting.pop(owner)
        try:
            tried = self.resource.prepare(ATTEMPT, plan)
        except No:
            self.advance(self.table.release(owner, applied=False))
            return
        self.told.append(f"prepared {plan}")
        self.prepared += 1
        self.held[owner] = plan
        self.pending.plans.append(plan)
        self.advance(self.table.learn(owner, tried.values))

    def end_one(self) -> None:
        owner = self.rng.choice(list(self.held))
        plan = self.held.pop(owner)
        self.pending.plans.remove(plan)
        applied = self.rng.random() < 0.7
        self.told.append(f"{'applying' if applied else 'aborting'} {plan.work.changes}")
        if applied:
            self.resource.commit(ATTEMPT, plan)
        else:
            self.resource.abort(ATTEMPT, plan)
        self.advance(self.table.release(owner, applied))

    def play(self, steps: int) -> None:
        super().play(steps)
        assert not self.waiting, "whoever waited has had its turn"


def seeds() -> Iterable[int]:
    told = os.environ.get("TROTH_TEST_SEED")
    if told:
        return [int(told)]
    start = random.randrange(2**31)
    return range(start, start + 150 * int(os.environ.get("TROTH_TEST_ROUNDS", "1")))


@pytest.mark.parametrize("kind", [Round, RoundWithLockTable])
def test_no_apply_fails_after_a_yes_whatever_else_is_pending(kind: type[Round]) -> None:
    prepared = together = 0
    for seed in seeds():
        round_ = kind(seed)
        try:
            round_.play(60)
        except Exception as error:
            steps = "\n".join(round_.told[-8:])
            pytest.fail(f"TROTH_TEST_SEED={seed}: {type(error).__name__}: {error}\n{steps}")
        prepared += round_.prepared
        together += round_.together
    assert prepared > 0
    assert together > prepared // 10, "the branches must meet for this to say anything"
