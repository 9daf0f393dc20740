"""The sessions of one incarnation, whatever the dialect: places for branches at work, and a few that all share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar


class Unavailable(Exception):
    """No connection for work became free in time."""


class Losable(Protocol):
    """A session; `lost` is why it is gone, None while it is there."""

    @property
    def lost(self) -> Exception | None: ...


S = TypeVar("S", bound=Losable)


class Places(Generic[S]):
    """`size` places, and the sessions that nobody has in use."""

    def __init__(self, size: int, make: Callable[[], Awaitable[S]]) -> None:
        self._free = asyncio.Semaphore(size)
        self._make = make
        self._idle: list[S] = []

    async def take(self, within_s: float) -> S:
        """A place with a session that is not lost, a new one when none is idle; `leave` the place afterwards. Raises
        Unavailable, and what making one raises."""
        try:
            if self._free.locked():
                async with asyncio.timeout(within_s):
                    await self._free.acquire()
            else:
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable(f"no connection became free within {within_s:g} s") from None
        try:
            while self._idle:
                if (session := self._idle.pop()).lost is None:
                    return session
            return await self._make()
        except BaseException:
            self._free.release()
            raise

    def leave(self) -> None:
        """Makes room for another at work."""
        self._free.release()

    def rest(self, session: S) -> None:
        """Nothing is open on it any more."""
        if session.lost is None:
            self._idle.append(session)


class Shared(Generic[S]):
    """`size` sessions that several may use at a time, each made when it is wanted first, and anew when it was lost."""

    def __init__(self, size: int, make: Callable[[], Awaitable[S]]) -> None:
        self._make = make
        self._sessions: list[S | None] = [None] * size
        self._next = 0
        self._making = asyncio.Lock()
        """So that one is made, however many wait for it."""

    async def session(self) -> S:
        """The next in turn. Raises what making one raises."""
        self._next = (self._next + 1) % len(self._sessions)
        at = self._next
        found = self._sessions[at]
        if found is None or found.lost:
            async with self._making:
                found = self._sessions[at]
                if found is None or found.lost:
                    found = self._sessions[at] = await self._make()
        return found
