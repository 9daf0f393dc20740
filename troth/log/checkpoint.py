"""Keeps the write-ahead log short without putting checkpoints on the commit path.

Commits append to the write-ahead log; a checkpoint copies it into the database, after which the next commit starts it
from the beginning. Done by the writer this is a spike in a commit's latency, so a second thread with its own connection
copies while commits go on. Under constant load it never gets to the very end, so the few frames that came meanwhile
are copied by the writer itself, between two transactions.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Literal

import structlog

from troth.log.file import LogFile, connect
from troth.log.holders import users_of

WAL_BYTES = 16 * 1024 * 1024
"""The write-ahead log's size above which it is copied, and to which its file is cut when it starts again: shorter files
would have to be allocated anew, which makes each fdatasync dearer."""

RETRY_S = 1.0
"""Pause after a checkpoint that a reader kept from ending."""

WARN_TIMES = 8
"""A write-ahead log so many times too long is warned of."""

_NEARLY_FRAMES = 200
"""So few frames are left to the writer; more are copied aside once more, a few times at most."""

_log = structlog.get_logger(__name__)


def copy(connection: sqlite3.Connection) -> int:
    """Copies what can be copied, waiting for nobody. Returns the frames left; raises sqlite3.Error when a write or a
    sync failed, after which nothing more may be believed of the file."""
    busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    # Busy here means that another connection checkpoints; -1 that there is no write-ahead log yet.
    return 1 if busy else max(frames - moved, 0)


class Checkpointer:
    """The second thread. `after_flush` is called by the writer thread between transactions; `on_error` from the second
    thread, once, and the thread ends."""

    def __init__(self, file: LogFile, on_error: Callable[[BaseException], None], wal_bytes: int = WAL_BYTES) -> None:
        self._file = file
        self._on_error = on_error
        self._wal_bytes = wal_bytes
        self._state: Literal["idle", "aside", "finish"] = "idle"
        self._not_before = 0.0
        self._warn_at = WARN_TIMES * wal_bytes
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"{file.name}-checkpoint", daemon=True)
        # The limit to which a commit cuts the file after the log started again is the committing connection's.
        file.connection.execute(f"PRAGMA journal_size_limit = {wal_bytes}")
        file.connection.execute("PRAGMA wal_autocheckpoint = 0")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; a copy under way is finished."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def after_flush(self) -> None:
        """Looks at the size, and ends a checkpoint that is nearly done."""
        if self._state == "finish":
            self._finish()
        elif self._state == "idle" and self._file.wal_size() > self._wal_bytes and time.monotonic() >= self._not_before:
            self._state = "aside"
            self._wake.set()

    def _finish(self) -> None:
        if copy(self._file.connection) > 0:
            self._not_before = time.monotonic() + RETRY_S
        self._state = "idle"
        self._warn()

    def _warn(self) -> None:
        """Warns each time that the file has doubled beyond WARN_TIMES."""
        size = self._file.wal_size()
        if size >= self._warn_at:
            self._warn_at = 2 * size
            who = users_of(self._file.path)
            _log.warning(
                "a long reader keeps the write-ahead log from being cut", file=str(self._file.path), bytes=size, who=who
            )
        elif size <= self._wal_bytes:
            self._warn_at = WARN_TIMES * self._wal_bytes

    def _run(self) -> None:
        try:
            connection = connect(self._file.path)
            try:
                while self._wait():
                    self._copy_aside(connection)
                    self._state = "finish"
            finally:
                connection.close()
        except BaseException as error:
            self._on_error(error)

    def _wait(self) -> bool:
        self._wake.wait()
        self._wake.clear()
        return not self._closing

    def _copy_aside(self, connection: sqlite3.Connection) -> None:
        left = copy(connection)
        for _ in range(3):
            previous, left = left, copy(connection) if left > _NEARLY_FRAMES else left
            if left >= previous:
                break
