"""Both drivers over real gRPC and SQLite, in one event loop."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator.driver import OwedToUnknown
from coordinator.events import Committed, Owed
from coordinator.log import DecisionLog
from participant import driver as participant_driver
from tests.driving import (
    Cluster,
    add,
    cluster,
    insert,
    read,
    start_coordinator,
    start_participant,
    submission,
)
from troth.driving.lane import PROTOCOL_VERSION
from troth.log import LogHeld, LogRefused
from troth.v1 import coordinator_pb2, participant_pb2, types_pb2
from troth.v1.coordinator_pb2 import State
from troth.v1.types_pb2 import Answer, Code, Vote
from troth.words import AttemptId, Outcome

OTHER_LOG = "00000000deadbeef"


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


def operations(*wanted: types_pb2.Operation) -> types_pb2.Operations:
    return types_pb2.Operations(operations=wanted)


async def until(holds: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Asks again until it holds; the test's own limit ends a vain wait."""
    while not await holds():  # noqa: ASYNC110 - it lives in another process's shoes: there is nothing to await
        await asyncio.sleep(0.01)


async def lane_of(c: Cluster, participant: str) -> coordinator_pb2.LaneStatus:
    status = await c.queries.Status(coordinator_pb2.StatusRequest())
    found: coordinator_pb2.LaneStatus = next(lane for lane in status.lanes if lane.participant == participant)
    return found


async def make_accounts(c: Cluster) -> None:
    made = await c.commands.Submit(
        submission({"p1": [insert("alice", 100)], "p2": [insert("bob", 0)]}, wait_applied=True)
    )
    assert made.outcome == Outcome.COMMITTED, made


# Submissions.


def test_a_commit_is_applied_everywhere_and_an_abort_nowhere(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path) as c:
            made = await c.commands.Submit(
                submission({"p1": [insert("alice", 100)], "p2": [insert("bob", 0)]}, wait_applied=True)
            )
            assert made.outcome == Outcome.COMMITTED, made
            assert made.applied
            moved = await c.commands.Submit(
                submission({"p1": [add("alice", -30)], "p2": [add("bob", 30)]}, wait_applied=True)
            )
            assert moved.outcome == Outcome.COMMITTED, moved
            assert (await c.balance("p1", "alice"), await c.balance("p2", "bob")) == (70, 30)
            failed = await c.commands.Submit(submission({"p1": [add("alice", -100)], "p2": [add("bob", 100)]}))
            assert failed.outcome == Outcome.ABORTED, failed
            assert failed.reason.code == Code.CODE_BELOW_MIN
            assert (await c.balance("p1", "alice"), await c.balance("p2", "bob")) == (70, 30)
            seen = await c.commands.Submit(submission({"p1": [read("alice")], "p2": [read("bob", 1)]}))
            assert seen.outcome == Outcome.COMMITTED, seen
            assert [row.values[1].value.integer for row in sorted(seen.rows, key=lambda r: r.position)] == [70, 30]

    run(work())


