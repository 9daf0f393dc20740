"""The checks of `world.py` and `judge.py` find mistakes: each mutant breaks one rule, in memory only, and a random run
must notice within SEEDS runs. A mutant that survives is a hole in the checks, not luck: mend the checks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

import pytest

import coordinator.events as ce
from coordinator import attempts, node
from coordinator import protocol as cp
from coordinator.node import Coordinator
from participant import node as participant_node
from participant import protocol as pp
from participant.escrow import Escrow, Pending, Verdict
from participant.locks import Line, LockTable
from participant.node import Participant
from participant.tables import Log
from tests.play import Play
from tests.world import COORDINATOR, World
from troth.messages import Acknowledged, Voted
from troth.words import Answer, Vote

SEEDS = 400

Mutant = Callable[[], list[AbstractContextManager[Any]]]
PS, PI, PA = pp.State, pp.Input, pp.Action
CS, CI, CA = cp.State, cp.Input, cp.Action


def participant_row(*row: Any) -> Mutant:
    """Another (action, next state) for one pair of the participant's table."""
    return lambda: [patch.dict(pp.TABLE, {row[:2]: row[2:]})]


def coordinator_row(*row: Any) -> Mutant:
    return lambda: [patch.dict(cp.TABLE, {row[:2]: row[2:]})]


def also(action: pp.Action, more: Callable[[Any, Any], None], *, first: bool = False) -> Mutant:
    """A participant that does something more with an action."""
    done = participant_node._ACTIONS[action]

    def both(self: Participant, branch: Any, argument: Any) -> None:
        for do in (more, done) if first else (done, more):
            do(self, branch) if do is more else do(self, branch, argument)  # type: ignore[call-arg]

    return lambda: [patch.dict(participant_node._ACTIONS, {action: both})]


def instead(action: cp.Action, done: Callable[[Any, Any], object]) -> Mutant:
    """A coordinator that does something else for an action."""
    return lambda: [patch.dict(attempts._ACTIONS, {action: lambda self, attempt, _: done(self, attempt)})]


def method(owner: Any, name: str, replacement: Any) -> Mutant:
    return lambda: [patch.object(owner, name, replacement)]


def unlock_now(self: Participant, branch: Any) -> None:
    self._unlock(branch, applied=True)
    while self._todo:
        self._move(*self._todo.popleft())


def end_at_first(self: Coordinator, attempt: Any, participant: str) -> None:
    if attempt.owed.pop(participant, None) is not None and attempt.state is CS.COMMITTING:
        self._move(attempt, CI.LAST_ACKNOWLEDGED)


def record_and_tell(self: Coordinator, attempt: Any) -> None:
    self._do_record_commit(attempt, None)
    self._flushes.pop()[1]()


def drop_at_once(self: Coordinator, attempt: Any) -> None:
    self._append(ce.Dropped(attempt.number), forced=False)
    del self.attempts[attempt.number]
    self._mark_soon()
    self._again(attempt)


def answer_with(live: Answer) -> Mutant:
    known = Coordinator._answer

    def answer(self: Coordinator, log: str, number: int) -> Answer | None:
        found = known(self, log, number)
        return live if found is Answer.PENDING else found

    return method(Coordinator, "_answer", answer)


def answer_log(self: Coordinator, sub: Any, entry: ce.Entry) -> None:
    assert entry.state is not None
    for waiter in sub.waiters:
        self._out.append(ce.Reply(waiter.client, ce.Result(sub.id, entry.state, entry.reason)))
    self._forget(sub)


def old_epoch(self: World, name: str) -> None:
    if name == COORDINATOR and self.decision_disk.epoch:
        self.decision_disk.epoch -= 1
    _start(self, name)


def forget_at_once(self: Participant, branch: Any, given: Any, argument: Any = None) -> None:
    _move(self, branch, given, argument)
    if branch.state in participant_node.REMEMBERED:
        self.logs[branch.attempt.log].branches.pop(branch.attempt.number, None)


def only_floors(self: Escrow, adds: Any) -> Verdict:
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


_start, _move, _leave, _pending_of = World.start, Participant._move, Line.leave, Pending.of.__func__  # type: ignore[attr-defined]

