"""What is odd or large is refused clearly, and the lane and the participant live on."""

from __future__ import annotations

from faults.conformance.check import Needs, check, require
from faults.conformance.target import MANY, Target
from faults.conformance.texts import encoded, vote_text
from troth import operations as op
from troth.messages import Commit, Prepare, Release
from troth.v1 import participant_pb2, types_pb2
from troth.v1.types_pb2 import Operation
from troth.words import Vote

OPERATIONS = 1_000
"""What a coordinator lets through in one transaction, by default."""
TEXT_BYTES = 3_000_000
"""Nearly the bytes that it lets through."""


@check("rule 2", "What cannot be decoded, or is empty, gets NO with a reason, and the lane lives on.")
def nonsense_is_refused(t: Target) -> None:
    nothing_to_do = encoded([Operation(table="conformance", key=[types_pb2.Value(integer=1)])])
    for operations in (b"\xff\xff\xff", b"", nothing_to_do):
        number = t.number()
        t.send(Prepare(number, operations, False, ()))
        voted = t.votes_no(number, f"NO for the operations {operations!r}")
        require(voted.reason and voted.reason.code, "a reason", vote_text(voted))
    t.apply(t.place().write())


@check("rule 2", "A table that is not there, a wrong key and a wrong type get NO with a reason.", Needs.TABLE)
def what_fits_no_table_is_refused(t: Target) -> None:
    row = t.row()
    bad = (
        op.read("no_such_table", 1),
        op.update(row.table, row.key, {"no_such_column": 1}),
        op.update(row.table, row.key, {row.column: "not a number"}),
        op.update(row.table, row.key, {row.column: 1.5}),
        op.insert(row.table, (1, 2), {row.column: 1}),
        op.custom("no_such_operation", {"x": 1}),
    )
    for operation in bad:
        voted = t.votes_no(t.prepare(operation).number)
        require(voted.reason and voted.reason.code, "a reason", vote_text(voted))
        require(voted.reason and not voted.reason.retryable, "a reason that is not retryable", vote_text(voted))


@check("rule 2", "A branch of many operations gets its vote.", Needs.TABLE)
def many_operations_get_a_vote(t: Target) -> None:
    row = t.row()
    number = t.prepare(*[row.add(1) for _ in range(OPERATIONS)]).number
    if t.vote(number).vote is Vote.YES:
        t.commit(number)
        require(t.number_in(row) == 100 + OPERATIONS, f"{100 + OPERATIONS}", t.number_in(row))


@check("rule 2", "A branch of three million bytes gets its vote, and the lane lives on.", Needs.TABLE)
def a_large_branch_gets_a_vote(t: Target) -> None:
    row = t.row()
    t.vote(t.prepare(row.look(), op.custom("large", "x" * TEXT_BYTES)).number)
    t.apply(row.write())


@check("rule 2", "The same steps work as single calls, and are answered when they are durable.")
def single_calls_do_the_same(t: Target) -> None:
    place = t.place()
    before = t.look(place)
    for end in (t.branches.Abort, t.branches.Commit):
        require(t.look(place) == before, "the rows as they were", "other rows")
        attempt = types_pb2.Attempt(log=t.lane.log, number=t.number())
        operations = types_pb2.Operations.FromString(encoded([place.write()]))
        voted = t.call(t.branches.Prepare, participant_pb2.PrepareRequest(attempt=attempt, operations=operations))
        require(voted.vote == types_pb2.VOTE_YES, "the vote YES", types_pb2.Vote.Name(voted.vote))
        t.call(end, participant_pb2.BranchRequest(attempt=attempt))
    require(t.look(place) != before, "the change", "the old rows")
    t.decide(attempt.number)
    t.acknowledged(attempt.number)


@check("rule 8", "A message of every kind about attempts that nobody knows ends no lane.")
def strangers_end_no_lane(t: Target) -> None:
    t.send(Commit(t.number()), Release(t.number()))
    t.abort(t.number())
    t.apply(t.place().write())


@check("rule 8", "Many branches in one message get a vote each.", Needs.TABLE)
def many_branches_get_a_vote_each(t: Target) -> None:
    done = t.apply_each(*t.many_writes())
    require(done == MANY, f"{MANY} times YES", f"{done}")
