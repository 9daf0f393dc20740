"""Prepared participants whose coordinator is dead ask each other (rule 6); read-only voters that restart (rule 9);
one-phase requests and questions across incarnations (rule 13).

Participants are real processes; the coordinator is scripted, so it is dead exactly when the test says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from faults.conformance.scripted import (
    LOG,
    QUIET_S,
    ScriptedCoordinator,
    ScriptedInquiries,
    ScriptedParticipant,
    encoded,
    number,
)
from tests.cluster import COORDINATOR, Cluster, eventually
from tests.moves import (
    SCHEMA,
    SOON,
    NewCluster,
    add,
    alarms,
    attempt,
    balances,
    committed,
    doubt,
    insert,
    lanes,
    locks,
    read,
    submission,
    submitting,
    wait_balances,
    wait_ended,
    wait_in_doubt,
)
from troth.messages import Abort, Acknowledged, Answered, Commit, Mark, OnePhaseEnded, Peer, Prepare, Voted
from troth.process import addresses
from troth.v1 import coordinator_pb2, coordinator_pb2_grpc, types_pb2
from troth.v1.types_pb2 import Code
from troth.words import Answer, Outcome, Vote

NOBODY = "127.0.0.1:1"


class Pair:
    """Two real participants; alice has 100 at p1, bob 100 at p2. Nobody coordinates but the test."""

    def __init__(self, cluster: Cluster, inquiries: str = NOBODY) -> None:
        self.cluster = cluster
        self.one = ScriptedCoordinator("p1", cluster["p1"].address, address=inquiries)
        self.two = ScriptedCoordinator("p2", cluster["p2"].address, address=inquiries)

    def __enter__(self) -> Pair:
        self.one.open()
        self.two.open()
        self.one.one_phase(number(1), insert("alice", 100))
        self.two.one_phase(number(1), insert("bob", 100))
        self.one.take(OnePhaseEnded)
        self.two.take(OnePhaseEnded)
        return self

    def __exit__(self, *_: object) -> None:
        self.one.__exit__()
        self.two.__exit__()

    def peer(self, of: ScriptedCoordinator) -> Peer:
        return Peer(of.name, self.cluster[of.name].address, of.hello.identity)

    def prepare_one(self, n: int) -> None:
        """Alice pays 30 at p1, which may ask p2; until its vote is in."""
        self.one.prepare(n, add("alice", -30), peers=(self.peer(self.two),))
        assert self.one.take(Voted, n).vote is Vote.YES

    def prepare_two(self, n: int) -> None:
        self.two.prepare(n, add("bob", 30), peers=(self.peer(self.one),))
        assert self.two.take(Voted, n).vote is Vote.YES

    def die(self) -> None:
        """The coordinator is gone."""
        self.one.close()
        self.two.close()


@contextmanager
def pair(new_cluster: NewCluster, inquiries: str = NOBODY) -> Iterator[Pair]:
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    cluster.start("p1", "p2")
    with Pair(cluster, inquiries) as made:
        yield made


def outcome(cluster: Cluster, name: str, n: int, identity: str) -> int:
    """What `name` tells a peer that means the file `identity`."""
    question = coordinator_pb2.OutcomeRequest(attempt=attempt(LOG, n), identity=identity, asker="a test")
    return int(cluster.branches(name).Outcome(question, timeout=10, wait_for_ready=True).answer)


# Rule 6.


@pytest.mark.parametrize("outcome", [Outcome.COMMITTED, Outcome.ABORTED])
def test_a_participant_in_doubt_learns_from_a_peer_that_knows(new_cluster: NewCluster, outcome: Outcome) -> None:
    """Rule 6: a peer that holds the true outcome says so, also after a restart of both."""
    with pair(new_cluster) as p:
        p.prepare_one(number(2))
        p.prepare_two(number(2))
        p.one.close()
        p.cluster.kill("p1")
        p.two.send(Commit(number(2)) if outcome is Outcome.COMMITTED else Abort(number(2)))
        if outcome is Outcome.COMMITTED:
            p.two.take(Acknowledged)
        wait_in_doubt(p.cluster, "p2", 0)
        p.die()
        p.cluster.restart("p2")
        p.cluster.start("p1")
        wait_balances(p.cluster, *((70, 130) if outcome is Outcome.COMMITTED else (100, 100)))
        wait_in_doubt(p.cluster, "p1", 0)
        assert locks(p.cluster, "p1") == []


def test_a_peer_that_has_not_voted_refuses_durably_before_it_says_aborted(new_cluster: NewCluster) -> None:
    """Rule 6: so a prepare that arrives afterwards, even in its next life, is refused (rule 8)."""
    with pair(new_cluster) as p:
        p.prepare_one(number(2))
        p.die()
        wait_in_doubt(p.cluster, "p1", 0)
        p.cluster.kill("p2")
        assert p.cluster.rows("p2", "SELECT number, outcome FROM troth_finished WHERE number = ?", number(2)) == [
            (number(2), int(Outcome.ABORTED))
        ]
        p.cluster.start("p2")
        p.two.open()
        p.two.prepare(number(2), add("bob", 30))
        voted = p.two.take(Voted)
        assert (voted.vote, voted.reason and voted.reason.code) == (Vote.NO, Code.CODE_ENDED)
        assert balances(p.cluster) == (100, 100)


def test_a_peer_that_waits_for_a_lock_refuses_and_leaves_the_line(new_cluster: NewCluster) -> None:
    """Rule 6: it has not voted, so it may; its vote is then NO."""
    with pair(new_cluster) as p:
        p.two.prepare(number(2), read("bob"), add("bob", 1, 1))
        p.two.take(Voted, number(2))
        p.two.prepare(number(3), add("bob", 30), peers=(p.peer(p.one),))
        p.prepare_one(number(3))
        p.one.close()
        wait_in_doubt(p.cluster, "p1", 0)
        voted = p.two.take(Voted, number(3))
        assert (voted.vote, voted.reason and voted.reason.code) == (Vote.NO, Code.CODE_REFUSED_FOR_PEER)
        assert locks(p.cluster, "p2") == ["accounts/bob"], "the first one's"
        assert balances(p.cluster) == (100, 100)


def test_a_peer_that_voted_no_refuses_durably_too(new_cluster: NewCluster) -> None:
    """Rule 6: its NO was only in memory."""
    with pair(new_cluster) as p:
        p.two.prepare(number(2), add("bob", -1000), peers=(p.peer(p.one),))
        assert p.two.take(Voted).vote is Vote.NO
        before = p.cluster.counters("p2")["p2"].forced
        p.prepare_one(number(2))
        p.die()
        wait_in_doubt(p.cluster, "p1", 0)
        assert p.cluster.counters("p2")["p2"].forced - before == 1
        assert balances(p.cluster) == (100, 100)


def test_prepared_peers_say_nothing_and_nobody_decides_alone(new_cluster: NewCluster) -> None:
    """Rule 6: absence of an answer is no answer, for as long as it takes; then the coordinator's word ends it."""
    address = f"127.0.0.1:{addresses.free_ports(1)[0]}"
    with pair(new_cluster, address) as p:
        p.prepare_one(number(2))
        p.prepare_two(number(2))
        p.die()
        eventually(lambda: "may not say" in doubt(p.cluster, "p1")[0].why)
        eventually(lambda: "may not say" in doubt(p.cluster, "p2")[0].why)
        p.cluster.kill("p1", "p2")
        p.cluster.start("p1", "p2")
        eventually(lambda: "may not say" in doubt(p.cluster, "p1")[0].why)
        assert p.cluster.in_doubt("p1", "p2") == 2
        assert locks(p.cluster, "p1") == ["accounts/alice"]
        with ScriptedInquiries(address) as coordinator:
            coordinator.answers[number(2)] = Answer.PENDING
            eventually(lambda: "PENDING" in doubt(p.cluster, "p2")[0].why)
            assert p.cluster.in_doubt("p1", "p2") == 2
            coordinator.answers[number(2)] = Answer.COMMITTED
            wait_balances(p.cluster, 70, 130)
        wait_in_doubt(p.cluster, "p1", 0)


