"""What all files together say of one attempt, and whether any two of them contradict.

Each check is a method named for what it looks for. Legal states are told from damage by what the engine makes durable
before what: a YES is on disk before the decision, the decision before any apply, the apply before the acknowledgement,
all acknowledgements before the end, the end before the mark passes a one-phase attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from faults.auditor.claims import (
    ABORTED,
    BEFORE_RESTORE,
    CLAIMED,
    COMMITTED,
    Applied,
    Branch,
    ByHand,
    Claim,
    Coordinator,
    Decision,
    Finished,
    Participant,
    Prepared,
)
from faults.auditor.findings import Audit, Finding
from troth.words import AttemptId

ID_AGE_S = 86_400.0
"""An id older than this when it first runs is unusual: a decision that is gone although its attempt ran so much later
than the horizon has hardly expired."""

NAMES = {CLAIMED: "PENDING", COMMITTED: "COMMITTED", ABORTED: "ABORTED"}


class Trace:
    """What one participant's file holds of an attempt."""

    __slots__ = ("applied", "by_hand", "finished", "log", "prepared")

    def __init__(self, log: Participant) -> None:
        self.log = log
        self.prepared = False
        self.finished: int | None = None
        self.by_hand: ByHand | None = None
        self.applied: list[Applied] = []

    @property
    def did(self) -> bool:
        """The branch is in the data, and not by a person's word."""
        return self.by_hand is None and (self.finished == COMMITTED or bool(self.applied))

    @property
    def applied_at(self) -> float | None:
        return self.applied[0].at if self.applied else None

    @property
    def proves(self) -> set[int]:
        """The outcomes that this file alone proves."""
        if self.by_hand is not None:
            return {self.by_hand.known} if self.by_hand.known is not None else set()
        found = {self.finished} if self.finished is not None else set()
        return found | {COMMITTED} if self.applied else found

    def says(self) -> str:
        words = ["prepared"] if self.prepared else []
        if self.finished is not None:
            words.append(f"finished {NAMES.get(self.finished, self.finished)}")
        if self.by_hand is not None:
            known = self.by_hand.known
            learned = "does not know the true outcome" if known is None else f"knows that it is {NAMES.get(known)}"
            words.append(f"resolved by hand as {NAMES.get(self.by_hand.done)} and {learned}")
        if self.applied:
            times = "" if len(self.applied) == 1 else f" {len(self.applied)} times"
            words.append(f"in the history{times}")
        return ", ".join(words)


class Verdict(NamedTuple):
    """One attempt."""

    attempt: AttemptId
    id: str
    outcome: str
    """COMMITTED, ABORTED, PENDING (one-phase, not answered), UNKNOWN, or CONTRADICTORY."""
    says: tuple[tuple[str, str], ...]
    """Each file that says something, and what."""


class Court:
    """Judges attempt after attempt; findings go to the audit."""

    def __init__(self, audit: Audit, coordinators: Sequence[Coordinator], participants: Sequence[Participant]) -> None:
        self.audit = audit
        self.participants = participants
        self.coordinators: Mapping[str, Coordinator] = {each.file.identity: each for each in coordinators}
        """By present identity: only such a log is the authority about its attempts."""
        self.by_identity: dict[str, Participant] = {}
        for each in participants:
            for identity in each.file.identities:
                self.by_identity.setdefault(identity, each)
        for each in participants:
            self.by_identity[each.file.identity] = each

    def judge(self, log: str, number: int, claims: Iterable[Claim]) -> Verdict:
        case = Case(self, AttemptId(log, number), claims)
        contradictions = case.contradictions()
        for finding in contradictions:
            self.audit.contradict(finding)
        outcome = "CONTRADICTORY" if contradictions else case.outcome()
        self.audit.outcomes[outcome] += 1
        if not contradictions:
            for finding in case.doubts():
                self.audit.doubt(finding)
        return Verdict(case.attempt, case.id, outcome, case.says() if self.wants_says else ())

    wants_says = False
    """Whether verdicts are to carry what each file says."""


