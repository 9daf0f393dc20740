"""The cells: a point, what is done there, to whom, in which case; and by which rules the others mean nothing."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from faults.cluster import COORDINATOR
from faults.matrix.cases import CASES, FIRST, LAST, NOT_REACHED, Case, carried
from faults.matrix.catalogue import POINTS
from troth.failpoints import Action, Point


class Outage(enum.Enum):
    """A fault of the server that holds the victim's data: `kill -9` of all its processes, and a new start at once."""

    BEHIND = "outage"
    """While the participant is stopped at its point; it goes on when the server is there again."""
    UNDER = "crash"
    """While the participant is at work: whatever it has just asked for is done, half done, or not begun."""


Fault = Action | Outage

_AT_POINT: Mapping[Outage, Action] = {Outage.BEHIND: Action.STOP, Outage.UNDER: Action.NOTE}
"""What the participant itself is told."""

FAULTS: Mapping[str, tuple[Fault, ...]] = {
    "before-send": (Action.KILL, Action.DROP, Action.DELAY, Action.DUPLICATE),
    "after-send": (Action.KILL, Action.STOP),
    "before-receive": (Action.KILL, Action.DROP, Action.DELAY),
    "after-receive": (Action.KILL, Action.STOP),
    "before-carry": (Action.KILL, Action.DELAY, Outage.BEHIND, Outage.UNDER),
    "after-carry": (Action.KILL, Action.STOP, Outage.BEHIND),
    "before-flush": (Action.KILL, Action.ERROR, Action.FULL, Action.DELAY),
    "after-flush": (Action.KILL, Action.ERROR, Action.STOP),
    "before-reply": (Action.KILL, Action.DROP, Action.DELAY),
}
"""What is tried at each moment. A delay after a message is one before the next; a message that arrives twice was sent
twice; a stop is a delay of everything, so it stands where a delay of one thing would be another one."""

DELAY_S = 0.6
"""Longer than every period at which something is asked or sent again in the matrix, and than its vote's deadline."""

VICTIMS = ("first", "last", "two")
"""At a participant's point: p1, p3, both. At the coordinator's: its first message of that kind, its last one, and
either its first two, or itself and p1 in the same moment."""

_ENDING = frozenset({Action.KILL, Action.STOP, Action.ERROR, Action.FULL})
"""Faults of a process and not of one message."""


class Cell(NamedTuple):
    """One crossing."""

    point: Point
    action: Fault
    victim: str
    case: Case
    at_servers: bool = False
    """Whether the data of the first and the last participant are at a database server; else all are in files."""

    @property
    def key(self) -> str:
        """As one writes it to run it again."""
        where = "/servers" if self.at_servers else ""
        return f"{self.case.name}/{self.point}={self.action.value}/{self.victim}{where}"

    @property
    def names(self) -> tuple[str, ...]:
        """The processes at whose points it strikes."""
        if self.point.role == COORDINATOR:
            return (COORDINATOR,)
        return {"first": (FIRST,), "last": (LAST,), "two": (FIRST, LAST)}[self.victim]

    @property
    def killed(self) -> tuple[str, ...]:
        """Who is killed from outside once it has struck. Two participants that are to die at their points stop there,
        so that the death of the first is not what keeps the second from getting there."""
        if self.victim != "two" or self.action not in _ENDING:
            return ()
        if self.point.role == COORDINATOR:
            return (FIRST,)
        return self.names if self.action is Action.KILL else ()

    @property
    def rules(self) -> list[str]:
        """The failpoints of the whole cluster, those that bring the case about included, unless it strikes there."""
        text = f"{self.point.what}:{self.point.when}"
        mine = [f"{name}:{text}={self._what()}" for name in self.names]
        taken = tuple(f"{name}:{text}=" for name in self.names)
        return [*mine, *(rule for rule in self.case.provoked if not rule.startswith(taken))]

    def _what(self) -> str:
        if self.killed == self.names:
            return Action.STOP.value
        what = told(self.action).value + (f"({DELAY_S})" if self.action is Action.DELAY else "")
        if self.point.role == COORDINATOR and self.victim == "last":
            return f"{what}@{self.case.coordinator[step_of(self.point)]}"
        if self.point.role == COORDINATOR and self.victim == "two" and self.action not in _ENDING:
            return f"{what}x2"
        return what


def told(fault: Fault) -> Action:
    """The action of the rule at the point."""
    return _AT_POINT[fault] if isinstance(fault, Outage) else fault


def step_of(point: Point) -> str:
    """WHAT:STEP, as cases write it."""
    return f"{point.what}:{point.when.partition('-')[2]}"


def cells(stages: Iterable[bool] = (False, True)) -> Iterator[Cell]:
    """Every cell that means something, case by case; `stages` as in `Cell.at_servers`."""
    for at_servers in stages:
        for case in CASES.values():
            for point in POINTS:
                for action in FAULTS[point.when]:
                    if told(action) in point.actions:
                        for victim in _victims(point, action, case, at_servers):
                            yield Cell(point, action, victim, case, at_servers)


def _victims(point: Point, action: Fault, case: Case, at_servers: bool) -> Iterator[str]:
    step = step_of(point)
    if point.role == COORDINATOR:
        count = case.coordinator.get(step, 0)
        if count:
            yield "first"
        if count > 1:
            yield "last"
        if count > 1 or (count and action in _ENDING):
            yield "two"
    else:
        reached = carried if at_servers else tuple
        first, last = step in reached(case.first), step in reached(case.last)
        two = first and last and not case.apart
        yield from (name for name, there in zip(VICTIMS, (first, last, two), strict=True) if there)


def left_out() -> dict[str, str]:
    """Points without a cell, and why; empty of whatever has one."""
    found = {str(cell.point) for cell in cells()}
    return {
        str(point): NOT_REACHED.get(f"{point.role}:{point.what}", "NOT DECLARED")
        for point in POINTS
        if str(point) not in found
    }
