"""Both nodes against each other, in the small world of `world.py`: one test for each path through the protocol."""

from __future__ import annotations

import pytest

from tests.world import COORDINATOR, Manual, add, at_least, branch, judge, look
from troth.messages import Commit, Prepare
from troth.words import Outcome


def transfer(amount: int = 5) -> tuple[tuple[str, bytes], tuple[str, bytes]]:
    return branch("a", add(-amount, 0)), branch("b", add(amount))


def test_commit() -> None:
    world = Manual()
    client = world.submits(*transfer())
    world.settle()
    assert world.replies[client].outcome is Outcome.COMMITTED
    assert (world.value("a"), world.value("b")) == (5, 15)
    world.heal()
    judge(world)
    assert not world.alarms


def test_no_aborts_everywhere() -> None:
    world = Manual()
    client = world.submits(*transfer(11), id="pay-1")
    world.settle()
    result = world.replies[client]
    assert result.outcome is Outcome.ABORTED
    assert result.reason.participant == "a"
    assert (world.value("a"), world.value("b")) == (10, 10)
    world.heal()
    judge(world)


def test_rule_11_the_same_id_gives_the_same_outcome_across_restarts() -> None:
    world = Manual()
    world.submits(*transfer(), id="pay-1")
    world.settle()
    world.crash("coordinator")
    world.heal()
    client = world.submits(*transfer(), id="pay-1")
    other = world.submits(*transfer(6), id="pay-1")
    world.settle()
    assert world.replies[client].outcome is Outcome.COMMITTED
    assert world.replies[other].outcome is Outcome.REFUSED
    assert world.value("b") == 15


@pytest.mark.parametrize("id", ["", "one-1"])
def test_one_phase(id: str) -> None:
    world = Manual()
    client = world.submits(branch("a", add(1)), id=id)
    world.settle()
    assert world.replies[client].outcome is Outcome.COMMITTED
    world.heal()
    assert world.value("a") == 11
    assert not world.coordinator.attempts  # type: ignore[union-attr]


@pytest.mark.parametrize("id", ["", "reads-1"])
def test_read_only(id: str) -> None:
    world = Manual()
    client = world.submits(branch("a", look()), branch("b", at_least(1)), id=id)
    world.settle()
    assert world.replies[client].outcome is Outcome.COMMITTED
    assert world.replies[client].rows
    world.heal()
    judge(world)


def test_rule_6_a_prepared_participant_asks_when_the_coordinator_comes_back() -> None:
    world = Manual()
    world.submits(*transfer(), id="pay-1")
    while not all(disk.ledger.prepared for disk in world.vote_disks.values()):
        world.flush("a")
        world.flush("b")
        world.flush("coordinator")
        if world.net and world.net[0].to != "coordinator":
            world.deliver()
    world.crash("coordinator")
    assert all(disk.ledger.prepared for disk in world.vote_disks.values())
    world.heal()
    assert (world.value("a"), world.value("b")) == (10, 10)
    judge(world)


def test_rule_1_prepares_and_decisions_go_to_all_participants_at_once() -> None:
    world = Manual(["a", "b", "c"])
    world.submits(*(branch(name, add(1)) for name in "abc"))
    assert sorted(letter.to for letter in world.net if isinstance(letter.message, Prepare)) == ["a", "b", "c"]
    while not any(isinstance(letter.message, Commit) for letter in world.net):
        for name in world.names:
            world.flush(name)
        if world.net:
            world.deliver()
        world.flush(COORDINATOR)
    assert sorted(letter.to for letter in world.net if isinstance(letter.message, Commit)) == ["a", "b", "c"]


def test_rule_3_the_client_is_answered_when_the_decision_is_durable_and_may_wait_for_the_applies() -> None:
    world = Manual()
    soon = world.submits(*transfer(), id="pay-1")
    applied = world.submits(*transfer(), id="pay-1", wait_applied=True)
    while soon not in world.replies:
        for name in world.names:
            world.flush(name)
        if world.net:
            world.deliver()
        if soon not in world.replies:
            world.flush(COORDINATOR)
    assert world.replies[soon].outcome is Outcome.COMMITTED
    assert not any(disk.ledger.applied for disk in world.vote_disks.values()), "nobody has applied yet"
    assert applied not in world.replies
    world.settle()
    assert world.replies[applied].applied
