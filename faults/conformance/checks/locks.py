"""Locks: who waits for whom, in what order, and that a restart takes them again (DESIGN section 3, "Locks")."""

from __future__ import annotations

from faults.conformance.check import Needs, NotChecked, check, require
from faults.conformance.target import Target
from faults.conformance.texts import vote_text
from troth import operations as op
from troth.messages import Voted
from troth.words import Vote


@check("locks", "A reader waits for a writer, and then sees what it wrote.")
def a_reader_waits_for_a_writer(t: Target) -> None:
    place = t.place()
    writer = t.yes(place.write())
    reader = t.prepare(place.look(), read_only=True).number
    if t.waits(reader, "the reader to wait for the writer"):
        t.commit(writer)
        require(t.vote(reader).vote is not Vote.NO, "a vote once the writer has ended", "NO")


@check("locks", "Readers do not wait for readers.")
def readers_go_together(t: Target) -> None:
    place = t.place()
    for _ in range(2):
        voted = t.vote(t.prepare(place.look(), read_only=True).number)
        require(voted.vote is not Vote.NO, "a vote for each", vote_text(voted))


@check("locks", "A writer waits for a writer of the same row, and not for one of another.", Needs.TABLE)
def a_writer_waits_for_a_writer(t: Target) -> None:
    row, other = t.row(), t.row()
    first = t.yes(row.update(1))
    second = t.prepare(row.update(2)).number
    third = t.yes(other.update(3))
    if t.waits(second, "the second writer to wait for the first"):
        t.commit(first)
        t.votes_yes(second)
        t.commit(second)
        require(t.number_in(row) == 2, "the second's 2", t.number_in(row))
    t.commit(third)


@check("locks", "First come, first served: nobody overtakes one who waits.", Needs.TABLE)
def nobody_overtakes(t: Target) -> None:
    row = t.row()
    reader = t.prepare(row.look(), read_only=True).number
    voted = t.vote(reader)
    require(voted.vote is not Vote.NO, "a vote for the reader", vote_text(voted))
    writer = t.prepare(row.update(2)).number
    late = t.prepare(row.look(), read_only=True).number
    if not t.waits(writer, "the writer to wait for the reader"):
        raise NotChecked("it does not let branches wait")
    t.waits(late, "the later reader to wait behind the writer")
    t.abort(reader)
    t.votes_yes(writer)
    t.waits(late, "the later reader to wait for the writer")
    t.commit(writer)
    require(t.vote(late).vote is not Vote.NO, "a vote for the later reader", "NO")


@check("locks", "All locks of a branch are asked for in one step: what it waits for holds up nobody it is behind.")
def an_aborted_wait_frees_the_line(t: Target) -> None:
    place = t.place()
    first = t.yes(place.write())
    waiting = [t.prepare(place.look(), read_only=True).number for _ in range(3)]
    if not t.waits(waiting[0], "the readers to wait for the writer"):
        raise NotChecked("it does not let branches wait")
    t.abort(waiting[1])
    t.commit(first)
    for number in (waiting[0], waiting[2]):
        require(t.vote(number).vote is not Vote.NO, "a vote once the writer has ended", "NO")


@check("locks", "What is prepared holds its locks again after a kill -9, before anything is served.", Needs.RESTART)
def locks_are_taken_again(t: Target) -> None:
    place = t.place()
    number = t.yes(place.write())
    t.kill()
    reader = t.prepare(place.look(), read_only=True).number
    t.waits(reader, "the reader to wait for what is prepared")
    t.commit(number)


@check("locks", "A wait for a lock that is too long ends in a NO that may be tried again.")
def a_long_wait_is_a_retryable_no(t: Target) -> None:
    place = t.place()
    first = t.yes(place.write())
    reader = t.prepare(place.look(), read_only=True).number
    voted = t.votes_no(reader, "the vote NO after the lock timeout")
    require(voted.reason and voted.reason.retryable, "a retryable reason", vote_text(voted))
    t.commit(first)


@check("locks", "A row that is not there is locked as well: two inserts of one key exclude each other.", Needs.TABLE)
def absence_is_exclusive_too(t: Target) -> None:
    row = t.table.absent()
    first = t.yes(row.insert())
    second = t.prepare(row.insert()).number
    t.waits(second, "the second insert to wait for the first")
    t.commit(first)
    voted = t.lane.inbox.there(Voted, second) or t.vote(second)
    require(voted.vote is Vote.NO, "NO, for the row is there now", vote_text(voted))


@check("locks", "A row is one lock whatever it is called: 17, 17.0 and '17' are one key, or are refused.", Needs.TABLE)
def two_names_are_one_lock(t: Target) -> None:
    row = t.row()
    number = int(str(row.key))
    first = t.yes(row.update(1))
    for name in (number, float(number), str(number)):
        other = op.update(row.table, name, {row.column: 2})
        t.not_yes(t.prepare(other).number, f"no YES for the same row called {name!r}")
    other = op.update(row.table.upper(), row.key, {row.column.upper(): 2})
    t.not_yes(t.prepare(other).number, f"no YES for the same row in {row.table.upper()}")
    t.commit(first)
