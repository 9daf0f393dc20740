"""Single paths of a participant whose data are at a server: the server does its part of a job, its record comes after.

`a` has its data at a server, `b` in its file. What a server is asked waits in `world.errands` until `world.carry`.
"""

from __future__ import annotations

import pytest

import coordinator.events as ce
import participant.events as pe
from faults.simulator.checks.counts import counted
from faults.simulator.model import Op
from faults.simulator.servers import at_once
from participant.events import Recovered
from participant.node import Participant
from participant.protocol import State
from participant.resources import Plan
from participant.resources.outside import Survey
from participant.settings import ParticipantSettings
from tests.world import COORDINATOR, LOG, Manual, add, branch, encoded, judge, look, put
from troth.log import LogRefused
from troth.messages import Abort, Acknowledged, Commit, Mark, OnePhase, OnePhaseEnded, Prepare, Voted
from troth.reasons import reason
from troth.v1.types_pb2 import Code
from troth.words import Answer, AttemptId, Now, Outcome, Vote

BOTH = (branch("a", add(1)), branch("b", add(1)))
ALONE = (branch("a", add(1)),)


def outside() -> Manual:
    world = Manual(outside=["a"])
    for name in (*world.names, COORDINATOR):
        world.flush(name)
    return world


def attempt(world: Manual) -> AttemptId:
    return AttemptId(LOG, max(world.watch.sent))


def state(world: Manual, number: int) -> State:
    return world.participants["a"].logs[LOG].branches[number].state


def deliver(world: Manual, kind: type, *, keep: bool = False) -> None:
    world.deliver(next(i for i, letter in enumerate(world.net) if isinstance(letter.message, kind)), keep=keep)


def said(world: Manual, kind: type) -> list[object]:
    return [letter.message for letter in world.net if isinstance(letter.message, kind) and letter.to == COORDINATOR]


def prepared(world: Manual) -> AttemptId:
    """Both have voted YES, and the votes are under way; what is lost then is not tried again."""
    world.submits(*BOTH, timeout_s=0.01)
    deliver(world, Prepare)
    deliver(world, Prepare)
    world.carry()
    world.flush("a")
    world.flush("b")
    return attempt(world)


def decided(world: Manual) -> AttemptId:
    """The commits are under way."""
    number = prepared(world)
    deliver(world, Voted)
    deliver(world, Voted)
    world.flush(COORDINATOR)
    return number


def restarted(world: Manual) -> None:
    world.crash("a")
    world.start("a")


# The order: the server, the record, the word.


def test_each_step_is_the_servers_first_then_the_logs_then_said() -> None:
    world = outside()
    client = world.submits(*BOTH)
    deliver(world, Prepare)
    assert not world.disk("a").queue
    world.carry()
    assert attempt(world) in world.server("a").prepared
    assert not said(world, Voted)
    world.flush("a")
    assert said(world, Voted)
    deliver(world, Prepare)
    world.flush("b")
    deliver(world, Voted)
    deliver(world, Voted)
    world.flush(COORDINATOR)
    deliver(world, Commit)
    assert not world.disk("a").queue
    assert attempt(world) in world.participants["a"].lock_table
    world.carry()
    assert world.value("a") == 11
    assert attempt(world) not in world.participants["a"].lock_table
    assert not said(world, Acknowledged)
    world.flush("a")
    assert said(world, Acknowledged)
    assert world.replies[client].outcome is Outcome.COMMITTED
    world.heal()
    judge(world)
    assert not world.alarms


def test_a_branch_that_only_looks_leaves_nothing_at_the_server_nor_in_the_log() -> None:
    world = outside()
    world.submits(branch("a", look()), branch("b", look()))
    deliver(world, Prepare)
    world.carry()
    assert [message.vote for message in said(world, Voted)] == [Vote.READ_ONLY]  # type: ignore[attr-defined]
    assert not world.server("a").prepared
    assert not world.disk("a").queue
    world.heal()
    judge(world)


