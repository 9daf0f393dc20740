"""Rules 10 and 11 on real processes: an id is answered the same, whoever asks, however often, across restarts."""

from __future__ import annotations

import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import grpc
import pytest

from tests.cluster import COORDINATOR, Cluster, eventually
from tests.submitting import (
    begun,
    cluster_for_module,
    committed,
    go,
    objects,
    refused_with,
    submit,
    submitting,
    troth,
    troth_here,
    undecided,
    wait_in_doubt,
)
from troth.ids import new_id
from troth.operations import Transaction
from troth.words import AttemptId, Outcome, number_of

SCHEMA = """
CREATE TABLE accounts (name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0)) STRICT;
"""

NewCluster = Callable[..., Cluster]
Started = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_for_module(tmp_path_factory, participants=2, schema=SCHEMA) as found:
        yield found


@pytest.fixture
def name(cluster: Cluster) -> str:
    """An account at both participants, with 100 each."""
    name = new_id()
    opened = Transaction().at("p1").insert("accounts", name, {"balance": 100})
    committed(cluster, opened.at("p2").insert("accounts", name, {"balance": 100}))
    return name


@pytest.fixture
def started(cluster: Cluster) -> Iterator[Started]:
    """Begins commands, which `go` lets go on."""
    commands = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        commands.append(begun(cluster, *arguments))
        return commands[-1]

    yield start
    for each in commands:
        with each:
            each.kill()


def transfer(name: str, id: str | None = None, amount: int = 1) -> Transaction:
    """Run twice, it shows."""
    moved = Transaction(id or new_id()).at("p1").add("accounts", name, "balance", -amount)
    return moved.at("p2").add("accounts", name, "balance", amount)


def alone(name: str, id: str | None = None) -> Transaction:
    """One-phase."""
    return Transaction(id or new_id()).at("p1").add("accounts", name, "balance", -1)


def reading(name: str, id: str | None = None) -> Transaction:
    return Transaction(id or new_id()).at("p1").read("accounts", name).at("p2").read("accounts", name)


def balances(cluster: Cluster, name: str) -> tuple[int, int]:
    """At p1 and p2, as applied."""
    query = "SELECT balance FROM accounts WHERE name = ?"
    return cluster.rows("p1", query, name)[0][0], cluster.rows("p2", query, name)[0][0]


def crash(cluster: Cluster) -> None:
    """The coordinator: killed, and back."""
    cluster.kill(COORDINATOR)
    cluster.start(COORDINATOR)
    cluster.wait_lanes()


# The same id again.


def test_while_open_the_same_submission_joins_and_other_content_is_refused(cluster: Cluster, name: str) -> None:
    first = transfer(name)
    with undecided(cluster, first) as under_way:
        joined = [submitting(cluster, first) for _ in range(3)]
        assert refused_with(submit(cluster, transfer(name, first.id, amount=2))) == ("REFUSED", "id_taken")
        assert not any(each.done for each in (under_way, *joined))
    assert {each.result().outcome for each in (under_way, *joined)} == {Outcome.COMMITTED}
    assert balances(cluster, name) == (99, 101)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("kind", [transfer, alone, reading])
def test_committed_stays_committed_and_runs_once(
    cluster: Cluster, name: str, kind: Callable[..., Transaction], restarted: bool
) -> None:
    """Two-phase, one-phase and read-only alike, before a restart and after it."""
    first = kind(name)
    committed(cluster, first)
    before = balances(cluster, name)
    if restarted:
        crash(cluster)
    again = submit(cluster, first)
    assert again.outcome is Outcome.COMMITTED
    assert again.rows == ()
    assert again.rows_not_kept == (kind is reading)  # Rows read are not kept: a later answer says so.
    other = Transaction(first.id).at("p1").add("accounts", name, "balance", -50)
    assert refused_with(submit(cluster, other)) == ("REFUSED", "id_taken")
    assert balances(cluster, name) == before


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("kind", [transfer, alone, reading])
def test_aborted_stays_aborted_also_when_it_would_commit_now(
    cluster: Cluster, kind: Callable[..., Transaction], restarted: bool
) -> None:
    """A worker that was told ABORTED may have refunded the customer already."""
    name = new_id()
    first = kind(name)
    if kind is reading:
        first.at("p2").check("accounts", name, exists=True)
    result = submit(cluster, first)
    assert result.outcome is Outcome.ABORTED
    opened = Transaction().at("p1").insert("accounts", name, {"balance": 100})
    committed(cluster, opened.at("p2").insert("accounts", name, {"balance": 100}))
    if restarted:
        crash(cluster)
    again = submit(cluster, first)
    assert refused_with(again) == refused_with(result)
    assert again.reason == result.reason
    assert refused_with(submit(cluster, transfer(name, first.id, amount=7))) == ("REFUSED", "id_taken")
    assert balances(cluster, name) == (100, 100)
    committed(cluster, kind(name))


