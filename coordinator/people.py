"""What a person may settle by hand, and clear (rule 12)."""

from __future__ import annotations

from collections.abc import Collection

from coordinator.attempts import Attempts
from coordinator.events import (
    Cleared,
    Heuristic,
    Refusal,
    Reply,
    ResolveAsked,
)
from coordinator.protocol import Input, State
from coordinator.tables import Attempt
from troth.reasons import reason
from troth.v1.types_pb2 import Code
from troth.words import AttemptId, Outcome


class People(Attempts):
    """Heuristic outcomes at the coordinator: never one that contradicts a known decision."""

    def _resolve_asked(self, event: ResolveAsked) -> None:
        if event.outcome is None:
            self._clear(event)
            return
        found = [a for a in self.attempts.values() if a.id == event.id and event.participant in _open_at(a)]
        if found and found[0].state is State.COMMITTING:
            self._resolve_owed(found[0], event)
        elif found:
            self._resolve_alone(found[0], event)
        else:
            text = f"nothing of {event.id} waits for {event.participant} at the coordinator"
            self._out.append(Reply(event.client, Refusal(text)))

    def _resolve_owed(self, attempt: Attempt, event: ResolveAsked) -> None:
        if event.outcome is not Outcome.COMMITTED:
            text = f"{event.id} is COMMITTED: resolving {event.participant} as ABORTED contradicts the decision"
            self._out.append(Reply(event.client, Refusal(text)))
            return
        record = Heuristic(attempt.number, event.participant, Outcome.COMMITTED, event.reason, self._now.wall)

        def settled() -> None:
            self._settle_owed(attempt, event.participant)
            self._out.append(
                Reply(event.client, f"{event.participant} no longer owes {event.id}; the record is kept until cleared")
            )

        self._keep_heuristic(record, settled, counted=False)

    def _resolve_alone(self, attempt: Attempt, event: ResolveAsked) -> None:
        part = attempt.parts[event.participant]
        lane = self.lanes[event.participant]
        if lane.open and lane.identity == part.identity:
            text = f"{event.participant} is connected and decides {event.id} itself (rule 13)"
            self._out.append(Reply(event.client, Refusal(text)))
            return
        assert event.outcome is not None
        record = Heuristic(attempt.number, event.participant, event.outcome, event.reason, self._now.wall)
        self._move(attempt, Input.RESOLVED)

        def settled() -> None:
            self._end_by_hand(attempt, record)
            self._out.append(
                Reply(event.client, f"{event.id} is {record.done.name} by hand; the record is kept until cleared")
            )

        self._keep_heuristic(record, settled, counted=False)

    def _end_by_hand(self, attempt: Attempt, record: Heuristic) -> None:
        """The one-phase attempt is what a durable record of a person says, now or when it is found at start."""
        if record.done is Outcome.COMMITTED:
            attempt.rows_lost = attempt.read
            self._committed_alone(attempt)
        else:
            assert attempt.submission is not None
            text = f"resolved by hand: {record.reason}"
            attempt.submission.reason = reason(Code.CODE_RESOLVED_BY_HAND, text, participant=record.participant)
            self._move(attempt, Input.FAILED_FOR_GOOD)

    def _clear(self, event: ResolveAsked) -> None:
        found = [h for h in self.heuristics if h.participant == event.participant and self._names(event.id, h.number)]
        if not found:
            self._out.append(
                Reply(event.client, Refusal(f"no heuristic record of {event.id} at {event.participant} is kept"))
            )
            return
        if any(each.number in self.attempts for each in found):
            # The record is what keeps the branch settled when the log is opened again.
            text = f"{event.id} is not ended yet; its heuristic record can be cleared once it is"
            self._out.append(Reply(event.client, Refusal(text)))
            return
        self.heuristics = [each for each in self.heuristics if each not in found]
        for each in found[:-1]:
            self._append(Cleared(each.number, each.participant, self._now.wall), forced=False, counted=False)
        last = Cleared(found[-1].number, found[-1].participant, self._now.wall)
        text = f"cleared the heuristic record of {event.id} at {event.participant}"
        self._append(last, forced=True, counted=False, then=lambda: self._out.append(Reply(event.client, text)))

    def _names(self, id: str, number: int) -> bool:
        done = self.done.get(id)
        return id == str(AttemptId(self.log, number)) or (done is not None and done.number == number)


def _open_at(attempt: Attempt) -> Collection[str]:
    """The participants that the attempt waits for and a person may speak for."""
    if attempt.state is State.COMMITTING:
        return attempt.owed
    return attempt.parts if attempt.state is State.DELEGATED else ()
