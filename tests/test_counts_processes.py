"""The table of counts in DESIGN section 3, row by row, on real processes: forced and lazy records, messages each way,
and flushes, which are fdatasyncs, where the table determines them.

`test_counts.py` asserts the same on the nodes. Counters are read through the Status services before and after one
transaction, with everything durable that was queued before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from faults.conformance.scripted import LOG, ScriptedParticipant, number
from tests.cluster import COORDINATOR, Cluster, eventually
from tests.injection import counted
from tests.moves import (
    SCHEMA,
    SOON,
    NewCluster,
    add,
    attempt,
    committed,
    doubt,
    flush,
    insert,
    locks,
    move,
    open_accounts,
    read,
    submission,
    submit,
    wait_ended,
    wait_in_doubt,
)
from troth.messages import Acknowledged, Commit
from troth.v1 import coordinator_pb2, participant_pb2, types_pb2
from troth.v1.coordinator_pb2 import SubmitRequest
from troth.words import Outcome, Vote

QUIET = {**SOON, "TROTH_PARTICIPANT_INQUIRY_AFTER": "1h", "TROTH_COORDINATOR_RETRY_MAX": "1h"}
"""Nothing is asked or sent again because the machine is slow."""


class Counts(NamedTuple):
    """Of one process, or what one transaction added to them."""

    forced: int
    lazy: int
    flushes: int
    sent: int
    received: int


def counts(cluster: Cluster, name: str) -> Counts:
    now = cluster.counters(name)[name]
    return Counts(now.forced, now.lazy, now.flushes, sum(now.sent.values()), sum(now.received.values()))


def added(before: Counts, after: Counts) -> Counts:
    return Counts(*(b - a for a, b in zip(before, after, strict=True)))


class Ledger:
    """What the processes of a cluster counted while it was entered."""

    def __init__(self, cluster: Cluster, names: Sequence[str]) -> None:
        self._cluster = cluster
        self._names = names
        self._before: dict[str, Counts] = {}

    def __enter__(self) -> Ledger:
        for name in self._names:
            flush(self._cluster, name)
        self._before = {name: counts(self._cluster, name) for name in self._names}
        return self

    def __exit__(self, *_: object) -> None:
        return

    def now(self) -> list[Counts]:
        return [added(self._before[name], counts(self._cluster, name)) for name in self._names]

    def expect(self, *expected: Counts) -> None:
        """Fails unless just this is added, and nothing more when all is quiet. A lazy record rides on a flush of its
        own here, for no other comes: it is waited for."""
        try:
            eventually(lambda: self.now() == list(expected), within_s=2.0)
        except AssertionError:
            assert self.now() == list(expected)
        wait_ended(self._cluster)
        for name in self._names:
            flush(self._cluster, name)
        assert self.now() == list(expected)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Alice has much at p1, bob at p2; nothing is written but for transactions."""
    folder: Path = tmp_path_factory.mktemp("counts")
    with Cluster(folder, participants=2, schema=SCHEMA, env=QUIET) as cluster:
        committed(
            cluster, submission({"p1": [insert("alice", 10**6)], "p2": [insert("bob", 10**6)]}, wait_applied=True)
        )
        yield cluster


@pytest.fixture
def ledger(bank: Cluster) -> Iterator[Ledger]:
    wait_ended(bank)
    with Ledger(bank, [COORDINATOR, "p1", "p2"]) as made:
        yield made


NO = add("bob", -(10**9), 1)

TWO_PHASES = Counts(forced=2, lazy=0, flushes=2, sent=2, received=2)
NOTHING = Counts(0, 0, 0, 0, 0)
VOTED_YES = Counts(forced=1, lazy=1, flushes=2, sent=1, received=2)
VOTED_NO = Counts(forced=0, lazy=0, flushes=0, sent=1, received=1)
READ_ONLY = Counts(forced=0, lazy=0, flushes=0, sent=1, received=2)


def coordinator(forced: int, lazy: int, *participants: Counts) -> Counts:
    """Each of its records has a flush of its own here, and its messages are those of the participants."""
    received = sum(each.sent for each in participants)
    return Counts(forced, lazy, forced + lazy, sum(each.received for each in participants), received)


