"""One attempt with everything that the files claim about it, and what that proves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from faults.auditor.claims import (
    ABORTED,
    CLAIMED,
    COMMITTED,
    Applied,
    Branch,
    ByHand,
    Claim,
    Coordinator,
    Decision,
    Finished,
    Held,
    Participant,
    Prepared,
)
from faults.auditor.files import File
from troth.words import AttemptId

NAMES = {CLAIMED: "PENDING", COMMITTED: "COMMITTED", ABORTED: "ABORTED"}


class Logs:
    """All logs of one audit."""

    def __init__(self, coordinators: Sequence[Coordinator], participants: Sequence[Participant]) -> None:
        self.coordinators, self.participants = coordinators, participants
        self.authorities = {log.file.identity: log for log in coordinators}
        """By present identity: only such a log must hold every decision that has not expired. One that was restored
        holds what its older self had decided by the time of the copy, and no more."""
        self.by_identity: dict[str, Participant] = {}
        """Participants by each identity that they had; the file itself wins over a restored copy of it."""
        for log in participants:
            for identity in log.file.identities:
                self.by_identity.setdefault(identity, log)
        self.by_identity.update((log.file.identity, log) for log in participants)

    def passed(self, attempt: AttemptId) -> Participant | None:
        """A participant whose mark has passed the attempt."""
        return next((log for log in self.participants if log.below(attempt.log, attempt.number)), None)


class Trace:
    """What one participant's file holds of an attempt."""

    __slots__ = ("applied", "by_hand", "finished", "held", "log", "prepared", "readable")

    def __init__(self, log: Participant) -> None:
        self.log = log
        self.prepared = False
        self.readable = True
        """Whether what is prepared can be."""
        self.finished: int | None = None
        self.by_hand: ByHand | None = None
        self.applied: list[Applied] = []
        self.held: Held | None = None
        """What the server has of it, where that was looked at."""

    def add(self, claim: Prepared | Finished | ByHand | Applied | Held) -> None:
        if isinstance(claim, Held):
            self.held = claim
        elif isinstance(claim, Applied):
            self.applied.append(claim)
        elif isinstance(claim, Finished):
            self.finished = claim.outcome
        elif isinstance(claim, Prepared):
            self.prepared, self.readable = True, claim.readable
        else:
            self.by_hand = claim

    @property
    def file(self) -> File:
        return self.log.file

    @property
    def recorded(self) -> bool:
        """Whether the file itself says anything."""
        return self.prepared or self.finished is not None or self.by_hand is not None or bool(self.applied)

    @property
    def committed_there(self) -> bool:
        return self.held is not None and self.held.committed

    @property
    def prepared_there(self) -> bool:
        return self.held is not None and not self.held.committed

    @property
    def did(self) -> bool:
        """The branch is in the data, and not by a person's word."""
        return self.by_hand is None and (self.finished == COMMITTED or bool(self.applied))

    def proves(self) -> Iterator[int]:
        """The outcomes that this file alone proves, with its server: one, unless it is damaged. A person's word proves
        nothing."""
        if self.by_hand is not None:
            if self.by_hand.known is not None:
                yield self.by_hand.known
            return
        if self.finished is not None:
            yield self.finished
        if (self.applied or self.committed_there) and self.finished != COMMITTED:
            yield COMMITTED

    def says(self) -> str:
        words = ["prepared"] if self.prepared else []
        if self.finished is not None:
            words.append(f"finished {NAMES.get(self.finished, self.finished)}")
        if self.by_hand is not None:
            done, known = NAMES.get(self.by_hand.done), self.by_hand.known
            learned = "has not heard the true outcome" if known is None else f"has heard {NAMES.get(known, known)}"
            words.append(f"resolved by hand as {done} and {learned}")
        if self.applied:
            words.append("in the history" if len(self.applied) == 1 else f"in the history {len(self.applied)} times")
        if self.held is not None:
            words.append(f"{'committed' if self.held.committed else 'prepared'} at its server, {self.log.copied}")
        elif self.prepared and self.log.copied is not None:
            words.append(f"not prepared at its server, {self.log.copied}")
        return ", ".join(words)


