"""Decision registers: one entry per transaction id; the first writer wins, and everyone acts on what it wrote (rule 2).

The node asks with a `Decide` effect and goes on with the `Decided` event, so a register may answer at once or later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from coordinator.events import Decide, Decided


class DecisionRegister(ABC):
    """Where coordinators agree how a transaction ends."""

    durable: bool
    """Whether a returned decision is durable in the register. If not, it is as durable as the decision log's record of
    it, and nobody outside may hear of it before that record is."""

    @abstractmethod
    def decide(self, proposal: Decide, answer: Callable[[Decided], None]) -> None:
        """Writes the proposal unless the id has an entry, and answers with the entry: once, at once or later, on the
        event loop. The same proposal again gets the same answer."""

    @abstractmethod
    def undecide(self, id: str) -> None:
        """The entry may be dropped where it is only kept in memory: the log holds what must last. Idempotent."""


class EmbeddedRegister(DecisionRegister):
    """For one coordinator: the entries of open transactions in memory; what is closed the node looks up in the log.

    The log's queue keeps the order, so whoever asks first has its record queued first; a log that fails before the
    record is durable stops the process, and the entry with it."""

    durable = False

    def __init__(self) -> None:
        self._entries: dict[str, Decided] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def decide(self, proposal: Decide, answer: Callable[[Decided], None]) -> None:
        answer(self._entries.setdefault(proposal.id, Decided(*proposal)))

    def undecide(self, id: str) -> None:
        self._entries.pop(id, None)
