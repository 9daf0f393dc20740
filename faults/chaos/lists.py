"""Lists of numbers that transactions append to and read, at several participants at once. An append is what users do
for read-modify-write: it names, in a `check`, the list that it goes by."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from faults.chaos.history import Seen, Values
from faults.chaos.tables import LISTS
from troth import Result, Transaction
from troth.words import Outcome

SLOTS_EACH = 4
"""Lists of one participant that are in use at once."""
LENGTH_MAX = 24
"""A longer one is left alone, and a new one takes its place."""


@dataclass
class _Slot:
    """A place for lists that follow one another, and what is known of the present one."""

    participant: str
    name: str
    generation: int = 0
    known: Values = ()
    stale: bool = False
    """Somebody else appended to it: it is to be read before it is appended to again."""

    @property
    def list(self) -> tuple[str, str]:
        """Participant and name of the present list."""
        return self.participant, f"{self.name}-{self.generation}"

    def learn(self, values: Values) -> None:
        """What the present list held when a transaction ended, late news perhaps."""
        if len(values) >= len(self.known):
            self.known, self.stale = values, False
        if len(self.known) >= LENGTH_MAX:
            self.generation, self.known = self.generation + 1, ()


class Step(NamedTuple):
    """One transaction over some lists."""

    id: str
    number: int
    appends: Mapping[tuple[str, str], Values]
    """What each list must hold before."""
    reads: Sequence[tuple[str, str]]
    at_least: Mapping[str, int]

    def transaction(self) -> Transaction:
        """All of it, or nothing."""
        made = Transaction(self.id)
        for (participant, name), before in self.appends.items():
            made.at(participant)
            after = {"items": text(*before, self.number)}
            if before:
                made.check(LISTS, name, "items", equals=text(*before)).update(LISTS, name, after)
            else:
                made.insert(LISTS, name, after)
        for participant, name in self.reads:
            made.at(participant).read(LISTS, name)
        return made


class Lists:
    """Of one run, whose lists begin with its tag."""

    def __init__(self, tag: str, participants: Sequence[str]) -> None:
        self._slots = [_Slot(p, f"{p}-{tag}-{n}") for p in participants for n in range(SLOTS_EACH)]
        self._values: dict[str, Values] = {}
        """By text, so that equal lists are one object."""
        self.history: dict[str, Seen] = {}
        """By id, what every transaction did as far as it is known."""
        self.used: set[tuple[str, str]] = set()
        """Every list that anything was appended to, or would have been."""

    def step(self, id: str, number: int, chance: random.Random) -> Step:
        """Appends to up to three lists and reads some others; some only read."""
        slots = chance.sample(self._slots, min(len(self._slots), chance.randint(2, 5)))
        count = chance.choices((0, 1, 2, 3), (20, 25, 40, 15))[0]
        appended = [slot for slot in slots[:count] if not slot.stale]
        read = [slot for slot in slots if slot not in appended]
        appends = {slot.list: slot.known for slot in appended}
        self.used |= appends.keys()
        at_least = {slot.list[1]: len(slot.known) for slot in slots}
        step = Step(id, number, appends, [slot.list for slot in read], at_least)
        self.history[id] = self._seen(step, Outcome.UNKNOWN, {})
        return step

    def ended(self, step: Step, result: Result) -> None:
        """Its outcome became known."""
        reads = {}
        if result.outcome is Outcome.COMMITTED:
            reads = {str(row.key[0]): self._parsed(str(row["items"]) if row.present else "") for row in result.rows}
            reads |= {name: before for (_, name), before in step.appends.items()}
        self.history[step.id] = self._seen(step, result.outcome, reads)
        for place in (*step.appends, *step.reads):
            slot = self._current(place)
            if slot is None:
                continue
            if result.outcome is not Outcome.COMMITTED:
                slot.stale = slot.stale or place in step.appends
            elif place[1] in reads:
                own = (step.number,) if place in step.appends else ()
                slot.learn(self._parsed(text(*reads[place[1]], *own)))

    def _seen(self, step: Step, outcome: Outcome, reads: Mapping[str, Values]) -> Seen:
        return Seen(step.id, outcome, {name: step.number for _, name in step.appends}, reads, step.at_least)

    def _current(self, place: tuple[str, str]) -> _Slot | None:
        return next((slot for slot in self._slots if slot.list == place), None)

    def _parsed(self, items: str) -> Values:
        if items not in self._values:
            self._values[items] = parse(items)
        return self._values[items]


def text(*values: int) -> str:
    """A list as its row has it."""
    return ",".join(map(str, values))


def parse(items: str) -> Values:
    """The inverse of `text`. Raises ValueError for what it does not make."""
    return tuple(int(part) for part in items.split(",")) if items else ()
