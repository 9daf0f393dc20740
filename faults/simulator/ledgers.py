"""What is durable, as the checks know it: gathered from each record as it was flushed, apart from the files themselves.

No outcome is ever forgotten here, so a later one can be held against an earlier one.
"""

from __future__ import annotations

from typing import Any

import coordinator.events as ce
import participant.events as pe
from faults.simulator.model import Work, clash
from faults.simulator.violation import Violation, require
from participant.resources import Plan
from participant.resources.outside import Survey
from troth.words import AttemptId, Outcome


class VoteLedger:
    """Of one participant's file; attempts by number, as there is one coordinator log."""

    def __init__(self, name: str, identity: str, *, outside: bool = False) -> None:
        """`outside`: the data are at a server, which tells by itself what it has tried and applied."""
        self.name = name
        self.identity = identity
        self.outside = outside
        self.prepared: dict[int, pe.Try] = {}
        self.voted: set[int] = set()
        """Every attempt that ever had a prepared record."""
        self.outcomes: dict[int, Outcome] = {}
        """Every outcome ever remembered, heuristic ones not."""
        self.heuristics: dict[int, pe.Heuristic] = {}
        self.adopted: set[int] = set()
        """Prepared ones that only the server had: nobody here knows what they do."""
        self.applied: dict[int, int] = {}
        """Position of each applied attempt in the order applied to the data."""
        self.history: list[int] = []
        """The applied ones in the order in which the vote log has them."""
        self._new: list[int] = []
        self.tried: dict[int, int] = {}
        """How many were applied when the attempt was tried last, and so what it saw."""
        self.rows: dict[int, bytes] = {}
        """What the trial read."""
        self.judged: set[int] = set()
        """Attempts whose votes are counted: what a late prepare makes this file look at again is nobody's."""
        self.works: dict[int, Work] = {}
        """What each attempt does, as its author wrote it; told by `Watch` when it is sent."""

    def note(self, job: Any, result: Any) -> None:
        """A job that is durable now. Raises Violation when it contradicts an earlier one."""
        kind = type(job)
        if kind is pe.Try or kind is pe.RunAlone:
            if type(result) is pe.Tried:
                self._tried(job, result)
        elif kind is pe.Apply:
            number = job.attempt.number
            require(number in self.prepared, f"{self.name} applies {number}, which is not prepared")
            del self.prepared[number]
            self._ends(number, Outcome.COMMITTED)
            self._records(number)
        elif kind is pe.Undo:
            self.prepared.pop(job.attempt.number, None)
            self._ends(job.attempt.number, Outcome.ABORTED)
        elif kind is pe.Resolve:
            found = self.prepared.pop(job.attempt.number)
            if job.outcome is Outcome.COMMITTED:
                self._records(job.attempt.number)
            self.heuristics[job.attempt.number] = pe.Heuristic(job.attempt, job.outcome, None, job.at, found.peers)
        elif kind is pe.Learn:
            number = job.attempt.number
            self.heuristics[number] = self.heuristics[number]._replace(known=job.outcome)
        elif kind is pe.Contradict:
            number = job.attempt.number
            self.prepared.pop(number, None)
            if job.done is Outcome.COMMITTED:
                self._records(number)
            self.heuristics[number] = pe.Heuristic(job.attempt, job.done, job.known, job.at, ())

    def adopts(self, held: Survey, ended: set[int]) -> None:
        """A new process takes up what the server holds and no record says; not what the file remembers as `ended`, and
        only a crash of the server has brought back."""
        for attempt in sorted(held.prepared):
            if attempt.number not in (self.prepared.keys() | self.heuristics.keys() | ended):
                self._adopts(attempt)
        for attempt, operations in held.committed.items():
            number = attempt.number
            if number in self.outcomes or number in self.heuristics:
                continue
            if number not in self.history:
                self._records(number)
            if operations:
                self._ends(number, Outcome.COMMITTED)
            elif number not in self.prepared:
                self._adopts(attempt)

    def _adopts(self, attempt: AttemptId) -> None:
        self.adopted.add(attempt.number)
        self.prepared[attempt.number] = pe.Try(attempt, b"", Plan((), None, read_only=False), False, (), 0.0)

    def tries(self, number: int, rows: bytes) -> None:
        """The data let the branch pass now, and this is what it read."""
        if number not in self.judged:
            self.tried[number] = len(self.applied)
            self.rows[number] = rows

    def applies(self, number: int) -> None:
        """The data have it from now on."""
        require(number not in self.applied, f"{self.name} applies {number} twice")
        self.applied[number] = len(self.applied)
        self._new.append(number)

    def ended(self, number: int) -> bool:
        """Whether the branch is recorded as committed here, or as settled by a person."""
        return self.outcomes.get(number) is Outcome.COMMITTED or number in self.heuristics

    def _tried(self, job: Any, result: pe.Tried) -> None:
        number = job.attempt.number
        if not self.outside:
            self.tries(number, result.rows)
        if type(job) is pe.RunAlone:
            self._ends(number, Outcome.COMMITTED)
            self._records(number)
        elif not job.read_only:
            require(number not in self.outcomes, f"rule 8: {self.name} prepares {number}, which is ended there")
            self._exclude(number)
            self.prepared[number] = job
            self.voted.add(number)

    def _exclude(self, number: int) -> None:
        """No two prepared branches touch one row, unless both only look or both only add."""
        for other in self.prepared.keys() - self.adopted:
            slot = clash(self.works.get(number, ()), self.works.get(other, ()))
            require(slot is None, f"locks: {number} and {other} are both prepared at {self.name} on {slot}")

    def _ends(self, number: int, outcome: Outcome) -> None:
        before = self.outcomes.setdefault(number, outcome)
        if before is not outcome:
            raise Violation(f"stability: {number} was {before.name} at {self.name} and is {outcome.name} now")

    def _records(self, number: int) -> None:
        """The vote log's history has it from now on, unless it had it before."""
        if number not in self.history:
            self.history.append(number)
        if not self.outside:
            self.applies(number)

    def newly_applied(self) -> list[int]:
        """Those since the last call."""
        new, self._new = self._new, []
        return new