def test_an_acknowledgement_goes_with_the_next_vote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both records are one flush then. Nothing waits for it: the client has been answered, the locks are let go."""
    monkeypatch.setattr(participant_driver, "ACKNOWLEDGE_WITHIN_S", 1000.0)

    async def work() -> None:
        async with cluster(tmp_path) as c:
            first = submission({"p1": [insert("alice", 100)], "p2": [insert("bob", 0)]}, id="first")
            assert (await c.commands.Submit(first)).outcome == Outcome.COMMITTED
            applied = asyncio.create_task(_applied(c, "first"))
            await asyncio.sleep(0.1)
            assert not applied.done()
            second = submission({"p1": [add("alice", -30)], "p2": [add("bob", 30)]})
            assert (await c.commands.Submit(second)).outcome == Outcome.COMMITTED
            await applied

    async def _applied(c: Cluster, id: str) -> None:
        async def ended() -> bool:
            return bool((await c.queries.Get(coordinator_pb2.GetRequest(id=id))).ended_at)

        await until(ended)

    run(work())


def test_an_id_submitted_again_gives_the_same_outcome_across_a_restart(tmp_path: Path) -> None:
    """Rule 11."""
    moved = submission({"p1": [insert("alice", 5)], "p2": [insert("bob", 6)]}, id="order-1")
    other = submission({"p1": [insert("carol", 5)], "p2": [insert("bob", 6)]}, id="order-1")

    async def once(again: bool) -> None:
        async with cluster(tmp_path) as c:
            for _ in range(2):
                result = await c.commands.Submit(moved)
                assert result.outcome == Outcome.COMMITTED, result
            refused = await c.commands.Submit(other)
            assert refused.outcome == Outcome.REFUSED, refused
            assert refused.reason.code == Code.CODE_ID_TAKEN
            assert await c.balance("p1", "alice") == 5

    run(once(False))
    run(once(True))


def test_a_stream_answers_every_submission_by_its_tag(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path) as c:
            stream = c.commands.SubmitMany()
            sent = 0
            for _ in range(10):
                batch = coordinator_pb2.SubmitBatch()
                for _ in range(20):
                    sent += 1
                    branches = {"p1": [insert(f"a{sent}", sent)], "p2": [insert(f"b{sent}", sent)]}
                    batch.submissions.append(submission(branches, tag=sent))
                await stream.write(batch)
            await stream.write(coordinator_pb2.SubmitBatch(submissions=[submission({}, tag=999)]))
            await stream.done_writing()
            results = {result.tag: result async for answer in stream for result in answer.results}
            assert set(results) == {*range(1, sent + 1), 999}
            assert results.pop(999).reason.code == Code.CODE_BAD_REQUEST
            assert {result.outcome for result in results.values()} == {Outcome.COMMITTED}
            assert await c.balance("p2", "b200") == 200

    run(work())


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (submission({}), Code.CODE_BAD_REQUEST),
        (submission({"p1": []}), Code.CODE_BAD_REQUEST),
        (submission({"": [read("alice")]}), Code.CODE_BAD_REQUEST),
        (submission({"p1": [types_pb2.Operation(table="accounts")]}), Code.CODE_BAD_REQUEST),
        (submission({"p1": [read("alice")]}, id="tab\there"), Code.CODE_BAD_REQUEST),
        (submission({"p1": [read("alice")]}, id="x" * 201), Code.CODE_BAD_ID),
        (submission({"p1": [read("alice")]}, id="troth:0:1:1"), Code.CODE_BAD_ID),
        (submission({"p1": [read("alice")]}, timeout_s=-1.0), Code.CODE_BAD_REQUEST),
        (submission({"p1": [read("alice")]}, timeout_s=float("nan")), Code.CODE_BAD_REQUEST),
        (submission({"p9": [read("alice")]}), Code.CODE_UNKNOWN_PARTICIPANT),
        (submission({"p1": [insert("x" * 5_000_000, 1)]}), Code.CODE_TOO_LARGE),
    ],
    ids=lambda value: "" if isinstance(value, int) else "request",
)
def test_what_is_malformed_or_too_large_is_refused_with_a_reason(
    tmp_path: Path, request_: coordinator_pb2.SubmitRequest, code: int
) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]) as c:
            result = await c.commands.Submit(request_)
            assert (result.outcome, result.reason.code) == (Outcome.REFUSED, code), result

    run(work())


def test_a_participant_named_twice_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]) as c:
            twice = submission({"p1": [read("alice")]})
            twice.branches.append(twice.branches[0])
            result = await c.commands.Submit(twice)
            assert result.reason.code == Code.CODE_BAD_REQUEST
            assert "two branches" in result.reason.message

    run(work())


def test_a_client_that_goes_away_cuts_nothing(tmp_path: Path) -> None:
    """DESIGN section 4: a handler cancelled by a client's deadline must not cut a decision in half."""

    async def work() -> None:
        async with cluster(tmp_path) as c:
            await make_accounts(c)
            call = c.commands.Submit(submission({"p1": [add("alice", -1)], "p2": [add("bob", 1)]}, id="gone"))
            await call.wait_for_connection()
            call.cancel()
            again = await c.commands.Submit(submission({"p1": [add("alice", -1)], "p2": [add("bob", 1)]}, id="gone"))
            assert again.outcome == Outcome.COMMITTED
            await until(lambda: applied(c, "p2", "bob", 1))
            assert await c.balance("p1", "alice") == 99

    run(work())


async def applied(c: Cluster, participant: str, name: str, balance: int) -> bool:
    return await c.balance(participant, name) == balance


def test_an_id_that_was_aborted_by_request_stays_aborted(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path) as c:
            fenced = await c.commands.Abort(coordinator_pb2.AbortRequest(id="order-1"))
            assert fenced.outcome == Outcome.ABORTED, fenced
            late = await c.commands.Submit(submission({"p1": [insert("a", 1)], "p2": [insert("b", 1)]}, id="order-1"))
            assert late.outcome == Outcome.ABORTED, late
            assert late.reason.code == Code.CODE_ABORTED_BY_REQUEST
            assert await c.balance("p1", "a") is None

    run(work())


