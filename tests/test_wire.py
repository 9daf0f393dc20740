"""The lane's batches: what goes in comes out, in the order of the fields, and no batch passes the cap."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.driving import wire
from troth.messages import (
    Abort,
    Acknowledged,
    Answered,
    Commit,
    Mark,
    OnePhase,
    OnePhaseEnded,
    Peer,
    Prepare,
    Question,
    Release,
    Voted,
)
from troth.reasons import reason
from troth.v1 import participant_pb2
from troth.v1.types_pb2 import Code
from troth.words import Answer, Outcome, Vote

numbers = st.integers(1, 2**63 - 1)
content = st.binary(max_size=300)
answers = st.sampled_from([Answer.PENDING, Answer.COMMITTED, Answer.ABORTED])
ends = st.sampled_from([Outcome.COMMITTED, Outcome.ABORTED])
names = st.text(max_size=20)
peers = st.lists(st.builds(Peer, names, names, names), max_size=3).map(tuple)
whys = st.none() | st.builds(reason, st.sampled_from([Code.CODE_UNIQUE, Code.CODE_TIMEOUT]), names)

questions = st.builds(Question, numbers)
answered = st.builds(Answered, numbers, answers)
to_participant = st.one_of(
    st.builds(Prepare, numbers, content, st.booleans(), peers),
    st.builds(OnePhase, numbers, content, numbers),
    st.builds(Commit, numbers),
    st.builds(Abort, numbers),
    st.builds(Release, numbers),
    questions,
    answered,
)
to_coordinator = st.one_of(
    st.builds(Voted, numbers, st.sampled_from(list(Vote)), numbers, content, whys),
    st.builds(OnePhaseEnded, numbers, ends, content, whys),
    st.builds(Acknowledged, numbers, st.none() | ends),
    questions,
    answered,
)
marks = st.builds(Mark, numbers, st.lists(numbers, max_size=9).map(lambda excepted: tuple(sorted(excepted))))

PARTICIPANT_ORDER = (Mark, Answered, Commit, Abort, Release, Question, Prepare, OnePhase)
COORDINATOR_ORDER = (Voted, OnePhaseEnded, Acknowledged, Question, Answered)


def in_field_order(messages: list[Any], order: tuple[type, ...]) -> list[Any]:
    return sorted(messages, key=lambda message: order.index(type(message)))


@given(st.lists(to_participant, max_size=40), st.none() | marks, numbers)
def test_what_is_sent_to_a_participant_arrives_in_the_order_of_the_fields(
    messages: list[Any], mark: Mark | None, durable: int
) -> None:
    messages += [] if mark is None else [mark]
    batches = wire.encode_to_participant(messages, durable)
    assert len(batches) == (1 if messages else 0)
    arrived = [participant_pb2.ToParticipant.FromString(batch.SerializeToString()) for batch in batches]
    assert [batch.durable for batch in arrived] == [durable] * len(batches)
    decoded = [message for batch in arrived for message in wire.decode_to_participant(batch)]
    assert decoded == in_field_order(messages, PARTICIPANT_ORDER)


@given(st.lists(to_coordinator, max_size=40), numbers)
def test_what_is_sent_to_the_coordinator_arrives_in_the_order_of_the_fields(messages: list[Any], durable: int) -> None:
    batches = wire.encode_to_coordinator(messages, durable)
    assert len(batches) == (1 if messages else 0)
    arrived = [participant_pb2.ToCoordinator.FromString(batch.SerializeToString()) for batch in batches]
    assert [batch.durable for batch in arrived] == [durable] * len(batches)
    decoded = [message for batch in arrived for message in wire.decode_to_coordinator(batch)]
    assert decoded == in_field_order(messages, COORDINATOR_ORDER)


@given(st.lists(to_participant | marks, max_size=40), st.integers(200, 1500))
def test_no_batch_passes_the_cap_unless_it_holds_a_single_message(messages: list[Any], limit: int) -> None:
    batches = wire.encode_to_participant(messages, 2**62, limit)
    for batch in batches:
        assert batch.ByteSize() <= limit or len(wire.decode_to_participant(batch)) == 1


@given(st.lists(to_coordinator, max_size=40), st.integers(200, 1500))
def test_splitting_keeps_every_message_and_the_order_within_a_kind(messages: list[Any], limit: int) -> None:
    batches = wire.encode_to_coordinator(messages, 1, limit)
    decoded = [message for batch in batches for message in wire.decode_to_coordinator(batch)]
    for kind in COORDINATOR_ORDER:
        assert [m for m in decoded if type(m) is kind] == [m for m in messages if type(m) is kind]
    for batch in batches:
        assert batch.ByteSize() <= limit or len(wire.decode_to_coordinator(batch)) == 1


def test_a_batch_is_filled_before_the_next_is_begun() -> None:
    large = [Prepare(n, b"x" * 1_000_000, False, ()) for n in range(1, 8)]
    batches = wire.encode_to_participant(large, 0)
    assert [len(batch.prepares) for batch in batches] == [3, 3, 1]
    assert all(batch.ByteSize() < 4 * 1024 * 1024 for batch in batches)


def test_the_newest_of_several_marks_in_one_batch_is_the_one_that_arrives() -> None:
    (batch,) = wire.encode_to_participant([Mark(5, (1, 2)), Mark(9, (7,))], 0)
    assert wire.decode_to_participant(batch) == (Mark(9, (7,)),)


def test_messages_are_counted_by_the_kinds_of_the_table_of_counts() -> None:
    counts: Counter[str] = Counter()
    wire.count(
        [Commit(1), Commit(2), Mark(3, ()), Abort(4), Voted(5, Vote.YES, 1), Answered(6, Answer.PENDING)], counts
    )
    assert counts == {"commit": 2, "abort": 1, "vote": 1, "answer": 1}


@pytest.mark.parametrize(
    "batch",
    [
        participant_pb2.ToCoordinator(votes=[participant_pb2.Voted(number=1)]),
        participant_pb2.ToCoordinator(one_phases=[participant_pb2.OnePhaseEnded(number=1, outcome="OUTCOME_UNKNOWN")]),
        participant_pb2.ToCoordinator(
            acknowledged=[participant_pb2.Acknowledged(number=1, heuristic="OUTCOME_REFUSED")]
        ),
        participant_pb2.ToCoordinator(answers=[participant_pb2.Answered(number=1, answer="ANSWER_NONE")]),
    ],
)
def test_what_a_lane_does_not_carry_is_malformed(batch: participant_pb2.ToCoordinator) -> None:
    with pytest.raises(wire.Malformed, match="none that a lane carries"):
        wire.decode_to_coordinator(batch)


def test_a_reason_does_not_keep_the_batch_it_came_in() -> None:
    (batch,) = wire.encode_to_coordinator([Voted(1, Vote.NO, 2, reason=reason(Code.CODE_UNIQUE, "taken"))], 0)
    (vote,) = wire.decode_to_coordinator(batch)
    batch.votes[0].reason.message = "changed"
    assert isinstance(vote, Voted)
    assert vote.reason is not None
    assert vote.reason.message == "taken"


def test_an_answer_that_says_nothing_is_no_answer() -> None:
    assert wire.answer_of(int(Answer.COMMITTED)) is Answer.COMMITTED
    assert wire.answer_of(int(Answer.NONE)) is None
    assert wire.answer_of(99) is None
