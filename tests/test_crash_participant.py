"""A participant that is down or dies: at submit, before its vote, after it, before its acknowledgement.

Where a transaction must stand still, the other participant is a scripted one that votes when the test says so.
"""

from __future__ import annotations

import pytest

from faults.conformance.scripted import ScriptedParticipant
from tests.cluster import COORDINATOR, eventually
from tests.injection import HELD_WHEN_DURABLE, KILLED_BEFORE_DURABLE, injected, kill_held, wal_of
from tests.moves import (
    SCHEMA,
    SOON,
    NewCluster,
    add,
    alarms,
    balance,
    balances,
    committed,
    doubt,
    flush,
    insert,
    locks,
    move,
    open_accounts,
    read,
    state,
    submission,
    submit,
    submitting,
    unresolved,
    wait_balances,
    wait_ended,
    wait_in_doubt,
    wait_voted,
)
from troth.messages import Abort, Acknowledged, Commit
from troth.v1.coordinator_pb2 import STATE_ABORTED, STATE_COMMITTED
from troth.v1.types_pb2 import Code
from troth.words import Outcome, Vote

# Down at submit.


def test_a_transaction_waits_for_a_participant_that_is_down_and_commits_when_it_comes(new_cluster: NewCluster) -> None:
    """Rule 11: unreachable is tried again until the deadline."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        cluster.kill("p2")
        waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        eventually(lambda: cluster.status(COORDINATOR).in_flight == 1)
        assert cluster.in_doubt("p1") == 0, "nothing is prepared while a lane is missing"
        cluster.start("p2")
        assert waiting.result().outcome == Outcome.COMMITTED
        wait_balances(cluster, 70, 130)


@pytest.mark.parametrize("id", ["order-1", ""], ids=["chosen", "assigned"])
def test_a_participant_that_stays_down_is_an_abort_as_unreachable(new_cluster: NewCluster, id: str) -> None:
    """Rule 11; a client's id stays aborted, also when the participant is there again."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        cluster.kill("p2")
        result = submit(cluster, move(id=id, timeout_s=0.3))
        assert (result.outcome, result.reason.code) == (Outcome.ABORTED, Code.CODE_UNREACHABLE)
        assert result.reason.participant == "p2"
        cluster.start("p2")
        cluster.wait_lanes()
        if id:
            assert submit(cluster, move(id=id)).outcome == Outcome.ABORTED
        assert balances(cluster) == (100, 100)
        assert submit(cluster, move(id="order-2")).outcome == Outcome.COMMITTED


# Before the vote.


def test_a_participant_that_dies_before_its_vote_ends_the_attempt_and_the_next_one_commits(
    new_cluster: NewCluster,
) -> None:
    """Rule 4: a prepare is not sent again on a new lane; rule 11: a new attempt is made."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        cluster.pause("p2")
        waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        wait_in_doubt(cluster, "p1")
        cluster.kill("p2")
        wait_in_doubt(cluster, "p1", 0)
        assert locks(cluster, "p1") == []
        cluster.start("p2")
        result = waiting.result()
        assert (result.outcome, result.attempts) == (Outcome.COMMITTED, 2)
        wait_balances(cluster, 70, 130)


def test_a_participant_that_dies_in_line_for_a_lock_has_promised_nothing(new_cluster: NewCluster) -> None:
    """Rule 4; what held the lock is prepared, and is so again after the restart."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        first = submitting(cluster, submission({"p1": [read("alice"), add("alice", -10, 1)], "p2": [add("bob", 10)]}))
        held = p2.take_prepare()
        wait_voted(cluster, "p1")
        second = submitting(cluster, move(20, timeout_s=20))
        waiting = p2.take_prepare()
        eventually(lambda: cluster.status("p1").in_flight == 1, "one in line at p1")
        cluster.kill("p1")
        p2.inbox.take(Abort, number=waiting.number)
        p2.vote(held)
        cluster.start("p1")
        again = p2.take_prepare()
        p2.send(Acknowledged(p2.inbox.take(Commit, number=held.number).number))
        p2.vote(again)
        assert first.result().outcome == second.result().outcome == Outcome.COMMITTED
        eventually(lambda: balance(cluster, "p1", "alice") == 70)


