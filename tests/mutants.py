"""Mistakes that the simulator must find: each is one rule broken, in memory only, by patching the shipped code.

They exist only here. `test_mutants.py` runs each; a mutant that survives is a hole in the checks: mend the checks.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import coordinator.events as ce
import participant.events as pe
from coordinator import attempts, node
from coordinator import protocol as cp
from coordinator.log import DecisionLog
from coordinator.node import Coordinator
from coordinator.recent import Recent
from coordinator.registers import EmbeddedRegister
from coordinator.tables import Lane
from faults.simulator.servers import at_once
from faults.simulator.world import World
from participant import node as participant_node
from participant import protocol as pp
from participant.escrow import Escrow, Pending, Verdict
from participant.locks import Line, LockTable
from participant.log import VoteLog
from participant.node import Participant
from participant.outside import forget
from participant.resources import Mode, No, planning
from participant.resources.outside import Survey
from participant.resources.sqlite import SQLiteResource
from participant.tables import Log
from troth.ids import time_of
from troth.messages import (
    Acknowledged,
    Answered,
    OnePhase,
    OnePhaseEnded,
    Prepare,
    Voted,
)
from troth.reasons import reason
from troth.v1.types_pb2 import Code
from troth.words import Answer, AttemptId, Outcome, Vote

Patches = list[AbstractContextManager[Any]]
Mutant = Callable[[], Patches]
PS, PI, PA = pp.State, pp.Input, pp.Action
CS, CI, CA = cp.State, cp.Input, cp.Action


@contextmanager
def mutated(name: str) -> Any:
    """The shipped code with that mistake in it."""
    with ExitStack() as stack:
        for each in MUTANTS[name]():
            stack.enter_context(each)
        yield


def at_participant(*row: Any) -> Mutant:
    """Another (action, next state) for one pair of the participant's table."""
    return lambda: [patch.dict(pp.TABLE, {row[:2]: row[2:]})]


def at_coordinator(*row: Any) -> Mutant:
    return lambda: [patch.dict(cp.TABLE, {row[:2]: row[2:]})]


def also(action: pp.Action, more: Callable[[Any, Any], object], *, first: bool = False) -> Mutant:
    """A participant that does something more with an action."""
    done = participant_node._ACTIONS[action]

    def both(self: Participant, branch: Any, argument: Any) -> None:
        if first:
            more(self, branch)
        done(self, branch, argument)
        if not first:
            more(self, branch)

    return lambda: [patch.dict(participant_node._ACTIONS, {action: both})]


def instead(action: cp.Action, done: Callable[[Any, Any], object]) -> Mutant:
    """A coordinator that does something else for an action."""
    return lambda: [patch.dict(attempts._ACTIONS, {action: lambda self, attempt, _: done(self, attempt)})]


def method(owner: Any, name: str, replacement: Any) -> Mutant:
    return lambda: [patch.object(owner, name, replacement)]


def on_event(kind: type, handler: Callable[[Any, Any], object]) -> Mutant:
    """A coordinator with another handler of an event."""
    return lambda: [patch.dict(node._EVENTS, {kind: handler})]


def all_of(*mutants: Mutant) -> Mutant:
    return lambda: [each for mutant in mutants for each in mutant()]


# What they do.


def unlock_now(self: Participant, branch: Any) -> None:
    self._unlock(branch, applied=True)
    while self._todo:
        self._move(*self._todo.popleft())


def vote_early(self: Participant, branch: Any) -> None:
    if not branch.read_only:
        self._send(branch, Voted(branch.attempt.number, Vote.YES, self.incarnation))


def read_early(self: Participant, branch: Any) -> None:
    if branch.read_only:
        self._send(branch, Voted(branch.attempt.number, Vote.READ_ONLY, self.incarnation))


def end_at_first(self: Coordinator, attempt: Any, participant: str) -> None:
    if attempt.owed.pop(participant, None) is not None and attempt.state is CS.COMMITTING:
        self._move(attempt, CI.LAST_ACKNOWLEDGED)


def record_and_tell(self: Coordinator, attempt: Any) -> None:
    self._do_record_commit(attempt, None)
    self._flushes.pop()[1]()


