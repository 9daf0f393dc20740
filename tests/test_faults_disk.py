"""A full disk and a failing sync, during prepare, decision and commit: nothing is told, the process stops with a clear
word, and the next life has the whole truth (DESIGN section 4: a failed commit is unknown, not no)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.conformance.scripted import ScriptedParticipant
from tests.cluster import COORDINATOR, Cluster, Ended, eventually, strace
from tests.injection import injected, wal_of
from tests.moves import (
    SCHEMA,
    SOON,
    NewCluster,
    add,
    alarms,
    balance,
    balances,
    broken,
    committed,
    flush,
    insert,
    locks,
    move,
    open_accounts,
    state,
    submission,
    submit,
    submitting,
    wait_balances,
    wait_ended,
    wait_in_doubt,
)
from tests.submitting import command
from tests.test_up import running, troth_up
from troth.messages import Acknowledged, Commit
from troth.process import EXIT_LOG_FAILED
from troth.v1.coordinator_pb2 import STATE_NOT_FOUND
from troth.words import Outcome

pytestmark = pytest.mark.needs_strace

FULL = "pwrite64:error=ENOSPC:when=1+"
FULL_IN_THE_MIDDLE = "pwrite64:error=ENOSPC:when=3+"
"""The first frame of the transaction is written and its end is not."""
SYNC_FAILS = "fdatasync:error=EIO:when=1"

FAULTS = pytest.mark.parametrize(
    "fault", [FULL, FULL_IN_THE_MIDDLE, SYNC_FAILS], ids=["full", "full in the middle", "sync fails"]
)


@contextmanager
def failing(cluster: Cluster, name: str, fault: str) -> Iterator[None]:
    """The next record of that process meets the fault; it ends of it, saying what file it is about."""
    flush(cluster, name)
    with injected(cluster[name].pid, fault, paths=[wal_of(cluster[name].data)]):
        yield
        assert cluster[name].wait() == EXIT_LOG_FAILED
    said = cluster.log(name).splitlines()[-1]
    what = "disk I/O error" if fault is SYNC_FAILS else "no space left on the disk"
    assert said.startswith(f"troth: {cluster[name].data}: ")
    assert what in said
    assert "unknown until the file is opened again" in said


@contextmanager
def holding_p2(new_cluster: NewCluster) -> Iterator[tuple[Cluster, ScriptedParticipant]]:
    """Alice has 100 at p1; p2 is scripted, so the transaction stands still where a test wants."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        yield cluster, p2


@FAULTS
def test_during_prepare_it_does_not_vote(new_cluster: NewCluster, fault: str) -> None:
    """The attempt ends with the lane (rule 4) and the next one commits, in the next life; nothing is torn."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        votes = cluster.counters(COORDINATOR)[COORDINATOR].received["vote"]
        with failing(cluster, "p1", fault):
            waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        assert cluster.counters(COORDINATOR)[COORDINATOR].received["vote"] - votes <= 1, "only p2's"
        cluster.start("p1")
        assert waiting.result().outcome == Outcome.COMMITTED
        wait_balances(cluster, 70, 130)
        wait_ended(cluster)
        assert locks(cluster, "p1") == []
        assert alarms(cluster, "p1") == alarms(cluster, COORDINATOR) == []


@FAULTS
def test_during_the_decision_nobody_hears_of_it(new_cluster: NewCluster, fault: str) -> None:
    """What was not written is presumed aborted and the id runs again; what was written and not synced is committed."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        wait_ended(cluster)
        with failing(cluster, COORDINATOR, fault):
            waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        broken(waiting)
        assert balances(cluster) == (100, 100)
        cluster.start(COORDINATOR)
        cluster.wait_settled()
        if fault is SYNC_FAILS:
            wait_balances(cluster, 70, 130)
        else:
            assert balances(cluster) == (100, 100)
            assert state(cluster, "order-1") == STATE_NOT_FOUND
        assert submit(cluster, move(id="order-1")).outcome == Outcome.COMMITTED
        wait_balances(cluster, 70, 130)
        wait_ended(cluster)
        assert alarms(cluster, "p1") == alarms(cluster, "p2") == []


@FAULTS
def test_during_a_commit_it_is_owed_until_the_participant_is_back(new_cluster: NewCluster, fault: str) -> None:
    """Rule 5; the word that was given is kept."""
    with holding_p2(new_cluster) as (cluster, p2):
        waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        prepare = p2.take_prepare()
        wait_in_doubt(cluster, "p1")
        with failing(cluster, "p1", fault):
            p2.vote(prepare)
        assert waiting.result().outcome == Outcome.COMMITTED
        p2.send(Acknowledged(p2.inbox.take(Commit).number))
        cluster.start("p1")
        wait_ended(cluster)
        assert balance(cluster, "p1", "alice") == 70


