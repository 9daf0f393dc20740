"""Messages that come late, twice, out of order, or for what the receiver has never heard of (rules 7 and 8).

The receiver is a real process; what comes is scripted, by lane or by single calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from faults.conformance.scripted import ScriptedCoordinator, ScriptedParticipant, number
from tests.cluster import COORDINATOR, Cluster, eventually
from tests.moves import (
    SCHEMA,
    SOON,
    NewCluster,
    add,
    alarms,
    attempt,
    balance,
    flush,
    insert,
    locks,
    move,
    read,
    state,
    submission,
    submit,
    submitting,
    wait_ended,
)
from troth.messages import (
    Abort,
    Acknowledged,
    Answered,
    Commit,
    Mark,
    OnePhaseEnded,
    Prepare,
    Release,
    Voted,
)
from troth.v1 import participant_pb2, types_pb2
from troth.v1.coordinator_pb2 import STATE_COMMITTED
from troth.v1.types_pb2 import Code
from troth.words import Answer, Outcome, Vote

FIRST, SECOND, THIRD = number(1), number(2), number(3)
_tests = itertools.count(1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One participant for all tests here: each has a coordinator log and a row of its own."""
    folder: Path = tmp_path_factory.mktemp("messages")
    cluster = Cluster(folder, participants=1, schema=SCHEMA, env=SOON)
    try:
        cluster.start("p1")
        yield cluster
    finally:
        cluster.close()


