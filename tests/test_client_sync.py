"""`troth.sync`: the same client without await."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.fake_coordinator import aborted, coordinator
from troth import sync
from troth.client import Client
from troth.errors import Aborted, Unreachable
from troth.operations import Transaction
from troth.process.addresses import free_ports
from troth.v1 import coordinator_pb2 as pb
from troth.words import Outcome


def some(count: int) -> list[Transaction]:
    return [Transaction(f"t{n}").at("p1").add("t", n, "n", 1) for n in range(count)]


def test_it_has_every_method_of_the_asyncio_client_for_applications() -> None:
    missing = {name for name in dir(Client) if not name.startswith("_")} - set(dir(sync.Client))
    assert missing == {"outcome"}  # A question that participants ask.


def test_one_transaction_is_submitted_and_read() -> None:
    with coordinator() as fake, sync.connect(fake.address) as client:
        assert client.submit(some(1)[0]).outcome is Outcome.COMMITTED
        assert client.read("p1", "accounts", "alice")["balance"] == 100
        fake.script = aborted
        with pytest.raises(Aborted, match="balance would be"):
            client.submit(some(1)[0])
        assert client.abort("x").outcome is Outcome.ABORTED


def test_queries_work_as_in_the_asyncio_client() -> None:
    with coordinator() as fake, sync.connect(fake.address) as client:
        fake.transactions["x"] = [pb.Transaction(id="x", state=pb.STATE_COMMITTED)]
        assert client.get("x").state == pb.STATE_COMMITTED
        assert client.wait("x", timeout_s=5).state == pb.STATE_COMMITTED
        assert [found.id for found in client.list()] == ["x"]
        assert [found.id for found in client.watch()] == ["x"]
        assert client.unresolved() == []
        assert client.status().serving
        assert client.resolve("x", "p1", Outcome.ABORTED, "why") == "done at the coordinator"
        assert client.clear("x", "p1", "why") == "done at the coordinator"
        assert client.address == fake.address


def test_many_are_answered_and_the_source_is_read_in_the_callers_thread() -> None:
    threads = set()

    def source() -> Iterator[Transaction]:
        for transaction in some(200):
            threads.add(threading.current_thread())
            yield transaction

    with coordinator() as fake, sync.connect(fake.address) as client:
        found = list(client.submit_many(source(), in_flight=16))
    assert sorted(result.id for result in found) == sorted(f"t{n}" for n in range(200))
    assert threads == {threading.current_thread()}


def test_stopping_early_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with coordinator() as fake:
        with sync.connect(fake.address) as client:
            for _ in client.submit_many(some(100), in_flight=8):
                break
        assert not [t for t in set(threading.enumerate()) - before if t.name == "troth client"]


def test_an_error_of_the_source_reaches_its_owner() -> None:
    def source() -> Iterator[Transaction]:
        yield from some(2)
        raise RuntimeError("the file ended early")

    with coordinator() as fake, sync.connect(fake.address) as client, pytest.raises(RuntimeError, match="ended early"):
        list(client.submit_many(source()))


def test_nobody_there_is_unreachable() -> None:
    with (
        pytest.raises(Unreachable),
        sync.connect(f"127.0.0.1:{free_ports(1)[0]}", wait_s=0.2),
    ):
        raise AssertionError("connected")
