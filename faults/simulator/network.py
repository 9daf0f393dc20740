"""The simulated network between a coordinator and its participants: lanes that break, links that are cut.

A lane is one stream: what gathers while nothing is written goes as one batch, in which kinds come in the order of the
wire's fields. Its two ends learn of its loss each in their own time, so a participant may hold a lane that its
coordinator has given up, and the other way round. What is under way when a lane breaks arrives or not; with `ghosts` it
may arrive even on a later lane to the same file, which no transport of ours does and no rule may need.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import coordinator.events as ce
import participant.events as pe
from faults.simulator.disks import LOG
from faults.simulator.scenario import COORDINATOR, Weather
from troth.driving import wire

if TYPE_CHECKING:
    from faults.simulator.simulation import Simulation

KEEPALIVE_S = 5.0
"""Until an end notices that the other is gone without a word."""
ASK_TIMEOUT_S = 1.0
"""Until a single call is taken as not answered."""
LATE_S = 2.0
"""How late the second copy of a batch may be."""
ECHO = 0.1
"""How often a batch that arrives comes once more on a later lane, where there are ghosts."""
WRITE_S = 0.0001
"""What one write of a stream takes; what comes up meanwhile is the next batch."""


class Lane:
    """One stream between the coordinator and a participant."""

    __slots__ = (
        "at_coordinator",
        "at_participant",
        "broken",
        "down",
        "down_at",
        "file",
        "hello_at",
        "life",
        "name",
        "number",
        "open",
        "up",
        "up_at",
    )

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.at_coordinator = True
        """The coordinator has not given it up."""
        self.at_participant = False
        """The participant has taken it and not given it up."""
        self.open = False
        """Both have said hello."""
        self.broken = False
        """Nothing more gets through."""
        self.life = 0
        """The participant's."""
        self.file = ""
        self.down: list[Any] = []
        """What waits to be written towards the participant."""
        self.up: list[Any] = []
        self.down_at = 0.0
        """When the latest batch towards the participant arrives."""
        self.up_at = 0.0
        self.hello_at = 0.0
        """When the participant's hello arrives: nothing of it comes before."""


class Ghost(NamedTuple):
    """A batch that is lost with its lane and comes on a later one to the same file."""

    name: str
    file: str
    batch: tuple[Any, ...]
    down: bool


