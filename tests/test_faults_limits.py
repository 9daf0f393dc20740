"""Limits on real processes: what is too large or too much is refused with a reason, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import grpc
import pytest

from tests.cluster import COORDINATOR, Cluster, eventually
from tests.submitting import (
    cluster_for_module,
    committed,
    objects,
    refused_with,
    submit,
    submitting,
    troth,
)
from troth import operations as op
from troth.ids import new_id
from troth.operations import Transaction
from troth.v1 import coordinator_pb2
from troth.v1.types_pb2 import Operation
from troth.words import Outcome

SCHEMA = "CREATE TABLE accounts (name TEXT PRIMARY KEY NOT NULL, balance INTEGER, note TEXT) STRICT;"

NewCluster = Callable[..., Cluster]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_for_module(tmp_path_factory, participants=2, schema=SCHEMA) as found:
        yield found


def names(cluster: Cluster, at: str) -> set[str]:
    return {name for (name,) in cluster.rows(at, "SELECT name FROM accounts")}


def heard(cluster: Cluster) -> list[int]:
    """What the coordinator has heard of so far."""
    status = cluster.status(COORDINATOR)
    assert isinstance(status, coordinator_pb2.CoordinatorStatus)
    return [status.in_flight, status.committed, status.aborted, status.refused]


def account(name: str, *, note: str = "") -> Operation:
    return op.insert("accounts", name, {"balance": 0, "note": note})


def line(id: str, note: str) -> str:
    """A transaction of a file."""
    insert = {"table": "accounts", "key": id, "values": {"balance": 1, "note": note}}
    return json.dumps({"id": id, "operations": [{"participant": "p1", "insert": insert}]})


# Too large, too many.

MIB = 1024 * 1024


def test_a_transaction_above_4_mib_is_refused_by_the_client_and_nothing_is_sent(cluster: Cluster) -> None:
    before, ids = heard(cluster), [new_id(), new_id()]
    lines = [line(id, note) for id, note in zip(ids, ("x" * 5 * MIB, "small"), strict=True)]
    found = troth(cluster, "submit", "-", "--json", "--wait", "applied", input="\n".join(lines))
    assert found.returncode == 3
    results = {each["id"]: each for each in objects(found.stdout)}
    assert results[ids[0]]["reason"]["code"] == "too_large"
    assert results[ids[0]]["outcome"] == "REFUSED"
    assert results[ids[1]]["outcome"] == "COMMITTED"
    assert heard(cluster) == [before[0], before[1] + 1, *before[2:]]


@pytest.mark.parametrize("size_mib", [3.5, 5, 15])
def test_a_transaction_above_the_coordinators_own_limit_is_refused_with_a_reason(
    cluster: Cluster, size_mib: float
) -> None:
    """Also above the 4 MiB at which gRPC would refuse it without one."""
    large = Transaction().append("p1", account("large", note="x" * int(size_mib * MIB)))
    assert refused_with(submit(cluster, large)) == ("REFUSED", "too_large")
    assert "large" not in names(cluster, "p1")


def test_a_message_above_the_servers_limit_is_an_error_of_the_call_and_the_coordinator_goes_on(
    cluster: Cluster,
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        submit(cluster, Transaction().append("p1", account("huge", note="x" * 17 * MIB)))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    committed(cluster, Transaction().append("p1", account(new_id())))


def test_a_transaction_just_below_the_limit_commits_at_both_and_is_read_back(cluster: Cluster) -> None:
    id = new_id()
    note = "x" * int(1.4 * MIB)
    both = Transaction().append("p1", account(id, note=note)).append("p2", account(id, note=note))
    committed(cluster, both)
    for at in ("p1", "p2"):
        assert cluster.rows(at, "SELECT length(note) FROM accounts WHERE name = ?", id) == [(len(note),)]
    assert f"note={note}" in troth(cluster, "read", "p1", f"accounts/{id}").stdout


@pytest.mark.parametrize("alone", [True, False])
def test_rows_too_large_for_a_vote_are_no_and_the_lane_stays(cluster: Cluster, alone: bool) -> None:
    """Each row fits, and what one transaction reads of them does not fit into one message."""
    id = new_id()
    keys = [f"{id}-{n}" for n in range(7)]
    for key in keys:
        committed(cluster, Transaction().append("p1", account(key, note="x" * int(1.4 * MIB))))
    before = cluster.log(COORDINATOR)
    reading = Transaction().at("p1").update("accounts", keys[0], {"balance": 5})
    for key in keys:
        reading.read("accounts", key)
    if not alone:
        reading.append("p2", account(id))
    assert refused_with(submit(cluster, reading)) == ("ABORTED", "too_large")
    assert cluster.rows("p1", "SELECT balance FROM accounts WHERE name = ?", keys[0]) == [(0,)]
    assert id not in names(cluster, "p2")
    assert "no lane" not in cluster.log(COORDINATOR).removeprefix(before)


def test_too_many_operations_are_refused(cluster: Cluster) -> None:
    id = new_id()
    many = Transaction()
    for n in range(1001):
        many.append("p1" if n % 2 else "p2", account(f"{id}-{n}"))
    assert refused_with(submit(cluster, many)) == ("REFUSED", "too_large")
    many.operations.pop()
    committed(cluster, many)


# Overload.


def test_above_in_flight_max_a_submission_is_refused_as_overloaded_and_leaves_nothing(new_cluster: NewCluster) -> None:
    """Never queued without end. Rule 10: the id is free afterwards, for any content."""
    flags = {COORDINATOR: ["--in-flight-max", "2"]}
    with new_cluster(participants=2, schema=SCHEMA, flags=flags) as cluster:
        cluster.pause("p2")
        open_ = [submitting(cluster, Transaction().append("p2", account(f"open{n}"))) for n in range(2)]
        eventually(lambda: heard(cluster)[0] == 2, "two open")
        result = submit(cluster, Transaction("third").append("p1", account("third")).append("p2", account("third")))
        assert refused_with(result) == ("REFUSED", "overloaded")
        assert result.reason is not None
        assert result.reason.retryable
        found = troth(cluster, "submit", "-o", "p1: insert accounts/fourth balance:=1", "--json")
        assert (found.returncode, objects(found.stdout)[0]["reason"]["code"]) == (3, "overloaded")
        assert troth(cluster, "get", "third").returncode == 1
        assert not names(cluster, "p1")
        cluster.resume("p2")
        assert [each.result().outcome for each in open_] == 2 * [Outcome.COMMITTED]
        committed(cluster, Transaction("third").append("p1", account("other content")))
        assert names(cluster, "p1") == {"other content"}
        assert cluster.counters(COORDINATOR)[COORDINATOR].alarms == 0