def test_another_file_under_the_name_of_a_peer_says_nothing_durably_or_not(new_cluster: NewCluster) -> None:
    """Rule 6: a question names the identity that it is meant for."""
    with pair(new_cluster) as p:
        p.prepare_one(number(2))
        p.die()
        p.cluster.kill("p1", "p2")
        other = "e" * 16
        p.cluster.start("p2")
        assert outcome(p.cluster, "p2", number(3), other) == types_pb2.ANSWER_NONE
        assert p.cluster.counters("p2")["p2"].forced == 0
        p.cluster.kill("p2")
        for path in p.cluster.folder.glob("p2.db*"):
            path.unlink()
        p.cluster.start("p1", "p2")
        eventually(lambda: "may not say" in doubt(p.cluster, "p1")[0].why)
        assert p.cluster.rows("p2", "SELECT count(*) FROM troth_finished") == [(0,)]
        assert p.cluster.in_doubt("p1") == 1


def test_a_peer_without_a_trace_below_its_mark_says_nothing(new_cluster: NewCluster) -> None:
    """Rule 6: it may have committed and forgotten it."""
    with pair(new_cluster) as p:
        identity = p.two.hello.identity
        p.prepare_two(number(2))
        p.two.send(Commit(number(2)))
        p.two.take(Acknowledged)
        assert outcome(p.cluster, "p2", number(2), identity) == types_pb2.ANSWER_COMMITTED
        p.two.send(Mark(number(3), ()))
        eventually(lambda: outcome(p.cluster, "p2", number(2), identity) == types_pb2.ANSWER_NONE)
        assert outcome(p.cluster, "p2", number(3), identity) == types_pb2.ANSWER_ABORTED


