"""Votes: what YES, NO and READ_ONLY promise, and that a YES outlives a kill -9 (rules 2 and 6)."""

from __future__ import annotations

from faults.conformance.check import Needs, check, require
from faults.conformance.target import Target
from faults.conformance.texts import vote_text
from troth.messages import Voted
from troth.v1 import types_pb2
from troth.words import Vote


@check("rule 2", "A branch that can be committed gets YES, with the incarnation that gives it.")
def yes_names_its_incarnation(t: Target) -> None:
    voted = t.votes_yes(t.prepare(t.place().write()).number)
    require(voted.incarnation == t.lane.hello.incarnation, f"{t.lane.hello.incarnation}", voted.incarnation)


@check("rule 2", "A YES brings the rows that the branch reads.")
def yes_brings_rows(t: Target) -> None:
    place = t.place()
    voted = t.votes_yes(t.prepare(place.write(), place.look()).number)
    require(types_pb2.Rows.FromString(voted.rows).rows, "a row", "none")


@check("durability", "Nothing of a branch is visible before its commit, and all of it afterwards.")
def nothing_is_visible_before_the_commit(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    reading = t.prepare(place.look(), read_only=True).number
    t.settled()
    early = t.lane.inbox.there(Voted, reading)
    if early is not None and early.vote is not Vote.NO:
        rows = types_pb2.Rows.FromString(early.rows).rows
        require(not rows, "the reader to wait, or see the old row", f"{vote_text(early)} while the row is prepared")
    t.abort(reading)
    t.commit(number)
    require(t.look(place) != before, "the change, once it is committed", "the old rows")


@check("rule 2", "What the data refuse gets NO with a reason, and nothing of the branch stays.", Needs.REFUSED)
def no_has_a_reason_and_leaves_nothing(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    voted = t.votes_no(t.prepare(place.write(), place.refused()).number)
    require(voted.reason and voted.reason.code and voted.reason.message, "a reason", vote_text(voted))
    require(t.look(place) == before, "the rows as they were", "other rows")
    t.apply(place.write())


@check("rule 6", "A branch sent as read-only that writes gets NO.")
def a_write_sent_as_read_only_is_refused(t: Target) -> None:
    t.votes_no(t.prepare(t.place().write(), read_only=True).number)


@check("rule 6", "Only a branch sent as read-only may get READ_ONLY.")
def reading_without_read_only_votes_yes(t: Target) -> None:
    t.commit(t.yes(t.place().look()))


@check("rule 2", "Every YES that was heard outlives a kill -9 and is asked about in the next hello.", Needs.RESTART)
def yes_outlives_a_kill(t: Target) -> None:
    prepares = t.prepare_each(*t.many_writes())
    t.take(Voted, prepares[0].number, "a vote")
    t.crash()
    yes = {prepares[0].number, *(v.number for v in t.lane.inbox.take_all(Voted) if v.vote is Vote.YES)}
    asked = set(t.back().questions)
    require(yes <= asked, f"questions about all {len(yes)} with a YES", f"{len(yes - asked)} are not asked about")
    t.decide(*sorted(yes))
    for number in yes:
        t.acknowledged(number)


@check("rule 2", "What outlived a kill -9 is applied when its COMMIT comes.", Needs.RESTART)
def yes_is_applied_after_a_kill(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    t.kill()
    t.commit(number)
    require(t.look(place) != before, "the change", "the old rows")


@check("rule 6", "What outlived a kill -9 is undone when its ABORT comes.", Needs.RESTART)
def yes_is_undone_after_a_kill(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    t.kill()
    t.abort(number)
    require(t.look(place) == before, "the rows as they were", "other rows")
    t.apply(place.write())
