"""One-phase transactions whose participant or coordinator dies at each point (rules 11 and 13).

In between the id is PENDING: a client hears UNKNOWN, and the truth by asking again with the same id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from faults.conformance.scripted import ScriptedParticipant, number
from tests.cluster import COORDINATOR, Cluster, eventually
from tests.injection import HELD_WHEN_DURABLE, KILLED_BEFORE_DURABLE, injected, kill_held, wal_of
from tests.moves import (
    SCHEMA,
    SOON,
    NewCluster,
    add,
    alarms,
    balance,
    broken,
    committed,
    flush,
    insert,
    read,
    state,
    submission,
    submit,
    submitting,
    unresolved,
    wait_ended,
)
from troth.messages import Answered, OnePhase, OnePhaseEnded, Question
from troth.v1.coordinator_pb2 import STATE_COMMITTED, STATE_NOT_FOUND, STATE_PENDING, AbortRequest, SubmitRequest
from troth.v1.types_pb2 import Code
from troth.words import Answer, Outcome

IDS = pytest.mark.parametrize("id", ["order-1", ""], ids=["chosen", "assigned"])


def pay(id: str = "", **fields: float) -> SubmitRequest:
    return submission({"p1": [add("alice", -30), read("alice", 1)]}, id=id, **fields)


@contextmanager
def alone(new_cluster: NewCluster) -> Iterator[Cluster]:
    """One real participant, where alice has 100."""
    with new_cluster(participants=1, schema=SCHEMA, env=SOON) as cluster:
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        flush(cluster, COORDINATOR)
        flush(cluster, "p1")
        yield cluster


@contextmanager
def scripted(new_cluster: NewCluster) -> Iterator[tuple[Cluster, ScriptedParticipant]]:
    """A real coordinator and a scripted p1."""
    cluster = new_cluster(participants=1, env=SOON)
    with ScriptedParticipant("p1", cluster["p1"].address) as p1:
        cluster.start(COORDINATOR)
        p1.wait_lane()
        cluster.wait_lanes()
        flush(cluster, COORDINATOR)
        yield cluster, p1


# The participant dies.


@IDS
def test_a_participant_that_dies_before_it_ran_the_request_runs_a_new_attempt(new_cluster: NewCluster, id: str) -> None:
    """Rule 13: the request is never sent to another incarnation; asked, that one has no trace and refuses."""
    with alone(new_cluster) as cluster:
        cluster.pause("p1")
        waiting = submitting(cluster, pay(id, timeout_s=20))
        eventually(lambda: unresolved(cluster))
        cluster.kill("p1")
        cluster.start("p1")
        result = waiting.result()
        assert (result.outcome, result.attempts) == (Outcome.COMMITTED, 2)
        assert result.rows[0].values[1].value.integer == 70
        assert balance(cluster, "p1", "alice") == 70


@pytest.mark.needs_strace
@IDS
@pytest.mark.parametrize("fault", [KILLED_BEFORE_DURABLE, HELD_WHEN_DURABLE], ids=["before_flush", "after_flush"])
def test_a_participant_that_dies_before_its_answer_has_committed_once(
    new_cluster: NewCluster, id: str, fault: str
) -> None:
    """Rule 13: a trace is looked up first, and answers; the rows that were read are gone with its memory."""
    with alone(new_cluster) as cluster:
        with injected(cluster["p1"].pid, fault, paths=[wal_of(cluster["p1"].data)]):
            waiting = submitting(cluster, pay(id, timeout_s=20))
            if fault is HELD_WHEN_DURABLE:
                kill_held(cluster["p1"])
            else:
                cluster["p1"].wait()
        cluster["p1"].wait()
        cluster.start("p1")
        result = waiting.result()
        assert (result.outcome, result.attempts, result.rows_not_kept) == (Outcome.COMMITTED, 1, True)
        assert balance(cluster, "p1", "alice") == 70
        if id:
            assert submit(cluster, pay(id)).outcome == Outcome.COMMITTED
            assert balance(cluster, "p1", "alice") == 70


@IDS
def test_a_participant_that_stays_away_leaves_it_unknown_until_asked_again(new_cluster: NewCluster, id: str) -> None:
    """Rule 13: no deadline decides, and no abort; rule 10: the same id gives the truth."""
    with alone(new_cluster) as cluster:
        cluster.pause("p1")
        first = submit(cluster, pay(id, timeout_s=0.3))
        assert (first.outcome, first.reason.code) == (Outcome.UNKNOWN, Code.CODE_TIMEOUT)
        cluster.kill("p1")
        assert state(cluster, first.id) == STATE_PENDING
        fenced = cluster.commands.Abort(AbortRequest(id=first.id), timeout=10)
        assert fenced.outcome == Outcome.UNKNOWN
        assert [(each.kind, each.participant) for each in unresolved(cluster)] == [("one-phase", "p1")]
        again = submitting(cluster, pay(id, timeout_s=20)) if id else None
        cluster.start("p1")
        wait_ended(cluster)
        if again is not None:
            assert again.result().outcome == Outcome.COMMITTED
        else:
            assert submit(cluster, pay()).outcome == Outcome.COMMITTED
        assert balance(cluster, "p1", "alice") == 70, "the first one was not run, and is not"


# The coordinator dies.


@pytest.mark.needs_strace
@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
def test_a_coordinator_that_dies_at_the_flush_of_the_submitted_record_has_sent_nothing(
    new_cluster: NewCluster, lost: bool
) -> None:
    """Rule 11's submitted record is durable before the request is sent; there or not, the id runs once."""
    with alone(new_cluster) as cluster:
        wal = wal_of(cluster[COORDINATOR].data)
        flushed = wal.stat().st_size
        with injected(cluster[COORDINATOR].pid, KILLED_BEFORE_DURABLE, paths=[wal]):
            waiting = submitting(cluster, pay("order-1", timeout_s=20))
            cluster[COORDINATOR].wait()
        broken(waiting)
        assert cluster.counters("p1")["p1"].received["one_phase"] == 1, "only the account was opened"
        if lost:
            os.truncate(wal, flushed)
        cluster.start(COORDINATOR)
        assert submit(cluster, pay("order-1", timeout_s=20)).outcome == Outcome.COMMITTED
        wait_ended(cluster)
        assert balance(cluster, "p1", "alice") == 70
        assert alarms(cluster, COORDINATOR) == alarms(cluster, "p1") == []