def test_content_is_who_does_what_and_not_the_order_of_branches_nor_the_timeout(cluster: Cluster, name: str) -> None:
    first = transfer(name)
    committed(cluster, first)
    turned = Transaction(first.id, timeout_s=3)
    turned.operations = first.operations[::-1]
    assert submit(cluster, turned, wait_applied=False).outcome is Outcome.COMMITTED
    assert balances(cluster, name) == (99, 101)


def test_of_many_at_once_with_one_id_one_content_runs_once(cluster: Cluster, name: str) -> None:
    id = new_id()
    crowd = [(amount, submitting(cluster, transfer(name, id, amount))) for amount in (1, 2, 3) for _ in range(10)]
    results = [(amount, each.result()) for amount, each in crowd]
    (winner,) = {amount for amount, result in results if result.outcome is Outcome.COMMITTED}
    for amount, result in results:
        assert refused_with(result) == (("COMMITTED", "") if amount == winner else ("REFUSED", "id_taken"))
    assert balances(cluster, name) == (100 - winner, 100 + winner)


# Ids that cannot be used.


def test_an_id_in_the_coordinators_own_format_is_refused(cluster: Cluster, name: str) -> None:
    own = str(AttemptId(cluster.status(COORDINATOR).log, number_of(1, 1)))  # type: ignore[union-attr]
    for id in (own, "troth:", "troth:order-17"):
        assert refused_with(submit(cluster, transfer(name, id))) == ("REFUSED", "bad_id")
    found = troth(cluster, "submit", "--id", own, "-o", f"p1: add accounts/{name} balance 1")
    assert found.returncode == 3
    assert balances(cluster, name) == (100, 100)


def test_a_uuid7_below_the_horizon_is_refused_as_expired_and_never_run(new_cluster: NewCluster) -> None:
    """Judged by its time alone. The horizon is kept durably and never goes back, whatever is set later. An id without
    a time is kept after its end."""
    flags = {COORDINATOR: ["--answers-kept", "1h", "--expire-interval", "50ms"]}
    expired, committed = ("REFUSED", "id_expired"), ("COMMITTED", "")
    with new_cluster(participants=1, schema=SCHEMA, flags=flags) as cluster:

        def opened(id: str) -> tuple[str, str]:
            return refused_with(submit(cluster, Transaction(id).at("p1").insert("accounts", id, {"balance": 1})))

        def restart(answers_kept: str) -> None:
            settings = cluster[COORDINATOR].command
            settings[settings.index("--answers-kept") + 1] = answers_kept
            cluster.restart(COORDINATOR)
            cluster.wait_lanes()

        eventually(lambda: opened(aged(minutes=61)) == expired, "the horizon moves")
        assert opened(aged(minutes=50)) == opened(aged(minutes=0)) == opened("order-17") == committed
        restart("30m")
        eventually(lambda: opened(aged(minutes=50)) == expired, "the horizon moves")
        assert opened(aged(minutes=20)) == opened("order-17") == committed
        restart("7d")
        assert opened(aged(minutes=50)) == expired
        assert opened(aged(minutes=20)) == opened("order-17") == committed
        assert troth(cluster, "abort", aged(minutes=50)).returncode == 3


def aged(*, minutes: int) -> str:
    """A UUIDv7 made so long ago."""
    digits = f"{round((time.time() - 60 * minutes) * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}{new_id()[13:]}"


# abort.


@pytest.mark.parametrize("restarted", [False, True])
def test_abort_fences_an_id_that_was_never_heard_of(cluster: Cluster, name: str, restarted: bool) -> None:
    """It matches any content."""
    id = new_id()
    found = troth(cluster, "abort", id)
    assert (found.returncode, found.stdout) == (0, f"ABORTED {id}: aborted_by_request: somebody asked for the abort\n")
    if restarted:
        crash(cluster)
    for kind in (transfer, alone, reading):
        assert refused_with(submit(cluster, kind(name, id))) == ("ABORTED", "aborted_by_request")
    assert troth(cluster, "abort", id).returncode == 0
    assert troth(cluster, "submit", "--id", id, "-o", f"p1: add accounts/{name} balance -1").returncode == 3
    assert balances(cluster, name) == (100, 100)


