"""The auditor on real processes: whatever is killed whenever, files never contradict; healed, they are clean."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults.auditor import Audit, audit
from tests.audited import NAMES, copy
from tests.cluster import COORDINATOR, Cluster, eventually
from tests.moves import wait_ended
from tests.submitting import committed, request, troth
from tests.test_heuristics_processes import by_hand, in_doubt_at_p1, unresolved
from troth.log import restore
from troth.operations import Transaction

SCHEMA = """
CREATE TABLE accounts (name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0)) STRICT;
CREATE TABLE entries (n INTEGER PRIMARY KEY NOT NULL, amount REAL) STRICT;
"""
ACCOUNTS = 4
ROUNDS = 2

NewCluster = Callable[..., Cluster]


def clean(found: Audit) -> None:
    assert found.exit_code == 0, "\n".join(found.lines())


def transaction(chance: random.Random, n: int) -> Transaction:
    """Of one, two or three participants, some of them read only; some must abort; half with an id that has no time."""
    first, second, third = chance.sample(NAMES, 3)
    account, amount = f"account{chance.randrange(ACCOUNTS)}", chance.choice([1, 5, 500])
    made = Transaction(f"job-{n}" if chance.random() < 0.5 else None).at(first)
    made.add("accounts", account, "balance", -amount)
    if chance.random() < 0.7:
        made.at(second).upsert("accounts", account, {"balance": amount}).insert("entries", n, {"amount": amount / 4})
    if chance.random() < 0.3:
        made.at(third).delete("entries", n - 5) if chance.random() < 0.3 else made.at(third).read("accounts", account)
    return made


def load(cluster: Cluster, chance: random.Random, first: int) -> list[Any]:
    """Calls under way, for a moment."""
    until = time.monotonic() + chance.uniform(0.2, 0.8)
    calls: list[Any] = []
    while time.monotonic() < until:
        for _ in range(10):
            message = request(
                transaction(chance, first + len(calls)), wait_applied=False, assigned=chance.random() < 0.3
            )
            calls.append(cluster.commands.Submit.future(message, timeout=30))
        time.sleep(0.02)
    return calls


def test_killed_at_any_moment_nothing_contradicts_and_healed_it_is_clean(new_cluster: NewCluster) -> None:
    """Half of the runs let answers expire at once: what is legally gone proves nothing."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    kept = chance.choice(["7d", "1s"])
    settings = {"TROTH_COORDINATOR_ANSWERS_KEPT": kept, "TROTH_COORDINATOR_EXPIRE_INTERVAL": "200ms"}
    n = 0
    with new_cluster(3, schema=SCHEMA, history=True, env=settings) as cluster:
        open_accounts(cluster)
        for _ in range(ROUNDS):
            calls = load(cluster, chance, n)
            n += len(calls)
            for name in chance.sample(sorted(cluster.processes), len(cluster.processes)):
                cluster.kill(name)
                time.sleep(chance.choice([0, 0.1]))
            found = audit([cluster.folder])
            assert found.exit_code in (0, 5), "\n".join(found.lines())
            assert sum(found.outcomes.values()) > 0
            cluster.start(*cluster.processes)
            cluster.wait_lanes()
        wait_ended(cluster)
        not_while_they_run(cluster)
        cluster.stop(*cluster.processes)
        found = audit([cluster.folder])
        clean(found)
        assert all(file.rows.startswith("all agree") for file in found.files if file.role == "participant"), found.files


def open_accounts(cluster: Cluster) -> None:
    opened = Transaction("opening")
    for name in NAMES:
        for account in range(ACCOUNTS):
            opened.at(name).insert("accounts", f"account{account}", {"balance": 1000})
    committed(cluster, opened)


def not_while_they_run(cluster: Cluster) -> None:
    """Files of running processes are refused, and nothing happens to these."""
    found = audit([cluster.folder])
    assert (found.exit_code, len(found.unreadable), len(found.files)) == (2, 4, 0)
    assert f"is in use by process {cluster['p1'].pid}" in "".join(found.unreadable)
    committed(cluster, Transaction().at("p1").add("accounts", "account0", "balance", 1))
    wait_ended(cluster)