# Queries.


def test_get_finds_what_is_live_and_what_only_the_log_holds(tmp_path: Path) -> None:
    assigned = ""

    async def get(c: Cluster, id: str) -> coordinator_pb2.Transaction:
        found: coordinator_pb2.Transaction = await c.queries.Get(coordinator_pb2.GetRequest(id=id))
        return found

    async def first() -> None:
        nonlocal assigned
        async with cluster(tmp_path) as c:
            chosen = submission({"p1": [insert("a", 1)], "p2": [insert("b", 1)]}, id="order-1", wait_applied=True)
            await c.commands.Submit(chosen)
            result = await c.commands.Submit(submission({"p1": [add("a", 1)], "p2": [add("b", 1)]}, wait_applied=True))
            assigned = result.id
            for id in ("order-1", assigned):
                found = await get(c, id)
                assert found.state == State.STATE_COMMITTED, found
                assert found.steps
            assert (await get(c, "never")).state == State.STATE_NOT_FOUND
            await c.commands.Abort(coordinator_pb2.AbortRequest(id="order-2"))

    async def second() -> None:
        async with cluster(tmp_path) as c:
            for id in ("order-1", assigned):
                found = await get(c, id)
                assert found.state == State.STATE_COMMITTED, found
                assert list(found.participants) == ["p1", "p2"]
                assert found.ended_at >= found.submitted_at > 0
            assert (await get(c, "order-2")).state == State.STATE_ABORTED
            other = str(AttemptId(OTHER_LOG, AttemptId.parse(assigned).number))
            assert (await get(c, other)).state == State.STATE_NOT_FOUND

    run(first())
    run(second())


def test_watch_tells_outcomes_as_they_become_known_and_list_has_them(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path) as c:
            watching = c.queries.Watch(coordinator_pb2.WatchRequest())
            await watching.initial_metadata()
            await make_accounts(c)
            await c.commands.Submit(submission({"p1": [add("alice", -1000)], "p2": [add("bob", 1)]}))
            await c.commands.Submit(submission({"p9": [read("alice")]}, id="who"))
            seen = [await watching.read() for _ in range(3)]
            assert seen[0].state in (State.STATE_COMMITTING, State.STATE_COMMITTED)
            assert [each.state for each in seen[1:]] == [State.STATE_ABORTED, State.STATE_REFUSED]
            assert seen[1].reason.code == Code.CODE_BELOW_MIN
            assert seen[2].id == "who"
            watching.cancel()
            listed = await c.queries.List(coordinator_pb2.ListRequest(limit=10))
            assert [each.id for each in listed.transactions][:2] == [seen[1].id, seen[0].id]

    run(work())


def test_status_has_the_lanes_and_the_counters(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path) as c:
            await until(lambda: open_lane(c, "p1"))
            await until(lambda: open_lane(c, "p2"))
            await make_accounts(c)
            status = await c.queries.Status(coordinator_pb2.StatusRequest())
            assert status.serving
            assert status.committed == 1
            assert (status.counters.forced, status.counters.flushes >= 1) == (1, True)
            assert dict(status.counters.sent) == {"prepare": 2, "commit": 2}
            assert dict(status.counters.received) == {"vote": 2, "acknowledged": 2}
            assert [lane.participant for lane in status.lanes] == ["p1", "p2"]
            theirs = await c.participants["p1"].tables.Status(participant_pb2.ParticipantStatusRequest())
            assert theirs.identity == status.lanes[0].identity
            assert theirs.counters.forced == 2
            assert dict(theirs.counters.received) == {"prepare": 1, "commit": 1}
            assert not status.alarms
            assert not theirs.alarms

    run(work())


async def open_lane(c: Cluster, participant: str) -> bool:
    return (await lane_of(c, participant)).open


def test_health_serves_both_processes_and_reflection_lists_the_services(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]) as c:
            for process, service in [(c.coordinator, "troth.v1.Commands"), (c.participants["p1"], "troth.v1.Lanes")]:
                health = health_pb2_grpc.HealthStub(process.channel)
                for name in ("", service):
                    reply = await health.Check(health_pb2.HealthCheckRequest(service=name))
                    assert reply.status == health_pb2.HealthCheckResponse.SERVING
                reflection = reflection_pb2_grpc.ServerReflectionStub(process.channel).ServerReflectionInfo()
                await reflection.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                listed = (await reflection.read()).list_services_response.service
                assert service in [each.name for each in listed]
                await reflection.done_writing()

    run(work())


