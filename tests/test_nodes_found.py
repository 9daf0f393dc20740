"""Runs that once broke a rule of DESIGN section 3, found by attacking the nodes; each names its rule."""

from __future__ import annotations

import gc
import itertools

import pytest

import coordinator.events as ce
import participant.events as pe
from coordinator.node import Coordinator
from coordinator.protocol import State
from coordinator.settings import CoordinatorSettings
from coordinator.tables import Attempt, Open
from participant.asks import ASKS_MAX, Asks
from participant.protocol import State as BranchState
from participant.tables import Log
from tests.world import COORDINATOR, LOG, Manual, add, branch, encoded, judge, look
from troth.messages import Abort, Acknowledged, Commit, Mark, OnePhase, Peer, Prepare, Question, Voted
from troth.words import Answer, AttemptId, Now, Outcome, number_of

ADD = encoded(add(1))
BOTH = (branch("a", add(1)), branch("b", add(1)))
ALONE = (branch("a", add(1)),)


def deliver(world: Manual, kind: type, *, keep: bool = False) -> None:
    world.deliver(next(i for i, letter in enumerate(world.net) if isinstance(letter.message, kind)), keep=keep)


def drain_net(world: Manual) -> None:
    while world.net:
        world.deliver()


def delegated(world: Manual, id: str = "one") -> int:
    """A one-phase attempt whose request is on its way; the client's number."""
    client = world.submits(*ALONE, id=id)
    world.flush(COORDINATOR)
    return client


def test_rule_7_the_mark_waits_until_a_dropped_claim_is_durably_dropped() -> None:
    """Else the claim, found again after a crash, is asked about below the mark, where nobody answers."""
    world = Manual(coordinator_settings=CoordinatorSettings(retry_first_s=5, retry_max_s=5))
    delegated(world)
    world.lose_lane("a")
    world.open_lane("a")
    drain_net(world)  # asked, and refused: there was no trace
    world.pass_time(0.2)
    drain_net(world)  # the mark
    world.crash(COORDINATOR)  # the dropping is lost
    world.heal()
    judge(world)


def test_rule_11_whoever_joins_an_abort_that_looks_is_held_to_its_own_content() -> None:
    world = Manual(slow=True)
    world.submits(*BOTH, id="pay")
    world.settle()
    world.abort("pay")
    other = world.submits(branch("a", add(2)), branch("b", add(1)), id="pay")
    same = world.submits(*BOTH, id="pay")
    world.settle()
    assert world.replies[other].outcome is Outcome.REFUSED
    assert world.replies[same].outcome is Outcome.COMMITTED


def test_rule_11_other_content_that_looks_first_does_not_refuse_the_right_one() -> None:
    world = Manual(slow=True)
    world.submits(*BOTH, id="pay")
    world.settle()
    other = world.submits(*ALONE, id="pay")
    same = world.submits(*BOTH, id="pay")
    aborting = world.abort("pay")
    world.settle()
    assert world.replies[other].outcome is Outcome.REFUSED
    assert world.replies[same].outcome is Outcome.COMMITTED
    assert world.replies[aborting].outcome is Outcome.COMMITTED


def test_rule_11_of_two_contents_that_look_together_the_first_has_the_id() -> None:
    world = Manual(slow=True)
    first = world.submits(*BOTH, id="pay")
    other = world.submits(*ALONE, id="pay")
    world.settle()
    assert world.replies[first].outcome is Outcome.COMMITTED
    assert world.replies[other].outcome is Outcome.REFUSED


def test_rule_13_the_number_of_a_claimed_attempt_is_nobody_elses_id() -> None:
    """`abort` of the number of somebody's open one-phase attempt once stopped the coordinator."""
    world = Manual()
    delegated(world)
    (number,) = world.watch.sent
    client = world.abort(str(AttemptId(LOG, number)))
    world.settle()
    assert world.replies[client].outcome is Outcome.UNKNOWN


def test_rule_12_a_person_is_answered_though_the_participant_answers_first() -> None:
    world = Manual()
    delegated(world)
    deliver(world, OnePhase)
    world.crash("a")
    person = world.resolve("one", "a", Outcome.ABORTED)
    world.start("a")
    world.open_lane("a")
    world.settle()
    assert "by hand" in world.replies[person]
    world.heal()


