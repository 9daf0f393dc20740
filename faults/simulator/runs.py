"""Runs of many seeds, in this process or several; and a failing one made small.

Every run is by itself: a seed, how many transactions, how many participants, and of its asks and faults the ones to
keep decide all of it, in whatever process it runs and whatever ran before.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import NamedTuple

from faults.simulator.scenario import Scenario, scenario
from faults.simulator.simulation import Done, Simulation

SHRINK_RUNS_MAX = 600
"""Runs that making a failure smaller may take."""
FEW = 40
"""Asks and faults that are few enough to be tried with several chances."""
CHANCES = 5
COLLECT_EVERY = 10
"""Runs between two collections of garbage: a run is one large knot of objects that die together."""


class Size(NamedTuple):
    """What a seed is run with."""

    transactions: int = 200
    participants: tuple[int, int] = (2, 5)


class Keep(NamedTuple):
    """Positions of the asks and faults of a scenario that a smaller one keeps, and with what chance it is run."""

    asks: frozenset[int]
    faults: frozenset[int]
    chance: int = 0
    """0: the delays, losses and the like that are drawn first with the seed; else others."""

    def __str__(self) -> str:
        parts = [*(f"a{i}" for i in sorted(self.asks)), *(f"f{i}" for i in sorted(self.faults))]
        return ",".join([*parts, f"c{self.chance}"] if self.chance or not parts else parts)

    @classmethod
    def parse(cls, text: str) -> Keep:
        """The inverse of `str`. Raises ValueError."""
        parts = [part for part in text.split(",") if part]
        if not all(part[0] in "afc" and part[1:].isdecimal() for part in parts):
            raise ValueError(f"a list such as a3,a17,f0 is wanted, not {text!r}")
        kinds = {kind: frozenset(int(part[1:]) for part in parts if part[0] == kind) for kind in "afc"}
        return cls(kinds["a"], kinds["f"], max(kinds["c"], default=0))


class Failure(NamedTuple):
    """What broke."""

    what: str
    """The violation's sentence, or the exception that a node or a log raised."""
    where: str


class Run(NamedTuple):
    """One run: how it ended, and the processor time that it took."""

    seed: int
    done: Done | None
    failure: Failure | None
    cpu_s: float
    history: tuple[str, ...] = ()
    """What happened, a line each, when it was traced."""


def chosen(seed: int, size: Size, keep: Keep | None = None) -> Scenario:
    made = scenario(seed, *size)
    return made if keep is None else made.keeping(*keep)


def run(seed: int, size: Size, keep: Keep | None = None, *, traced: bool = False) -> Run:
    """One run. Whatever is raised in it is a failure: a node that raises is a process that stops."""
    began = time.process_time()
    made = chosen(seed, size, keep)
    simulation = Simulation(made, traced=traced)
    done, failure = None, None
    try:
        done = simulation.run()
    except Exception as error:
        failure = Failure(_sentence(error), _place(error))
    finally:
        simulation.close()
    history = tuple(simulation.trace or ())
    return Run(seed, done, failure, time.process_time() - began, history)


def _sentence(error: Exception) -> str:
    name = type(error).__name__
    return str(error) if name == "Violation" else f"{name}: {error}"


def _place(error: Exception) -> str:
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "/simulator/violation" not in frame.filename
    ]
    return f"{os.path.relpath(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def run_all(seeds: Iterable[int], size: Size, jobs: int) -> Iterator[Run]:
    """Runs seeds in `jobs` processes, in this one when it is 1; yields each as it ends."""
    if jobs == 1:
        yield from _run_here(seeds, size)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        chunks = iter(_chunks(iter(seeds), COLLECT_EVERY))
        running: set[Future[list[Run]]] = set()
        try:
            while True:
                for chunk in islice(chunks, 2 * jobs - len(running)):
                    running.add(pool.submit(_run_chunk, chunk, size))
                if not running:
                    return
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield from future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _chunks(seeds: Iterator[int], length: int) -> Iterator[list[int]]:
    while chunk := list(islice(seeds, length)):
        yield chunk


def _run_chunk(seeds: list[int], size: Size) -> list[Run]:
    return list(_run_here(seeds, size))


def _run_here(seeds: Iterable[int], size: Size) -> Iterator[Run]:
    """Collects garbage between runs only; what was there before is not looked through again and again."""
    gc.freeze()
    gc.disable()
    try:
        for count, seed in enumerate(seeds, 1):
            yield run(seed, size)
            if count % COLLECT_EVERY == 0:
                gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
        gc.collect()


# Making a failing run small.


def shrink(seed: int, size: Size, told: Callable[[int, int], None] | None = None) -> Keep:
    """The asks and faults that are left when nothing more can be taken away for the same check to fail, as far as
    SHRINK_RUNS_MAX runs tell. `told(asks, faults)` hears of progress."""
    made = scenario(seed, *size)
    best = Keep(frozenset(range(len(made.asks))), frozenset(range(len(made.faults))))
    failure = run(seed, size).failure
    assert failure is not None, f"seed {seed} does not fail"
    tries = _Tries(seed, size, failure.where)
    best = tries.fails(best._replace(faults=frozenset())) or best
    before = None
    while best != before and tries.left > 0:
        before = best
        for kind in ("asks", "faults"):
            best = _lessened(best, kind, tries)
            if told is not None:
                told(len(best.asks), len(best.faults))
    return best


class _Tries:
    """Runs of smaller scenarios, as many as may be."""

    def __init__(self, seed: int, size: Size, where: str) -> None:
        self._seed = seed
        self._size = size
        self._where = where
        self.left = SHRINK_RUNS_MAX

    def fails(self, keep: Keep) -> Keep | None:
        """With the chance with which it fails at the same check. What is left out changes all that comes after it, so
        a small one is tried with several."""
        few = len(keep.asks) + len(keep.faults) <= FEW
        for chance in sorted(range(CHANCES if few else 1), key=lambda each: each != keep.chance):
            if self.left <= 0:
                return None
            self.left -= 1
            tried = keep._replace(chance=chance)
            failure = run(self._seed, self._size, tried).failure
            if failure is not None and failure.where == self._where:
                return tried
        return None


def _lessened(best: Keep, kind: str, tries: _Tries) -> Keep:
    """Takes away halves, quarters and so on, down to single ones (delta debugging, Zeller and Hildebrandt 2002)."""
    parts = 2
    while tries.left > 0 and (items := sorted(getattr(best, kind))):
        length = -(-len(items) // parts)
        for at in range(0, len(items), length):
            kept = frozenset(items[:at] + items[at + length :])
            smaller = tries.fails(best._replace(asks=kept) if kind == "asks" else best._replace(faults=kept))
            if smaller is not None:
                best, parts = smaller, max(parts - 1, 2)
                break
        else:
            if length == 1:
                return best
            parts = min(2 * parts, len(items))
    return best