def test_a_branch_sent_as_read_only_never_vouches(new_cluster: NewCluster) -> None:
    """Rule 6."""
    with pair(new_cluster) as p:
        message = Prepare(number(2), encoded(read("bob")), True, ())
        p.two.send(message)
        assert p.two.take(Voted).vote is Vote.READ_ONLY
        assert outcome(p.cluster, "p2", number(2), p.two.hello.identity) == types_pb2.ANSWER_NONE


def test_a_silent_coordinator_is_asked_before_the_peers(new_cluster: NewCluster) -> None:
    """Rule 6: the coordinator first; while it answers, PENDING too, nobody else is asked and nothing is refused."""
    address = f"127.0.0.1:{addresses.free_ports(1)[0]}"
    with ScriptedInquiries(address) as coordinator, pair(new_cluster, address) as p:
        coordinator.answers[number(2)] = Answer.PENDING
        p.prepare_one(number(2))
        p.die()
        eventually(lambda: len(coordinator.asked) >= 5)
        assert p.cluster.rows("p2", "SELECT count(*) FROM troth_finished WHERE number = ?", number(2)) == [(0,)]
        assert p.cluster.in_doubt("p1") == 1
        coordinator.answers[number(2)] = Answer.ABORTED
        wait_in_doubt(p.cluster, "p1", 0)
        assert balances(p.cluster) == (100, 100)


def test_a_lane_that_opens_asks_at_once_in_its_hello(new_cluster: NewCluster) -> None:
    """Rule 6: prepared branches and read-only ones, and no others."""
    with pair(new_cluster) as p:
        p.prepare_one(number(2))
        p.one.send(Prepare(number(3), encoded(read("carol")), True, ()))
        p.one.take(Voted, number(3))
        p.one.prepare(number(4), add("nobody", 1))
        p.one.take(Voted, number(4))
        p.one.close()
        p.one.open()
        assert list(p.one.hello.questions) == [number(2), number(3)]
        p.one.send(Answered(number(3), Answer.ABORTED), Answered(number(2), Answer.COMMITTED))
        p.one.take(Acknowledged, number(2))
        assert locks(p.cluster, "p1") == []