def test_rule_12_what_a_person_said_of_a_one_phase_attempt_survives_a_crash() -> None:
    """The client heard COMMITTED on the person's word; only that word was durable when the coordinator died."""
    world = Manual()
    client = delegated(world)
    world.crash("a")  # the request never arrived
    world.resolve("one", "a", Outcome.COMMITTED)
    world.flush(COORDINATOR, 3)
    assert world.replies[client].outcome is Outcome.COMMITTED
    world.crash(COORDINATOR)
    world.heal()
    again = world.submits(*ALONE, id="one")
    world.settle()
    assert world.replies[again].outcome is Outcome.COMMITTED


def test_rule_12_a_heuristic_record_is_kept_once_and_not_cleared_before_the_end() -> None:
    world = Manual()
    world.submits(*BOTH)
    deliver(world, Prepare)
    deliver(world, Prepare)
    world.flush("a")
    world.flush("b")
    (number,) = world.watch.sent
    name = str(AttemptId(LOG, number))
    world.resolve_branch("a", AttemptId(LOG, number), Outcome.COMMITTED)
    world.flush("a")
    deliver(world, Voted)
    deliver(world, Voted)
    world.flush(COORDINATOR)
    world.crash("b")  # it owes an acknowledgement
    deliver(world, Commit)
    world.flush("a")
    deliver(world, Acknowledged, keep=True)
    deliver(world, Acknowledged)
    assert len(world.coordinator.heuristics) == 1  # type: ignore[union-attr]
    early = world.resolve(name, "a", None)
    assert isinstance(world.replies[early], ce.Refusal)
    world.heal()
    judge(world)
    cleared = world.resolve(name, "a", None)
    world.settle()
    assert "cleared" in world.replies[cleared]


def test_rule_5_one_timer_reminds_of_an_attempt_however_many_join_it() -> None:
    world = Manual()
    delegated(world)
    for _ in range(20):
        world.submits(*ALONE, id="one")
    world.net.clear()
    for _ in range(15):
        world.pass_time(1.0)  # the world counts what is said twice at once
    assert sum(due[1] == 1 and due[0] > world.mono for due in world.coordinator._timers) == 1  # type: ignore[union-attr]


def test_rule_7_what_is_asked_again_and_again_is_one_alarm() -> None:
    world = Manual()
    for caller in range(1000, 1005):
        world.feed(COORDINATOR, ce.Asked(caller, "another log", 1))
    assert len(world.alarms) == 1
    for _ in range(5):
        world.feed("a", pe.Received(LOG, (Commit(77),)))
    assert len(world.alarms) == 2


def test_rule_6_peers_are_named_with_the_addresses_that_they_advertise() -> None:
    world = Manual()
    world.lose_lane("a")
    world.feed(COORDINATOR, ce.LaneOpened("a", "file-a", world.lives["a"], "a.example:7402", ()))
    world.lanes["a"] = 99
    world.submits(*BOTH)
    (prepare,) = [m for m in world.watch.sent[next(iter(world.watch.sent))].items() if m[0] == "b"]
    assert prepare[1].peers == (Peer("a", "a.example:7402", "file-a"),)  # type: ignore[union-attr]


def test_rule_6_a_question_that_is_meant_for_another_file_is_not_answered() -> None:
    world = Manual()
    for caller, identity in enumerate(("file-a-0", "file-a"), 1000):
        world.feed("a", pe.PeerAsked(caller, AttemptId(LOG, 5), identity))
    world.flush("a")
    assert (world.replies[1000], world.replies[1001]) == (Answer.NONE, Answer.ABORTED)


def test_rule_8_a_branch_aborted_below_the_mark_is_not_remembered_for_ever() -> None:
    world = Manual()
    world.feed("a", pe.Received(LOG, (Prepare(5, ADD, False, ()),)))
    world.flush("a")
    world.feed("a", pe.Received(LOG, (Mark(9, ()),)))
    world.pass_time(2)
    world.flush("a")
    world.feed("a", pe.Received(LOG, (Abort(5),)))
    world.pass_time(2)
    world.flush("a")
    assert not world.participants["a"].logs[LOG].branches
    assert not world.remembered("a")


# Single calls: each is answered once.


def call(world: Manual, message: object) -> int:
    caller = world.next_number()
    world.feed("a", pe.Received(LOG, (message,), caller))  # type: ignore[arg-type]
    return caller


def test_a_call_that_prepares_is_answered_though_its_branch_is_aborted_first() -> None:
    world = Manual()
    preparing = call(world, Prepare(5, ADD, False, ()))
    aborting = call(world, Abort(5))
    world.flush("a")
    assert isinstance(world.replies[preparing], pe.Refused)
    assert isinstance(world.replies[aborting], Acknowledged)


