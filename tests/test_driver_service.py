"""What the coordinator's services do by themselves: content digests, batches of results, slow clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import grpc.aio
import pytest

from coordinator import service
from coordinator.events import Entry, Owed
from tests.driving import add, insert, read, submission
from troth.reasons import reason
from troth.v1 import coordinator_pb2, types_pb2
from troth.v1.coordinator_pb2 import State, SubmitRequest, SubmitResult
from troth.v1.types_pb2 import Code
from troth.words import AttemptId, Outcome

LOG = "0123456789abcdef"


def digest(request: SubmitRequest) -> bytes:
    return service.submission_of(request).digest


def test_rule_11_the_digest_is_of_who_does_what_and_of_nothing_else() -> None:
    both = submission({"p1": [insert("a", 1)], "p2": [read("b", 1)]})
    turned = submission({"p2": [read("b", 1)], "p1": [insert("a", 1)]}, timeout_s=99, wait_applied=True, tag=5, id="x")
    assert digest(both) == digest(turned)
    assert len(digest(both)) == 16


@pytest.mark.parametrize(
    "other",
    [
        submission({"p1": [insert("a", 2)], "p2": [read("b", 1)]}),
        submission({"p1": [insert("a", 1)], "p3": [read("b", 1)]}),
        submission({"p1": [insert("a", 1)]}),
        submission({"p1": [insert("a", 1), insert("c", 1)], "p2": [read("b", 1)]}),
    ],
)
def test_rule_11_other_content_has_another_digest(other: SubmitRequest) -> None:
    assert digest(submission({"p1": [insert("a", 1)], "p2": [read("b", 1)]})) != digest(other)


def test_a_branch_is_read_only_when_all_it_does_is_check_and_read() -> None:
    check = types_pb2.Operation(table="t", check=types_pb2.Check(exists=True))
    looks = types_pb2.Operation(custom=types_pb2.Custom(name="look", read_only=True))
    does = types_pb2.Operation(custom=types_pb2.Custom(name="do"))
    counts = types_pb2.Operation(sql=types_pb2.Sql(statement="SELECT count(*) AS n FROM t", read_only=True))
    empties = types_pb2.Operation(sql=types_pb2.Sql(statement="DELETE FROM t"))
    asked = {"a": [check], "b": [check, read("x"), looks], "c": [read("x"), add("x", 1)], "d": [does]}
    branches = service.submission_of(submission({**asked, "e": [check, counts], "f": [counts, empties]})).branches
    assert [(b.participant, b.read_only, b.reads) for b in branches] == [
        ("a", True, False),
        ("b", True, True),
        ("c", False, True),
        ("d", False, False),
        ("e", True, True),
        ("f", False, True),
    ]


def test_results_go_in_few_messages_below_the_cap() -> None:
    results = [SubmitResult(id="x" * 400, tag=tag) for tag in range(10)] + [SubmitResult(id="y" * 2000, tag=10)]
    batches = list(service.in_batches(results, limit=1000))
    assert [[result.tag for result in batch.results] for batch in batches] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
        [8, 9],
        [10],
    ]
    assert list(service.in_batches([])) == []


def test_a_watcher_that_is_too_far_behind_gets_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WATCHED_MAX", 2)
    watcher = service.Watcher()
    for n in range(2):
        watcher.offer(coordinator_pb2.Transaction(id=str(n)))
    assert not watcher.behind
    watcher.offer(coordinator_pb2.Transaction(id="2"))
    assert watcher.behind
    assert len(watcher.outcomes) == 2


def test_what_only_the_log_holds_is_shown_by_its_state() -> None:
    owed = Entry(3, None, b"", Outcome.COMMITTED, (Owed("p1", "f", True),), 0, False, None, 5.0, None, ())
    shown = service.entry_message(owed, LOG)
    assert (shown.id, shown.state, list(shown.participants)) == (
        str(AttemptId(LOG, 3)),
        State.STATE_COMMITTING,
        ["p1"],
    )
    ended = owed._replace(id="x", ended_at=6.0, heuristics=(("p1", Outcome.ABORTED),))
    shown = service.entry_message(ended, LOG)
    assert (shown.id, shown.state, list(shown.heuristics)) == ("x", State.STATE_COMMITTED, ["p1: ABORTED"])
    why = reason(Code.CODE_UNIQUE, "taken")
    aborted = ended._replace(state=Outcome.ABORTED, reason=why)
    assert service.entry_message(aborted, LOG).reason == why
    assert service.entry_message(owed._replace(state=None), LOG).state == State.STATE_PENDING


def test_an_assigned_id_is_looked_up_by_number_and_any_other_by_itself() -> None:
    attempt = AttemptId(LOG, 5 << 40 | 7)
    assert service.key_of(str(attempt), LOG) == attempt.number
    assert service.key_of(str(attempt), "fedcba9876543210") == str(attempt)
    assert service.key_of("order-17", LOG) == "order-17"
    assert service.key_of("troth:x", LOG) == "troth:x"


# A stream of submissions.


class Client:
    """The other end of a SubmitMany call: what it has sent, and what was written to it."""

    def __init__(self, batches: Iterable[coordinator_pb2.SubmitBatch]) -> None:
        self._batches = iter(batches)
        self.read_so_far = 0
        self.written: list[int] = []
        self.may_write = asyncio.Event()
        self.idle = asyncio.Event()

    async def read(self) -> object:
        await asyncio.sleep(0)
        batch = next(self._batches, None)
        if batch is None:
            self.idle.set()
            return grpc.aio.EOF
        self.read_so_far += 1
        return batch

    async def write(self, results: coordinator_pb2.SubmitResults) -> None:
        await self.may_write.wait()
        self.written += [result.tag for result in results.results]


class Echo:
    """Answers at once, or when told."""

    def __init__(self, at_once: bool) -> None:
        self.at_once = at_once
        self.kept: list[Callable[[], None]] = []

    def submit(self, requests: Iterable[SubmitRequest], deliver: Callable[[SubmitResult], None]) -> None:
        for request in requests:
            answer = SubmitResult(tag=request.tag)
            if self.at_once:
                deliver(answer)
            else:
                self.kept.append(lambda answer=answer: deliver(answer))  # type: ignore[misc]


def batch(*tags: int) -> coordinator_pb2.SubmitBatch:
    return coordinator_pb2.SubmitBatch(submissions=[SubmitRequest(tag=tag) for tag in tags])


def stream(commands: Any, client: Any) -> service.SubmitStream:
    return service.SubmitStream(commands, client)


def test_a_stream_ends_only_when_every_result_is_written() -> None:
    async def work() -> None:
        client, commands = Client([batch(1, 2), batch(3)]), Echo(at_once=False)
        client.may_write.set()
        running = asyncio.create_task(stream(commands, client).run())
        await client.idle.wait()
        for answer in reversed(commands.kept):
            assert not running.done()
            answer()
        await running
        assert client.written == [3, 2, 1]

    asyncio.run(work())


def test_a_stream_without_submissions_ends() -> None:
    async def work() -> None:
        await stream(Echo(at_once=True), Client([])).run()

    asyncio.run(work())


def test_a_client_that_reads_no_results_is_not_read_from_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RESULTS_WAITING_MAX", 10)

    async def work() -> None:
        client = Client(batch(*range(n, n + 4)) for n in range(0, 400, 4))
        running = asyncio.create_task(stream(Echo(at_once=True), client).run())
        for _ in range(1000):
            await asyncio.sleep(0)
        assert client.read_so_far < 10
        client.may_write.set()
        await running
        assert client.written == list(range(400))

    asyncio.run(work())
