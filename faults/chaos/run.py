"""One run: load with faults, then heal, wait until nothing is in doubt, and check every row.

The phases are methods, so that the cluster may be stopped and started in between; what was answered is kept here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple

from faults.chaos import verify
from faults.chaos.findings import Finding
from faults.chaos.load import Load
from faults.chaos.schedule import Fault, Kind, schedule
from faults.chaos.target import Target
from faults.chaos.verify import Check, NotRead
from faults.chaos.watch import EVERY_S, Sample, Watch
from troth.client import Client, connect
from troth.errors import Unreachable

_SETTLED_LOOKS = 4
"""In a row, so that none is from before."""
_START_WITHIN_S = 60.0
_STANDSTILL_MAX_S = 15.0


class Plan(NamedTuple):
    """What a person asked for."""

    seed: int
    duration_s: float
    in_flight: int
    every_s: float
    """Between the beginnings of two faults, on average."""
    kinds: Collection[Kind]
    settle_s: float
    """How long after the last fault everything may take to end."""


class Applied(NamedTuple):
    """A fault as it really was; seconds from the start of the load."""

    fault: Fault
    began_s: float
    ended_s: float
    hit: bool
    """False when what it aimed at was down already."""


class Run:
    """All that is known of one run."""

    def __init__(self, plan: Plan, participants: Sequence[str]) -> None:
        self.plan = plan
        self.load = Load(plan.seed, f"{int(time.time()):x}", participants)
        self.phase = "starting"
        self.under_way: list[Fault] = []
        self.applied: list[Applied] = []
        self.checks: list[Check] = []
        self.not_read: list[str] = []
        """What could not be checked, and why."""
        self.left: list[str] = []
        """What was still in doubt, unresolved or away when waiting was given up."""
        self.loaded_s = 0.0
        """How long the load ran."""
        self.settled_after_s: float | None = None
        """From the end of the load until nothing was in doubt; None when that did not come."""
        self.samples: list[Sample] = []
        self.alarms: list[str] = []
        self.longest_in_doubt_s = 0.0
        self.watch: Watch | None = None
        """While processes are watched."""
        self._ending = asyncio.Event()
        self._committed_at_change = 0
        """First answers COMMITTED when a fault last began or was healed."""

    def end_early(self) -> None:
        """No further fault and no further transaction; what follows is done as ever."""
        self._ending.set()

    # Load and faults.

    async def storm(self, target: Target) -> None:
        """The load with its faults; then all is healed, and ends. Raises what submitting the accounts raises."""
        async with self.load.connected(list(target.clients.values())), Watch.watching(target, self.load) as watch:
            self.watch = watch
            await self._until_ready(watch)
            await self.load.open_accounts()
            self.phase = "load and faults"
            watch.began()
            await self._loaded(target, watch)
            self.loaded_s = watch.now_s
            self.phase = "settling"
            await self._settle(watch)
            self.samples, self.alarms = watch.samples, watch.alarms
            self.longest_in_doubt_s = watch.longest_in_doubt_s
            self.watch = None

    async def _until_ready(self, watch: Watch) -> None:
        deadline = time.monotonic() + _START_WITHIN_S
        while not (all(watch.serving.values()) and all(watch.lanes.values())):
            if time.monotonic() > deadline:
                raise Unreachable(f"not all serve after {_START_WITHIN_S:g} s: {'; '.join(watch.waits_for())}")
            await asyncio.sleep(EVERY_S / 2)

    async def _loaded(self, target: Target, watch: Watch) -> None:
        plan = self.plan
        faults = schedule(plan.seed, plan.duration_s, target.breakable, plan.kinds, plan.every_s)
        async with asyncio.TaskGroup() as storm:
            storm.create_task(self.load.run(plan.in_flight))
            late_s = 0.0
            for fault in faults:
                await self._until(watch, fault.at_s + late_s)
                if not fault.at_once:
                    await self._moving(watch)
                late_s = max(late_s, watch.now_s - fault.at_s)  # never less, so that none catches up with another
                if self._ending.is_set() or watch.now_s >= plan.duration_s:
                    break
                storm.create_task(self._apply(target, watch, fault))
            await self._until(watch, plan.duration_s)
            self.load.stop()

    async def _moving(self, watch: Watch) -> None:
        """Until all serve and as many transactions as are open at once have committed since the last fault began or was
        healed, for a time: so that there is something to break."""
        deadline_s = min(watch.now_s + _STANDSTILL_MAX_S, self.plan.duration_s)
        while watch.now_s < deadline_s and not self._ending.is_set():
            moved = self.load.tally["COMMITTED"] - self._committed_at_change
            if moved >= self.plan.in_flight and all(watch.serving.values()) and all(watch.lanes.values()):
                return
            await asyncio.sleep(EVERY_S / 2)

    async def _apply(self, target: Target, watch: Watch, fault: Fault) -> None:
        began_s = watch.now_s
        hit = await target.begin(fault)
        self.under_way.append(fault)
        self._committed_at_change = self.load.tally["COMMITTED"]
        try:
            await self._until(watch, min(began_s + fault.lasts_s, self.plan.duration_s))
        finally:
            self.under_way.remove(fault)
            await target.end(fault)
            self._committed_at_change = self.load.tally["COMMITTED"]
        self.applied.append(Applied(fault, round(began_s, 2), round(watch.now_s, 2), hit))

    async def _until(self, watch: Watch, at_s: float) -> None:
        """Returns at that second, or at once when the run is to end early."""
        try:
            async with asyncio.timeout(max(0.0, at_s - watch.now_s)):
                await self._ending.wait()
        except TimeoutError:
            return

    async def _settle(self, watch: Watch) -> None:
        began, in_a_row = time.monotonic(), 0
        while in_a_row < _SETTLED_LOOKS:
            if time.monotonic() - began > self.plan.settle_s:
                self.left = watch.waits_for() + [f"transaction {n} has no outcome" for n in sorted(self.load.unknown)]
                return
            await asyncio.sleep(EVERY_S)
            in_a_row = in_a_row + 1 if watch.settled and not self.load.unknown else 0
        self.settled_after_s = time.monotonic() - began

    # Checks.

    async def check(self, target: Target) -> None:
        """Every row of both workloads, and what was answered. All faults are healed."""
        self.phase = "checking rows"
        load = self.load
        async with asyncio.TaskGroup() as reading:
            for look in (verify.check_transfers, verify.check_accounts, verify.check_lists):
                reading.create_task(self._rows(target, look))
        known = len(load.outcomes) - len(load.unknown)
        again = load.tally["sent again"] + load.tally["other content"]
        text = f"{known:,} outcomes; {again:,} ids were used again, and none was answered in another way"
        self.checks.append(Check(text, load.findings))
        looks = f"{load.bank.looks:,} reads of all accounts during the load, each with the same total"
        self.checks.append(Check(looks, load.bank.findings))
        self._check_processes(target)

    async def _rows(self, target: Target, look: Callable[[Client, Load], Awaitable[Check]]) -> None:
        try:
            async with connect(next(iter(target.coordinators.values()))) as client:
                self.checks.append(await look(client, self.load))
        except (NotRead, Unreachable) as error:
            self.not_read.append(str(error))

    def _check_processes(self, target: Target) -> None:
        alarms = [Finding("alarm", text) for text in self.alarms]
        self.checks.append(Check("no process raised an alarm", alarms))
        if target.files:
            ended = [Finding("ended", text) for text in target.ended]
            self.checks.append(Check("no process ended but of a fault", ended))
