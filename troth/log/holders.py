"""Who holds a lock on a file, by /proc/locks: so that a message can name the process that is in the way.

Best effort, for people: where there is no /proc, or the file system numbers its devices otherwise, nobody is named.
The files are never opened here: closing another descriptor of a database would drop SQLite's own POSIX locks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# SQLite's locks on the -shm file (wal.c, os_unix.c): one byte to write, to checkpoint and to recover, then the readers.
_SHM_WRITE, _SHM_LAST_READER = 120, 127


class _Lock(NamedTuple):
    kind: str
    writing: bool
    pid: int
    first: int


def _locks(path: Path) -> Iterator[_Lock]:
    """The locks held on `path` by any process."""
    try:
        status = path.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        fields = line.split()
        if len(fields) == 8 and fields[1] != "->" and fields[5] == wanted:
            yield _Lock(fields[1], fields[3] == "WRITE", int(fields[4]), int(fields[6]))


def flock_holder(path: Path) -> int | None:
    """The process that holds the flock on `path`, if it can be told."""
    return next((lock.pid for lock in _locks(path) if lock.kind == "FLOCK" and lock.pid > 0), None)


def _name(pid: int) -> str:
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return f"process {pid}"


def _others(locks: Iterator[_Lock]) -> str:
    pids = sorted({lock.pid for lock in locks if lock.kind != "FLOCK" and lock.pid not in (0, os.getpid())})
    return ", ".join(map(_name, pids)) or "another program"


def writers_of(database: Path) -> str:
    """The other programs that hold a write transaction on a SQLite database, in words."""

    def found() -> Iterator[_Lock]:
        shared_memory = _locks(Path(f"{database}-shm"))
        yield from (lock for lock in shared_memory if lock.writing and lock.first == _SHM_WRITE)
        yield from (lock for lock in _locks(database) if lock.writing)

    return _others(found())


def users_of(database: Path) -> str:
    """The other programs that read or write a SQLite database just now, in words."""

    def found() -> Iterator[_Lock]:
        shared_memory = _locks(Path(f"{database}-shm"))
        yield from (lock for lock in shared_memory if _SHM_WRITE <= lock.first <= _SHM_LAST_READER)
        yield from (lock for lock in _locks(database) if lock.writing)

    return _others(found())
