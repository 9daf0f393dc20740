"""Escrow: concurrent adds to one integer column whose bounds hold in the worst case of all that are pending.

The method is O'Neil's ("The Escrow Transactional Method", 1986), over every bound and not only the adder's own. Any
subset of the pending branches may commit, in any order, so an add is admitted only when its own bounds and those of
every pending add hold whichever of the others are applied; it is hopeless when no subset could keep its own.

Each add of a branch counts for itself, never as a sum: `+100` and `-100` of one branch pass through a value that a
bound may forbid. Its own earlier adds are certain when it is applied, so they count exactly for its own bounds.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from participant.resources import Add
from troth.words import Symbol


class Verdict(Symbol):
    """What is to be done with an add that asks to join."""

    ADMIT = enum.auto()
    WAIT = enum.auto()
    HOPELESS = enum.auto()


class Pending(NamedTuple):
    """What one branch's adds to the column may do, and what they need.

    `floors` are least values of base + all pending subtractions, `ceilings` greatest values of base + all pending
    additions, at which each of the branch's own bounds still holds."""

    down: int
    up: int
    net: int
    floors: tuple[int, ...]
    ceilings: tuple[int, ...]

    @classmethod
    def of(cls, adds: Sequence[Add]) -> Pending:
        if len(adds) == 1:
            ((_, by, low, high, _),) = adds
            return cls(by, 0, by, (low,), (high - by,)) if by < 0 else cls(0, by, by, (low - by,), (high,))
        down = sum(add.by for add in adds if add.by < 0)
        up = sum(add.by for add in adds if add.by > 0)
        floors, ceilings, sofar = [], [], 0
        for add in adds:
            sofar += add.by
            floors.append(add.low + down - sofar)
            ceilings.append(add.high + up - sofar)
        return cls(down, up, sofar, tuple(floors), tuple(ceilings))


class Escrow:
    """One column of one row while adds to it are pending.

    `base` is the applied value; None until the first branch's trial has read it, and until then nobody else joins.
    """

    __slots__ = ("_ceilings", "_floors", "base", "down", "pending", "up")

    def __init__(self, base: int | None = None) -> None:
        self.base = base
        self.pending: dict[object, Pending] = {}
        self.down = 0
        self.up = 0
        self._floors: dict[int, int] = {}
        self._ceilings: dict[int, int] = {}

    def judge(self, adds: Sequence[Add]) -> Verdict:
        """Whether a branch with these adds may join the pending ones now."""
        if not self.pending:
            return Verdict.ADMIT
        if self.base is None:
            return Verdict.WAIT
        if self.hopeless(adds) is not None:
            return Verdict.HOPELESS
        new = Pending.of(adds)
        lowest = self.base + self.down + new.down
        highest = self.base + self.up + new.up
        if lowest < max(*self._floors, *new.floors) or highest > min(*self._ceilings, *new.ceilings):
            return Verdict.WAIT
        return Verdict.ADMIT

    def hopeless(self, adds: Sequence[Add]) -> Add | None:
        """The first add whose own bound no outcome of the pending ones could keep."""
        assert self.base is not None
        sofar = 0
        for add in adds:
            sofar += add.by
            if self.base + self.up + sofar < add.low or self.base + self.down + sofar > add.high:
                return add
        return None

    def join(self, owner: object, adds: Sequence[Add]) -> None:
        assert owner not in self.pending
        new = self.pending[owner] = Pending.of(adds)
        self.down += new.down
        self.up += new.up
        _put(self._floors, new.floors)
        _put(self._ceilings, new.ceilings)

    def leave(self, owner: object, applied: bool) -> None:
        old = self.pending.pop(owner)
        self.down -= old.down
        self.up -= old.up
        if applied and self.base is not None:
            self.base += old.net
        _take(self._floors, old.floors)
        _take(self._ceilings, old.ceilings)


# How often each bound is needed: many adds share a few bounds, so the tightest is found among few.


def _put(counts: dict[int, int], values: Sequence[int]) -> None:
    for value in values:
        counts[value] = counts.get(value, 0) + 1


def _take(counts: dict[int, int], values: Sequence[int]) -> None:
    for value in values:
        if counts[value] == 1:
            del counts[value]
        else:
            counts[value] -= 1
