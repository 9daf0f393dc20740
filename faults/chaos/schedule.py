"""Which faults happen when, to whom and for how long. Pure: the same seed and the same cluster give the same schedule.

What the processes make of it differs from run to run, for they are real.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Collection, Sequence
from typing import NamedTuple

TOGETHER_MAX = 3
"""Faults under way at once, so that something still moves."""
FIRST_S = 1.0
"""The load runs undisturbed for so long."""
_LASTS_OTHERS_S = (0.3, 5.0)
_AT_ONCE = 0.35


class Kind(enum.Enum):
    """A kind of fault; the value is what people read."""

    KILL = "kill -9"
    KILL_SEVERAL = "kill -9 of several at once"
    STOP = "stop and continue"
    CUT = "connections broken and refused"
    SILENCE = "silence both ways"
    ONE_WAY = "silence one way"
    SLOW = "slow connections"
    FULL = "full disk"
    SYNC = "failing fsync"
    SLOW_DISK = "slow fsync"
    SERVER = "kill -9 of a database server"


SIGNALS = (Kind.KILL, Kind.KILL_SEVERAL, Kind.STOP)
LINKS = (Kind.CUT, Kind.SILENCE, Kind.ONE_WAY, Kind.SLOW)
DISKS = (Kind.FULL, Kind.SYNC, Kind.SLOW_DISK)


_LASTS_S = {Kind.KILL: (0.0, 0.0), Kind.KILL_SEVERAL: (0.0, 0.0), Kind.FULL: (0.2, 2.0), Kind.SYNC: (0.2, 2.0)}
"""From least to most. A process that cannot write ends at once, and is started again and again until it can."""


class Way(enum.Enum):
    """Of the bytes on a link, seen from who dials."""

    BOTH = "both ways"
    THERE = "there"
    BACK = "back"


class Fault(NamedTuple):
    """One fault. Seconds count from the start of the load."""

    at_s: float
    """At the earliest: unless it is `at_once`, it and all that follow wait until everything works again."""
    lasts_s: float
    """Until it is healed; 0 for a kill, from which the supervisor heals."""
    kind: Kind
    targets: tuple[str, ...]
    """Processes, or links."""
    way: Way = Way.BOTH
    delay_s: float = 0.0
    """What SLOW and SLOW_DISK add."""
    at_once: bool = False
    """It begins although others are still away from an earlier fault."""
    loses: bool = False
    """Whether what a silent link held back is lost at the end, with its connections, or arrives late."""

    def __str__(self) -> str:
        """As in `slow connections coordinator>p1: 120 ms more`."""
        detail = ""
        if self.delay_s:
            detail = f": {self.delay_s * 1000:.0f} ms more"
        elif self.kind is Kind.ONE_WAY:
            detail = f": {self.way.value}"
        return f"{self.kind.value} {', '.join(self.targets)}{detail}"


class Field(NamedTuple):
    """What there is to break."""

    processes: Sequence[str] = ()
    """Those that may be signalled."""
    links: Sequence[tuple[str, ...]] = ()
    """Links, or sets of them that are broken together."""
    disks: Sequence[str] = ()
    """Processes whose disk can be made to fail."""
    servers: Sequence[str] = ()
    """Database servers that may be killed."""

    def targets(self, kind: Kind) -> Sequence[tuple[str, ...]]:
        """What one fault of a kind may hit."""
        if kind is Kind.ONE_WAY:  # of several links, dialled from different ends, one way would mean two
            return [links for links in self.links if len(links) == 1]
        if kind in LINKS:
            return self.links
        if kind is Kind.SERVER:
            return [(name,) for name in self.servers]
        return [(name,) for name in (self.disks if kind in DISKS else self.processes)]


def schedule(seed: int, duration_s: float, field: Field, kinds: Collection[Kind], every_s: float) -> list[Fault]:
    """Faults in order, some `every_s` seconds apart, none after `duration_s` has passed.

    Kinds are drawn from a bag that is filled anew when it is empty, so each comes about equally often. What is hit is
    not hit again before it is healed."""
    chance = random.Random(f"faults {seed}")
    usable = [kind for kind in Kind if kind in kinds and field.targets(kind)]
    bag: list[Kind] = []
    made: list[Fault] = []
    at_s = FIRST_S
    while usable and at_s < duration_s:
        bag = bag or chance.sample(usable, len(usable))
        under_way = [fault for fault in made if fault.at_s + fault.lasts_s > at_s]
        busy = {target for fault in under_way for target in fault.targets}
        if len(under_way) < TOGETHER_MAX and (fault := _fault(chance, at_s, bag[-1], field, busy)):
            bag.pop()
            made.append(fault)
        at_s = round(at_s + every_s * chance.uniform(0.4, 1.6), 2)
    return made


def _fault(chance: random.Random, at_s: float, kind: Kind, field: Field, busy: set[str]) -> Fault | None:
    """A fault of that kind on something that is whole now; None when there is nothing."""
    free = [targets for targets in field.targets(kind) if not busy.intersection(targets)]
    if not free:
        return None
    targets = chance.choice(free)
    if kind is Kind.KILL_SEVERAL:
        names = [name for (name,) in free]
        targets = tuple(sorted(chance.sample(names, chance.randint(min(2, len(names)), len(names)))))
    lasts_s = round(chance.uniform(*_LASTS_S.get(kind, _LASTS_OTHERS_S)), 2)
    fault = Fault(at_s, lasts_s, kind, targets, at_once=chance.random() < _AT_ONCE)
    match kind:
        case Kind.ONE_WAY:
            return fault._replace(way=chance.choice([Way.THERE, Way.BACK]), loses=chance.random() < 0.5)
        case Kind.SILENCE:
            return fault._replace(loses=chance.random() < 0.5)
        case Kind.SLOW | Kind.SLOW_DISK:
            return fault._replace(delay_s=round(chance.uniform(0.02, 0.4), 2))
        case _:
            return fault
