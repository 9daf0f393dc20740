"""Transactions of the crash and fault tests on real processes: accounts, and money moved between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from tests.cluster import COORDINATOR, Cluster, eventually
from tests.driving import SCHEMA, add, insert, read, submission
from troth.v1 import coordinator_pb2, participant_pb2, types_pb2
from troth.v1.coordinator_pb2 import SubmitRequest
from troth.words import Outcome

__all__ = ["SCHEMA", "add", "insert", "read", "submission"]

NewCluster = Callable[..., Cluster]

SOON = {
    "TROTH_PARTICIPANT_INQUIRY_AFTER": "100ms",
    "TROTH_PARTICIPANT_INQUIRY_MAX": "100ms",
    "TROTH_PARTICIPANT_ASK_PEERS_AFTER": "200ms",
    "TROTH_PARTICIPANT_FORGET_INTERVAL": "1h",
    "TROTH_COORDINATOR_RETRY_FIRST": "10ms",
    "TROTH_COORDINATOR_RETRY_MAX": "200ms",
}
"""Settings with which nothing that is asked or sent again is long in coming, and logs are written for transactions
only."""


def submitting(cluster: Cluster, request: SubmitRequest, within_s: float = 30.0) -> Any:
    """Submits in the background; `result()` gives the result, or raises when the connection breaks."""
    return cluster.commands.Submit.future(request, timeout=within_s, wait_for_ready=True)


def submit(cluster: Cluster, request: SubmitRequest, within_s: float = 30.0) -> Any:
    """The SubmitResult, whose numbers are those of `troth.words`."""
    return submitting(cluster, request, within_s).result()


def committed(cluster: Cluster, request: SubmitRequest) -> Any:
    result = submit(cluster, request)
    assert result.outcome == Outcome.COMMITTED, result
    return result


def move(amount: int = 30, *, id: str = "", **fields: Any) -> SubmitRequest:
    """From alice at p1 to bob at p2."""
    return submission({"p1": [add("alice", -amount)], "p2": [add("bob", amount, 1)]}, id=id, **fields)


def open_accounts(cluster: Cluster) -> None:
    """Alice has 100 at p1, bob 100 at p2."""
    committed(cluster, submission({"p1": [insert("alice", 100)], "p2": [insert("bob", 100, 1)]}, wait_applied=True))


def flush(cluster: Cluster, name: str) -> None:
    """Makes everything durable that the process has queued so far: what only looks is answered behind it."""
    if name == COORDINATOR:
        state(cluster, "nobody's")
    else:
        nobody = participant_pb2.ReadRowRequest(table="accounts", key=[types_pb2.Value(text="nobody")])
        cluster.participant(name).ReadRow(nobody, timeout=10, wait_for_ready=True)


def balance(cluster: Cluster, participant: str, name: str) -> int | None:
    """What is committed now; None without a row."""
    rows = cluster.data(participant, f"SELECT balance FROM accounts WHERE name = '{name}'")
    return rows[0][0] if rows else None


def balances(cluster: Cluster) -> tuple[int | None, int | None]:
    """Of alice at p1 and bob at p2."""
    return balance(cluster, "p1", "alice"), balance(cluster, "p2", "bob")


def wait_balances(cluster: Cluster, alice: int, bob: int) -> None:
    eventually(lambda: balances(cluster) == (alice, bob), f"alice {alice}, bob {bob}")


def wait_in_doubt(cluster: Cluster, participant: str, count: int = 1) -> None:
    eventually(lambda: cluster.in_doubt(participant) == count, f"{count} in doubt at {participant}")


def wait_voted(cluster: Cluster, *participants: str) -> None:
    """Until each has voted YES on the one transaction in flight, and the coordinator has its vote."""
    for name in participants:
        wait_in_doubt(cluster, name)

    def voted() -> bool:
        request = coordinator_pb2.ListRequest(in_flight=True)
        (transaction,) = cluster.queries.List(request, timeout=10, wait_for_ready=True).transactions
        return not set(participants) & set(transaction.waiting_for)

    eventually(voted, f"votes of {participants}")


def doubt(cluster: Cluster, participant: str) -> list[participant_pb2.InDoubt]:
    request = participant_pb2.InDoubtRequest()
    return list(cluster.participant(participant).InDoubt(request, timeout=10, wait_for_ready=True).branches)


def locks(cluster: Cluster, participant: str) -> list[str]:
    """The names locked or waited for."""
    reply = cluster.participant(participant).Locks(participant_pb2.LocksRequest(), timeout=10, wait_for_ready=True)
    return [lock.name for lock in reply.locks]


def alarms(cluster: Cluster, name: str) -> list[str]:
    return list(cluster.status(name).alarms)


def state(cluster: Cluster, id: str) -> int:
    """What `get` says of an id."""
    request = coordinator_pb2.GetRequest(id=id)
    return int(cluster.queries.Get(request, timeout=10, wait_for_ready=True).state)


def unresolved(cluster: Cluster) -> list[coordinator_pb2.Unresolved]:
    request = coordinator_pb2.UnresolvedRequest()
    return list(cluster.queries.Unresolved(request, timeout=10, wait_for_ready=True).unresolved)


def lanes(cluster: Cluster) -> dict[str, bool]:
    """Whether they are open, as the coordinator sees them."""
    status = cluster.queries.Status(coordinator_pb2.StatusRequest(), timeout=10, wait_for_ready=True)
    return {lane.participant: lane.open for lane in status.lanes}


def wait_ended(cluster: Cluster) -> None:
    """Until nothing is open or owed at the coordinator, or in doubt at a participant that runs."""

    def ended() -> bool:
        status = cluster.status(COORDINATOR)
        assert isinstance(status, coordinator_pb2.CoordinatorStatus)
        running = [name for name in cluster.participants if cluster[name].running]
        return status.in_flight == status.unresolved == 0 and cluster.in_doubt(*running) == 0 if running else True

    eventually(ended, "everything ended")


def broken(call: Any) -> grpc.StatusCode:
    """Waits for a call to end by the loss of its connection; what the client library calls UNKNOWN."""
    error = call.exception()
    assert isinstance(error, grpc.RpcError), error
    return error.code()


def attempt(log: str, number: int) -> types_pb2.Attempt:
    return types_pb2.Attempt(log=log, number=number)
