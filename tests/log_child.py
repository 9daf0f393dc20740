"""Processes for the tests of the log: `python -m tests.log_child WHAT PATH`. Each says on standard output what it did.

`hold`, `read` and `write` stay until standard input is closed.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from troth.log import AT_ONCE_S, LAZY_S, LogFile, LogWriter

SCHEMA = "CREATE TABLE troth_rows (n INTEGER PRIMARY KEY);"


def open_rows(path: Path) -> LogFile:
    return LogFile.open(path, role="participant", name="p1", schema=SCHEMA)


def insert_into(file: LogFile) -> Callable[[Sequence[tuple[int, str]]], list[tuple[int, str]]]:
    def write(jobs: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        file.connection.executemany("INSERT INTO troth_rows VALUES (?)", [(n,) for n, _ in jobs])
        return []

    return write


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def stay() -> None:
    say("ready")
    sys.stdin.read()


def hold(path: Path) -> None:
    """Has the log open."""
    file = open_rows(path)
    stay()
    file.close()


def read(path: Path) -> None:
    """Another program with a read transaction."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM troth_meta").fetchall()
    stay()
    connection.close()


def write(path: Path) -> None:
    """Another program with a write transaction."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    stay()
    connection.close()


def append(path: Path) -> None:
    """Appends rows 1 and 2, each with a flush of its own; says so from the writer thread. A failure exits with 70."""
    file = open_rows(path)
    done = threading.Semaphore(0)

    def flushed(upto: int, _: list[tuple[int, str]]) -> None:
        say(f"flushed {upto}")
        done.release()

    def failed(error: BaseException) -> None:
        say(f"failed {error}")
        os._exit(70)

    writer = LogWriter(file, insert_into(file), on_flushed=flushed, on_failure=failed)
    writer.start()
    for n in (1, 2):
        writer.put([(n, "row", AT_ONCE_S)])
        done.acquire()
    os._exit(0)


def load(path: Path) -> None:
    """Appends rows without end, ten at a time, lazy ones among them, and says how far they are durable."""
    file = open_rows(path)
    done = threading.Semaphore(2)

    def flushed(upto: int, _: list[tuple[int, str]]) -> None:
        say(f"flushed {upto}")
        done.release()

    writer = LogWriter(file, insert_into(file), on_flushed=flushed, on_failure=lambda error: os._exit(70))
    writer.start()
    for n in itertools.count(1, 10):
        done.acquire(timeout=1)
        writer.put([(n + i, "row", AT_ONCE_S if i == 5 else LAZY_S) for i in range(10)])


def believe(path: Path) -> None:
    """Opens the log and says which rows it then believes."""
    file = open_rows(path)
    rows = [n for (n,) in file.connection.execute("SELECT n FROM troth_rows ORDER BY n")]
    say(f"believed {rows}")
    file.close()


def stamps(path: Path) -> None:
    """Flushes 20 rows one by one after the first, between two marks; says how many flushes were counted."""
    file = open_rows(path)
    done = threading.Semaphore(0)
    writer = LogWriter(
        file, insert_into(file), on_flushed=lambda *_: done.release(), on_failure=lambda error: os._exit(70)
    )
    writer.start()
    writer.put([(1, "row", AT_ONCE_S)])
    done.acquire()
    say("begin")
    before = writer.flushes
    for n in range(2, 22):
        writer.put([(n, "row", AT_ONCE_S)])
        done.acquire()
    say(f"end {writer.flushes - before}")
    os._exit(0)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