def record_abort_and_tell(self: Coordinator, attempt: Any) -> None:
    self._do_record_abort(attempt, None)
    self._flushes.pop()[1]()


def drop_at_once(self: Coordinator, attempt: Any) -> None:
    self._append(ce.Dropped(attempt.number), forced=False)
    del self.attempts[attempt.number]
    self._mark_soon()
    self._again(attempt)


def due_and_aborted(self: Coordinator, attempt: Any) -> None:
    _attempt_due(self, attempt)
    if attempt.state in (CS.DECIDING, CS.RECORDING):
        self._tell_abort(attempt)


def due_and_failed(self: Coordinator, attempt: Any) -> None:
    if attempt.state is CS.DELEGATED:
        self._failed(attempt, reason(Code.CODE_TIMEOUT, "no answer in time"))
    else:
        _attempt_due(self, attempt)


def lost_and_failed(self: Coordinator, event: ce.LaneLost) -> None:
    _lane_lost(self, event)
    for attempt in list(self.attempts.values()):
        if attempt.state is CS.DELEGATED and event.participant in attempt.parts:
            self._failed(attempt, reason(Code.CODE_LANE_LOST, "the lane was lost"))


def ask_by_sending(self: Coordinator, attempt: Any) -> None:
    ((name, part),) = attempt.parts.items()
    lane = self.lanes[name]
    if lane.open and part.branch.operations:
        self._send(name, OnePhase(attempt.number, part.branch.operations, lane.incarnation))
    else:
        self._do_ask(attempt, None)


def answer_with(live: Answer) -> Mutant:
    def answer(self: Coordinator, log: str, number: int) -> Answer | None:
        found = _answer(self, log, number)
        return live if found is Answer.PENDING else found

    return method(Coordinator, "_answer", answer)


def pending_if_of_this_life(self: Coordinator, number: int, entry: ce.Entry | None) -> None:
    if entry is None and number >> 40 == self.epoch:
        for who, client in self._questions.pop(number, []):
            if client > 0:
                self._out.append(ce.Reply(client, Answer.PENDING))
            elif client == 0:
                self.lanes[who].unanswered.discard(number)
                self._send(who, Answered(number, Answer.PENDING))
    else:
        _question_looked_up(self, number, entry)


def answer_log_to_all(self: Coordinator, sub: Any, entry: ce.Entry) -> None:
    assert entry.state is not None
    for waiter in sub.waiters:
        self._out.append(ce.Reply(waiter.client, ce.Result(sub.id, entry.state, entry.reason)))
    self._forget(sub)


def presume_for_clients(self: Coordinator, id: str, entry: ce.Entry | None) -> None:
    sub = self.submissions[id]
    why = reason(Code.CODE_ENDED, "the log does not hold it")
    state = entry.state if entry is not None else Outcome.ABORTED
    assert state is not None
    self._out.extend(ce.Reply(waiter.client, ce.Result(id, state, why)) for waiter in sub.waiters)
    self._forget(sub)


def begin_under_the_same_number(self: Coordinator, sub: Any, number: int = 0) -> None:
    known = self.__dict__.setdefault("_numbers_of_ids", {})
    before = self._sequence
    _begin(self, sub, number or known.get(sub.id, 0))
    if sub.attempt is not None:
        known.setdefault(sub.id, sub.attempt.number)
    assert self._sequence >= before


def epoch_in_memory(self: DecisionLog) -> int:
    return int(self._one("SELECT value FROM troth_meta WHERE key = 'epoch'")) + 1


def name_everybody(self: Coordinator, attempt: Any) -> None:
    for name, part in attempt.parts.items():
        peers = tuple(peer for other in attempt.parts if other != name and (peer := self.lanes[other].peer))
        read_only = part.branch.read_only
        self._send(name, Prepare(attempt.number, part.branch.operations, read_only, () if read_only else peers))


def forget_at_once(self: Participant, branch: Any, given: Any, argument: Any = None) -> None:
    _move(self, branch, given, argument)
    if branch.state in participant_node.REMEMBERED:
        self.logs[branch.attempt.log].branches.pop(branch.attempt.number, None)


