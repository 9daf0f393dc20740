"""`troth bench overload`: what happens when twice as much is wanted as can be done, and when a client does not listen.

First the best level of a closed loop is looked for. A client then transfers beside one that offers a quarter of that
rate: one that reads its results, and one that never does. At last twice the rate of the closed loop, measured anew just
before, is offered as an open loop, with each of several bounds of what the coordinator takes on at once. Where the
bound is below the best level, the closed loop keeps to the bound.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio

from bench.alone import IN_FLIGHT, Alone, Tell, started
from bench.contender import Failed
from bench.figures import CLIENT, Spread, plain
from bench.load import Load
from bench.offer import Offer
from bench.processes import resident_bytes, usage
from bench.report import Table, mib, wide
from bench.run import SETTLE_WITHIN_S
from coordinator.settings import CoordinatorSettings
from faults.cluster import COORDINATOR
from troth.words import Outcome

LEVELS = (64, 256, 1024)
IN_FLIGHT_MAX = (CoordinatorSettings().in_flight_max, 10_000)
FACTOR, BESIDE = 2.0, 0.25
"""Of the best rate: what is offered to overload it, and what is offered beside a client."""
_SAMPLE_S = 0.1
_KEPT_UP = 0.98
"""A client that sends less than this share of what it should has not kept up."""

LEGEND = """\
The closed loop is at its best level, just before; twice its rate is offered. Offered, committed and refused are per
second while it was offered; refusals are OVERLOADED and say that they may be tried again. Latency is that of what was
committed, from the time at which it was due. Memory is what is resident: when the offer began, when all was answered,
and the most in between; CPUs are those that were kept busy meanwhile. A client is held up when less is read from it
than it would send. All rows were compared with what was answered; what was not read was asked for again, with the same
ids.
"""


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    seconds: float
    """Of each offer."""
    search_s: float
    """Of each level when the best rate is looked for."""
    in_flight_max: Sequence[int]
    """Bounds of the coordinator, one cluster for each."""
    rounds: int
    """Windows of each kind beside another client."""
    seed: int


class Use(NamedTuple):
    """Of one process over some time."""

    cpus: float
    """Processors that it kept busy."""
    start_bytes: int
    end_bytes: int
    peak_bytes: int


class Overload(NamedTuple):
    """An open loop."""

    in_flight_max: int
    closed_per_s: float
    """Of a closed loop at the best level, just before."""
    wanted_per_s: float
    offered_per_s: float
    late_max_s: float
    """How late the client was at most."""
    committed_per_s: float
    refused_per_s: float
    committed: int
    """In the end."""
    refused: Mapping[str, int]
    latency_s: Mapping[str, float]
    """p50, p99 and max."""
    uses: Mapping[str, Use]
    """By process, the client's included."""

    @property
    def kept_up(self) -> bool:
        return self.offered_per_s >= _KEPT_UP * self.wanted_per_s

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        uses = {name: each._asdict() for name, each in self.uses.items()}
        return {"overload": FACTOR, **self._asdict(), "uses": uses, "client_kept_up": self.kept_up}


class Beside(NamedTuple):
    """A client that transfers in a closed loop."""

    other: str
    """What was beside it."""
    tx_per_s: Spread
    p99_ms: Spread
    refused: int
    """Of its own submissions, in all rounds; aborts too."""
    other_sent: int
    """By the other one, in all rounds."""
    held_up: int
    """Rounds in which the other one was not let send all it wanted."""

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        spreads = {"tx_per_s": plain(self.tx_per_s), "p99_ms": plain(self.p99_ms)}
        others = {"other_sent": self.other_sent, "other_held_up": self.held_up}
        return {"beside": self.other, **spreads, "refused": self.refused, **others}