# The participant's single calls.


def test_a_branch_is_prepared_and_committed_by_single_calls(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]) as c:
            p1 = c.participants["p1"]
            attempt = types_pb2.Attempt(log=OTHER_LOG, number=5)
            prepare = participant_pb2.PrepareRequest(attempt=attempt, operations=operations(insert("alice", 3)))
            voted = await p1.branches.Prepare(prepare)
            assert voted.vote == Vote.VOTE_YES
            doubt = await p1.tables.InDoubt(participant_pb2.InDoubtRequest())
            assert [branch.attempt for branch in doubt.branches] == [attempt]
            locks = await p1.tables.Locks(participant_pb2.LocksRequest())
            assert "accounts/alice" in [lock.name for lock in locks.locks]
            assert await c.balance("p1", "alice") is None
            await p1.branches.Commit(participant_pb2.BranchRequest(attempt=attempt))
            assert await c.balance("p1", "alice") == 3
            identity = (await p1.tables.Status(participant_pb2.ParticipantStatusRequest())).identity
            asked = coordinator_pb2.OutcomeRequest(attempt=attempt, identity=identity)
            assert (await p1.branches.Outcome(asked)).answer == Answer.ANSWER_COMMITTED
            asked.identity = "another file"
            assert (await p1.branches.Outcome(asked)).answer == Answer.ANSWER_NONE

    run(work())


def test_a_no_and_an_abort_by_single_calls_leave_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]) as c:
            branches = c.participants["p1"].branches
            missing = participant_pb2.PrepareRequest(
                attempt=types_pb2.Attempt(log=OTHER_LOG, number=1), operations=operations(add("nobody", 1))
            )
            voted = await branches.Prepare(missing)
            assert (voted.vote, voted.reason.code) == (Vote.VOTE_NO, Code.CODE_ROW_MISSING)
            attempt = types_pb2.Attempt(log=OTHER_LOG, number=2)
            voted = await branches.Prepare(
                participant_pb2.PrepareRequest(attempt=attempt, operations=operations(insert("alice", 3)))
            )
            assert voted.vote == Vote.VOTE_YES
            await branches.Abort(participant_pb2.BranchRequest(attempt=attempt))
            assert await c.balance("p1", "alice") is None
            doubt = await c.participants["p1"].tables.InDoubt(participant_pb2.InDoubtRequest())
            assert not doubt.branches

    run(work())


def test_a_resolution_that_contradicts_what_is_known_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]) as c:
            unknown = participant_pb2.ResolveBranchRequest(
                attempt=types_pb2.Attempt(log=OTHER_LOG, number=2), outcome="OUTCOME_COMMITTED", reason="test"
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await c.participants["p1"].branches.Resolve(unknown)
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            unknown.outcome = types_pb2.OUTCOME_REFUSED
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await c.participants["p1"].branches.Resolve(unknown)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(work())


def test_a_table_is_made_once_from_a_first_row_and_served(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]) as c:
            p1 = c.participants["p1"]
            key = [types_pb2.Column(name="sku", value=types_pb2.Value(text="w"))]
            values = [types_pb2.Column(name="count", value=types_pb2.Value(integer=1))]
            request = participant_pb2.CreateTableRequest(table="stock", key=key, values=values)
            assert (await p1.branches.CreateTable(request)).created
            assert not (await p1.branches.CreateTable(request)).created
            tables = await p1.tables.Tables(participant_pb2.TablesRequest())
            assert [table.name for table in tables.tables] == ["accounts", "stock"]
            stocked = types_pb2.Operation(
                table="stock", key=[types_pb2.Value(text="w")], insert=types_pb2.Insert(values=values)
            )
            result = await c.commands.Submit(submission({"p1": [stocked]}))
            assert result.outcome == Outcome.COMMITTED, result
            request.table = "troth_mine"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await p1.branches.CreateTable(request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(work())


def test_reading_a_row_of_no_table_says_so(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]) as c:
            for table, key, code in [
                ("nothing", [types_pb2.Value(text="x")], grpc.StatusCode.NOT_FOUND),
                ("accounts", [], grpc.StatusCode.INVALID_ARGUMENT),
            ]:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await c.participants["p1"].tables.ReadRow(participant_pb2.ReadRowRequest(table=table, key=key))
                assert caught.value.code() is code

    run(work())


