"""The helper that every fault test stands on does what it says, and processes refuse what they must."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.cluster import COORDINATOR, Cluster, Ended, eventually, faketime, strace
from troth.process import EXIT_HELD, EXIT_REFUSED
from troth.v1 import coordinator_pb2, participant_pb2, types_pb2

SCHEMA = "CREATE TABLE accounts (name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0)) STRICT;"

NewCluster = Callable[..., Cluster]


def insert(name: str, balance: int) -> types_pb2.Operations:
    values = [types_pb2.Column(name="balance", value=types_pb2.Value(integer=balance))]
    operation = types_pb2.Operation(
        table="accounts", key=[types_pb2.Value(text=name)], insert=types_pb2.Insert(values=values)
    )
    return types_pb2.Operations(operations=[operation])


def submit(cluster: Cluster, name: str, timeout_s: float = 10) -> coordinator_pb2.SubmitResult:
    """A row of that name at every participant, or at none; answered once all have applied, or after `timeout_s`."""
    branches = [types_pb2.Branch(participant=at, operations=insert(name, 100)) for at in cluster.participants]
    request = coordinator_pb2.SubmitRequest(branches=branches, wait_applied=True, timeout_s=timeout_s)
    return cluster.commands.Submit(request, timeout=20 + timeout_s)  # type: ignore[no-any-return]


def committed(cluster: Cluster, name: str) -> None:
    result = submit(cluster, name)
    assert result.outcome == types_pb2.OUTCOME_COMMITTED, result
    for at in cluster.participants:
        assert cluster.rows(at, "SELECT balance FROM accounts WHERE name = ?", name) == [(100,)]


def test_killed_and_stopped_processes_come_back_at_their_addresses(new_cluster: NewCluster) -> None:
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        committed(cluster, "alice")
        cluster.kill("p1", COORDINATOR)
        cluster.start("p1", COORDINATOR)
        cluster.wait_lanes()
        committed(cluster, "bob")
        assert cluster.stop(*cluster.processes) == [0, 0, 0]
        assert cluster.rows("p1", "SELECT name FROM accounts ORDER BY name") == [("alice",), ("bob",)]


def test_a_paused_process_is_silent_until_it_is_resumed(new_cluster: NewCluster) -> None:
    with new_cluster(participants=1, schema=SCHEMA) as cluster:
        cluster.pause("p1")
        with pytest.raises(grpc.RpcError):
            cluster.participant("p1").Tables(participant_pb2.TablesRequest(), timeout=0.2)
        cluster.resume("p1")
        assert cluster.status("p1").serving


def test_counters_are_those_of_the_processes(new_cluster: NewCluster) -> None:
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        before = cluster.counters()
        committed(cluster, "alice")
        after = cluster.counters()
        assert after[COORDINATOR].forced - before[COORDINATOR].forced == 1
        assert [after[name].forced - before[name].forced for name in ("p1", "p2")] == [2, 2]


def test_a_second_process_on_the_same_file_is_refused_by_the_pid_of_the_first(new_cluster: NewCluster) -> None:
    with new_cluster(participants=1, schema=SCHEMA) as cluster:
        first = cluster["p1"]
        holder, first.popen = first.popen, None
        assert holder is not None
        first.command[first.command.index("--listen") + 1] = "127.0.0.1:0"
        with pytest.raises(Ended) as ended:
            cluster.start("p1")
        assert ended.value.code == EXIT_HELD
        assert str(holder.pid) in ended.value.log.splitlines()[-1]
        first.popen = holder


def test_a_file_of_another_participant_is_refused(new_cluster: NewCluster) -> None:
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        cluster.stop("p1", "p2")
        cluster["p1"].command[cluster["p1"].command.index("--data") + 1] = str(cluster["p2"].data)
        with pytest.raises(Ended) as ended:
            cluster.start("p1")
        assert ended.value.code == EXIT_REFUSED


@pytest.mark.needs_strace
def test_a_wrapper_injects_faults_into_one_life(new_cluster: NewCluster, tmp_path: Path) -> None:
    """Killed exactly at a flush, in the middle of work; the next life has the whole truth."""
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        cluster.stop("p1")
        cluster.start("p1", wrapper=strace("fdatasync:signal=SIGKILL:when=10"))
        cluster.wait_lanes()
        for n in range(10):
            submit(cluster, f"name{n}", timeout_s=0.5)
        assert cluster["p1"].wait() == -signal.SIGKILL
        cluster.start("p1")
        cluster.wait_settled()
        names = "SELECT name FROM accounts ORDER BY name"
        eventually(lambda: cluster.rows("p1", names) == cluster.rows("p2", names), "the same rows at both")


@pytest.mark.needs_faketime
def test_a_wall_clock_that_jumps_does_not_end_a_transaction(
    new_cluster: NewCluster, tmp_path: Path, faketime_library: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    with new_cluster(participants=2, schema=SCHEMA, env=faketime(faketime_library, clock)) as cluster:
        for name, offset in (("alice", "+2h"), ("bob", "-2h")):
            clock.write_text(offset)
            committed(cluster, name)
