"""The asyncio client against a scripted coordinator: what each outcome raises, and what a broken call means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

import troth
from tests.fake_coordinator import (
    FakeCoordinator,
    Lost,
    aborted,
    committed,
    coordinator,
    participant,
    refused,
    unknown,
)
from troth import client as clients
from troth.client import Client
from troth.client.channel import Connection
from troth.client.results import Result
from troth.errors import (
    Aborted,
    BadInput,
    Contradiction,
    OutcomeUnknown,
    Refused,
    ServerError,
    TrothError,
    Unreachable,
)
from troth.operations import Transaction
from troth.process.addresses import free_ports
from troth.v1 import coordinator_pb2 as pb
from troth.v1.coordinator_pb2 import SubmitRequest, SubmitResult
from troth.v1.types_pb2 import Code, Value
from troth.words import Answer, AttemptId, Outcome

WAIT_S = 0.3
"""Nothing in these tests comes back after a while, so nothing is waited for long."""


def transfer(id: str | None = None) -> Transaction:
    return (
        Transaction(id).at("p1").add("accounts", "alice", "balance", -1).at("p2").add("accounts", "bob", "balance", 1)
    )


def against(fake: FakeCoordinator, use: Callable[[Client], Awaitable[Any]], wait_s: float = 5.0) -> Any:
    """What `use` returns with a client of the fake."""

    async def main() -> Any:
        async with troth.connect(fake.address, wait_s=wait_s) as client:
            return await use(client)

    return asyncio.run(main())


# The public face.


def test_the_public_face_has_what_it_names() -> None:
    assert all(getattr(troth, name) is not None for name in troth.__all__)
    assert troth.Client is Client
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        troth.nothing  # noqa: B018


def test_errors_are_one_shallow_tree() -> None:
    children = {Aborted, BadInput, Contradiction, OutcomeUnknown, Refused, ServerError}
    assert children <= set(TrothError.__subclasses__())
    assert ServerError.__subclasses__() == [Unreachable]


# Submitting one.


def test_a_commit_is_returned_with_its_rows_as_python_values() -> None:
    with coordinator() as fake:
        transaction = Transaction().at("p1").read("accounts", "alice").read("accounts", "nobody")
        result = against(fake, lambda client: client.submit(transaction))
    assert (result.id, result.outcome) == (transaction.id, Outcome.COMMITTED)
    alice, nobody = result.rows
    assert (alice.participant, alice.table, alice.key, alice["balance"]) == ("p1", "accounts", ("alice",), 100)
    assert (nobody.position, nobody.present, nobody.values) == (1, False, None)
    with pytest.raises(KeyError, match="no such row"):
        nobody["balance"]


def test_an_abort_raises_with_its_reason() -> None:
    with coordinator() as fake:
        fake.script = aborted
        with pytest.raises(Aborted, match="x is ABORTED: balance would be -100") as caught:
            against(fake, lambda client: client.submit(transfer("x")))
    assert (caught.value.id, caught.value.reason.code, caught.value.result.code) == (
        "x",
        Code.CODE_BELOW_MIN,
        "below_min",
    )


def test_a_refusal_raises_with_its_reason() -> None:
    with coordinator() as fake:
        fake.script = refused
        with pytest.raises(Refused, match="the id is taken by other content"):
            against(fake, lambda client: client.submit(transfer()))


def test_unknown_is_neither_and_names_the_id() -> None:
    with coordinator() as fake:
        fake.script = unknown
        with pytest.raises(OutcomeUnknown, match="the outcome of x is not known") as caught:
            against(fake, lambda client: client.submit(transfer("x")))
    assert caught.value.sent


def test_an_outcome_that_this_client_does_not_know_is_unknown() -> None:
    assert Result.of(SubmitResult(id="x", outcome=9)).outcome is Outcome.UNKNOWN  # type: ignore[arg-type]


def test_a_lost_connection_is_unknown_and_the_same_id_gives_the_truth() -> None:
    with coordinator() as fake:
        fake.script = _lost_once(committed)
        transaction = transfer()

        async def use(client: Client) -> Result:
            with pytest.raises(OutcomeUnknown, match=f"{transaction.id} is not known: .*UNAVAILABLE"):
                await client.submit(transaction)
            return await client.submit(transaction)

        assert against(fake, use).outcome is Outcome.COMMITTED
    assert [request.id for request in fake.seen] == [transaction.id, transaction.id]


def test_submit_asks_again_with_the_same_id_when_told_to() -> None:
    with coordinator() as fake:
        fake.script = _lost_once(committed)
        result = against(fake, lambda client: client.submit(transfer(), ask_again_s=30))
    assert result.outcome is Outcome.COMMITTED
    assert fake.seen[0].id == fake.seen[1].id


def _lost_once(then: Callable[[SubmitRequest], SubmitResult]) -> Callable[[SubmitRequest], SubmitResult]:
    lost = []

    def script(request: SubmitRequest) -> SubmitResult:
        if not lost:
            lost.append(request)
            raise Lost
        return then(request)

    return script


def test_a_coordinator_that_never_answers_is_unknown_after_timeout_and_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "GRACE_S", 0.05)
    with coordinator() as fake:
        fake.script = lambda request: None
        transaction = Transaction(timeout_s=0.05).at("p1").read("t", 1)
        with pytest.raises(OutcomeUnknown, match="DEADLINE_EXCEEDED"):
            against(fake, lambda client: client.submit(transaction))


def test_a_coordinator_that_went_away_before_the_call_was_not_sent_anything() -> None:
    async def main() -> OutcomeUnknown:
        with coordinator() as fake:
            opening = troth.connect(fake.address, wait_s=WAIT_S)
            client = await opening.__aenter__()
        try:
            while True:  # The first may still find the old connection open.
                try:
                    await client.submit(transfer())
                except OutcomeUnknown as error:
                    if not error.sent:
                        return error
        finally:
            await opening.__aexit__(None, None, None)

    error = asyncio.run(main())
    assert not error.sent
    assert "it was not sent now" in str(error)


def test_connecting_to_nobody_is_unreachable() -> None:
    async def main() -> None:
        async with troth.connect(f"127.0.0.1:{free_ports(1)[0]}", wait_s=WAIT_S):
            raise AssertionError("connected")

    with pytest.raises(Unreachable, match=r"no connection to 127.0.0.1:\d+ within 0.3 s"):
        asyncio.run(main())


def test_a_cancel_that_comes_as_the_connection_stands_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a program that is told to stop at that moment goes on."""

    async def main() -> None:
        stands: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def standing() -> None:
            await asyncio.shield(stands)

        channel = Connection(f"127.0.0.1:{free_ports(1)[0]}", wait_s=5.0)
        monkeypatch.setattr(channel.channel, "channel_ready", standing)
        waiting = asyncio.create_task(channel.ready())
        await asyncio.sleep(0.01)
        stands.set_result(None)
        await asyncio.sleep(0)  # what was waited for is done; who waits has not gone on yet
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await channel.close()

    asyncio.run(main())