# Lanes that break, files that are not what they should be.


def test_a_commit_is_sent_again_when_its_participant_is_back(tmp_path: Path) -> None:
    """Rule 5, and rule 6: what is prepared asks as soon as the lane opens."""

    async def work() -> None:
        async with cluster(tmp_path) as c:
            await make_accounts(c)
            p2 = c.participants["p2"]
            for n in range(20):
                pending = c.commands.Submit(
                    submission({"p1": [add("alice", -1)], "p2": [add("bob", 1)]}, id=f"move-{n}", timeout_s=20)
                )
                if n == 10:
                    await p2.stop()
                    p2 = c.participants["p2"] = await start_participant(tmp_path, "p2", p2.address)
                assert (await pending).outcome == Outcome.COMMITTED
            await until(lambda: applied(c, "p2", "bob", 20))
            assert await c.balance("p1", "alice") == 80
            await until(lambda: nothing_unresolved(c))

    run(work())


async def nothing_unresolved(c: Cluster) -> bool:
    found = await c.queries.Unresolved(coordinator_pb2.UnresolvedRequest())
    doubt = [await p.tables.InDoubt(participant_pb2.InDoubtRequest()) for p in c.participants.values()]
    return not found.unresolved and not any(each.branches for each in doubt)


def test_a_new_lane_of_the_same_log_takes_the_place_of_the_old(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]) as c:
            p1 = c.participants["p1"]
            old, new = p1.lanes.Open(), p1.lanes.Open()
            for lane in (old, new):
                await lane.write(participant_pb2.ToParticipant(hello=hello("p1")))
                assert (await lane.read()).hello.participant == "p1"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await old.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            prepare = participant_pb2.Prepare(number=7, operations=operations(insert("x", 1)).SerializeToString())
            await new.write(participant_pb2.ToParticipant(durable=1, prepares=[prepare]))
            answer = await new.read()
            assert [(vote.number, vote.vote) for vote in answer.votes] == [(7, Vote.VOTE_YES)]
            assert answer.durable > 0
            new.cancel()

    run(work())


def hello(participant: str, **fields: Any) -> participant_pb2.CoordinatorHello:
    return participant_pb2.CoordinatorHello(
        **{
            "version": PROTOCOL_VERSION,
            "log": OTHER_LOG,
            "participant": participant,
            "address": "127.0.0.1:1",
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("first", "code", "says"),
    [
        (participant_pb2.ToParticipant(durable=1), grpc.StatusCode.INVALID_ARGUMENT, "first message"),
        (
            participant_pb2.ToParticipant(hello=hello("p1", version=99)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "protocol version 99",
        ),
        (
            participant_pb2.ToParticipant(hello=hello("p2")),
            grpc.StatusCode.INVALID_ARGUMENT,
            "this is participant 'p1', not 'p2'",
        ),
    ],
)
def test_a_lane_that_is_not_for_this_participant_is_refused(
    tmp_path: Path, first: participant_pb2.ToParticipant, code: grpc.StatusCode, says: str
) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]) as c:
            lane = c.participants["p1"].lanes.Open()
            await lane.write(first)
            with pytest.raises(grpc.aio.AioRpcError, match=says) as caught:
                await lane.read()
            assert caught.value.code() is code

    run(work())


def test_a_participant_under_another_name_gets_no_lane_and_an_alarm(tmp_path: Path) -> None:
    async def work() -> None:
        p1 = await start_participant(tmp_path, "p1")
        coordinator = await start_coordinator(tmp_path, {"px": p1.address})
        c = Cluster(coordinator, {"p1": p1})

        async def alarmed() -> bool:
            return bool((await c.queries.Status(coordinator_pb2.StatusRequest())).alarms)

        await until(alarmed)
        assert "not 'px'" in (await lane_of(c, "px")).error
        await coordinator.stop()
        await p1.stop()

    run(work())


def copy_of(folder: Path, name: str) -> Path:
    """A cold copy, as somebody makes it who means well."""
    copy = folder / f"{name}.copy"
    shutil.copy(folder / f"{name}.db", copy)
    return copy


def put_back(folder: Path, name: str) -> None:
    for path in folder.glob(f"{name}.db*"):
        path.unlink()
    shutil.copy(folder / f"{name}.copy", folder / f"{name}.db")


