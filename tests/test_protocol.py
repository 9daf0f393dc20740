"""Both protocol tables, pair by pair: legal pairs move as the table says, illegal ones are refused without moving."""

from __future__ import annotations

import pytest

import coordinator.events as ce
import participant.events as pe
from coordinator import protocol as cp
from coordinator.node import Coordinator
from coordinator.settings import CoordinatorSettings
from coordinator.tables import Attempt, Open, Part, Waiter
from faults.simulator.disks import VoteDisk
from faults.simulator.workload import initial_rows
from participant import protocol as pp
from participant.node import Participant
from participant.settings import ParticipantSettings
from participant.tables import Branch
from tests.world import LOG, add, encoded
from troth.reasons import reason
from troth.v1.types_pb2 import Code
from troth.words import AttemptId, Now, Outcome, Vote

NOW = Now(10.0, 10.0)
WORK = encoded(add(1, 0))
DISK = VoteDisk("a", "file-a", initial_rows())
DISK.open()
PLAN = DISK.resource.plan
NO = reason(Code.CODE_BELOW_MIN, "no")

# What the inputs carry besides themselves.
BRANCH_ARGUMENTS = {
    pp.Input.NOT_GRANTED: NO,
    pp.Input.TRIED_NO: NO,
    pp.Input.PEER_ASKS: 7,
    pp.Input.PEER_ASKS_ENDED: 7,
    pp.Input.RESOLVE_COMMIT: pe.ResolveAsked(7, AttemptId(LOG, 1), Outcome.COMMITTED, "why"),
    pp.Input.RESOLVE_ABORT: pe.ResolveAsked(7, AttemptId(LOG, 1), Outcome.ABORTED, "why"),
}
HOLDS_LOCKS = {pp.State.WAITING, pp.State.TRYING, pp.State.RUNNING, pp.State.PREPARED, pp.State.READ_ONLY}


def participant_in(state: pp.State) -> tuple[Participant, Branch]:
    node = Participant("a", "file-a", 1, ParticipantSettings(), PLAN, pe.Recovered((), (), (), (), ()))
    node.start(NOW)
    branch = Branch(AttemptId(LOG, 1), NOW.mono)
    log = node._log(LOG)
    branch.state, branch.operations, branch.plan = state, WORK, PLAN(WORK)
    branch.reason, branch.done, branch.known = NO, Outcome.COMMITTED, Outcome.COMMITTED
    if state is not pp.State.UNKNOWN:
        log.branches[1] = branch
    if state in HOLDS_LOCKS:
        node.lock_table.hold(branch.attempt, branch.plan.locks, {})
    return node, branch


@pytest.mark.parametrize("given", pp.Input, ids=lambda i: i.name)
@pytest.mark.parametrize("state", pp.State, ids=lambda s: s.name)
def test_every_pair_of_the_participant(state: pp.State, given: pp.Input) -> None:
    node, branch = participant_in(state)
    node._move(branch, given, BRANCH_ARGUMENTS.get(given))
    effects = node._effects()
    alarms = [effect for effect in effects if isinstance(effect, pe.Alarm)]
    move = pp.TABLE.get((state, given))
    if move is None:
        assert branch.state is state, "an illegal pair must not move"
        assert [type(e) for e in effects if not isinstance(e, pe.Reply | pe.WakeAt)] == [pe.Alarm]
        assert given.value in alarms[0].message
    else:
        action, after = move
        assert branch.state is after
        assert bool(alarms) == (action is pp.Action.ALARM)
        assert (LOG, 1) not in [(LOG, n) for n in node.logs[LOG].branches] or after is not pp.State.UNKNOWN


ATTEMPT_ARGUMENTS = {cp.Input.ABORT_ASKED: Waiter(9, False, 20.0)}


def coordinator_in(state: cp.State) -> tuple[Coordinator, Attempt]:
    node = Coordinator(LOG, 1, CoordinatorSettings(), {"a": "addr-a"}, ce.Recovered((), (), 0.0, (), ""))
    node.start(NOW)
    branch = ce.Branch("a", WORK, False, False, 1)
    sub = Open("id-1", chosen=True, digest=b"d", branches=(branch,), now=NOW)
    sub.reason, sub.attempts, sub.deadline = NO, 1, 20.0
    attempt = sub.attempt = Attempt(node._number(), "id-1", sub, NOW.mono)
    attempt.state = state
    attempt.parts["a"] = Part(branch, "file-a", 1)
    attempt.parts["a"].vote = Vote.YES
    node.submissions[sub.id] = sub
    node.attempts[attempt.number] = attempt
    return node, attempt


@pytest.mark.parametrize("given", cp.Input, ids=lambda i: i.name)
@pytest.mark.parametrize("state", cp.State, ids=lambda s: s.name)
def test_every_pair_of_the_coordinator(state: cp.State, given: cp.Input) -> None:
    node, attempt = coordinator_in(state)
    node._move(attempt, given, ATTEMPT_ARGUMENTS.get(given))
    effects = node._effects()
    alarms = [effect for effect in effects if isinstance(effect, ce.Alarm)]
    move = cp.TABLE.get((state, given))
    if move is None:
        assert attempt.state is state, "an illegal pair must not move"
        assert [type(e) for e in effects if not isinstance(e, ce.WakeAt)] == [ce.Alarm]
        assert given.value in alarms[0].message
    else:
        assert attempt.state is move[1]
        assert not alarms
        assert (attempt.number in node.attempts) == (move[1] is not cp.State.ENDED)


@pytest.mark.parametrize("protocol", [pp, cp], ids=["participant", "coordinator"])
def test_every_state_input_and_action_is_used(protocol: object) -> None:
    table = protocol.TABLE  # type: ignore[attr-defined]
    assert {state for state, _ in table} | {after for _, after in table.values()} == set(protocol.State)  # type: ignore[attr-defined]
    assert {given for _, given in table} == set(protocol.Input)  # type: ignore[attr-defined]
    assert {action for action, _ in table.values()} == set(protocol.Action)  # type: ignore[attr-defined]


def test_rule_6_no_way_out_of_prepared_but_a_decision_or_a_person() -> None:
    """A prepared participant never decides alone: only these inputs leave PREPARED."""
    ways = {given for (state, given), (_, after) in pp.TABLE.items() if state is pp.State.PREPARED is not after}
    assert ways == {pp.Input.COMMIT, pp.Input.ABORT, pp.Input.RESOLVE_COMMIT, pp.Input.RESOLVE_ABORT}


def test_rule_13_nothing_but_the_participant_ends_a_delegated_attempt() -> None:
    ways = {given for (state, given), (_, after) in cp.TABLE.items() if state is cp.State.DELEGATED is not after}
    answers = {cp.Input.COMMITTED_ALONE, cp.Input.COMMITTED_ALONE_ASSIGNED}
    answers |= {cp.Input.FAILED, cp.Input.FAILED_CLAIMED, cp.Input.FAILED_FOR_GOOD}
    assert ways == answers | {cp.Input.RESOLVED}


def test_rule_4_after_the_decision_is_handed_over_nothing_aborts() -> None:
    aborting = {cp.State.ABORTING, cp.State.RECORDING_ABORT}
    for (state, given), (_, after) in cp.TABLE.items():
        if state in (cp.State.RECORDING, cp.State.COMMITTING, cp.State.SETTLING):
            assert after not in aborting, (state, given)
