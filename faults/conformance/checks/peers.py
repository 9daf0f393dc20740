"""Peers: whom a participant in doubt asks when its coordinator is silent, and what it tells others (rule 6)."""

from __future__ import annotations

from faults.conformance.check import Needs, check, require
from faults.conformance.checks.questions import TIMES, wait_asked
from faults.conformance.target import Target
from troth.messages import Answered
from troth.words import Answer

OTHER_FILE = "e" * 16


@check("rule 6", "Asked by a peer before it has voted, it says ABORTED, and its prepare is then too late.")
def an_unvoted_peer_refuses(t: Target) -> None:
    number = t.number()
    _tells(t, number, Answer.ABORTED)
    t.prepare(t.place().write(), number=number)
    t.votes_no(number)


@check("rule 6", "That refusal is durable before the peer hears it.", Needs.RESTART)
def a_refusal_outlives_a_kill(t: Target) -> None:
    asked = t.peers_ask([t.number() for _ in range(8)])
    first = asked[0].result()
    t.crash()
    require(first is Answer.ABORTED, "ABORTED to a peer", first.name)
    heard = [each.number for each in asked if each.answered() is Answer.ABORTED]
    t.back()
    place = t.place()
    for number in heard:
        t.prepare(place.write(), number=number)
        t.votes_no(number)


@check("rule 6", "One that voted NO refuses durably too: its NO was only in memory.", Needs.RESTART | Needs.REFUSED)
def a_no_becomes_durable_for_a_peer(t: Target) -> None:
    place = t.place()
    number = t.prepare(place.refused()).number
    t.votes_no(number)
    _tells(t, number, Answer.ABORTED)
    t.kill()
    t.prepare(place.write(), number=number)
    t.votes_no(number)


@check("rule 6", "One that waits for a lock refuses, leaves the line and votes NO.")
def a_waiting_peer_refuses(t: Target) -> None:
    place = t.place()
    first = t.yes(place.write())
    second = t.prepare(place.look(), place.write()).number
    if not t.waits(second, "the second to wait for the row"):
        return
    _tells(t, second, Answer.ABORTED)
    t.commit(first)
    t.votes_no(second)
    t.apply(place.write())


@check("rule 6", "A prepared peer says nothing.")
def a_prepared_peer_says_nothing(t: Target) -> None:
    number = t.yes(t.place().write())
    _tells(t, number, Answer.NONE)
    t.commit(number)


@check("rule 6", "A prepared peer says nothing in a later life either.", Needs.RESTART)
def a_prepared_peer_says_nothing_after_a_kill(t: Target) -> None:
    number = t.yes(t.place().write())
    t.kill()
    _tells(t, number, Answer.NONE)
    t.commit(number)


@check("rule 6", "A peer that knows the outcome says it.")
def a_peer_that_knows_says_it(t: Target) -> None:
    committed = t.yes(t.place().write())
    t.commit(committed)
    aborted = t.yes(t.place().write())
    t.abort(aborted)
    t.settled()
    _tells(t, committed, Answer.COMMITTED)
    _tells(t, aborted, Answer.ABORTED)


@check("rule 6", "A peer still says COMMITTED in a later life.", Needs.RESTART)
def a_peer_knows_through_a_kill(t: Target) -> None:
    number = t.yes(t.place().write())
    t.commit(number)
    t.kill()
    _tells(t, number, Answer.COMMITTED)


@check("rule 6", "A question that means another file is not answered, and refuses nothing.")
def another_file_is_not_spoken_for(t: Target) -> None:
    number = t.number()
    answer = t.peer_asks(number, OTHER_FILE)
    require(answer is Answer.NONE, "no answer for another file", answer.name)
    place = t.place()
    t.prepare(place.write(), number=number)
    t.votes_yes(number)
    t.commit(number)
    answer = t.peer_asks(number, OTHER_FILE)
    require(answer is Answer.NONE, "no answer for another file", answer.name)


@check("rule 6", "A branch sent as read-only never vouches.")
def a_read_only_branch_never_vouches(t: Target) -> None:
    number = t.prepare(t.place().look(), read_only=True).number
    t.votes_read_only(number)
    _tells(t, number, Answer.NONE)


@check(
    "rule 6", "When the coordinator is silent it asks the peers that the prepare names, and says which file it means."
)
def it_asks_its_peers(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write(), peers=[t.peer])
    t.hang_up()
    _wait_peer_asked(t, number, 1)
    meant = {request.identity for request in t.scripted_peer.asked if request.attempt.number == number}
    require(meant == {t.peer.identity}, f"questions that mean {t.peer.identity}", meant)
    t.scripted_peer.answers[number] = Answer.COMMITTED
    t.eventually(lambda: _opened_without(t, number), "the peer's COMMITTED to be obeyed", "it still asks")
    require(t.look(place) != before, "the change", "the old rows")
    t.commit(number)


@check("rule 6", "ABORTED from a peer is obeyed.")
def aborted_from_a_peer_is_obeyed(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write(), peers=[t.peer])
    t.scripted_peer.answers[number] = Answer.ABORTED
    t.hang_up()
    _wait_peer_asked(t, number, 1)
    t.eventually(lambda: _opened_without(t, number), "the peer's ABORTED to be obeyed", "it still asks")
    require(t.look(place) == before, "the rows as they were", "other rows")


@check("rule 6", "A peer that says nothing ends nothing.")
def a_silent_peer_ends_nothing(t: Target) -> None:
    number = t.yes(t.place().write(), peers=[t.peer])
    t.hang_up()
    _wait_peer_asked(t, number, TIMES)
    require(number in t.open().questions, "it still to be in doubt", "it no longer asks")


@check("rule 6", "While the coordinator answers, PENDING too, no peer is asked.")
def the_coordinator_comes_first(t: Target) -> None:
    number = t.number()
    t.inquiries.answers[number] = Answer.PENDING
    t.prepare(t.place().write(), peers=[t.peer], number=number)
    t.votes_yes(number)
    t.send(Answered(number, Answer.PENDING))
    t.answer(t.number())
    before = len(t.scripted_peer.asked)
    t.hang_up()
    wait_asked(t, number, 2 * TIMES)
    asked = len(t.scripted_peer.asked) - before
    require(not asked, "no question to the peer", asked)


@check("rule 6", "A prepared record keeps its peers through a kill -9.", Needs.RESTART)
def peers_are_remembered_through_a_kill(t: Target) -> None:
    number = t.yes(t.place().write(), peers=[t.peer])
    t.scripted_peer.answers[number] = Answer.COMMITTED
    before = len(t.scripted_peer.asked)
    t.crash()
    t.back()
    t.hang_up()
    t.eventually(lambda: len(t.scripted_peer.asked) > before, "the peer to be asked", "no question")
    t.eventually(lambda: _opened_without(t, number), "the peer's COMMITTED to be obeyed", "it still asks")
    t.commit(number)


def _tells(t: Target, number: int, expected: Answer) -> None:
    answer = t.peer_asks(number)
    said = {Answer.NONE: "no answer"}
    require(answer is expected, f"{said.get(expected, expected.name)} to a peer", said.get(answer, answer.name))


def _wait_peer_asked(t: Target, number: int, times: int) -> None:
    def asked() -> int:
        return sum(request.attempt.number == number for request in t.scripted_peer.asked)

    t.eventually(lambda: asked() >= times, f"{times} questions to the peer", asked)


def _opened_without(t: Target, number: int) -> bool:
    """Whether a new lane no longer asks about it; without one again, if it does, so that the peer is asked."""
    if number not in t.open().questions:
        return True
    t.hang_up()
    return False