def apply_late(self: Participant, branch: Any, _: Any) -> None:
    """The locks go now, the record with what is queued after the next flush."""
    job = pe.Apply(branch.attempt, branch.operations, branch.plan, self._now.wall)
    self._unlock(branch, applied=True)
    self.__dict__.setdefault("_late", []).append((job, branch))
    self._later(0.001, participant_node.Due.FORGET, AttemptId(branch.attempt.log, 0))


def flushed_then_late(self: Participant, event: pe.Flushed) -> None:
    participant_node.Participant._flushed(self, event)
    late = self.__dict__.pop("_late", [])
    for job, branch in late:
        self._write(job, forced=True, branch=branch)


def ticked_then_late(self: Participant, event: pe.Ticked) -> None:
    participant_node.Participant._ticked(self, event)
    late = self.__dict__.pop("_late", [])
    for job, branch in late:
        self._write(job, forced=True, branch=branch)


def say_done(self: Participant, branch: Any, caller: int | None) -> None:
    if branch.state is PS.HEURISTIC and caller is not None:
        done = Answer.COMMITTED if branch.done is Outcome.COMMITTED else Answer.ABORTED
        self._out.append(pe.Reply(caller, done))
    else:
        _say_nothing(self, branch, caller)


def asked_whoever_it_is(self: Participant, event: pe.PeerAsked) -> None:
    _peer_asked(self, event._replace(identity=self.identity))


def refuse_foreign(self: Participant, log: Any, message: OnePhase, caller: int | None) -> None:
    if message.incarnation != self.incarnation:
        why = reason(Code.CODE_ENDED, "meant for another incarnation")
        self._out.append(pe.Send(log.name, OnePhaseEnded(message.number, Outcome.ABORTED, reason=why)))
    else:
        _one_phase(self, log, message, caller)


def run_foreign(self: Participant, log: Any, message: OnePhase, caller: int | None) -> None:
    _one_phase(self, log, message._replace(incarnation=self.incarnation), caller)


def reads_no_more(self: Participant, event: pe.LaneOpened) -> None:
    _participant_lane_opened(self, event)
    questions = next(e.questions for e in self._out if isinstance(e, pe.Hello))
    self.__dict__["_waits_for"] = set(questions)


def received_when_answered(self: Participant, event: pe.Received) -> None:
    """Reads on only when nothing is in doubt any more that its hello asked about; the answer is on the same stream."""
    branches = self._log(event.log).branches
    waits = {n for n in self.__dict__.get("_waits_for", ()) if n in branches and branches[n].state is PS.PREPARED}
    if not waits:
        _received(self, event)


def lookups_do_not_convert(catalog: Any, position: int, name: str, key: Any) -> Any:
    shown = list(key)
    target = _target_of(catalog, position, name, shown)
    return target._replace(name=("row", target.table.name, *(value.SerializeToString() for value in shown)))


def want_as_increment(self: planning.Locks, name: Any, mode: Mode) -> None:
    held = self._locks.get(name)
    if held is None or {held.mode, mode} != {Mode.SHARED, Mode.INCREMENT}:
        _want(self, name, mode)


def only_own_floors(self: Escrow, adds: Any) -> Verdict:
    if not self.pending or self.base is None:
        return Verdict.WAIT if self.pending else Verdict.ADMIT
    new = Pending.of(adds)
    return Verdict.WAIT if self.base + self.down + new.down < max(new.floors) else Verdict.ADMIT


def summed(cls: Any, adds: Any) -> Pending:
    pending: Pending = _pending_of(cls, (adds[-1]._replace(by=sum(add.by for add in adds)),))
    return pending


def settle_unrecorded(self: Coordinator, participant: str, message: Acknowledged) -> None:
    attempt = self.attempts.get(message.number)
    if attempt is not None and attempt.owed.get(participant) == self.lanes[participant].identity:
        self._settle_owed(attempt, participant)


def replaced_mark(self: Log, mark: Any) -> None:
    self.low, self.excepted = mark.low, frozenset(mark.excepted)


def horizon_of_the_clock(self: DecisionLog, record: ce.Expired) -> float:
    self._horizon = self._drop_below = 0.0
    return _expire(self, record)


def believe_the_clock(self: Coordinator, event: ce.HorizonMoved) -> None:
    self.horizon = event.horizon


