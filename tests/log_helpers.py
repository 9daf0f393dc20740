"""What the tests of the log share: a recorder for a writer's callbacks, and child processes."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
WAIT_S = 30.0
"""Bound of every wait in these tests; reached only when something is broken."""


class Recorder:
    """Takes a writer's callbacks; `next()` waits for one."""

    def __init__(self) -> None:
        self._events: queue.Queue[tuple[Any, ...]] = queue.Queue()

    def flushed(self, upto: int, results: list[Any]) -> None:
        self._events.put(("flushed", upto, results))

    def failed(self, error: BaseException) -> None:
        self._events.put(("failed", error))

    def next(self) -> tuple[Any, ...]:
        return self._events.get(timeout=WAIT_S)

    def empty(self) -> bool:
        return self._events.empty()


class Warnings:
    """Stands in for a module's logger."""

    def __init__(self) -> None:
        self._warnings: queue.Queue[dict[str, Any]] = queue.Queue()

    def warning(self, event: str, **fields: Any) -> None:
        self._warnings.put({"event": event, **fields})

    def next(self) -> dict[str, Any]:
        return self._warnings.get(timeout=WAIT_S)


def command(what: str, path: Path) -> list[str]:
    return [sys.executable, "-m", "tests.log_child", what, str(path)]


@contextlib.contextmanager
def child(what: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is ready, and stays until its standard input is closed."""
    with subprocess.Popen(
        command(what, path), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            let_go(process)


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    if not process.stdin.closed:
        process.stdin.close()
    process.wait(timeout=WAIT_S)
