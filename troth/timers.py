"""A node's timers: what is due when, and the one wake-up for which it asks its driver.

An entry is not taken out when it no longer matters, for most never matter: it says so when its time has come. Those
that no longer count are dropped together once they may be most of what is kept, so memory follows what is open and not
how many there were in the longest time that a timer runs.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

D = TypeVar("D")
K = TypeVar("K")

KEPT = 2_048
"""Entries below which none are looked for that could be dropped."""


class Timers(Generic[D, K]):
    """Entries (time, what for, of whom), the earliest first."""

    __slots__ = ("_asked", "_counts", "_entries", "_room")

    def __init__(self, counts: Callable[[float, D, K], bool]) -> None:
        """`counts` says whether an entry may still matter."""
        self._entries: list[tuple[float, D, K]] = []
        self._counts = counts
        self._room = KEPT
        self._asked = math.inf

    def __iter__(self) -> Iterator[tuple[float, D, K]]:
        return iter(self._entries)

    def set(self, at: float, what: D, key: K) -> None:
        """One more entry."""
        heapq.heappush(self._entries, (at, what, key))
        if len(self._entries) > self._room:
            self._entries = [entry for entry in self._entries if self._counts(*entry)]
            heapq.heapify(self._entries)
            self._room = max(KEPT, 2 * len(self._entries))

    def due(self, mono: float) -> Iterator[tuple[float, D, K]]:
        """Takes out what is due, also what is set meanwhile. Its time has come: another wake-up must be asked for."""
        self._asked = math.inf
        while self._entries and self._entries[0][0] <= mono:
            yield heapq.heappop(self._entries)

    def wake(self) -> float | None:
        """The time of the first entry, when it is to be asked for: it is earlier than what was asked for."""
        if not self._entries or self._entries[0][0] >= self._asked:
            return None
        self._asked = self._entries[0][0]
        return self._asked
