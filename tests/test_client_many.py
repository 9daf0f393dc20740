"""`submit_many`: every transaction taken from the source is answered once, whatever happens to the stream."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

import troth
from tests.fake_coordinator import FakeCoordinator, Lost, aborted, committed, coordinator, refused, unknown
from troth.client import many
from troth.client.results import Result
from troth.errors import Unreachable
from troth.operations import Transaction
from troth.v1.coordinator_pb2 import SubmitRequest, SubmitResult
from troth.words import Outcome


def one(id: str) -> Transaction:
    return Transaction(id).at("p1").add("t", id, "n", 1)


def some(count: int) -> list[Transaction]:
    return [one(f"t{n}") for n in range(count)]


def results(fake: FakeCoordinator, source: Any, wait_s: float = 5.0, **options: Any) -> list[Result]:
    async def main() -> list[Result]:
        async with troth.connect(fake.address, wait_s=wait_s) as client:
            return [result async for result in client.submit_many(source, **options)]

    return asyncio.run(main())


def test_every_result_comes_once_with_its_id() -> None:
    scripts = [committed, aborted, refused]

    def script(request: SubmitRequest) -> SubmitResult:
        return scripts[int(request.id[1:]) % 3](request)

    with coordinator() as fake:
        fake.script = script
        found = results(fake, some(300))
    assert Counter(result.id for result in found) == Counter(f"t{n}" for n in range(300))
    assert Counter(result.outcome for result in found) == {
        Outcome.COMMITTED: 100,
        Outcome.ABORTED: 100,
        Outcome.REFUSED: 100,
    }
    assert all(result.outcome is list(Outcome)[int(result.id[1:]) % 3] for result in found)
    assert all(result.id == f"t{result.position}" for result in found)
    assert fake.streams == 1


def test_an_async_source_is_taken_as_well() -> None:
    async def source() -> AsyncIterator[Transaction]:
        for transaction in some(5):
            await asyncio.sleep(0)
            yield transaction

    with coordinator() as fake:
        assert len(results(fake, source())) == 5


def test_an_empty_source_gives_nothing_and_opens_no_stream() -> None:
    with coordinator() as fake:
        assert results(fake, []) == []
    assert fake.streams == 0


def test_no_more_are_open_than_told() -> None:
    taken, most = 0, 0
    answered: list[Result] = []

    def source() -> Iterator[Transaction]:
        nonlocal taken, most
        for transaction in some(50):
            taken += 1
            most = max(most, taken - len(answered))
            yield transaction

    async def main(fake: FakeCoordinator) -> None:
        async with troth.connect(fake.address) as client:
            async for result in client.submit_many(source(), in_flight=4):
                answered.append(result)

    with coordinator() as fake:
        asyncio.run(main(fake))
    assert len(answered) == 50
    assert most <= 5  # The one that was answered last is counted when its successor was taken already.


def test_what_cannot_be_sent_is_a_refused_result() -> None:
    empty, large = Transaction("empty"), Transaction("large").at("p").insert("t", 1, {"b": bytes(4 << 20)})
    with coordinator() as fake:
        found = {result.id: result for result in results(fake, [empty, large, one("good")])}
    assert {id: (result.outcome, result.code) for id, result in found.items()} == {
        "empty": (Outcome.REFUSED, "bad_request"),
        "large": (Outcome.REFUSED, "too_large"),
        "good": (Outcome.COMMITTED, ""),
    }
    assert {id: result.position for id, result in found.items()} == {"empty": 0, "large": 1, "good": 2}
    assert [request.id for request in fake.seen] == ["good"]


def test_batches_stay_below_their_bytes() -> None:
    with coordinator() as fake:
        source = [Transaction(f"t{n}").at("p").insert("t", n, {"b": bytes(700 << 10)}) for n in range(12)]
        assert len(results(fake, source)) == 12


def test_what_is_open_when_the_connection_is_lost_is_unknown_and_the_rest_goes_on() -> None:
    def script(request: SubmitRequest) -> SubmitResult:
        if request.id == "t7":
            raise Lost
        return committed(request)

    with coordinator() as fake:
        fake.script = script
        found = results(fake, some(40), in_flight=4)
    outcomes = {result.id: result.outcome for result in found}
    assert len(found) == len(outcomes) == 40
    assert outcomes["t7"] is Outcome.UNKNOWN
    lost = [result for result in found if result.outcome is Outcome.UNKNOWN]
    assert len(lost) <= 4
    assert all(result.reason is not None and "connection was lost" in result.reason.message for result in lost)
    assert fake.streams == 2


def test_what_was_lost_is_asked_again_with_the_same_id_when_told_to() -> None:
    lost: list[str] = []

    def script(request: SubmitRequest) -> SubmitResult:
        if request.id in ("t3", "t9") and request.id not in lost:
            lost.append(request.id)
            raise Lost
        return committed(request)

    with coordinator() as fake:
        fake.script = script
        found = results(fake, some(20), in_flight=4, ask_again_s=30)
    assert Counter(result.outcome for result in found) == {Outcome.COMMITTED: 20}
    assert Counter(request.id for request in fake.seen)["t3"] >= 2


def test_an_unknown_answer_is_asked_again_when_told_to() -> None:
    asked: Counter[str] = Counter()

    def script(request: SubmitRequest) -> SubmitResult:
        asked[request.id] += 1
        return committed(request) if asked[request.id] > 1 else unknown(request)

    with coordinator() as fake:
        fake.script = script
        assert [result.outcome for result in results(fake, [one("x")])] == [Outcome.UNKNOWN]
        asked.clear()
        assert [result.outcome for result in results(fake, [one("x")], ask_again_s=30)] == [Outcome.COMMITTED]


def test_what_is_never_answered_is_unknown_after_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "GRACE_S", 0.0)
    with coordinator() as fake:
        fake.script = lambda request: None if request.id == "silent" else committed(request)
        source = [Transaction("silent", timeout_s=0.05).at("p").read("t", 1), one("x")]
        found = {result.id: result for result in results(fake, source)}
    assert found["x"].outcome is Outcome.COMMITTED
    silent = found["silent"]
    assert silent.outcome is Outcome.UNKNOWN
    assert silent.reason is not None
    assert "no answer came" in silent.reason.message


def test_a_coordinator_that_stays_away_leaves_the_rest_unsent() -> None:
    found: list[Result] = []
    stopped = threading.Event()

    async def main() -> None:
        with coordinator() as fake:
            opening = troth.connect(fake.address, wait_s=0.3)
            client = await opening.__aenter__()

            def script(request: SubmitRequest) -> SubmitResult | None:
                if request.id == "t5":
                    stopped.set()
                    return None
                return committed(request)

            fake.script = script
            stream = client.submit_many(some(1000), in_flight=4)
            while not stopped.is_set():
                found.append(await anext(stream))
        try:
            async for result in stream:
                found.append(result)
        finally:
            await opening.__aexit__(None, None, None)

    with pytest.raises(Unreachable, match="no connection"):
        asyncio.run(main())
    outcomes = Counter(result.outcome for result in found)
    assert outcomes[Outcome.UNKNOWN] >= 1
    assert len(found) == len({result.id for result in found}) < 1000


def test_a_coordinator_that_comes_back_answers_what_was_open() -> None:
    async def main() -> list[Result]:
        found = []
        with coordinator() as fake:
            address = fake.address
            opening = troth.connect(address, wait_s=10)
            client = await opening.__aenter__()
            fake.script = lambda request: None if request.id == "t3" else committed(request)
            stream = client.submit_many(some(8), in_flight=2, ask_again_s=30)
            while not any(request.id == "t3" for request in fake.seen):
                found.append(await anext(stream))
        with coordinator(address):
            found += [result async for result in stream]
            await opening.__aexit__(None, None, None)
        return found

    assert Counter(result.outcome for result in asyncio.run(main())) == {Outcome.COMMITTED: 8}


def test_an_error_of_the_source_is_raised_after_what_it_gave_is_answered() -> None:
    def source() -> Iterator[Transaction]:
        yield from some(3)
        raise RuntimeError("the file ended early")

    found = []

    async def main(fake: FakeCoordinator) -> None:
        async with troth.connect(fake.address) as client:
            async for result in client.submit_many(source()):
                found.append(result)

    with coordinator() as fake, pytest.raises(RuntimeError, match="ended early"):
        asyncio.run(main(fake))
    assert len(found) == 3


def test_stopping_early_leaves_nothing_running() -> None:
    async def main(fake: FakeCoordinator) -> list[str]:
        async with troth.connect(fake.address) as client:
            stream = client.submit_many(some(100), in_flight=4)
            async for _ in stream:
                break
            await stream.aclose()
            return [str(task.get_coro()) for task in asyncio.all_tasks() - {asyncio.current_task()}]

    with coordinator() as fake:
        assert [task for task in asyncio.run(main(fake)) if "troth" in task] == []


def test_the_source_is_an_iterable() -> None:
    source: Iterable[Transaction] = (transaction for transaction in some(3))
    with coordinator() as fake:
        assert len(results(fake, source)) == 3
