"""One run: virtual time, and chance that decides what takes how long, what is lost, and who dies.

Events stand in a heap by virtual time; those of one time run in the order in which they were put there. A process that
is paused takes nothing in until it goes on; one that is down loses what was for it. After the last ask and the last
fault everything heals, and then everything must end.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, NamedTuple

import coordinator.events as ce
import participant.events as pe
from faults.simulator.checks.counts import counted
from faults.simulator.checks.rest import judge, leftover
from faults.simulator.clients import Clients
from faults.simulator.errands import Errands
from faults.simulator.network import Network
from faults.simulator.scenario import BEGIN, COORDINATOR, Scenario
from faults.simulator.strikes import Strikes
from faults.simulator.violation import Violation
from faults.simulator.world import Errand, World, number_of, short, spoken
from troth.words import ASSIGNED, Outcome

RIVAL = 0.1
"""How often another writer comes first, where the register takes its time."""
LAZY_S = 0.05
"""When the oldest lazy record is flushed though nothing forced has come."""
TELL_S, LOOK_S = 0.00005, 0.00006
"""Until the process hears of a flush, and of what was looked up behind it."""
HEAL_S = 90.0
"""Within this time after healing everything must have ended."""
FILE_S = 15.0
"""How long a file that was swapped out is served while healing, so that what waits for it can end."""
EVENTS_MAX = 4_000
"""Events for each ask at most; more is a run that does not get anywhere."""


class Done(NamedTuple):
    """What came of a run in which every check held."""

    transactions: int
    committed: int
    aborted: int
    refused: int
    unknown: int
    attempts: int
    crashes: int
    events: int
    virtual_s: float


class Process:
    """What the simulation keeps of one process beside its node."""

    __slots__ = (
        "backlog",
        "busy",
        "paused_until",
        "stalled_until",
        "timer",
        "timer_at",
        "urgent",
    )

    def __init__(self) -> None:
        self.backlog: list[Callable[[], None]] = []
        """What came while it was paused."""
        self.paused_until = 0.0
        self.stalled_until = 0.0
        self.busy = False
        """Its disk flushes."""
        self.urgent = False
        """Something forced is queued."""
        self.timer = 0
        self.timer_at = float("inf")


class Simulation(World):
    """A world that runs by itself."""

    def __init__(self, scenario: Scenario, *, traced: bool = False) -> None:
        super().__init__(scenario.names, scenario.coordinator, scenario.participant, scenario.outside)
        self.trace = [] if traced else None
        self.scenario = scenario
        self.random = Random(f"run {scenario.seed}{f' {scenario.chance}' if scenario.chance else ''}")
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self.events = 0
        self.crashes = 0
        self._processes = {name: Process() for name in [COORDINATOR, *self.names]}
        self.network = Network(self, scenario.weather, self.random)
        self.errands = Errands(self, scenario.weather, self.random)
        self.people = Clients(self)
        self.strikes = Strikes(self)
        self._keys: deque[tuple[int, str | int]] = deque()
        """Look-ups behind what is queued, and behind which record."""
        self.healing = False
        self.watch.counts.active = scenario.calm
        for name in [*self.names, COORDINATOR]:
            self.boot(name)

    # The run.

    def run(self) -> Done:
        """The faults, the healing, and what must then hold. Raises Violation, or whatever a node raises."""
        for ask in self.scenario.asks:
            self._put(ask.at, self.people.ask, (ask,))
        for fault in self.scenario.faults:
            self._put(fault.at, self.strikes.strike, (fault,))
        last = max([BEGIN, *(ask.at for ask in self.scenario.asks), *(fault.at for fault in self.scenario.faults)])
        self._run_until(last + 0.2)
        self._heal()
        judge(self)
        if self.watch.counts.active:
            counted(self)
        self._ask_again()
        if not self.torn_by_hand() and not self.decision_disk.ledger.recorded:
            alarms = [alarm for alarm in self.alarms if "is file" not in alarm]
            if alarms:
                raise Violation(f"an alarm though nobody resolved anything by hand: {alarms[0]}")
        return self._done()

    def _done(self) -> Done:
        outcomes = [value.outcome for value in self.replies.values() if isinstance(value, ce.Result)]
        return Done(
            transactions=sum(ask.kind == "submit" for ask in self.scenario.asks),
            committed=outcomes.count(Outcome.COMMITTED),
            aborted=outcomes.count(Outcome.ABORTED),
            refused=outcomes.count(Outcome.REFUSED),
            unknown=outcomes.count(Outcome.UNKNOWN),
            attempts=len(self.watch.sent),
            crashes=self.crashes,
            events=self.events,
            virtual_s=self.mono - BEGIN,
        )

    def _run_until(self, until: float) -> None:
        heap, most = self._heap, EVENTS_MAX * (len(self.scenario.asks) + 50)
        while heap and heap[0][0] <= until:
            at, _, call, arguments = heapq.heappop(heap)
            self.mono = at
            call(*arguments)
            self.events += 1
            if self.events > most:
                raise Violation(f"liveness: {self.events} events and no end")
        self.mono = max(self.mono, until)

    def _heal(self) -> None:
        """Everything up and connected, every file served for a while, time enough: liveness must follow."""
        self.note("everything heals")
        self.healing = True
        calm = replace(self.network.weather, loss=0.0, doubled=0.0, tail=0.0, shuffled=False, ghosts=False)
        self.network.weather = replace(calm, latency_s=0.0005, flush_s=0.0005)
        self.strikes.traps.clear()
        self.errands.heal()
        for process in self._processes.values():
            process.stalled_until = 0.0
        for name, process in self._processes.items():
            if process.paused_until > self.mono:
                process.paused_until = self.mono
                self._go_on(name)
            if not self.up(name):
                self.boot(name)
        self.network.heal()
        self._serve_all_files()
        self._come_to_rest()

    def _serve_all_files(self) -> None:
        for name in self.names:
            for index in [i for i, disk in enumerate(self.files[name]) if disk is not self.vote_disks[name]]:
                self._run_until(self.mono + FILE_S)
                self.crash(name, "to serve another file")
                self.swap(name, index)
                self.boot(name)
        if any(len(files) > 1 for files in self.files.values()):
            self._run_until(self.mono + FILE_S)

    def _ask_again(self) -> None:
        """Rule 11: across one more restart, whoever asks again hears what was heard (the watch compares)."""
        self.crash(COORDINATOR, "to be asked again")
        self.boot(COORDINATOR)
        self._run_until(self.mono + 0.5)
        self.people.ask_again()
        self._come_to_rest()
        judge(self)

    def _come_to_rest(self) -> None:
        """Until everything has ended, or HEAL_S have passed."""
        end = self.mono + HEAL_S
        while self.mono < end and (leftover(self) or self.people.waiting):
            self._run_until(self.mono + 1.0)
        if self.people.waiting:
            raise Violation(f"liveness: clients {sorted(self.people.waiting)[:5]} still wait for an answer")

    # Time.

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        self._put(self.mono + seconds, call, arguments)

    def _put(self, at: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, call, arguments))

    def at_process(
        self, name: str, seconds: float, call: Callable[[], None], gone: Callable[[], None] | None = None
    ) -> None:
        """Runs `call` at the process in a while, when it is not paused; `gone` if it is down by then."""
        self._put(self.mono + seconds, self._reach, (name, call, gone))

    def in_this_life(self, name: str, at: float, call: Callable[[], None]) -> None:
        """Runs `call` at the process at a time, unless it has died by then; a later incarnation does not get it."""
        life = self.lives[name]

        def reach() -> None:
            if self.lives[name] == life:
                call()

        self._put(at, self._reach, (name, reach, None))

    def _reach(self, name: str, call: Callable[[], None], gone: Callable[[], None] | None) -> None:
        if not self.up(name):
            if gone is not None:
                gone()
        elif self.paused(name):
            self._processes[name].backlog.append(call)
        else:
            call()

    def paused(self, name: str) -> bool:
        return self._processes[name].paused_until > self.mono

    # What takes time.

    def post_down(self, name: str, message: Any) -> None:
        self.network.post_down(name, message)

    def post_up(self, name: str, message: Any) -> None:
        self.network.post_up(name, message)

    def say_hello(self, name: str, hello: pe.Hello) -> None:
        self.network.say_hello(name, hello)

    def ask(self, name: str, to: str, arrive: Callable[[], None], lost: Callable[[], None]) -> None:
        self.network.ask(name, to, arrive, lost)

    def reply(self, name: str, to: str, arrive: Callable[[], None]) -> None:
        self.network.reply(name, to, arrive)

    def to_server(self, errand: Errand) -> None:
        self.errands.send(errand)

    def answered(self, client: int, value: Any) -> None:
        self.people.answered(client, value)

    def register(self, proposal: ce.Decide) -> None:
        """Takes a while, in which another writer may come first: as a second coordinator's `abort` would. Only for ids
        that were assigned, since for others the answer must be durable, and this register is not by itself."""
        delay = self.scenario.weather.register_s * self.random.random()
        if delay and proposal.id.startswith(ASSIGNED) and self.random.random() < RIVAL:
            rival = ce.Decide(proposal.id, 0, Outcome.ABORTED)
            self.at_process(COORDINATOR, delay / 2, lambda: self.decisions.decide(rival, self.watch.rival))
        self.in_this_life(COORDINATOR, self.mono + delay, lambda: self.decided(proposal))

    def wake_at(self, name: str, at: float) -> None:
        process = self._processes[name]
        if at < process.timer_at:
            process.timer += 1
            process.timer_at = at
            timer = process.timer
            self.in_this_life(name, max(at, self.mono), lambda: self._tick(name, timer))

    def _tick(self, name: str, timer: int) -> None:
        process = self._processes[name]
        if timer == process.timer:
            process.timer_at = float("inf")
            self.feed(name, ce.Ticked() if name == COORDINATOR else pe.Ticked())
            if name == COORDINATOR:
                self.watch.reminded()

    # Disks.

    def queued(self, name: str, forced: bool) -> None:
        process = self._processes[name]
        if forced and not process.urgent:
            process.urgent = True
            if not process.busy:
                self._begin_flush(name)
        elif not forced and not process.busy and len(self.disk(name).queue) == 1:
            self.after(LAZY_S, self._flush_lazily, name, self.lives[name])

    def _flush_lazily(self, name: str, life: int) -> None:
        process = self._processes[name]
        if self.up(name) and self.lives[name] == life and not process.busy and self.disk(name).queue:
            self._begin_flush(name)

    def _begin_flush(self, name: str) -> None:
        process = self._processes[name]
        process.busy = True
        duration = self.network.weather.flush_s * (0.5 + self.random.random())
        if process.stalled_until > self.mono:
            duration += process.stalled_until - self.mono
        # Whatever is queued by the time it begins belongs to this flush; it begins at once, after this event.
        self._put(self.mono, self._flushing, (name, self.lives[name], duration))

    def _flushing(self, name: str, life: int, duration: float) -> None:
        if self.up(name) and self.lives[name] == life:
            self._processes[name].urgent = False
            count = len(self.disk(name).queue)
            self.in_this_life(name, self.mono + duration, lambda: self._end_flush(name, count))

    def _end_flush(self, name: str, count: int) -> None:
        self.flush(name, count)
        self.strikes.happened(name, "flushed")

    def flush(self, name: str, count: int | None, *, full: bool = False) -> None:
        """The batch is on the disk; the process hears of it in a moment. Raises DiskFailed when it is `full`."""
        process, life = self._processes[name], self.lives[name]
        disk = self.disk(name)
        if self.trace is not None and disk.queue[:count]:
            jobs = ", ".join(f"{type(job).__name__} {short(number_of(job))}" for _, job, _ in disk.queue[:count])
            self.note(f"{name} has flushed {jobs}")
        done = disk.flush(count, full=full)
        process.busy = False
        self.watch.flushed(name)
        if done:
            self.in_this_life(name, self.mono + TELL_S, lambda: self._report(name, done))
        if name == COORDINATOR:
            self._look_behind()
        else:
            self.errands.flushed(name)
        if process.urgent:
            self._begin_flush(name)
        elif disk.queue:
            self.after(LAZY_S, self._flush_lazily, name, life)

    def _report(self, name: str, done: list[tuple[int, Any]]) -> None:
        self.flushed(name, done)
        if name != COORDINATOR:
            self.watch.swept(name)
        self.strikes.happened(name, "reported")

    def look_up(self, key: str | int) -> None:
        """In the writer, behind everything queued: so that is flushed first, and told first."""
        queue = self.decision_disk.queue
        if queue:
            self._keys.append((queue[-1][0], key))
            self.queued(COORDINATOR, True)
        else:
            self._look_soon(key)

    def _look_behind(self) -> None:
        """After a flush: what stood behind it is looked up."""
        queue = self.decision_disk.queue
        first = queue[0][0] if queue else float("inf")
        while self._keys and self._keys[0][0] < first:
            self._look_soon(self._keys.popleft()[1])

    def _look_soon(self, key: str | int) -> None:
        after = LOOK_S + self.network.weather.flush_s * self.random.random()
        self.in_this_life(COORDINATOR, self.mono + after, lambda: self.looked_up(key))

    # Processes.

    def boot(self, name: str) -> None:
        """Starts a process, once its server is there; the coordinator dials."""
        if name != COORDINATOR and self.errands.down_s(name):
            self.after(self.errands.down_s(name), self.strikes.boot, name, self.lives[name])
            return
        process = self._processes[name]
        process.backlog.clear()
        process.busy = process.urgent = False
        process.timer += 1
        process.timer_at = float("inf")
        process.paused_until = 0.0
        if name == COORDINATOR and "expiry" in self.scenario.features and not self.healing:
            self.clocks[name] = self.random.choice([0.0, 0.0, -20.0, 3.0, 8.0])
        self.errands.open(name)
        self.start(name)
        if name == COORDINATOR:
            for each in self.names:
                self.after(self.network.latency(), self.network.dial, each, self.lives[name])
        else:
            self.errands.began(name)

    def crash(self, name: str, why: str) -> None:
        """Kills a process. A batch that was being written is on the disk or not; what stood behind it is lost."""
        process, disk = self._processes[name], self.disk(name)
        self.crashes += 1
        self.note(f"{name} dies ({why})")
        if process.busy and disk.queue and self.random.random() < 0.5:
            survives = self.random.randint(1, len(disk.queue))
            self.note(f"{name}: {survives} of {len(disk.queue)} queued records are found on the disk")
            disk.flush(survives)
            self.watch.flushed(name)
        self.stop(name)
        self.network.process_gone(name)
        process.backlog.clear()
        if name == COORDINATOR:
            self._keys.clear()
            self.people.connection_broke()

    def pause(self, name: str, for_s: float) -> None:
        """The process is stopped, and goes on with all that has come meanwhile."""
        self._processes[name].paused_until = self.mono + for_s
        self.after(for_s, self._go_on, name)

    def stall(self, name: str, for_s: float) -> None:
        """Its disk takes so long for whatever it does next."""
        self._processes[name].stalled_until = self.mono + for_s

    def _go_on(self, name: str) -> None:
        process = self._processes[name]
        if process.paused_until <= self.mono and self.up(name):
            backlog, process.backlog = process.backlog, []
            for call in backlog:
                self.at_process(name, 0.0, call)

    # The trace.

    def note_arrived(self, name: str, batch: tuple[Any, ...], down: bool) -> None:
        if self.trace is not None:
            way = f"{COORDINATOR} -> {name}" if down else f"{name} -> {COORDINATOR}"
            for message in batch:
                self.note(f"{way}: {spoken(message)}")

    def note_lost(self, batch: tuple[Any, ...], kept: tuple[Any, ...]) -> None:
        if self.trace is not None:
            self.note(f"lost: {', '.join(spoken(message) for message in batch if message not in kept)}")
