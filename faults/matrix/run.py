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
from contextlib import ExitStack
from pathlib import Path

from faults.auditor import audit
from faults.matrix.arena import Arena, Result, opened
from faults.matrix.cells import Cell


class Runner:
    """One run. Each cluster has a folder of its own below `root`, which stays when something in it did not hold."""

    def __init__(self, root: Path, clusters: int, kinds: Sequence[str] = ()) -> None:
        """`kinds` of servers as in `opened`, for the cells that need them."""
        self._root = root
        self._clusters = clusters
        self._kinds = kinds
        self._todo: dict[bool, queue.SimpleQueue[Cell]] = {}
        """By `Cell.at_servers`: a cluster runs cells of one kind only."""
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
            self._todo.setdefault(cell.at_servers, queue.SimpleQueue()).put(cell)
        workers = max(1, min(self._clusters, len(cells)))
        with ThreadPoolExecutor(workers) as pool:
            try:
                stages = sorted(self._todo, reverse=True)
                for n in range(workers):
                    first = n % len(stages)
                    pool.submit(self._work, [*stages[first:], *stages[:first]])
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

    def _work(self, stages: Sequence[bool]) -> None:
        """Cells of the first of these as long as there are some, then of the next."""
        try:
            for at_servers in stages:
                while self._in_one_cluster(at_servers):
                    pass
        except BaseException as error:  # a full disk, say: whoever waits for the end must hear of it
            self._done.put(error)
        self._done.put(None)

    def _in_one_cluster(self, at_servers: bool) -> bool:
        """Runs cells until one has failed, when there may be more; False when there are none, or no time."""
        with ExitStack() as stack:
            arena: Arena | None = None
            while not self._stopping.is_set() and time.monotonic() < self._until:
                try:
                    cell = self._todo[at_servers].get_nowait()
                except queue.Empty:
                    break
                arena = arena or stack.enter_context(opened(self._new_folder(), self._kinds if at_servers else ()))
                result = _run(arena, cell)
                self._done.put(result)
                if not result.good:
                    return True
            if arena is not None:
                self._close(arena)
        return False

    def _new_folder(self) -> Path:
        """One that was not there before: it is swept away in the end, and nothing of anybody else's with it."""
        return Path(tempfile.mkdtemp(prefix="cluster-", dir=self._root))

    def _close(self, arena: Arena) -> None:
        arena.cluster.close()
        found = audit(
            [arena.cluster.folder], databases={name: each.dsn for name, each in arena.cluster.databases.items()}
        )
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
