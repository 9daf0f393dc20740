"""Looks at every process twice a second by its public queries: who is there, how much is open, in doubt, unresolved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from faults.chaos.load import Load
from faults.chaos.target import Target
from troth.client import Client
from troth.client.channel import Connection
from troth.client.participants import ParticipantClient
from troth.errors import TrothError

EVERY_S = 0.5
ANSWER_S = 2.0
"""How long a process may take to answer before it counts as away."""
LONG_S = 1.0
"""A branch in doubt for longer than this waits for something; for less, it is in the middle of its transaction."""


class Sample(NamedTuple):
    """How everything was at a moment; seconds from the start of the load, transactions since then."""

    at_s: float
    committed: int
    aborted: int
    unknown: int
    """Ids without a known outcome then; not added up."""
    open: int
    in_doubt: int
    in_doubt_long: int
    """Of these, those for longer than LONG_S."""
    away: tuple[str, ...]
    """Processes that do not answer."""


class Watch:
    """Of one target, while `watching` is entered."""

    def __init__(self, target: Target, load: Load) -> None:
        """Use `watching`."""
        self._target = target
        self._load = load
        self._began = time.monotonic()
        self.samples: list[Sample] = []
        self.serving: dict[str, bool] = dict.fromkeys(target.names, False)
        self.in_doubt: dict[str, dict[tuple[str, int], float]] = {name: {} for name in target.participants}
        """By participant, the attempts in doubt at the last look, and for how many seconds as seen from here."""
        self.unresolved: dict[str, list[str]] = {name: [] for name in target.coordinators}
        """By coordinator, a sentence for each attempt that it could not finish at the last look."""
        self.in_flight: dict[str, int] = dict.fromkeys(target.coordinators, 0)
        self.lanes: dict[str, bool] = dict.fromkeys(target.coordinators, False)
        """Whether each coordinator has all its lanes."""
        self.alarms: list[str] = []
        """Those that were not there at the first look."""
        self.longest_in_doubt_s = 0.0
        self._alarms_before: dict[str, set[str]] = {}
        self._doubt_since: dict[tuple[str, tuple[str, int]], float] = {}

    @classmethod
    @asynccontextmanager
    async def watching(cls, target: Target, load: Load) -> AsyncIterator[Watch]:
        """Looks until left."""
        watch = cls(target, load)
        async with AsyncExitStack() as stack:
            looks: list[Coroutine[Any, Any, None]] = [watch._sample()]
            for name, address in {**target.coordinators, **target.participants}.items():
                connection = Connection(address, ANSWER_S)
                stack.push_async_callback(connection.close)
                look = (
                    watch._coordinator(name, Client(connection))
                    if name in target.coordinators
                    else watch._participant(name, ParticipantClient(connection))
                )
                looks.append(watch._repeat(name, look))
            tasks = [asyncio.create_task(each) for each in looks]
            try:
                yield watch
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def began(self) -> None:
        """The load begins now: seconds count from here."""
        self._began = time.monotonic()
        self.samples.clear()

    @property
    def now_s(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._began

    @property
    def settled(self) -> bool:
        """All serve with all their lanes, and nothing is open, in doubt or unresolved anywhere."""
        nothing = not (any(self.in_doubt.values()) or any(self.unresolved.values()) or any(self.in_flight.values()))
        return nothing and all(self.serving.values()) and all(self.lanes.values())

    def waits_for(self) -> list[str]:
        """Why it is not settled, a sentence each."""
        away = [f"{name} does not serve" for name, serving in self.serving.items() if not serving]
        lanes = [f"{name} has not all its lanes" for name, all_open in self.lanes.items() if not all_open]
        doubt = [
            f"{name}: attempt {log}:{number} is in doubt, for {age_s:.0f} s"
            for name, branches in self.in_doubt.items()
            for (log, number), age_s in branches.items()
        ]
        return [*away, *lanes, *doubt, *(each for found in self.unresolved.values() for each in found)]

    # Looking.

    async def _repeat(self, name: str, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await look()
            except (TrothError, TimeoutError):
                self.serving[name] = False
            await asyncio.sleep(EVERY_S)

    def _coordinator(self, name: str, client: Client) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            status = await client.status()
            self.in_flight[name] = status.in_flight
            self.lanes[name] = all(lane.open for lane in status.lanes)
            found = await client.unresolved()
            self.unresolved[name] = [f"{each.id} at {each.participant}: {each.kind}, {each.why}" for each in found]
            self._alarms(name, list(status.alarms))
            self.serving[name] = status.serving

        return look

    def _participant(self, name: str, client: ParticipantClient) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            status = await client.status()
            self._doubt(name, {(each.attempt.log, each.attempt.number): each.age_s for each in await client.in_doubt()})
            self._alarms(name, list(status.alarms))
            self.serving[name] = status.serving

        return look

    def _doubt(self, name: str, ages: dict[tuple[str, int], float]) -> None:
        """A process that was started again counts ages from its start; what is seen here goes on."""
        now = time.monotonic()
        before = {attempt for attempt in self.in_doubt[name] if attempt not in ages}
        for attempt in before:
            self._doubt_since.pop((name, attempt), None)
        for attempt, age_s in ages.items():
            since = min(now - age_s, self._doubt_since.get((name, attempt), now))
            self._doubt_since[name, attempt] = since
            self.longest_in_doubt_s = max(self.longest_in_doubt_s, now - since)
        self.in_doubt[name] = {attempt: now - self._doubt_since[name, attempt] for attempt in ages}

    def _alarms(self, name: str, found: list[str]) -> None:
        before = self._alarms_before.setdefault(name, set(found))
        self.alarms += [f"{name}: {alarm}" for alarm in found if alarm not in before]
        before.update(found)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            ages = [age_s for branches in self.in_doubt.values() for age_s in branches.values()]
            tally = self._load.tally
            self.samples.append(
                Sample(
                    at_s=round(self.now_s, 2),
                    committed=tally["COMMITTED"],
                    aborted=tally["ABORTED"],
                    unknown=len(self._load.unknown) - self._load.open,
                    open=self._load.open,
                    in_doubt=len(ages),
                    in_doubt_long=sum(age_s > LONG_S for age_s in ages),
                    away=tuple(name for name, serving in self.serving.items() if not serving),
                )
            )
