"""The low-water mark: what lies below it is ended, for good (rule 7)."""

from __future__ import annotations

import secrets

from faults.conformance.check import Needs, check, require
from faults.conformance.scripted import ScriptedCoordinator
from faults.conformance.target import Target
from faults.conformance.texts import encoded, vote_text
from troth.messages import Acknowledged, Answered, Commit, Mark, Prepare, Question, Voted
from troth.words import Answer, Vote


@check("rule 7", "A COMMIT below the mark, for what has no trace, is a late duplicate and is acknowledged.")
def a_commit_below_the_mark_is_acknowledged(t: Target) -> None:
    number = t.number()
    t.mark(t.number())
    t.send(Commit(number))
    t.take(Acknowledged, number, "an acknowledgement")


@check("rule 8", "A prepare below the mark is refused.")
def a_prepare_below_the_mark_is_refused(t: Target) -> None:
    number = t.number()
    t.mark(t.number())
    t.prepare(t.place().write(), number=number)
    t.votes_no(number)


@check("rule 7", "What a mark lists is not below it.")
def what_a_mark_lists_is_not_below_it(t: Target) -> None:
    place = t.place()
    number, below = t.number(), t.number()
    t.mark(t.number(), number)
    t.prepare(place.write(), number=number)
    t.votes_yes(number)
    t.commit(number)
    t.prepare(place.write(), number=below)
    t.votes_no(below)


@check("rule 7", "What was once below a mark stays below: an older mark takes nothing back.")
def an_older_mark_takes_nothing_back(t: Target) -> None:
    old, number = t.number(), t.number()
    t.mark(t.number())
    t.settled()
    t.mark(old)
    t.prepare(t.place().write(), number=number)
    t.votes_no(number)


@check("rule 7", "What was once below a mark stays below: a later list takes nothing back.")
def a_later_list_takes_nothing_back(t: Target) -> None:
    number = t.number()
    t.mark(t.number())
    t.settled()
    t.mark(t.number(), number)
    t.prepare(t.place().write(), number=number)
    t.votes_no(number)


@check("rule 7", "What is prepared when the mark passes it still waits for its outcome.")
def a_mark_ends_nothing_that_is_prepared(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    t.mark(t.number())
    t.settled()
    t.commit(number)
    require(t.look(place) != before, "the change", "the old rows")


@check("rule 7", "What the mark has passed stays ended through a kill -9.", Needs.RESTART)
def what_was_below_the_mark_stays_ended_through_a_kill(t: Target) -> None:
    prepare = t.prepare(t.place().write())
    t.votes_yes(prepare.number)
    t.commit(prepare.number)
    t.mark(t.number())
    t.settled()
    t.kill()
    t.commit(prepare.number)
    t.send(prepare)
    t.settled()
    voted = t.lane.inbox.there(Voted, prepare.number)
    require(voted is None or voted.vote is Vote.NO, "no YES for what has ended", voted)


@check("rule 6", "Below the mark, a participant without a trace tells a peer nothing.")
def below_the_mark_nothing_is_told(t: Target) -> None:
    number = t.number()
    t.mark(t.number())
    t.settled()
    answer = t.peer_asks(number)
    require(answer is Answer.NONE, "no answer", answer.name)


@check("rule 7", "Marks and attempts are of one coordinator log: the same number in another log is another attempt.")
def another_log_is_another_matter(t: Target) -> None:
    number = t.number()
    t.mark(t.number())
    t.settled()
    other = ScriptedCoordinator(t.lane.name, t.lane.at, log=secrets.token_hex(8), address=t.lane.address)
    with other:
        other.send(Prepare(number, encoded([t.place().write()]), False, ()))
        voted = other.inbox.take(Voted, t.within_s, number)
        require(voted.vote is Vote.YES, "the vote YES in another log", vote_text(voted))
        other.send(Commit(number))
        other.inbox.take(Acknowledged, t.within_s, number)
        other.send(Mark(number + 1, ()), Question(number + 1))
        other.inbox.take(Answered, t.within_s, number + 1)
