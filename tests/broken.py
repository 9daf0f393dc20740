"""Ways to break a rule in the real participant, by name, each with the checks that must find it, and no others.

A change here is made for good: in a process of its own (`broken_participants.py`), before it serves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from faults.conformance import checks  # noqa: F401  # registers them
from faults.conformance.check import CHECKS
from participant import driver as drivers
from participant import node, outside, service
from participant.escrow import Escrow, Pending
from participant.events import Apply, RunAlone, Try, Undo
from participant.locks import Line, LockTable
from participant.log import VoteLog
from participant.node import Participant
from participant.protocol import Action, Input, State
from participant.resources import planning
from participant.resources.outside import OutsideResource
from participant.resources.sqlite import SQLiteResource
from participant.tables import Log
from tests import mutants
from troth.log.writer import LogWriter
from troth.messages import Acknowledged, Release
from troth.v1 import participant_pb2_grpc
from troth.words import Answer

S, I, A = State, Input, Action  # noqa: E741

Breaking = Callable[[], None]


class Broken(NamedTuple):
    """How it is done, the checks that must find it, and those that may: by luck, or because nothing works any more."""

    breaking: Breaking
    violates: frozenset[str]
    may: frozenset[str] = frozenset()


def for_good(mutant: mutants.Mutant) -> Breaking:
    """A mistake of `mutants.py`, until the process ends."""

    def breaking() -> None:
        for each in mutant():
            each.__enter__()

    return breaking


def row(*row: Any) -> Breaking:
    """Another action and next state for one pair of the protocol's table."""
    return for_good(mutants.at_participant(*row))


def method(owner: Any, name: str, replacement: Any) -> Breaking:
    return for_good(mutants.method(owner, name, replacement))


def also(action: Action, more: Callable[[Any, Any], None], *, first: bool = False) -> Breaking:
    """Something more is done with an action, before or after it."""
    return for_good(mutants.also(action, more, first=first))


def told_before_durable(kind: type, each_s: float = 0.04) -> Breaking:
    """Jobs of one kind are reported as durable before they are, on a disk that takes so long for each, and long enough
    for a kill to come before."""
    init = drivers.Driver.__init__

    def broken(self: drivers.Driver, *args: Any) -> None:
        init(self, *args)
        write = self.writer._write

        def early(jobs: Any) -> Any:
            results = write(jobs)
            if all(isinstance(job, kind) for _, job in jobs):
                self._flushed_in_writer(jobs[-1][0], results)
                time.sleep(max(0.5, each_s * len(jobs)))
            return results

        self.writer._write = early

    return method(drivers.Driver, "__init__", broken)


_move, _recover, _leave, _heard = Participant._move, VoteLog.recover, Line.leave, Participant._heard
_peer_asked, _target_of, _pending_of = Participant._peer_asked, planning.target_of, Pending.of.__func__  # type: ignore[attr-defined]
_answer_hello, _want, _lock_timeout = drivers.Driver._answer_hello, planning.Locks.want, Participant._lock_timeout


def release_on_pending(self: Participant, branch: Any, answer: Answer, who: str) -> None:
    if branch.state is S.READ_ONLY and answer is Answer.PENDING:
        self._release(self.logs[branch.attempt.log], Release(branch.attempt.number), None)
    else:
        _heard(self, branch, answer, who)


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


def no_unique_locks(self: Any, name: Any, mode: Any) -> None:
    if name[0] != "unique":
        _want(self, name, mode)


def never_retryable(self: Participant, branch: Any) -> Any:
    reason = _lock_timeout(self, branch)
    reason.retryable = False
    return reason


def applied_at_once() -> None:
    SQLiteResource.prepare = SQLiteResource.run  # type: ignore[method-assign]
    SQLiteResource.commit = lambda self, attempt, plan: None  # type: ignore[method-assign]


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


def prepares_nothing() -> None:
    part_of = outside.part_of

    async def broken(resource: OutsideResource, job: Any) -> Any:
        result = await part_of(resource, job)
        if isinstance(job, Try):
            await resource.abort(job.attempt)
        return result

    outside.part_of = broken


