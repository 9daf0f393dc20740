"""COMMIT: acknowledged only when it is durable, once whatever comes (rules 5 and 7)."""

from __future__ import annotations

from faults.conformance.check import Needs, NotChecked, check, require
from faults.conformance.target import Target
from troth.messages import Acknowledged, Commit
from troth.v1 import participant_pb2


@check("rule 5", "A COMMIT that comes twice is acknowledged twice and applied once.", Needs.TABLE)
def a_doubled_commit_is_applied_once(t: Target) -> None:
    row = t.row()
    number = t.yes(row.add(10))
    t.commit(number)
    t.commit(number)
    require(t.number_in(row) == 110, "one add, 110", t.number_in(row))


@check("rule 5", "A prepare that comes after its commit starts nothing.", Needs.TABLE)
def a_prepare_after_its_commit_starts_nothing(t: Target) -> None:
    row = t.row()
    prepare = t.prepare(row.add(10))
    t.votes_yes(prepare.number)
    t.commit(prepare.number)
    t.send(prepare)
    t.settled()
    t.commit(prepare.number)
    require(t.number_in(row) == 110, "one add, 110", t.number_in(row))


@check("rule 5", "An acknowledged commit outlives a kill -9.", Needs.RESTART)
def an_acknowledged_commit_outlives_a_kill(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    t.apply(place.write())
    t.kill()
    require(t.look(place) != before, "the change", "the old rows")


@check("rule 5", "Every acknowledgement that was heard is of a commit that outlives a kill -9.", Needs.RESTART)
def acknowledgements_come_after_the_flush(t: Target) -> None:
    numbers = t.votes_yes_each(t.prepare_each(*t.many_writes()))
    t.decide(*numbers)
    t.take(Acknowledged, numbers[0], "an acknowledgement")
    t.crash()
    acknowledged = {numbers[0], *(each.number for each in t.lane.inbox.take_all(Acknowledged))}
    again = acknowledged & set(t.back().questions)
    require(not again, f"all {len(acknowledged)} acknowledged to be committed", f"{len(again)} are in doubt again")
    t.decide(*numbers)
    for number in numbers:
        t.acknowledged(number)


@check("rule 7", "What was committed is remembered through a kill -9: its COMMIT is acknowledged.", Needs.RESTART)
def a_commit_is_remembered_through_a_kill(t: Target) -> None:
    place = t.place()
    number = t.yes(place.write())
    t.commit(number)
    after = t.look(place)
    t.kill()
    t.commit(number)
    require(t.look(place) == after, "the rows as the first commit left them", "other rows")


@check("rule 7", "A COMMIT above the mark for what has no trace is an alarm, not an acknowledgement.")
def a_commit_without_a_trace_is_not_acknowledged(t: Target) -> None:
    number = t.number()
    t.send(Commit(number))
    t.silent(Acknowledged, number, "no acknowledgement")


@check("rule 7", "A COMMIT for what was aborted is an alarm, not an acknowledgement.")
def a_commit_of_what_was_aborted_is_not_acknowledged(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    t.abort(number)
    t.send(Commit(number))
    t.silent(Acknowledged, number, "no acknowledgement")
    require(t.look(place) == before, "the rows as they were", "other rows")


@check("rule 7", "An ABORT of what is committed changes nothing.")
def an_abort_of_what_is_committed_changes_nothing(t: Target) -> None:
    place = t.place()
    number = t.yes(place.write())
    t.commit(number)
    after = t.look(place)
    t.abort(number)
    require(t.look(place) == after, "the rows as they were", "other rows")
    t.commit(number)


@check("rule 7", "What contradicts the log is counted as an alarm, for a person to see.")
def a_contradiction_is_an_alarm(t: Target) -> None:
    before = _alarms(t)
    t.send(Commit(t.number()))
    t.eventually(lambda: _alarms(t) > before, "one more alarm", lambda: f"{_alarms(t)}, as before")


def _alarms(t: Target) -> int:
    counters = t.call(t.queries.Status, participant_pb2.ParticipantStatusRequest()).counters
    if not counters.received:
        raise NotChecked("its status has no counters")
    return int(counters.alarms)
