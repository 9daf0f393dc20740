"""Group commit (DESIGN section 4): one queue in order, one flush for many, and what is told when."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import troth.log.checkpoint
import troth.log.file
import troth.log.writer
from tests.log_child import insert_into, open_rows
from tests.log_helpers import WAIT_S, Recorder, Warnings, child, let_go
from troth.log import AT_ONCE_S, LogFailed, LogFile, LogWriter

LONG_S = 1000.0
"""A flush that no test lives to see."""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[LogFile]:
    file = open_rows(tmp_path / "p1.db")
    yield file
    file.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def writer_on(file: LogFile, recorder: Recorder) -> LogWriter[str, str]:
    return LogWriter(file, insert_into(file), on_flushed=recorder.flushed, on_failure=recorder.failed)


def rows(file: LogFile) -> list[int]:
    return [n for (n,) in file.connection.execute("SELECT n FROM troth_rows ORDER BY n")]


def test_what_is_queued_together_is_one_flush(file: LogFile, recorder: Recorder) -> None:
    writer = writer_on(file, recorder)
    writer.put([(1, "a", LONG_S)])
    writer.put([(2, "b", AT_ONCE_S), (3, "c", LONG_S)])
    writer.start()
    assert recorder.next() == ("flushed", 3, [])
    assert (writer.flushes, writer.durable) == (1, 3)
    writer.close()
    assert rows(file) == [1, 2, 3]


def test_a_lazy_job_rides_on_the_next_forced_one(file: LogFile, recorder: Recorder) -> None:
    writer = writer_on(file, recorder)
    writer.start()
    writer.put([(1, "a", LONG_S)])
    assert recorder.empty()
    writer.put([(2, "b", AT_ONCE_S)])
    assert recorder.next() == ("flushed", 2, [])
    writer.close()


def test_a_lazy_job_goes_by_itself_after_a_while(file: LogFile, recorder: Recorder) -> None:
    writer = writer_on(file, recorder)
    writer.start()
    writer.put([(1, "a", 0.01)])
    assert recorder.next() == ("flushed", 1, [])
    writer.close()


def test_the_job_that_is_due_first_says_when(file: LogFile, recorder: Recorder) -> None:
    writer = writer_on(file, recorder)
    writer.start()
    writer.put([(1, "a", LONG_S)])
    writer.put([(2, "b", LONG_S), (3, "c", 0.01)])
    writer.put([(4, "d", LONG_S)])
    assert recorder.next() == ("flushed", 4, [])
    writer.close()


def test_close_writes_what_is_queued(file: LogFile, recorder: Recorder) -> None:
    writer = writer_on(file, recorder)
    writer.start()
    writer.put([(1, "a", LONG_S)])
    writer.close()
    assert recorder.next() == ("flushed", 1, [])
    assert rows(file) == [1]


def test_results_come_with_the_flush_that_makes_them_durable(file: LogFile, recorder: Recorder) -> None:
    def write(jobs: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        insert_into(file)(jobs)
        return [(n, job.upper()) for n, job in jobs if job == "b"]

    writer = LogWriter(file, write, on_flushed=recorder.flushed, on_failure=recorder.failed)
    writer.put([(1, "a", LONG_S), (2, "b", AT_ONCE_S)])
    writer.start()
    assert recorder.next() == ("flushed", 2, [(2, "B")])
    writer.close()


def test_what_changed_nothing_costs_no_flush(file: LogFile, recorder: Recorder) -> None:
    """Also when a trial changed rows and rolled them back: its pages are dirty, and a COMMIT would sync them."""

    def write(jobs: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        for n, job in jobs:
            before = file.connection.total_changes
            file.connection.execute("SAVEPOINT trial")
            file.connection.execute("INSERT INTO troth_rows VALUES (?)", (n,))
            if job == "trial":
                file.connection.execute("ROLLBACK TO trial")
                file.undone += file.connection.total_changes - before
            file.connection.execute("RELEASE trial")
        return []

    writer = LogWriter(file, write, on_flushed=recorder.flushed, on_failure=recorder.failed)
    writer.start()
    writer.put([(1, "trial", AT_ONCE_S)])
    assert recorder.next() == ("flushed", 1, [])
    assert (writer.flushes, writer.durable) == (0, 0)
    writer.put([(2, "keep", LONG_S), (3, "trial", AT_ONCE_S)])
    assert recorder.next() == ("flushed", 3, [])
    assert (writer.flushes, writer.durable) == (1, 2)
    writer.close()
    assert rows(file) == [2]


def test_seen_numbers_go_with_the_next_flush_that_has_a_job(file: LogFile, recorder: Recorder) -> None:
    writer = writer_on(file, recorder)
    writer.start()
    writer.note_seen("a" * 16, 5)
    writer.note_seen("a" * 16, 4)
    assert writer.call(lambda connection: connection.execute("SELECT 1").fetchone()).result(WAIT_S) == (1,)
    assert file.seen == {}
    writer.put([(1, "a", AT_ONCE_S)])
    recorder.next()
    assert file.seen == {"a" * 16: 5}
    writer.close()
    assert file.connection.execute("SELECT * FROM troth_seen").fetchall() == [("a" * 16, 5)]


# Calls.


def test_a_call_sees_everything_put_before_it_and_is_told_after_it_is_durable(
    file: LogFile, recorder: Recorder
) -> None:
    writer = writer_on(file, recorder)
    writer.put([(1, "a", LONG_S)])
    found = writer.call(lambda connection: connection.execute("SELECT count(*) FROM troth_rows").fetchone()[0])
    writer.start()
    assert found.result(WAIT_S) == 1
    assert recorder.next() == ("flushed", 1, [])
    assert writer.flushes == 1
    writer.close()


def test_a_call_that_only_reads_costs_no_flush_and_ddl_costs_one(file: LogFile, recorder: Recorder) -> None:
    writer = writer_on(file, recorder)
    writer.start()
    writer.call(rows_count).result(WAIT_S)
    assert writer.flushes == 0
    writer.call(lambda connection: connection.execute("CREATE TABLE accounts (id TEXT)") and None).result(WAIT_S)
    assert (writer.flushes, writer.durable) == (1, 1)
    writer.close()
    assert recorder.empty()


def rows_count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM troth_rows").fetchone()[0])


def test_a_call_that_raises_undoes_itself_alone(file: LogFile, recorder: Recorder) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO troth_rows VALUES (100)")
        connection.execute("INSERT INTO troth_rows VALUES (100)")

    writer = writer_on(file, recorder)
    writer.put([(1, "a", LONG_S)])
    failing = writer.call(half)
    writer.start()
    with pytest.raises(sqlite3.IntegrityError):
        failing.result(WAIT_S)
    assert recorder.next() == ("flushed", 1, [])
    writer.close()
    assert rows(file) == [1]


def test_a_cancelled_call_is_not_run(file: LogFile, recorder: Recorder) -> None:
    writer = writer_on(file, recorder)
    call = writer.call(rows_count)
    call.cancel()
    writer.start()
    writer.close()
    assert recorder.empty()


# Failure.


def test_after_an_error_nothing_is_told_any_more(file: LogFile, recorder: Recorder) -> None:
    """A failed write is unknown, not no: jobs are not told, calls fail, and the thread is gone."""
    writer = writer_on(file, recorder)
    writer.put([(1, "a", AT_ONCE_S), (1, "again", AT_ONCE_S)])
    call = writer.call(rows_count)
    writer.start()
    kind, error = recorder.next()
    assert kind == "failed"
    assert isinstance(error, LogFailed)
    assert isinstance(error.__cause__, sqlite3.IntegrityError)
    with pytest.raises(LogFailed):
        call.result(WAIT_S)
    writer.put([(2, "b", AT_ONCE_S)])
    with pytest.raises(LogFailed):
        writer.call(rows_count).result(WAIT_S)
    writer.close()
    assert recorder.empty()


def test_a_write_that_ends_the_transaction_stops_the_writer(file: LogFile, recorder: Recorder) -> None:
    """As FULL, IOERR, NOMEM and INTERRUPT do by themselves, after which each statement would commit alone."""

    def write(jobs: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        file.connection.execute("ROLLBACK")
        return []

    writer = LogWriter(file, write, on_flushed=recorder.flushed, on_failure=recorder.failed)
    writer.start()
    writer.put([(1, "a", AT_ONCE_S)])
    kind, error = recorder.next()
    assert kind == "failed"
    assert "ended in the middle of a batch" in str(error)
    writer.close()


def test_another_writer_is_waited_for_and_named(
    file: LogFile, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "database is locked" at BEGIN is no failure: nothing was written, so nothing is unknown."""
    warnings = Warnings()
    monkeypatch.setattr(troth.log.file, "_log", warnings)
    writer = writer_on(file, recorder)
    with child("write", file.path) as other:
        writer.start()
        writer.put([(1, "a", AT_ONCE_S)])
        warning = warnings.next()
        assert f"process {other.pid} " in warning["who"]
        assert warning["what"] == "holds a write transaction on the file"
        assert recorder.empty()
        let_go(other)
        assert recorder.next() == ("flushed", 1, [])
    writer.close()


