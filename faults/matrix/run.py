"""Runs cells, several clusters side by side, each cluster one cell after the other."""

from __future__ import annotations

import math
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults.auditor import audit
from faults.matrix.arena import Arena, Result
from faults.matrix.cells import Cell


class Runner:
    """One run. Each cluster has a folder of its own below `root`, which stays when something in it did not hold."""

    def __init__(self, root: Path, clusters: int) -> None:
        self._root = root
        self._clusters = clusters
        self._todo: queue.SimpleQueue[Cell] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._until = math.inf
        self.contradictions: list[str] = []
        """What the auditor found in the files of clusters whose cells were all good."""

    def run(self, cells: Sequence[Cell], within_s: float = math.inf) -> Iterator[Result]:
        """Results as they come; no cell is begun after `within_s`. Closed early, it lets the cells under way end; no
        process is left in any case."""
        self._until = time.monotonic() + within_s
        for cell in cells:
            self._todo.put(cell)
        workers = max(1, min(self._clusters, len(cells)))
        with ThreadPoolExecutor(workers) as pool:
            try:
                for _ in range(workers):
                    pool.submit(self._work)
                while workers:
                    match self._done.get():
                        case None:
                            workers -= 1
                        case Result() as result:
                            yield result
                        case BaseException() as error:
                            raise error
            finally:
                self._stopping.set()

    def _work(self) -> None:
        arena: Arena | None = None
        try:
            while not self._stopping.is_set() and time.monotonic() < self._until:
                cell = self._todo.get_nowait()
                arena = arena or Arena(self._new_folder()).__enter__()
                result = _run(arena, cell)
                self._done.put(result)
                if not result.good:
                    arena.cluster.close()
                    arena = None
        except queue.Empty:
            pass
        except BaseException as error:
            self._done.put(error)
        try:
            if arena is not None:
                self._close(arena)
        except BaseException as error:  # a full disk, say: whoever waits for the end must hear of it
            self._done.put(error)
        self._done.put(None)

    def _new_folder(self) -> Path:
        """One that was not there before: it is swept away in the end, and nothing of anybody else's with it."""
        return Path(tempfile.mkdtemp(prefix="cluster-", dir=self._root))

    def _close(self, arena: Arena) -> None:
        arena.cluster.close()
        found = audit([arena.cluster.folder])
        sentences = [*(each.line() for each in (*found.contradictions, *found.in_doubt)), *found.unreadable]
        self.contradictions += sentences
        if not sentences:
            shutil.rmtree(arena.cluster.folder)


def _run(arena: Arena, cell: Cell) -> Result:
    """A cell whose processes do not come back has failed as one with a wrong outcome has."""
    began = time.monotonic()
    try:
        return arena.run(cell)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        return Result(cell, (why,), "", 0, time.monotonic() - began)
