"""What the end of a branch means at every SQL server, whatever its words for it.

"Not known" is never an outcome (rule 7): a name that the server does not know is committed when its row is in the table
of what has committed, written with the work, and otherwise rolled back or never prepared.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from participant.resources.outside import EndedElsewhere, OutsideResource
from troth.words import AttemptId, Outcome


class ServerResource(OutsideResource):
    """The ends; the rest is a dialect's."""

    def __init__(self) -> None:
        self._cleaning: dict[AttemptId, asyncio.Task[None]] = {}
        """What is left of branches that were denied, and is being rolled back."""

    @abstractmethod
    async def _end(self, verb: str, attempt: AttemptId) -> bool:
        """COMMIT or ROLLBACK of what is prepared under the attempt's name; False when the server knows no such name."""

    @abstractmethod
    async def _remembers(self, attempt: AttemptId) -> bool:
        """Whether the branch committed, for a name that the server does not know."""

    async def commit(self, attempt: AttemptId) -> None:
        if not await self._end("COMMIT", attempt) and not await self._remembers(attempt):
            raise EndedElsewhere(attempt, Outcome.ABORTED)

    async def abort(self, attempt: AttemptId) -> None:
        if cleaning := self._cleaning.get(attempt):
            await asyncio.shield(cleaning)
        if not await self._end("ROLLBACK", attempt) and await self._remembers(attempt):
            raise EndedElsewhere(attempt, Outcome.COMMITTED)