async def make_and_stop(tmp_path: Path, names: list[str]) -> None:
    async with cluster(tmp_path) as c:
        for name in names:
            made = await c.commands.Submit(
                submission({"p1": [insert(name, 1)], "p2": [insert(name, 1)]}, wait_applied=True)
            )
            assert made.outcome == Outcome.COMMITTED, made


def test_a_coordinator_restored_from_an_older_copy_stops_and_says_so(tmp_path: Path) -> None:
    run(make_and_stop(tmp_path, ["a"]))
    copy_of(tmp_path, "coordinator")
    run(make_and_stop(tmp_path, [f"b{n}" for n in range(20)]))
    put_back(tmp_path, "coordinator")

    async def work() -> None:
        async with cluster(tmp_path) as c:
            with pytest.raises(LogRefused, match="restored from an older copy"):
                await asyncio.shield(c.coordinator.task)
            c.coordinator.task = asyncio.create_task(asyncio.sleep(0))

    run(work())


def test_a_participant_restored_from_an_older_copy_stops_and_says_so(tmp_path: Path) -> None:
    run(make_and_stop(tmp_path, ["a"]))
    copy_of(tmp_path, "p1")
    run(make_and_stop(tmp_path, [f"b{n}" for n in range(20)]))
    put_back(tmp_path, "p1")

    async def work() -> None:
        async with cluster(tmp_path) as c:
            p1 = c.participants["p1"]
            with pytest.raises(LogRefused, match=r"p1\.db is older than what the coordinator"):
                await asyncio.shield(p1.task)
            p1.task = asyncio.create_task(asyncio.sleep(0))

    run(work())


def test_rule_5_commits_owed_to_a_participant_that_is_not_configured_keep_the_coordinator_from_starting(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        async with cluster(tmp_path) as c:
            await make_accounts(c)
            lane = c.participants["p2"]
            await lane.stop()
            await until(lambda: closed_lane(c, "p2"))

    async def closed_lane(c: Cluster, participant: str) -> bool:
        return not await open_lane(c, participant)

    async def owed() -> None:
        """The log says that p2 owes an acknowledgement."""
        log = DecisionLog.open(tmp_path / "coordinator.db", "coordinator")
        log.file.begin()
        owed = Owed("p2", "0123456789abcdef", True)
        log.write([(1, Committed(log.epoch << 40 | 1, None, b"d" * 16, (owed,), False, 1.0))])
        log.file.commit(1)
        log.close()

    async def start() -> None:
        with pytest.raises(OwedToUnknown, match=r"not configured: 'p2' \(1\)"):
            await start_coordinator(tmp_path, {"p1": "127.0.0.1:1"})

    run(work())
    run(owed())
    run(start())


def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path, ["p1"]):
            with pytest.raises(LogHeld):
                await start_participant(tmp_path, "p1")
            with pytest.raises(LogHeld):
                await start_coordinator(tmp_path, {})

    run(work())


def test_a_schema_that_differs_from_the_file_is_refused_by_name(tmp_path: Path) -> None:
    async def work() -> None:
        await (await start_participant(tmp_path, "p1")).stop()
        with pytest.raises(LogRefused, match="accounts"):
            await start_participant(tmp_path, "p1", schema="CREATE TABLE accounts (name TEXT NOT NULL PRIMARY KEY);")

    run(work())


def test_what_is_open_when_the_coordinator_stops_is_finished_and_nothing_new_is_admitted(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path) as c:
            await make_accounts(c)
            p1 = c.participants["p1"].branches
            holder = types_pb2.Attempt(log=OTHER_LOG, number=9)
            lock = participant_pb2.PrepareRequest(attempt=holder, operations=operations(insert("zoe", 0)))
            assert (await p1.Prepare(lock)).vote == Vote.VOTE_YES
            waiting = c.commands.Submit(submission({"p1": [read("zoe")], "p2": [add("bob", 1)]}, id="open"))
            await until(lambda: in_flight(c))
            stopping = asyncio.create_task(c.coordinator.drain())
            await until(lambda: refuses(c))
            await p1.Abort(participant_pb2.BranchRequest(attempt=holder))
            result = await waiting
            assert result.outcome == Outcome.COMMITTED, result
            await stopping

    run(work())


async def in_flight(c: Cluster) -> bool:
    return bool((await c.queries.Status(coordinator_pb2.StatusRequest())).in_flight)


async def refuses(c: Cluster) -> bool:
    result = await c.commands.Submit(submission({"p1": [read("alice")]}))
    return bool(result.outcome == Outcome.REFUSED and result.reason.code == Code.CODE_NOT_SERVING)