@pytest.mark.needs_strace
@IDS
def test_a_participant_whose_record_is_lost_with_the_power_runs_a_new_attempt(new_cluster: NewCluster, id: str) -> None:
    """DESIGN section 4: what was not flushed was told to nobody."""
    with alone(new_cluster) as cluster:
        wal = wal_of(cluster["p1"].data)
        flushed = wal.stat().st_size
        with injected(cluster["p1"].pid, KILLED_BEFORE_DURABLE, paths=[wal]):
            waiting = submitting(cluster, pay(id, timeout_s=20))
            cluster["p1"].wait()
        os.truncate(wal, flushed)
        cluster.start("p1")
        result = waiting.result()
        assert (result.outcome, result.attempts) == (Outcome.COMMITTED, 2)
        assert balance(cluster, "p1", "alice") == 70


@pytest.mark.needs_strace
def test_a_coordinator_that_dies_before_the_request_is_sent_asks_instead(new_cluster: NewCluster) -> None:
    """Rule 13: after the submitted record it is never sent again; who has no trace refuses for good."""
    with alone(new_cluster) as cluster:
        with injected(cluster[COORDINATOR].pid, HELD_WHEN_DURABLE, paths=[wal_of(cluster[COORDINATOR].data)]):
            waiting = submitting(cluster, pay("order-1", timeout_s=20))
            kill_held(cluster[COORDINATOR])
        cluster[COORDINATOR].wait()
        broken(waiting)
        cluster.start(COORDINATOR)
        wait_ended(cluster)
        assert state(cluster, "order-1") == STATE_NOT_FOUND, "nobody was told anything: the id is free"
        assert balance(cluster, "p1", "alice") == 100
        assert submit(cluster, pay("order-1")).outcome == Outcome.COMMITTED
        assert balance(cluster, "p1", "alice") == 70


