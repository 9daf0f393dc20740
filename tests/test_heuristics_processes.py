"""Rule 12 on real processes: what cannot be resolved is kept and listed, and a person may resolve it by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster import COORDINATOR, Cluster, eventually
from tests.submitting import (
    committed,
    in_doubt,
    objects,
    submit,
    submitting,
    troth,
    troth_here,
    wait_in_doubt,
)
from troth.cli import cluster as cluster_file
from troth.operations import Transaction
from troth.process import addresses
from troth.words import AttemptId, Outcome

SCHEMA = """
CREATE TABLE accounts (name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0)) STRICT;
"""

NewCluster = Callable[..., Cluster]


@pytest.fixture
def cluster(new_cluster: NewCluster) -> Iterator[Cluster]:
    with new_cluster(participants=2, schema=SCHEMA) as found:
        opened = Transaction().at("p1").insert("accounts", "alice", {"balance": 100})
        committed(found, opened.at("p2").insert("accounts", "bob", {"balance": 100}))
        yield found


def transfer() -> Transaction:
    moved = Transaction("order-17").at("p1").add("accounts", "alice", "balance", -60)
    return moved.at("p2").add("accounts", "bob", "balance", 60)


def balances(cluster: Cluster) -> list[int]:
    found = [cluster.rows(at, "SELECT balance FROM accounts") for at in ("p1", "p2")]
    return [rows[0][0] for rows in found]


def audit(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    """What was written of what people did."""
    return cluster.rows(name, "SELECT what, reason FROM troth_audit ORDER BY at")


@contextmanager
def in_doubt_at_p1(cluster: Cluster, *, decided: bool) -> Iterator[AttemptId]:
    """p1 is prepared and nobody answers it: the coordinator and p2 are down, until the end. `decided`: the coordinator
    has decided COMMITTED, and p2 has applied it; otherwise p2 has not voted."""
    cluster.pause("p2")
    under_way = submitting(cluster, transfer(), wait_applied=False)
    (attempt,) = wait_in_doubt(cluster, "p1")
    if decided:
        cluster.pause("p1")
        cluster.resume("p2")
        assert under_way.result().outcome is Outcome.COMMITTED
        eventually(lambda: balances(cluster)[1] == 160, "p2 has applied")
    cluster.kill(COORDINATOR, "p1", "p2")
    cluster.start("p1")
    assert cluster.in_doubt("p1") == 1
    yield attempt


def by_hand(
    cluster: Cluster, id: object, outcome: str, *options: str, participant: str = "p1"
) -> subprocess.CompletedProcess[str]:
    """`troth resolve` at p1's address."""
    where = ("--participant", participant, "--participant-address", cluster["p1"].address, "--reason", "disk lost")
    return troth(cluster, "resolve", str(id), outcome, *where, *options)


def listed(cluster: Cluster, *options: str) -> list[dict[str, Any]]:
    """`troth in-doubt`."""
    found = troth(cluster, "in-doubt", "--json", *options)
    assert found.returncode == 0, found.stderr
    return objects(found.stdout)


