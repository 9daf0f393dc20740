"""What a submission gives back: its outcome, why, and the rows that were read, as Python values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from troth.errors import Aborted, OutcomeUnknown, Refused
from troth.reasons import code_name
from troth.v1 import coordinator_pb2, types_pb2
from troth.values import Scalar, from_value
from troth.words import Outcome

_OUTCOMES: Mapping[int, Outcome] = {int(outcome): outcome for outcome in Outcome}


@dataclass(frozen=True)
class Row:
    """A row that a `read` or a read-only `sql` brought back; `row["balance"]` is a column."""

    participant: str
    table: str
    """Empty for a row of `sql`, as its key is."""
    key: tuple[Scalar, ...]
    """In primary-key order."""
    values: dict[str, Scalar] | None
    """Every column in the order of the table or of the statement; None when there is no such row."""
    position: int = 0
    """Of that operation in the transaction."""

    @classmethod
    def of(cls, message: types_pb2.Row) -> Self:
        """From the message."""
        values = {column.name: from_value(column.value) for column in message.values}
        key = tuple(from_value(part) for part in message.key)
        present = values if message.present else None
        return cls(message.participant, message.table, key, present, message.position)

    @property
    def present(self) -> bool:
        """Whether the row is there."""
        return self.values is not None

    def __getitem__(self, column: str) -> Scalar:
        """The column's value. Raises KeyError for an unknown column, and for any when the row is not there."""
        if self.values is None:
            raise KeyError(f"{self.table} {self.key}: there is no such row")
        return self.values[column]


@dataclass(frozen=True)
class Result:
    """How one submission ended."""

    id: str
    outcome: Outcome
    reason: types_pb2.Reason | None = None
    """Why, when it is not COMMITTED."""
    rows: tuple[Row, ...] = ()
    rows_not_kept: bool = False
    """Rows were read and are no longer kept: the answer is a repeated one."""
    applied: bool = False
    """Every participant has applied; known only when that was waited for."""
    attempts: int = 0
    """Attempts that the coordinator made in its present life."""
    position: int = 0
    """Of the transaction among those that `submit_many` took, from 0: results come in any order, and an id that the
    coordinator assigned is not known before."""

    @classmethod
    def of(cls, message: coordinator_pb2.SubmitResult, position: int = 0) -> Self:
        """From the message; an outcome that this client does not know is UNKNOWN."""
        return cls(
            id=message.id,
            outcome=_OUTCOMES.get(message.outcome, Outcome.UNKNOWN),
            reason=message.reason if message.HasField("reason") else None,
            rows=tuple(Row.of(row) for row in message.rows),
            rows_not_kept=message.rows_not_kept,
            applied=message.applied,
            attempts=message.attempts,
            position=position,
        )

    @classmethod
    def unknown(cls, id: str, why: str, position: int = 0) -> Self:
        """A submission whose outcome is not known here."""
        return cls(id, Outcome.UNKNOWN, types_pb2.Reason(message=why, retryable=True), position=position)

    @classmethod
    def refused(cls, id: str, why: types_pb2.Reason, position: int = 0) -> Self:
        """A submission that was not sent, because it cannot be."""
        return cls(id, Outcome.REFUSED, why, position=position)

    @property
    def code(self) -> str:
        """The reason's code, as in `below_min`; empty when there is none."""
        return code_name(self.reason.code) if self.reason is not None and self.reason.code else ""

    def committed(self) -> Self:
        """This result, when it is COMMITTED. Raises Aborted, Refused or OutcomeUnknown."""
        reason = self.reason or types_pb2.Reason()
        match self.outcome:
            case Outcome.COMMITTED:
                return self
            case Outcome.ABORTED:
                raise Aborted(reason, self.id, self)
            case Outcome.REFUSED:
                raise Refused(reason, self.id, self)
            case Outcome.UNKNOWN:
                raise OutcomeUnknown(self.id, reason.message or "the coordinator does not know it yet")
