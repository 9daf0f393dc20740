"""The one thread that writes a log: group commit (DESIGN section 4).

The thread takes everything that is queued, writes it in one SQLite transaction, commits with one fdatasync, and only
then says how far the log is durable. The queue is in order: a job, however long it may wait for a flush, is durable no
later than any job put after it. What fails is unknown, not undone: the thread then stops for good and says nothing
about what it held.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

from troth import failpoints
from troth.log.checkpoint import WAL_BYTES, Checkpointer
from troth.log.file import LogFailed, LogFile, error_code, failure

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")

AT_ONCE_S = 0.0
"""Within this a forced job is to be flushed: somebody waits for it."""

LAZY_S = 0.05
"""Within this a lazy job is: nobody waits for it, so it mostly rides on the flush of another."""

CLOSE_WAIT_S = 3.0
"""How long a writer that is being closed waits for another program's write transaction."""

_HARMLESS = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, -1}
)
"""SQLite's codes after which only the statement failed. Others (FULL, IOERR, NOMEM, INTERRUPT) may have undone more."""


class _Call(NamedTuple):
    function: Callable[[sqlite3.Connection], Any]
    future: Future[Any]


class _Answer(NamedTuple):
    future: Future[Any]
    value: Any
    error: Exception | None

    def give(self) -> None:
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)


class _Batch(Generic[J]):
    """What is taken from the queue at once."""

    def __init__(self) -> None:
        self.jobs: list[tuple[int, J]] = []
        self.calls: list[_Call] = []
        self.seen: dict[str, int] = {}


