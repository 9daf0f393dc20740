"""What goes wrong: each fault of a scenario, done to a simulation when its time has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from faults.simulator.disks import DiskFailed
from faults.simulator.scenario import COORDINATOR, Fault

if TYPE_CHECKING:
    from faults.simulator.simulation import Simulation

FULL_PAUSE_S = 0.01
"""How long a disk that is full waits for something to be written."""
PAUSE_NOTICED_S = 5.0
"""A process that is stopped for longer loses its connections."""


class Trap(NamedTuple):
    """A crash that waits for something to happen to a process for the nth time from now."""

    who: str
    what: str
    nth: int
    down_s: float


class Strikes:
    """The faults of one simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self.traps: list[Trap] = []

    def strike(self, fault: Fault) -> None:
        if self._sim.healing:
            return
        sim, name, for_s = self._sim, fault.who, fault.for_s
        match fault.kind:
            case "crash" if fault.when:
                self.traps.append(Trap(name, fault.when, fault.nth, for_s))
            case "crash":
                self._crash(name, for_s, "killed")
            case "pause":
                self._pause(name, for_s)
            case "cut":
                sim.note(f"{name} -> {fault.other} is cut for {for_s} s{', both ways' if fault.both else ''}")
                sim.network.cut(name, fault.other, for_s, both=fault.both)
            case "break":
                sim.network.break_lane(name)
            case "island":
                sim.note(f"{name} and {COORDINATOR} are cut off from each other for {for_s} s")
                sim.network.cut(name, COORDINATOR, for_s, both=True)
                sim.network.break_lane(name)
            case "full":
                self._full(name, for_s)
            case "stall":
                sim.note(f"{name}'s disk stalls for {for_s} s")
                sim.stall(name, for_s)
            case "swap":
                self._swap(name, for_s)
            case "server":
                sim.errands.crash(name, for_s)
            case "slow":
                sim.errands.slow(name, for_s)
            case "hand":
                sim.errands.end_one(name)
            case "person":
                sim.people.settle(name)

    def happened(self, name: str, what: str) -> None:
        """Something that a crash may wait for."""
        for i, trap in enumerate(self.traps):
            if (trap.who, trap.what) == (name, what):
                if trap.nth > 1:
                    self.traps[i] = trap._replace(nth=trap.nth - 1)
                else:
                    del self.traps[i]
                    self._sim.after(0.0, self._crash, name, trap.down_s, f"when it had {what}")
                return

    def _crash(self, name: str, down_s: float, why: str) -> None:
        sim = self._sim
        if sim.up(name) and not sim.healing:
            sim.crash(name, why)
            sim.after(down_s, self.boot, name, sim.lives[name])

    def boot(self, name: str, life: int) -> None:
        """Unless it has been started by then."""
        if not self._sim.up(name) and self._sim.lives[name] == life:
            self._sim.boot(name)

    def _pause(self, name: str, for_s: float) -> None:
        sim = self._sim
        if sim.up(name) and not sim.paused(name):
            sim.note(f"{name} is stopped for {for_s} s")
            sim.pause(name, for_s)
            if for_s > PAUSE_NOTICED_S:
                for each in sim.names if name == COORDINATOR else [name]:
                    sim.after(PAUSE_NOTICED_S, sim.network.break_lane, each)

    def _full(self, name: str, down_s: float) -> None:
        """The disk has no room for what is queued: the process stops at once, and says nothing of it."""
        sim = self._sim
        if not sim.up(name) or sim.healing:
            return
        if not sim.disk(name).queue:
            sim.after(FULL_PAUSE_S, self._full, name, down_s)
            return
        try:
            sim.flush(name, None, full=True)
        except DiskFailed as error:
            sim.note(f"{name}: {error}")
            self._crash(name, down_s, "its disk is full")

    def _swap(self, name: str, down_s: float) -> None:
        sim = self._sim
        if sim.up(name):
            self._crash(name, down_s, "to be another file")
            sim.swap(name, sim.random.randrange(min(3, len(sim.files[name]) + 1)))