# What a person did.


@pytest.fixture
def cluster(new_cluster: NewCluster) -> Any:
    with new_cluster(2, schema=SCHEMA) as found:
        opened = Transaction().at("p1").insert("accounts", "alice", {"balance": 100})
        committed(found, opened.at("p2").insert("accounts", "bob", {"balance": 100}))
        yield found


def frozen(cluster: Cluster) -> Audit:
    """The audit of a copy that is made while all processes are stopped in the middle of whatever they do."""
    running = [name for name, process in cluster.processes.items() if process.running]
    cluster.pause(*running)
    folder = copy(cluster.folder, cluster.folder / f"copy{time.monotonic_ns()}")
    cluster.resume(*running)
    return audit([folder])


def only(found: Audit) -> str:
    """The one contradiction."""
    (finding,) = found.contradictions
    return f"{finding.rule} {finding.kind}"


def test_resolved_by_hand_against_a_presumed_abort_is_torn_before_and_after_it_is_learned(cluster: Cluster) -> None:
    with in_doubt_at_p1(cluster, decided=False) as attempt:
        assert by_hand(cluster, attempt, "commit", "--yes").returncode == 0
        cluster.stop("p1")
        assert only(audit([cluster.folder])) == "rule 12 torn-by-hand"
        alone = audit([cluster["p1"].data])
        assert [finding.kind for finding in alone.in_doubt] == ["by-hand"], "nobody else is asked"
    cluster.start(COORDINATOR, "p1", "p2")
    cluster.wait_lanes()
    cluster.wait_settled()
    assert only(frozen(cluster)) == "rule 12 torn-by-hand"


def test_a_torn_branch_that_a_person_has_cleared_contradicts_no_more(cluster: Cluster) -> None:
    with in_doubt_at_p1(cluster, decided=True) as attempt:
        assert by_hand(cluster, attempt, "abort", "--yes").returncode == 0
    cluster.start(COORDINATOR, "p2")
    cluster.wait_lanes()
    eventually(lambda: unresolved(cluster) == [("p1", "heuristic")], "the acknowledgement is recorded")
    assert only(frozen(cluster)) == "rule 12 torn-by-hand"
    clearing = ("clear", str(attempt), "--participant", "p1", "--reason", "paid by hand", "--yes")
    assert troth(cluster, *clearing).returncode == 0
    clean(frozen(cluster))


# Put back from a copy.


def test_a_folder_that_was_restored_is_clean_and_stays_so(cluster: Cluster, tmp_path: Path) -> None:
    cluster.stop(*cluster.processes)
    backup = copy(cluster.folder, tmp_path / "backup")
    cluster.start(*cluster.processes)
    committed(cluster, Transaction("later").at("p1").add("accounts", "alice", "balance", -1))
    cluster.stop(*cluster.processes)
    put_back(cluster, backup, *cluster.processes)
    clean(audit([cluster.folder]))
    cluster.start(*cluster.processes)
    cluster.wait_lanes()
    moved = Transaction("again").at("p1").add("accounts", "alice", "balance", -2)
    committed(cluster, moved.at("p2").add("accounts", "bob", "balance", 2))
    clean(frozen(cluster))


def test_a_participant_restored_alone_has_lost_what_the_others_have(cluster: Cluster, tmp_path: Path) -> None:
    cluster.stop(*cluster.processes)
    backup = copy(cluster.folder, tmp_path / "backup")
    cluster.start(*cluster.processes)
    moved = Transaction("later").at("p1").add("accounts", "alice", "balance", -2)
    committed(cluster, moved.at("p2").add("accounts", "bob", "balance", 2))
    cluster.stop(*cluster.processes)
    put_back(cluster, backup, "p1")
    found = audit([cluster.folder])
    assert only(found) == "rule 2 lost"
    assert "p1.db was restored from a copy since" in found.contradictions[0].sentence


def put_back(cluster: Cluster, backup: Path, *names: str) -> None:
    """As README says."""
    for name in names:
        path = cluster[name].data
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        shutil.copy2(backup / path.name, path)
        restore(path)