class Case:
    """One attempt with all that is claimed about it."""

    def __init__(self, court: Court, attempt: AttemptId, claims: Iterable[Claim]) -> None:
        self.court = court
        self.attempt = attempt
        self.authority = court.coordinators.get(attempt.log)
        self.decisions: list[Decision] = []
        self.traces: dict[Participant, Trace] = {}
        for claim in claims:
            if isinstance(claim, Decision):
                self.decisions.append(claim)
            else:
                self._trace(claim)
        self.decision = self._own_decision()
        self.id = (self.decision.id if self.decision else None) or ""
        self.found: list[Finding] = []

    def _trace(self, claim: Prepared | Finished | ByHand | Applied) -> None:
        trace = self.traces.get(claim.log)
        if trace is None:
            trace = self.traces[claim.log] = Trace(claim.log)
        if isinstance(claim, Finished):
            trace.finished = claim.outcome
        elif isinstance(claim, Applied):
            trace.applied.append(claim)
        elif isinstance(claim, Prepared):
            trace.prepared = True
        else:
            trace.by_hand = claim

    def _own_decision(self) -> Decision | None:
        """The authority's row; of a log that is not given, a copy that was restored still knows what it held."""
        own = [each for each in self.decisions if each.log is self.authority]
        return own[0] if own else next(iter(self.decisions), None)

    # What each says.

    @property
    def name(self) -> str:
        return f"{self.attempt} ({self.id})" if self.id else str(self.attempt)

    def says(self) -> tuple[tuple[str, str], ...]:
        found = [(str(each.log.file), self._decision_says(each)) for each in self.decisions]
        if self.authority is not None and self.decision is None:
            found.append((str(self.authority.file), "holds nothing"))
        found += [(str(trace.log.file), trace.says()) for trace in self.traces.values()]
        for branch in self._updating():
            log = self.court.by_identity.get(branch.identity)
            if log is not None and log not in self.traces:
                below = log.below(*self.attempt)
                found.append((str(log.file), "forgotten below its mark" if below else "no trace"))
        return tuple(found)

    def _decision_says(self, decision: Decision) -> str:
        if decision.state == COMMITTED:
            return "COMMITTED, ended" if decision.ended else "COMMITTED, acknowledgements outstanding"
        return "one-phase, not answered" if decision.state == CLAIMED else str(NAMES.get(decision.state))

    def _proofs(self) -> dict[int, list[str]]:
        """Who proves which outcome."""
        proofs: dict[int, list[str]] = {}
        for decision in self.decisions:
            if decision.state != CLAIMED:
                said = f"{decision.log.file} ({self._decision_says(decision)})"
                proofs.setdefault(decision.state, []).append(said)
        for trace in self.traces.values():
            for outcome in trace.proves:
                proofs.setdefault(outcome, []).append(f"{trace.log.file} ({trace.says()})")
        return proofs

    def _updating(self) -> list[Branch]:
        if self.decision is None or self.decision.branches is None:
            return []
        return [branch for branch in self.decision.branches if branch.updating]

    def outcome(self) -> str:
        proofs = self._proofs()
        for outcome in (COMMITTED, ABORTED):
            if outcome in proofs:
                return NAMES[outcome]
        if self.decision is not None:
            return NAMES[CLAIMED]
        return "ABORTED" if self.authority is not None else "UNKNOWN"

    # Contradictions.

    def contradictions(self) -> list[Finding]:
        for trace in self.traces.values():
            self._two_states(trace)
        self._damaged_records()
        self._not_issued()
        self._torn()
        if self.decision is None:
            self._no_decision()
        elif self.decision.state == COMMITTED:
            self._commit_kept()
        elif self.decision.state == CLAIMED:
            self._claim_kept()
        self._torn_by_hand()
        return self.found

    def _contradict(self, kind: str, rule: str, sentence: str, *files: object) -> None:
        self.found.append(Finding(kind, rule, sentence, str(self.attempt), self.id, tuple(map(str, files))))

    def _two_states(self, trace: Trace) -> None:
        """One file says two things that it never holds at once: they change in one local transaction."""
        file = trace.log.file
        if len(trace.applied) > 1:
            places = ", ".join(str(each.position) for each in trace.applied)
            text = f"{self.name} was applied twice at {file}: its history has it at {places}"
            self._contradict("applied-twice", "rule 11", text, file)
        both = trace.prepared and (trace.finished is not None or trace.by_hand is not None or trace.applied)
        undone = trace.applied and (trace.finished == ABORTED or (trace.by_hand and trace.by_hand.done == ABORTED))
        mixed = trace.finished is not None and trace.by_hand is not None
        if both or undone or mixed:
            self._contradict("two-states", "rule 6", f"{file} holds {self.name} as {trace.says()} at once", file)
        committed = trace.finished == COMMITTED and not trace.prepared
        if committed and not trace.applied and trace.log.history_from == 0:
            text = f"{file} has finished {self.name} as COMMITTED, and its history, whole otherwise, does not have it"
            self._contradict("history-gap", "durability", text, file)
        lost = trace.applied and trace.finished is None and trace.by_hand is None and not trace.prepared
        if lost and not trace.log.below(*self.attempt):
            text = f"{file} has applied {self.name}, which is above its mark, and holds no record of the outcome"
            self._contradict("outcome-removed", "rule 7", text, file)

    def _damaged_records(self) -> None:
        for decision in self.decisions:
            if decision.branches is None or decision.state not in NAMES:
                text = f"{decision.log.file}: the record of {self.name} cannot be read (its state is {decision.state})"
                self._contradict("damaged-record", "durability", text, decision.log.file)
        for trace in self.traces.values():
            values = [trace.finished, *([trace.by_hand.done, trace.by_hand.known] if trace.by_hand else [])]
            wrong = [value for value in values if value not in (None, COMMITTED, ABORTED)]
            if wrong:
                text = f"{trace.log.file}: the record of {self.name} says outcome {wrong[0]}, which there is not"
                self._contradict("damaged-record", "durability", text, trace.log.file)

    def _not_issued(self) -> None:
        if self.authority is not None and self.traces and not self.authority.issued(self.attempt.number):
            own, files = self.authority, [str(trace.log.file) for trace in self.traces.values()]
            text = (
                f"{', '.join(files)} {'has' if len(files) == 1 else 'have'} {self.name}, and {own.file} has issued "
                f"nothing beyond epoch {own.epoch}: it is an older copy, or of another cluster"
            )
            self._contradict("not-issued", "rule 7", text, own.file, *files)

    def _torn(self) -> None:
        proofs = self._proofs()
        if COMMITTED in proofs and ABORTED in proofs:
            committed, aborted = " and ".join(proofs[COMMITTED]), " and ".join(proofs[ABORTED])
            text = f"{self.name} is COMMITTED by {committed}, and ABORTED by {aborted}"
            files = [*(each.log.file for each in self.decisions), *(trace.log.file for trace in self.traces.values())]
            self._contradict("torn", "rule 2", text, *files)

    def _torn_by_hand(self) -> None:
        for trace in self.traces.values():
            hand = trace.by_hand
            if hand is None or self.found:
                continue
            true = hand.known if hand.known is not None else self._true_outcome()
            if true is not None and true != hand.done and not self._settled(trace.log.file.name):
                text = (
                    f"{self.name} is {NAMES[true]}, and a person resolved its branch at {trace.log.file} as "
                    f"{NAMES[hand.done]}: torn by hand"
                )
                self._contradict("torn-by-hand", "rule 12", text, trace.log.file)

    def _true_outcome(self) -> int | None:
        """As far as anybody proves it; presumed abort when the log that must hold a commit does not."""
        proofs = self._proofs()
        if proofs:
            return next(iter(proofs))
        known = self.authority is not None and self.decision is None and not self._by_hand_at_coordinator()
        return ABORTED if known else None

    def _settled(self, participant: str) -> bool:
        """A person has dealt with the consequences and cleared the record (`troth clear`)."""
        return self.authority is not None and (str(self.attempt), participant) in self.authority.cleared

    def _by_hand_at_coordinator(self, participant: str | None = None) -> bool:
        if self.decision is None and self.authority is None:
            return False
        log = self.decision.log if self.decision is not None else self.authority
        assert log is not None
        if participant is not None:
            return (str(self.attempt), participant) in log.by_hand
        return any(attempt == str(self.attempt) for attempt, _ in log.by_hand)

    def _no_decision(self) -> None:
        """Something was applied for which two participants were needed, so there was a decision; where is it?

        What only one participant has applied may be a one-phase commit of an assigned id, of which the coordinator
        keeps nothing; and outcomes expire once they are ended."""
        own = self.authority
        did = [trace for trace in self.traces.values() if trace.did]
        families = {trace.log.file.identities[0] for trace in did}
        if own is None or not did or self._by_hand_at_coordinator():
            return
        files = ", ".join(str(trace.log.file) for trace in did)
        waiting = [t.log for t in self.traces.values() if t.prepared and not t.log.file.restored]
        if waiting:
            text = (
                f"{self.name} is COMMITTED at {files} and prepared at {waiting[0].file}, so its decision cannot have "
                f"ended or expired, and {own.file} holds none"
            )
        elif len(families) > 1 and self._expired(did) is False:
            text = f"{self.name} is COMMITTED at {files}, and {own.file} holds no decision, which has not expired"
        else:
            return
        self._contradict("no-decision", "rule 2", text, own.file, *(trace.log.file for trace in did))

    def _expired(self, did: Sequence[Trace]) -> bool | None:
        """Whether the decision may have expired; None when that cannot be told: the id may have been old when it ran.
        Dropped was only what is of an id with a time below the horizon, or ended below it."""
        assert self.authority is not None
        horizon, made = self.authority.horizon, self.authority.file.created_at
        times = [at for at in (trace.applied_at for trace in did) if at is not None]
        if horizon <= made - ID_AGE_S:
            return False
        if times and max(times) <= horizon + ID_AGE_S:
            return True
        return None

    def _commit_kept(self) -> None:
        """COMMITTED: every updating participant has voted YES durably, and has applied before it acknowledged."""
        decision = self.decision
        assert decision is not None
        if decision.branches is None:
            return
        named = {branch.identity.removesuffix(BEFORE_RESTORE) for branch in self._updating()}
        for trace in self.traces.values():
            if trace.finished != ABORTED and not named & set(trace.log.file.identities):
                text = (
                    f"{trace.log.file} holds {self.name} as {trace.says()}, and the decision in {decision.log.file} "
                    f"does not name this file"
                )
                self._contradict("not-named", "rule 2", text, decision.log.file, trace.log.file)
        for branch in self._updating():
            log = self.court.by_identity.get(branch.identity)
            if log is None or self._by_hand_at_coordinator(branch.participant):
                continue
            own = self.traces.get(log)
            if own is None:
                self._lost(decision, branch, log)
            elif own.prepared and log.file.identity == branch.identity:
                self._prepared_too_long(decision, log)

    def _lost(self, decision: Decision, branch: Branch, log: Participant) -> None:
        whole = log.history_from == 0
        if log.below(*self.attempt) and not whole:
            return
        did = "has acknowledged it" if decision.ended else "had voted YES"
        copy = "" if branch.identity == log.file.identity else ", and was restored from a copy since"
        where = "its history, which it has kept from its first day" if whole else "it, nor has its mark passed"
        text = (
            f"{self.name} is COMMITTED by {decision.log.file}; {branch.participant} {did}{copy}, and there is nothing "
            f"of it in {log.file if not whole else f'{log.file}: not in {where}'}"
        )
        if not whole:
            text += ", whose mark has not passed it"
        self._contradict("lost", "rule 2", text, decision.log.file, log.file)

    def _prepared_too_long(self, decision: Decision, log: Participant) -> None:
        if decision.ended:
            text = f"{self.name} is COMMITTED and ended by {decision.log.file}, and {log.file} is still prepared"
            self._contradict("ended-early", "rule 5", text, decision.log.file, log.file)
        elif passed := self._passed():
            text = (
                f"{self.name} is COMMITTED by {decision.log.file} and still prepared at {log.file}, and the mark in "
                f"{passed.file} has passed it"
            )
            self._contradict("mark-early", "rule 7", text, decision.log.file, log.file, passed.file)

    def _passed(self) -> Participant | None:
        """A participant whose mark has passed the attempt."""
        return next((log for log in self.court.participants if log.below(*self.attempt)), None)

    def _claim_kept(self) -> None:
        """One-phase: one participant, never prepared, and the mark waits for its outcome."""
        decision = self.decision
        assert decision is not None
        if decision.log is not self.authority:
            return
        passed = self._passed()
        if passed is not None:
            text = f"{self.name} is one-phase and open in {decision.log.file}; the mark in {passed.file} has passed it"
            self._contradict("mark-early", "rule 7", text, decision.log.file, passed.file)
        named = {branch.identity.removesuffix(BEFORE_RESTORE) for branch in self._updating()}
        for trace in self.traces.values():
            if not named & set(trace.log.file.identities):
                text = f"{self.name} was sent to one participant only, and {trace.log.file} holds it as {trace.says()}"
                self._contradict("not-named", "rule 13", text, decision.log.file, trace.log.file)
            elif trace.prepared:
                text = f"{self.name} is one-phase in {decision.log.file}, and {trace.log.file} has it prepared"
                self._contradict("two-states", "rule 13", text, decision.log.file, trace.log.file)

    # Doubt.

    def doubts(self) -> list[Finding]:
        found = [self._doubt_prepared(trace) for trace in self.traces.values() if trace.prepared]
        found += [self._doubt_by_hand(t) for t in self.traces.values() if t.by_hand and t.by_hand.known is None]
        decision = self.decision
        if decision is not None and decision.state == CLAIMED:
            found.append(self._doubt_claimed(decision))
        if decision is not None and decision.state == COMMITTED and not decision.ended:
            found += self._doubt_owed(decision)
        if decision is None and self.authority is not None:
            found += self._doubt_expired()
        return found

    def _doubt(self, kind: str, rule: str, sentence: str, *files: object) -> Finding:
        return Finding(kind, rule, sentence, str(self.attempt), self.id, tuple(map(str, files)))

    def _doubt_prepared(self, trace: Trace) -> Finding:
        start = f"{self.name} is prepared at {trace.log.file}"
        proofs = self._proofs()
        if proofs:
            outcome = next(iter(proofs))
            why = f"it is {NAMES[outcome]} by {' and '.join(proofs[outcome])}, which has not been heard there"
        elif self.authority is not None:
            why = f"{self.authority.file} holds no decision, so it will answer ABORTED (presumed abort)"
        else:
            why = f"the log of its coordinator ({self.attempt.log}) is not among the files"
        return self._doubt("prepared", "rule 6", f"{start}: {why}", trace.log.file)

    def _doubt_by_hand(self, trace: Trace) -> Finding:
        assert trace.by_hand is not None
        text = (
            f"{self.name} was resolved by hand as {NAMES[trace.by_hand.done]} at {trace.log.file}, which has not heard "
            "the true outcome"
        )
        return self._doubt("by-hand", "rule 12", text, trace.log.file)

    def _doubt_claimed(self, decision: Decision) -> Finding:
        names = ", ".join(branch.participant for branch in self._updating())
        did = [trace for trace in self.traces.values() if trace.proves]
        why = f"{did[0].log.file} says {did[0].says()}" if did else f"only {names} can say"
        text = f"{self.name} is one-phase and not answered in {decision.log.file}: {why}"
        return self._doubt("one-phase", "rule 13", text, decision.log.file)

    def _doubt_owed(self, decision: Decision) -> list[Finding]:
        found = []
        for branch in self._updating():
            if branch.identity not in self.court.by_identity and not self._by_hand_at_coordinator(branch.participant):
                text = (
                    f"{self.name} is COMMITTED by {decision.log.file} and not acknowledged by all, and the file of "
                    f"{branch.participant} ({branch.identity}) is not here to say whether it has applied it"
                )
                found.append(self._doubt("owed", "rule 5", text, decision.log.file))
        return found

    def _doubt_expired(self) -> list[Finding]:
        did = [trace for trace in self.traces.values() if trace.did]
        if len({trace.log.file.identities[0] for trace in did}) < 2 or self._expired(did) is not None:
            return []
        assert self.authority is not None
        files = ", ".join(str(trace.log.file) for trace in did)
        text = (
            f"{self.name} is COMMITTED at {files} and {self.authority.file} holds no decision: it was removed, or its "
            "id was old already when it ran and has expired"
        )
        return [self._doubt("no-decision", "rule 11", text, self.authority.file)]