def error_is_no(self: SQLiteResource, attempt: Any, plan: Any) -> Any:
    try:
        return _prepare(self, attempt, plan)
    except sqlite3.Error as error:
        raise No(reason(Code.CODE_RESOURCE, str(error))) from error


def sent_since(self: Coordinator, before: int) -> list[Any]:
    return [effect for effect in self._out[before:] if isinstance(effect, ce.Send)]


def prepare_one(self: Coordinator, attempt: Any) -> None:
    before = len(self._out)
    self._do_send_prepares(attempt, None)
    later = sent_since(self, before)[1:]
    self._out[:] = [effect for effect in self._out if effect not in later]
    self.__dict__.setdefault("_later_prepares", {})[attempt.number] = later


def voted_then_next(self: Coordinator, participant: str, message: Voted) -> None:
    later = self.__dict__.get("_later_prepares", {}).get(message.number)
    if later and message.number in self.attempts:
        self._out.append(later.pop(0))
    _voted(self, participant, message)


def commit_one(self: Coordinator, attempt: Any) -> None:
    before = len(self._out)
    self._do_tell_commit(attempt, None)
    later = sent_since(self, before)[1:]
    self._out[:] = [effect for effect in self._out if effect not in later]


def answer_when_applied(self: Coordinator, attempt: Any) -> None:
    sub = attempt.submission
    sub.waiters[:] = [waiter._replace(wait_applied=True) for waiter in sub.waiters]
    self._do_tell_commit(attempt, None)


def remind_all_the_time(self: Coordinator, attempt: Any) -> None:
    _attempt_due(self, attempt)
    if attempt.state is CS.COMMITTING:
        self._time(attempt, self._now.mono + 0.01)


def append_forced(self: Coordinator, record: Any, *, forced: bool, **rest: Any) -> None:
    _append(self, record, forced=True, **rest)


def undo_forced(self: Participant, branch: Any, _: Any) -> None:
    self._write(pe.Undo(branch.attempt, branch.plan, self._now.wall), forced=True)
    self._unlock(branch, applied=False)


def undo_locked(self: Participant, branch: Any, _: Any) -> None:
    self._write(pe.Undo(branch.attempt, branch.plan, self._now.wall), forced=False)


def ask_nothing(self: Participant, event: pe.LaneOpened) -> None:
    _participant_lane_opened(self, event)
    self._out[:] = [effect._replace(questions=()) if isinstance(effect, pe.Hello) else effect for effect in self._out]


def overtake(self: LockTable, owner: Any, locks: Any) -> Any:
    """As if nobody waited."""
    hidden = {name: line.waiting for name, line in self._lines.items()}
    for line in self._lines.values():
        line.waiting = {}
    try:
        return _request(self, owner, locks)
    finally:
        for name, waiting in hidden.items():
            if name in self._lines:
                self._lines[name].waiting = {**waiting, **self._lines[name].waiting}


def unknown_from_log(self: Coordinator, sub: Any, entry: ce.Entry) -> None:
    self._out.extend(ce.Reply(waiter.client, ce.Result(sub.id, Outcome.UNKNOWN)) for waiter in sub.waiters)
    self._forget(sub)


def refuse_from_log(self: Coordinator, sub: Any, entry: ce.Entry) -> None:
    _answer_from_log(self, sub, entry._replace(digest=b"of other content"))


def record_before(self: Participant, ending: Any) -> None:
    """The record of a commit first; what its server says then is not looked at."""
    if isinstance(ending.job, pe.Apply):
        self._record(ending)
        self.__dict__.setdefault("_recorded", set()).add(self._carries + 1)
    _carry_out(self, ending)


def carried_unless_recorded(self: Participant, event: pe.Carried) -> None:
    if event.n in self.__dict__.get("_recorded", ()):
        self._carrying.pop(event.n).branch.carrying -= 1
    else:
        _carried(self, event)


def unlock_before(self: Participant, ending: Any) -> None:
    if ending.applied is not None:
        self._unlock(ending.branch, ending.applied)
        ending = ending._replace(applied=None)
    _carry_out(self, ending)


def carried_whatever_became_of_it(self: Participant, event: pe.Carried) -> None:
    ending = self._carrying[event.n]
    if isinstance(ending.job, pe.Try) and isinstance(event.result, pe.Tried) and not ending.branch.read_only:
        del self._carrying[event.n]
        ending.branch.carrying -= 1
        self._record(ending._replace(job=ending.job._replace(tried=event.result)))
    else:
        _carried(self, event)


