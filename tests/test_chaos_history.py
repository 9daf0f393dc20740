"""The checker of `troth chaos` finds hand-made anomalies, and none in histories that a serial order made."""

from __future__ import annotations

import random

import pytest

from faults.chaos.history import Seen, anomalies
from troth.words import Outcome

COMMITTED, ABORTED, UNKNOWN = Outcome.COMMITTED, Outcome.ABORTED, Outcome.UNKNOWN


def kinds(history: list[Seen], final: dict[str, tuple[int, ...]]) -> list[str]:
    return [found.kind for found in anomalies(history, final)]


def serial(seed: int, count: int = 300) -> tuple[list[Seen], dict[str, tuple[int, ...]]]:
    """A history that ran one by one, shuffled: some aborted, some unknown and applied or not."""
    chance = random.Random(seed)
    lists: dict[str, tuple[int, ...]] = dict.fromkeys("abcde", ())
    history = []
    for n in range(count):
        names = chance.sample(sorted(lists), 3)
        outcome = chance.choice([COMMITTED, COMMITTED, COMMITTED, ABORTED, UNKNOWN])
        reads = {name: lists[name] for name in names}
        history.append(Seen(f"t{n}", outcome, dict.fromkeys(names[:2], n), reads))
        if outcome is COMMITTED or (outcome is UNKNOWN and chance.random() < 0.5):
            lists |= {name: (*lists[name], n) for name in names[:2]}
    chance.shuffle(history)
    return history, lists


@pytest.mark.parametrize("seed", range(10))
def test_a_serial_history_has_no_anomaly(seed: int) -> None:
    assert anomalies(*serial(seed)) == []


def test_a_lost_update_is_found_when_both_values_stay_and_when_one_is_overwritten() -> None:
    both = [Seen("t1", COMMITTED, {"a": 1}, {"a": ()}), Seen("t2", COMMITTED, {"a": 2}, {"a": ()})]
    assert kinds(both, {"a": (1, 2)}) == ["lost update"]
    assert kinds(both, {"a": (2,)}) == ["lost append"]


def test_a_write_skew_is_found_and_its_cycle_is_told() -> None:
    history = [
        Seen("t1", COMMITTED, {"a": 1}, {"b": ()}),
        Seen("t2", COMMITTED, {"b": 2}, {"a": ()}),
        Seen("t3", COMMITTED, {}, {"a": (1,), "b": (2,)}),
    ]
    assert anomalies(history, {"a": (1,), "b": (2,)}) == [
        ("write skew", "t1 -read-write by b-> t2 -read-write by a-> t1"),
    ]


def test_a_read_that_sees_half_of_a_transaction_is_found() -> None:
    history = [Seen("t1", COMMITTED, {"a": 1, "b": 1}), Seen("t2", COMMITTED, {}, {"a": (1,), "b": ()})]
    assert kinds(history, {"a": (1,), "b": (1,)}) == ["read skew"]


def test_two_transactions_that_saw_each_other_are_found() -> None:
    history = [Seen("t1", COMMITTED, {"a": 1}, {"b": (2,)}), Seen("t2", COMMITTED, {"b": 2}, {"a": (1,)})]
    assert kinds(history, {"a": (1,), "b": (2,)}) == ["circular information flow"]


def test_lists_that_disagree_on_the_order_of_two_writers_are_found() -> None:
    history = [Seen("t1", COMMITTED, {"a": 1, "b": 1}), Seen("t2", COMMITTED, {"a": 2, "b": 2})]
    assert kinds(history, {"a": (1, 2), "b": (2, 1)}) == ["circular writes"]


def test_a_dirty_and_an_aborted_read_are_found() -> None:
    never_there = Seen("t2", COMMITTED, {}, {"a": (1,)})
    assert kinds([Seen("t1", UNKNOWN, {"a": 1}), never_there], {"a": ()}) == ["not a beginning"]
    assert kinds([Seen("t1", ABORTED, {"a": 1}), never_there], {"a": ()}) == ["aborted read"]


def test_an_append_of_an_aborted_transaction_is_found() -> None:
    assert kinds([Seen("t1", ABORTED, {"a": 1})], {"a": (1,)}) == ["aborted append"]


@pytest.mark.parametrize("outcome", [COMMITTED, UNKNOWN])
def test_a_torn_transaction_is_found_whether_its_outcome_is_known_or_not(outcome: Outcome) -> None:
    found = anomalies([Seen("t1", outcome, {"a": 1, "b": 1, "c": 1})], {"a": (1,), "b": (), "c": (1,)})
    assert found == [("torn", f"t1 is {outcome.name}: in a, c, not in b")]


def test_an_unknown_transaction_may_be_there_or_not() -> None:
    history = [Seen("t1", UNKNOWN, {"a": 1, "b": 1})]
    assert kinds(history, {"a": (1,), "b": (1,)}) == []
    assert kinds(history, {}) == []


def test_a_doubled_and_a_foreign_value_are_found() -> None:
    assert "doubled append" in kinds([Seen("t1", COMMITTED, {"a": 1})], {"a": (1, 1)})
    assert kinds([], {"a": (7,)}) == ["foreign value"]


def test_a_read_older_than_what_was_known_before_it_is_found() -> None:
    history = [Seen("t1", COMMITTED, {"a": 1}), Seen("t2", COMMITTED, {}, {"a": ()}, at_least={"a": 1})]
    assert kinds(history, {"a": (1,)}) == ["stale read"]


@pytest.mark.parametrize("seed", range(10))
def test_one_change_anywhere_in_the_lists_is_found(seed: int) -> None:
    history, final = serial(seed)
    chance = random.Random(seed)
    key = chance.choice(sorted(final))
    at = chance.randrange(len(final[key]) - 1)
    swapped = (*final[key][:at], final[key][at + 1], final[key][at], *final[key][at + 2 :])
    assert anomalies(history, {**final, key: swapped})
    assert anomalies(history, {**final, key: final[key][:-1]})
