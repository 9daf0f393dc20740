"""The table of counts in DESIGN section 3, row by row, on the nodes: forced and lazy records, messages each way.

`test_counts_processes.py` asserts the same on real processes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

import coordinator.events as ce
import participant.events as pe
from coordinator.settings import CoordinatorSettings
from tests.world import Manual, add, branch, look, put
from troth.messages import Mark


class Counts(NamedTuple):
    coordinator: tuple[int, int]
    """Forced, lazy."""
    a: tuple[int, int, int, int]
    """Forced, lazy, messages to it, messages from it."""
    b: tuple[int, int, int, int] = (0, 0, 0, 0)


class Counting(Manual):
    def __init__(self, **arguments: Any) -> None:
        self.to: dict[str, int] = {}
        self.from_: dict[str, int] = {}
        super().__init__(**arguments)
        self.settle()
        self.to.clear()
        self.from_.clear()

    def perform(self, name: str, effects: Any) -> None:
        for effect in effects:
            if isinstance(effect, ce.Send) and not isinstance(effect.message, Mark):
                self.to[effect.participant] = self.to.get(effect.participant, 0) + 1
            elif isinstance(effect, pe.Send):
                self.from_[name] = self.from_.get(name, 0) + 1
        super().perform(name, effects)

    def counts(self) -> Counts:
        assert self.coordinator is not None
        sides = [
            (node.forced, node.lazy, self.to.get(name, 0), self.from_.get(name, 0))
            for name, node in sorted(self.participants.items())
        ]
        return Counts((self.coordinator.forced, self.coordinator.lazy), *sides)


ADD_A, ADD_B = branch("a", add(1)), branch("b", add(1))
NO_A, NO_B = branch("a", add(-100, 0)), branch("b", add(-100, 0))
READ_A, READ_B = branch("a", look()), branch("b", look())
# One attempt only, so that an abort is not tried again.
ONCE = CoordinatorSettings(retry_first_s=60.0, retry_max_s=60.0)

CASES = {
    # case: (branches, client's id, counts)
    "commit": ((ADD_A, ADD_B), "", Counts((1, 1), (2, 0, 2, 2), (2, 0, 2, 2))),
    "commit, client's id": (
        (ADD_A, ADD_B),
        "i",
        Counts((1, 1), (2, 0, 2, 2), (2, 0, 2, 2)),
    ),
    "abort: a voted YES, b NO": (
        (ADD_A, NO_B),
        "",
        Counts((0, 0), (1, 1, 2, 1), (0, 0, 1, 1)),
    ),
    "abort, client's id": (
        (ADD_A, NO_B),
        "i",
        Counts((1, 0), (1, 1, 2, 1), (0, 0, 1, 1)),
    ),
    "one READ_ONLY": ((ADD_A, READ_B), "", Counts((1, 1), (2, 0, 2, 2), (0, 0, 2, 1))),
    "every one READ_ONLY": ((READ_A, READ_B), "", Counts((0, 0), (0, 0, 2, 1), (0, 0, 2, 1))),
    "every one READ_ONLY, client's id": (
        (READ_A, READ_B),
        "i",
        Counts((1, 0), (0, 0, 2, 1), (0, 0, 2, 1)),
    ),
    "only one, READ_ONLY": ((READ_A,), "", Counts((0, 0), (0, 0, 2, 1))),
    "only one, READ_ONLY, client's id": ((READ_A,), "i", Counts((1, 0), (0, 0, 2, 1))),
    "one-phase": ((ADD_A,), "", Counts((0, 0), (1, 0, 1, 1))),
    "one-phase NO": ((NO_A,), "", Counts((0, 0), (0, 0, 1, 1))),
    "one-phase, client's id": ((ADD_A,), "i", Counts((1, 1), (1, 0, 1, 1))),
    "one-phase NO, client's id": ((NO_A,), "i", Counts((2, 0), (0, 0, 1, 1))),
}


@pytest.mark.parametrize("case", CASES)
def test_counts(case: str) -> None:
    branches, id, expected = CASES[case]
    world = Counting()
    world.submits(*branches, id=id)
    world.settle()
    assert world.counts() == expected


def test_abort_before_the_participant_voted() -> None:
    """2 messages to it, at most 1 from it, at most 1 lazy record; the NO voter hears nothing more."""
    world = Counting()
    world.submits(branch("a", add(1)), branch("b", add(-100, 0)))
    world.deliver(1)
    world.flush("b")
    world.deliver(1)
    world.settle()
    assert world.counts().a[2] == 2
    assert world.counts().a[:2] in {(1, 1), (0, 0), (0, 1)}
    assert world.counts().b == (0, 0, 1, 1)


def test_one_phase_aborted_and_tried_again_is_lazy() -> None:
    """ABORTED of a one-phase attempt with a client's id is 1L when it is tried again (rule 11)."""
    world = Counting(coordinator_settings=ONCE)
    world.submits(branch("b", put(1)), branch("a", add(1)), timeout_s=500)
    world.deliver()
    world.deliver()
    world.flush("b")
    before = world.coordinator.forced, world.coordinator.lazy  # type: ignore[union-attr]
    world.submits(branch("b", put(2)), id="i", timeout_s=500)
    world.flush("coordinator")
    world.deliver(len(world.net) - 1)
    world.pass_time(6)
    world.deliver(len(world.net) - 1)
    assert (world.coordinator.forced, world.coordinator.lazy) == (before[0] + 1, before[1] + 1)  # type: ignore[union-attr]