def contradicted_plainly(self: Participant, ending: Any, found: Outcome) -> None:
    if isinstance(ending.job, pe.Resolve):
        _contradicted(self, ending, found)
    else:
        self._record(ending)


def forget_at_any_time(self: Participant, log: Log) -> None:
    carrying, self._carrying = self._carrying, {}
    _forget(self, log)
    self._carrying = carrying


def vote_of_what_is_not_known(self: Participant, branch: Any, argument: Any) -> None:
    branch.from_before = False
    self._do_vote_again(branch, argument)


def merging(change: Callable[[VoteLog, Survey], Survey], *, copied: bool = False) -> Mutant:
    """A vote log that is told something else of what its server holds."""

    def merge(self: VoteLog, survey: Survey, at: float, **_: Any) -> None:
        _merge(self, change(self, survey), at, copied=copied)

    return method(VoteLog, "merge", merge)


def without_one_phase(self: VoteLog, survey: Survey) -> Survey:
    known = {number for (number,) in self._connection.execute("SELECT number FROM troth_finished")}
    kept = {each: how for each, how in survey.committed.items() if not how or each.number in known}
    return survey._replace(committed=kept)


def without_excepted(self: VoteLog, survey: Survey) -> Survey:
    known = {number for (number,) in self._connection.execute("SELECT number FROM troth_finished")}
    low = max((low for (low,) in self._connection.execute("SELECT low FROM troth_marks")), default=0)
    kept = {each: how for each, how in survey.committed.items() if each.number >= low or each.number in known}
    return survey._replace(committed=kept)


def in_order_of_numbers(self: VoteLog, survey: Survey) -> Survey:
    return survey._replace(committed=dict(sorted(survey.committed.items())))


def write_without_held(self: Participant, job: Any, **rest: Any) -> None:
    _write_job(self, job._replace(held=()) if isinstance(job, pe.Forget) else job, **rest)


def write_and_forget(self: World, name: str, effect: pe.Write) -> None:
    _write(self, name, effect)
    server = self.vote_disks[name].server
    if server is not None and isinstance(effect.job, pe.Forget):
        at_once(forget(server, effect.job))


def carry_at_once(self: World, name: str, effect: pe.Carry) -> None:
    """Behind nothing."""
    line = self._errands.pop((name, effect.job.attempt), None)
    _carry(self, name, effect)
    if line is not None:
        self._errands[name, effect.job.attempt].extendleft(reversed(line))


def served_in_any_order(self: World, errand: Any, result: Any) -> None:
    branch = errand.name, errand.job.attempt
    self._errands[branch].remove(errand)
    if not self._errands[branch]:
        del self._errands[branch]
    self.feed(errand.name, pe.Carried(errand.n, result))


def prepared_in_any_life(self: Participant) -> set[AttemptId]:
    branches = (branch for log in self.logs.values() for branch in log.branches.values())
    return {branch.attempt for branch in branches if branch.state is PS.PREPARED}


def trial_without_a_look(self: VoteLog, trial: Any, attempt: Any, plan: Any) -> Any:
    try:
        prepared = trial(attempt, plan)
    except No as no:
        return pe.Denied(no.reason)
    return pe.Tried(prepared.rows, prepared.values)


_append, _answer_from_log, _request = Coordinator._append, Coordinator._answer_from_log, LockTable.request
_move, _leave = Participant._move, Line.leave
_pending_of = Pending.of.__func__  # type: ignore[attr-defined]
_attempt_due, _lane_lost, _answer = Coordinator._attempt_due, Coordinator._lane_lost, Coordinator._answer
_question_looked_up, _begin = Coordinator._question_looked_up, Coordinator._begin
_voted = Coordinator._voted
_say_nothing, _peer_asked, _one_phase = Participant._do_say_nothing, Participant._peer_asked, Participant._one_phase
_participant_lane_opened, _received = Participant._lane_opened, Participant._received
_carry_out, _carried, _contradicted = Participant._carry_out, Participant._carried, Participant._contradicted
_forget, _merge, _write, _carry = Participant._forget, VoteLog.merge, World._write, World._carry
_write_job = Participant._write
_target_of, _expire, _prepare = planning.target_of, DecisionLog._expire, SQLiteResource.prepare
_want = planning.Locks.want


