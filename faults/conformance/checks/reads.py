"""READ_ONLY: no word, only shared locks, kept until told (rule 9)."""

from __future__ import annotations

from faults.conformance.check import Needs, NotChecked, check, require
from faults.conformance.checks.questions import wait_asked
from faults.conformance.target import Target
from faults.conformance.work import BEGIN, Row
from troth.messages import Voted
from troth.v1 import types_pb2
from troth.words import Answer, Vote


def _reader(t: Target) -> tuple[int, int]:
    """A read-only branch, and a write to the same place that waits for it."""
    place = t.place()
    reader = t.prepare(place.look(), read_only=True).number
    t.votes_read_only(reader)
    writer = t.prepare(place.write()).number
    return reader, writer


@check("rule 9", "READ_ONLY brings its rows and names its incarnation.")
def read_only_names_its_incarnation(t: Target) -> None:
    voted = t.votes_read_only(t.prepare(t.place().look(), read_only=True).number)
    require(types_pb2.Rows.FromString(voted.rows).rows, "a row", "none")
    require(voted.incarnation == t.lane.hello.incarnation, f"{t.lane.hello.incarnation}", voted.incarnation)


@check("rule 9", "A READ_ONLY voter keeps its shared locks until it is released.")
def read_only_keeps_its_locks(t: Target) -> None:
    reader, writer = _reader(t)
    if t.waits(writer, "the writer to wait for the reader"):
        t.release(reader)
        t.votes_yes(writer)


@check("rule 9", "An ABORT releases a READ_ONLY voter as well.")
def an_abort_releases_read_only(t: Target) -> None:
    reader, writer = _reader(t)
    if t.waits(writer, "the writer to wait for the reader"):
        t.abort(reader)
        t.votes_yes(writer)


@check("rule 9", "A READ_ONLY voter that hears nothing asks; no answer and PENDING keep its locks.")
def read_only_asks_and_waits(t: Target) -> None:
    place = t.place()
    reader = t.prepare(place.look(), read_only=True).number
    t.votes_read_only(reader)
    t.hang_up()
    wait_asked(t, reader)
    t.inquiries.answers[reader] = Answer.PENDING
    wait_asked(t, reader)
    t.open()
    t.waits(t.prepare(place.write()).number, "the writer to wait for the reader")


@check("rule 9", "Any other answer releases its locks.")
def any_answer_releases_read_only(t: Target) -> None:
    for answer in (Answer.COMMITTED, Answer.ABORTED):
        place = t.place()
        reader = t.prepare(place.look(), read_only=True).number
        t.votes_read_only(reader)
        t.hang_up()
        t.inquiries.answers[reader] = answer
        wait_asked(t, reader, 1)
        t.open()
        t.apply(place.write())


@check("rule 9", "READ_ONLY leaves nothing behind: another life does not ask about it.", Needs.RESTART)
def read_only_leaves_nothing(t: Target) -> None:
    place = t.place()
    reader = t.prepare(place.look(), read_only=True).number
    t.votes_read_only(reader)
    require(reader not in t.kill().questions, "no question about a read-only branch", "one")
    t.apply(place.write())


@check("durability", "READ_ONLY leaves only when what it has read is durable.", Needs.RESTART)
def what_was_read_outlives_a_kill(t: Target) -> None:
    """Where rows and records are kept apart, the rows tell: the record of the commit may be lost."""
    place = t.place()
    before = t.look(place)
    writer = t.yes(place.write())
    reader = t.number()
    t.decide(writer)
    t.prepare(place.look(), read_only=True, number=reader)
    t.take(Voted, reader, "a vote")
    t.crash()
    if writer in t.back().questions:
        if not isinstance(place, Row):
            raise NotChecked(
                "the commit that was read is in doubt again, and without a table it is not seen whether done"
            )
        require(t.applied_in(place) != BEGIN, "the commit that was read to be durable", "it is in doubt again")
    t.commit(writer)
    require(t.look(place) != before, "the change that was read", "the old rows")


@check("rule 9", "A read of what is not there is READ_ONLY too, and keeps the absence locked.", Needs.TABLE)
def absence_is_locked(t: Target) -> None:
    row = t.table.absent()
    reader = t.prepare(row.look(), read_only=True).number
    voted = t.votes_read_only(reader)
    (found,) = types_pb2.Rows.FromString(voted.rows).rows
    require(not found.present, "an absent row", "one that is present")
    writer = t.prepare(row.insert()).number
    if t.waits(writer, "the insert to wait for the reader"):
        t.release(reader)
        require(t.vote(writer).vote is Vote.YES, "the vote YES after the release", "another one")