def test_a_bad_address_is_bad_input() -> None:
    async def main() -> None:
        async with troth.connect("nowhere"):
            raise AssertionError("connected")

    with pytest.raises(BadInput, match="is not an address"):
        asyncio.run(main())


def test_a_process_that_takes_no_submissions_is_not_an_unknown_outcome() -> None:
    async def main(address: str) -> None:
        async with troth.connect(address) as client:
            with pytest.raises(ServerError, match="does not serve this call"):
                await client.submit(transfer())
            with suppress(ServerError):  # Or UNKNOWN: gRPC sometimes tells that a write failed and not why.
                assert (await anext(client.submit_many([transfer()]))).outcome is Outcome.UNKNOWN

    with participant() as fake:
        asyncio.run(main(fake.address))


def test_a_transaction_that_is_too_large_is_refused_here() -> None:
    with coordinator() as fake:
        large = Transaction("x").at("p1").insert("t", 1, {"blob": b"\0" * (4 << 20)})
        with pytest.raises(Refused, match="at most 4128768 can be sent") as caught:
            against(fake, lambda client: client.submit(large))
    assert caught.value.reason.code == Code.CODE_TOO_LARGE
    assert not fake.seen


def test_a_transaction_of_almost_4_mib_is_sent() -> None:
    with coordinator() as fake:
        large = Transaction("x").at("p1").insert("t", 1, {"blob": bytes((4 << 20) - (128 << 10))})
        assert against(fake, lambda client: client.submit(large)).outcome is Outcome.COMMITTED


def test_a_transaction_without_a_timeout_gets_the_clients() -> None:
    with coordinator() as fake:
        against(fake, lambda client: client.submit(transfer()))
        against(fake, lambda client: client.submit(Transaction(timeout_s=2).at("p1").read("t", 1), wait_applied=True))
    assert [request.timeout_s for request in fake.seen] == [30.0, 2.0]
    assert [request.wait_applied for request in fake.seen] == [False, True]


# Commands and queries.


