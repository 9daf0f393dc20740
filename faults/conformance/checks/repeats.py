"""Messages that come late, twice, or with other content (rule 8)."""

from __future__ import annotations

from faults.conformance.check import Needs, check, require
from faults.conformance.target import Target
from faults.conformance.texts import encoded
from troth.messages import Acknowledged, Voted


@check("rule 8", "A prepare that comes twice gets the same vote twice, with the same rows.")
def a_doubled_prepare_gets_its_vote_again(t: Target) -> None:
    place = t.place()
    prepare = t.prepare(place.write(), place.look())
    first = t.votes_yes(prepare.number)
    t.send(prepare)
    again = t.votes_yes(prepare.number)
    require((again.incarnation, again.rows) == (first.incarnation, first.rows), "the same incarnation and rows", again)


@check("rule 8", "A NO stays NO when its prepare comes twice.", Needs.REFUSED)
def a_doubled_no_stays_no(t: Target) -> None:
    prepare = t.prepare(t.place().refused())
    t.votes_no(prepare.number)
    t.send(prepare)
    t.votes_no(prepare.number, "NO again")


@check("rule 8", "A doubled prepare takes the locks once: after the end they are free.")
def a_doubled_prepare_locks_once(t: Target) -> None:
    place = t.place()
    prepare = t.prepare(place.write())
    t.send(prepare)
    t.votes_yes(prepare.number)
    t.commit(prepare.number)
    t.apply(place.write())


@check("rule 8", "A prepare that waits and comes twice is one branch.", Needs.TABLE)
def a_doubled_waiting_prepare_is_one_branch(t: Target) -> None:
    row = t.row()
    first = t.yes(row.update(1))
    second = t.prepare(row.add(10))
    t.send(second)
    t.waits(second.number, "the second to wait for the row")
    t.abort(first)
    t.votes_yes(second.number)
    t.commit(second.number)
    require(t.number_in(row) == 110, "one add, 110", t.number_in(row))


@check("rule 8", "The same number with other content gets no YES, and the first content stays.", Needs.TABLE)
def other_content_gets_no_yes(t: Target) -> None:
    row, other = t.row(), t.row()
    number = t.yes(row.update(1))
    t.send(t.prepare(row.update(2), number=number)._replace(operations=encoded([other.update(2)])))
    t.not_yes(number, "no YES for other content")
    t.commit(number)
    require(t.number_in(row) == 1, "the first content, 1", t.number_in(row))
    require(t.number_in(other) == 100, "nothing of the other content, 100", t.number_in(other))


@check("rule 8", "A prepare that comes after its abort gets NO.")
def a_prepare_after_its_abort_is_refused(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.number()
    t.abort(number)
    t.prepare(place.write(), number=number)
    t.votes_no(number)
    require(t.look(place) == before, "the rows as they were", "other rows")


@check("rule 8", "An abort frees the locks and undoes the branch, may come twice, and its prepare is then too late.")
def an_abort_is_final(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    prepare = t.prepare(place.write())
    t.votes_yes(prepare.number)
    t.abort(prepare.number)
    t.abort(prepare.number)
    require(t.look(place) == before, "the rows as they were", "other rows")
    t.send(prepare)
    t.votes_no(prepare.number)
    t.apply(place.write())


@check("rule 7", "An abort after a YES is remembered through a kill -9: its prepare is still too late.", Needs.RESTART)
def an_abort_outlives_a_kill(t: Target) -> None:
    place = t.place()
    prepare = t.prepare(place.write())
    t.votes_yes(prepare.number)
    t.abort(prepare.number)
    t.apply(place.write())  # durable no sooner than the abort, which was queued before it
    asked = t.kill().questions
    require(prepare.number not in asked, "no question about what was aborted", "one")
    t.send(prepare)
    t.votes_no(prepare.number)


@check("rule 8", "An abort takes a waiting branch out of the line.")
def an_abort_leaves_the_line(t: Target) -> None:
    place = t.place()
    first = t.yes(place.write())
    reader = t.prepare(place.look(), read_only=True)
    t.waits(reader.number, "the reader to wait for the row")
    t.abort(reader.number)
    t.commit(first)
    t.apply(place.write())
    t.not_yes(reader.number, "no YES for what was aborted")


@check("rule 8", "An abort is never acknowledged.")
def an_abort_is_not_acknowledged(t: Target) -> None:
    number = t.yes(t.place().write())
    t.abort(number)
    t.silent(Acknowledged, number, "no acknowledgement of an abort")


@check("rule 8", "A release of what is not read-only frees and ends nothing.")
def a_stray_release_frees_nothing(t: Target) -> None:
    place = t.place()
    t.release(t.number())
    first = t.yes(place.write())
    reader = t.prepare(place.look(), read_only=True).number
    t.waits(reader, "the reader to wait for the row")
    t.silent(Voted, first, "no second vote")
    t.commit(first)