def test_a_lane_that_breaks_while_it_is_written_to_is_dialled_again(new_cluster: NewCluster) -> None:
    """DESIGN section 5: a broken lane says nothing about outcomes, and is no reason for the coordinator to stop."""
    cluster = new_cluster(participants=1, env=SOON)
    with ScriptedParticipant("p1", cluster["p1"].address) as p1:
        cluster.start(COORDINATOR)
        for _ in range(40):
            p1.wait_lane()
            calls = [submitting(cluster, submission({"p1": [read("alice")]}, timeout_s=0.05)) for _ in range(20)]
            p1.take_prepare()
            p1.close_lane()
            for call in calls:
                call.exception()
        assert cluster[COORDINATOR].running
        p1.wait_lane()


# After the vote.


@pytest.mark.parametrize("vote", [Vote.YES, Vote.NO])
def test_a_participant_that_dies_after_its_vote_asks_at_start_and_ends_as_decided(
    new_cluster: NewCluster, vote: Vote
) -> None:
    """Rule 6: the question rides in its hello. Rule 5: the commit is owed until then."""
    cluster = new_cluster(participants=2, schema=SCHEMA)  # nothing is asked by timer for a second
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        waiting = submitting(cluster, move(id="order-1", timeout_s=5))
        prepare = p2.take_prepare()
        wait_voted(cluster, "p1")
        cluster.kill("p1")
        p2.vote(prepare, vote)
        if vote is Vote.YES:
            # A NO of that kind is for good, a lane that was lost after the vote is nobody's business.
            assert waiting.result().outcome == Outcome.COMMITTED
            assert [each.kind for each in unresolved(cluster) if each.participant == "p1"] == ["owed commit"]
        else:
            assert waiting.result().outcome == Outcome.ABORTED
        cluster.start("p1")
        wait_in_doubt(cluster, "p1", 0)
        expected = 70 if vote is Vote.YES else 100
        eventually(lambda: balance(cluster, "p1", "alice") == expected)
        assert locks(cluster, "p1") == []


def test_a_participant_found_prepared_holds_its_locks_before_it_serves_and_while_the_answer_is_pending(
    new_cluster: NewCluster,
) -> None:
    """Rule 6: PENDING is an answer. DESIGN section 4: the locks are taken again before health says SERVING."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        waiting = submitting(cluster, move(timeout_s=20))
        prepare = p2.take_prepare()
        wait_voted(cluster, "p1")
        for _ in range(2):
            cluster.kill("p1")
            cluster.start("p1")
            assert locks(cluster, "p1") == ["accounts/alice"]
        eventually(lambda: doubt(cluster, "p1")[0].why == "the coordinator said PENDING")
        seen = submitting(cluster, submission({"p1": [read("alice")]}, timeout_s=20))
        p2.vote(prepare)
        assert waiting.result().outcome == Outcome.COMMITTED
        row = seen.result().rows[0]
        assert row.values[1].value.integer == 70, "a reader waits for the branch in doubt"
        p2.send(Acknowledged(p2.inbox.take(Commit).number))
        wait_ended(cluster)


@pytest.mark.needs_strace
def test_killed_at_the_flush_of_its_prepared_record_it_has_told_nobody(new_cluster: NewCluster) -> None:
    """DESIGN section 4: what is visible and was not flushed is made durable at start; rule 4: the lane was lost before
    the vote, so the attempt is aborted and the branch found prepared learns it."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        flush(cluster, "p1")
        with injected(cluster["p1"].pid, KILLED_BEFORE_DURABLE, paths=[wal_of(cluster["p1"].data)]):
            waiting = submitting(cluster, move(id="order-1", timeout_s=20))
            cluster["p1"].wait()
        assert cluster.rows("p1", "SELECT count(*) FROM troth_prepared") == [(1,)]
        cluster.start("p1")
        result = waiting.result()
        assert (result.outcome, result.attempts) == (Outcome.COMMITTED, 2)
        wait_balances(cluster, 70, 130)
        cluster.wait_settled()
        assert alarms(cluster, "p1") == alarms(cluster, COORDINATOR) == []