def test_closing_does_not_wait_for_another_writer_without_end(
    file: LogFile, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troth.log.writer, "CLOSE_WAIT_S", 0.0)
    writer = writer_on(file, recorder)
    with child("write", file.path) as other:
        writer.start()
        writer.put([(1, "a", AT_ONCE_S)])
        writer.close()
        kind, error = recorder.next()
        assert kind == "failed"
        assert f"process {other.pid} " in str(error)


# Checkpoints.


def write_much(writer: LogWriter[str, str], file: LogFile, recorder: Recorder, batches: int) -> int:
    """Flushes batches without a pause, always with one more queued; returns the largest write-ahead log seen."""
    largest = durable = 0
    for n in range(1, batches * 100, 100):
        writer.put([(n + i, "row", AT_ONCE_S) for i in range(100)])
        while durable < n - 1:  # the batch before this one
            _, durable, _ = recorder.next()
        largest = max(largest, file.wal_size())
    return largest


def test_the_write_ahead_log_stays_bounded_under_constant_load(file: LogFile, recorder: Recorder) -> None:
    limit = 64 * 1024
    writer: LogWriter[str, str] = LogWriter(
        file, insert_wide(file), on_flushed=recorder.flushed, on_failure=recorder.failed, wal_bytes=limit
    )
    writer.start()
    largest = write_much(writer, file, recorder, batches=1000)
    written = int(writer.call(lambda c: c.execute("SELECT sum(length(wide)) FROM wide").fetchone()[0]).result(WAIT_S))
    writer.close()
    assert written > 40 * limit
    assert largest < written / 3


