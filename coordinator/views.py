"""What people may see of a coordinator: read-only pictures of its node, as the messages of the query service."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from coordinator.events import Heuristic
from coordinator.protocol import State
from troth.v1 import coordinator_pb2, types_pb2
from troth.words import AttemptId, Now, Outcome

if TYPE_CHECKING:
    from coordinator.tables import Attempt, Lane, Open

_STATES = {
    Outcome.COMMITTED: coordinator_pb2.STATE_COMMITTED,
    Outcome.ABORTED: coordinator_pb2.STATE_ABORTED,
    Outcome.REFUSED: coordinator_pb2.STATE_REFUSED,
}


class Load(NamedTuple):
    """How much a coordinator carries, and what it did in this incarnation."""

    in_flight: int
    unresolved: int
    oldest_s: float
    committed: int
    aborted: int
    refused: int


@dataclass(slots=True)
class Done:
    """A transaction lately finished, as memory keeps it."""

    id: str
    outcome: Outcome
    reason: types_pb2.Reason | None
    number: int
    participants: tuple[str, ...]
    submitted_at: float
    ended_at: float
    """Wall seconds; 0 while acknowledgements are missing."""
    steps: list[tuple[float, str, str]]

    def end(self, at: float) -> None:
        """Its last acknowledgement is in."""
        self.steps.append((at, "everybody has applied", ""))
        self.ended_at = at


class Views:
    """The accessors of `Coordinator`; nothing here changes it."""

    log: str
    lanes: dict[str, Lane]
    submissions: dict[str, Open]
    attempts: dict[int, Attempt]
    done: OrderedDict[str, Done]
    heuristics: list[Heuristic]
    committed: int
    aborted: int
    refused: int

    def load(self, now: Now) -> Load:
        """Counts over all transactions."""
        unresolved = sum(a.state in (State.COMMITTING, State.DELEGATED) for a in self.attempts.values())
        oldest = min((sub.since for sub in self.submissions.values()), default=now.mono)
        return Load(len(self.submissions), unresolved, now.mono - oldest, self.committed, self.aborted, self.refused)

    def describe(self, id: str, now: Now, *, steps: bool = True) -> coordinator_pb2.Transaction | None:
        """What memory knows of an id: open, or lately finished. None when only the log can tell."""
        sub = self.submissions.get(id)
        if sub is not None:
            return self._describe_open(sub, steps)
        done = self.done.get(id)
        return None if done is None else self._describe_done(done, steps)

    def listing(self, limit: int, in_flight: bool, now: Now) -> list[coordinator_pb2.Transaction]:
        """Newest first, without steps."""
        found = [self._describe_open(sub, False) for sub in list(self.submissions.values())[::-1][:limit]]
        if not in_flight:
            done = [self.done[id] for id in list(self.done)[::-1][: limit - len(found)]]
            found += [self._describe_done(each, False) for each in done]
        return found

    def unresolved(self, now: Now) -> list[coordinator_pb2.Unresolved]:
        """What waits for a participant or a person, oldest first."""
        found = []
        for attempt in sorted(self.attempts.values(), key=lambda a: (a.since, a.number)):
            if attempt.state is State.COMMITTING:
                found += [
                    self._unresolved(attempt, name, identity, "owed commit", now)
                    for name, identity in attempt.owed.items()
                ]
            elif attempt.state is State.DELEGATED:
                found += [
                    self._unresolved(attempt, n, part.identity, "one-phase", now) for n, part in attempt.parts.items()
                ]
        for heuristic in self.heuristics:
            attempt_id = AttemptId(self.log, heuristic.number)
            found.append(
                coordinator_pb2.Unresolved(
                    id=str(attempt_id),
                    attempt=types_pb2.Attempt(log=self.log, number=heuristic.number),
                    participant=heuristic.participant,
                    age_s=now.wall - heuristic.at,
                    kind="heuristic",
                    why=f"resolved by hand as {heuristic.done.name}{_tears(heuristic)}; kept until cleared",
                )
            )
        return found

    def _unresolved(
        self, attempt: Attempt, name: str, identity: str, kind: str, now: Now
    ) -> coordinator_pb2.Unresolved:
        lane = self.lanes[name]
        if not lane.open:
            why = f"{name} cannot be reached: {lane.why}"
        elif lane.identity != identity:
            why = f"only file {identity} can answer, and {name} is file {lane.identity} now"
        else:
            why = f"waits for {name}"
        return coordinator_pb2.Unresolved(
            id=attempt.id,
            attempt=types_pb2.Attempt(log=self.log, number=attempt.number),
            participant=name,
            age_s=now.mono - attempt.since,
            kind=kind,
            why=why,
        )

    def _describe_open(self, sub: Open, steps: bool) -> coordinator_pb2.Transaction:
        attempt = sub.attempt
        found = coordinator_pb2.Transaction(
            id=sub.id,
            state=coordinator_pb2.STATE_PENDING,
            reason=sub.reason,
            participants=[branch.participant for branch in sub.branches],
            submitted_at=sub.submitted_at,
            steps=_steps(sub.steps) if steps else (),
        )
        if attempt is not None:
            found.attempt.CopyFrom(types_pb2.Attempt(log=self.log, number=attempt.number))
            found.waiting_for.extend(name for name, part in attempt.parts.items() if part.vote is None)
        return found

    def _describe_done(self, done: Done, steps: bool) -> coordinator_pb2.Transaction:
        attempt = self.attempts.get(done.number)
        owed = list(attempt.owed) if attempt is not None else []
        return coordinator_pb2.Transaction(
            id=done.id,
            state=coordinator_pb2.STATE_COMMITTING if owed else _STATES[done.outcome],
            reason=done.reason,
            attempt=types_pb2.Attempt(log=self.log, number=done.number),
            participants=done.participants,
            waiting_for=owed,
            submitted_at=done.submitted_at,
            ended_at=done.ended_at,
            steps=_steps(done.steps) if steps else (),
            heuristics=[f"{h.participant}: {h.done.name}" for h in self.heuristics if h.number == done.number],
        )


def _tears(heuristic: Heuristic) -> str:
    """What a participant acknowledged (no reason of ours) was told COMMITTED: anything else tore the transaction."""
    torn = not heuristic.reason and heuristic.done is not Outcome.COMMITTED
    return ", and the decision is COMMITTED: torn" if torn else ""


def _steps(steps: list[tuple[float, str, str]]) -> list[types_pb2.Step]:
    return [types_pb2.Step(at=at, what=what, participant=participant) for at, what, participant in steps]
