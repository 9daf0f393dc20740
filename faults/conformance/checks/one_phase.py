"""One-phase: the participant decides alone, once, in one incarnation only (rule 13)."""

from __future__ import annotations

from faults.conformance.check import Needs, check, require
from faults.conformance.target import Target
from faults.conformance.texts import encoded, end_text
from troth.messages import Answered, OnePhase, OnePhaseEnded
from troth.v1 import types_pb2
from troth.words import Answer, Outcome

FOREIGN = 1
"""An incarnation that is not the present one: they are large random numbers, or clocks."""


def _commits(t: Target, number: int) -> OnePhaseEnded:
    ended = t.ended_alone(number)
    require(ended.outcome is Outcome.COMMITTED, "COMMITTED", end_text(ended))
    return ended


def _asked(t: Target, number: int, expected: Answer) -> None:
    answer = t.answer(number)
    require(answer is expected, f"{expected.name} to the coordinator", answer.name)


@check("rule 13", "A one-phase branch is tried and applied in one step, and brings its rows.")
def one_phase_decides(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    ended = _commits(t, t.one_phase(place.write(), place.look()).number)
    require(types_pb2.Rows.FromString(ended.rows).rows, "a row", "none")
    require(t.look(place) != before, "the change", "the old rows")


@check("rule 13", "What the data refuse is ABORTED with a reason, and nothing of it stays.", Needs.REFUSED)
def one_phase_says_why_not(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    ended = t.ended_alone(t.one_phase(place.write(), place.refused()).number)
    require(ended.outcome is Outcome.ABORTED, "ABORTED", end_text(ended))
    require(ended.reason and ended.reason.code, "a reason", end_text(ended))
    require(t.look(place) == before, "the rows as they were", "other rows")


@check("rule 13", "A request that comes twice gets its end twice and is run once.", Needs.TABLE)
def a_doubled_request_runs_once(t: Target) -> None:
    row = t.row()
    request = t.one_phase(row.add(10))
    _commits(t, request.number)
    t.send(request)
    _commits(t, request.number)
    require(t.number_in(row) == 110, "one add, 110", t.number_in(row))


@check("rule 13", "A request for another incarnation is dropped; asked, it is then refused for good.")
def another_incarnation_is_dropped(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    request = t.one_phase(place.write(), incarnation=FOREIGN)
    t.silent(OnePhaseEnded, request.number, "nothing about a request for another incarnation")
    require(t.look(place) == before, "the rows as they were", "other rows")
    _asked(t, request.number, Answer.ABORTED)
    _is_too_late(t, request._replace(incarnation=t.lane.hello.incarnation))
    require(t.look(place) == before, "the rows as they were", "other rows")


@check("rule 13", "Asked about what has no trace, it says ABORTED, and the request is then too late.")
def asked_it_refuses_for_good(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.number()
    _asked(t, number, Answer.ABORTED)
    _asked(t, number, Answer.ABORTED)
    _is_too_late(t, t.one_phase(place.write(), number=number))
    require(t.look(place) == before, "the rows as they were", "other rows")


def _is_too_late(t: Target, request: OnePhase) -> None:
    t.send(request)
    t.settled()
    ended = t.lane.inbox.there(OnePhaseEnded, request.number)
    require(ended is None or ended.outcome is Outcome.ABORTED, "not to be run any more", ended and end_text(ended))


@check("rule 13", "A branch that waits for its lock is a trace: asked, it says PENDING, and it still runs.")
def a_waiting_request_is_pending(t: Target) -> None:
    place = t.place()
    first = t.yes(place.write())
    request = t.one_phase(place.write(), place.look())
    t.settled()
    ended = t.lane.inbox.there(OnePhaseEnded, request.number)
    if ended is not None and ended.outcome is Outcome.ABORTED:
        return
    require(ended is None, "the request to wait for the row", ended and end_text(ended))
    _asked(t, request.number, Answer.PENDING)
    t.abort(first)
    _commits(t, request.number)


@check("rule 13", "Below the mark it answers neither the request nor the question.")
def below_the_mark_it_is_silent(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.number()
    t.mark(t.number())
    t.one_phase(place.write(), number=number)
    t.ask(number)
    t.silent(OnePhaseEnded, number, "nothing about a request below the mark")
    t.silent(Answered, number, "no answer below the mark")
    require(t.look(place) == before, "the rows as they were", "other rows")


@check("rule 13", "A trace answers in a later life, question and request alike, and nothing runs twice.", Needs.RESTART)
def a_trace_answers_in_a_later_life(t: Target) -> None:
    place = t.place()
    request = t.one_phase(place.write())
    _commits(t, request.number)
    after = t.look(place)
    incarnation = t.kill().incarnation
    _asked(t, request.number, Answer.COMMITTED)
    for again in (request, request._replace(incarnation=incarnation)):
        t.send(again)
        _commits(t, request.number)
    require(t.look(place) == after, "the rows as the first run left them", "other rows")


@check("rule 13", "A request of an earlier life without a trace is not run by a later one.", Needs.RESTART)
def a_request_of_an_earlier_life_is_not_run(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    old = t.lane.hello.incarnation
    t.kill()
    request = t.one_phase(place.write(), incarnation=old)
    t.silent(OnePhaseEnded, request.number, "nothing about a request of an earlier life")
    require(t.look(place) == before, "the rows as they were", "other rows")
    _asked(t, request.number, Answer.ABORTED)


@check("rule 13", "Every COMMITTED that was heard outlives a kill -9.", Needs.RESTART)
def committed_comes_after_the_flush(t: Target) -> None:
    requests = t.one_phase_each(*t.many_writes())
    first = _commits(t, requests[0].number)
    t.crash()
    heard = {first.number, *(each.number for each in t.lane.inbox.take_all(OnePhaseEnded) if _is_commit(each))}
    t.back()
    for number in sorted(heard):
        _asked(t, number, Answer.COMMITTED)


def _is_commit(ended: OnePhaseEnded) -> bool:
    return ended.outcome is Outcome.COMMITTED


@check("rule 8", "A one-phase request with the number and other content of an earlier one is not run.", Needs.TABLE)
def other_content_is_not_run(t: Target) -> None:
    row, other = t.row(), t.row()
    request = t.one_phase(row.update(1))
    _commits(t, request.number)
    t.send(request._replace(operations=encoded([other.update(2)])))
    t.settled()
    require(t.number_in(other) == 100, "nothing of the other content, 100", t.number_in(other))
