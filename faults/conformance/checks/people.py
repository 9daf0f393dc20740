"""What a person may resolve, and that the branch goes on asking for the truth (rule 12)."""

from __future__ import annotations

from typing import Any

import grpc

from faults.conformance.check import Needs, check, require, violated
from faults.conformance.target import Target
from troth.messages import Acknowledged
from troth.v1 import participant_pb2, types_pb2
from troth.words import Answer, Outcome

WHY = "troth check-participant"


def _resolve(t: Target, number: int, outcome: Outcome) -> None:
    t.call(t.branches.Resolve, _request(t, number, outcome))


def _request(t: Target, number: int, outcome: Outcome) -> Any:
    attempt = types_pb2.Attempt(log=t.lane.log, number=number)
    return participant_pb2.ResolveBranchRequest(attempt=attempt, outcome=f"OUTCOME_{outcome.name}", reason=WHY)


def _heuristic(taken: Acknowledged, expected: Outcome) -> None:
    said = taken.heuristic.name if taken.heuristic else "an ordinary acknowledgement"
    require(taken.heuristic is expected, f"an acknowledgement as heuristic {expected.name}", said)


@check("rule 12", "A branch in doubt is listed with its age, its locks and its reason, until it has ended.")
def what_is_in_doubt_is_listed(t: Target) -> None:
    number = t.yes(t.place().write())
    listed = _in_doubt(t, number)
    require(listed is not None, "it to be listed as in doubt", "it is not")
    assert listed is not None
    require(listed.locked and listed.why and listed.age_s >= 0, "age, locks and reason", listed)
    t.commit(number)
    require(_in_doubt(t, number) is None, "it no longer to be listed", "it still is")


@check("rule 12", "Resolved as committed it is applied, its locks go, and it goes on asking.")
def resolved_as_committed_it_goes_on_asking(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    _resolve(t, number, Outcome.COMMITTED)
    require(t.look(place) != before, "the change", "the old rows")
    t.hang_up()
    require(number in t.open().questions, "a question about it", "none")
    _heuristic(t.commit(number), Outcome.COMMITTED)
    t.hang_up()
    require(number not in t.open().questions, "no question once the truth is known", "one")


@check("rule 12", "Resolved as aborted, its COMMIT is acknowledged as heuristic, each time, and changes nothing.")
def a_torn_branch_says_so(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    number = t.yes(place.write())
    _resolve(t, number, Outcome.ABORTED)
    _heuristic(t.commit(number), Outcome.ABORTED)
    _heuristic(t.commit(number), Outcome.ABORTED)
    require(t.look(place) == before, "the rows as they were", "other rows")


@check("rule 12", "Only what is in doubt can be resolved (FAILED_PRECONDITION).")
def only_what_is_in_doubt_can_be_resolved(t: Target) -> None:
    committed = t.yes(t.place().write())
    t.commit(committed)
    for number in (committed, t.number()):
        _is_refused(t, number)


def _is_refused(t: Target, number: int) -> None:
    try:
        _resolve(t, number, Outcome.ABORTED)
    except grpc.RpcError as error:
        status = error.code() if hasattr(error, "code") else None
        require(status is grpc.StatusCode.FAILED_PRECONDITION, "FAILED_PRECONDITION", status)
        return
    violated("a refusal", "it was done")


@check("rule 6", "A heuristic outcome is told to no peer; the truth is, once it is known.")
def a_heuristic_outcome_is_no_answer(t: Target) -> None:
    number = t.yes(t.place().write())
    _resolve(t, number, Outcome.COMMITTED)
    answer = t.peer_asks(number)
    require(answer is Answer.NONE, "no answer to a peer", answer.name)
    t.abort(number)
    t.settled()
    answer = t.peer_asks(number)
    require(answer is Answer.ABORTED, "ABORTED, the truth", answer.name)


@check("rule 12", "A heuristic outcome outlives a kill -9, is not applied twice, and still asks.", Needs.RESTART)
def a_heuristic_outcome_outlives_a_kill(t: Target) -> None:
    place = t.place()
    number = t.yes(place.write())
    _resolve(t, number, Outcome.COMMITTED)
    after = t.look(place)
    require(number in t.kill().questions, "a question about it", "none")
    _heuristic(t.commit(number), Outcome.COMMITTED)
    require(t.look(place) == after, "the rows as they were resolved", "other rows")


def _in_doubt(t: Target, number: int) -> Any:
    branches = t.call(t.queries.InDoubt, participant_pb2.InDoubtRequest()).branches
    mine = types_pb2.Attempt(log=t.lane.log, number=number)
    return next((each for each in branches if each.attempt == mine), None)