@dataclass
class Found:
    """What a run has found."""

    closed: Mapping[int, float] = field(default_factory=dict)
    """tx/s by transactions in flight."""
    overloads: list[Overload] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)

    @property
    def best_level(self) -> int:
        return max(self.closed, key=lambda level: self.closed[level])

    @property
    def best_per_s(self) -> float:
        return self.closed[self.best_level]

    def as_json(self) -> Iterator[dict[str, Any]]:
        """One object for each part."""
        yield {"closed_loop": {str(level): round(rate, 1) for level, rate in self.closed.items()}}
        yield from (each.as_json() for each in self.overloads)
        yield from (each.as_json() for each in self.beside)

    def tables(self) -> list[Table]:
        """The same for people."""
        closed = [[str(level), f"{rate:,.0f}"] for level, rate in self.closed.items()]
        offers = (
            "in flight max",
            "closed loop",
            "offered",
            "committed",
            "of closed",
            "refused",
            "p50 ms",
            "p99 ms",
            "max ms",
        )
        uses = ("in flight max", "process", "CPUs", "start MiB", "peak MiB", "end MiB")
        beside = ("beside", "tx/s", "p99 ms", "refused", "the other sent", "held up")
        return [
            Table("Closed loop", ("in flight", "tx/s"), closed),
            Table("Open loop, at twice the best", offers, [_offer(each) for each in self.overloads]),
            Table("Each process", uses, [cells for each in self.overloads for cells in _uses(each)]),
            Table(f"A client with {IN_FLIGHT} in flight", beside, [_beside(each) for each in self.beside]),
        ]

    def sentences(self) -> Iterator[str]:
        """What is no table."""
        for each in self.overloads:
            if not each.kept_up:
                yield (
                    f"The client did not keep up with in_flight_max {each.in_flight_max:,}: it sent "
                    f"{each.offered_per_s:,.0f} of {each.wanted_per_s:,.0f} per second, {each.late_max_s:.2f} s late."
                )


def _offer(found: Overload) -> list[str]:
    return [
        f"{found.in_flight_max:,}",
        f"{found.closed_per_s:,.0f}",
        f"{found.offered_per_s:,.0f}",
        f"{found.committed_per_s:,.0f}",
        f"{found.committed_per_s / found.closed_per_s:.2f}",
        f"{found.refused_per_s:,.0f}",
        *(f"{1000 * each:,.0f}" for each in found.latency_s.values()),
    ]


def _uses(found: Overload) -> Iterator[list[str]]:
    for name, each in found.uses.items():
        sizes = (each.start_bytes, each.peak_bytes, each.end_bytes)
        yield [f"{found.in_flight_max:,}", name, f"{each.cpus:.2f}", *map(mib, sizes)]


def _beside(found: Beside) -> list[str]:
    counts = (found.refused, found.other_sent, found.held_up)
    return [found.other, wide(found.tx_per_s), wide(found.p99_ms), *(f"{count:,}" for count in counts)]


async def run(plan: Plan, folder: Path, tell: Tell) -> Found:
    """Measures everything. Raises Failed when a process died, rows are wrong, or a refusal is not what it must be."""
    found = Found()
    async with started(folder / "closed", plan.seed) as alone:
        found.closed = {level: await alone.window(plan.search_s, level) for level in LEVELS}
        tell(f"closed loop: {found.best_per_s:,.0f} tx/s at best")
        found.beside = await _beside_others(alone, plan, BESIDE * found.best_per_s, tell)
        await alone.subject.verify()
    for bound in plan.in_flight_max:
        settings = ("--in-flight-max", str(bound))
        async with started(folder / f"open-{bound}", plan.seed, settings=settings) as alone:
            closed_per_s = await alone.window(plan.search_s, min(found.best_level, bound))
            found.overloads.append(await _overloaded(alone, bound, closed_per_s, plan.seconds))
            await alone.subject.verify()
        last = found.overloads[-1]
        tell(f"in_flight_max {bound:,}: {last.committed_per_s:,.0f} of {last.offered_per_s:,.0f} per second committed")
    return found


def _offered(alone: Alone, rate_per_s: float, seconds: float) -> Offer:
    numbers = alone.subject.take(max(1, round(rate_per_s * seconds)))
    return Offer(numbers, [alone.subject.branches(number) for number in numbers], rate_per_s)