class Network:
    """All lanes and links."""

    def __init__(self, simulation: Simulation, weather: Weather, random: Random) -> None:
        self._sim = simulation
        self.weather = weather
        self._random = random
        self.dialed: dict[str, Lane] = {}
        """The lane that the coordinator has, or tries to open, to each participant."""
        self.held: dict[str, Lane] = {}
        """The lane that each participant has."""
        self._cut: dict[tuple[str, str], float] = {}
        """Links on which nothing gets through, and until when."""
        self._ghosts: list[Ghost] = []

    def latency(self) -> float:
        random, weather = self._random.random, self.weather
        delay = weather.latency_s * (0.5 + random())
        return delay * 50 * random() if weather.tail and random() < weather.tail else delay

    # Cuts.

    def cut(self, who: str, other: str, for_s: float, *, both: bool) -> None:
        until = self._sim.mono + for_s
        for link in ((who, other), (other, who))[: 1 + both]:
            self._cut[link] = max(until, self._cut.get(link, 0.0))
        if COORDINATOR in (who, other) and for_s > KEEPALIVE_S:
            self._sim.after(KEEPALIVE_S, self.break_lane, other if who == COORDINATOR else who)

    def heal(self) -> None:
        """From now on everything gets through. Lanes that have lost a message do not stay open."""
        self._cut.clear()
        self._ghosts.clear()
        for name in self._sim.names:
            self.break_lane(name)

    def _blocked_until(self, source: str, target: str) -> float:
        return self._cut.get((source, target), 0.0) if self._cut else 0.0

    # Single calls.

    def ask(self, name: str, to: str, arrive: Callable[[], None], lost: Callable[[], None]) -> None:
        self._sim.after(ASK_TIMEOUT_S, lost)
        if self._gets_through(name, to):
            self._sim.at_process(to, self.latency(), arrive, gone=lost)

    def reply(self, name: str, to: str, arrive: Callable[[], None]) -> None:
        if self._gets_through(name, to):
            self._sim.at_process(to, self.latency(), arrive)

    def _gets_through(self, source: str, target: str) -> bool:
        return self._sim.mono >= self._blocked_until(source, target) and self._random.random() >= self.weather.loss

    # Lanes: opening.

    def dial(self, name: str, life: int) -> None:
        """The coordinator of that life opens a lane, unless it has one."""
        sim = self._sim
        if sim.coordinator is None or sim.lives[COORDINATOR] != life or name in self.dialed:
            return
        lane = self.dialed[name] = Lane(sim.next_number(), name)
        until = max(self._blocked_until(COORDINATOR, name), self._blocked_until(name, COORDINATOR))
        if sim.mono < until:
            sim.after(min(until - sim.mono, KEEPALIVE_S), self._lost_at_coordinator, lane, "cannot be reached")
        else:
            sim.at_process(name, self.latency(), lambda: self._hello_down(lane), gone=lambda: self._refused(lane))

    def _refused(self, lane: Lane) -> None:
        self._sim.after(self.latency(), self._lost_at_coordinator, lane, "connection refused")

    def _hello_down(self, lane: Lane) -> None:
        if not lane.at_coordinator:
            return
        sim, name = self._sim, lane.name
        older = self.held.get(name)
        lane.at_participant, lane.life, lane.file = True, sim.lives[name], sim.vote_disks[name].identity
        self.held[name] = lane
        sim.note(f"{COORDINATOR} -> {name}: hello on lane {lane.number}")
        sim.feed(name, pe.LaneOpened(lane.number, LOG, COORDINATOR))
        self._haunt(lane, down=True)
        if older is not None:
            sim.after(self.latency(), self._lost_at_participant, older)

    def say_hello(self, name: str, hello: pe.Hello) -> None:
        lane = self.held[name]
        assert lane.number == hello.lane
        node = self._sim.participants[name]
        opened = ce.LaneOpened(name, node.identity, node.incarnation, f"addr-{name}", hello.questions)
        delay = self.latency()
        lane.up_at = lane.hello_at = self._sim.mono + delay
        self._sim.at_process(COORDINATOR, delay, lambda: self._hello_up(lane, opened))

    def _hello_up(self, lane: Lane, opened: ce.LaneOpened) -> None:
        if not lane.at_coordinator or lane.broken:
            return
        sim = self._sim
        lane.open = True
        sim.watch.lane_opened(lane.name, opened.questions)
        sim.note(f"{lane.name} -> {COORDINATOR}: hello on lane {lane.number}, asks {opened.questions}")
        sim.feed(COORDINATOR, opened)
        self._haunt(lane, down=False)

    def _haunt(self, lane: Lane, *, down: bool) -> None:
        """What was lost with an earlier lane to the same file comes on this one, before or after its own messages."""
        mine = [ghost for ghost in self._ghosts if (ghost.name, ghost.file, ghost.down) == (lane.name, lane.file, down)]
        self._ghosts = [ghost for ghost in self._ghosts if ghost not in mine]
        for ghost in mine:
            self._carry(lane, ghost.batch, down, self.latency() * 20 * self._random.random(), stray=True)

    # Lanes: ending.

    def break_lane(self, name: str) -> None:
        """Nothing more gets through, and both ends notice, each in its time."""
        for lane in {id(each): each for each in (self.dialed.get(name), self.held.get(name)) if each}.values():
            if not lane.broken:
                self._sim.note(f"the lane {lane.number} to {name} breaks")
                lane.broken = True
                self._sim.after(self._notice_s(), self._lost_at_participant, lane)
                self._sim.after(self._notice_s(), self._lost_at_coordinator, lane, "broken")

    def _notice_s(self) -> float:
        return KEEPALIVE_S * self._random.random() if self._random.random() < 0.2 else self.latency()

    def process_gone(self, name: str) -> None:
        """Its ends of its lanes are gone with it, and so is what it had not written; the others notice."""
        if name == COORDINATOR:
            for lane in self.dialed.values():
                lane.at_coordinator = False
                self._sim.after(self._notice_s(), self._lost_at_participant, lane)
            self.dialed.clear()
        else:
            held = self.held.pop(name, None)
            if held is not None:
                held.at_participant = False
                self._sim.after(self._notice_s(), self._lost_at_coordinator, held, "the connection broke")

    def _lost_at_coordinator(self, lane: Lane, why: str) -> None:
        if not lane.at_coordinator:
            return
        lane.at_coordinator = lane.open = False
        lane.broken = True
        sim, name = self._sim, lane.name
        life = sim.lives[COORDINATOR]
        if self.dialed.get(name) is lane:
            del self.dialed[name]
            sim.note(f"{COORDINATOR} loses lane {lane.number} to {name}: {why}")
            sim.at_process(COORDINATOR, 0.0, lambda: sim.feed(COORDINATOR, ce.LaneLost(name, why)))
            sim.at_process(COORDINATOR, 0.05 + 0.2 * self._random.random(), lambda: self.dial(name, life))

    def _lost_at_participant(self, lane: Lane) -> None:
        sim, name = self._sim, lane.name
        if not lane.at_participant:
            return
        lane.at_participant = False
        lane.broken = True
        if self.held.get(name) is lane:
            del self.held[name]
        if sim.up(name) and sim.lives[name] == lane.life:
            sim.note(f"{name} loses lane {lane.number}")
            sim.at_process(name, 0.0, lambda: sim.feed(name, pe.LaneLost(lane.number)))
        if lane.at_coordinator:
            sim.after(self._notice_s(), self._lost_at_coordinator, lane, "the other end closed it")

    # Lanes: messages.

    def post_down(self, name: str, message: Any) -> None:
        lane = self.dialed.get(name)
        if lane is not None and lane.open:
            lane.down.append(message)
            if len(lane.down) == 1:
                self._sim.after(WRITE_S, self._depart, lane, True, self._sim.lives[COORDINATOR])

    def post_up(self, name: str, message: Any) -> None:
        lane = self.held.get(name)
        if lane is not None:
            lane.up.append(message)
            if len(lane.up) == 1:
                self._sim.after(WRITE_S, self._depart, lane, False, lane.life)

    def _depart(self, lane: Lane, down: bool, life: int) -> None:
        sim = self._sim
        sender = COORDINATOR if down else lane.name
        box = lane.down if down else lane.up
        batch = _carried(box, down)
        box.clear()
        if not sim.up(sender) or sim.lives[sender] != life or not batch:
            return
        if sim.paused(sender):
            sim.at_process(sender, 0.0, lambda: self._go(lane, batch, down))
        else:
            self._go(lane, batch, down)

    def _go(self, lane: Lane, batch: tuple[Any, ...], down: bool) -> None:
        sim, random, weather = self._sim, self._random.random, self.weather
        sender, target = (COORDINATOR, lane.name) if down else (lane.name, COORDINATOR)
        sim.strikes.happened(sender, "departs")
        if weather.loss:
            kept = tuple(message for message in batch if random() >= weather.loss)
            if len(kept) < len(batch):
                sim.note_lost(batch, kept)
            batch = kept
        if not batch:
            return
        if lane.broken:
            if weather.ghosts:
                self._ghosts.append(Ghost(lane.name, lane.file, batch, down))
            return
        delay = self.latency()
        blocked = self._blocked_until(sender, target)
        if sim.mono < blocked:
            delay += blocked - sim.mono
        self._carry(lane, batch, down, delay)
        if weather.ghosts and random() < ECHO:
            self._ghosts.append(Ghost(lane.name, lane.file, batch, down))
        if weather.doubled and random() < weather.doubled:
            late = self.latency() * 20 if random() < 0.5 else LATE_S
            self._carry(lane, batch, down, delay + late * random(), stray=True)

    def _carry(self, lane: Lane, batch: tuple[Any, ...], down: bool, delay: float, *, stray: bool = False) -> None:
        """Lanes keep order; a stray (a second copy, a ghost) and whatever is shuffled does not."""
        sim = self._sim
        arrives = sim.mono + delay
        if not (stray or self.weather.shuffled):
            arrives = max(arrives, lane.down_at if down else lane.up_at)
            if down:
                lane.down_at = arrives
            else:
                lane.up_at = arrives
        if not down:
            arrives = max(arrives, lane.hello_at)
        target = lane.name if down else COORDINATOR
        sim.at_process(target, arrives - sim.mono, lambda: self._arrive(lane, batch, down))

    def _arrive(self, lane: Lane, batch: tuple[Any, ...], down: bool) -> None:
        sim, name = self._sim, lane.name
        if not (lane.at_participant and sim.lives[name] == lane.life if down else lane.at_coordinator and lane.open):
            if self.weather.ghosts:
                self._ghosts.append(Ghost(name, lane.file, batch, down))
            return
        sim.note_arrived(name, batch, down)
        if down:
            sim.watch.arrives(name, batch)
            sim.feed(name, pe.Received(LOG, batch))
            sim.watch.hears(name, batch)
            sim.strikes.happened(name, "receives")
        else:
            sim.feed(COORDINATOR, ce.Received(name, batch))
            sim.strikes.happened(COORDINATOR, "receives")


def _carried(messages: list[Any], down: bool) -> tuple[Any, ...]:
    """What the other end reads of these, in the order in which it applies them: through the shipped encoding."""
    if down:
        sent_down = wire.encode_to_participant(messages, durable=0)
        return tuple(message for batch in sent_down for message in wire.decode_to_participant(batch))
    sent_up = wire.encode_to_coordinator(messages, durable=0)
    return tuple(message for batch in sent_up for message in wire.decode_to_coordinator(batch))