# Rule 9.


def test_a_read_only_voter_that_restarts_before_the_last_vote_makes_the_attempt_abort(new_cluster: NewCluster) -> None:
    """Rule 9: its shared locks died with it. Rule 11: the transaction is tried again."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        waiting = submitting(cluster, submission({"p1": [read("alice")], "p2": [add("bob", 1, 1)]}, timeout_s=20))
        first = p2.take_prepare()
        eventually(lambda: cluster.counters(COORDINATOR)[COORDINATOR].received["vote"] == 1)
        cluster.kill("p1")
        cluster.start("p1")
        cluster.wait_lanes()
        p2.vote(first)
        assert p2.inbox.take(Abort).number == first.number
        p2.vote(p2.take_prepare())
        result = waiting.result()
        assert (result.outcome, result.attempts) == (Outcome.COMMITTED, 2)
        p2.send(Acknowledged(p2.inbox.take(Commit).number))
        wait_ended(cluster)


def test_a_read_only_voter_without_a_lane_at_the_last_vote_makes_the_attempt_abort(new_cluster: NewCluster) -> None:
    """Rule 9: none is as good as another one."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=SOON)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        waiting = submitting(cluster, submission({"p1": [read("alice")], "p2": [add("bob", 1, 1)]}, timeout_s=20))
        first = p2.take_prepare()
        eventually(lambda: cluster.counters(COORDINATOR)[COORDINATOR].received["vote"] == 1)
        cluster.kill("p1")
        eventually(lambda: not lanes(cluster)["p1"], "the lane is lost")
        p2.vote(first)
        assert p2.inbox.take(Abort).number == first.number
        cluster.start("p1")
        p2.vote(p2.take_prepare())
        assert waiting.result().outcome == Outcome.COMMITTED


@pytest.mark.parametrize("answer", [Answer.COMMITTED, Answer.ABORTED])
def test_a_read_only_voter_that_hears_nothing_asks_and_lets_its_locks_go(
    new_cluster: NewCluster, answer: Answer
) -> None:
    """Rule 9: any answer but PENDING releases them, and is remembered as nothing; peers are not asked."""
    address = f"127.0.0.1:{addresses.free_ports(1)[0]}"
    with ScriptedInquiries(address) as coordinator, pair(new_cluster, address) as p:
        p.one.send(Prepare(number(2), encoded(read("alice")), True, ()))
        assert p.one.take(Voted, number(2)).vote is Vote.READ_ONLY
        p.die()
        eventually(lambda: coordinator.asked.count(number(2)) >= 3)
        assert locks(p.cluster, "p1") == ["accounts/alice"], "no answer is no answer"
        coordinator.answers[number(2)] = Answer.PENDING
        eventually(lambda: "PENDING" in doubt(p.cluster, "p1")[0].why)
        assert locks(p.cluster, "p1") == ["accounts/alice"]
        coordinator.answers[number(2)] = answer
        eventually(lambda: locks(p.cluster, "p1") == [])
        assert p.cluster.rows("p1", "SELECT count(*) FROM troth_finished WHERE number = ?", number(2)) == [(0,)]


# Rule 13.


