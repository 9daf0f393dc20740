"""The workloads of `troth bench`: pure functions, whose ledgers find every row that is not what was answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pytest

from bench.ledger import Ledger, Rows
from bench.load import Answer, Load
from bench.workloads import START, WORKLOADS, Add, Branch, Insert, Put, Read, Workload
from troth.words import Outcome

SEED = 7
NUMBERS = range(400)
NAMES = list(WORKLOADS)
CHANGING = [name for name in NAMES if name != "large"]
"""Those that change balances."""


def done(workload: Workload, numbers: Iterable[int]) -> dict[int, Rows]:
    """What a database that does its work holds afterwards."""
    tables = {
        at: Rows(dict.fromkeys(range(workload.accounts), START), {}, {}) for at in range(1, workload.participants + 1)
    }
    for number in numbers:
        for branch in workload.branches(SEED, number):
            apply(branch, tables[branch.participant])
    return tables


def apply(branch: Branch, rows: Rows) -> None:
    accounts, orders, documents = (table for table in rows if isinstance(table, dict))
    for operation in branch.operations:
        match operation:
            case Add(key, by):
                accounts[key] += by
            case Insert(key, item):
                orders[key] = item
            case Put(key, body):
                documents[key] = body


def complaints(name: str, found: Mapping[int, Rows], *, unknown: Iterable[int] = ()) -> list[str]:
    ledger = Ledger(WORKLOADS[name], SEED)
    ledger.committed(set(NUMBERS) - set(unknown))
    ledger.unknown(unknown)
    return ledger.complaints(found)


# What a step is.


@pytest.mark.parametrize("name", NAMES)
def test_a_step_depends_on_seed_and_number_alone(name: str) -> None:
    branches = WORKLOADS[name].branches
    once = [branches(SEED, number) for number in NUMBERS]
    assert [branches(SEED, number) for number in reversed(NUMBERS)] == once[::-1]
    assert [branches(SEED + 1, number) for number in NUMBERS] != once


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_at_all_participants_once_and_at_accounts_that_are_there(name: str) -> None:
    workload = WORKLOADS[name]
    for number in NUMBERS:
        branches = workload.branches(SEED, number)
        assert sorted(branch.participant for branch in branches) == list(range(1, workload.participants + 1))
        for operation in (operation for branch in branches for operation in branch.operations):
            assert not isinstance(operation, Add | Read) or 0 <= operation.key < workload.accounts


@pytest.mark.parametrize("name", ["transfer", "wide", "read-mostly", "contended"])
def test_a_transfer_makes_no_money(name: str) -> None:
    workload = WORKLOADS[name]
    found = done(workload, NUMBERS)
    total = sum(sum(rows.accounts.values()) for rows in found.values())
    assert total == workload.participants * workload.accounts * START


def test_one_in_ten_is_a_transfer_when_most_only_read() -> None:
    steps = [WORKLOADS["read-mostly"].branches(SEED, number) for number in range(5000)]
    reading = sum(all(branch.reads_only for branch in step) for step in steps)
    assert 0.88 < reading / len(steps) < 0.92


def test_the_hot_row_is_in_every_step_and_zipf_prefers_the_first_accounts() -> None:
    hot = {WORKLOADS["hot-row"].branches(SEED, number)[1] for number in NUMBERS}
    assert len(hot) == 1
    ((branch,),) = [hot]
    assert branch.participant == 1
    drawn = Counter(WORKLOADS["contended"].branches(SEED, number)[0].operations[0].key for number in range(5000))
    assert drawn[0] > 1.5 * drawn[1] > drawn[9] > 0


# What the ledger finds.


@pytest.mark.parametrize("name", NAMES)
def test_what_was_answered_is_found(name: str) -> None:
    assert complaints(name, done(WORKLOADS[name], NUMBERS)) == []


@pytest.mark.parametrize("name", CHANGING)
def test_a_tampered_balance_is_found(name: str) -> None:
    found = done(WORKLOADS[name], NUMBERS)
    accounts = found[1].accounts
    assert isinstance(accounts, dict)
    accounts[3] += 1
    (said,) = complaints(name, found)
    assert "accounts at p1: the sum is" in said
    assert f"1 rows are wrong: 3 has {accounts[3]}, not {accounts[3] - 1}" in said


@pytest.mark.parametrize("name", CHANGING)
def test_money_that_went_to_the_wrong_account_is_found_though_the_sum_is_right(name: str) -> None:
    found = done(WORKLOADS[name], NUMBERS)
    accounts = found[1].accounts
    assert isinstance(accounts, dict)
    accounts[3] += 1
    accounts[4] -= 1
    (said,) = complaints(name, found)
    assert "2 rows are wrong" in said


def changing(name: str) -> int:
    """The first step that changes something."""
    steps = ((number, WORKLOADS[name].branches(SEED, number)) for number in NUMBERS)
    return next(number for number, step in steps if not all(branch.reads_only for branch in step))


@pytest.mark.parametrize("name", NAMES)
def test_a_commit_that_is_lost_or_torn_is_found(name: str) -> None:
    workload, lost = WORKLOADS[name], changing(name)
    numbers = [number for number in NUMBERS if number != lost]
    if name == "large":  # another step may have written the same key later: then nothing can be seen
        numbers = [number for number in numbers if key(number) != key(lost)]
    found = done(workload, numbers)
    assert complaints(name, found)
    torn = workload.branches(SEED, lost)[0]
    apply(torn, found[torn.participant])
    assert bool(complaints(name, found)) is (workload.participants > 1)


def key(number: int) -> int:
    return WORKLOADS["large"].branches(SEED, number)[0].operations[0].key


@pytest.mark.parametrize("name", NAMES)
def test_a_commit_that_was_not_answered_is_found_unless_its_outcome_is_unknown(name: str) -> None:
    workload, number = WORKLOADS[name], changing(name)
    with_it, without = done(workload, NUMBERS), done(workload, [each for each in NUMBERS if each != number])
    assert complaints(name, with_it, unknown=[number]) == []
    assert complaints(name, without, unknown=[number]) == []
    ledger = Ledger(workload, SEED)
    ledger.committed(each for each in NUMBERS if each != number)
    if name != "large":  # a document that was replaced since is nobody's evidence
        assert ledger.complaints(with_it)


def test_documents_that_differ_or_are_damaged_or_foreign_are_found() -> None:
    found = done(WORKLOADS["large"], NUMBERS)
    documents = found[2].documents
    assert isinstance(documents, dict)
    first, second, third = sorted(documents)[:3]
    documents[first] = documents[first][:-1] + bytes([documents[first][-1] ^ 1])
    documents[second] = documents[third]
    del documents[third]
    said = "\n".join(complaints("large", found))
    assert f"what is under {first} is damaged" in said
    assert f"what is under {second} was never committed" in said
    assert "documents at p2: 1 are missing" in said
    assert "p1 and p2 hold different ones under 3 keys" in said


# The loop.


def test_a_load_counts_each_answer_where_it_belongs() -> None:
    load = Load(WORKLOADS["single"], SEED, 5, 4, 60.0)
    outcomes = [Outcome.COMMITTED, Outcome.ABORTED, Outcome.REFUSED, Outcome.UNKNOWN]
    for step, outcome in zip(load, outcomes, strict=False):
        load.answered(step, Answer(outcome, "lock timeout" if outcome is Outcome.ABORTED else ""))
    assert (load.committed, load.unknown) == ([5], [8])
    assert load.aborted == {"lock timeout": 1, "refused": 1}
    assert len(load.latencies_s) == 1


def test_a_load_counts_from_the_answer_at_which_the_loop_has_turned_once_to_the_last_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr("bench.load.time.perf_counter", lambda: now_s)
    load = Load(WORKLOADS["single"], SEED, 0, in_flight=3, seconds=1.0)
    steps = [next(load) for _ in range(3)]
    for now_s in (
        100.4,
        100.9,
        101.3,
        101.8,
    ):  # waves of three; the last is answered in time, and what it begins is not
        steps, before = [], steps
        for step in before:
            load.answered(step, Answer(Outcome.COMMITTED))
        steps = [next(load) for _ in before] if now_s < 101.4 else []
    assert load.tx_per_s == pytest.approx(6 / 0.9)
    assert list(load) == []
    assert (load.next_number, len(load.committed)) == (12, 12)


def test_a_time_in_which_no_wave_of_answers_comes_is_not_over_before_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr("bench.load.time.perf_counter", lambda: now_s)
    load = Load(WORKLOADS["single"], SEED, 0, in_flight=3, seconds=0.3)
    for now_s in (101.0, 102.0):  # noqa: B007 - the loop asks for it
        for step in [next(load) for _ in range(3)]:
            load.answered(step, Answer(Outcome.COMMITTED))
    assert list(load) == []
    assert load.tx_per_s == pytest.approx(3 / 1.0)


def test_a_load_that_was_stopped_hands_out_nothing_whatever_is_answered() -> None:
    load = Load(WORKLOADS["single"], SEED, 0, in_flight=2, seconds=60.0)
    steps = [next(load) for _ in range(4)]
    load.stop()
    for step in steps:
        load.answered(step, Answer(Outcome.COMMITTED))
        assert list(load) == []


def test_a_load_without_a_commit_in_time_has_no_rate() -> None:
    load = Load(WORKLOADS["single"], SEED, 0, in_flight=1, seconds=0.0)
    load.answered(next(load), Answer(Outcome.COMMITTED))
    load.answered(next(load), Answer(Outcome.ABORTED))
    assert list(load) == []
    assert load.tx_per_s == 0.0