MUTANTS: dict[str, Mutant] = {
    "rule 2: the decision is told before it is durable": instead(CA.RECORD_COMMIT, record_and_tell),
    "rule 2: abort ID does not ask the register": coordinator_row(
        CS.PREPARING, CI.ABORT_ASKED, CA.RECORD_ABORT, CS.RECORDING_ABORT
    ),
    "rule 5: ended before the last acknowledgement": method(Coordinator, "_settle_owed", end_at_first),
    "rule 6: a vote before it is durable": also(
        PA.TRY,
        lambda self, b: self._send(b, Voted(b.attempt.number, Vote.YES, self.incarnation)) if not b.read_only else None,
    ),
    "rule 6: an acknowledgement before it is durable": also(
        PA.APPLY, lambda self, b: self._tell(b, Acknowledged(b.attempt.number))
    ),
    "rule 6: a prepared participant aborts on timeout": participant_row(PS.PREPARED, PI.INQUIRE, PA.UNDO, PS.ABORTED),
    "rule 6: a prepared peer says aborted": participant_row(PS.PREPARED, PI.PEER_ASKS, PA.SAY_ABORTED, PS.PREPARED),
    "rule 6: a peer without a trace says aborted": participant_row(
        PS.UNKNOWN, PI.PEER_ASKS, PA.SAY_ABORTED, PS.UNKNOWN
    ),
    "rule 7: a live attempt is answered as aborted": answer_with(Answer.ABORTED),
    "rule 7: a live attempt is answered as committed": answer_with(Answer.COMMITTED),
    "rule 7: finished attempts are forgotten at once": method(Participant, "_move", forget_at_once),
    "rule 7: the exceptions of a mark are ignored": method(Log, "below", lambda self, number: number < self.low),
    "rule 7: the mark passes a claim whose end is not durable": instead(CA.DROP, drop_at_once),
    "rule 9: a READ_ONLY voter releases early": also(PA.VOTE_READ_ONLY, lambda self, b: self._unlock(b, applied=False)),
    "rule 11: ABORTED is told before it is durable": instead(
        CA.RECORD_ABORT, lambda self, a: (self._do_record_abort(a, None), self._flushes.pop()[1]())
    ),
    "rule 11: all-READ_ONLY of a client's id is not written": coordinator_row(
        CS.DECIDING, CI.WON_COMMIT, CA.RELEASE, CS.ENDED
    ),
    "rule 11: other content hears the outcome": method(Coordinator, "_answer_from_log", answer_log),
    "rule 11: an expired id is run": lambda: [patch.dict(node._EVENTS, {ce.HorizonMoved: lambda self, event: None})],
    "rule 12: a heuristic acknowledgement is not recorded": lambda: [
        patch.dict(node._MESSAGES, {Acknowledged: settle_unrecorded})
    ],
    "rule 12: a branch resolved by hand stops asking": method(
        participant_node, "IN_DOUBT", frozenset({PS.PREPARED, PS.READ_ONLY})
    ),
    "rule 13: sent before its submitted record is durable": coordinator_row(
        CS.NEW, CI.CLAIM, CA.SEND_ONE_PHASE, CS.DELEGATED
    ),
    "rule 13: abort ID ends an open one-phase attempt": coordinator_row(
        CS.DELEGATED, CI.ABORT_ASKED, CA.ASK_REGISTER_ABORT, CS.ABORTING
    ),
    "rule 13: a branch that waits for a lock is no trace": participant_row(
        PS.WAITING, PI.COORDINATOR_ASKS, PA.SAY_ABORTED, PS.WAITING
    ),
    "rule 13: a branch at the writer is no trace": participant_row(
        PS.RUNNING, PI.COORDINATOR_ASKS, PA.SAY_ABORTED, PS.RUNNING
    ),
    "rule 13: asked, it says aborted and does not refuse": participant_row(
        PS.UNKNOWN, PI.COORDINATOR_ASKS, PA.SAY_ABORTED, PS.UNKNOWN
    ),
    "locks: gone before the record that ends the branch is queued": also(PA.APPLY, unlock_now, first=True),
    "locks: not taken again after a restart": method(LockTable, "hold", lambda self, owner, locks, values: None),
    "escrow: the bounds of others and ceilings are ignored": method(Escrow, "judge", only_floors),
    "escrow: adds of one branch are summed": method(Pending, "of", classmethod(summed)),
    "escrow: an abort counts as applied": method(
        Line, "leave", lambda self, owner, applied: _leave(self, owner, applied=True)
    ),
    "section 4: an epoch is used again": method(World, "start", old_epoch),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name: str) -> None:
    for seed in range(SEEDS):
        with ExitStack() as stack:
            for each in MUTANTS[name]():
                stack.enter_context(each)
            try:
                Play(seed).run()
            except AssertionError:
                return
    pytest.fail(f"{name}: survived {SEEDS} runs")
