"""Faults in system calls of a process that runs already: strace, attached at the point that a test has reached.

`when` in a rule counts the calls of one thread from the attachment on, so the next flush of a log is number 1: only the
writer thread flushes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def injected(pid: int, *rules: str, paths: list[Path] | None = None, output: Path | None = None) -> Iterator[None]:
    """`injected(pid, "fdatasync:signal=SIGKILL:when=1", paths=[wal])`: while entered, calls of that process and of what
    it starts obey the rules, only on `paths` when these are given. Skips where a process may not be attached to."""
    calls = ",".join(sorted({rule.split(":")[0] for rule in rules}))
    only = [argument for path in paths or [] for argument in ("-P", str(path))]
    inject = [argument for rule in rules for argument in ("-e", f"inject={rule}")]
    options = ["-f", "-e", f"trace={calls}", *inject, *only, "-o", str(output or os.devnull)]
    with subprocess.Popen(
        ["strace", *options, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as tracer:
        try:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            if "attached" not in said:
                pytest.skip(f"strace may not attach to a process here: {said.strip()}")
            yield
        finally:
            tracer.terminate()  # it lets the process go


def wal_of(data: Path) -> Path:
    """The write-ahead log of a SQLite file, where all its commits go."""
    return Path(f"{data}-wal")


KILLED_BEFORE_DURABLE = "fdatasync:signal=SIGKILL:when=1"
"""Dies where it would have made its next record durable: the record is in the file, and may be lost by a power cut."""

HELD_WHEN_DURABLE = "fdatasync:delay_exit=20000000:when=1"
"""Its next record becomes durable and it does not get to know, for longer than any test waits."""