class DecisionLedger:
    """Of the coordinator's log."""

    def __init__(self) -> None:
        self.outcomes: dict[str | int, Outcome] = {}
        """Every outcome that was ever durable, by number and by client's id."""
        self.owed: dict[int, tuple[ce.Owed, ...]] = {}
        """Branches of every committed attempt that is not ended."""
        self.claims: dict[int, str] = {}
        """One-phase attempts that are open."""
        self.claimed: dict[int, str] = {}
        """The id of every one-phase attempt that ever was."""
        self.claimed_of: dict[str, list[int]] = {}
        """The same the other way."""
        self.heuristics: dict[tuple[int, str], ce.Heuristic] = {}
        """Kept ones, by attempt and participant."""
        self.by_hand: set[tuple[int, str]] = set()
        """Branches that a person settled at the coordinator, cleared or not."""
        self.recorded: set[tuple[int, str]] = set()
        """Every branch that a heuristic record was ever kept of."""
        self.horizon = 0.0

    def note(self, record: Any, result: Any) -> None:
        """A record that is durable now. Raises Violation when it contradicts an earlier one."""
        handler = _NOTES.get(type(record))
        if handler is not None:
            handler(self, record, result)

    def _commits(self, record: ce.Committed, _: Any) -> None:
        self._ends(record.number, record.id, Outcome.COMMITTED)
        if any(branch.updating for branch in record.branches):
            self.owed[record.number] = record.branches

    def _aborts(self, record: ce.Aborted, _: Any) -> None:
        for number in [number for number, id in self.claims.items() if id == record.id]:
            del self.claims[number]
        self._ends(record.number, record.id, Outcome.ABORTED)

    def _claims(self, record: ce.Claimed, _: Any) -> None:
        require(record.id not in self.claims.values(), f"rule 13: {record.id} is claimed twice")
        self.claims[record.number] = self.claimed[record.number] = record.id
        self.claimed_of.setdefault(record.id, []).append(record.number)

    def _settles(self, record: ce.Settled, _: Any) -> None:
        self._ends(record.number, self.claims.pop(record.number), Outcome.COMMITTED)

    def _drops(self, record: ce.Dropped, _: Any) -> None:
        del self.claims[record.number]

    def _ended(self, record: ce.Ended, _: Any) -> None:
        del self.owed[record.number]

    def _heuristic(self, record: ce.Heuristic, _: Any) -> None:
        key = record.number, record.participant
        self.heuristics[key] = record
        self.recorded.add(key)
        if record.reason:
            self.by_hand.add(key)

    def _clears(self, record: ce.Cleared, _: Any) -> None:
        self.heuristics.pop((record.number, record.participant), None)

    def _expires(self, record: ce.Expired, horizon: float) -> None:
        require(horizon >= self.horizon, f"rule 11: the horizon goes back from {self.horizon} to {horizon}")
        self.horizon = horizon

    def _ends(self, number: int, id: str | None, outcome: Outcome) -> None:
        for key in (number, id):
            if key is not None:
                before = self.outcomes.setdefault(key, outcome)
                if before is not outcome:
                    raise Violation(f"stability: {key} was {before.name} in the log and is {outcome.name} now")


_NOTES: dict[type, Any] = {
    ce.Committed: DecisionLedger._commits,
    ce.Aborted: DecisionLedger._aborts,
    ce.Claimed: DecisionLedger._claims,
    ce.Settled: DecisionLedger._settles,
    ce.Dropped: DecisionLedger._drops,
    ce.Ended: DecisionLedger._ended,
    ce.Heuristic: DecisionLedger._heuristic,
    ce.Cleared: DecisionLedger._clears,
    ce.Expired: DecisionLedger._expires,
}