def test_an_abort_while_the_trial_is_at_the_server_is_done_behind_it() -> None:
    world = outside()
    world.submits(*BOTH, id="pay")
    deliver(world, Prepare)
    world.feed("a", pe.Received(LOG, (Abort(attempt(world).number),)))
    assert [type(errand.job) for errand in world.errands] == [pe.Try]
    world.carry()
    assert [type(errand.job) for errand in world.errands] == [pe.Undo]
    assert not world.disk("a").queue, "no prepared record of what is aborted"
    assert attempt(world) in world.participants["a"].lock_table, "its server has it prepared"
    world.carry()
    assert not world.server("a").prepared
    assert attempt(world) not in world.participants["a"].lock_table
    world.heal()
    judge(world)


@pytest.mark.parametrize("at_a", [add(1), look()], ids=["updating", "reading"])
def test_what_is_aborted_before_its_vote_costs_one_lazy_record_at_most(at_a: Op) -> None:
    world = outside()
    world.watch.counts.active = True
    world.submits(branch("a", at_a), branch("b", add(1, high=0)), id="pay")
    deliver(world, Prepare)
    deliver(world, Prepare)
    world.flush("b")
    deliver(world, Voted)
    world.flush(COORDINATOR)
    deliver(world, Abort)
    world.carry()
    world.carry()
    world.flush("a")
    assert not said(world, Voted)
    counted(world)
    world.heal()
    judge(world)


# What dies between the server's part and the record.


def test_committed_at_the_server_and_not_recorded_it_is_committed_once() -> None:
    world = outside()
    decided(world)
    deliver(world, Commit)
    world.carry(told=False)
    restarted(world)
    assert state(world, attempt(world).number) is State.PREPARED
    world.heal()
    judge(world)
    assert world.value("a") == 11
    assert not world.alarms


def test_an_orphan_is_adopted_in_doubt_and_aborted_as_its_coordinator_says() -> None:
    world = outside()
    world.submits(*BOTH, timeout_s=0.01)
    deliver(world, Prepare)
    world.carry(told=False)
    restarted(world)
    assert state(world, attempt(world).number) is State.PREPARED
    world.open_lane("a")
    world.heal()
    judge(world)
    assert world.value("a") == 10


def test_an_orphan_of_a_restored_file_is_committed_as_its_coordinator_says() -> None:
    """The file is a copy from before its record; the server and the coordinator are not."""
    world = outside()
    number = decided(world)
    world.crash("a")
    world.vote_disks["a"].file.connection.execute("DELETE FROM troth_prepared")
    world.vote_disks["a"].ledger.prepared.clear()
    world.start("a")
    assert state(world, number.number) is State.PREPARED
    world.heal()
    assert world.value("a") == 11
    assert world.vote_disks["a"].ledger.outcomes[number.number] is Outcome.COMMITTED


def test_rule_6_an_orphan_does_not_vote_again() -> None:
    """Its locks are not held any more, and the rows that it read are gone."""
    world = outside()
    world.submits(*BOTH)
    prepare = next(letter.message for letter in world.net if isinstance(letter.message, Prepare))
    deliver(world, Prepare)
    world.carry(told=False)
    restarted(world)
    world.open_lane("a")
    world.feed("a", pe.Received(LOG, (prepare,)))
    caller = world.next_number()
    world.feed("a", pe.Received(LOG, (prepare,), caller))
    assert not said(world, Voted)
    assert isinstance(world.replies[caller], pe.Refused)
    world.heal()
    judge(world)


def test_rule_6_what_an_earlier_life_has_rolled_back_unrecorded_does_not_vote_again() -> None:
    world = outside()
    world.submits(*BOTH, timeout_s=0.01)
    prepare = next(letter.message for letter in world.net if isinstance(letter.message, Prepare))
    deliver(world, Prepare)
    world.carry()
    world.flush("a")
    world.feed("a", pe.Received(LOG, (Abort(prepare.number),)))
    world.carry(told=False)
    restarted(world)
    assert state(world, prepare.number) is State.PREPARED
    assert AttemptId(LOG, prepare.number) not in world.server("a").prepared
    world.net.clear()
    world.open_lane("a")
    world.feed("a", pe.Received(LOG, (prepare,)))
    assert not said(world, Voted)
    world.heal()
    judge(world)
    assert world.value("a") == 10