class Case:
    """One attempt."""

    __slots__ = ("attempt", "authority", "decision", "decisions", "logs", "traces")

    def __init__(self, logs: Logs, attempt: AttemptId, claims: Iterable[Claim]) -> None:
        self.logs = logs
        self.attempt = attempt
        self.authority: Coordinator | None = logs.authorities.get(attempt.log)
        self.decision: Decision | None = None
        """The authority's row, or what a restored copy of it knew."""
        self.decisions: list[Decision] = []
        self.traces: dict[Participant, Trace] = {}
        for claim in claims:
            if isinstance(claim, Decision):
                self.decisions.append(claim)
                if self.decision is None or claim.log is self.authority:
                    self.decision = claim
                continue
            trace = self.traces.get(claim.log)
            if trace is None:
                trace = self.traces[claim.log] = Trace(claim.log)
            trace.add(claim)

    @property
    def id(self) -> str:
        return (self.decision.id if self.decision is not None else None) or ""

    @property
    def name(self) -> str:
        return f"{self.attempt} ({self.id})" if self.id else str(self.attempt)

    @property
    def updating(self) -> tuple[Branch, ...]:
        """The branches that the decision requires to be applied."""
        decision = self.decision
        return () if decision is None or decision.branches is None else decision.branches.updating

    def named(self, trace: Trace) -> bool:
        """Whether the decision names this file, under any identity that it had."""
        decision = self.decision
        if decision is None or decision.branches is None:
            return False
        return not decision.branches.identities.isdisjoint(trace.file.identities)

    def below(self, log: Participant) -> bool:
        return log.below(self.attempt.log, self.attempt.number)

    def outcomes(self) -> set[int]:
        """What is proved: one outcome, or none, unless something is torn."""
        found = {decision.state for decision in self.decisions if decision.state != CLAIMED}
        for trace in self.traces.values():
            found.update(trace.proves())
        return found

    def proofs(self, outcome: int) -> str:
        """Who proves it, for people."""
        words = [f"{each.log.file} ({says(each)})" for each in self.decisions if each.state == outcome]
        words += [f"{trace.file} ({trace.says()})" for trace in self.traces.values() if outcome in trace.proves()]
        return " and ".join(words)

    def outcome(self) -> str:
        """COMMITTED, ABORTED (also by presumption), PENDING (one-phase and not answered), or UNKNOWN."""
        proved = self.outcomes()
        if proved:
            return NAMES.get(min(proved), "UNKNOWN")
        if self.decision is not None:
            return NAMES[CLAIMED]
        return NAMES[ABORTED] if self.authority is not None else "UNKNOWN"

    def by_hand(self, participant: str | None = None) -> bool:
        """Whether the coordinator's file says that a person settled the branch there (of any participant, by default),
        cleared records included."""
        log = self.authority if self.authority is not None else self.decision and self.decision.log
        if log is None or not log.by_hand:
            return False
        if participant is not None:
            return (self.attempt.number, participant) in log.by_hand
        return any(number == self.attempt.number for number, _ in log.by_hand)

    def cleared(self) -> bool:
        """Whether a person has dealt with the consequences (`troth clear`)."""
        log = self.authority
        return log is not None and any(number == self.attempt.number for number, _ in log.cleared)

    def says(self) -> tuple[tuple[str, str], ...]:
        """Each file that says something, and what."""
        found = [(str(each.log.file), says(each)) for each in self.decisions]
        if self.authority is not None and self.decision is None:
            found.append((str(self.authority.file), "holds nothing"))
        found += [(str(trace.file), trace.says()) for trace in self.traces.values()]
        for branch in self.updating:
            log = self.logs.by_identity.get(branch.identity)
            if log is not None and log not in self.traces:
                found.append((str(log.file), "forgotten below its mark" if self.below(log) else "no trace"))
        return tuple(found)


def says(decision: Decision) -> str:
    """What a row of a decision log says, for people."""
    if decision.state == COMMITTED:
        return "COMMITTED, ended" if decision.ended else "COMMITTED, acknowledgements outstanding"
    return "one-phase, not answered" if decision.state == CLAIMED else NAMES.get(decision.state, str(decision.state))