def insert_wide(file: LogFile) -> Callable[[Sequence[tuple[int, str]]], list[tuple[int, str]]]:
    file.connection.execute("CREATE TABLE wide (n INTEGER PRIMARY KEY, wide BLOB)")

    def write(jobs: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        file.connection.executemany("INSERT INTO wide VALUES (?, ?)", [(n, bytes(100)) for n, _ in jobs])
        return []

    return write


def test_a_reader_that_keeps_the_log_from_being_cut_is_named(
    file: LogFile, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings = Warnings()
    monkeypatch.setattr(troth.log.checkpoint, "_log", warnings)
    monkeypatch.setattr(troth.log.checkpoint, "RETRY_S", 0.0)
    writer: LogWriter[str, str] = LogWriter(
        file, insert_wide(file), on_flushed=recorder.flushed, on_failure=recorder.failed, wal_bytes=16 * 1024
    )
    with child("read", file.path) as reader:
        writer.start()
        write_much(writer, file, recorder, batches=100)
        assert f"process {reader.pid} " in warnings.next()["who"]
    writer.close()


def test_a_flush_that_ends_after_a_checkpoint_failed_is_not_told(file: LogFile, recorder: Recorder) -> None:
    insert = insert_into(file)

    def write(jobs: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        writer._checkpointer._on_error(OSError("the checkpoint's sync failed"))
        return insert(jobs)

    writer: LogWriter[str, str] = LogWriter(file, write, on_flushed=recorder.flushed, on_failure=recorder.failed)
    writer.start()
    writer.put([(1, "a", AT_ONCE_S)])
    kind, error = recorder.next()
    assert kind == "failed"
    assert "the checkpoint's sync failed" in str(error)
    writer.close()
    assert recorder.empty()


def test_a_checkpoint_that_fails_stops_the_writer(
    file: LogFile, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync the kernel may call lost pages clean: nothing may be believed before the file is reopened."""
    failed = threading.Event()

    def broken(connection: sqlite3.Connection) -> int:
        failed.set()
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(troth.log.checkpoint, "copy", broken)
    writer: LogWriter[str, str] = LogWriter(
        file, insert_wide(file), on_flushed=recorder.flushed, on_failure=recorder.failed, wal_bytes=1
    )
    writer.start()
    writer.put([(1, "a", AT_ONCE_S)])
    assert recorder.next() == ("flushed", 1, [])
    assert failed.wait(WAIT_S)
    kind, error = recorder.next()
    assert kind == "failed"
    assert "disk I/O error" in str(error)
    writer.close()
