"""The one shallow tree of errors, for clients and processes alike.

Three kinds: you did wrong (`BadInput`, `Refused`, `Contradiction`), the other side did wrong or is not there
(`ServerError`, `Unreachable`), and not known yet (`OutcomeUnknown`). `Aborted` is none of these: the transaction was
run, and ended with nothing changed. Errors of a log file are in `troth.log`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from troth.client.results import Result
    from troth.v1.types_pb2 import Reason


class TrothError(Exception):
    """Everything that Troth raises on purpose."""


class BadInput(TrothError):
    """What was handed in is malformed; nothing was sent."""


class Contradiction(TrothError):
    """A person's command would contradict what is known; nothing was changed."""


class ServerError(TrothError):
    """The process that was asked answered with a failure of its own. Never of a submission: one that fails so is
    `OutcomeUnknown`."""


class Unreachable(ServerError):
    """No connection to that address could be made: this call changed nothing there."""


class Aborted(TrothError):
    """The transaction ended with nothing changed, for good: trying again takes a new id (rule 11).

    `reason.retryable` says whether the same work may succeed later."""

    def __init__(self, reason: Reason, id: str, result: Result) -> None:
        super().__init__(f"{id} is ABORTED: {reason.message or 'no reason was given'}")
        self.reason = reason
        self.id = id
        self.result = result


class Refused(TrothError):
    """The submission was not run. That says nothing about the id, and left nothing behind (rule 10)."""

    def __init__(self, reason: Reason, id: str, result: Result) -> None:
        super().__init__(f"{id} is REFUSED: {reason.message or 'no reason was given'}")
        self.reason = reason
        self.id = id
        self.result = result


class OutcomeUnknown(TrothError):
    """Committed or aborted, it is not known here; submitting again with the same id gives the truth (rule 10).

    `sent` is False when this submission certainly did not leave. Even then an earlier one with the same id may have
    run."""

    def __init__(self, id: str, why: str, *, sent: bool = True) -> None:
        super().__init__(f"the outcome of {id} is not known: {why}")
        self.id = id
        self.why = why
        self.sent = sent