@pytest.mark.parametrize("answer", [Answer.COMMITTED, Answer.ABORTED])
def test_a_coordinator_that_dies_after_the_request_was_sent_asks_until_it_knows(
    new_cluster: NewCluster, answer: Answer
) -> None:
    """Rule 13: from the submitted record to the answer the id is PENDING, also across a restart; no new attempt."""
    with scripted(new_cluster) as (cluster, p1):
        waiting = submitting(cluster, pay("order-1", timeout_s=20))
        request = p1.inbox.take(OnePhase)
        cluster.kill(COORDINATOR)
        broken(waiting)
        cluster.start(COORDINATOR)
        assert p1.inbox.take(Question).number == request.number
        p1.send(Answered(request.number, Answer.PENDING))
        assert state(cluster, "order-1") == STATE_PENDING
        assert submit(cluster, pay("order-1", timeout_s=0.1)).outcome == Outcome.UNKNOWN
        assert cluster.commands.Abort(AbortRequest(id="order-1"), timeout=10).outcome == Outcome.UNKNOWN
        other = submit(cluster, submission({"p1": [add("alice", -31)]}, id="order-1"))
        assert (other.outcome, other.reason.code) == (Outcome.REFUSED, Code.CODE_ID_TAKEN)
        again = submitting(cluster, pay("order-1", timeout_s=20))
        p1.inbox.quiet(OnePhase)
        p1.send(Answered(request.number, answer))
        if answer is Answer.ABORTED:
            new = p1.inbox.take(OnePhase)
            assert new.number > request.number
            p1.send(OnePhaseEnded(new.number, Outcome.COMMITTED))
        result = again.result()
        assert (result.outcome, result.rows_not_kept) == (Outcome.COMMITTED, True)
        wait_ended(cluster)
        assert state(cluster, "order-1") == STATE_COMMITTED


def test_only_the_file_that_the_submitted_record_names_can_answer(new_cluster: NewCluster) -> None:
    """Rule 13: another file under the same name and address is not asked, and not believed."""
    with scripted(new_cluster) as (cluster, p1):
        waiting = submitting(cluster, pay("order-1", timeout_s=20))
        request = p1.inbox.take(OnePhase)
        p1.identity = "e" * 16
        p1.close_lane()
        p1.wait_lane()
        p1.inbox.quiet(Question)
        p1.send(Answered(request.number, Answer.ABORTED), OnePhaseEnded(request.number, Outcome.COMMITTED))
        flush(cluster, COORDINATOR)
        assert state(cluster, "order-1") == STATE_PENDING
        p1.identity = "f" * 16
        p1.close_lane()
        p1.wait_lane()
        assert p1.inbox.take(Question).number == request.number
        p1.send(Answered(request.number, Answer.COMMITTED))
        assert waiting.result().outcome == Outcome.COMMITTED


def test_an_assigned_id_leaves_nothing_at_a_coordinator_that_dies(new_cluster: NewCluster) -> None:
    """Rule 11: presumed abort never answers a client; such an id may have committed and left no trace."""
    with alone(new_cluster) as cluster:
        result = submit(cluster, pay())
        cluster.kill(COORDINATOR)
        cluster.start(COORDINATOR)
        assert state(cluster, result.id) == STATE_NOT_FOUND
        assert cluster.commands.Abort(AbortRequest(id=result.id), timeout=10).outcome == Outcome.UNKNOWN
        assert balance(cluster, "p1", "alice") == 70


def test_an_answer_that_comes_again_and_late_is_one_answer(new_cluster: NewCluster) -> None:
    with scripted(new_cluster) as (cluster, p1):
        waiting = submitting(cluster, pay("order-1", timeout_s=20))
        request = p1.inbox.take(OnePhase)
        stranger = OnePhaseEnded(number(999), Outcome.COMMITTED)
        end = OnePhaseEnded(request.number, Outcome.COMMITTED)
        p1.send(stranger, end, end, Answered(request.number, Answer.ABORTED))
        assert waiting.result().outcome == Outcome.COMMITTED
        p1.send(OnePhaseEnded(request.number, Outcome.ABORTED))
        flush(cluster, COORDINATOR)
        assert state(cluster, "order-1") == STATE_COMMITTED
        assert submit(cluster, pay("order-1")).outcome == Outcome.COMMITTED


@pytest.mark.needs_strace
def test_both_die_with_the_request_under_way(new_cluster: NewCluster) -> None:
    with alone(new_cluster) as cluster:
        with injected(cluster["p1"].pid, KILLED_BEFORE_DURABLE, paths=[wal_of(cluster["p1"].data)]):
            waiting = submitting(cluster, pay("order-1", timeout_s=20))
            cluster["p1"].wait()
        cluster.kill(COORDINATOR)
        broken(waiting)
        cluster.start(COORDINATOR, "p1")
        wait_ended(cluster)
        assert submit(cluster, pay("order-1")).outcome == Outcome.COMMITTED
        assert balance(cluster, "p1", "alice") == 70
