"""A coordinator that dies: before the decision, at its flush, after it, before the end record; alone and with others.

Where it must stand still, the other participant is a scripted one, or the flush of its log is held.
"""

from __future__ import annotations

import os

import pytest

from faults.conformance.scripted import ScriptedParticipant
from tests.cluster import COORDINATOR, Cluster, eventually
from tests.injection import HELD_WHEN_DURABLE, KILLED_BEFORE_DURABLE, injected, kill_held, wal_of
from tests.moves import (
    SCHEMA,
    SOON,
    NewCluster,
    alarms,
    balance,
    balances,
    broken,
    committed,
    flush,
    insert,
    locks,
    move,
    open_accounts,
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
from troth.messages import Abort, Commit, Prepare
from troth.v1.coordinator_pb2 import STATE_COMMITTED, STATE_COMMITTING
from troth.words import Outcome, Vote


def with_scripted_p2(cluster: Cluster) -> None:
    """Alice has 100 at p1; p2 is scripted."""
    cluster.start(COORDINATOR, "p1")
    cluster.wait_lanes()
    committed(cluster, submission({"p1": [insert("alice", 100)]}, wait_applied=True))


@pytest.mark.parametrize("restarted", [[COORDINATOR], [COORDINATOR, "p1"], ["p1", COORDINATOR]], ids=" then ".join)
def test_dead_before_the_decision_is_an_abort_for_participants_and_says_nothing_to_the_client(
    new_cluster: NewCluster, restarted: list[str]
) -> None:
    """Rule 7: presumed abort of what it issued before. Rule 11: the id is not burnt, and runs again."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        with_scripted_p2(cluster)
        waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        prepare = p2.take_prepare()
        wait_voted(cluster, "p1")
        cluster.kill(*restarted)
        broken(waiting)
        p2.questions = [prepare.number]
        for name in restarted:
            cluster.start(name)
        wait_in_doubt(cluster, "p1", 0)
        assert locks(cluster, "p1") == []
        again = submitting(cluster, move(id="order-1", timeout_s=20))
        new = p2.take_prepare()
        assert new.number > prepare.number, "an attempt number is never used again"
        p2.vote(prepare)  # late
        p2.vote(new)
        assert again.result().outcome == Outcome.COMMITTED
        p2.acknowledge_commits()
        wait_ended(cluster)
        assert balance(cluster, "p1", "alice") == 70
        assert alarms(cluster, COORDINATOR) == alarms(cluster, "p1") == []


@pytest.mark.needs_strace
@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
def test_dead_at_the_flush_of_the_decision_nobody_has_heard_of_it(new_cluster: NewCluster, lost: bool) -> None:
    """Rules 2 and 3, DESIGN section 4. A record that was written and not flushed is there after a kill, and may be gone
    after a power cut: either way all agree."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        with_scripted_p2(cluster)
        waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        prepare = p2.take_prepare()
        wait_in_doubt(cluster, "p1")
        flush(cluster, COORDINATOR)
        wal = wal_of(cluster[COORDINATOR].data)
        flushed = wal.stat().st_size
        with injected(cluster[COORDINATOR].pid, KILLED_BEFORE_DURABLE, paths=[wal]):
            p2.vote(prepare)
            cluster[COORDINATOR].wait()
        broken(waiting)
        p2.inbox.quiet(Commit)
        assert cluster.in_doubt("p1") == 1
        if lost:
            os.truncate(wal, flushed)
        p2.questions = [prepare.number]
        cluster.start(COORDINATOR)
        if not lost:
            p2.acknowledge_commits()
        wait_in_doubt(cluster, "p1", 0)
        expected = 100 if lost else 70
        eventually(lambda: balance(cluster, "p1", "alice") == expected)
        again = submitting(cluster, move(id="order-1", timeout_s=20))
        if lost:
            p2.vote(p2.take_prepare())
            p2.acknowledge_commits()
        assert again.result().outcome == Outcome.COMMITTED
        wait_ended(cluster)
        assert balance(cluster, "p1", "alice") == 70


@pytest.mark.needs_strace
def test_dead_between_the_decision_and_any_message_of_phase_two_commits_at_start(new_cluster: NewCluster) -> None:
    """Rule 5: what the log owes is sent again."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        wait_ended(cluster)
        flush(cluster, COORDINATOR)
        with injected(cluster[COORDINATOR].pid, HELD_WHEN_DURABLE, paths=[wal_of(cluster[COORDINATOR].data)]):
            waiting = submitting(cluster, move(id="order-1", timeout_s=20))
            wait_in_doubt(cluster, "p1")
            wait_in_doubt(cluster, "p2")
            kill_held(cluster[COORDINATOR])
        cluster[COORDINATOR].wait()
        broken(waiting)
        assert balances(cluster) == (100, 100)
        cluster.start(COORDINATOR)
        wait_balances(cluster, 70, 130)
        wait_ended(cluster)
        assert state(cluster, "order-1") == STATE_COMMITTED
        assert submit(cluster, move(id="order-1")).outcome == Outcome.COMMITTED
        assert balances(cluster) == (70, 130)


@pytest.mark.needs_strace
def test_dead_before_the_durable_abort_of_an_id_was_told_nobody_heard_it(new_cluster: NewCluster) -> None:
    """Rule 11: an ABORTED is durable before a client hears it; participants may have been told before."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        wait_ended(cluster)
        flush(cluster, COORDINATOR)
        wal = wal_of(cluster[COORDINATOR].data)
        flushed = wal.stat().st_size
        with injected(cluster[COORDINATOR].pid, KILLED_BEFORE_DURABLE, paths=[wal]):
            waiting = submitting(cluster, move(1000, id="order-1"))
            cluster[COORDINATOR].wait()
        broken(waiting)
        os.truncate(wal, flushed)
        cluster.start(COORDINATOR)
        assert submit(cluster, move(1000, id="order-1")).outcome == Outcome.ABORTED
        cluster.wait_settled()
        assert balances(cluster) == (100, 100)


def test_dead_before_the_last_acknowledgement_it_goes_on_owing(new_cluster: NewCluster) -> None:
    """Rule 5; who has acknowledged and hears the commit again acknowledges again, and applies nothing twice."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        with_scripted_p2(cluster)
        waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        prepare = p2.take_prepare()
        p2.vote(prepare)
        assert waiting.result().outcome == Outcome.COMMITTED
        eventually(lambda: [each.participant for each in unresolved(cluster)] == ["p2"])
        for _ in range(2):
            cluster.kill(COORDINATOR)
            p2.inbox.clear()
            cluster.start(COORDINATOR)
            assert p2.inbox.take(Commit).number == prepare.number
            assert state(cluster, "order-1") == STATE_COMMITTING
        p2.inbox.quiet(Prepare)
        p2.acknowledge_commits()
        wait_ended(cluster)
        assert balance(cluster, "p1", "alice") == 70
        assert state(cluster, "order-1") == STATE_COMMITTED
        assert alarms(cluster, "p1") == []


@pytest.mark.needs_strace
def test_dead_at_the_flush_of_the_end_record_it_sends_commits_that_are_acknowledged_again(
    new_cluster: NewCluster,
) -> None:
    """DESIGN section 3: the end is lazy; losing it only repeats what is idempotent."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        wal = wal_of(cluster[COORDINATOR].data)
        kill_second = KILLED_BEFORE_DURABLE.replace("when=1", "when=2")
        wait_ended(cluster)
        flush(cluster, COORDINATOR)
        with injected(cluster[COORDINATOR].pid, kill_second, paths=[wal]):
            assert submit(cluster, move(id="order-1", wait_applied=True)).outcome == Outcome.COMMITTED
            cluster[COORDINATOR].wait()
        ended = "SELECT ended_at IS NOT NULL FROM troth_transactions WHERE id = 'order-1'"
        assert cluster.rows(COORDINATOR, ended) == [(1,)], "it is there after a kill"
        os.truncate(wal, _without_last_commit(wal.read_bytes()))
        assert cluster.rows(COORDINATOR, ended) == [(0,)], "and not after a power cut"
        cluster.start(COORDINATOR)
        wait_ended(cluster)
        eventually(lambda: cluster.rows(COORDINATOR, ended) == [(1,)])
        assert balances(cluster) == (70, 130)
        assert alarms(cluster, "p1") == alarms(cluster, "p2") == []


def _without_last_commit(wal: bytes) -> int:
    """Where the last transaction of a write-ahead log begins: frames of 24 bytes and a page follow a header of 32
    bytes; the frame that commits has the database's size in its second word (SQLite's fileformat2, section 4.1)."""
    frame = 24 + int.from_bytes(wal[8:12], "big")
    starts = range(32, len(wal) - frame + 1, frame)
    commits = [
        start
        for start in starts
        if wal[start + 4 : start + 8] != bytes(4) and wal[start + 8 : start + 16] == wal[16:24]
    ]
    return commits[-2] + frame


@pytest.mark.parametrize("vote", [Vote.YES, Vote.NO])
def test_coordinator_and_participant_die_together_and_all_end_alike(new_cluster: NewCluster, vote: Vote) -> None:
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        with_scripted_p2(cluster)
        waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        prepare = p2.take_prepare()
        wait_voted(cluster, "p1")
        cluster.kill("p1")
        p2.vote(prepare, vote)
        outcome = waiting.result().outcome
        assert outcome == (Outcome.COMMITTED if vote is Vote.YES else Outcome.ABORTED)
        cluster.kill(COORDINATOR)
        cluster.start("p1")
        assert cluster.in_doubt("p1") == 1, "nobody tells it anything yet"
        cluster.start(COORDINATOR)
        if vote is Vote.YES:
            p2.acknowledge_commits()
        wait_ended(cluster)
        assert balance(cluster, "p1", "alice") == (70 if vote is Vote.YES else 100)
        assert submit(cluster, move(id="order-1")).outcome == outcome


def test_an_abort_that_was_lost_with_the_coordinator_is_learnt_by_asking(new_cluster: NewCluster) -> None:
    """Rules 6 and 7: aborts are never sent again, so who did not hear asks."""
    with new_cluster(participants=2, schema=SCHEMA, env=SOON) as cluster:
        open_accounts(cluster)
        cluster.pause("p2")
        waiting = submitting(cluster, move(id="order-1", timeout_s=0.5))
        wait_in_doubt(cluster, "p1")
        cluster.pause("p1")
        assert waiting.result().outcome == Outcome.ABORTED
        cluster.kill(COORDINATOR)
        cluster.resume("p1", "p2")
        cluster.start(COORDINATOR)
        cluster.wait_settled()
        assert balances(cluster) == (100, 100)
        assert locks(cluster, "p1") == locks(cluster, "p2") == []


def test_a_vote_by_deadline_that_does_not_come_is_an_abort(new_cluster: NewCluster) -> None:
    """Rule 4; a vote that comes after it changes nothing."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env={**SOON, "TROTH_COORDINATOR_VOTE_TIMEOUT": "200ms"})
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        with_scripted_p2(cluster)
        waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        first = p2.take_prepare()
        p2.inbox.take(Abort, number=first.number)
        second = p2.take_prepare()
        p2.vote(first)
        p2.inbox.quiet(Commit, 0.1)
        p2.vote(second)
        assert waiting.result().attempts >= 2
        assert p2.inbox.take(Commit).number != first.number
        eventually(lambda: balance(cluster, "p1", "alice") == 70)
