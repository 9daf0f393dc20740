"""`troth bench restart`: how long a kill -9 in the middle of many transactions is felt.

The same files are used for all three: the coordinator is killed, a participant, and everything at once, each time with
so many transactions in flight. Clients keep asking with the same ids, and every one is to get its answer.

A closed loop turns in waves, and what is open at one moment may be few. So p2 is stopped for a moment, which holds up
every answer while p1 goes on to prepare, and goes on when the others are killed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.alone import Alone, Tell, started
from bench.contender import Failed
from bench.load import Load
from bench.report import Table
from bench.run import SETTLE_WITHIN_S
from faults.cluster import COORDINATOR

IN_FLIGHT_MAX = 10_000
"""What the coordinator takes on at once."""
ASK_AGAIN_S = 60.0
"""How long a client asks again; far beyond what a restart should take."""
_ANSWERED_WITHIN_S = 120.0
"""Until a restart after which clients still wait is given up."""
_PAUSE_S = 0.05
_HELD = "p2"
_HELD_FOR_S = 4.0
"""At most: after 5 s without a sign of life its lane is given up."""
_ENOUGH = 0.98
"""This share of what is wanted in flight is."""
_VICTIMS: Mapping[str, Sequence[str]] = {
    COORDINATOR: (COORDINATOR,),
    "p1": ("p1",),
    "all": (COORDINATOR, "p1", "p2"),
}

LEGEND = """\
Seconds from starting again what was killed: until all of it serves, until every client has its answer, and until
nothing is open or in doubt anywhere. In flight is what clients had no answer for when it was killed; open is what the
coordinator had not answered just before, and in doubt what p1 had prepared. p2 was stopped for a moment to have them
all open. All rows were compared with what was answered.
"""


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    in_flight: int
    finished: int
    """Transactions in the files before."""
    seed: int


class Restart(NamedTuple):
    """One kill, and what came after it."""

    killed: str
    finished: int
    """Transactions committed before."""
    in_flight: int
    """At the client."""
    open: int
    """At the coordinator: not answered."""
    in_doubt: int
    """At p1: prepared, and the outcome not known there."""
    serving_s: Mapping[str, float]
    """By process that was killed."""
    answered_s: float
    resolved_s: float
    committed: int
    """Of what was in flight."""
    aborted: Mapping[str, int]
    """Of what was in flight, by reason."""


@dataclass
class Found:
    """What a run has found."""

    restarts: list[Restart] = field(default_factory=list)

    def as_json(self) -> Iterator[dict[str, Any]]:
        """One object for each restart."""
        yield from (restart._asdict() for restart in self.restarts)

    def tables(self) -> list[Table]:
        """The same for people."""
        columns = ("killed", "finished", "in flight", "open", "in doubt", "serving s", "answered s", "resolved s")
        return [Table("Restart", (*columns, "committed", "aborted"), [_cells(each) for each in self.restarts])]

    def sentences(self) -> Iterator[str]:
        """What is no table: nothing."""
        yield from ()


def _cells(found: Restart) -> list[str]:
    counts = (found.finished, found.in_flight, found.open, found.in_doubt)
    seconds = (max(found.serving_s.values()), found.answered_s, found.resolved_s)
    return [
        found.killed,
        *(f"{count:,}" for count in counts),
        *(f"{each:.2f}" for each in seconds),
        f"{found.committed:,}",
        f"{sum(found.aborted.values()):,}",
    ]


async def run(plan: Plan, folder: Path, tell: Tell) -> Found:
    """Measures everything. Raises Failed when a process died, a client got no answer, or rows are wrong."""
    found = Found()
    settings = ("--in-flight-max", str(IN_FLIGHT_MAX))
    async with started(folder / "cluster", plan.seed, settings=settings) as alone:
        await alone.grow(plan.finished, tell)
        for killed, names in _VICTIMS.items():
            tell(f"{plan.in_flight:,} in flight; then {killed} is killed")
            restart = await _killed(alone, plan.in_flight, killed, names)
            found.restarts.append(restart)
            tell(
                f"{killed}: serving after {max(restart.serving_s.values()):.2f} s, resolved {restart.resolved_s:.2f} s"
            )
            await alone.subject.verify()
    return found


async def _killed(alone: Alone, in_flight: int, killed: str, names: Sequence[str]) -> Restart:
    """Kills them when the loop has turned once and so many are open."""
    load = alone.subject.load(in_flight, math.inf)
    async with _running(alone, load) as answers:
        while not (load.turned or answers.done()):  # noqa: ASYNC110 - there is nothing else to await
            await asyncio.sleep(_PAUSE_S)
        open_, in_doubt = await _held_up(alone, in_flight)
        load.stop()
        committed, aborted, in_flight = len(load.committed), load.aborted.copy(), load.open
        alone.troth.cluster.kill(*names)
        if _HELD not in names:
            alone.troth.cluster.resume(_HELD)
        began_s = time.perf_counter()
        answered = asyncio.create_task(_after(began_s, answers))
        serving_s = await _started_again(alone, names, began_s)
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN_S):
                answered_s = await answered
        except TimeoutError:
            raise _not_answered(killed, load.open, in_flight) from None
        await _resolved(alone)
        resolved_s = time.perf_counter() - began_s
    if load.unknown:
        raise _not_answered(killed, len(load.unknown), in_flight)
    await alone.subject.done(load)
    finished = alone.committed + committed
    alone.committed += len(load.committed)
    return Restart(
        killed=killed,
        finished=finished,
        in_flight=in_flight,
        open=open_,
        in_doubt=in_doubt,
        serving_s=serving_s,
        answered_s=answered_s,
        resolved_s=resolved_s,
        committed=alone.committed - finished,
        aborted=load.aborted - aborted,
    )


def _not_answered(killed: str, count: int, in_flight: int) -> Failed:
    return Failed(f"after the kill of {killed}, {count:,} of {in_flight:,} transactions in flight were not answered")


async def _held_up(alone: Alone, in_flight: int) -> tuple[int, int]:
    """Stops p2 until so many are open, and says how many are open, and how many in doubt at p1."""
    alone.troth.cluster.pause(_HELD)
    until_s = time.perf_counter() + _HELD_FOR_S
    while (open_ := (await asyncio.to_thread(alone.troth.status)).in_flight) < _ENOUGH * in_flight:
        if time.perf_counter() > until_s:
            break
        await asyncio.sleep(_PAUSE_S)
    return open_, await asyncio.to_thread(alone.troth.cluster.in_doubt, "p1")


@asynccontextmanager
async def _running(alone: Alone, load: Load) -> AsyncIterator[asyncio.Task[None]]:
    answers = asyncio.create_task(alone.troth.asking_again(load, ASK_AGAIN_S))
    try:
        yield answers
    finally:
        answers.cancel()
        await asyncio.gather(answers, return_exceptions=True)


async def _after(began_s: float, what: asyncio.Task[None]) -> float:
    """Seconds from `began_s` until it is done. Raises what it raised."""
    await what
    return time.perf_counter() - began_s


async def _started_again(alone: Alone, names: Sequence[str], began_s: float) -> Mapping[str, float]:
    """Seconds from `began_s` until each serves."""

    async def serving(name: str) -> float:
        await asyncio.to_thread(alone.troth.cluster.start, name)
        return time.perf_counter() - began_s

    return dict(zip(names, await asyncio.gather(*map(serving, names)), strict=True))


async def _resolved(alone: Alone) -> None:
    """Until nothing is open at the coordinator, and nothing in doubt at any participant."""
    async with asyncio.timeout(SETTLE_WITHIN_S):
        await alone.troth.settled()
        while alone.troth.cluster.in_doubt():  # noqa: ASYNC110 - there is nothing else to await
            await asyncio.sleep(_PAUSE_S)
