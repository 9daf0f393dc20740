"""`troth bench flat`: whether a transaction costs the same after a million others in the same files.

Machines have moods, so what is old is measured in turns with what is new: at each point a fresh cluster is made, and
the ratio of the two is what counts. Old and fresh are alike otherwise: p1 and p2 transfer, p3 stands by, and p4 was
killed when they began. In the end p3 is stopped with a commit owed to it while the transfers go on, and p4 comes
back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.alone import Alone, Size, Tell, started
from bench.figures import Spread, plain
from bench.report import Table, mib, wide
from bench.run import SETTLE_WITHIN_S
from bench.workloads import ACCOUNTS, COLUMNS
from troth import Transaction
from troth.failpoints import Action
from troth.process import FAILPOINTS

POINTS = (1_000, 10_000, 100_000, 1_000_000)
FRESH = 1_000
"""Transactions of a fresh cluster before it is measured."""
_STOPPED, _AWAY = "p3", "p4"
_PAUSE_S = 0.01

LEGEND = """\
Transfers between two participants. Rates are commits per second, in turns of old and fresh files: medians, with
(min..max); ratios are of neighbouring turns. Memory is what is resident; a file counts with its write-ahead file. All
rows were compared with what was answered.
"""


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    upto: int
    seconds: float
    """Of each window."""
    rounds: int
    """Windows of each kind at each point."""
    seed: int

    @property
    def points(self) -> list[int]:
        return [point for point in POINTS if point < self.upto] + [self.upto]


class Turns(NamedTuple):
    """Rates of two kinds of window that took turns."""

    ours: Sequence[float]
    others: Sequence[float]

    @property
    def ratio(self) -> Spread:
        return Spread.of([ours / other for ours, other in zip(self.ours, self.others, strict=True)])


class Point(NamedTuple):
    """What was found when the files were so old."""

    committed: int
    """Before the first window."""
    rates: Turns
    """Old, and fresh."""
    sizes: Mapping[str, Size]
    """By process, after the windows."""

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        old, fresh = map(Spread.of, self.rates)
        return {
            "point": self.committed,
            "tx_per_s": plain(old),
            "fresh_tx_per_s": plain(fresh),
            "old_to_fresh": plain(self.rates.ratio),
            "resident_bytes": {name: size.resident_bytes for name, size in self.sizes.items()},
            "file_bytes": {name: size.file_bytes for name, size in self.sizes.items()},
        }


class Back(NamedTuple):
    """A participant that was away, from when it is started again."""

    serving_s: float
    lane_s: float
    committed_s: float
    """Until the first transaction with it has committed."""


@dataclass
class Found:
    """What a run has found."""

    points: list[Point] = field(default_factory=list)
    doubt: Turns | None = None
    """With a transaction in doubt, and without."""
    back: Back | None = None

    def as_json(self) -> Iterator[dict[str, Any]]:
        """One object for each part."""
        yield from (point.as_json() for point in self.points)
        if self.doubt is not None:
            with_, without = map(Spread.of, self.doubt)
            yield {
                "in_doubt": 1,
                "tx_per_s": plain(with_),
                "tx_per_s_without": plain(without),
                "with_to_without": plain(self.doubt.ratio),
            }
        if self.back is not None:
            yield {"back_after": self.points[-1].committed, **self.back._asdict()}

    def tables(self) -> list[Table]:
        """The same for people."""
        rates = [[f"{point.committed:,}", *_turns(point.rates)] for point in self.points]
        sizes = [
            [f"{point.committed:,}", name, mib(size.resident_bytes), f"{size.file_bytes / 1024**2:.1f}"]
            for point in self.points
            for name, size in point.sizes.items()
        ]
        return [
            Table("Rate", ("transactions before", "tx/s", "fresh tx/s", "old / fresh"), rates),
            Table("Size", ("transactions before", "process", "resident MiB", "files MiB"), sizes),
        ]

    def sentences(self) -> Iterator[str]:
        """What is no table."""
        if self.doubt is not None:
            with_, without, ratio = _turns(self.doubt)
            yield f"With a transaction in doubt {with_} tx/s, without {without}; ratio {ratio}."
        if self.back is not None:
            yield (
                f"A participant that was away all the time serves {self.back.serving_s:.2f} s after its start, its "
                f"lane is open after {self.back.lane_s:.2f} s, a transaction with it committed after "
                f"{self.back.committed_s:.2f} s."
            )


def _turns(turns: Turns) -> list[str]:
    ratio = turns.ratio
    ours, others = map(Spread.of, turns)
    return [wide(ours), wide(others), f"{ratio.median:.2f} ({ratio.min:.2f}..{ratio.max:.2f})"]


async def run(plan: Plan, folder: Path, tell: Tell) -> Found:
    """Measures everything. Raises Failed when a process died or rows are wrong."""
    found = Found()
    async with _started(folder / "old", plan.seed) as old:
        for point in plan.points:
            await old.grow(point, tell)
            found.points.append(await _at(old, plan, folder / f"fresh-{point}", tell))
            await old.subject.verify()
        found.doubt = await _in_doubt(old, Doubt.of(old, folder), plan, tell)
        found.back = await _back(old)
        await old.subject.verify()
    return found


async def _at(old: Alone, plan: Plan, folder: Path, tell: Tell) -> Point:
    committed = old.committed
    async with _started(folder, plan.seed) as fresh:
        await fresh.grow(FRESH, tell)
        turns = await _in_turns(lambda: old.window(plan.seconds), lambda: fresh.window(plan.seconds), plan.rounds)
        sizes = old.sizes()
        await fresh.subject.verify()
    tell(f"after {committed:,} transactions: {_turns(turns)[0]} tx/s, fresh {_turns(turns)[1]}")
    return Point(committed, turns, sizes)


Window = Callable[[], Awaitable[float]]


async def _in_turns(ours: Window, others: Window, rounds: int) -> Turns:
    """Ours first and last in turns, so that neither always follows the other."""
    found: tuple[list[float], list[float]] = [], []
    for number in range(rounds):
        pairs = list(zip(found, (ours, others), strict=True))
        for rates, window in pairs if number % 2 == 0 else reversed(pairs):
            rates.append(await window())
    return Turns(*found)


class Doubt:
    """The participant that stops itself when the next commit reaches it, prepared as it is, and goes on when told."""

    def __init__(self, alone: Alone, rules: Path) -> None:
        self._alone = alone
        self._rules = rules

    @classmethod
    def of(cls, alone: Alone, folder: Path) -> Doubt:
        """Starts it again, so that it reads what it is to do."""
        rules = folder / "failpoints"
        cluster = alone.troth.cluster
        cluster.stop(_STOPPED)
        cluster.start(_STOPPED, env={FAILPOINTS: f"@{rules}"})
        cluster.wait_lanes(_STOPPED)
        return cls(alone, rules)

    async def begin(self) -> None:
        """Returns when a commit is owed to it."""
        self._rules.write_text(f"{_STOPPED}:commit:before-receive={Action.STOP.value}")
        self._alone.troth.owed = 1
        await self._alone.troth.client.submit(_probe(_STOPPED))

    async def end(self) -> None:
        """Returns when nothing is in doubt any more."""
        self._rules.unlink()
        self._alone.troth.cluster.resume(_STOPPED)
        self._alone.troth.owed = 0
        async with asyncio.timeout(SETTLE_WITHIN_S):
            await self._alone.troth.settled()


def _probe(participant: str) -> Transaction:
    """Changes something at p1 and there, by nothing: the ledger need not know."""
    made = Transaction()
    for name in ("p1", participant):
        made.at(name).add(ACCOUNTS, 0, COLUMNS[ACCOUNTS], 0)
    return made


async def _in_doubt(old: Alone, doubt: Doubt, plan: Plan, tell: Tell) -> Turns:
    async def with_doubt() -> float:
        await doubt.begin()
        rate = await old.window(plan.seconds)
        await doubt.end()
        return rate

    turns = await _in_turns(with_doubt, lambda: old.window(plan.seconds), plan.rounds)
    tell(f"with a transaction in doubt {_turns(turns)[0]} tx/s, without {_turns(turns)[1]}")
    return turns


async def _back(old: Alone) -> Back:
    troth, began_s = old.troth, time.perf_counter()
    await asyncio.to_thread(troth.cluster.start, _AWAY)
    troth.away.remove(_AWAY)
    serving_s = time.perf_counter() - began_s
    async with asyncio.timeout(SETTLE_WITHIN_S):
        while not all(lane.open for lane in troth.status().lanes):  # noqa: ASYNC110 - there is nothing else to await
            await asyncio.sleep(_PAUSE_S)
    lane_s = time.perf_counter() - began_s
    await troth.client.submit(_probe(_AWAY))
    return Back(serving_s, lane_s, time.perf_counter() - began_s)


@asynccontextmanager
async def _started(folder: Path, seed: int) -> AsyncIterator[Alone]:
    async with started(folder, seed, bystanders=2) as alone:
        alone.troth.cluster.kill(_AWAY)
        alone.troth.away.add(_AWAY)
        yield alone