def test_abort_returns_the_true_outcome_and_raises_what_is_not_one() -> None:
    with coordinator() as fake:
        assert against(fake, lambda client: client.abort("x")).outcome is Outcome.COMMITTED
        fake.script = aborted
        assert against(fake, lambda client: client.abort("x")).outcome is Outcome.ABORTED
        fake.script = unknown
        with pytest.raises(OutcomeUnknown):
            against(fake, lambda client: client.abort("x"))


def test_wait_returns_when_there_is_an_outcome() -> None:
    states = [pb.STATE_PENDING, pb.STATE_PENDING, pb.STATE_COMMITTING, pb.STATE_COMMITTED]
    with coordinator() as fake:
        fake.transactions["x"] = [pb.Transaction(id="x", state=state) for state in states]
        assert against(fake, lambda client: client.wait("x")).state == pb.STATE_COMMITTING
        assert against(fake, lambda client: client.wait("x", applied=True)).state == pb.STATE_COMMITTED
        assert against(fake, lambda client: client.wait("y")).state == pb.STATE_NOT_FOUND


def test_wait_gives_up_as_unknown() -> None:
    with coordinator() as fake:
        fake.transactions["x"] = [pb.Transaction(id="x", state=pb.STATE_PENDING)]
        with pytest.raises(OutcomeUnknown, match=r"not finished after 0.1 s"):
            against(fake, lambda client: client.wait("x", timeout_s=0.1))


def test_queries_give_the_messages() -> None:
    attempt = AttemptId("c" * 16, 5)

    async def use(client: Client) -> None:
        assert [found.id for found in await client.list(in_flight=True)] == ["x"]
        assert [found.id async for found in client.watch()] == ["x"]
        assert [found.kind for found in await client.unresolved()] == ["heuristic"]
        assert (await client.status()).serving
        assert await client.outcome(attempt) is Answer.NONE
        assert (await client.read("p1", "accounts", "alice"))["balance"] == 100

    with coordinator() as fake:
        fake.transactions["x"] = [pb.Transaction(id="x", state=pb.STATE_ABORTED)]
        fake.unresolved = [pb.Unresolved(id="x", kind="heuristic")]
        against(fake, use)
    assert fake.calls[0] == pb.ListRequest(in_flight=True)


def test_resolving_against_a_known_decision_is_a_contradiction() -> None:
    async def use(client: Client) -> None:
        assert await client.resolve("x", "p1", Outcome.ABORTED, "why") == "done at the coordinator"
        assert await client.clear("x", "p1", "why") == "done at the coordinator"
        with pytest.raises(Contradiction, match="known is COMMITTED"):
            await client.resolve("known", "p1", Outcome.ABORTED, "why")

    with coordinator() as fake:
        against(fake, use)
    assert [call.clear for call in fake.calls] == [False, True, False]
    assert fake.calls[0].outcome == Outcome.ABORTED


def test_the_participants_client_asks_and_tells() -> None:
    attempt = AttemptId("c" * 16, 5)

    async def main(address: str) -> None:
        async with troth.connect_participant(address) as client:
            assert await client.in_doubt() == []
            assert await client.locks() == []
            assert await client.tables() == []
            assert (await client.status()).participant == "p1"
            assert not (await client.read_row("accounts", "x")).present
            with pytest.raises(BadInput, match="no table nowhere"):
                await client.read_row("nowhere", 1)
            assert await client.resolve(attempt, Outcome.COMMITTED, "why") == "done at the participant"
            assert await client.create_table("t", [], [])

    with participant() as fake:
        asyncio.run(main(fake.address))
    assert (fake.calls[0].attempt.number, fake.calls[0].outcome, fake.calls[0].reason) == (5, Outcome.COMMITTED, "why")


def test_every_call_of_the_services_is_in_a_client() -> None:
    from troth.v1 import coordinator_pb2, participant_pb2

    offered = {
        method.name
        for service in (
            *coordinator_pb2.DESCRIPTOR.services_by_name.values(),
            *participant_pb2.DESCRIPTOR.services_by_name.values(),
        )
        for method in service.methods
        if service.name not in ("Lanes", "Branches", "Inquiries")  # What processes say to each other.
    }
    known = {name.replace("_", "") for name in [*dir(Client), *dir(troth.ParticipantClient)]}
    assert {name for name in offered if name.lower() not in known} == set()


def test_a_value_that_is_null_reads_as_none() -> None:
    row = troth.Row.of(
        troth.v1.types_pb2.Row(present=True, values=[troth.v1.types_pb2.Column(name="a", value=Value(null=True))])
    )
    assert row["a"] is None