ROWS: dict[str, tuple[SubmitRequest, Outcome, int, int, Counts, Counts]] = {
    # case: (submission, outcome, the coordinator's forced and lazy, p1, p2)
    "commit": (move(1), Outcome.COMMITTED, 1, 1, TWO_PHASES, TWO_PHASES),
    "commit, client's id": (move(1, id="commit"), Outcome.COMMITTED, 1, 1, TWO_PHASES, TWO_PHASES),
    "one READ_ONLY": (
        submission({"p1": [add("alice", -1)], "p2": [read("bob", 1)]}),
        Outcome.COMMITTED,
        1,
        1,
        TWO_PHASES,
        READ_ONLY,
    ),
    "every one READ_ONLY": (
        submission({"p1": [read("alice")], "p2": [read("bob", 1)]}),
        Outcome.COMMITTED,
        0,
        0,
        READ_ONLY,
        READ_ONLY,
    ),
    "every one READ_ONLY, client's id": (
        submission({"p1": [read("alice")], "p2": [read("bob", 1)]}, id="reads"),
        Outcome.COMMITTED,
        1,
        0,
        READ_ONLY,
        READ_ONLY,
    ),
    "only one, READ_ONLY": (submission({"p2": [read("bob")]}), Outcome.COMMITTED, 0, 0, NOTHING, READ_ONLY),
    "only one, READ_ONLY, client's id": (
        submission({"p2": [read("bob")]}, id="read"),
        Outcome.COMMITTED,
        1,
        0,
        NOTHING,
        READ_ONLY,
    ),
    "one-phase": (submission({"p1": [add("alice", -1)]}), Outcome.COMMITTED, 0, 0, Counts(1, 0, 1, 1, 1), NOTHING),
    "one-phase NO": (submission({"p2": [NO]}), Outcome.ABORTED, 0, 0, NOTHING, VOTED_NO),
    "one-phase, client's id": (
        submission({"p1": [add("alice", -1)]}, id="alone"),
        Outcome.COMMITTED,
        1,
        1,
        Counts(1, 0, 1, 1, 1),
        NOTHING,
    ),
    "one-phase NO, client's id": (submission({"p2": [NO]}, id="alone no"), Outcome.ABORTED, 2, 0, NOTHING, VOTED_NO),
}


@pytest.mark.parametrize("case", ROWS)
def test_counts(bank: Cluster, ledger: Ledger, case: str) -> None:
    request, outcome, forced, lazy, p1, p2 = ROWS[case]
    result = submit(bank, request)
    assert (result.outcome, result.attempts) == (outcome, 1)
    ledger.expect(coordinator(forced, lazy, p1, p2), p1, p2)


# Rows in which one participant votes before the other: one is scripted, or waits for a lock.


@contextmanager
def with_scripted_p2(new_cluster: NewCluster, **settings: str) -> Iterator[tuple[Cluster, ScriptedParticipant, Ledger]]:
    cluster = new_cluster(participants=2, schema=SCHEMA, env={**QUIET, **settings})
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        with Ledger(cluster, [COORDINATOR, "p1"]) as ledger:
            yield cluster, p2, ledger


@pytest.mark.parametrize("id", ["", "order-1"], ids=["assigned", "chosen"])
def test_abort_after_a_yes(new_cluster: NewCluster, id: str) -> None:
    """0 at the coordinator, and 1F with a client's id; 1F + 1L and 2/1 where it voted YES; 1/1 where it voted NO."""
    with with_scripted_p2(new_cluster) as (cluster, p2, ledger):
        waiting = cluster.commands.Submit.future(move(id=id), timeout=20)
        prepare = p2.take_prepare()
        wait_in_doubt(cluster, "p1")
        p2.vote(prepare, Vote.NO)
        assert waiting.result().outcome == Outcome.ABORTED
        forced = 1 if id else 0
        ledger.expect(Counts(forced, 0, forced, 3, 2), VOTED_YES)