class One:
    """A scripted coordinator of its own log, and its own account with 100 in it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        mine = next(_tests)
        self.account = f"account{mine}"
        self.lane = ScriptedCoordinator("p1", cluster["p1"].address, log=f"{mine:016x}")
        self.alarms_before = len(alarms(cluster, "p1"))

    def __enter__(self) -> One:
        self.lane.open()
        other = ScriptedCoordinator("p1", self.cluster["p1"].address, log=f"{next(_tests):016x}")
        with other:
            other.one_phase(FIRST, insert(self.account, 100))
            other.take(OnePhaseEnded)
        return self

    def __exit__(self, *_: object) -> None:
        self.lane.__exit__()

    def pay(self, n: int, amount: int = 30) -> Prepare:
        return self.lane.prepare(n, add(self.account, -amount))

    def vote(self) -> Voted:
        return self.lane.take(Voted)

    def alarm(self) -> str:
        """The one alarm of this test."""
        found = eventually(lambda: alarms(self.cluster, "p1")[self.alarms_before :])
        assert len(found) == 1, found
        return found[0]

    def no_alarm(self) -> None:
        flush(self.cluster, "p1")
        assert alarms(self.cluster, "p1")[self.alarms_before :] == []

    def locked(self) -> bool:
        return f"accounts/{self.account}" in locks(self.cluster, "p1")

    @property
    def balance(self) -> int | None:
        flush(self.cluster, "p1")
        return balance(self.cluster, "p1", self.account)

    def settled(self) -> None:
        """Everything sent so far has been taken: the answer to this comes behind it."""
        self.lane.ask(number(900))
        assert self.lane.take(Answered).answer is Answer.ABORTED


@pytest.fixture
def one(served: Cluster) -> Iterator[One]:
    with One(served) as made:
        yield made


# Rule 8: prepares.


def test_a_prepare_that_comes_twice_votes_twice_and_takes_the_locks_once(one: One) -> None:
    """Rule 8."""
    again = one.pay(FIRST)
    assert one.vote().vote is Vote.YES
    one.lane.send(again, again)
    assert [one.vote().vote for _ in range(2)] == [Vote.YES] * 2
    one.lane.send(Commit(FIRST))
    one.lane.take(Acknowledged)
    assert not one.locked(), "one commit lets go of what three prepares asked for"
    assert one.balance == 70
    one.lane.send(again)
    one.settled()
    assert one.balance == 70, "a prepare behind its commit changes nothing"
    assert not one.locked()
    one.no_alarm()


def test_a_no_that_is_asked_for_twice_is_the_same_no(one: One) -> None:
    """Rule 8."""
    again = one.pay(FIRST, 1000)
    first = one.vote()
    one.lane.send(again)
    assert one.vote() == first
    assert first.reason is not None
    assert first.reason.code == Code.CODE_BELOW_MIN


@pytest.mark.parametrize("prepared", [True, False], ids=["after", "before"])
def test_a_prepare_that_comes_after_its_abort_is_refused(one: One, prepared: bool) -> None:
    """Rule 8: late or doubled, whether the abort found it prepared or overtook it."""
    if prepared:
        one.pay(FIRST)
        one.vote()
    one.lane.send(Abort(FIRST))
    one.pay(FIRST)
    voted = one.vote()
    assert (voted.vote, voted.reason and voted.reason.code) == (Vote.NO, Code.CODE_ENDED)
    assert not one.locked()
    assert one.balance == 100
    one.no_alarm()


def test_a_prepare_below_the_mark_is_refused_unless_the_mark_excepts_it(one: One) -> None:
    """Rules 7 and 8; a later, lower mark takes nothing back."""
    one.lane.send(Mark(THIRD, (SECOND,)))
    one.lane.send(Mark(FIRST, ()))
    one.pay(FIRST)
    voted = one.vote()
    assert (voted.vote, voted.reason and voted.reason.code) == (Vote.NO, Code.CODE_ENDED)
    one.pay(SECOND)
    assert one.vote().vote is Vote.YES
    one.lane.send(Abort(SECOND))
    one.settled()
    assert not one.locked()


def test_the_same_number_with_other_content_is_an_alarm_and_changes_nothing(one: One) -> None:
    """Rule 8."""
    one.pay(FIRST)
    assert one.vote().vote is Vote.YES
    one.pay(FIRST, 31)
    one.settled()
    assert "rule 8" in one.alarm()
    one.lane.send(Commit(FIRST))
    one.lane.take(Acknowledged)
    assert one.balance == 70


def test_the_same_number_once_to_prepare_and_once_to_decide_alone_is_an_alarm(one: One) -> None:
    """Rule 8."""
    one.pay(FIRST)
    one.vote()
    one.lane.one_phase(FIRST, add(one.account, -30))
    one.settled()
    assert "rule 8" in one.alarm()
    one.lane.send(Abort(FIRST))
    one.settled()
    assert one.balance == 100


def test_an_abort_of_one_attempt_does_not_touch_the_next_of_the_same_transaction(one: One) -> None:
    """DESIGN section 3: every message is of an attempt; late aborts of the first one arrive after the second voted."""
    one.pay(FIRST)
    one.vote()
    one.lane.send(Abort(FIRST))
    one.pay(SECOND)
    assert one.vote().vote is Vote.YES
    one.lane.send(Abort(FIRST), Release(FIRST), Commit(SECOND))
    one.lane.take(Acknowledged, SECOND)
    assert one.balance == 70
    one.no_alarm()


# Rule 7: commits.


def test_a_commit_without_a_trace_above_the_mark_is_an_alarm_and_not_acknowledged(one: One) -> None:
    """Rule 7."""
    one.lane.send(Mark(SECOND, ()), Commit(SECOND))
    one.settled()
    one.lane.inbox.quiet(Acknowledged, 0.1)
    assert "rule 7" in one.alarm()


def test_a_commit_below_the_mark_is_a_late_duplicate_and_acknowledged(one: One) -> None:
    """Rule 7."""
    one.lane.send(Mark(SECOND, ()), Commit(FIRST))
    assert one.lane.take(Acknowledged) == Acknowledged(FIRST)
    one.no_alarm()


def test_a_commit_that_the_mark_excepts_is_above_it(one: One) -> None:
    """Rule 7: below is below and not listed."""
    one.lane.send(Mark(THIRD, (FIRST,)), Commit(FIRST), Commit(SECOND))
    assert one.lane.take(Acknowledged) == Acknowledged(SECOND)
    one.lane.inbox.quiet(Acknowledged, 0.1)
    assert "rule 7" in one.alarm()


def test_what_is_prepared_below_the_mark_still_commits(one: One) -> None:
    """Rule 7: a late duplicate is only of what is not prepared here."""
    one.pay(FIRST)
    one.vote()
    one.lane.send(Mark(THIRD, ()), Commit(FIRST))
    one.lane.take(Acknowledged)
    assert one.balance == 70


def test_a_commit_that_overtakes_its_prepare_is_an_alarm_and_the_prepare_still_votes(one: One) -> None:
    """Rule 7: nobody can have decided it; the word is not given."""
    one.lane.send(Commit(FIRST))
    one.settled()
    assert "rule 7" in one.alarm()
    one.pay(FIRST)
    assert one.vote().vote is Vote.YES
    assert one.balance == 100
    one.lane.send(Abort(FIRST))
    one.settled()


def test_a_commit_after_an_abort_and_an_abort_after_a_commit_are_alarms(one: One) -> None:
    """Agreement: what has ended one way never ends the other way."""
    one.pay(FIRST)
    one.vote()
    one.lane.send(Commit(FIRST))
    one.lane.take(Acknowledged)
    one.lane.send(Abort(FIRST))
    one.settled()
    one.alarm()
    assert one.balance == 70
    one.pay(SECOND)
    one.vote()
    one.lane.send(Abort(SECOND))
    one.settled()
    one.lane.send(Commit(SECOND))
    one.lane.inbox.quiet(Acknowledged, 0.1)
    eventually(lambda: len(alarms(one.cluster, "p1")) == one.alarms_before + 2)
    assert one.balance == 70


def test_a_commit_that_comes_twice_is_acknowledged_twice_and_applied_once(one: One) -> None:
    """Rule 5."""
    one.pay(FIRST)
    one.vote()
    one.lane.send(Commit(FIRST))
    one.lane.take(Acknowledged)
    one.lane.send(Commit(FIRST))
    one.lane.take(Acknowledged)
    assert one.balance == 70


def test_an_answer_that_nobody_asked_for_changes_nothing(one: One) -> None:
    """Answers may come late and twice; only a branch in doubt listens."""
    one.lane.send(Answered(FIRST, Answer.COMMITTED), Answered(FIRST, Answer.ABORTED))
    one.pay(FIRST)
    assert one.vote().vote is Vote.YES
    one.lane.send(Answered(FIRST, Answer.COMMITTED))
    one.lane.take(Acknowledged)
    one.lane.send(Answered(FIRST, Answer.ABORTED), Answered(FIRST, Answer.ABORTED))
    one.settled()
    assert one.balance == 70
    one.no_alarm()


def test_what_two_coordinators_say_is_of_their_own_logs(served: Cluster) -> None:
    """DESIGN section 3: a number, a mark and an abort are per coordinator log."""
    with One(served) as one, One(served) as other:
        one.pay(FIRST)
        one.vote()
        other.lane.send(Mark(THIRD, ()), Abort(FIRST), Commit(FIRST))
        other.lane.take(Acknowledged)
        assert one.locked()
        one.lane.send(Commit(FIRST))
        one.lane.take(Acknowledged)
        assert one.balance == 70


# The same after a restart.


def test_marks_and_ends_last_over_a_kill(new_cluster: NewCluster) -> None:
    """Rule 7: the mark is kept durably, remembered ends too; a kill loses at most what nobody was promised."""
    cluster = new_cluster(participants=1, schema=SCHEMA, env={**SOON, "TROTH_PARTICIPANT_FORGET_INTERVAL": "10ms"})
    cluster.start("p1")
    with One(cluster) as one:
        for n in (FIRST, SECOND):
            one.pay(n, 10)
            one.vote()
            one.lane.send(Commit(n))
            one.lane.take(Acknowledged)
        one.lane.send(Mark(SECOND, ()))
        eventually(lambda: cluster.rows("p1", "SELECT low FROM troth_marks") == [(SECOND,)])
        assert cluster.rows("p1", "SELECT number FROM troth_finished WHERE number <> ?", FIRST) == [(SECOND,)]
        one.lane.close()
        cluster.kill("p1")
        cluster.start("p1")
        one.lane.open()
        one.lane.send(Commit(FIRST), Commit(SECOND))
        assert {one.lane.take(Acknowledged).number for _ in range(2)} == {FIRST, SECOND}
        one.pay(FIRST)
        assert one.vote().vote is Vote.NO
        one.lane.send(Commit(THIRD))
        one.settled()
        assert "rule 7" in eventually(lambda: alarms(cluster, "p1"))[0]
        assert one.balance == 80


# Single calls.


class Calls:
    """The unary Branches service of p1, under a log of its own."""

    def __init__(self, one: One) -> None:
        self.stub = one.cluster.branches("p1")
        self.account = one.account
        self.log = one.lane.log

    def prepare(self, n: int, amount: int = 30) -> participant_pb2.Voted:
        operations = types_pb2.Operations(operations=[add(self.account, -amount)])
        request = participant_pb2.PrepareRequest(attempt=attempt(self.log, n), operations=operations)
        return self.stub.Prepare(request, timeout=10)  # type: ignore[no-any-return]

    def commit(self, n: int) -> participant_pb2.Acknowledged:
        return self.stub.Commit(participant_pb2.BranchRequest(attempt=attempt(self.log, n)), timeout=10)  # type: ignore[no-any-return]

    def abort(self, n: int) -> participant_pb2.Acknowledged:
        return self.stub.Abort(participant_pb2.BranchRequest(attempt=attempt(self.log, n)), timeout=10)  # type: ignore[no-any-return]


def refused(error: pytest.ExceptionInfo[grpc.RpcError]) -> bool:
    return error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_single_calls_late_doubled_and_with_other_content(one: One) -> None:
    """Rules 7 and 8: a caller gets the answer, or what is wrong, and never waits for nothing."""
    calls = Calls(one)
    assert [calls.prepare(FIRST).vote for _ in range(2)] == [types_pb2.VOTE_YES] * 2
    with pytest.raises(grpc.RpcError) as other:
        calls.prepare(FIRST, 31)
    assert refused(other)
    assert [calls.commit(FIRST).number for _ in range(2)] == [FIRST] * 2
    with pytest.raises(grpc.RpcError) as late:
        calls.prepare(FIRST)
    assert refused(late)
    with pytest.raises(grpc.RpcError) as torn:
        calls.abort(FIRST)
    assert refused(torn)
    assert calls.abort(SECOND).number == SECOND
    voted = calls.prepare(SECOND)
    assert (voted.vote, voted.reason.code) == (types_pb2.VOTE_NO, Code.CODE_ENDED)
    with pytest.raises(grpc.RpcError) as unknown:
        calls.commit(THIRD)
    assert refused(unknown)
    assert one.balance == 70


def test_a_single_prepare_in_line_for_a_lock_hears_of_its_abort(one: One) -> None:
    """A call whose branch ends before its vote is answered, not forgotten."""
    one.lane.prepare(FIRST, read(one.account), add(one.account, -1, 1))
    one.vote()
    operations = types_pb2.Operations(operations=[read(one.account), add(one.account, -2, 1)])
    request = participant_pb2.PrepareRequest(attempt=attempt(one.lane.log, SECOND), operations=operations)
    waiting = one.cluster.branches("p1").Prepare.future(request, timeout=10)
    eventually(lambda: locks(one.cluster, "p1").count(f"accounts/{one.account}") == 2)
    Calls(one).abort(SECOND)
    error = waiting.exception()
    assert isinstance(error, grpc.RpcError)
    assert error.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION)
    one.lane.send(Abort(FIRST))
    one.settled()


# Towards the coordinator.


def test_votes_and_acknowledgements_late_doubled_and_out_of_order_decide_nothing_twice(new_cluster: NewCluster) -> None:
    """Rules 2, 4 and 8 at the coordinator: the first vote counts, an acknowledgement of nothing is nothing."""
    cluster = new_cluster(participants=2, env=SOON)
    with (
        ScriptedParticipant("p1", cluster["p1"].address) as p1,
        ScriptedParticipant("p2", cluster["p2"].address, identity="e" * 16) as p2,
    ):
        cluster.start(COORDINATOR)
        p1.wait_lane()
        p2.wait_lane()
        cluster.wait_lanes()
        waiting = submitting(cluster, move(id="order-1", timeout_s=20))
        n = p1.take_prepare().number
        assert p2.take_prepare().number == n, "one attempt, one number"
        yes = Voted(n, Vote.YES, 1)
        p1.send(Acknowledged(n), yes, yes, Voted(n, Vote.NO, 1), Voted(number(999), Vote.YES, 1))
        flush(cluster, COORDINATOR)
        assert not waiting.done(), "doubled votes of one are not votes of two"
        p2.inbox.quiet(Commit, 0.1)
        p2.send(Acknowledged(n), yes)
        assert waiting.result().outcome == Outcome.COMMITTED
        assert p1.inbox.take(Commit).number == p2.inbox.take(Commit).number == n
        p1.send(Voted(n, Vote.NO, 1), Acknowledged(n), Acknowledged(n))
        flush(cluster, COORDINATOR)
        p2.inbox.take(Commit)
        p2.send(Acknowledged(n), Voted(n, Vote.NO, 1))
        wait_ended(cluster)
        p2.send(Acknowledged(n), yes)
        flush(cluster, COORDINATOR)
        assert state(cluster, "order-1") == STATE_COMMITTED
        assert submit(cluster, move(id="order-1")).outcome == Outcome.COMMITTED
        assert alarms(cluster, COORDINATOR) == []


def test_a_read_only_vote_for_a_branch_that_writes_is_an_alarm_and_no_vote(new_cluster: NewCluster) -> None:
    """Rule 6: only a branch that was sent as read-only may vote so."""
    cluster = new_cluster(participants=2, env={**SOON, "TROTH_COORDINATOR_VOTE_TIMEOUT": "300ms"})
    with (
        ScriptedParticipant("p1", cluster["p1"].address) as p1,
        ScriptedParticipant("p2", cluster["p2"].address, identity="e" * 16) as p2,
    ):
        cluster.start(COORDINATOR)
        p1.wait_lane()
        p2.wait_lane()
        cluster.wait_lanes()
        waiting = submitting(cluster, move(timeout_s=0.4))
        p1.vote(p1.take_prepare(), Vote.READ_ONLY)
        p2.vote(p2.take_prepare())
        assert waiting.result().outcome == Outcome.ABORTED
        assert "rule 6" in alarms(cluster, COORDINATOR)[0]
        p2.inbox.take(Abort)


def test_a_mark_never_passes_what_is_not_acknowledged(new_cluster: NewCluster) -> None:
    """Rule 7: it lists what is owed, or stays below it."""
    cluster = new_cluster(participants=2, env={**SOON, "TROTH_COORDINATOR_MARK_AGE": "50ms"})
    with (
        ScriptedParticipant("p1", cluster["p1"].address) as p1,
        ScriptedParticipant("p2", cluster["p2"].address, identity="e" * 16) as p2,
    ):
        cluster.start(COORDINATOR)
        p1.wait_lane()
        p2.wait_lane()
        cluster.wait_lanes()
        owed = submitting(cluster, move())
        n = p1.take_prepare().number
        p1.vote(Prepare(n, b"", False, ()))
        p2.vote(p2.take_prepare())
        assert owed.result().outcome == Outcome.COMMITTED
        p1.send(Acknowledged(n))
        eventually(lambda: p1.inbox.take(Commit).number == n)
        for sequence in range(3):
            reading = submitting(cluster, submission({"p1": [read("alice")]}))
            later = p1.take_prepare()
            p1.vote(later, Vote.READ_ONLY)
            assert reading.result().outcome == Outcome.COMMITTED, sequence

        def passed() -> bool:
            mark = p1.inbox.take(Mark)
            assert n >= mark.low or n in mark.excepted, mark
            return mark.low > n

        eventually(passed)
        p2.send(Acknowledged(n))
        eventually(lambda: p1.inbox.take(Mark).excepted == ())