@pytest.mark.parametrize("id", ["", "one"])
def test_a_one_phase_commit_that_only_the_server_has_is_taken_up(id: str) -> None:
    world = outside()
    world.submits(*ALONE, id=id)
    world.flush(COORDINATOR)
    deliver(world, OnePhase)
    world.carry(told=False)
    restarted(world)
    assert state(world, attempt(world).number) is State.COMMITTED
    world.heal()
    judge(world)
    assert world.value("a") == 11


def test_the_history_has_what_only_the_server_had_in_the_servers_order() -> None:
    """A two-phase commit whose record was lost came before a one-phase one of the same row, whose record was too; and
    the higher number may have come first."""
    world = outside()
    first = decided(world)
    deliver(world, Commit)
    world.carry()
    for number in (first.number + 9, first.number + 8):
        request = OnePhase(number, encoded(put(number % 100)), world.lives["a"])
        world.vote_disks["a"].ledger.works[number] = (put(number % 100),)
        world.feed("a", pe.Received(LOG, (request,)))
        world.carry()
    restarted(world)
    order = [first.number, first.number + 9, first.number + 8]
    assert world.vote_disks["a"].history() == order
    restarted(world)
    assert world.vote_disks["a"].history() == order, "once"
    world.open_lane("a")
    world.settle()
    assert world.vote_disks["a"].history() == order
    assert world.vote_disks["a"].ledger.outcomes[first.number] is Outcome.COMMITTED


def test_what_the_mark_has_passed_here_is_not_taken_up_again_from_a_server_that_still_remembers_it() -> None:
    world = outside()
    world.submits(*BOTH)
    world.settle()
    number = attempt(world).number
    world.feed("a", pe.Received(LOG, (Mark(number + 1, ()),)))
    world.pass_time(2)
    world.disk("a").flush()  # and the server does not hear of it
    assert world.server("a").committed
    restarted(world)
    assert number not in world.participants["a"].logs[LOG].branches
    assert world.vote_disks["a"].history() == [number]


def test_what_the_mark_excepts_is_taken_up() -> None:
    world = outside()
    world.submits(*ALONE)
    deliver(world, OnePhase)
    number = attempt(world).number
    world.feed("a", pe.Received(LOG, (Mark(number + 1, (number,)),)))
    world.pass_time(2)
    world.flush("a")
    world.carry(told=False)
    restarted(world)
    assert state(world, number) is State.COMMITTED


def test_a_server_that_is_older_than_the_log_is_refused() -> None:
    world = outside()
    world.submits(*BOTH)
    world.settle()
    world.crash("a")
    server = world.server("a")
    committed = dict(server.committed)
    server.committed.clear()
    with pytest.raises(LogRefused, match="restored from an older copy"):
        world.start("a")
    world.vote_disks["a"].file.connection.execute("ROLLBACK")
    (number,) = committed
    server.committed.update(committed)
    server.prepared[number] = server.plan(encoded(add(1)))
    with pytest.raises(LogRefused, match="restored from an older copy"):
        world.start("a")
    world.vote_disks["a"].file.connection.execute("ROLLBACK")
    del server.prepared[number]
    world.start("a")


def test_a_rollback_that_the_servers_crash_took_away_is_no_older_server_and_no_doubt() -> None:
    """The first look rolls it back again: it is none of those that the server may hold."""
    world = outside()
    world.submits(*BOTH, id="pay")
    deliver(world, Prepare)
    world.carry()
    number = attempt(world)
    world.feed("a", pe.Received(LOG, (Abort(number.number),)))
    assert not world.participants["a"].aborted(number), "while the server may still say otherwise"
    world.carry()
    world.flush("a")
    world.server("a").forget_rollbacks()
    restarted(world)
    assert number in world.server("a").prepared
    assert number not in world.participants["a"].at_server() | world.participants["a"].prepared()
    assert world.participants["a"].aborted(number)


