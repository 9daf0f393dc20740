"""Ways to break a rule in the real participant, by name, each with the checks that must find it, and no others.

A change here is made for good: in a process of its own (`broken_participants.py`), before it serves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from participant import driver as drivers
from participant import node
from participant.escrow import Escrow, Pending, Verdict
from participant.events import Apply, RunAlone, Try, Undo
from participant.locks import Line, LockTable
from participant.log import VoteLog
from participant.node import Participant
from participant.protocol import TABLE, Action, Input, State
from participant.resources import planning
from participant.resources.sqlite import SQLiteResource
from participant.tables import Log
from troth.log.writer import LogWriter
from troth.messages import Acknowledged, Release
from troth.words import Answer

S, I, A = State, Input, Action  # noqa: E741

Breaking = Callable[[], None]


class Broken(NamedTuple):
    """How it is done, the checks that must find it, and those that may: by luck, or because nothing works any more."""

    breaking: Breaking
    violates: frozenset[str]
    may: frozenset[str] = frozenset()


def row(state: State, given: Input, action: Action, then: State) -> Breaking:
    """Another action and next state for one pair of the protocol's table."""
    return lambda: TABLE.update({(state, given): (action, then)})


def method(owner: Any, name: str, replacement: Any) -> Breaking:
    return lambda: setattr(owner, name, replacement)


def also(action: Action, more: Callable[[Any, Any], None], *, first: bool = False) -> Breaking:
    """Something more is done with an action, before or after it."""
    done = node._ACTIONS[action]

    def both(self: Participant, branch: Any, argument: Any) -> None:
        if first:
            more(self, branch)
        done(self, branch, argument)
        if not first:
            more(self, branch)

    return lambda: node._ACTIONS.update({action: both})


def told_before_durable(kind: type, each_s: float = 0.02) -> Breaking:
    """Jobs of one kind are reported as durable before they are, on a disk that takes so long for each."""
    init = drivers.Driver.__init__

    def broken(self: drivers.Driver, *args: Any) -> None:
        init(self, *args)
        write = self.writer._write

        def early(jobs: Any) -> Any:
            results = write(jobs)
            if all(isinstance(job, kind) for _, job in jobs):
                self._flushed_in_writer(jobs[-1][0], results)
                time.sleep(each_s * len(jobs))
            return results

        self.writer._write = early

    return method(drivers.Driver, "__init__", broken)


_move, _recover, _leave, _heard = Participant._move, VoteLog.recover, Line.leave, Participant._heard
_peer_asked, _target_of, _pending_of = Participant._peer_asked, planning.target_of, Pending.of.__func__  # type: ignore[attr-defined]
_answer_hello, _want, _lock_timeout = drivers.Driver._answer_hello, planning.Locks.want, Participant._lock_timeout


def forget_at_once(self: Participant, branch: Any, given: Any, argument: Any = None) -> None:
    _move(self, branch, given, argument)
    if branch.state in node.REMEMBERED:
        self.logs[branch.attempt.log].branches.pop(branch.attempt.number, None)


def newest_mark(self: Log, mark: Any) -> None:
    self.low, self.excepted = mark.low, frozenset(mark.excepted)


def release_on_pending(self: Participant, branch: Any, answer: Answer, who: str) -> None:
    if branch.state is S.READ_ONLY and answer is Answer.PENDING:
        self._release(self.logs[branch.attempt.log], Release(branch.attempt.number), None)
    else:
        _heard(self, branch, answer, who)


def any_file(self: Participant, event: Any) -> None:
    _peer_asked(self, event._replace(identity=self.identity))


def vouch_for_reads(self: Participant, event: Any) -> None:
    branch = self._log(event.attempt.log).branches.get(event.attempt.number)
    if branch is not None and branch.state is S.READ_ONLY:
        self._say(branch, Answer.ABORTED, event.caller)
    else:
        _peer_asked(self, event)