def test_abort_of_an_id_in_flight_ends_it_everywhere(cluster: Cluster, name: str) -> None:
    first = transfer(name)
    with undecided(cluster, first) as under_way:
        assert troth_here(cluster, "abort", first.id).returncode == 0
        assert refused_with(under_way.result()) == ("ABORTED", "aborted_by_request")
        eventually(lambda: cluster.in_doubt("p1") == 0, "p1 is told")
    cluster.wait_settled()
    assert refused_with(submit(cluster, first)) == ("ABORTED", "aborted_by_request")
    committed(cluster, transfer(name))
    assert balances(cluster, name) == (99, 101)


def test_abort_of_a_committed_id_says_so_and_changes_nothing(cluster: Cluster, name: str) -> None:
    first = transfer(name)
    committed(cluster, first)
    for _ in range(2):
        found = troth(cluster, "abort", first.id, "--json")
        assert found.returncode == 3
        assert objects(found.stdout)[0]["outcome"] == "COMMITTED"
        crash(cluster)
    assert balances(cluster, name) == (99, 101)


def test_abort_of_a_one_phase_transaction_decides_nothing(cluster: Cluster, name: str) -> None:
    """Rule 13: from its submitted record to its answer the id is PENDING."""
    first = alone(name)
    cluster.pause("p1")
    try:
        under_way = submitting(cluster, first)
        eventually(lambda: troth_here(cluster, "abort", first.id).returncode == 4, "it is sent")
        assert troth_here(cluster, "get", first.id).returncode == 4
    finally:
        cluster.resume("p1")
    assert under_way.result().outcome is Outcome.COMMITTED
    assert troth(cluster, "abort", first.id).returncode == 3
    assert balances(cluster, name) == (99, 100)


def test_what_presumed_abort_would_answer_a_client_hears_as_unknown(cluster: Cluster, name: str) -> None:
    """An id that the coordinator assigned to a one-phase commit may have left nothing in the log."""
    one = submit(cluster, alone(name), assigned=True)
    two = submit(cluster, transfer(name), assigned=True)
    assert (one.outcome, two.outcome) == 2 * (Outcome.COMMITTED,)
    assert [troth(cluster, "get", each.id).returncode for each in (one, two)] == [0, 0]
    crash(cluster)
    assert [troth(cluster, "get", each.id).returncode for each in (one, two)] == [1, 0]
    assert [troth(cluster, "abort", each.id).returncode for each in (one, two)] == [4, 3]
    assert balances(cluster, name) == (98, 101)


# The exit codes of what looks.


def test_get_and_show_and_wait_exit_with_the_state(cluster: Cluster, name: str, started: Started) -> None:
    first = transfer(name)
    waiting = started("wait", first.id, "--applied")
    with undecided(cluster, first) as under_way:
        assert troth_here(cluster, "get", first.id).returncode == 4
        assert troth_here(cluster, "wait", first.id, "--timeout", "100ms").returncode == 4
        shown = troth_here(cluster, "show", first.id)
        assert (shown.returncode, shown.stdout.splitlines()[:2]) == (0, [f"PENDING {first.id}", "  waits for p2"])
        listed = objects(troth_here(cluster, "list", "--in-flight", "--json").stdout)
        assert [each["id"] for each in listed] == [first.id]
        go(waiting)
    assert under_way.result().outcome is Outcome.COMMITTED
    assert waiting.communicate(timeout=20)[0].startswith(f"COMMITTED {first.id}")
    assert waiting.returncode == 0
    aborted = submit(cluster, transfer("nobody"))
    for id, code in ((first.id, 0), (aborted.id, 3), (new_id(), 1)):
        assert troth(cluster, "get", id).returncode == code
        assert troth(cluster, "wait", id).returncode == code
    assert troth(cluster, "show", new_id()).returncode == 1
    assert "row_missing at p" in troth(cluster, "show", aborted.id).stdout
    steps = [each["what"] for each in objects(troth(cluster, "show", first.id, "--json").stdout)[0]["steps"]]
    assert steps[0] == "submitted"
    assert steps[-2:] == ["COMMITTED", "everybody has applied"]
    crash(cluster)
    for id, code in ((first.id, 0), (aborted.id, 3)):
        assert troth(cluster, "get", id).returncode == code
        assert troth(cluster, "show", id).returncode == 0
    assert objects(troth(cluster, "show", first.id, "--json").stdout)[0]["state"] == "COMMITTED"