# Somebody at the server ends a branch.


@pytest.mark.parametrize("found", [Outcome.COMMITTED, Outcome.ABORTED])
def test_rule_12_a_branch_ended_at_the_server_is_found_and_goes_on_asking(found: Outcome) -> None:
    world = outside()
    number = decided(world)
    world.server("a").end_by_hand(number, found)
    world.look("a")
    assert state(world, number.number) is State.HEURISTIC
    assert any("was ended as" in alarm for alarm in world.alarms)
    world.carry()
    world.flush("a")
    assert number not in world.participants["a"].lock_table
    world.heal()
    judge(world)
    kept = world.vote_disks["a"].ledger.heuristics[number.number]
    assert (kept.done, kept.known) == (found, Outcome.COMMITTED)
    assert world.participants["a"].aborted(number) is (found is Outcome.ABORTED)
    assert any("torn" in alarm for alarm in world.alarms) is (found is Outcome.ABORTED)


def test_a_branch_found_in_doubt_at_the_start_is_not_taken_as_ended_by_somebody_else() -> None:
    world = outside()
    decided(world)
    deliver(world, Commit)
    world.carry(told=False)
    restarted(world)
    world.look("a")
    assert state(world, attempt(world).number) is State.PREPARED
    assert not world.alarms


def test_rule_12_rolled_back_at_the_server_a_commit_is_acknowledged_as_heuristic() -> None:
    world = outside()
    number = decided(world)
    world.server("a").end_by_hand(number, Outcome.ABORTED)
    deliver(world, Commit)
    world.carry()
    assert number not in world.participants["a"].lock_table
    world.flush("a")
    assert said(world, Acknowledged) == [Acknowledged(number.number, Outcome.ABORTED)]
    assert any("torn" in alarm for alarm in world.alarms)
    world.heal()
    judge(world)
    assert world.value("a") == 10
    restarted(world)
    assert state(world, number.number) is State.LEARNED


def test_rule_12_committed_at_the_server_an_abort_is_kept_with_both_and_in_the_history() -> None:
    world = outside()
    number = prepared(world)
    world.lose_lane("b")  # a vote is lost: the attempt is aborted
    world.server("a").end_by_hand(number, Outcome.COMMITTED)
    world.heal()
    judge(world)
    kept = world.vote_disks["a"].ledger.heuristics[number.number]
    assert (kept.done, kept.known) == (Outcome.COMMITTED, Outcome.ABORTED)
    assert world.vote_disks["a"].history() == [number.number]
    assert any("torn" in alarm for alarm in world.alarms)


def test_rule_12_an_orphan_that_somebody_commits_while_its_participant_is_down_is_found() -> None:
    """The server does not say who committed it; that it was prepared, and not one-phase, it does."""
    world = outside()
    world.submits(*BOTH)
    deliver(world, Prepare)
    world.carry(told=False)
    world.crash("a")
    world.server("a").end_by_hand(attempt(world), Outcome.COMMITTED)
    world.start("a")
    assert state(world, attempt(world).number) is State.PREPARED
    world.heal()
    judge(world)
    assert any("torn" in alarm for alarm in world.alarms)


def test_a_copied_file_believes_the_server_of_what_was_committed_since() -> None:
    """Its coordinator has forgotten most of that and would presume it aborted."""
    world = outside()
    number = AttemptId(LOG, 5)
    held = Survey(frozenset(), {number: b""}, ())
    disk = world.vote_disks["a"]
    disk.file.begin()
    disk.log.merge(held, 0.0, copied=True)
    disk.file.commit(1)
    assert disk.log.recover().finished == ((number, Outcome.COMMITTED),)
    assert not disk.log.recover().prepared


