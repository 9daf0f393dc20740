"""The decision log: each record's effect (coordinator/events.py), and what a start finds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import coordinator.log
from coordinator.events import (
    Aborted,
    Claimed,
    Cleared,
    Committed,
    Dropped,
    Ended,
    Entry,
    Expired,
    Heuristic,
    Known,
    Owed,
    Record,
    Settled,
)
from coordinator.log import DecisionLog
from troth.log import LogFailed
from troth.reasons import reason
from troth.v1.types_pb2 import Code
from troth.words import Outcome, number_of

P1, P2 = Owed("p1", "1" * 16, True), Owed("p2", "2" * 16, True)
READER = Owed("p3", "3" * 16, False)
NO = reason(Code.CODE_BELOW_MIN, "balance would be -1", participant="p1")

N = number_of(1, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "coordinator.db"


@pytest.fixture
def log(path: Path) -> Iterator[DecisionLog]:
    log = DecisionLog.open(path, "c")
    yield log
    log.close()


def write(log: DecisionLog, *records: Record) -> list[tuple[int, float]]:
    """One batch, as the writer thread does it."""
    log.file.begin()
    try:
        results = log.write(list(enumerate(records, 1)))
    except BaseException:
        log.file.connection.execute("ROLLBACK")
        raise
    log.file.commit(len(records))
    return results


def reopened(log: DecisionLog) -> DecisionLog:
    log.close()
    return DecisionLog.open(log.file.path, "c")


def committed(number: int, id: str | None = None, branches: tuple[Owed, ...] = (P1, P2), at: float = 10.0) -> Committed:
    return Committed(number, id, b"digest", branches, False, at)


def claimed(number: int, id: str) -> Claimed:
    return Claimed(number, id, b"digest", "p1", "1" * 16, 77, True, 10.0)


def uuid7(ms: int, tail: int = 0) -> str:
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7000-8000-{tail:012x}"


def entry(log: DecisionLog, key: str | int) -> Entry:
    found = log.look_up(key)
    assert found is not None
    return found


def held(log: DecisionLog) -> list[int]:
    return [n for (n,) in log.file.connection.execute("SELECT number FROM troth_transactions ORDER BY number")]


# Epochs.


def test_each_open_forces_an_epoch_that_no_other_had(path: Path) -> None:
    epochs = []
    for _ in range(3):
        log = DecisionLog.open(path, "c")
        epochs.append(log.epoch)
        log.close()
    assert epochs == [1, 2, 3]


# Decisions.


def test_a_decision_is_found_by_number_and_by_id_until_and_after_its_end(log: DecisionLog) -> None:
    write(log, committed(N, "order-1", (P1, READER)))
    expected = Entry(N, "order-1", b"digest", Outcome.COMMITTED, (P1, READER), 0, False, None, 10.0, None, ())
    assert log.look_up(N) == log.look_up("order-1") == expected
    write(log, Ended(N, 12.0))
    assert log.look_up("order-1") == expected._replace(ended_at=12.0)


def test_a_decision_of_an_assigned_id_has_no_id(log: DecisionLog) -> None:
    write(log, committed(N), committed(N + 1))
    assert entry(log, N).id is None


def test_nothing_is_found_of_what_was_never_written(log: DecisionLog) -> None:
    assert log.look_up("order-1") is None
    assert log.look_up(N) is None


def test_a_decision_without_an_updating_branch_is_ended_at_once(log: DecisionLog) -> None:
    write(log, committed(N, "order-1", (READER,)))
    assert entry(log, N).ended_at == 10.0


def test_decision_and_end_may_come_in_one_batch(log: DecisionLog) -> None:
    write(log, committed(N), Ended(N, 11.0), committed(N + 1), claimed(N + 2, "x"), Settled(N + 2, 12.0))
    assert [entry(log, N + i).ended_at for i in range(3)] == [11.0, None, 12.0]


def test_an_abort_keeps_its_reason_and_is_ended(log: DecisionLog) -> None:
    write(log, Aborted(N, "order-1", b"digest", NO, 11.0))
    expected = Entry(N, "order-1", b"digest", Outcome.ABORTED, (), 0, False, NO, 11.0, 11.0, ())
    assert log.look_up("order-1") == expected


def test_an_abort_by_request_has_no_digest(log: DecisionLog) -> None:
    write(log, Aborted(N, "order-1", None, NO, 11.0))
    assert entry(log, "order-1").digest is None


@pytest.mark.parametrize(
    "second",
    [
        committed(N + 1, "order-1"),
        Aborted(N + 1, "order-1", None, NO, 11.0),
        claimed(N + 1, "order-1"),
        committed(N, "order-2"),
    ],
)
@pytest.mark.parametrize("first", [committed(N, "order-1"), Aborted(N, "order-1", None, NO, 11.0)])
@pytest.mark.parametrize("together", [True, False])
def test_a_second_outcome_of_one_id_or_attempt_is_a_failure(
    log: DecisionLog, first: Record, second: Record, together: bool
) -> None:
    """Rule 2: the first writer wins, above; the log asserts it."""
    if not together:
        write(log, first)
    with pytest.raises(LogFailed, match="the first writer wins"):
        write(log, *((first, second) if together else (second,)))


@pytest.mark.parametrize("record", [Ended(N, 1.0), Settled(N, 1.0), Dropped(N)])
def test_an_end_without_a_beginning_is_a_failure(log: DecisionLog, record: Record) -> None:
    with pytest.raises(LogFailed):
        write(log, record)


def test_an_end_is_written_once(log: DecisionLog) -> None:
    write(log, committed(N), Ended(N, 1.0))
    with pytest.raises(LogFailed):
        write(log, Ended(N, 2.0))


# One-phase (rule 13).


def test_a_claim_is_open_and_names_who_may_answer(log: DecisionLog) -> None:
    write(log, claimed(N, "order-1"))
    assert entry(log, "order-1") == Entry(N, "order-1", b"digest", None, (P1,), 77, True, None, 10.0, None, ())


def test_a_settled_claim_is_committed_and_ended(log: DecisionLog) -> None:
    write(log, claimed(N, "order-1"))
    write(log, Settled(N, 13.0))
    found = entry(log, "order-1")
    assert (found.state, found.ended_at, found.read) == (Outcome.COMMITTED, 13.0, True)


def test_a_dropped_claim_leaves_nothing_and_the_id_may_run_again(log: DecisionLog) -> None:
    write(log, claimed(N, "order-1"))
    write(log, Dropped(N), claimed(N + 1, "order-1"), Dropped(N + 1), committed(N + 2, "order-1"))
    assert held(log) == [N + 2]


@pytest.mark.parametrize("number", [N, N + 1])
def test_an_abort_replaces_the_claim_of_its_id(log: DecisionLog, number: int) -> None:
    write(log, claimed(N, "order-1"))
    write(log, Aborted(number, "order-1", b"digest", NO, 14.0))
    assert held(log) == [number]
    assert entry(log, "order-1").state == Outcome.ABORTED


# What a start finds.


def test_a_start_finds_what_is_not_ended(log: DecisionLog) -> None:
    write(
        log,
        committed(N, "a"),
        committed(N + 1),
        claimed(N + 2, "b"),
        Aborted(N + 3, "c", None, NO, 1.0),
        Ended(N, 11.0),
        Known("p1", "1" * 16),
        Known("p2", "2" * 16),
        Known("p1", "9" * 16),
    )
    again = reopened(log)
    assert [found.number for found in again.recovered.open] == [N + 1, N + 2]
    assert again.recovered.open == (again.look_up(N + 1), again.look_up(N + 2))
    assert again.recovered.known == (("p1", "9" * 16), ("p2", "2" * 16))
    assert entry(again, "a").ended_at == 11.0
    again.close()


def test_heuristic_records_are_kept_until_a_person_clears_them(log: DecisionLog) -> None:
    """Rule 12."""
    record = Heuristic(N, "p1", Outcome.ABORTED, "", 11.0)
    write(log, committed(N, "a"), record, Heuristic(N, "p2", Outcome.COMMITTED, "disk lost", 12.0), Ended(N, 12.0))
    assert entry(log, N).heuristics == (("p1", Outcome.ABORTED), ("p2", Outcome.COMMITTED))
    again = reopened(log)
    assert again.recovered.heuristics == (record, Heuristic(N, "p2", Outcome.COMMITTED, "disk lost", 12.0))
    write(again, Cleared(N, "p1", 13.0))
    assert entry(again, N).heuristics == (("p2", Outcome.COMMITTED),)
    audit = again.file.connection.execute("SELECT what, reason FROM troth_audit ORDER BY at").fetchall()
    assert audit == [
        ("p1: acknowledged as resolved by hand as ABORTED", ""),
        ("p2: resolved by hand as COMMITTED", "disk lost"),
        ("p1: heuristic record cleared", ""),
    ]
    again.close()


def test_rule_12_what_a_person_settled_is_no_longer_listed_once_cleared_and_its_outcome_never_expires(
    log: DecisionLog,
) -> None:
    """The participant acknowledged nothing: should it come back prepared, an outcome that has expired would be presumed
    ABORTED. Found by seed 3669 of the simulator."""
    write(log, committed(N, uuid7(1_000)), Heuristic(N, "p1", Outcome.COMMITTED, "disk lost", 2.0), Ended(N, 2.0))
    write(log, Cleared(N, "p1", 3.0))
    write(log, Expired(100.0, 100.0, 0))
    assert held(log) == [N]
    again = reopened(log)
    assert again.recovered.heuristics == ()
    again.close()


# Expiry (rule 11).


def test_outcomes_below_the_horizon_go_by_the_time_of_their_id_and_others_by_their_end(log: DecisionLog) -> None:
    write(
        log,
        committed(N, uuid7(1_000)),
        Ended(N, 50.0),
        committed(N + 1, uuid7(2_000)),
        Ended(N + 1, 3.0),
        committed(N + 2, "order-1"),
        Ended(N + 2, 3.0),
        committed(N + 3),
        Ended(N + 3, 50.0),
    )
    assert write(log, Expired(2.0, 10.0, 1000)) == [(1, 2.0)]
    assert held(log) == [N + 1, N + 3]


def test_what_is_not_ended_never_expires(log: DecisionLog) -> None:
    write(log, committed(N, uuid7(1_000)), claimed(N + 1, uuid7(1_001)), committed(N + 2))
    write(log, Expired(100.0, 100.0, 0))
    assert held(log) == [N, N + 1, N + 2]


def test_an_outcome_with_a_heuristic_record_stays_until_that_is_cleared(log: DecisionLog) -> None:
    write(log, committed(N, uuid7(1_000)), Heuristic(N, "p1", Outcome.ABORTED, "", 2.0), Ended(N, 2.0))
    write(log, Expired(100.0, 100.0, 0))
    assert held(log) == [N]
    write(log, Cleared(N, "p1", 3.0), Expired(100.0, 100.0, 0))
    assert held(log) == []


def test_the_horizon_never_goes_back_and_is_kept(log: DecisionLog) -> None:
    assert write(log, Expired(5.0, 0.0, 10)) == [(1, 5.0)]
    assert write(log, Expired(3.0, 0.0, 10)) == [(1, 5.0)]
    again = reopened(log)
    assert again.recovered.horizon == 5.0
    assert write(again, Expired(4.0, 0.0, 10)) == [(1, 5.0)]
    again.close()


def test_too_many_outcomes_move_the_horizon(log: DecisionLog) -> None:
    """All ids of one millisecond go together: the horizon lies between two of them."""
    write(log, *(Aborted(N + i, uuid7(1_000 + i // 2, i), None, NO, 1.0) for i in range(10)))
    ((_, horizon),) = write(log, Expired(0.5, 0.0, 5))
    assert held(log) == [N + 6, N + 7, N + 8, N + 9]
    assert 1.002 < horizon < 1.003
    write(log, Aborted(N + 10, uuid7(2_000), None, NO, 1.0), committed(N + 11, uuid7(2_001)), Ended(N + 11, 2.0))
    write(log, Expired(0.5, 0.0, 5))
    assert held(log) == [N + 8, N + 9, N + 10, N + 11]


def test_much_that_expired_goes_over_several_batches(log: DecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator.log, "DROP_ROWS", 4)
    write(log, *(Aborted(N + i, uuid7(1_000 + i), None, NO, 1.0) for i in range(6)))
    write(log, *(committed(N + 6 + i) for i in range(3)), *(Ended(N + 6 + i, 1.0) for i in range(3)))
    assert write(log, Expired(50.0, 50.0, 1000)) == [(1, 50.0)]
    left = [len(held(log))]
    for i in itertools.count():
        write(log, Known("p1", f"{i:016x}"))
        left.append(len(held(log)))
        if not left[-1]:
            break
    assert left == [5, 1, 0]