def names_as_given(catalog: Any, position: int, name: str, key: Any) -> Any:
    shown = list(key)
    target = _target_of(catalog, position, name, shown)
    return target._replace(name=("row", name, *map(str, shown)))


def summed(cls: Any, adds: Any) -> Any:
    return _pending_of(cls, (adds[-1]._replace(by=sum(add.by for add in adds)),))


def own_floors_only(self: Escrow, adds: Any) -> Verdict:
    if not self.pending or self.base is None:
        return Verdict.WAIT if self.pending else Verdict.ADMIT
    new = Pending.of(adds)
    return Verdict.WAIT if self.base + self.down + new.down < max(new.floors) else Verdict.ADMIT


def no_unique_locks(self: Any, name: Any, mode: Any) -> None:
    if name[0] != "unique":
        _want(self, name, mode)


def never_retryable(self: Participant, branch: Any) -> Any:
    reason = _lock_timeout(self, branch)
    reason.retryable = False
    return reason


def applied_at_once(self: SQLiteResource, attempt: Any, plan: Any) -> Any:
    return SQLiteResource.run(self, attempt, plan)


def recover_without_outcomes(self: VoteLog) -> Any:
    return _recover(self)._replace(finished=())


def no_questions(self: drivers.Driver, lane: Any) -> Any:
    hello = _answer_hello(self, lane)
    hello.hello.ClearField("questions")
    return hello


def one_incarnation() -> None:
    init = drivers.Driver.__init__

    def broken(self: drivers.Driver, *args: Any) -> None:
        init(self, *args)
        self.incarnation = self.node.incarnation = 17

    drivers.Driver.__init__ = broken  # type: ignore[method-assign]


def acknowledge_plainly(self: Participant, branch: Any, _: Any) -> None:
    self._tell(branch, Acknowledged(branch.attempt.number))


def deny_and_keep(self: Participant, branch: Any, why: Any) -> None:
    branch.reason = self._mine(why)
    self._say_no(branch, branch.reason)


def action(name: Action, done: Any) -> Breaking:
    return lambda: node._ACTIONS.update({name: done})


def broken(breaking: Breaking, *violates: str, may: Sequence[str] = ()) -> Broken:
    return Broken(breaking, frozenset(violates), frozenset(may))


