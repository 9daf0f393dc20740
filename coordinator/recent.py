"""Which ids are surely new, so that the log need not be looked through for them (rule 11).

UUIDv7 texts sort by their time. Every id of that form that the log holds, or that was opened in this life, is at most
`_low` or is kept here: so an id above `_low` that is not kept was never seen. That is said of nearly every id that a
client has just made; an id that comes again, comes late, or has another form is looked up.

An id of a client whose clock is far ahead moves `_low` there in time, for as long as the log holds it: then every id is
looked up, which costs what it costs and breaks nothing.
"""

from __future__ import annotations

from troth.ids import time_of

KEPT = 8_192
"""Ids kept, twice as many at most: those of a few seconds under full load."""


class Recent:
    """The ids opened lately."""

    __slots__ = ("_low", "_older", "_younger")

    def __init__(self, newest: str) -> None:
        """`newest` is the greatest UUIDv7 in the log; empty when there is none."""
        self._low = newest
        self._older: set[str] = set()
        self._younger: set[str] = set()

    def open(self, id: str) -> bool:
        """Keeps an id that is opened now, and says whether it is surely new."""
        if id <= self._low or time_of(id) is None:
            return False
        new = id not in self._younger and id not in self._older
        self._younger.add(id)
        if len(self._younger) == KEPT:
            self._low = max(self._low, max(self._older, default=""))
            self._older, self._younger = self._younger, set()
        return new
