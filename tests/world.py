"""The simulator's world moved by hand: a test decides which message arrives, whose log is flushed, who dies.

One coordinator and some participants in one thread. A lane opens and breaks at both of its ends at once; everything
else that takes time waits in a list until the test moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import coordinator.events as ce
import participant.events as pe
from coordinator.settings import CoordinatorSettings
from faults.simulator.checks.rest import judge
from faults.simulator.disks import LOG
from faults.simulator.model import Op
from faults.simulator.scenario import COORDINATOR
from faults.simulator.servers import Server, at_once
from faults.simulator.workload import Part, part
from faults.simulator.world import Errand, World
from participant.outside import CARRIED, ended_there, forget
from participant.settings import ParticipantSettings

__all__ = ["COORDINATOR", "LOG", "Letter", "Manual", "add", "at_least", "branch", "encoded", "judge", "look", "put"]


def add(by: int, low: int | None = None, high: int | None = None, key: str = "x") -> Op:
    return Op("add", "hot", key, (("v", by),), low, high)


def look(key: str = "x") -> Op:
    return Op("read", "hot", key)


def at_least(number: int, key: str = "x") -> Op:
    return Op("at_least", "hot", key, (("v", number),))


def put(number: int, key: str = "x") -> Op:
    return Op("upsert", "hot", key, (("v", number),))


def branch(name: str, *work: Op) -> Part:
    return part(name, tuple(work))


def encoded(*work: Op) -> bytes:
    return part("", tuple(work)).operations


@dataclass
class Letter:
    """A message on its way on one lane."""

    lane: int
    to: str
    message: Any


class Manual(World):
    """A world whose every move is a test's."""

    def __init__(
        self,
        names: Sequence[str] = ("a", "b"),
        coordinator_settings: CoordinatorSettings | None = None,
        participant_settings: ParticipantSettings | None = None,
        *,
        slow: bool = False,
        outside: Sequence[str] = (),
    ) -> None:
        """`slow`: look-ups and the register take their time, as moves of their own. `outside`: who has its data at a
        server."""
        super().__init__(
            names,
            coordinator_settings or CoordinatorSettings(),
            participant_settings or ParticipantSettings(),
            outside,
        )
        self.slow = slow
        self.trace = []
        self.net: list[Letter] = []
        self.calls: list[tuple[str, int, Callable[[], None]]] = []
        """Single calls, look-ups and slow registers on their way: to whom, to which of its lives."""
        self.errands: list[Errand] = []
        """Jobs on their way to a server."""
        self.lanes: dict[str, int] = {}
        self.wakes: dict[str, float] = {}
        for name in [*self.names, COORDINATOR]:
            self.start(name)
        for name in self.names:
            self.open_lane(name)

    # What takes time waits.

    def post_down(self, name: str, message: Any) -> None:
        if name in self.lanes:
            self.net.append(Letter(self.lanes[name], name, message))

    def post_up(self, name: str, message: Any) -> None:
        if name in self.lanes:
            self.net.append(Letter(self.lanes[name], COORDINATOR, message))

    def say_hello(self, name: str, hello: pe.Hello) -> None:
        node = self.participants[name]
        self.watch.lane_opened(name, hello.questions)
        self.feed(COORDINATOR, ce.LaneOpened(name, node.identity, node.incarnation, f"addr-{name}", hello.questions))

    def queued(self, name: str, forced: bool) -> None:
        pass

    def to_server(self, errand: Errand) -> None:
        self.errands.append(errand)

    def look_up(self, key: str | int) -> None:
        def look() -> None:
            self.flush(COORDINATOR)
            self.looked_up(key, self.decision_disk.look_up(key))

        self._soon(look)

    def register(self, proposal: ce.Decide) -> None:
        self._soon(lambda: self.decided(proposal))

    def _soon(self, call: Callable[[], None]) -> None:
        self.calls.append((COORDINATOR, self.lives[COORDINATOR], call))

    def ask(self, name: str, to: str, arrive: Callable[[], None], lost: Callable[[], None]) -> None:
        self.calls.append((name, self.lives[name], lambda: arrive() if self.up(to) else lost()))

    def reply(self, name: str, to: str, arrive: Callable[[], None]) -> None:
        arrive()

    def wake_at(self, name: str, at: float) -> None:
        self.wakes[name] = min(at, self.wakes.get(name, at))

    def answered(self, client: int, value: Any) -> None:
        pass

    def feed(self, name: str, event: Any) -> None:
        """Unless slow, what the register and the log answer comes before the next move."""
        super().feed(name, event)
        while not self.slow and (soon := [i for i, (to, _, _) in enumerate(self.calls) if to == COORDINATOR]):
            self.call(soon[0])

    # Moves.

    def submits(self, *parts: Part, id: str = "", timeout_s: float = 30.0, wait_applied: bool = False) -> int:
        """A client submits; its number."""
        return self.submit(parts, id=id, timeout_s=timeout_s, wait_applied=wait_applied)

    def crash(self, name: str, surviving: int = 0) -> None:
        """Kills a process. The first `surviving` queued records reached the disk unannounced; the rest are lost."""
        if surviving:
            self.disk(name).flush(surviving)
        self.stop(name)
        self.errands = [errand for errand in self.errands if errand.name != name]
        self.wakes.pop(name, None)
        for each in self.names if name == COORDINATOR else [name]:
            self.lose_lane(each)

    def open_lane(self, name: str) -> None:
        """The coordinator dials; both say hello."""
        if self.coordinator is not None and name in self.participants and name not in self.lanes:
            self.lanes[name] = self.next_number()
            self.feed(name, pe.LaneOpened(self.lanes[name], LOG, COORDINATOR))

    def lose_lane(self, name: str) -> None:
        """The lane breaks, and what was on it is lost."""
        lane = self.lanes.pop(name, None)
        if lane is not None:
            self.net = [letter for letter in self.net if letter.lane != lane]
            self.feed(name, pe.LaneLost(lane))
            self.feed(COORDINATOR, ce.LaneLost(name, "lost"))

    def flush(self, name: str, count: int | None = None) -> None:
        """Makes the first `count` queued records durable (all by default), and tells the process."""
        done = self.disk(name).flush(count)
        if done:
            self.watch.flushed(name)
            self.flushed(name, done)
            if name != COORDINATOR:
                self.watch.swept(name)
                self.forget(name)

    def forget(self, name: str) -> None:
        """What is forgotten durably is forgotten at the server."""
        disk = self.vote_disks[name]
        for job in disk.forgets:
            at_once(forget(self.server(name), job))
        disk.forgets.clear()

    def carry(self, index: int = 0, *, told: bool = True) -> None:
        """A server does its part of a job; with `told` the participant hears of it."""
        errand = self.errands.pop(index)
        result = self.serve(errand) if isinstance(errand.job, CARRIED) else None
        if told:
            self.served(errand, result)

    def look(self, name: str) -> None:
        """The participant looks at its server for what somebody has ended there."""
        server, prepared = self.server(name), self.participants[name].prepared()
        for found in ended_there(prepared, at_once(server.survey()), prepared):
            self.feed(name, found)

    def deliver(self, index: int = 0, *, keep: bool = False) -> None:
        """One message arrives; kept when it is to arrive again."""
        letter = self.net[index] if keep else self.net.pop(index)
        name = next(n for n, lane in self.lanes.items() if lane == letter.lane)
        if letter.to == COORDINATOR:
            self.feed(COORDINATOR, ce.Received(name, (letter.message,)))
        else:
            self.watch.arrives(name, (letter.message,))
            self.feed(name, pe.Received(LOG, (letter.message,)))
            self.watch.hears(name, (letter.message,))

    def call(self, index: int = 0) -> None:
        """A single call arrives, unless the process that it was meant for is gone."""
        name, life, call = self.calls.pop(index)
        if self.up(name) and self.lives[name] == life:
            call()

    def pass_time(self, seconds: float) -> None:
        """Time passes; whoever asked to be woken is."""
        self.mono += seconds
        for name in sorted(n for n, at in self.wakes.items() if at <= self.mono):
            del self.wakes[name]
            self.feed(name, ce.Ticked() if name == COORDINATOR else pe.Ticked())

    def settle(self, rounds: int = 300) -> None:
        """Flushes and delivers everything until nothing moves."""
        for _ in range(rounds):
            busy = False
            for name in [COORDINATOR, *self.names]:
                if self.up(name) and self.disk(name).queue:
                    self.flush(name)
                    busy = True
            while self.net:
                self.deliver()
                busy = True
            while self.calls:
                self.call()
                busy = True
            while self.errands:
                self.carry()
                busy = True
            if not busy:
                return
        raise AssertionError("the world does not come to rest")

    def heal(self, seconds: int = 60) -> None:
        """Everything up, everything connected, time enough: liveness must follow."""
        for name in self.names:
            self.lose_lane(name)
        if self.coordinator is None:
            self.start(COORDINATOR)
        for _ in range(seconds):
            for name in self.names:
                if name not in self.participants:
                    self.start(name)
                self.open_lane(name)
            self.settle()
            self.pass_time(1.0)
        self.settle()

    def value(self, name: str, key: str = "x") -> int | None:
        """What is applied now."""
        return self.vote_disks[name].rows().rows["hot", key]["v"]

    def server(self, name: str) -> Server:
        server = self.vote_disks[name].server
        assert server is not None
        return server

    def remembered(self, name: str) -> int:
        """Outcomes that the file keeps."""
        kept = self.vote_disks[name].file.connection.execute("SELECT count(*) FROM troth_finished")
        return int(kept.fetchone()[0])