BROKEN: dict[str, Broken] = {
    "votes before the prepared record is durable": broken(
        told_before_durable(Try), "yes-outlives-a-kill", may=["yes-is-applied-after-a-kill"]
    ),
    "acknowledges before the commit is durable": broken(told_before_durable(Apply)),
    "says COMMITTED before a one-phase run is durable": broken(told_before_durable(RunAlone)),
    "refuses for a peer before the refusal is durable": broken(told_before_durable(Undo)),
    "aborts by itself when it hears nothing": broken(row(S.PREPARED, I.INQUIRE, A.UNDO, S.ABORTED)),
    "says ABORTED to a peer while it is prepared": broken(row(S.PREPARED, I.PEER_ASKS, A.SAY_ABORTED, S.PREPARED)),
    "says ABORTED to a peer and does not refuse": broken(row(S.UNKNOWN, I.PEER_ASKS, A.SAY_ABORTED, S.UNKNOWN)),
    "refuses for a peer in memory only": broken(row(S.UNKNOWN, I.PEER_ASKS, A.SAY_ABORTED, S.ABORTED)),
    "takes its NO for a refusal": broken(row(S.DENIED, I.PEER_ASKS, A.SAY_ABORTED, S.DENIED)),
    "says ABORTED to a peer while it waits for a lock": broken(row(S.WAITING, I.PEER_ASKS, A.SAY_ABORTED, S.WAITING)),
    "says ABORTED to a peer below the mark": broken(row(S.UNKNOWN, I.PEER_ASKS_ENDED, A.SAY_ABORTED, S.UNKNOWN)),
    "speaks for any file": broken(lambda: node._EVENTS.update({node.PeerAsked: any_file})),
    "vouches for a read-only branch": broken(lambda: node._EVENTS.update({node.PeerAsked: vouch_for_reads})),
    "tells a peer a heuristic outcome": broken(row(S.HEURISTIC, I.PEER_ASKS, A.SAY_KNOWN, S.HEURISTIC)),
    "acknowledges a COMMIT without a trace": broken(row(S.UNKNOWN, I.COMMIT, A.ACKNOWLEDGE, S.UNKNOWN)),
    "does not acknowledge a COMMIT below the mark": broken(row(S.UNKNOWN, I.COMMIT_ENDED, A.ALARM, S.UNKNOWN)),
    "prepares below the mark": broken(row(S.UNKNOWN, I.PREPARE_ENDED, A.QUEUE, S.WAITING)),
    "forgets an abort that came before its prepare": broken(row(S.UNKNOWN, I.ABORT, A.NOTHING, S.UNKNOWN)),
    "forgets what has ended at once": broken(method(Participant, "_move", forget_at_once)),
    "forgets what has ended when it starts": broken(method(VoteLog, "recover", recover_without_outcomes)),
    "takes an older mark for the newest": broken(method(Log, "join", newest_mark)),
    "ignores what a mark lists": broken(method(Log, "below", lambda self, number: number < self.low)),
    "frees read locks with its vote": broken(
        also(A.VOTE_READ_ONLY, lambda self, branch: self._unlock(branch, applied=False))
    ),
    "frees read locks on PENDING": broken(method(Participant, "_heard", release_on_pending)),
    "takes no locks when it starts": broken(method(LockTable, "hold", lambda self, owner, locks, values: None)),
    "answers a prepare once only": broken(row(S.PREPARED, I.PREPARE, A.NOTHING, S.PREPARED)),
    "takes other content for the same": broken(method(Participant, "_differs", lambda self, *args, **kwargs: False)),
    "runs what another incarnation was asked to": broken(row(S.UNKNOWN, I.ONE_PHASE_FOREIGN, A.QUEUE, S.WAITING)),
    "says ABORTED to the coordinator and does not refuse": broken(
        row(S.UNKNOWN, I.COORDINATOR_ASKS, A.SAY_ABORTED, S.UNKNOWN)
    ),
    "takes a request that waits for no trace": broken(row(S.WAITING, I.COORDINATOR_ASKS, A.SAY_ABORTED, S.WAITING)),
    "answers the coordinator below the mark": broken(
        row(S.UNKNOWN, I.COORDINATOR_ASKS_ENDED, A.SAY_ABORTED, S.UNKNOWN)
    ),
    "acknowledges a heuristic outcome as an ordinary one": broken(action(A.ACKNOWLEDGE_HEURISTIC, acknowledge_plainly)),
    "asks no more once a person has resolved it": broken(
        lambda: setattr(node, "IN_DOUBT", frozenset({S.PREPARED, S.READ_ONLY}))
    ),
    "sums the adds of a branch": broken(method(Pending, "of", classmethod(summed))),
    "ignores the bounds of pending adds": broken(method(Escrow, "judge", own_floors_only)),
    "counts an aborted add": broken(
        method(Line, "leave", lambda self, owner, applied: _leave(self, owner, applied=True))
    ),
    "names rows as they are spelled": broken(method(planning, "target_of", names_as_given)),
    "locks no unique values": broken(method(planning.Locks, "want", no_unique_locks)),
    "keeps the locks of a NO": broken(action(A.VOTE_NO, deny_and_keep)),
    "stays in line after an abort": broken(row(S.WAITING, I.ABORT, A.REMEMBER, S.ABORTED)),
    "calls a lock timeout final": broken(method(Participant, "_lock_timeout", never_retryable)),
    "applies with the vote": broken(method(SQLiteResource, "prepare", applied_at_once)),
    "asks nothing in its hello": broken(method(drivers.Driver, "_answer_hello", no_questions)),
    "has one incarnation for all its lives": broken(one_incarnation),
    "stores no number of its coordinator": broken(method(LogWriter, "note_seen", lambda self, log, n: None)),
}
