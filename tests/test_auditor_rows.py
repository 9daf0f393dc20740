"""The auditor's replay of a history, against rows that the engine itself applied."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.auditor import audit
from participant.events import Apply, Job, Try
from participant.opening import Opened, open_file
from participant.resources import No
from tests.audited import change
from troth.operations import Scalar, Transaction
from troth.v1.types_pb2 import Operations
from troth.words import AttemptId, number_of

SCHEMA = """
CREATE TABLE goods (
    warehouse TEXT NOT NULL, item INTEGER NOT NULL, pieces INTEGER DEFAULT 7 CHECK (pieces BETWEEN 0 AND 1000),
    weight REAL DEFAULT 1.5, sold BOOLEAN DEFAULT FALSE, label TEXT DEFAULT 'it''s', photo BLOB,
    doubled INTEGER GENERATED ALWAYS AS (pieces * 2), PRIMARY KEY (warehouse, item)
);
CREATE TABLE notes (n INTEGER PRIMARY KEY NOT NULL, "the text" TEXT) STRICT;
"""
LOG = "c000000000000001"


class Participant:
    """Applies transactions to p1's file in the way its process does, one flush each."""

    def __init__(self, opened: Opened, first: int) -> None:
        self._opened = opened
        self._sequence = first

    def apply(self, transaction: Transaction) -> bool:
        """Whether it could be; nothing is left of one that could not."""
        self._sequence += 1
        attempt = AttemptId(LOG, number_of(1, self._sequence))
        operations = Operations(operations=[operation for _, operation in transaction.operations]).SerializeToString()
        try:
            plan = self._opened.resource.plan(operations)
        except No:
            return False
        (result,) = self._write(Try(attempt, operations, plan, False, (), time.time()))
        if not hasattr(result, "rows"):
            return False
        self._write(Apply(attempt, operations, plan, time.time()))
        return True

    def _write(self, job: Job) -> list[object]:
        file = self._opened.file
        file.begin()
        results = self._opened.votes.write([(0, job)])
        file.commit(1)
        return [result for _, result in results]


@contextmanager
def participant(folder: Path, *, history: bool = True, first: int = 0) -> Iterator[Participant]:
    schema = folder / "schema.sql"
    schema.write_text(SCHEMA)
    opened = open_file(folder / "p1.db", "p1", schema=schema, adopt=False, history=history)
    try:
        yield Participant(opened, first)
    finally:
        opened.file.close()


def at_p1() -> Transaction:
    return Transaction().at("p1")


def rows(folder: Path) -> tuple[str, list[str]]:
    """What is said of p1's rows, and the contradictions."""
    found = audit([folder / "p1.db"])
    (file,) = found.files
    return file.rows, [finding.sentence for finding in found.contradictions]


# Whole histories.


def values(chance: random.Random) -> dict[str, Scalar]:
    """Some columns, in types that must be converted too."""
    every: dict[str, list[Scalar]] = {
        "pieces": [1, "17", 17.0, None, 1000],
        "weight": [2, "2.50", 0.1, -1e300, None],
        "sold": [True, "false", 1, None],
        "label": ["", "Grüße", 12, None],
        "photo": [b"", b"\x00\xff", None],
    }
    return {name: chance.choice(every[name]) for name in chance.sample(sorted(every), chance.randrange(1, 4))}


def some(chance: random.Random) -> Transaction:
    """Up to three operations, most of which can be applied."""
    made = at_p1()
    for _ in range(chance.randrange(1, 4)):
        key: list[Scalar] = [chance.choice(["berlin", "lyon/nord"]), chance.choice([1, "2", 3.0])]
        match chance.randrange(7):
            case 0:
                made.insert("Goods", key, values(chance))
            case 1:
                made.update("goods", key, values(chance))
            case 2:
                made.upsert("goods", key, values(chance))
            case 3:
                made.delete("goods", key)
            case 4:
                made.add("goods", key, "pieces", chance.choice([1, -1, 5.0]))
            case 5:
                made.add("goods", key, "WEIGHT", chance.choice([1, 0.1, -2.5]))
            case _:
                made.upsert("notes", chance.randrange(4), {"The Text": chance.choice(["a", "b", None])})
    return made