@FAULTS
@pytest.mark.parametrize("id", ["order-1", ""], ids=["chosen", "assigned"])
def test_during_a_one_phase_commit_the_next_life_has_the_answer(new_cluster: NewCluster, fault: str, id: str) -> None:
    """Rule 13: what was not written is refused and run again, what was is committed; once either way."""
    with new_cluster(participants=1, schema=SCHEMA, env=SOON) as cluster:
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        with failing(cluster, "p1", fault):
            waiting = submitting(cluster, submission({"p1": [add("alice", -30)]}, id=id, timeout_s=20))
        cluster.start("p1")
        result = waiting.result()
        assert (result.outcome, result.attempts) == (Outcome.COMMITTED, 1 if fault is SYNC_FAILS else 2)
        assert balance(cluster, "p1", "alice") == 70


@FAULTS
def test_while_an_abort_for_good_is_written_the_client_does_not_hear_it(new_cluster: NewCluster, fault: str) -> None:
    """Rule 11: an ABORTED is durable before a client hears it."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        wait_ended(cluster)
        with failing(cluster, COORDINATOR, fault):
            waiting = submitting(cluster, move(1000, id="order-1", timeout_s=20))
        broken(waiting)
        cluster.start(COORDINATOR)
        assert submit(cluster, move(1000, id="order-1")).outcome == Outcome.ABORTED
        cluster.wait_settled()
        assert balances(cluster) == (100, 100)


def test_a_full_disk_at_the_checkpoint_of_the_start_is_said_and_nothing_is_served(new_cluster: NewCluster) -> None:
    """DESIGN section 4: nothing is believed before it is on disk; the next start, with space, has everything."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        wait_ended(cluster)
        cluster.kill("p1")
        with pytest.raises(Ended) as ended:
            cluster.start("p1", wrapper=[*strace(FULL), "-P", str(cluster["p1"].data)])
        assert ended.value.code == EXIT_LOG_FAILED
        said = ended.value.log.splitlines()[-1]
        assert said.startswith(f"troth: {cluster['p1'].data}: no space left on the disk")
        cluster.start("p1")
        cluster.wait_lanes()
        committed(cluster, move(wait_applied=True))
        assert balances(cluster) == (70, 130)


def test_under_up_it_is_tried_again_with_growing_pauses_and_serves_once_there_is_space(tmp_path: Path) -> None:
    """The issue's "backoff, serves again once there is space": nobody restarts anything by hand."""
    schema = tmp_path / "schema.sql"
    schema.write_text(SCHEMA)
    data = tmp_path / "data"
    with running(tmp_path, troth_up(data, "--participants", "2", "--port", "0", "--schema", str(schema))) as up:
        coordinator = up.wait_line("ready: coordinator at ").rpartition(" ")[2]
        up.folder = data

        def submit_line(*operations: str, id: str) -> list[str]:
            texts = [argument for text in operations for argument in ("-o", text)]
            return command("submit", *texts, "--id", id, "--coordinator", coordinator, "--timeout", "30s")

        first = submit_line("p1: insert accounts/alice balance:=100", "p2: insert accounts/bob balance:=100", id="a")
        assert run(first) == 0
        files = [data / "p1.db", wal_of(data / "p1.db")]
        with injected(up.popen.pid, FULL, paths=files), injected(up.pids()["p1"], FULL, paths=files):
            second = start(submit_line("p1: add accounts/alice balance -30", "p2: add accounts/bob balance 30", id="b"))
            pauses = [up.wait_line("p1: ended with exit code 70") for _ in range(3)]
            assert all("no space left on the disk" in line for line in pauses)
            waits = [float(re.findall(r"starting again in ([\d.]+) s", line)[0]) for line in pauses]
            assert waits == sorted(set(waits)), "each longer than the one before"
            assert second.poll() is None, "the transaction waits for the participant"
        up.wait_line("p1: serving on")
        assert second.wait(30) == 0
        again = submit_line("p1: add accounts/alice balance -30", "p2: add accounts/bob balance 30", id="b")
        assert run(again) == 0
        held = Cluster(tmp_path / "reader", participants=2)
        for name in ("p1", "p2"):
            held[name].data = data / f"{name}.db"
        eventually(lambda: balances(held) == (70, 130))


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL)


def run(arguments: list[str]) -> int:
    return start(arguments).wait(60)