def test_a_one_phase_request_for_another_incarnation_is_dropped_and_a_question_refuses_it_for_good(
    new_cluster: NewCluster,
) -> None:
    """Rule 13: without a trace it says nothing; asked, it refuses, and the request itself is then too late."""
    with pair(new_cluster) as p:
        before = p.one.hello.incarnation
        p.one.close()
        p.cluster.restart("p1")
        p.one.open()
        assert p.one.hello.incarnation != before
        p.one.one_phase(number(2), add("alice", -30), incarnation=before)
        p.one.inbox.quiet(OnePhaseEnded, QUIET_S)
        p.one.ask(number(2))
        assert p.one.take(Answered, number(2)).answer is Answer.ABORTED
        p.one.one_phase(number(2), add("alice", -30))
        assert p.one.take(OnePhaseEnded).outcome is Outcome.ABORTED
        assert balances(p.cluster) == (100, 100)


def test_a_one_phase_request_that_was_run_is_answered_by_its_trace_in_any_incarnation(new_cluster: NewCluster) -> None:
    """Rule 13: a trace is looked up first."""
    with pair(new_cluster) as p:
        request = p.one.one_phase(number(2), add("alice", -30))
        assert p.one.take(OnePhaseEnded).outcome is Outcome.COMMITTED
        p.one.close()
        p.cluster.kill("p1")
        p.cluster.start("p1")
        p.one.open()
        p.one.send(request, request)
        assert [p.one.take(OnePhaseEnded).outcome for _ in range(2)] == [Outcome.COMMITTED] * 2
        p.one.ask(number(2))
        assert p.one.take(Answered, number(2)).answer is Answer.COMMITTED
        p.one.send(Mark(number(3), ()))
        p.one.ask(number(2))
        p.one.inbox.quiet(Answered, QUIET_S)
        p.one.send(request)
        p.one.inbox.quiet(OnePhaseEnded, QUIET_S)
        assert balances(p.cluster) == (70, 100)


def test_a_one_phase_request_in_line_for_a_lock_is_pending(new_cluster: NewCluster) -> None:
    """Rule 13: waiting for a lock is a trace."""
    with pair(new_cluster) as p:
        p.one.prepare(number(2), read("alice"), add("alice", -1, 1))
        p.one.take(Voted, number(2))
        p.one.one_phase(number(3), read("alice"), add("alice", -30, 1))
        p.one.ask(number(3))
        assert p.one.take(Answered, number(3)).answer is Answer.PENDING
        p.one.send(Abort(number(2)))
        assert p.one.take(OnePhaseEnded, number(3)).outcome is Outcome.COMMITTED
        eventually(lambda: balances(p.cluster) == (70, 100))


def test_an_abort_names_an_attempt_and_never_ends_another_one(new_cluster: NewCluster) -> None:
    """DESIGN section 3: X aborted, its ABORT delayed; X submitted again and prepared; the old ABORT arrives."""
    with pair(new_cluster) as p:
        p.prepare_one(number(3))
        p.one.send(Abort(number(2)), Abort(number(2)))
        p.one.send(Commit(number(3)))
        p.one.take(Acknowledged, number(3))
        eventually(lambda: balances(p.cluster) == (70, 100))
        assert alarms(p.cluster, "p1") == []


def test_a_question_of_another_file_in_the_hello_of_a_lane_ends_in_an_alarm_not_in_an_answer(
    new_cluster: NewCluster,
) -> None:
    """Rule 7: a number that this log cannot have issued is an alarm; so is a question about another log."""
    cluster = new_cluster(participants=1, env=SOON)
    with ScriptedParticipant("p1", cluster["p1"].address) as p1:
        p1.questions = [number(10**6)]
        cluster.start(COORDINATOR)
        p1.wait_lane()
        eventually(lambda: alarms(cluster, COORDINATOR))
        p1.inbox.quiet(Answered, QUIET_S)
        stub = coordinator_pb2_grpc.InquiriesStub(cluster.channel(COORDINATOR))  # type: ignore[no-untyped-call]
        question = coordinator_pb2.OutcomeRequest(attempt=attempt(LOG, number(1)))
        assert stub.Outcome(question, timeout=10).answer == types_pb2.ANSWER_NONE
        assert len(alarms(cluster, COORDINATOR)) == 2
