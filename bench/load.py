"""A closed loop: so many transactions are always open, until the time is over, and what became of each is kept."""

from __future__ import annotations

import asyncio
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
    """Hands out steps for `seconds`, from the number `first` on, as an iterator that many tasks may share."""

    def __init__(self, workload: Workload, seed: int, first: int, seconds: float) -> None:
        self.seconds = seconds
        self.next_number = first
        self.in_time = 0
        """Commits that were answered before the time was over: what a rate is made of."""
        self.committed: list[int] = []
        """Numbers, in the order of their answers."""
        self.latencies_s: list[float] = []
        """Of the committed."""
        self.aborted: Counter[str] = Counter()
        """By reason."""
        self.unknown: list[int] = []
        self._workload = workload
        self._seed = seed
        self._ends_s: float | None = None

    def __iter__(self) -> Load:
        return self

    def __next__(self) -> Step:
        now = time.perf_counter()
        if self._ends_s is None:
            self._ends_s = now + self.seconds
        if now >= self._ends_s:
            raise StopIteration
        number, self.next_number = self.next_number, self.next_number + 1
        return Step(number, self._workload.branches(self._seed, number), now)

    def answered(self, step: Step, answer: Answer) -> None:
        """To be called once for each step."""
        match answer.outcome:
            case Outcome.COMMITTED:
                now = time.perf_counter()
                self.committed.append(step.number)
                self.latencies_s.append(now - step.began_s)
                assert self._ends_s is not None
                self.in_time += now < self._ends_s
            case Outcome.UNKNOWN:
                self.unknown.append(step.number)
            case Outcome.ABORTED | Outcome.REFUSED:
                self.aborted[answer.why or answer.outcome.name.lower()] += 1


Worker = Callable[[Step], Awaitable[Answer]]


async def by_workers(load: Load, workers: Sequence[Worker]) -> None:
    """Each worker does one step after the other. Raises what a worker raised."""

    async def work(worker: Worker) -> None:
        for step in load:
            load.answered(step, await worker(step))

    async with asyncio.TaskGroup() as tasks:
        for worker in workers:
            tasks.create_task(work(worker))
