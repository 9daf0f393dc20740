"""What is asked again until there is an answer."""

from __future__ import annotations

import asyncio

import structlog

log = structlog.get_logger(__name__)

LEAST_S, MOST_S = 0.02, 1.0
"""The first pause, and the longest: each is twice the one before."""
_WARN_AFTER = 5


class Again:
    """Pauses between two questions. When there have been several, the log hears of it, in these `words`."""

    def __init__(self, words: str, **fields: str) -> None:
        self._words, self._fields = words, fields
        self._pause_s, self._asked = LEAST_S, 0

    async def pause(self, **why: str) -> None:
        """There was no answer; `why` is for the log."""
        self._asked += 1
        if self._asked == _WARN_AFTER:
            log.warning(self._words, **self._fields, **why)
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, MOST_S)
