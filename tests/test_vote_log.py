"""The vote log: each job's effect (participant/events.py), and what a start finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from participant.events import (
    Apply,
    Denied,
    Forget,
    Found,
    Heuristic,
    Job,
    Learn,
    Note,
    Resolve,
    RunAlone,
    Tried,
    Try,
    Undo,
)
from participant.log import SCHEMA, VoteLog
from participant.resources import InDoubt, Lock, Mode, No, Plan, Prepared, Resource
from tests.log_helpers import Recorder
from troth.log import AT_ONCE_S, LogFailed, LogFile, LogWriter
from troth.messages import Mark, Peer
from troth.reasons import reason
from troth.v1.types_pb2 import Code
from troth.words import AttemptId, Outcome

LOG, OTHER = "a" * 16, "b" * 16
X, Y, Z = (AttemptId(LOG, number) for number in (101, 102, 103))
PEERS = (Peer("p2", "127.0.0.1:7402", "2" * 16),)
VALUES: dict[tuple[tuple[object, ...], str], int] = {(("row", "t", 1), "n"): 5}
DENIED = reason(Code.CODE_BELOW_MIN, "n would be -1")


class Fake(Resource):
    """Knows only what was asked of it. Operations are words: `no` is a NO, `break` an error, `end` ends the batch."""

    def __init__(self, file: LogFile) -> None:
        self.asked: list[tuple[str, AttemptId]] = []
        self._file = file

    def plan(self, operations: bytes) -> Plan:
        return Plan((Lock(("row", operations), Mode.EXCLUSIVE),), operations, False)

    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        self.asked.append(("prepare", attempt))
        self._change_and_roll_back()
        if plan.work == b"no":
            raise No(DENIED)
        if plan.work == b"break":
            raise OSError("the resource is gone")
        if plan.work == b"end":
            self._file.connection.execute("ROLLBACK")
        return Prepared(b"rows", VALUES)

    def _change_and_roll_back(self) -> None:
        for statement in ("SAVEPOINT t", "DELETE FROM troth_meta", "ROLLBACK TO t", "RELEASE t"):
            self._file.connection.execute(statement)

    def commit(self, attempt: AttemptId, plan: Plan) -> None:
        self.asked.append(("commit", attempt))

    def abort(self, attempt: AttemptId, plan: Plan | None) -> None:
        self.asked.append(("abort", attempt))

    def recover(self, prepared: Sequence[tuple[AttemptId, bytes]]) -> list[InDoubt]:
        return [InDoubt(attempt, self.plan(operations), VALUES) for attempt, operations in reversed(prepared)]


class Participant:
    """A vote log over a fake resource, in one file."""

    def __init__(self, path: Path, history: bool = True) -> None:
        self.file = LogFile.open(path, role="participant", name="p1", schema=SCHEMA)
        self.resource = Fake(self.file)
        self.log = VoteLog(self.file, self.resource, history)

    def write(self, *jobs: Job) -> list[tuple[int, Tried | Denied]]:
        self.file.begin()
        results = self.log.write(list(enumerate(jobs, 1)))
        self.file.commit(len(jobs))
        return results

    def rows(self, table: str, columns: str = "number") -> list[tuple[object, ...]]:
        return self.file.connection.execute(f"SELECT {columns} FROM troth_{table} ORDER BY 1, 2").fetchall()

    def ledger(self) -> tuple[list[object], dict[object, object]]:
        """The attempts prepared, and the outcomes remembered."""
        prepared = [number for number, _ in self.rows("prepared", "number, log")]
        return prepared, {number: outcome for _, number, outcome in self.rows("finished", "log, number, outcome")}


@pytest.fixture
def participant(tmp_path: Path) -> Iterator[Participant]:
    participant = Participant(tmp_path / "p1.db")
    yield participant
    participant.file.close()


def plan(operations: bytes = b"work") -> Plan:
    return Plan((), operations, False)


def try_(attempt: AttemptId, operations: bytes = b"work", read_only: bool = False) -> Try:
    return Try(attempt, operations, plan(operations), read_only, PEERS, 1.0)


def apply(attempt: AttemptId) -> Apply:
    return Apply(attempt, b"work", plan(), 2.0)


def undo(attempt: AttemptId) -> Undo:
    return Undo(attempt, plan(), 2.0)


def resolve(attempt: AttemptId, outcome: Outcome) -> Resolve:
    return Resolve(attempt, b"work", plan(), outcome, "the coordinator burnt", 3.0)


# Trials.


def test_a_trial_that_succeeds_leaves_a_prepared_record(participant: Participant) -> None:
    assert participant.write(try_(X)) == [(1, Tried(b"rows", VALUES))]
    assert participant.ledger() == ([101], {})


def test_a_read_only_trial_leaves_nothing(participant: Participant) -> None:
    assert participant.write(try_(X, read_only=True)) == [(1, Tried(b"rows", VALUES))]
    assert participant.ledger() == ([], {})


def test_a_denied_trial_leaves_nothing_and_the_batch_goes_on(participant: Participant) -> None:
    assert participant.write(try_(X, b"no"), try_(Y)) == [(1, Denied(DENIED)), (2, Tried(b"rows", VALUES))]
    assert participant.ledger() == ([102], {})


@pytest.mark.parametrize("one_phase", [True, False])
def test_any_error_but_no_stops_the_batch(participant: Participant, one_phase: bool) -> None:
    participant.file.begin()
    job = RunAlone(X, b"break", plan(b"break"), 1.0) if one_phase else try_(X, b"break")
    with pytest.raises(OSError, match="the resource is gone"):
        participant.log.write([(1, job)])


@pytest.mark.parametrize("one_phase", [True, False])
def test_a_trial_that_ended_the_transaction_is_no_vote(participant: Participant, one_phase: bool) -> None:
    """An error that SQLite answers with a rollback of everything could have been taken for a NO."""
    participant.file.begin()
    job = RunAlone(X, b"end", plan(b"end"), 1.0) if one_phase else try_(X, b"end")
    with pytest.raises(LogFailed, match="ended the transaction of its whole batch"):
        participant.log.write([(1, job)])


def test_jobs_reach_the_resource_in_the_order_of_the_queue(participant: Participant) -> None:
    participant.write(try_(X), try_(Y))
    participant.resource.asked.clear()
    participant.write(apply(X), try_(Z), undo(Y))
    assert participant.resource.asked == [("commit", X), ("prepare", Z), ("abort", Y)]


# Ends.


def test_applying_takes_the_prepared_record_and_remembers_committed(participant: Participant) -> None:
    participant.write(try_(X))
    participant.write(apply(X))
    assert participant.ledger() == ([], {101: 1})


def test_applying_what_is_not_prepared_is_a_failure(participant: Participant) -> None:
    participant.file.begin()
    with pytest.raises(LogFailed, match="were prepared"):
        participant.log.write([(1, apply(X))])


def test_undoing_takes_the_prepared_record_and_remembers_aborted(participant: Participant) -> None:
    participant.write(try_(X))
    participant.write(undo(X))
    assert participant.ledger() == ([], {101: 2})


def test_undoing_in_the_batch_of_the_trial_leaves_no_record(participant: Participant) -> None:
    participant.write(try_(X), undo(X))
    assert participant.ledger() == ([], {101: 2})


def test_a_refusal_of_what_never_voted_is_remembered_and_may_come_twice(participant: Participant) -> None:
    """Rule 6: a peer refuses durably before it says aborted."""
    participant.write(Undo(X, None, 1.0))
    participant.write(Undo(X, None, 2.0), Undo(Y, None, 2.0))
    assert participant.ledger() == ([], {101: 2, 102: 2})


def test_another_outcome_in_place_of_a_remembered_one_is_a_failure(participant: Participant) -> None:
    participant.write(try_(X))
    participant.write(apply(X))
    participant.file.begin()
    with pytest.raises(LogFailed, match="COMMITTED and now ABORTED"):
        participant.log.write([(1, undo(X))])


def test_a_one_phase_branch_is_applied_and_remembered_in_one_step(participant: Participant) -> None:
    """Rule 13."""
    work = RunAlone(X, b"work", plan(), 1.0)
    assert participant.write(work) == [(1, Tried(b"rows", VALUES))]
    assert participant.resource.asked == [("prepare", X), ("commit", X)]
    assert participant.ledger() == ([], {101: 1})


def test_a_denied_one_phase_branch_leaves_nothing(participant: Participant) -> None:
    assert participant.write(RunAlone(X, b"no", plan(b"no"), 1.0)) == [(1, Denied(DENIED))]
    assert participant.ledger() == ([], {})


@pytest.mark.parametrize("jobs", [(try_(X, read_only=True),), (try_(X, b"no"), RunAlone(Y, b"no", plan(b"no"), 1.0))])
def test_trials_that_leave_nothing_cost_no_flush(participant: Participant, jobs: tuple[Job, ...]) -> None:
    """DESIGN section 3, counts: READ_ONLY and NO are free of fdatasyncs."""
    recorder = Recorder()
    writer: LogWriter[Job, Tried | Denied] = LogWriter(
        participant.file, participant.log.write, on_flushed=recorder.flushed, on_failure=recorder.failed
    )
    writer.put([(n, job, AT_ONCE_S) for n, job in enumerate(jobs, 1)])
    writer.start()
    kind, upto, results = recorder.next()
    assert (kind, upto, len(results)) == ("flushed", len(jobs), len(jobs))
    assert writer.flushes == 0
    writer.put([(9, try_(Z), AT_ONCE_S)])
    recorder.next()
    assert writer.flushes == 1
    writer.close()


# History.


def test_history_keeps_what_was_applied_in_order(participant: Participant) -> None:
    participant.write(try_(X), try_(Y), try_(Z))
    participant.write(apply(Y), undo(Z), RunAlone(AttemptId(OTHER, 1), b"alone", plan(), 2.0))
    participant.write(resolve(X, Outcome.COMMITTED))
    history = participant.rows("history", "position, number, operations")
    assert [tuple(row[1:]) for row in history] == [(102, b"work"), (1, b"alone"), (101, b"work")]


def test_without_history_none_is_kept(tmp_path: Path) -> None:
    participant = Participant(tmp_path / "p1.db", history=False)
    participant.write(RunAlone(X, b"work", plan(), 1.0))
    assert participant.rows("history", "position, number") == []
    participant.file.close()


# By hand (rule 12).


@pytest.mark.parametrize(("outcome", "asked"), [(Outcome.COMMITTED, "commit"), (Outcome.ABORTED, "abort")])
def test_a_branch_resolved_by_hand_is_kept_as_such(participant: Participant, outcome: Outcome, asked: str) -> None:
    participant.write(try_(X))
    participant.resource.asked.clear()
    participant.write(resolve(X, outcome))
    assert participant.resource.asked == [(asked, X)]
    assert participant.ledger() == ([], {})
    assert participant.log.recover().heuristics == (Heuristic(X, outcome, None, 3.0, PEERS),)
    participant.write(Learn(X, Outcome.COMMITTED, 4.0))
    assert participant.log.recover().heuristics == (Heuristic(X, outcome, Outcome.COMMITTED, 3.0, PEERS),)
    assert participant.rows("audit", "at, subject, what, reason") == [
        (3.0, str(X), f"resolved by hand as {outcome.name}", "the coordinator burnt"),
        (4.0, str(X), "the true outcome is COMMITTED", ""),
    ]


def test_resolving_what_is_not_prepared_is_a_failure(participant: Participant) -> None:
    participant.file.begin()
    with pytest.raises(LogFailed, match="was not prepared"):
        participant.log.write([(1, resolve(X, Outcome.ABORTED))])


# Marks (rule 7).


def test_outcomes_below_the_mark_go_except_those_listed_and_the_mark_stays(participant: Participant) -> None:
    attempts = [AttemptId(LOG, number) for number in range(10)]
    participant.write(*map(undo, attempts), undo(AttemptId(OTHER, 3)))
    participant.write(Forget(LOG, Mark(7, (0, 2, 3, 6))))
    kept = [attempt.number for attempt, _ in participant.log.recover().finished if attempt.log == LOG]
    assert kept == [0, 2, 3, 6, 7, 8, 9]
    assert (AttemptId(OTHER, 3), Outcome.ABORTED) in participant.log.recover().finished
    participant.write(Forget(LOG, Mark(9, (3,))))
    assert participant.log.recover().marks == ((LOG, Mark(9, (3,))),)


def test_an_outcome_queued_before_a_mark_goes_by_it_too(participant: Participant) -> None:
    participant.write(undo(X), Forget(LOG, Mark(102, ())), undo(Y))
    assert participant.ledger() == ([], {102: 2})


def test_a_mark_takes_no_prepared_record(participant: Participant) -> None:
    participant.write(try_(X), Forget(LOG, Mark(1000, ())))
    assert participant.ledger() == ([101], {})


# What a start finds.


def test_a_start_finds_everything_and_the_resource_plans_again(participant: Participant, tmp_path: Path) -> None:
    participant.write(Note(LOG, "127.0.0.1:7400"), try_(Y, b"second"), try_(X, b"first"), undo(Z))
    participant.write(Note(LOG, "127.0.0.1:7500"), try_(AttemptId(OTHER, 1)))
    participant.file.close()

    again = Participant(tmp_path / "p1.db")
    found = again.log.recover()
    expected: Callable[[AttemptId, bytes], Found] = lambda attempt, operations: Found(  # noqa: E731
        attempt, operations, again.resource.plan(operations), VALUES, PEERS, 1.0
    )
    assert found.prepared == (expected(X, b"first"), expected(Y, b"second"), expected(AttemptId(OTHER, 1), b"work"))
    assert found.finished == ((Z, Outcome.ABORTED),)
    assert found.addresses == ((LOG, "127.0.0.1:7500"),)
    assert not again.file.connection.in_transaction
    again.write(apply(X))
    again.file.close()


def test_a_resource_that_cannot_recover_keeps_the_participant_from_starting(participant: Participant) -> None:
    participant.write(try_(X))

    def changed(prepared: Sequence[tuple[AttemptId, bytes]]) -> list[InDoubt]:
        raise ValueError("table accounts changed")

    participant.resource.recover = changed  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="table accounts changed"):
        participant.log.recover()
    assert not participant.file.connection.in_transaction


def test_a_resource_that_forgets_a_branch_is_a_failure(participant: Participant) -> None:
    participant.write(try_(X))
    participant.resource.recover = lambda prepared: []  # type: ignore[method-assign]
    with pytest.raises(LogFailed, match=str(X)):
        participant.log.recover()
