"""What the files leave open of an attempt that nothing contradicts, and why."""

from __future__ import annotations

from collections.abc import Iterator

from faults.auditor.case import NAMES, Case, Trace
from faults.auditor.claims import CLAIMED, COMMITTED, Decision
from faults.auditor.contradictions import applied_by, expired
from faults.auditor.findings import Finding


def doubts(case: Case) -> Iterator[Finding]:
    """One for each branch whose outcome is not known, or not known to be applied, where it must be."""
    for trace in case.traces.values():
        if trace.prepared:
            yield _prepared(case, trace)
        if trace.by_hand is not None and trace.by_hand.known is None:
            yield _by_hand(case, trace)
        if not trace.recorded and not case.below(trace.log):
            yield _without_record(case, trace)
    if case.decision is None:
        yield from _perhaps_expired(case)
    elif case.decision.state == CLAIMED:
        yield _claimed(case, case.decision)
    elif case.decision.state == COMMITTED and not case.decision.ended:
        yield from _owed(case, case.decision)


def _finding(case: Case, kind: str, rule: str, sentence: str, *files: object) -> Finding:
    return Finding(kind, rule, sentence, str(case.attempt), case.id, tuple(map(str, files)))


def _prepared(case: Case, trace: Trace) -> Finding:
    proved = case.outcomes()
    if proved:
        why = f"it is {NAMES[min(proved)]} by {case.proofs(min(proved))}, which has not been heard there"
    elif case.authority is not None:
        why = f"{case.authority.file} holds no decision, so it will answer ABORTED (presumed abort)"
    else:
        why = f"the log of its coordinator ({case.attempt.log}) is not among the files"
    there = f" ({trace.says()})" if trace.log.copied is not None else ""
    return _finding(case, "prepared", "rule 6", f"{case.name} is prepared at {trace.file}{there}: {why}", trace.file)


def _without_record(case: Case, trace: Trace) -> Finding:
    text = (
        f"{case.name} is {trace.says()}, and {trace.file} does not know it: its process died in between, and takes it "
        "up at its next start"
    )
    return _finding(case, "no-record", "rule 6", text, trace.file)


def _by_hand(case: Case, trace: Trace) -> Finding:
    text = f"{case.name} at {trace.file}: {trace.says()}"
    return _finding(case, "by-hand", "rule 12", text, trace.file)


def _claimed(case: Case, decision: Decision) -> Finding:
    names = ", ".join(branch.participant for branch in case.updating)
    did = [trace for trace in case.traces.values() if trace.did]
    why = f"{did[0].file} says {did[0].says()}" if did else f"only {names} can say"
    text = f"{case.name} is one-phase and not answered in {decision.log.file}: {why}"
    return _finding(case, "one-phase", "rule 13", text, decision.log.file)


def _owed(case: Case, decision: Decision) -> Iterator[Finding]:
    for branch in case.updating:
        if branch.identity not in case.logs.by_identity and not case.by_hand(branch.participant):
            text = (
                f"{case.name} is COMMITTED by {decision.log.file} and not acknowledged by all, and the file of "
                f"{branch.participant} ({branch.identity}) is not here to say whether it has applied it"
            )
            yield _finding(case, "owed", "rule 5", text, decision.log.file)


def _perhaps_expired(case: Case) -> Iterator[Finding]:
    own = case.authority
    if own is None or len(applied_by(case)) < 2 or case.by_hand() or expired(case) is not None:
        return
    files = ", ".join(str(trace.file) for trace in case.traces.values() if trace.did)
    text = (
        f"{case.name} is COMMITTED at {files} and {own.file} holds no decision: it was removed, or its id was old "
        "already when it ran and has expired"
    )
    yield _finding(case, "no-decision", "rule 11", text, own.file)