@pytest.mark.parametrize("id", ["", "order-1"], ids=["assigned", "chosen"])
def test_abort_before_the_participant_voted(bank: Cluster, id: str) -> None:
    """At most 1L, and 2 / at most 1 message: here it waits for a lock, so nothing at all is written or said."""
    wait_ended(bank)
    held = participant_pb2.PrepareRequest(
        attempt=attempt(LOG, number(1 if id else 2)),
        operations=types_pb2.Operations(operations=[read("alice"), add("alice", -1, 1)]),
    )
    bank.branches("p1").Prepare(held, timeout=10)
    try:
        with Ledger(bank, [COORDINATOR, "p1", "p2"]) as ledger:
            request = submission({"p1": [add("alice", -1)], "p2": [NO]}, id=id)
            assert submit(bank, request).outcome == Outcome.ABORTED
            told = Counts(0, 0, 0, 0, 2)
            forced = 1 if id else 0
            eventually(lambda: ledger.now() == [Counts(forced, 0, forced, 3, 1), told, VOTED_NO])
    finally:
        bank.branches("p1").Abort(participant_pb2.BranchRequest(attempt=held.attempt), timeout=10)
    assert locks(bank, "p1") == []


def test_an_abort_that_is_tried_again_writes_nothing(new_cluster: NewCluster) -> None:
    """Rule 11: the outcome of an attempt that is tried again is the attempt's, not the id's."""
    with with_scripted_p2(new_cluster, TROTH_COORDINATOR_VOTE_TIMEOUT="300ms") as (cluster, p2, ledger):
        waiting = cluster.commands.Submit.future(move(id="order-1", timeout_s=20), timeout=30)
        p2.take_prepare()
        p2.vote(p2.take_prepare())
        result = waiting.result()
        assert (result.outcome, result.attempts) == (Outcome.COMMITTED, 2)
        p2.send(Acknowledged(p2.inbox.take(Commit).number))
        # Two prepares and an abort each, one commit each; p1 voted YES twice.
        eventually(lambda: [each[:2] for each in ledger.now()] == [(1, 1), (3, 1)])
        assert [each[3:] for each in ledger.now()] == [(8, 5), (3, 4)]


# What comes in addition.


def test_a_peer_that_refuses_forces_one_record(bank: Cluster, ledger: Ledger) -> None:
    """Rule 6: 1F at that peer, and none when it is asked again."""
    status = bank.status("p2")
    assert isinstance(status, participant_pb2.ParticipantStatus)
    question = coordinator_pb2.OutcomeRequest(attempt=attempt(LOG, number(77)), identity=status.identity)
    for _ in range(2):
        assert bank.branches("p2").Outcome(question, timeout=10).answer == types_pb2.ANSWER_ABORTED
    ledger.expect(NOTHING, NOTHING, Counts(forced=1, lazy=0, flushes=1, sent=2, received=2))


def test_a_heuristic_acknowledgement_forces_one_record(new_cluster: NewCluster) -> None:
    """Rule 12: 1F more at the coordinator, before the mark passes it."""
    with with_scripted_p2(new_cluster) as (cluster, p2, ledger):
        waiting = cluster.commands.Submit.future(move(), timeout=20)
        prepare = p2.take_prepare()
        wait_in_doubt(cluster, "p1")
        by_hand = participant_pb2.ResolveBranchRequest(
            attempt=doubt(cluster, "p1")[0].attempt, outcome=types_pb2.OUTCOME_COMMITTED, reason="a test"
        )
        cluster.branches("p1").Resolve(by_hand, timeout=10)
        p2.vote(prepare)
        assert waiting.result().outcome == Outcome.COMMITTED
        p2.send(Acknowledged(p2.inbox.take(Commit).number))
        # p1: prepared, resolved, learnt.
        eventually(lambda: [each[:2] for each in ledger.now()] == [(2, 1), (3, 0)])


# The kernel's count.


@pytest.mark.needs_strace
def test_a_commit_costs_as_many_fdatasyncs_as_flushes(new_cluster: NewCluster, tmp_path: Path) -> None:
    """DESIGN section 4: one fdatasync for each flush, and no other sync of any file."""
    with new_cluster(participants=2, schema=SCHEMA, env=QUIET) as cluster:
        open_accounts(cluster)
        wait_ended(cluster)
        names = list(cluster.processes)
        with ExitStack() as stack, Ledger(cluster, names) as ledger:
            seen: list[Callable[[], int]] = [
                stack.enter_context(
                    counted(cluster[name].pid, "fdatasync,fsync,sync_file_range,msync", tmp_path / name)
                )
                for name in names
            ]
            submit(cluster, move())
            ledger.expect(coordinator(1, 1, TWO_PHASES, TWO_PHASES), TWO_PHASES, TWO_PHASES)
        assert [count() for count in seen] == [2, 2, 2]