class LogWriter(Generic[J, R]):
    """Writes jobs of type J, numbered ascending, through `write`: it runs SQL on `file.connection` inside the batch's
    transaction and returns the results of those jobs that have one.

    `on_flushed(upto, results)` and `on_failure(LogFailed)` are called in the writer thread. After a failure nothing
    that was put is told durable, calls fail with LogFailed, and the process is expected to stop.
    """

    def __init__(
        self,
        file: LogFile,
        write: Callable[[Sequence[tuple[int, J]]], list[tuple[int, R]]],
        *,
        on_flushed: Callable[[int, list[tuple[int, R]]], None],
        on_failure: Callable[[BaseException], None],
        wal_bytes: int = WAL_BYTES,
    ) -> None:
        self._file = file
        self._write = write
        self._on_flushed = on_flushed
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._queue: _Batch[J] = _Batch()
        self._due = math.inf
        """When what is queued is to be flushed at the latest; monotonic."""
        self._closing = False
        self._failed: BaseException | None = None
        self.flushes = 0
        """Commits that changed something: one fdatasync each."""
        self._checkpointer = Checkpointer(file, self._stop_for, wal_bytes)
        self._thread = threading.Thread(target=self._run, name=f"{file.name}-log", daemon=True)

    @property
    def durable(self) -> int:
        """The file's highest durable number, as of the last flush."""
        return self._file.durable

    def start(self) -> None:
        """From now on the file's connection belongs to the writer thread."""
        self._checkpointer.start()
        self._thread.start()

    def put(self, jobs: Sequence[tuple[int, J, float]]) -> None:
        """Queues numbered jobs in order, each to be flushed within so many seconds, and earlier when a flush comes by.
        Never blocks on the disk."""
        with self._changed:
            soonest = math.inf
            for n, job, within_s in jobs:
                self._queue.jobs.append((n, job))
                soonest = min(soonest, within_s)
            self._flush_within(soonest)

    def call(self, function: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Runs `function` in the writer thread behind everything put so far, in a savepoint of the same transaction;
        the future is done once that transaction is durable. An error of the function itself is the future's, and undoes
        what it did."""
        future: Future[T] = Future()
        with self._changed:
            if self._failed is not None or self._closing:
                future.set_exception(self._failed or LogFailed(f"{self._file.path}: the log is closed"))
                return future
            self._queue.calls.append(_Call(function, future))
            self._flush_within(AT_ONCE_S)
        return future

    def note_seen(self, identity: str, number: int) -> None:
        """Stores the highest durable number heard of another file with the next flush that has a job."""
        with self._changed:
            self._queue.seen[identity] = max(number, self._queue.seen.get(identity, 0))

    def close(self) -> None:
        """Writes what is queued, and ends the threads. The file stays open. When another program keeps it from writing,
        that is a failure after CLOSE_WAIT_S: nothing of the queue was told."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._checkpointer.close()

    def _flush_within(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        if due < self._due:
            self._due = due
            self._changed.notify()

    def _run(self) -> None:
        batch: _Batch[J] | None = None
        try:
            while (batch := self._take()) is not None:
                self._flush(batch)
        except BaseException as error:
            self._fail(error, batch)

    def _take(self) -> _Batch[J] | None:
        """Waits until something must be written and takes all of it; None when closing and nothing is left."""
        with self._changed:
            while not self._closing and (wait_s := self._due - time.monotonic()) > 0:
                self._changed.wait(None if wait_s == math.inf else wait_s)
            if self._failed is not None:
                raise self._failed
            batch, self._queue = self._queue, _Batch()
            self._due = math.inf
        return batch if batch.jobs or batch.calls else None

    def _flush(self, batch: _Batch[J]) -> None:
        connection = self._file.connection
        self._file.begin(lambda: CLOSE_WAIT_S if self._closing else math.inf)
        before = self._changes(schema=bool(batch.calls))
        results = self._write(batch.jobs) if batch.jobs else []
        self._check_open()
        answers = [self._answer(call) for call in batch.calls if call.future.set_running_or_notify_cancel()]
        if self._changes(schema=bool(batch.calls)) != before:
            with failpoints.flush(connection, (job for _, job in batch.jobs)):
                self._file.commit(max(len(batch.jobs), 1), batch.seen)
            self.flushes += 1
        else:
            # Trials leave pages that are dirty with their old content: a COMMIT would pay an fdatasync for nothing.
            connection.execute("ROLLBACK")
            self._keep_seen(batch.seen)
        if self._failed is not None:  # a checkpoint failed meanwhile: this flush is as unknown as that one
            raise self._failed
        if batch.jobs:
            self._on_flushed(batch.jobs[-1][0], results)
        for answer in answers:
            answer.give()
        self._checkpointer.after_flush()

    def _changes(self, schema: bool) -> tuple[int, int]:
        """Grows with every change that is to be kept. DDL, which only calls run, does not count as a row change."""
        connection = self._file.connection
        version = connection.execute("PRAGMA schema_version").fetchone()[0] if schema else 0
        return connection.total_changes - self._file.undone, version

    def _answer(self, call: _Call) -> _Answer:
        connection = self._file.connection
        connection.execute("SAVEPOINT troth_call")
        try:
            value = call.function(connection)
            answer = _Answer(call.future, value, None)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and error_code(error) not in _HARMLESS:
                raise
            self._check_open()
            connection.execute("ROLLBACK TO troth_call")
            answer = _Answer(call.future, None, error)
        self._check_open()
        connection.execute("RELEASE troth_call")
        return answer

    def _check_open(self) -> None:
        if not self._file.connection.in_transaction:
            raise LogFailed(
                f"{self._file.path}: the transaction ended in the middle of a batch; what was written is unknown"
            )

    def _keep_seen(self, seen: dict[str, int]) -> None:
        for identity, number in seen.items():
            self.note_seen(identity, number)

    def _stop_for(self, error: BaseException) -> None:
        """The checkpointer failed: the writer stops too."""
        with self._changed:
            self._failed = self._explained(error)
            self._flush_within(AT_ONCE_S)

    def _explained(self, error: BaseException) -> BaseException:
        if isinstance(error, LogFailed):
            return error
        explained = failure(self._file.path, error)
        explained.__cause__ = error
        return explained

    def _fail(self, error: BaseException, batch: _Batch[J] | None) -> None:
        explained = self._explained(error)
        with self._changed:
            self._failed = explained
            waiting = [*(batch.calls if batch is not None else []), *self._queue.calls]
            self._queue.calls.clear()
        self._on_failure(explained)
        for call in waiting:
            if not call.future.done():
                call.future.set_exception(explained)
