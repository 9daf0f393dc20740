"""The words of the field that every room uses, as types.

The numbers are those of `protos/troth/v1/types.proto`; a test compares them.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

SEQUENCE_BITS = 40
"""Low bits of an attempt's number that count within one epoch; the rest is the epoch."""

ASSIGNED = "troth:"
"""Prefix of the ids that a coordinator assigns; a client may not choose such an id (rule 11)."""


class Symbol(enum.Enum):
    """An enum whose members are keys of tables on hot paths: hashed as the single objects that they are, while Enum
    itself hashes a member's name by a call of Python."""

    __hash__ = object.__hash__


class Outcome(enum.IntEnum):
    """How a submission ended, as far as a client can know."""

    COMMITTED = 1
    ABORTED = 2
    REFUSED = 3
    UNKNOWN = 4


class Vote(enum.IntEnum):
    """A branch's vote. A YES is the participant's word."""

    YES = 1
    NO = 2
    READ_ONLY = 3


class Answer(enum.IntEnum):
    """The answer to "how did this attempt end?". NONE stands for silence where a reply cannot stay silent."""

    PENDING = 1
    COMMITTED = 2
    ABORTED = 3
    NONE = 4


class AttemptId(NamedTuple):
    """One run of a transaction: the coordinator's log identity, and epoch and sequence as one number."""

    log: str
    number: int

    @property
    def epoch(self) -> int:
        return self.number >> SEQUENCE_BITS

    @property
    def sequence(self) -> int:
        return self.number & ((1 << SEQUENCE_BITS) - 1)

    def __str__(self) -> str:
        """The transaction id that a coordinator assigns to a submission without one."""
        return f"{ASSIGNED}{self.log}:{self.epoch}:{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> AttemptId:
        """The inverse of `str`. Raises ValueError when `text` is not of that form."""
        prefix, log, epoch, sequence = text.split(":")
        attempt = cls(log, number_of(int(epoch), int(sequence)))
        if prefix + ":" != ASSIGNED or str(attempt) != text:
            raise ValueError(f"not an assigned transaction id: {text!r}")
        return attempt


def number_of(epoch: int, sequence: int) -> int:
    """The attempt number of a sequence within an epoch; ascending in both."""
    return epoch << SEQUENCE_BITS | sequence


class Now(NamedTuple):
    """The time as a driver hands it to a node, in seconds. Deadlines are monotonic; wall time is shown and recorded.

    Within one incarnation `wall` runs with the monotonic clock, so a clock that is set does not reach the nodes.
    """

    mono: float
    wall: float
