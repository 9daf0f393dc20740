"""In doubt: the participant asks its coordinator, and does what it hears and nothing else (rule 6)."""

from __future__ import annotations

from faults.conformance.check import check, require
from faults.conformance.target import Target
from troth.messages import Abort, Answered, Question
from troth.words import Answer

TIMES = 3
"""How often a question is waited for until it is taken that no answer was no answer."""


@check("rule 6", "A hello asks about what is prepared or read-only here, and about nothing else.")
def a_hello_asks_about_what_is_in_doubt(t: Target) -> None:
    place, other = t.place(), t.place()
    committed = t.yes(place.write())
    t.commit(committed)
    aborted = t.yes(place.write())
    t.abort(aborted)
    prepared = t.yes(place.write())
    t.settled()
    t.hang_up()
    asked = set(t.open().questions)
    require(prepared in asked, "a question about what is prepared", "none")
    require(not asked & {committed, aborted}, "no question about what has ended", "one")
    t.commit(prepared)
    looking = t.prepare(other.look(), read_only=True).number
    t.votes_read_only(looking)
    t.hang_up()
    require(looking in t.open().questions, "a question about what is read-only", "none")


@check("rule 6", "A prepared participant that hears nothing asks on its lane.")
def it_asks_on_its_lane(t: Target) -> None:
    number = t.yes(t.place().write())
    t.take(Question, number, "a question on the lane")


@check("rule 6", "PENDING on the lane is an answer that ends nothing; COMMITTED is obeyed as a COMMIT.")
def answers_on_the_lane_are_obeyed(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    t.send(Answered(number, Answer.PENDING))
    _still_prepared(t, number)
    t.send(Answered(number, Answer.COMMITTED))
    t.acknowledged(number)
    require(t.look(place) != before, "the change", "the old rows")


@check("rule 6", "ABORTED on the lane is obeyed as an ABORT.")
def aborted_on_the_lane_is_obeyed(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    t.send(Answered(number, Answer.ABORTED))
    require(t.look(place) == before, "the rows as they were", "other rows")
    t.hang_up()
    require(number not in t.open().questions, "no question about what was aborted", "one")


@check("rule 6", "Without a lane it asks the coordinator's Inquiries; no answer and PENDING end nothing.")
def silence_and_pending_end_nothing(t: Target) -> None:
    number = t.yes(t.place().write())
    t.hang_up()
    wait_asked(t, number)
    t.open()
    _still_prepared(t, number)
    t.hang_up()
    t.inquiries.answers[number] = Answer.PENDING
    wait_asked(t, number)
    t.open()
    _still_prepared(t, number)


@check("rule 6", "COMMITTED from Inquiries is obeyed.")
def committed_from_inquiries_is_obeyed(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    _told(t, number, Answer.COMMITTED)
    require(t.look(place) != before, "the change", "the old rows")
    t.commit(number)


@check("rule 6", "ABORTED from Inquiries is obeyed.")
def aborted_from_inquiries_is_obeyed(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    _told(t, number, Answer.ABORTED)
    require(t.look(place) == before, "the rows as they were", "other rows")
    t.send(Abort(number))
    t.apply(place.write())


def wait_asked(t: Target, number: int, times: int = TIMES) -> None:
    """Until Inquiries were asked so often from now on."""
    before = t.inquiries.asked.count(number)
    t.eventually(
        lambda: t.inquiries.asked.count(number) >= before + times,
        f"{times} questions at the coordinator's Inquiries",
        lambda: t.inquiries.asked.count(number) - before,
    )


def _told(t: Target, number: int, answer: Answer) -> None:
    """It learns the outcome without a lane, and then has no more questions about it."""
    t.inquiries.answers[number] = answer
    t.hang_up()
    wait_asked(t, number, 1)
    _eventually_asks_no_more(t, number)


def _eventually_asks_no_more(t: Target, number: int) -> None:
    def opened() -> bool:
        t.hang_up()
        return number not in t.open().questions

    t.eventually(opened, "no further question once it was told", "it still asks")


def _still_prepared(t: Target, number: int) -> None:
    """The next hello asks about it."""
    t.settled()
    t.hang_up()
    require(number in t.open().questions, "it still to be in doubt", "it no longer asks")
