"""Questions by single calls: how many go out at one time to one address, and whose turn it is.

Pure, like the node that owns it. First come, first served for each address, so a branch that is never answered does not
keep others from asking, and an address that does not answer holds up only itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from participant.events import AskCoordinator, AskPeer
from troth.messages import Peer
from troth.words import AttemptId

ASKS_MAX = 64
"""Calls in flight to one address."""

Ask = AskCoordinator | AskPeer


class Line:
    """The questions to one address."""

    __slots__ = ("in_flight", "waiting")

    def __init__(self) -> None:
        self.in_flight = 0
        self.waiting: deque[Ask] = deque()


class Asks:
    """Every question that is in flight or waits, each once. `wanted` says of one that waited whether its branch still
    asks."""

    def __init__(self, wanted: Callable[[AttemptId], bool]) -> None:
        self._wanted = wanted
        self._lines: dict[str, Line] = {}
        self._addresses: dict[tuple[AttemptId, Peer | None], str] = {}

    def put(self, ask: Ask) -> list[Ask]:
        """Takes a question, unless it is there already. Returns what may go out now."""
        peer = _peer(ask)
        if (ask.attempt, peer) in self._addresses:
            return []
        address = ask.peer.address if isinstance(ask, AskPeer) else ask.address
        self._addresses[ask.attempt, peer] = address
        self._lines.setdefault(address, Line()).waiting.append(ask)
        return self._next(address)

    def ended(self, attempt: AttemptId, peer: Peer | None) -> list[Ask]:
        """A call has ended, answered or not. Returns what may go out now."""
        address = self._addresses.pop((attempt, peer), None)
        if address is None:
            return []
        self._lines[address].in_flight -= 1
        return self._next(address)

    def _next(self, address: str) -> list[Ask]:
        line = self._lines[address]
        out: list[Ask] = []
        while line.waiting and line.in_flight < ASKS_MAX:
            ask = line.waiting.popleft()
            if self._wanted(ask.attempt):
                line.in_flight += 1
                out.append(ask)
            else:
                del self._addresses[ask.attempt, _peer(ask)]
        if not line.in_flight:
            del self._lines[address]
        return out


def _peer(ask: Ask) -> Peer | None:
    return ask.peer if isinstance(ask, AskPeer) else None
