"""Runs contenders in turns: for each workload all of them are started, and in every round each is measured once at the
same level. After each measurement all rows are compared with what was answered."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.contender import Contender, Counts, Failed, contender, lacking
from bench.figures import CLIENT, Figures, Row
from bench.ledger import Ledger
from bench.load import Load
from bench.processes import Usage, forget_peak, usage
from bench.workloads import WORKLOADS, Branches, Workload

SETTLE_WITHIN_S = 60.0


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    workloads: Sequence[str]
    in_flight: Sequence[int]
    """Empty: what each workload is measured with by default."""
    contenders: Sequence[str]
    rounds: int
    seconds: float
    """Of each measurement, after `warm_up_s` of the same load."""
    warm_up_s: float
    seed: int
    named: bool = False
    """The contenders were asked for by name, so they are measured at every level."""

    def levels(self, workload: str, kind: type[Contender]) -> list[int]:
        """Of transactions in flight, at which a contender has its turns."""
        only = None if self.named else kind.levels
        return [each for each in self.in_flight or WORKLOADS[workload].in_flight if only is None or each in only]


class Skip(NamedTuple):
    """What was not measured."""

    contender: str
    workload: str | None
    """None: no workload."""
    why: str


@dataclass
class Found:
    """What a run has found."""

    rows: list[Row] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)


async def run(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Found:
    """Measures everything; `tell` gets a sentence now and then. Raises Failed when a process died or rows are wrong."""
    found = Found()
    able = []
    for name in plan.contenders:
        if why := lacking(name):
            found.skipped.append(Skip(name, None, why))
            tell(f"{name} is skipped: {why}")
        else:
            able.append(contender(name))
    for workload in plan.workloads:
        async with _started(plan, workload, able, folder / workload, found.skipped, tell) as subjects:
            for level in plan.in_flight or WORKLOADS[workload].in_flight:
                at_it = [each for each in subjects if level in plan.levels(workload, type(each.contender))]
                found.rows += await _measured(plan, workload, level, at_it, tell)
    return found


async def _measured(
    plan: Plan, workload: str, level: int, subjects: Sequence[Subject], tell: Callable[[str], None]
) -> list[Row]:
    """A row for each, of all rounds at one level."""
    pairs = [(Row(workload, level, subject.contender.name), subject) for subject in subjects]
    for row, subject in _turns(plan.rounds, pairs):
        figures = await subject.measured(level, plan)
        row.rounds.append(figures)
        at = f"{workload}, {level} in flight, round {len(row.rounds)} of {plan.rounds}"
        tell(f"{at}: {row.contender} {figures.tx_per_s:,.0f} tx/s")
    found = await asyncio.gather(*(subject.commits_per_sync() for subject in subjects))
    for (row, _), commits_per_sync in zip(pairs, found, strict=True):
        row.commits_per_sync = commits_per_sync
    return [row for row, _ in pairs]


class Subject:
    """A contender that was started for a workload, with the ledger of all it did since."""

    def __init__(self, contender: Contender, workload: Workload, seed: int) -> None:
        self.contender = contender
        self.ledger = Ledger(workload, seed)
        self._workload = workload
        self._seed = seed
        self._next_number = 0
        self._commits = 0
        self._told = 0, 0.0
        """Commits, and syncs of a server, when it was last asked for both."""

    async def measured(self, in_flight: int, plan: Plan) -> Figures:
        """One measurement, warmed up and verified. Raises Failed."""
        in_flight = min(in_flight, self.contender.in_flight_max or in_flight)
        with self._blamed():
            async with self.contender.connected(in_flight):
                await self.ran(self.load(in_flight, plan.warm_up_s))
                counted, used = await self.contender.counts(), self._usage(anew=True)
                gc.collect()
                load = await self.ran(self.load(in_flight, plan.seconds))
                used = _between(used, self._usage())
                counts = _counted(counted, await self.contender.counts())
        await self.verify()
        if not load.committed:
            aborted = dict(load.aborted)
            raise Failed(f"{self.contender.name} committed nothing in {plan.seconds:g} s; aborted: {aborted}")
        return Figures.of(load, used, counts)

    async def commits_per_sync(self) -> float | None:
        """Since this was last asked, at each database server; None when that is not known."""
        with self._blamed():
            syncs = await self.contender.syncs_a_server()
        if syncs is None:
            return None
        (commits_before, syncs_before), self._told = self._told, (self._commits, syncs)
        return (self._commits - commits_before) / max(syncs - syncs_before, 1)

    def load(self, in_flight: int, seconds: float, count: int | None = None) -> Load:
        """The next one."""
        return Load(self._workload, self._seed, self._next_number, in_flight, seconds, count)

    def branches(self, number: int) -> Branches:
        """What the step of that number does."""
        return self._workload.branches(self._seed, number)

    def take(self, count: int) -> range:
        """Numbers for steps that somebody else runs; what becomes of them is to be told to the ledger."""
        first = self._next_number
        self._next_number += count
        return range(first, self._next_number)

    async def ran(self, load: Load) -> Load:
        """The load when it is done, applied, and in the ledger. Raises Failed when a process died."""
        await self.contender.run(load)
        await self.done(load)
        return load

    async def done(self, load: Load) -> None:
        """To be called when a load has run, by whomever. Raises Failed when a process died."""
        self._next_number = load.next_number
        self._look_for_dead()
        async with asyncio.timeout(SETTLE_WITHIN_S):
            await self.contender.settled()
        self._commits += len(load.committed)
        self.ledger.committed(load.committed)
        self.ledger.unknown(load.unknown)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """What goes wrong within is the contender's: raises Failed, with what died when something did."""
        try:
            yield
        except Exception as error:
            self._look_for_dead()
            raise Failed(f"{self.contender.name} failed: {error!r}") from error

    def _look_for_dead(self) -> None:
        if dead := self.contender.dead():
            raise Failed(f"{self.contender.name}: ended by itself: " + "; ".join(dead))

    async def verify(self) -> None:
        """Raises Failed when the rows are not what was answered."""
        with self._blamed():
            complaints = await self.contender.complaints(self.ledger)
        if complaints:
            raise Failed(f"{self.contender.name}: the rows are not what was answered: " + "; ".join(complaints))

    def _usage(self, *, anew: bool = False) -> dict[str, Usage]:
        """By process, as of now; `anew` begins the peaks of memory here."""
        pids = self.contender.processes()
        if anew:
            forget_peak(os.getpid(), alone=True)
            for pid in pids.values():
                forget_peak(pid)
        servers = {name: usage(pid) for name, pid in pids.items()}
        return {CLIENT: usage(os.getpid(), alone=True), **servers}