def test_a_call_that_prepares_what_is_committed_is_answered() -> None:
    world = Manual()
    preparing = call(world, Prepare(5, ADD, False, ()))
    world.flush("a")
    assert isinstance(world.replies[preparing], Voted)
    committing = call(world, Commit(5))
    again = call(world, Prepare(5, ADD, False, ()))
    world.flush("a")
    late = call(world, Prepare(5, ADD, False, ()))
    assert isinstance(world.replies[committing], Acknowledged)
    assert isinstance(world.replies[again], Acknowledged)
    assert isinstance(world.replies[late], pe.Refused)


def test_calls_that_commit_or_abort_what_runs_alone_are_answered_once() -> None:
    world = Manual()
    world.feed("a", pe.Received(LOG, (OnePhase(5, ADD, world.lives["a"]),)))
    committing, aborting = call(world, Commit(5)), call(world, Abort(5))
    world.flush("a")  # the world refuses a second answer
    assert isinstance(world.replies[committing], pe.Refused)
    assert isinstance(world.replies[aborting], pe.Refused)


def test_a_call_that_commits_a_read_only_branch_is_answered() -> None:
    world = Manual()
    call(world, Prepare(5, encoded(look()), True, ()))
    world.flush("a")
    committing = call(world, Commit(5))
    assert committing in world.replies


def test_questions_take_turns_and_one_address_does_not_hold_up_another() -> None:
    asks = Asks(lambda attempt: attempt.number != 3)
    peer = Peer("b", "addr-b", "file-b")
    first = [asks.put(pe.AskCoordinator(AttemptId(LOG, n), "c")) for n in range(100, 100 + ASKS_MAX)]
    assert all(len(out) == 1 for out in first)
    assert asks.put(pe.AskCoordinator(AttemptId(LOG, 1), "c")) == []
    assert asks.put(pe.AskCoordinator(AttemptId(LOG, 3), "c")) == []
    assert asks.put(pe.AskCoordinator(AttemptId(LOG, 2), "c")) == []
    assert asks.put(pe.AskCoordinator(AttemptId(LOG, 100), "c")) == []
    assert asks.put(pe.AskPeer(AttemptId(LOG, 1), peer)) == [pe.AskPeer(AttemptId(LOG, 1), peer)]
    assert asks.ended(AttemptId(LOG, 100), None) == [pe.AskCoordinator(AttemptId(LOG, 1), "c")]
    # The third no longer asks; whoever asked last stands behind all others.
    assert asks.put(pe.AskCoordinator(AttemptId(LOG, 100), "c")) == []
    assert asks.ended(AttemptId(LOG, 101), None) == [pe.AskCoordinator(AttemptId(LOG, 2), "c")]


def test_the_steps_of_a_transaction_that_is_tried_for_long_are_bounded() -> None:
    world = Manual(coordinator_settings=CoordinatorSettings(vote_timeout_s=0.2, retry_max_s=0.1))
    world.submits(*BOTH, id="pay", timeout_s=300)
    for _ in range(300):
        world.net.clear()
        world.pass_time(0.3)
    node = world.coordinator
    assert node is not None
    assert len(node.submissions["pay"].steps) <= 100
    assert len(list(node._timers)) < 200
    assert node.submissions["pay"].attempt is None or node.submissions["pay"].attempt.state is State.PREPARING


def test_what_has_ended_is_freed_without_the_collector() -> None:
    """It looks rarely, and for every transaction there would be a submission and an attempt that name each other."""
    before = {id(each) for each in gc.get_objects() if isinstance(each, Open | Attempt)}
    gc.disable()
    try:
        world = Manual()
        for id_ in ("", "pay"):
            world.submits(*BOTH, id=id_)
            world.submits(*ALONE, id=id_ and "alone")
        world.lose_lane("a")
        world.abort("pay")
        world.abort("fence")
        world.heal()
        assert world.coordinator is not None
        assert world.coordinator.done
        assert not world.coordinator.submissions
        assert not world.coordinator.attempts
        left = [each for each in gc.get_objects() if isinstance(each, Open | Attempt) and id(each) not in before]
        assert left == []
    finally:
        gc.enable()


def test_rule_7_the_union_of_marks_is_below_what_any_of_them_was_below() -> None:
    """Against every pair of marks over a few numbers, in either order."""
    numbers = range(5)
    marks = [
        Mark(low, excepted)
        for low in numbers
        for size in range(low + 1)
        for excepted in itertools.combinations(range(low), size)
    ]
    for first, second in itertools.product(marks, marks):
        log = Log("log")
        log.join(first)
        log.join(second)
        for number in numbers:
            below = any(number < mark.low and number not in mark.excepted for mark in (first, second))
            assert log.below(number) is below, (first, second, number)