def test_whatever_the_engine_applied_agrees_with_its_replay(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    with participant(tmp_path) as p1:
        applied = sum(p1.apply(some(chance)) for _ in range(400))
    said, wrong = rows(tmp_path)
    assert wrong == [], f"seed {seed}"
    assert said.startswith("all agree with the history, kept from its first day"), f"seed {seed}: {said}"
    assert applied > 50, f"seed {seed}"


DAMAGE = {
    "UPDATE goods SET pieces = 8": ["goods/berlin/1: pieces is 8, by its history 7"],
    "UPDATE goods SET weight = 1.0": ["goods/berlin/1: weight is 1.0, by its history 1.5"],
    "UPDATE goods SET label = 'its'": ["goods/berlin/1: label is 'its', by its history \"it's\""],
    "UPDATE goods SET photo = ''": ["goods/berlin/1: photo is '', by its history None"],
    "UPDATE goods SET item = 2": [
        "goods/berlin/1 is gone; its history leaves it there",
        "goods/berlin/2 is there, and no entry of the history made it",
    ],
    "INSERT INTO notes VALUES (9, 'x')": ["notes/9 is there; its history deletes it"],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_changed_behind_the_back_is_named(tmp_path: Path, damage: str) -> None:
    with participant(tmp_path) as p1:
        assert p1.apply(at_p1().insert("goods", ["berlin", 1]).insert("notes", 9))
        assert p1.apply(at_p1().delete("notes", 9))
    change(tmp_path / "p1.db", damage)
    assert rows(tmp_path)[1] == [f"p1.db: {sentence}" for sentence in DAMAGE[damage]]


def test_an_entry_that_cannot_have_been_applied_is_named(tmp_path: Path) -> None:
    with participant(tmp_path) as p1:
        for made in (at_p1().insert("notes", 1), at_p1().delete("notes", 1), at_p1().insert("notes", 1)):
            assert p1.apply(made)
    for old, new in ((2, 9), (1, 2), (9, 1)):
        change(tmp_path / "p1.db", f"UPDATE troth_history SET position = {new} WHERE position = {old}")
    wrong = rows(tmp_path)[1]
    assert [sentence.partition(", where ")[2] for sentence in wrong] == [
        "notes/1 is deleted and was not there",
        "notes/1 is inserted and was there already",
    ]


def test_an_entry_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with participant(tmp_path) as p1:
        assert p1.apply(at_p1().insert("notes", 1))
    change(tmp_path / "p1.db", "UPDATE troth_history SET operations = x'ff'")
    said, wrong = rows(tmp_path)
    assert said == "not checked: the history is damaged"
    assert len(wrong) == 1


# Rows that were there before the history.


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """Four rows without a history; then one is changed, one added to, one deleted, one left, and one is new."""
    with participant(tmp_path, history=False) as p1:
        for item in (1, 2, 3, 4):
            assert p1.apply(at_p1().insert("goods", ["berlin", item], {"label": "old"}))
    with participant(tmp_path, first=10) as p1:
        assert p1.apply(at_p1().update("goods", ["berlin", 1], {"pieces": 5, "weight": None}))
        assert p1.apply(at_p1().add("goods", ["berlin", 1], "pieces", 2).add("goods", ["berlin", 2], "pieces", 1))
        assert p1.apply(at_p1().delete("goods", ["berlin", 3]).upsert("goods", ["berlin", 5], {"pieces": 1}))
        assert p1.apply(at_p1().insert("goods", ["lyon", 1]))
    return tmp_path


def test_rows_from_before_the_history_are_checked_as_far_as_they_are_known(grown: Path) -> None:
    said, wrong = rows(grown)
    assert wrong == []
    assert said == (
        "all agree with the history, kept from entry 1: 1 known by it, 3 there before and known in the columns set "
        "since, 1 touched by none of it and not checked"
    )


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("pieces = 9 WHERE item = 1 AND warehouse = 'berlin'", "goods/berlin/1: pieces is 9, by its history 7"),
        ("label = 'new' WHERE item = 1 AND warehouse = 'berlin'", None),
        ("pieces = 9 WHERE item = 2", None),
        ("pieces = 9 WHERE item = 4", None),
        ("item = 3 WHERE item = 4", "goods/berlin/3 is there; its history deletes it"),
        ("warehouse = 'paris' WHERE item = 2", "goods/berlin/2 is gone; its history leaves it there"),
        ("label = 'new' WHERE warehouse = 'lyon'", "goods/lyon/1: label is 'new', by its history \"it's\""),
    ],
)
def test_what_is_known_of_them_is_held_against_them(grown: Path, where: str, sentence: str | None) -> None:
    change(grown / "p1.db", f"UPDATE goods SET {where}")
    assert rows(grown)[1] == ([] if sentence is None else [f"p1.db: {sentence}"])


def test_a_history_that_is_no_longer_kept_checks_nothing(grown: Path) -> None:
    with participant(grown, history=False, first=20) as p1:
        assert p1.apply(at_p1().delete("goods", ["lyon", 1]))
    assert rows(grown) == ("not checked: no history is kept now; 4 entries are of an earlier life (--history)", [])


def test_tables_and_columns_that_are_gone_since_are_left_out(tmp_path: Path) -> None:
    with participant(tmp_path) as p1:
        assert p1.apply(at_p1().insert("goods", ["berlin", 1], {"photo": b"x"}).insert("notes", 1))
    change(tmp_path / "p1.db", "DROP TABLE notes")
    change(tmp_path / "p1.db", "ALTER TABLE goods DROP COLUMN photo")
    change(tmp_path / "p1.db", "ALTER TABLE goods ADD COLUMN colour TEXT DEFAULT 'red'")
    said, wrong = rows(tmp_path)
    assert wrong == []
    assert said.endswith("1 known by it, 1 operations left out, of no table here")