@asynccontextmanager
async def _started(
    plan: Plan,
    name: str,
    contenders: Sequence[type[Contender]],
    folder: Path,
    skipped: list[Skip],
    tell: Callable[[str], None],
) -> AsyncIterator[list[Subject]]:
    """Those that can do the workload; the others are noted as skipped."""
    workload = WORKLOADS[name]
    async with AsyncExitStack() as stack:
        subjects = []
        for kind in contenders:
            if why := kind.unable(workload) or _nothing_to_say(plan, name, kind):
                skipped.append(Skip(kind.name, name, why))
                tell(f"{name}: {kind.name} is skipped: {why}")
                continue
            tell(f"{name}: starting {kind.name}")
            made = kind()
            stack.push_async_callback(made.close)
            place = folder / kind.name
            place.mkdir(parents=True)
            try:
                await made.start(place, workload)
            except Exception as error:
                raise Failed(f"{kind.name} did not start: {error}") from error
            subjects.append(Subject(made, workload, plan.seed))
        yield subjects


def _nothing_to_say(plan: Plan, workload: str, kind: type[Contender]) -> str:
    """Why a contender has no turn at any level of the plan; empty when it has."""
    if plan.levels(workload, kind):
        return ""
    only = " and ".join(map(str, kind.levels or ()))
    return f"it is measured at {only} in flight, and elsewhere when it is named (--contender {kind.name})"


def _turns(rounds: int, pairs: Sequence[tuple[Row, Subject]]) -> Iterator[tuple[Row, Subject]]:
    """Whose turn it is, and the row that its figures belong to."""
    for number in range(rounds):
        first = number % max(len(pairs), 1)
        yield from (*pairs[first:], *pairs[:first])  # so that nobody always runs after the same one


def _between(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, Usage]:
    return {name: _used(before[name], now) for name, now in after.items()}


def _used(before: Usage, after: Usage) -> Usage:
    if before.written_bytes is None or after.written_bytes is None:
        written = None
    else:
        written = after.written_bytes - before.written_bytes
    return Usage(after.cpu_s - before.cpu_s, written, after.peak_bytes)


def _counted(before: Counts, after: Counts) -> Counts:
    return Counts(*(None if a is None or b is None else a - b for b, a in zip(before, after, strict=True)))
