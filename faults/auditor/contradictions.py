"""What no run of the protocol can leave behind: one check for each way, each a function of one attempt.

Legal states are told from damage by what the engine makes durable before what: a YES is on disk before the decision,
the decision before any apply, the apply before the acknowledgement, all acknowledgements before the end, the outcome of
a one-phase attempt before the mark passes it. What may be dropped proves nothing by its absence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from faults.auditor.case import NAMES, Case, Trace
from faults.auditor.claims import ABORTED, CLAIMED, COMMITTED, Branch, Decision, Participant
from faults.auditor.findings import Finding

ID_AGE_S = 86_400.0
"""An id older than this when it first runs is unusual: a decision that is gone although its attempt ran so much later
than the horizon has hardly expired."""


def contradictions(case: Case) -> list[Finding]:
    """All that is wrong with the attempt."""
    found = [finding for check in _CHECKS for finding in check(case)]
    return found or list(_torn_by_hand(case))


def _finding(case: Case, kind: str, rule: str, sentence: str, *files: object) -> Finding:
    return Finding(kind, rule, sentence, str(case.attempt), case.id, tuple(dict.fromkeys(map(str, files))))


def _two_states(case: Case) -> Iterator[Finding]:
    """One file says two things that it never holds at once: they change in one local transaction. But what a server was
    found to have committed is in the history, and prepared until the outcome is heard."""
    for trace in case.traces.values():
        ended, hand = trace.finished is not None, trace.by_hand
        applied = trace.applied and not (trace.log.kind and (trace.log.copied is None or trace.committed_there))
        both = trace.prepared and (ended or hand is not None or applied)
        undone = trace.applied and (trace.finished == ABORTED or (hand is not None and hand.done == ABORTED))
        if both or undone or (ended and hand is not None):
            text = f"{trace.file} holds {case.name} as {trace.says()} at once"
            yield _finding(case, "two-states", "rule 6", text, trace.file)


def _history(case: Case) -> Iterator[Finding]:
    """A branch is in a whole history exactly once when it was applied, and its outcome is remembered above the mark."""
    for trace in case.traces.values():
        if len(trace.applied) > 1:
            places = ", ".join(str(each.position) for each in trace.applied)
            text = f"{case.name} was applied twice at {trace.file}: its history has it at {places}"
            yield _finding(case, "applied-twice", "rule 11", text, trace.file)
        if not trace.applied:
            did = trace.finished == COMMITTED or (trace.by_hand is not None and trace.by_hand.done == COMMITTED)
            did |= trace.committed_there and case.below(trace.log)
            if did and trace.log.history_from == 0 and not trace.prepared:
                text = (
                    f"{trace.file} has {case.name} as {trace.says()}, and its history, kept from its first day, has not"
                )
                yield _finding(case, "history-gap", "durability", text, trace.file)
        elif trace.finished is None and trace.by_hand is None and not trace.prepared and not case.below(trace.log):
            text = f"{trace.file} has applied {case.name}, which is above its mark, and holds no record of the outcome"
            yield _finding(case, "outcome-removed", "rule 7", text, trace.file)


def _at_server(case: Case) -> Iterator[Finding]:
    """A participant's file and the server that has its data. A YES and a commit are the server's first and are written
    down here after it, and an abort too; it forgets no commit above the mark."""
    for trace in case.traces.values():
        if trace.log.copied is None:
            continue
        if not trace.recorded:
            yield from _without_record(case, trace)
        elif trace.prepared and trace.held is None and case.outcomes() == {COMMITTED}:
            text = (
                f"{case.name} is COMMITTED by {case.proofs(COMMITTED)}, and {trace.file} has it {trace.says()}: "
                "somebody rolled it back there"
            )
            yield _finding(case, "ended-at-server", "rule 12", text, trace.file)
        elif trace.prepared and trace.committed_there and case.decision is None and case.authority is not None:
            if case.outcomes() == {COMMITTED} and not case.by_hand():
                text = (
                    f"{trace.file} has {case.name} {trace.says()}, and {case.authority.file} holds no decision: "
                    "somebody committed it there"
                )
                yield _finding(case, "ended-at-server", "rule 12", text, trace.file)
        elif not trace.prepared:
            yield from _server_behind(case, trace)


def _server_behind(case: Case, trace: Trace) -> Iterator[Finding]:
    done = trace.by_hand.done if trace.by_hand is not None else trace.finished
    is_lost = done == COMMITTED and trace.held is None and not case.below(trace.log)
    if not is_lost and not trace.prepared_there and not (trace.by_hand and done == ABORTED and trace.committed_there):
        return
    text = (
        f"{trace.file} has {case.name} as {trace.says()}{', which its server does not remember' if is_lost else ''}: "
        f"{trace.log.copied} was put back from an older copy, or changed by hand"
    )
    yield _finding(case, "server-behind", "durability", text, trace.file)


def _without_record(case: Case, trace: Trace) -> Iterator[Finding]:
    """Legal is what the participant died in the middle of: prepared before its vote, or committed in one step."""
    assert trace.held is not None
    decided = case.decision is not None and case.decision.state == COMMITTED
    if trace.prepared_there and decided:
        text = f"{case.name} is COMMITTED, and {trace.file} holds no record of its vote; it is {trace.says()}"
        yield _finding(case, "lost", "rule 2", text, trace.file)
    elif trace.committed_there and not trace.held.alone and not case.below(trace.log):
        if case.decision is None and case.authority is not None and not case.by_hand():
            text = (
                f"{case.name} is {trace.says()}, {trace.file} holds no record of a vote for it, and "
                f"{case.authority.file} no decision: somebody committed it there"
            )
            yield _finding(case, "ended-at-server", "rule 12", text, trace.file)
            return
        text = f"{case.name} is {trace.says()}, was prepared before, and {trace.file} holds no record of it"
        yield _finding(case, "outcome-removed", "rule 7", text, trace.file)


def _damaged_records(case: Case) -> Iterator[Finding]:
    for decision in case.decisions:
        if decision.branches is None or decision.state not in NAMES:
            file = decision.log.file
            text = f"{file}: the record of {case.name} cannot be read (its state is {decision.state})"
            yield _finding(case, "damaged-record", "durability", text, file)
        elif (decision.state == CLAIMED and decision.ended) or (decision.state == ABORTED and not decision.ended):
            ended = "ended" if decision.ended else "not ended"
            text = f"{decision.log.file} holds {case.name} as {NAMES[decision.state]} and {ended}, which is no state"
            yield _finding(case, "damaged-record", "durability", text, decision.log.file)
    for trace in case.traces.values():
        if not trace.readable:
            text = f"{trace.file}: the prepared record of {case.name} cannot be read"
            yield _finding(case, "damaged-record", "durability", text, trace.file)
        hand = trace.by_hand
        for value in (trace.finished, *((hand.done, hand.known) if hand is not None else ())):
            if value not in (None, COMMITTED, ABORTED):
                text = f"{trace.file}: the record of {case.name} says outcome {value}, which there is not"
                yield _finding(case, "damaged-record", "durability", text, trace.file)


def _not_issued(case: Case) -> Iterator[Finding]:
    own = case.authority
    if own is None or not case.traces or own.issued(case.attempt.number):
        return
    files = [str(trace.file) for trace in case.traces.values()]
    text = (
        f"{', '.join(files)} {'has' if len(files) == 1 else 'have'} {case.name}, and {own.file} has issued nothing "
        f"beyond epoch {own.epoch}: it is an older copy, or of another cluster"
    )
    yield _finding(case, "not-issued", "rule 7", text, own.file, *files)


def _torn(case: Case) -> Iterator[Finding]:
    """Committed by one file's word and aborted by another's; a person may have said so for a participant that was
    given up and came back."""
    if case.outcomes() >= {COMMITTED, ABORTED} and not case.cleared():
        by_hand = case.by_hand()
        text = f"{case.name} is COMMITTED by {case.proofs(COMMITTED)}, and ABORTED by {case.proofs(ABORTED)}"
        files = [*(each.log.file for each in case.decisions), *(trace.file for trace in case.traces.values())]
        kind, rule = ("torn-by-hand", "rule 12") if by_hand else ("torn", "rule 2")
        yield _finding(case, kind, rule, f"{text}{': a person resolved it' if by_hand else ''}", *files)


def _no_decision(case: Case) -> Iterator[Finding]:
    """Something was applied for which two participants were needed, so there was a decision; where is it?

    What only one participant has applied may be a one-phase commit of an assigned id, of which the coordinator keeps
    nothing; and decisions expire once they are ended."""
    own = case.authority
    if own is None or case.decision is not None:
        return
    did = [trace for trace in case.traces.values() if trace.did]
    if not did or case.by_hand():
        return
    files = ", ".join(str(trace.file) for trace in did)
    waiting = [trace.file for trace in case.traces.values() if trace.prepared and not trace.file.restored]
    if waiting:
        text = (
            f"{case.name} is COMMITTED at {files} and prepared at {waiting[0]}, so its decision can be neither ended "
            f"nor expired, and {own.file} holds none"
        )
    elif len(applied_by(case)) > 1 and expired(case) is False:
        text = f"{case.name} is COMMITTED at {files}, and {own.file} holds no decision, which has not expired"
    else:
        return
    yield _finding(case, "no-decision", "rule 2", text, own.file, *(trace.file for trace in did), *waiting)


def applied_by(case: Case) -> set[str]:
    """The participants that have applied it; a file and its restored copy are one."""
    return {trace.file.identities[0] for trace in case.traces.values() if trace.did}


def expired(case: Case) -> bool | None:
    """Whether the decision may have expired; None when that cannot be told, for the id may have been old when it ran.
    Dropped is only what is of an id with a time below the horizon, or ended below it."""
    assert case.authority is not None
    horizon, made = case.authority.horizon, case.authority.file.created_at
    if horizon <= made - ID_AGE_S:
        return False
    times = [trace.applied[0].at for trace in case.traces.values() if trace.did and trace.applied]
    return True if times and max(times) <= horizon + ID_AGE_S else None


def _commit_kept(case: Case) -> Iterator[Finding]:
    """COMMITTED: every updating participant has voted YES durably, and applies before it acknowledges."""
    decision = case.decision
    if decision is None or decision.state != COMMITTED or decision.branches is None:
        return
    for trace in case.traces.values():
        if trace.finished != ABORTED and not case.named(trace):
            text = (
                f"{trace.file} holds {case.name} as {trace.says()}, and the decision in {decision.log.file} does not "
                "name this file"
            )
            yield _finding(case, "not-named", "rule 2", text, decision.log.file, trace.file)
    for branch in case.updating:
        log = case.logs.by_identity.get(branch.identity)
        if log is None or case.by_hand(branch.participant):
            continue
        own = case.traces.get(log)
        if own is None:
            yield from _lost(case, decision, branch, log)
        elif own.prepared and log.file.identity == branch.identity:
            yield from _prepared_too_long(case, decision, own)


def _lost(case: Case, decision: Decision, branch: Branch, log: Participant) -> Iterator[Finding]:
    if log.history_from == 0:
        where = f"the history in {log.file}, kept from its first day, does not have it"
    elif not case.below(log):
        where = f"{log.file} holds nothing of it, though its mark has not passed it"
    else:
        return
    did = "has acknowledged it" if decision.ended else "has voted YES"
    copy = "" if branch.identity == log.file.identity else f" ({log.file} was restored from a copy since)"
    text = f"{case.name} is COMMITTED by {decision.log.file}, {branch.participant} {did}, and {where}{copy}"
    yield _finding(case, "lost", "rule 2", text, decision.log.file, log.file)


def _prepared_too_long(case: Case, decision: Decision, trace: Trace) -> Iterator[Finding]:
    start = f"{case.name} is COMMITTED by {decision.log.file} and prepared at {trace.file}"
    if decision.ended:
        text = f"{start}, and the decision is ended as if {trace.file} had acknowledged it"
        yield _finding(case, "ended-early", "rule 5", text, decision.log.file, trace.file)
    elif passed := case.logs.passed(case.attempt):
        text = f"{start}, and the mark in {passed.file} has passed it"
        yield _finding(case, "mark-early", "rule 7", text, decision.log.file, trace.file, passed.file)


def _claim_kept(case: Case) -> Iterator[Finding]:
    """One-phase: one participant, never prepared, and the mark waits for its outcome."""
    decision = case.decision
    if decision is None or decision.state != CLAIMED or decision.log is not case.authority:
        return
    passed = case.logs.passed(case.attempt)
    if passed is not None:
        text = f"{case.name} is one-phase and open in {decision.log.file}, and the mark in {passed.file} has passed it"
        yield _finding(case, "mark-early", "rule 7", text, decision.log.file, passed.file)
    for trace in case.traces.values():
        if not case.named(trace):
            text = f"{case.name} was sent to one participant only, and {trace.file} holds it as {trace.says()}"
            yield _finding(case, "not-named", "rule 13", text, decision.log.file, trace.file)
        elif trace.prepared:
            text = f"{case.name} is one-phase in {decision.log.file}, and {trace.file} has it prepared"
            yield _finding(case, "two-states", "rule 13", text, decision.log.file, trace.file)


_CHECKS: Sequence[Callable[[Case], Iterator[Finding]]] = (
    _two_states,
    _history,
    _at_server,
    _damaged_records,
    _not_issued,
    _torn,
    _no_decision,
    _commit_kept,
    _claim_kept,
)


def _torn_by_hand(case: Case) -> Iterator[Finding]:
    """A person resolved a branch otherwise than it truly ended, and nobody has dealt with that yet."""
    for trace in case.traces.values():
        hand = trace.by_hand
        if hand is None:
            continue
        true = hand.known if hand.known is not None else _true_outcome(case)
        if true not in (None, hand.done) and not case.cleared():
            text = (
                f"{case.name} is {NAMES[true or 0]}, and a person resolved its branch at {trace.file} as "
                f"{NAMES[hand.done]}: torn by hand"
            )
            yield _finding(case, "torn-by-hand", "rule 12", text, trace.file)


def _true_outcome(case: Case) -> int | None:
    """As far as anybody proves it; presumed abort when the log that must hold a commit does not: it cannot have ended,
    as this branch has not acknowledged it."""
    proved = case.outcomes()
    if proved:
        return min(proved)
    presumed = case.authority is not None and case.decision is None and not case.by_hand()
    return ABORTED if presumed else None
