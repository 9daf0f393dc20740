"""Faults in system calls of a process that runs already: strace, attached at the point that a test has reached.

`when` in a rule counts the calls of one thread from the attachment on, so the next flush of a log is number 1: only the
writer thread flushes. What is queued lazily must be on disk before (`moves.flush`), or that is the next flush.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster import Process


@contextmanager
def injected(pid: int, *rules: str, paths: list[Path] | None = None) -> Iterator[None]:
    """`injected(pid, "fdatasync:signal=SIGKILL:when=1", paths=[wal])`: while entered, calls of that process and of what
    it starts obey the rules, only on `paths` when these are given. Skips where a process may not be attached to."""
    calls = ",".join(sorted({rule.split(":")[0] for rule in rules}))
    only = [argument for path in paths or [] for argument in ("-P", str(path))]
    inject = [argument for rule in rules for argument in ("-e", f"inject={rule}")]
    with _attached(pid, ["-e", f"trace={calls}", *inject, *only, "-o", os.devnull]):
        yield


@contextmanager
def counted(pid: int, calls: str, output: Path) -> Iterator[Callable[[], int]]:
    """Writes those calls of the process to `output`. Gives what says, afterwards, how many there were."""
    with _attached(pid, ["-e", f"trace={calls}", "-e", "signal=none", "-o", str(output)]):
        yield lambda: sum("resumed>" not in line for line in output.read_text().splitlines())


@contextmanager
def _attached(pid: int, options: Sequence[str]) -> Iterator[None]:
    with subprocess.Popen(
        ["strace", "-f", *options, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as tracer:
        try:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            if "attached" not in said:
                pytest.skip(f"strace may not attach to a process here: {said.strip()}")
            yield
        finally:
            _end(tracer)


def wal_of(data: Path) -> Path:
    """The write-ahead log of a SQLite file, where all its commits go."""
    return Path(f"{data}-wal")


KILLED_BEFORE_DURABLE = "fdatasync:signal=SIGKILL:when=1"
"""Dies where it would have made its next record durable: the record is in the file, and may be lost by a power cut."""

HELD_WHEN_DURABLE = "fdatasync:delay_exit=20000000:when=1"
"""Its next record becomes durable and it does not get to know, for longer than any test waits."""

_HELD_LOOKS = 5
_LET_GO_WITHIN_S = 0.5


def _end(tracer: subprocess.Popen[str]) -> None:
    """It lets the process go; but not while it holds a call of it, so then it goes at once."""
    tracer.terminate()
    try:
        tracer.wait(_LET_GO_WITHIN_S)
    except subprocess.TimeoutExpired:
        tracer.kill()


def kill_held(process: Process, within_s: float = 10.0) -> None:
    """Kills a process, to be waited for outside of `injected`, once a thread of it is held after its call. Any call of
    a traced process stops it for a moment, so it must be seen stopped several times in a row."""
    pid = process.pid
    deadline = time.monotonic() + within_s
    seen: Counter[str] = Counter()
    while max(seen.values(), default=0) < _HELD_LOOKS:
        assert time.monotonic() < deadline, f"no call of process {pid} was held within {within_s} s"
        time.sleep(0.02)
        stopped = [task.name for task in Path(f"/proc/{pid}/task").iterdir() if _state(task) == "t"]
        seen = Counter({task: seen[task] + 1 for task in stopped})
    os.kill(pid, signal.SIGKILL)


def _state(task: Path) -> str:
    """The state letter of a thread in /proc; `t` is stopped by its tracer."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]