@pytest.mark.parametrize("found", [Outcome.COMMITTED, Outcome.ABORTED])
def test_a_person_resolves_and_the_server_knows_better(found: Outcome) -> None:
    world = outside()
    number = prepared(world)
    world.server("a").end_by_hand(number, found)
    said_by_hand = Outcome.ABORTED if found is Outcome.COMMITTED else Outcome.COMMITTED
    world.resolve_branch("a", number, said_by_hand)
    world.carry()
    world.flush("a")
    assert world.vote_disks["a"].ledger.heuristics[number.number].done is found
    world.heal()
    judge(world)


def test_the_true_outcome_that_comes_while_a_person_resolves_is_written_behind_it() -> None:
    world = outside()
    number = decided(world)
    world.resolve_branch("a", number, Outcome.ABORTED)
    deliver(world, Commit)
    assert [type(errand.job) for errand in world.errands] == [pe.Resolve]
    world.carry()
    world.carry()
    assert [type(job) for _, job, _ in world.disk("a").queue] == [pe.Resolve, pe.Learn]
    world.flush("a")
    assert said(world, Acknowledged) == [Acknowledged(number.number, Outcome.ABORTED)]
    world.heal()
    judge(world)


# The mark.


def test_a_mark_does_not_drop_a_branch_that_is_at_the_server() -> None:
    """Its record comes when the server has done its part, and is forgotten with the next mark: neither before nor
    never."""
    world = outside()
    number = prepared(world)
    world.feed("a", pe.Received(LOG, (Abort(number.number), Mark(number.number + 1, ()))))
    world.pass_time(2)
    assert number.number in world.participants["a"].logs[LOG].branches
    ((_, forget, _),) = world.disk("a").queue
    assert forget.mark.excepted == (number.number,), "nor is it forgotten on the disk"
    world.flush("a")
    world.carry()
    world.flush("a")
    assert world.remembered("a") == 1
    world.pass_time(2)
    world.flush("a")
    assert not world.remembered("a")
    assert number.number not in world.participants["a"].logs[LOG].branches


def test_a_one_phase_commit_that_the_mark_passes_at_the_server_is_in_the_history() -> None:
    """A coordinator that has restarted knows nothing of it, and its mark passes it."""
    world = outside()
    world.submits(*ALONE)
    deliver(world, OnePhase)
    number = attempt(world).number
    world.feed("a", pe.Received(LOG, (Mark(number + 1, ()),)))
    world.pass_time(2)
    world.flush("a")
    world.carry(told=False)
    restarted(world)
    assert world.vote_disks["a"].history() == [number]


def test_rule_12_the_server_remembers_what_the_mark_has_passed_and_is_not_ended_here() -> None:
    """Somebody has committed it there, and the abort is still to come: forgotten, it would be taken as rolled back."""
    world = outside()
    number = prepared(world)
    world.server("a").end_by_hand(number, Outcome.COMMITTED)
    world.feed("a", pe.Received(LOG, (Mark(number.number + 1, ()),)))
    world.pass_time(2)
    world.flush("a")
    world.feed("a", pe.Received(LOG, (Abort(number.number),)))
    world.carry()
    world.flush("a")
    kept = world.vote_disks["a"].ledger.heuristics[number.number]
    assert (kept.done, kept.known) == (Outcome.COMMITTED, Outcome.ABORTED)


def test_the_server_forgets_what_the_log_has_forgotten() -> None:
    world = outside()
    world.submits(*BOTH)
    world.settle()
    assert world.server("a").committed
    world.heal()
    assert not world.server("a").committed
    assert not world.remembered("a")


# What the server itself says.


def test_a_no_of_the_server_leaves_nothing_anywhere() -> None:
    world = outside()
    client = world.submits(branch("a", add(-99, 0)), branch("b", add(1)), id="pay")
    world.settle()
    assert world.replies[client].outcome is Outcome.ABORTED
    assert isinstance(world.replies[client], ce.Result)
    world.heal()
    judge(world)


