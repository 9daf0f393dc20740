"""A closed loop: so many transactions are always open, until the time is over or so many were handed out, and what
became of each is kept."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from bench.workloads import Branches, Workload
from troth.words import Outcome


class Step(NamedTuple):
    """One transaction, handed over to a contender."""

    number: int
    branches: Branches
    began_s: float


class Answer(NamedTuple):
    """How it ended, and why when that is not COMMITTED."""

    outcome: Outcome
    why: str = ""


class Load:
    """Hands out steps, from the number `first` on, as an iterator that many tasks may share.

    The first answers come later than a rate would have it, and all at once. So time begins with the answer at which the
    loop has turned once. It is over `seconds` later, but not before the loop has turned once more: answers come in
    waves, and between two of them there is none to count. Nothing is handed out after it, nor after `count` steps or
    `stop`."""

    def __init__(
        self, workload: Workload, seed: int, first: int, in_flight: int, seconds: float, count: int | None = None
    ) -> None:
        self.in_flight = in_flight
        """How many steps are to be open."""
        self.next_number = first
        self.committed: list[int] = []
        """Numbers, in the order of their answers."""
        self.latencies_s: list[float] = []
        """Of the committed."""
        self.aborted: Counter[str] = Counter()
        """By reason."""
        self.unknown: list[int] = []
        self._workload = workload
        self._seed = seed
        self._first = first
        self._seconds = seconds
        self._answers = 0
        self._end_number = math.inf if count is None else first + count
        self._began_s = self._ends_s = math.inf
        self._in_time = 0
        """Commits that were answered within the time."""
        self._last_s = math.inf
        """When the last of them was."""

    def __iter__(self) -> Load:
        return self

    def __next__(self) -> Step:
        now = time.perf_counter()
        if now >= self._ends_s or self.next_number >= self._end_number:
            raise StopIteration
        number, self.next_number = self.next_number, self.next_number + 1
        return Step(number, self._workload.branches(self._seed, number), now)

    def stop(self) -> None:
        """Nothing more is handed out."""
        self._end_number = self.next_number

    @property
    def open(self) -> int:
        """Steps that were handed out and not answered."""
        return self.next_number - self._first - self._answers

    @property
    def turned(self) -> bool:
        """Whether the loop has turned once, so that time runs."""
        return self._answers >= self.in_flight

    def answered(self, step: Step, answer: Answer) -> None:
        """To be called once for each step."""
        now = time.perf_counter()
        match answer.outcome:
            case Outcome.COMMITTED:
                self.committed.append(step.number)
                self.latencies_s.append(now - step.began_s)
                if self._began_s <= now < self._ends_s:
                    self._in_time, self._last_s = self._in_time + 1, now
            case Outcome.UNKNOWN:
                self.unknown.append(step.number)
            case Outcome.ABORTED | Outcome.REFUSED:
                self.aborted[answer.why or answer.outcome.name.lower()] += 1
        self._answers += 1
        if self._answers == self.in_flight:
            self._began_s = now
        elif self._answers == 2 * self.in_flight:
            self._ends_s = max(now, self._began_s + self._seconds)

    @property
    def tx_per_s(self) -> float:
        """Commits within the time, up to the last of them: answers that come in waves are not cut within one."""
        return self._in_time / (self._last_s - self._began_s) if self._in_time else 0.0


Worker = Callable[[Step], Awaitable[Answer]]


async def by_workers(load: Load, workers: Sequence[Worker]) -> None:
    """Each worker does one step after the other. Raises what a worker raised."""

    async def work(worker: Worker) -> None:
        for step in load:
            load.answered(step, await worker(step))

    async with asyncio.TaskGroup() as tasks:
        for worker in workers:
            tasks.create_task(work(worker))