async def _overloaded(alone: Alone, bound: int, closed_per_s: float, seconds: float) -> Overload:
    rate_per_s = FACTOR * closed_per_s
    offer = _offered(alone, rate_per_s, seconds)
    async with _channel(alone) as channel, _watched(alone) as watch:
        await offer.run(channel)
    await _settled(alone)
    if offer.wrong or offer.unanswered:
        raise Failed(f"of {offer.sent} that were offered {offer.unanswered} were not answered; {dict(offer.wrong)}")
    alone.subject.ledger.committed(offer.committed)
    latencies_s = sorted(offer.latencies_s)
    return Overload(
        in_flight_max=bound,
        closed_per_s=closed_per_s,
        wanted_per_s=rate_per_s,
        offered_per_s=offer.offered_per_s,
        late_max_s=offer.late_max_s,
        committed_per_s=offer.per_s(Outcome.COMMITTED),
        refused_per_s=offer.per_s(Outcome.REFUSED),
        committed=len(offer.committed),
        refused=offer.refused,
        latency_s={
            "p50": latencies_s[len(latencies_s) // 2],
            "p99": latencies_s[len(latencies_s) * 99 // 100],
            "max": latencies_s[-1],
        },
        uses=watch.uses(),
    )


@asynccontextmanager
async def _channel(alone: Alone) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(alone.troth.cluster[COORDINATOR].address) as channel:
        yield channel


class _Watch:
    """Looks at every process now and then."""

    def __init__(self, alone: Alone) -> None:
        self._pids = {CLIENT: os.getpid(), **alone.troth.processes()}
        self._sizes: dict[str, list[int]] = {name: [] for name in self._pids}
        self._cpu_s = self._used_s()
        self._began_s = time.perf_counter()
        self._passed_s = 0.0

    def _used_s(self) -> dict[str, float]:
        return {name: usage(pid, alone=True).cpu_s for name, pid in self._pids.items()}

    def look(self) -> None:
        for name, pid in self._pids.items():
            self._sizes[name].append(resident_bytes(pid))

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(_SAMPLE_S)

    def end(self) -> None:
        self.look()
        self._passed_s = time.perf_counter() - self._began_s
        self._cpu_s = {name: used_s - self._cpu_s[name] for name, used_s in self._used_s().items()}

    def uses(self) -> dict[str, Use]:
        """By process, from beginning to end."""
        return {
            name: Use(self._cpu_s[name] / self._passed_s, sizes[0], sizes[-1], max(sizes))
            for name, sizes in self._sizes.items()
        }


@asynccontextmanager
async def _watched(alone: Alone) -> AsyncIterator[_Watch]:
    watch = _Watch(alone)
    running = asyncio.create_task(watch.run())
    try:
        yield watch
        watch.end()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _beside_others(alone: Alone, plan: Plan, rate_per_s: float, tell: Tell) -> list[Beside]:
    kinds = {"nobody": _nobody, "one that reads": _reading, "one that never reads": _never_reading}
    loads: dict[str, list[Load]] = {kind: [] for kind in kinds}
    offers: dict[str, list[Offer]] = {kind: [] for kind in kinds}
    for _ in range(plan.rounds):
        for kind, other in kinds.items():
            offer = _offered(alone, rate_per_s, plan.seconds)
            async with _channel(alone) as channel, other(offer, channel):
                loads[kind].append(await _transferring(alone, plan.seconds))
            await _learnt(alone, loads[kind][-1], offer)
            offers[kind].append(offer)
            tell(f"beside {kind}: {loads[kind][-1].tx_per_s:,.0f} tx/s")
    return [_summed(kind, loads[kind], offers[kind]) for kind in kinds]


async def _transferring(alone: Alone, seconds: float) -> Load:
    """The other one may have something open for as long as it likes, so nothing is waited for but this load."""
    load = alone.subject.load(IN_FLIGHT, seconds)
    await alone.troth.run(load)
    return load


@asynccontextmanager
async def _nobody(offer: Offer, channel: grpc.aio.Channel) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _reading(offer: Offer, channel: grpc.aio.Channel) -> AsyncIterator[None]:
    running = asyncio.create_task(offer.run(channel))
    yield
    await running


def _never_reading(offer: Offer, channel: grpc.aio.Channel) -> Any:
    return offer.unread(channel)


async def _learnt(alone: Alone, load: Load, offer: Offer) -> None:
    """Tells the ledger what became of both, and asks again for what was offered: its answers may not have been read."""
    await alone.subject.done(load)
    alone.count(load)
    asked = offer.transactions[: offer.sent]
    async for result in alone.troth.client.submit_many(asked, in_flight=IN_FLIGHT):
        number = [offer.numbers[result.position]]
        if result.outcome is Outcome.COMMITTED:
            alone.subject.ledger.committed(number)
        elif result.outcome is Outcome.UNKNOWN:
            alone.subject.ledger.unknown(number)
    await _settled(alone)


async def _settled(alone: Alone) -> None:
    async with asyncio.timeout(SETTLE_WITHIN_S):
        await alone.troth.settled()


def _summed(other: str, loads: Sequence[Load], offers: Sequence[Offer]) -> Beside:
    return Beside(
        other=other,
        tx_per_s=Spread.of([load.tx_per_s for load in loads]),
        p99_ms=Spread.of([1000 * sorted(load.latencies_s)[len(load.latencies_s) * 99 // 100] for load in loads]),
        refused=sum(load.aborted.total() for load in loads),
        other_sent=sum(offer.sent for offer in offers),
        held_up=sum(0 < offer.sent < _KEPT_UP * len(offer.numbers) for offer in offers),
    )