def test_wait_lasts_through_a_restart_of_the_coordinator(cluster: Cluster, name: str, started: Started) -> None:
    first = alone(name)
    cluster.pause("p1")
    try:
        under_way = submitting(cluster, first)
        eventually(lambda: troth_here(cluster, "get", first.id).returncode == 4, "it is pending")
        claimed = f"SELECT count(*) FROM troth_transactions WHERE id = '{first.id}'"
        eventually(lambda: cluster.rows(COORDINATOR, claimed) == [(1,)], "a kill does not take that away")
        waiting = started("wait", first.id)
        go(waiting)
        cluster.kill(COORDINATOR)
        with pytest.raises(grpc.RpcError):
            under_way.result()
        cluster.start(COORDINATOR)
    finally:
        cluster.resume("p1")
    assert waiting.communicate(timeout=20)[0].startswith(f"COMMITTED {first.id}")
    assert waiting.returncode == 0
    assert balances(cluster, name) == (99, 100)


def test_list_is_newest_first(cluster: Cluster, name: str) -> None:
    ids = [committed(cluster, transfer(name)).id for _ in range(3)]
    listed = objects(troth(cluster, "list", "--limit", "3", "--json").stdout)
    assert [(each["id"], each["state"]) for each in listed] == [(id, "COMMITTED") for id in reversed(ids)]


def test_watch_tells_outcomes_until_it_is_interrupted(cluster: Cluster, name: str, started: Started) -> None:
    watching = started("watch", "--json")
    go(watching)
    stdout = watching.stdout
    assert stdout is not None
    sent: set[str] = set()

    def told() -> bool:
        sent.add(committed(cluster, transfer(name)).id)
        return readable(stdout)

    eventually(told, "the first outcome is told")
    (found,) = objects(stdout.readline())
    assert found["id"] in sent
    assert found["state"] in ("COMMITTING", "COMMITTED")
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=20)
    assert watching.returncode == 0


def test_status_exits_0_only_when_all_serve_with_their_lanes(cluster: Cluster) -> None:
    def states() -> tuple[int, dict[str, bool]]:
        found = troth(cluster, "status", "--json")
        return found.returncode, {each["name"]: each["serving"] for each in objects(found.stdout)}

    assert states() == (0, {COORDINATOR: True, "p1": True, "p2": True})
    cluster.kill("p2")
    try:
        assert states() == (1, {COORDINATOR: True, "p1": True, "p2": False})
    finally:
        cluster.start("p2")
        cluster.wait_lanes()
    assert states()[0] == 0


# What a command says when it was cut off.


def test_submit_exits_4_when_the_coordinator_dies_and_again_with_the_truth(
    cluster: Cluster, name: str, started: Started
) -> None:
    id, operations = new_id(), ("-o", f"p1: add accounts/{name} balance -1", "-o", f"p2: add accounts/{name} balance 1")
    cut_off = started("submit", "--id", id, *operations)
    with silent(cluster, "p2"):
        go(cut_off)
        wait_in_doubt(cluster, "p1")
        cluster.kill(COORDINATOR)
        said, complaint = cut_off.communicate(timeout=20)
        assert (cut_off.returncode, said.split(":")[0]) == (4, f"UNKNOWN {id}"), complaint
        cluster.start(COORDINATOR)
    again = troth(cluster, "submit", "--id", id, *operations, "--wait", "applied")
    assert (again.returncode, again.stdout) == (0, f"COMMITTED {id}\n")
    assert balances(cluster, name) == (99, 101)


def test_ctrl_c_stops_sending_and_says_what_is_unknown(cluster: Cluster, name: str, started: Started) -> None:
    id, operations = new_id(), ("-o", f"p1: add accounts/{name} balance -1", "-o", f"p2: add accounts/{name} balance 1")
    interrupted = started("submit", "--id", id, *operations)
    with silent(cluster, "p2"):
        go(interrupted)
        wait_in_doubt(cluster, "p1")
        interrupted.send_signal(signal.SIGINT)
        said, _ = interrupted.communicate(timeout=20)
        assert (interrupted.returncode, said.split(":")[0]) == (4, f"UNKNOWN {id}")
    assert troth(cluster, "wait", id, "--applied").returncode == 0
    assert balances(cluster, name) == (99, 101)


@contextmanager
def silent(cluster: Cluster, name: str) -> Iterator[None]:
    """Stopped meanwhile."""
    cluster.pause(name)
    try:
        yield
    finally:
        cluster.resume(name)


def readable(file: IO[str]) -> bool:
    """Whether there is something to read."""
    return bool(select.select([file], [], [], 0)[0])