def test_a_no_of_the_server_ends_a_one_phase_request() -> None:
    world = outside()
    world.submits(branch("a", add(-99, 0)), id="one")
    world.flush(COORDINATOR)
    deliver(world, OnePhase)
    world.carry()
    (answer,) = said(world, OnePhaseEnded)
    assert answer.outcome is Outcome.ABORTED  # type: ignore[attr-defined]
    assert not world.disk("a").queue
    assert at_once(world.server("a").survey()) == Survey(frozenset(), {}, ())
    world.heal()
    judge(world)


def test_what_waits_for_a_lock_when_the_mark_passes_it_is_not_tried_at_the_server() -> None:
    """Its abort was lost; a trial would leave a branch at the server that no record tells of."""
    world = outside()
    number = prepared(world)
    world.submits(*BOTH, timeout_s=0.01)
    deliver(world, Prepare)
    waiting = attempt(world)
    assert state(world, waiting.number) is State.WAITING
    world.feed("a", pe.Received(LOG, (Mark(waiting.number + 1, (number.number,)), Abort(number.number))))
    world.carry()
    assert not world.errands
    assert state(world, waiting.number) is State.ABORTED
    assert waiting not in world.participants["a"].lock_table


# By itself, without locks or a world around it.


def alone() -> Participant:
    node = Participant(
        "a",
        "file",
        1,
        ParticipantSettings(),
        lambda _: Plan((), None, False),
        Recovered((), (), (), (), ()),
        outside=True,
    )
    node.start(Now(0.0, 0.0))
    return node


def carried(effects: list[pe.Effect]) -> list[int]:
    return [effect.n for effect in effects if isinstance(effect, pe.Carry)]


def forgets(effects: list[pe.Effect]) -> list[pe.Forget]:
    return [effect.job for effect in effects if isinstance(effect, pe.Write) and isinstance(effect.job, pe.Forget)]


def test_forgetting_does_not_wait_for_a_moment_without_an_abort_at_the_server() -> None:
    """There may be none for days; what is there is excepted until its record is written."""
    node, found = alone(), []
    rolling_back: list[int] = []
    for second in range(1, 11):
        now = Now(float(second), float(second))
        began = node.step(
            pe.Received(LOG, (Prepare(second, b"x", False, ()), Abort(second), Mark(second + 1, ()))), now
        )
        for n in rolling_back:
            node.step(pe.Carried(n, None), now)
        tried, *rolling_back = carried(began)
        node.step(pe.Carried(tried, pe.Tried(b"", {})), now)
        found += forgets(node.step(pe.Ticked(), now))
    assert [forget.mark for forget in found] == [Mark(n + 1, (n,)) for n in range(2, 11, 2)]
    done = node.step(pe.Carried(rolling_back[0], None), Now(11.0, 11.0))
    assert [effect.job.attempt.number for effect in done if isinstance(effect, pe.Write)] == [10]
    assert [forget.mark for forget in forgets(node.step(pe.Ticked(), Now(13.0, 13.0)))] == [Mark(11, ())]


def test_rule_12_a_commit_by_a_person_of_what_is_refused_for_a_peer_is_kept() -> None:
    node, now, attempt = alone(), Now(1.0, 1.0), AttemptId(LOG, 5)
    (tried,) = carried(node.step(pe.Received(LOG, (Prepare(5, b"x", False, ()),)), now))
    node.step(pe.Carried(tried, pe.Denied(reason(Code.CODE_RESOURCE, "the session is lost"))), now)
    (refused,) = carried(node.step(pe.PeerAsked(attempt=attempt, identity="file", caller=7), now))
    ((write,)) = node.step(pe.Carried(refused, pe.Ended(Outcome.COMMITTED)), now)
    assert isinstance(write, pe.Write)
    assert write.job == pe.Contradict(attempt, b"x", Outcome.COMMITTED, Outcome.ABORTED, 1.0)
    told = node.step(pe.Flushed(write.n, ()), now)
    assert [effect for effect in told if isinstance(effect, pe.Reply)] == [pe.Reply(7, Answer.ABORTED)]
    assert [effect.message for effect in told if isinstance(effect, pe.Alarm)] == [
        f"rule 12: {attempt} was resolved by hand as COMMITTED here and is ABORTED: torn"
    ]
