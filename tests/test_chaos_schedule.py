"""`troth chaos`: the same seed makes the same faults and the same transactions."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from faults.chaos.bank import BALANCE, Bank
from faults.chaos.lists import Lists
from faults.chaos.schedule import TOGETHER_MAX, Fault, Field, Kind, schedule
from troth import Result
from troth.words import Outcome

NAMES = ["coordinator", "p1", "p2", "p3"]
FIELD = Field(NAMES, [("a>b",), ("a>c",), ("a>b", "c>a")], NAMES, ["postgresql", "mariadb"])


def made(seed: int, duration_s: float = 600.0, field: Field = FIELD) -> list[Fault]:
    return schedule(seed, duration_s, field, list(Kind), every_s=3.0)


def test_a_seed_makes_one_schedule_and_another_seed_another_one() -> None:
    assert made(1) == made(1)
    assert made(1) != made(2)


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_comes_about_equally_often(seed: int) -> None:
    counts = Counter(fault.kind for fault in made(seed))
    assert set(counts) == set(Kind)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert counts.total() > 600 / 3 / 2


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_hit_again_before_it_is_healed_and_few_faults_are_under_way_at_once(seed: int) -> None:
    faults = made(seed)
    for one, other in itertools.combinations(faults, 2):
        assert one.at_s < other.at_s
        if one.at_s + one.lasts_s > other.at_s:
            assert not set(one.targets) & set(other.targets)
    for fault in faults:
        under_way = [each for each in faults if each.at_s <= fault.at_s < each.at_s + each.lasts_s]
        assert len(under_way) <= TOGETHER_MAX


def test_nothing_begins_after_the_load() -> None:
    assert all(fault.at_s < 60.0 for fault in made(3, 60.0))


def test_what_cannot_be_broken_is_not() -> None:
    faults = made(1, field=Field(processes=["p1"]))
    assert {fault.kind for fault in faults} == {Kind.KILL, Kind.KILL_SEVERAL, Kind.STOP}
    assert {fault.targets for fault in faults} == {("p1",)}
    assert made(1, field=Field()) == []


def test_without_servers_a_seed_makes_what_it_made_before_there_were_any() -> None:
    field = FIELD._replace(servers=[])
    others = [kind for kind in Kind if kind is not Kind.SERVER]
    assert made(1, field=field) == schedule(1, 600.0, field, others, every_s=3.0)


def test_one_way_is_of_one_link() -> None:
    assert {len(fault.targets) for fault in made(1) if fault.kind is Kind.ONE_WAY} == {1}


# The workloads.


def test_transfers_follow_from_the_chance_and_keep_the_money_together() -> None:
    bank = Bank("t", NAMES[1:])
    transfers = [bank.transfer(f"t{n}", random.Random(n)) for n in range(300)]
    assert transfers == [bank.transfer(f"t{n}", random.Random(n)) for n in range(300)]
    assert all(sum(transfer.moves.values()) == 0 for transfer in transfers)
    assert {len(transfer.entries()) for transfer in transfers} == {1, 2, 3}
    assert {transfer.looks_at is None for transfer in transfers} == {True, False}
    assert any(-min(transfer.moves.values()) > BALANCE for transfer in transfers), "some must abort"


def test_a_bank_of_one_participant_moves_money_too() -> None:
    bank = Bank("t", ["p1"])
    assert all(len(bank.transfer(f"t{n}", random.Random(n)).moves) == 2 for n in range(50))


def test_a_list_that_somebody_else_changed_is_read_before_it_is_appended_to() -> None:
    lists = Lists("t", ["p1"])
    step = next(step for n in range(99) if (step := lists.step(f"t{n}", n, random.Random(n))).appends)
    lists.ended(step, Result(step.id, Outcome.ABORTED))
    later = [lists.step(f"u{n}", n, random.Random(n)) for n in range(100, 130)]
    assert not {place for each in later for place in each.appends} & step.appends.keys()
    assert {place for each in later for place in each.reads} >= step.appends.keys()


def test_a_list_grows_by_what_was_committed_and_makes_way_for_another_one() -> None:
    lists = Lists("t", ["p1"])
    for n in range(300):
        step = lists.step(f"t{n}", n, random.Random(n))
        lists.ended(step, Result(step.id, Outcome.COMMITTED))
    names = {name for _, name in lists.used}
    assert len(names) > 4
    assert max(len(before) for seen in lists.history.values() for before in seen.reads.values()) == 23
