"""The sessions that branches are worked on with: at most so many at a time, whatever the dialect."""

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