def unresolved(cluster: Cluster) -> list[tuple[str, str]]:
    found = objects(troth(cluster, "unresolved", "--json").stdout)
    return [(each["participant"], each["kind"]) for each in found]


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What they return. With the coordinator dead, each of these commands looks for it for two seconds."""
    with ThreadPoolExecutor() as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def test_in_doubt_lists_what_is_locked_and_why_with_the_coordinator_dead(cluster: Cluster) -> None:
    assert listed(cluster) == []
    with in_doubt_at_p1(cluster, decided=False) as attempt:
        members = [
            cluster_file.Member(name, "coordinator" if name == COORDINATOR else "participant", process.address, 1, "")
            for name, process in cluster.processes.items()
        ]
        cluster_file.write(cluster.folder, members)
        at_p1, whole, nowhere = at_once(
            lambda: listed(cluster, "--participant-address", cluster["p1"].address),
            lambda: troth(cluster, "in-doubt", "--json", "--cluster", str(cluster.folder)),
            lambda: troth(cluster, "in-doubt"),
        )
        (found,) = at_p1
        assert (found["participant"], found["id"], found["attempt"]) == ("p1", str(attempt), str(attempt))
        assert found["locked"] == ["accounts/alice"]
        assert found["age_s"] >= 0
        assert [peer["participant"] for peer in found["peers"]] == ["p2"]
        # Not all could be asked: that is said, and what is known is still printed.
        assert whole.returncode == 1
        assert "p2 cannot be asked" in whole.stderr
        assert [each["id"] for each in objects(whole.stdout)] == [str(attempt)]
        assert nowhere.returncode == 2
        cluster.start("p2")
    cluster.wait_settled(within_s=10)  # p2 had not voted: it refuses, and p1 hears that (rule 6).
    assert balances(cluster) == [100, 100]
    cluster.start(COORDINATOR)
    cluster.wait_lanes()
    assert listed(cluster) == []


def test_who_waits_for_a_branch_in_doubt_is_listed_with_it(cluster: Cluster) -> None:
    cluster.pause("p2")
    first = submitting(cluster, transfer())
    wait_in_doubt(cluster, "p1")
    second = submitting(cluster, Transaction("order-18").at("p1").update("accounts", "alice", {"balance": 1}))

    def at_p1() -> list[dict[str, Any]]:
        found = troth_here(cluster, "in-doubt", "--json", "--participant-address", cluster["p1"].address)
        return objects(found.stdout)

    eventually(lambda: len(at_p1()[0]["waiting"]) == 1, "order-18 waits")
    (found,) = at_p1()
    assert found["id"] == "order-17"
    cluster.resume("p2")
    assert {first.result().outcome, second.result().outcome} == {Outcome.COMMITTED}


def test_resolve_asks_for_an_attempt_and_for_confirmation_and_names_what_is_not_in_doubt(cluster: Cluster) -> None:
    with in_doubt_at_p1(cluster, decided=False) as attempt:
        by_id, unconfirmed, other, wrong = at_once(
            lambda: by_hand(cluster, "order-17", "commit", "--yes"),
            lambda: by_hand(cluster, attempt, "commit"),
            lambda: by_hand(cluster, AttemptId(attempt.log, attempt.number + 1), "commit", "--yes"),
            lambda: by_hand(cluster, attempt, "commit", "--yes", participant="p2"),
        )
        assert (by_id.returncode, "give the attempt as `troth in-doubt` prints it" in by_id.stderr) == (2, True)
        assert (unconfirmed.returncode, "not confirmed, so nothing was changed" in unconfirmed.stderr) == (1, True)
        assert (other.returncode, "has no branch of" in other.stderr) == (1, True)
        assert (wrong.returncode, "is p1, not p2" in wrong.stderr) == (2, True)
        assert cluster.in_doubt("p1") == 1
        assert balances(cluster)[0] == 100


def test_a_resolution_that_the_truth_contradicts_raises_an_alarm_at_the_participant(cluster: Cluster) -> None:
    """Resolved as COMMITTED, and the coordinator never decided: presumed abort."""
    with in_doubt_at_p1(cluster, decided=False) as attempt:
        done = by_hand(cluster, attempt, "commit", "--yes")
        assert done.returncode == 0, done.stderr
        assert balances(cluster)[0] == 40
        for _ in range(2):  # It goes on asking, without locks, also after a restart.
            (found,) = in_doubt(cluster, "p1")
            assert (found.attempt.number, int(found.heuristic)) == (attempt.number, int(Outcome.COMMITTED))
            assert list(found.locked) == []
            cluster.kill("p1")
            cluster.start("p1")
        again = by_hand(cluster, attempt, "abort", "--yes")
        assert (again.returncode, "only a branch in doubt can be resolved" in again.stderr) == (1, True)
    cluster.start(COORDINATOR, "p2")
    cluster.wait_lanes()
    eventually(lambda: cluster.counters("p1")["p1"].alarms == 1, "an alarm")
    assert f"rule 12: {attempt} was resolved by hand as COMMITTED here and is ABORTED: torn" in cluster.log("p1")
    assert f"ALARM: rule 12: {attempt}" in troth(cluster, "status").stderr
    cluster.restart("p1")
    cluster.wait_lanes()
    assert f"ALARM: rule 12: {attempt}" in troth(cluster, "status").stderr, "what is torn is said at each start again"
    cluster.wait_settled()
    assert audit(cluster, "p1") == [
        ("resolved by hand as COMMITTED", "disk lost"),
        ("the true outcome is ABORTED", ""),
    ]
    # An ABORT is not acknowledged, so the coordinator keeps nothing; work goes on.
    assert unresolved(cluster) == []
    committed(cluster, Transaction().at("p1").add("accounts", "alice", "balance", -40))


@pytest.mark.parametrize("outcome", [Outcome.COMMITTED, Outcome.ABORTED])
def test_a_heuristic_acknowledgement_is_kept_until_a_person_clears_it(cluster: Cluster, outcome: Outcome) -> None:
    with in_doubt_at_p1(cluster, decided=True) as attempt:
        word = "commit" if outcome is Outcome.COMMITTED else "abort"
        assert by_hand(cluster, attempt, word, "--yes").returncode == 0
    cluster.start(COORDINATOR, "p2")
    cluster.wait_lanes()
    cluster.wait_settled()
    eventually(lambda: unresolved(cluster) == [("p1", "heuristic")], "the acknowledgement is recorded")
    alarms = {name: counters.alarms for name, counters in cluster.counters(COORDINATOR, "p1").items()}
    assert alarms == dict.fromkeys(alarms, 0 if outcome is Outcome.COMMITTED else 1)
    assert balances(cluster) == [40 if outcome is Outcome.COMMITTED else 100, 160]
    cluster.kill(COORDINATOR)
    cluster.start(COORDINATOR)
    cluster.wait_lanes()
    assert unresolved(cluster) == [("p1", "heuristic")]
    (shown,) = objects(troth(cluster, "get", "order-17", "--json").stdout)
    assert (shown["state"], shown["heuristics"]) == ("COMMITTED", [f"p1: {outcome.name}"])
    assert submit(cluster, transfer()).outcome is Outcome.COMMITTED
    clearing = ("clear", "order-17", "--participant", "p1", "--reason", "paid by hand")
    assert troth(cluster, *clearing).returncode == 1  # Not confirmed.
    found = troth(cluster, *clearing, "--yes")
    assert found.returncode == 0, found.stderr
    assert troth(cluster, *clearing, "--yes").returncode == 1
    assert unresolved(cluster) == []
    cluster.kill(COORDINATOR)
    cluster.start(COORDINATOR)
    assert unresolved(cluster) == []


def test_resolve_refuses_what_contradicts_a_known_decision(cluster: Cluster) -> None:
    """The coordinator is back elsewhere and cannot reach p1, which asks at the old place: only a person knows both."""
    with in_doubt_at_p1(cluster, decided=True):
        elsewhere, nowhere = (f"127.0.0.1:{port}" for port in addresses.free_ports(2))
        command = cluster[COORDINATOR].command
        old = command[command.index("--listen") + 1]
        command[command.index("--listen") + 1] = elsewhere
        command[command.index(f"p1={cluster['p1'].address}")] = f"p1={nowhere}"
        cluster.start(COORDINATOR)
        there = ("--coordinator", elsewhere, "--yes")
        refused = by_hand(cluster, "order-17", "abort", *there)
        assert (refused.returncode, "is COMMITTED by the coordinator's log, not ABORTED" in refused.stderr) == (1, True)
        assert cluster.in_doubt("p1") == 1
        assert by_hand(cluster, "order-17", "commit", *there).returncode == 0
        assert balances(cluster) == [40, 160]
        assert [branch.heuristic for branch in in_doubt(cluster, "p1")] == [int(Outcome.COMMITTED)]
        cluster.kill(COORDINATOR)
        command[command.index("--listen") + 1] = old
        command[command.index(f"p1={nowhere}")] = f"p1={cluster['p1'].address}"
    cluster.start(COORDINATOR, "p2")
    cluster.wait_lanes()
    cluster.wait_settled()
    assert cluster.counters("p1")["p1"].alarms == 0