def participant_event(kind: type, handler: Any) -> Mutant:
    return lambda: [patch.dict(participant_node._EVENTS, {kind: handler})]


def participant_message(kind: type, handler: Any) -> Mutant:
    return lambda: [patch.dict(participant_node._MESSAGES, {kind: handler})]


def participant_action(action: pp.Action, handler: Any) -> Mutant:
    return lambda: [patch.dict(participant_node._ACTIONS, {action: handler})]


MUTANTS: dict[str, Mutant] = {
    # Classic mistakes.
    "a vote is sent before it is forced": also(PA.TRY, vote_early),
    "an acknowledgement is sent before it is forced": also(
        PA.APPLY, lambda self, b: self._tell(b, Acknowledged(b.attempt.number))
    ),
    "a decision is told before it is forced": instead(CA.RECORD_COMMIT, record_and_tell),
    "aborted after the decision was handed over": method(Coordinator, "_attempt_due", due_and_aborted),
    "a participant says aborted of what it does not know": at_participant(
        PS.UNKNOWN, PI.PEER_ASKS_ENDED, PA.SAY_ABORTED, PS.UNKNOWN
    ),
    "a participant says committed of what it does not know": at_participant(
        PS.UNKNOWN, PI.PEER_ASKS, PA.SAY_COMMITTED, PS.UNKNOWN
    ),
    "a prepared participant aborts on timeout": at_participant(PS.PREPARED, PI.INQUIRE, PA.UNDO, PS.ABORTED),
    "the finished list is forgotten too early": method(Participant, "_move", forget_at_once),
    "locks are not taken again after a restart": method(LockTable, "hold", lambda self, owner, locks, values: None),
    "a late prepare is accepted after its abort": at_participant(PS.UNKNOWN, PI.ABORT, PA.NOTHING, PS.UNKNOWN),
    "a READ_ONLY voter releases early": also(PA.VOTE_READ_ONLY, lambda self, b: self._unlock(b, applied=False)),
    "a READ_ONLY voter's new incarnation is ignored": method(Coordinator, "_stale_reader", lambda self, attempt: None),
    "a commit is applied twice": at_participant(PS.COMMITTING, PI.COMMIT, PA.APPLY, PS.COMMITTING),
    "a second writer overwrites the decision": method(
        EmbeddedRegister,
        "decide",
        lambda self, proposal, answer: answer(
            self._entries.setdefault("", ce.Decided(*proposal)) and ce.Decided(*proposal)
        ),
    ),
    "the end is written before the last acknowledgement": method(Coordinator, "_settle_owed", end_at_first),
    # Found by attacking the rules on paper.
    "a peer that has not voted says aborted": at_participant(PS.UNKNOWN, PI.PEER_ASKS, PA.SAY_ABORTED, PS.UNKNOWN),
    "a peer that voted NO says aborted and has not written it": at_participant(
        PS.DENIED, PI.PEER_ASKS, PA.SAY_ABORTED, PS.DENIED
    ),
    "a prepared peer says aborted": at_participant(PS.PREPARED, PI.PEER_ASKS, PA.SAY_ABORTED, PS.PREPARED),
    "a READ_ONLY peer is named and vouches": instead(CA.SEND_PREPARES, name_everybody),
    "a one-phase request is aborted on timeout": method(Coordinator, "_attempt_due", due_and_failed),
    "a one-phase request is sent again to a later incarnation": instead(CA.ASK, ask_by_sending),
    "a one-phase request is run again as a new attempt": on_event(ce.LaneLost, lost_and_failed),
    "a one-phase request is run by whatever incarnation gets it": participant_message(OnePhase, run_foreign),
    "a one-phase request is sent before its submitted record is durable": at_coordinator(
        CS.NEW, CI.CLAIM, CA.SEND_ONE_PHASE, CS.DELEGATED
    ),
    "an all-READ_ONLY commit of a client's id is not written": at_coordinator(
        CS.DECIDING, CI.WON_COMMIT, CA.RELEASE, CS.ENDED
    ),
    "a client is told ABORTED by presumption": method(Coordinator, "_assigned_looked_up", presume_for_clients),
    "a client is told ABORTED before it is durable": instead(CA.RECORD_ABORT, record_abort_and_tell),
    "a commit record is left for a later flush than its row's next prepare": all_of(
        participant_action(PA.APPLY, apply_late),
        participant_event(pe.Flushed, flushed_then_late),
        participant_event(pe.Ticked, ticked_then_late),
    ),
    "a READ_ONLY vote is sent before what it read is durable": also(PA.TRY, read_early),
    "one row has two names": method(planning, "target_of", lookups_do_not_convert),
    "check and add on one row make an increment lock": method(planning.Locks, "want", want_as_increment),
    "another's pending bound is ignored": method(Escrow, "judge", only_own_floors),
    "adds of one branch are summed": method(Pending, "of", classmethod(summed)),
    "an aborted add counts as applied": method(
        Line, "leave", lambda self, owner, applied: _leave(self, owner, applied=True)
    ),
    "a UNIQUE value is not locked": method(planning, "_lock_unique", lambda branch, index, values: None),
    "a message names the client's id, not the attempt": method(Coordinator, "_begin", begin_under_the_same_number),
    "an epoch is not forced": method(DecisionLog, "_next_epoch", epoch_in_memory),
    "a forgotten abort of the present incarnation is answered PENDING": method(
        Coordinator, "_question_looked_up", pending_if_of_this_life
    ),
    "a live attempt is answered as aborted": answer_with(Answer.ABORTED),
    "a live attempt is answered as committed": answer_with(Answer.COMMITTED),
    "the expiry horizon goes back with the clock": all_of(
        method(DecisionLog, "_expire", horizon_of_the_clock), on_event(ce.HorizonMoved, believe_the_clock)
    ),
    "an id that the log holds is taken as new after a restart": method(DecisionLog, "_newest", lambda self: ""),
    "an id that was opened lately is taken as new again": method(Recent, "open", lambda self, id: bool(time_of(id))),
    "an expired id is run": on_event(ce.HorizonMoved, lambda self, event: None),
    "a heuristic outcome is passed on as the true one": participant_action(PA.SAY_NOTHING, say_done),
    "a heuristic acknowledgement is not recorded": lambda: [
        patch.dict(node._MESSAGES, {Acknowledged: settle_unrecorded})
    ],
    "a branch resolved by hand stops asking": method(
        participant_node, "IN_DOUBT", frozenset({PS.PREPARED, PS.READ_ONLY})
    ),
    "locks go before the record that ends the branch is queued": also(PA.APPLY, unlock_now, first=True),
    "a peer asked by address is another file by now, and answers": participant_event(pe.PeerAsked, asked_whoever_it_is),
    "`abort ID` ends an open one-phase attempt": at_coordinator(
        CS.DELEGATED, CI.ABORT_ASKED, CA.ASK_REGISTER_ABORT, CS.ABORTING
    ),
    "`abort ID` does not ask the register": at_coordinator(
        CS.PREPARING, CI.ABORT_ASKED, CA.RECORD_ABORT, CS.RECORDING_ABORT
    ),
    "a doubled one-phase request is refused by a later incarnation and believed": participant_message(
        OnePhase, refuse_foreign
    ),
    "a branch that waits for a lock is answered as no trace": at_participant(
        PS.WAITING, PI.COORDINATOR_ASKS, PA.SAY_ABORTED, PS.WAITING
    ),
    "a branch at the writer is answered as no trace": at_participant(
        PS.RUNNING, PI.COORDINATOR_ASKS, PA.SAY_ABORTED, PS.RUNNING
    ),
    "asked about a one-phase request it does not know, a participant says aborted and does not refuse": at_participant(
        PS.UNKNOWN, PI.COORDINATOR_ASKS, PA.SAY_ABORTED, PS.UNKNOWN
    ),
    "a mark is replaced by an older one": method(Log, "join", replaced_mark),
    "the exceptions of a mark are ignored": method(Log, "below", lambda self, number: number < self.low),
    "the mark passes a claim whose end is not durable": instead(CA.DROP, drop_at_once),
    "the embedded decide does not look": method(
        EmbeddedRegister, "decide", lambda self, proposal, answer: answer(ce.Decided(*proposal))
    ),
    "a participant waits for its lane's answer before reading on": all_of(
        participant_event(pe.LaneOpened, reads_no_more), participant_event(pe.Received, received_when_answered)
    ),
    "a trial error other than a constraint is taken as NO": all_of(
        method(SQLiteResource, "prepare", error_is_no),
        method(SQLiteResource, "_check_open", lambda self: None),
        method(VoteLog, "_trial", trial_without_a_look),
    ),
    "other content hears the outcome of an id": method(Coordinator, "_answer_from_log", answer_log_to_all),
    # Data at a server.
    "a commit is recorded before the server has done it": all_of(
        method(Participant, "_carry_out", record_before), participant_event(pe.Carried, carried_unless_recorded)
    ),
    "locks go before the server has ended the branch": method(Participant, "_carry_out", unlock_before),
    "a trial is recorded though its branch was aborted meanwhile": participant_event(
        pe.Carried, carried_whatever_became_of_it
    ),
    "what the server has ended otherwise is recorded plainly": method(
        Participant, "_contradicted", contradicted_plainly
    ),
    "what only the server has prepared is not taken up": merging(
        lambda self, survey: survey._replace(prepared=frozenset())
    ),
    "a one-phase commit that only the server has is not taken up": merging(without_one_phase),
    "what the mark excepts is not taken up": merging(without_excepted),
    "what the server has committed is taken up in the order of its numbers": merging(in_order_of_numbers),
    "somebody's commit of what nobody voted for is taken for a one-phase one": merging(
        lambda self, survey: survey, copied=True
    ),
    "a branch that only the server knew of votes": participant_action(PA.VOTE_AGAIN, vote_of_what_is_not_known),
    "the mark passes a branch that is at the server": method(Participant, "_forget", forget_at_any_time),
    "the server forgets what is not ended here": method(Participant, "_write", write_without_held),
    "the server forgets before that is durable here": method(World, "_write", write_and_forget),
    "jobs of one branch overtake each other": all_of(
        method(World, "_carry", carry_at_once), method(World, "served", served_in_any_order)
    ),
    "what was in doubt at the start is looked for": method(Participant, "prepared", prepared_in_any_life),
    # Slow, dear or unfair rather than wrong.
    "prepares go out one after the other": all_of(
        instead(CA.SEND_PREPARES, prepare_one), lambda: [patch.dict(node._MESSAGES, {Voted: voted_then_next})]
    ),
    "commits go out one after the other": instead(CA.TELL_COMMIT, commit_one),
    "a client is answered only when all have applied": instead(CA.TELL_COMMIT, answer_when_applied),
    "a commit is not sent again on an open lane": instead(CA.SEND_AGAIN, lambda self, attempt: None),
    "a commit is sent again all the time": method(Coordinator, "_attempt_due", remind_all_the_time),
    "what passes is not tried again": method(Coordinator, "_pause", lambda self, sub: math.inf),
    "every record of the coordinator is forced": method(Coordinator, "_append", append_forced),
    "an abort of an assigned id is written": at_coordinator(
        CS.ABORTING, CI.WON_ABORT_ASSIGNED, CA.RECORD_ABORT, CS.RECORDING_ABORT
    ),
    "an undo is forced": participant_action(PA.UNDO, undo_forced),
    "an undo keeps its locks": participant_action(PA.UNDO, undo_locked),
    "who comes later is served before who waits": method(LockTable, "request", overtake),
    "a hello asks nothing": participant_event(pe.LaneOpened, ask_nothing),
    "a prepare goes before the answers to a hello": method(Lane, "ready", property(lambda self: self.open)),
    "peers are asked and the coordinator is not": participant_action(
        PA.ASK, lambda self, branch, _: self._ask_peers(branch)
    ),
    "rows that are gone are not said to be": method(
        Coordinator,
        "_answer_from_log",
        lambda self, sub, entry: _answer_from_log(self, sub, entry._replace(read=False)),
    ),
    "who asks again is refused": method(Coordinator, "_answer_from_log", refuse_from_log),
    "an outcome in the log is told as UNKNOWN": method(Coordinator, "_answer_from_log", unknown_from_log),
}