def test_rule_5_an_owed_commit_is_sent_again_within_a_second() -> None:
    world = Manual()
    world.submits(*BOTH)
    while not any(isinstance(letter.message, Commit) for letter in world.net):
        world.flush("a")
        world.flush("b")
        world.flush(COORDINATOR)
        if not any(isinstance(letter.message, Commit) for letter in world.net):
            world.deliver()
    world.net.clear()
    world.pass_time(1.0)
    assert sum(isinstance(letter.message, Commit) for letter in world.net) == 2


def test_rule_13_a_doubled_request_at_a_later_incarnation_is_dropped_without_a_word() -> None:
    world = Manual()
    request = OnePhase(5, ADD, world.lives["a"])
    world.crash("a")
    world.start("a")
    world.feed("a", pe.Received(LOG, (request,)))
    assert not world.participants["a"].logs[LOG].branches
    world.flush("a")
    assert world.value("a") == 10


def test_rule_7_another_outcome_for_a_branch_whose_true_outcome_was_learned_is_an_alarm() -> None:
    world = Manual()
    world.submits(*BOTH)
    deliver(world, Prepare)
    deliver(world, Prepare)
    world.flush("a")
    (number,) = world.watch.sent
    world.resolve_branch("a", AttemptId(LOG, number), Outcome.COMMITTED)
    world.flush("a")
    world.feed("a", pe.Received(LOG, (Abort(number),)))
    world.flush("a")
    world.alarms.clear()
    world.feed("a", pe.Received(LOG, (Commit(number),)))
    assert [text for text in world.alarms if "now says COMMITTED" in text]
    assert world.participants["a"].logs[LOG].branches[number].state is BranchState.LEARNED


def test_what_waits_for_a_lane_is_looked_at_once_and_not_for_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands in doubt and thousands that wait: with a look at all of these for each answer, the coordinator took
    longer to answer than participants to ask again, and never came to an end."""
    looks = 0
    unpark = Coordinator._unpark

    def counting(self: Coordinator) -> None:
        nonlocal looks
        looks += 1
        unpark(self)

    monkeypatch.setattr(Coordinator, "_unpark", counting)
    node = Coordinator("log", 2, CoordinatorSettings(), {"a": "addr-a"}, ce.Recovered((), (), 0.0, (), ""))
    node.start(Now(0.0, 0.0))
    numbers = tuple(number_of(1, n) for n in range(1, 101))
    node.step(ce.LaneOpened("a", "file", 7, "addr-a", numbers), Now(1.0, 1.0))
    looks = 0
    node.step(ce.Received("a", tuple(Question(n) for n in numbers)), Now(1.1, 1.1))  # asked again meanwhile
    effects = [e for n in numbers for e in node.step(ce.LookedUp(n, None), Now(1.2, 1.2))]
    answers = [effect.message for effect in effects if isinstance(effect, ce.Send)]
    assert [answer.number for answer in answers] == list(numbers)
    assert looks == 1


def test_who_watches_is_told_all_of_what_ends_in_one_step() -> None:
    """More may end with one flush than are kept: they go with the next step, not before they were told of."""
    recovered, settings = ce.Recovered((), (), 0.0, (), ""), CoordinatorSettings(finished_kept=2)
    node, now = Coordinator("log", 2, settings, {"a": "addr-a"}, recovered), Now(1.0, 1.0)
    node.start(now)
    node.step(ce.LaneOpened("a", "file", 7, "addr-a", ()), now)
    ids, upto = [f"id-{n}" for n in range(5)], 0
    for client, id in enumerate(ids, 1):
        fence = [effect for effect in node.step(ce.AbortAsked(client, id), now) if isinstance(effect, ce.LookUp)]
        assert fence == [ce.LookUp(id)]
        (asked,) = [effect for effect in node.step(ce.LookedUp(id, None), now) if isinstance(effect, ce.Decide)]
        (written,) = [effect for effect in node.step(ce.Decided(*asked), now) if isinstance(effect, ce.Append)]
        upto = written.n
    told = [effect.id for effect in node.step(ce.Durable(upto), now) if isinstance(effect, ce.Closed)]
    assert told == ids
    assert all(node.describe(id, now) is not None for id in ids)
    node.step(ce.Ticked(), now)
    assert [id for id in ids if node.describe(id, now) is not None] == ids[-2:]