# Before the acknowledgement.


@pytest.mark.needs_strace
@pytest.mark.parametrize("fault", [KILLED_BEFORE_DURABLE, HELD_WHEN_DURABLE], ids=["before_flush", "after_flush"])
def test_a_participant_that_dies_before_its_acknowledgement_applies_once(new_cluster: NewCluster, fault: str) -> None:
    """Rule 5: the commit is sent again until it is acknowledged, and is applied once."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        prepare = p2.take_prepare()
        wait_in_doubt(cluster, "p1")
        flush(cluster, "p1")
        with injected(cluster["p1"].pid, fault, paths=[wal_of(cluster["p1"].data)]):
            p2.vote(prepare)
            assert waiting.result().outcome == Outcome.COMMITTED
            if fault is HELD_WHEN_DURABLE:
                kill_held(cluster["p1"])
            else:
                cluster["p1"].wait()
        cluster["p1"].wait()
        p2.send(Acknowledged(p2.inbox.take(Commit).number))
        eventually(lambda: [each.participant for each in unresolved(cluster)] == ["p1"])
        cluster.start("p1")
        wait_ended(cluster)
        assert balance(cluster, "p1", "alice") == 70
        assert alarms(cluster, "p1") == []


def test_a_commit_is_sent_again_until_all_have_acknowledged(new_cluster: NewCluster) -> None:
    """Rule 5: on the same lane, and on a new one; only then is it forgotten."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        waiting = submitting(cluster, move(id="order-1", wait_applied=True, timeout_s=20))
        p2.vote(p2.take_prepare())
        for _ in range(3):
            p2.inbox.take(Commit)
        p2.wait_lane()
        p2.close_lane()
        p2.wait_lane()
        p2.inbox.clear()
        commit = p2.inbox.take(Commit)
        assert not waiting.done(), "it is not applied everywhere"
        p2.send(Acknowledged(commit.number))
        result = waiting.result()
        assert (result.outcome, result.applied) == (Outcome.COMMITTED, True)
        p2.inbox.clear()
        p2.inbox.quiet(Commit)
        assert unresolved(cluster) == []


# All of them.


@pytest.mark.parametrize("vote", [Vote.YES, Vote.NO])
def test_all_participants_die_prepared_and_end_alike(new_cluster: NewCluster, vote: Vote) -> None:
    cluster = new_cluster(participants=3, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p3", cluster["p3"].address) as p3:
        cluster.start(COORDINATOR, "p1", "p2")
        cluster.wait_lanes()
        open_accounts(cluster)
        request = move(id="order-1", timeout_s=5)
        request.branches.add(participant="p3", operations=request.branches[0].operations)
        waiting = submitting(cluster, request)
        prepare = p3.take_prepare()
        wait_voted(cluster, "p1", "p2")
        cluster.kill("p1", "p2")
        p3.vote(prepare, vote)
        yes = vote is Vote.YES
        assert waiting.result().outcome == (Outcome.COMMITTED if yes else Outcome.ABORTED)
        cluster.start("p1", "p2")
        wait_in_doubt(cluster, "p1", 0)
        wait_in_doubt(cluster, "p2", 0)
        if yes:
            p3.send(Acknowledged(p3.inbox.take(Commit).number))
        wait_balances(cluster, *((70, 130) if yes else (100, 100)))
        eventually(lambda: state(cluster, "order-1") == (STATE_COMMITTED if yes else STATE_ABORTED))