def lanes_only() -> None:
    """Not a fault: a participant need not offer more than lanes, and to answer its peers."""

    class Peers(participant_pb2_grpc.BranchesServicer):
        def __init__(self, driver: drivers.Driver) -> None:
            self._driver = driver

        Outcome = service.Branches.Outcome

    full = service.services

    def bare(driver: drivers.Driver) -> Any:
        lanes, branches, _ = full(driver)
        return [lanes, branches._replace(servicer=Peers(driver))]

    service.services = bare


def action(name: Action, done: Any) -> Breaking:
    return for_good(mutants.participant_action(name, done))


ANY = [check.name for check in CHECKS]
"""Of one with which hardly anything works: what else fails depends on time, or on what failed before."""


AFTER_A_KILL = (
    "a-prepared-peer-says-nothing-after-a-kill",
    "peers-are-remembered-through-a-kill",
    "locks-are-taken-again",
    "bounds-are-taken-again",
)
"""What else shows that a YES is gone with its process."""


def broken(breaking: Breaking, *violates: str, may: Sequence[str] = ()) -> Broken:
    return Broken(breaking, frozenset(violates), frozenset(may))


BROKEN: dict[str, Broken] = {
    "votes before the prepared record is durable": broken(
        told_before_durable(Try),
        "yes-outlives-a-kill",
        may=["yes-is-applied-after-a-kill", "yes-is-undone-after-a-kill", *AFTER_A_KILL],
    ),
    "acknowledges before the commit is durable": broken(
        told_before_durable(Apply),
        "acknowledgements-come-after-the-flush",
        may=["an-acknowledged-commit-outlives-a-kill", "a-peer-knows-through-a-kill"],
    ),
    "says COMMITTED before a one-phase run is durable": broken(
        told_before_durable(RunAlone), "committed-comes-after-the-flush", may=["a-trace-answers-in-a-later-life"]
    ),
    "refuses for a peer before the refusal is durable": broken(
        told_before_durable(Undo), "a-refusal-outlives-a-kill", may=["a-no-becomes-durable-for-a-peer"]
    ),
    "aborts by itself when it hears nothing": broken(
        row(S.PREPARED, I.INQUIRE, A.UNDO, S.ABORTED),
        "it-asks-on-its-lane",
        "silence-and-pending-end-nothing",
        "a-silent-peer-ends-nothing",
        may=ANY,
    ),
    "says ABORTED to a peer while it is prepared": broken(
        row(S.PREPARED, I.PEER_ASKS, A.SAY_ABORTED, S.PREPARED),
        "a-prepared-peer-says-nothing",
        "a-prepared-peer-says-nothing-after-a-kill",
    ),
    "says ABORTED to a peer and does not refuse": broken(
        row(S.UNKNOWN, I.PEER_ASKS, A.SAY_ABORTED, S.UNKNOWN), "an-unvoted-peer-refuses", "a-refusal-outlives-a-kill"
    ),
    "refuses for a peer in memory only": broken(
        row(S.UNKNOWN, I.PEER_ASKS, A.SAY_ABORTED, S.ABORTED), "a-refusal-outlives-a-kill"
    ),
    "takes its NO for a refusal": broken(
        row(S.DENIED, I.PEER_ASKS, A.SAY_ABORTED, S.DENIED), "a-no-becomes-durable-for-a-peer"
    ),
    "says ABORTED to a peer while it waits for a lock": broken(
        row(S.WAITING, I.PEER_ASKS, A.SAY_ABORTED, S.WAITING), "a-waiting-peer-refuses"
    ),
    "says ABORTED to a peer below the mark": broken(
        row(S.UNKNOWN, I.PEER_ASKS_ENDED, A.SAY_ABORTED, S.UNKNOWN), "below-the-mark-nothing-is-told"
    ),
    "speaks for any file": broken(
        for_good(mutants.participant_event(node.PeerAsked, mutants.asked_whoever_it_is)),
        "another-file-is-not-spoken-for",
    ),
    "vouches for a read-only branch": broken(
        for_good(mutants.participant_event(node.PeerAsked, vouch_for_reads)), "a-read-only-branch-never-vouches"
    ),
    "tells a peer a heuristic outcome": broken(
        row(S.HEURISTIC, I.PEER_ASKS, A.SAY_KNOWN, S.HEURISTIC), "a-heuristic-outcome-is-no-answer"
    ),
    "acknowledges a COMMIT without a trace": broken(
        row(S.UNKNOWN, I.COMMIT, A.ACKNOWLEDGE, S.UNKNOWN),
        "a-commit-without-a-trace-is-not-acknowledged",
        "a-contradiction-is-an-alarm",
    ),
    "does not acknowledge a COMMIT below the mark": broken(
        row(S.UNKNOWN, I.COMMIT_ENDED, A.ALARM, S.UNKNOWN), "a-commit-below-the-mark-is-acknowledged"
    ),
    "prepares below the mark": broken(
        row(S.UNKNOWN, I.PREPARE_ENDED, A.QUEUE, S.WAITING),
        "a-prepare-below-the-mark-is-refused",
        "what-a-mark-lists-is-not-below-it",
        "an-older-mark-takes-nothing-back",
        "a-later-list-takes-nothing-back",
    ),
    "forgets an abort that came before its prepare": broken(
        row(S.UNKNOWN, I.ABORT, A.NOTHING, S.UNKNOWN), "a-prepare-after-its-abort-is-refused"
    ),
    "forgets what has ended at once": broken(
        method(Participant, "_move", mutants.forget_at_once),
        "a-prepare-after-its-abort-is-refused",
        "an-abort-is-final",
        "a-doubled-commit-is-applied-once",
        "a-prepare-after-its-commit-starts-nothing",
        may=ANY,
    ),
    "forgets what has ended when it starts": broken(
        method(VoteLog, "recover", recover_without_outcomes),
        "an-abort-outlives-a-kill",
        "a-commit-is-remembered-through-a-kill",
        "what-was-below-the-mark-stays-ended-through-a-kill",
        "a-refusal-outlives-a-kill",
        "a-trace-answers-in-a-later-life",
        may=ANY,
    ),
    "takes an older mark for the newest": broken(
        method(Log, "join", mutants.replaced_mark),
        "an-older-mark-takes-nothing-back",
        "a-later-list-takes-nothing-back",
    ),
    "ignores what a mark lists": broken(
        method(Log, "below", lambda self, number: number < self.low), "what-a-mark-lists-is-not-below-it"
    ),
    "frees read locks with its vote": broken(
        also(A.VOTE_READ_ONLY, lambda self, branch: self._unlock(branch, applied=False)),
        "read-only-keeps-its-locks",
        "an-abort-releases-read-only",
        "read-only-asks-and-waits",
        "absence-is-locked",
        "nobody-overtakes",
    ),
    "frees read locks on PENDING": broken(
        method(Participant, "_heard", release_on_pending), "read-only-asks-and-waits"
    ),
    "takes no locks when it starts": broken(
        method(LockTable, "hold", lambda self, owner, locks, values: None),
        "locks-are-taken-again",
        "bounds-are-taken-again",
    ),
    "answers a prepare once only": broken(
        row(S.PREPARED, I.PREPARE, A.NOTHING, S.PREPARED), "a-doubled-prepare-gets-its-vote-again"
    ),
    "takes other content for the same": broken(
        method(Participant, "_differs", lambda self, *args, **kwargs: False), "other-content-gets-no-yes"
    ),
    "runs what another incarnation was asked to": broken(
        row(S.UNKNOWN, I.ONE_PHASE_FOREIGN, A.QUEUE, S.WAITING),
        "another-incarnation-is-dropped",
        "a-request-of-an-earlier-life-is-not-run",
    ),
    "says ABORTED to the coordinator and does not refuse": broken(
        row(S.UNKNOWN, I.COORDINATOR_ASKS, A.SAY_ABORTED, S.UNKNOWN),
        "another-incarnation-is-dropped",
        "asked-it-refuses-for-good",
    ),
    "takes a request that waits for no trace": broken(
        row(S.WAITING, I.COORDINATOR_ASKS, A.SAY_ABORTED, S.WAITING), "a-waiting-request-is-pending"
    ),
    "answers the coordinator below the mark": broken(
        row(S.UNKNOWN, I.COORDINATOR_ASKS_ENDED, A.SAY_ABORTED, S.UNKNOWN), "below-the-mark-it-is-silent"
    ),
    "acknowledges a heuristic outcome as an ordinary one": broken(
        action(A.ACKNOWLEDGE_HEURISTIC, acknowledge_plainly),
        "resolved-as-committed-it-goes-on-asking",
        "a-torn-branch-says-so",
        "a-heuristic-outcome-outlives-a-kill",
    ),
    "asks no more once a person has resolved it": broken(
        lambda: setattr(node, "IN_DOUBT", frozenset({S.PREPARED, S.READ_ONLY})),
        "resolved-as-committed-it-goes-on-asking",
        "a-heuristic-outcome-outlives-a-kill",
    ),
    "sums the adds of a branch": broken(
        method(Pending, "of", classmethod(mutants.summed)), "pending-adds-are-not-summed"
    ),
    "ignores the bounds of pending adds": broken(
        method(Escrow, "judge", mutants.only_own_floors), "the-bounds-of-others-count", "sixty-four-bits-are-a-bound"
    ),
    "counts an aborted add": broken(
        method(Line, "leave", lambda self, owner, applied: _leave(self, owner, applied=True)),
        "an-aborted-add-counts-no-more",
    ),
    "names rows as they are spelled": broken(
        method(planning, "target_of", names_as_given),
        "two-names-are-one-lock",
        "a-parent-is-locked-by-its-child",
        "a-child-waits-for-its-parents-delete",
    ),
    "locks no unique values": broken(
        method(planning.Locks, "want", no_unique_locks), "a-unique-value-is-locked", "every-yes-is-applicable"
    ),
    "keeps the locks of a NO": broken(
        action(A.VOTE_NO, deny_and_keep),
        "no-has-a-reason-and-leaves-nothing",
        "a-check-is-a-bound",
        "bounds-are-taken-again",
        may=ANY,
    ),
    "stays in line after an abort": broken(
        row(S.WAITING, I.ABORT, A.REMEMBER, S.ABORTED), "an-abort-leaves-the-line", may=ANY
    ),
    "calls a lock timeout final": broken(
        method(Participant, "_lock_timeout", never_retryable), "a-long-wait-is-a-retryable-no"
    ),
    "applies with the vote": broken(applied_at_once, "an-abort-is-final", may=ANY),
    "asks nothing in its hello": broken(
        method(drivers.Driver, "_answer_hello", no_questions),
        "yes-outlives-a-kill",
        "a-hello-asks-about-what-is-in-doubt",
        "answers-on-the-lane-are-obeyed",
        "silence-and-pending-end-nothing",
        "a-silent-peer-ends-nothing",
        "resolved-as-committed-it-goes-on-asking",
        "a-heuristic-outcome-outlives-a-kill",
    ),
    "has one incarnation for all its lives": broken(one_incarnation, "another-life-is-another-incarnation", may=ANY),
    "stores no number of its coordinator": broken(
        method(LogWriter, "note_seen", lambda self, log, n: None),
        "stored-number-is-said-in-the-hello",
        "an-older-coordinator-log-is-refused",
        "an-older-coordinator-log-is-refused-by-another-life",
    ),
}

PREPARES_NOTHING = "votes YES and prepares nothing at its server"
LANES_ONLY = "offers lanes only"
WAYS = {
    **BROKEN,
    PREPARES_NOTHING: broken(prepares_nothing, "single-calls-do-the-same", "yes-is-applied-after-a-kill"),
    LANES_ONLY: broken(lanes_only),
}
"""What a participant can be told to be."""
