"""Messages (`messages.py`) to the lane's protobuf batches and back.

A batch carries what came up while the last write was awaited: repeated fields, one per kind, which the receiver applies
in the order of the fields. So the order of messages of different kinds is not kept within a batch, and a node must not
need it; that of one kind is. Reasons pass through as protobuf messages, rows and operations as bytes.

This is the hot path of both processes: tables by type, one pass, attributes set one by one (the fastest way into
protobuf).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

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
    ToCoordinator,
    ToParticipant,
    Voted,
)
from troth.v1 import participant_pb2, types_pb2
from troth.words import Answer, Outcome, Vote

BATCH_BYTES_MAX = 3_670_016
"""3.5 MiB: a batch of several messages stays below gRPC's common limit of 4 MiB, hello and durable number included."""

KINDS: Mapping[type, str] = {
    Prepare: "prepare",
    Voted: "vote",
    Commit: "commit",
    Acknowledged: "acknowledged",
    Abort: "abort",
    Release: "release",
    OnePhase: "one_phase",
    OnePhaseEnded: "one_phase_ended",
    Question: "question",
    Answered: "answer",
}
"""The messages that DESIGN section 3 counts, by the names under which they are counted. Hellos and marks are not."""


class Malformed(ValueError):
    """A batch holds what this version of the protocol does not have."""


def count(messages: Iterable[ToParticipant | ToCoordinator], counts: Counter[str]) -> None:
    """Adds the messages to `counts`, by kind."""
    kinds = list(map(type, messages))
    for kind in set(kinds):
        name = KINDS.get(kind)
        if name is not None:
            counts[name] += kinds.count(kind)


# Encoding: for each message type the function that adds it to a batch, and an upper bound of the bytes it adds.

_FIXED_BYTES = 48
"""What a message takes at most beside its bytes, texts and lists: three numbers of ten bytes, tags and lengths."""

_NUMBER_BYTES = 10
"""A number takes at most so many."""


def _add_prepare(batch: participant_pb2.ToParticipant, message: Prepare) -> None:
    added = batch.prepares.add()
    added.number = message.number
    added.operations = message.operations
    if message.read_only:
        added.read_only = True
    for peer in message.peers:
        named = added.peers.add()
        named.participant, named.address, named.identity = peer


def _add_one_phase(batch: participant_pb2.ToParticipant, message: OnePhase) -> None:
    added = batch.one_phases.add()
    added.number, added.operations, added.incarnation = message


def _add_commit(batch: participant_pb2.ToParticipant, message: Commit) -> None:
    batch.commits.append(message.number)


def _add_abort(batch: participant_pb2.ToParticipant, message: Abort) -> None:
    batch.aborts.append(message.number)


def _add_release(batch: participant_pb2.ToParticipant, message: Release) -> None:
    batch.releases.append(message.number)


def _add_mark(batch: participant_pb2.ToParticipant, message: Mark) -> None:
    # Several marks of one batch: the last is the newest.
    batch.mark.Clear()
    batch.mark.low = message.low
    getattr(batch.mark, "except").extend(message.excepted)


def _add_question(batch: participant_pb2.ToParticipant | participant_pb2.ToCoordinator, message: Question) -> None:
    batch.questions.add().number = message.number


def _add_answer(batch: participant_pb2.ToParticipant | participant_pb2.ToCoordinator, message: Answered) -> None:
    added = batch.answers.add()
    added.number = message.number
    added.answer = int(message.answer)  # type: ignore[assignment]


def _add_vote(batch: participant_pb2.ToCoordinator, message: Voted) -> None:
    added = batch.votes.add()
    added.number = message.number
    added.vote = int(message.vote)  # type: ignore[assignment]
    added.incarnation = message.incarnation
    if message.rows:
        added.rows = message.rows
    if message.reason is not None:
        added.reason.CopyFrom(message.reason)


def _add_one_phase_ended(batch: participant_pb2.ToCoordinator, message: OnePhaseEnded) -> None:
    added = batch.one_phases.add()
    added.number = message.number
    added.outcome = int(message.outcome)  # type: ignore[assignment]
    if message.rows:
        added.rows = message.rows
    if message.reason is not None:
        added.reason.CopyFrom(message.reason)


def _add_acknowledged(batch: participant_pb2.ToCoordinator, message: Acknowledged) -> None:
    added = batch.acknowledged.add()
    added.number = message.number
    if message.heuristic is not None:
        added.heuristic = int(message.heuristic)  # type: ignore[assignment]


def _fixed_bytes(message: Any) -> int:
    return _FIXED_BYTES


def _prepare_bytes(message: Prepare) -> int:
    size = _FIXED_BYTES + len(message.operations)
    for participant, address, identity in message.peers:
        # Four bytes for each character, the most that UTF-8 takes.
        size += _FIXED_BYTES + 4 * (len(participant) + len(address) + len(identity))
    return size


def _one_phase_bytes(message: OnePhase) -> int:
    return _FIXED_BYTES + len(message.operations)


def _mark_bytes(message: Mark) -> int:
    return _FIXED_BYTES + _NUMBER_BYTES * len(message.excepted)


def _answer_bytes(message: Voted | OnePhaseEnded) -> int:
    reason = message.reason
    return _FIXED_BYTES + len(message.rows) + (0 if reason is None else reason.ByteSize())


_Table = Mapping[type, tuple[Callable[[Any, Any], None], Callable[[Any], int]]]

_TO_PARTICIPANT: _Table = {
    Prepare: (_add_prepare, _prepare_bytes),
    OnePhase: (_add_one_phase, _one_phase_bytes),
    Commit: (_add_commit, _fixed_bytes),
    Abort: (_add_abort, _fixed_bytes),
    Release: (_add_release, _fixed_bytes),
    Mark: (_add_mark, _mark_bytes),
    Question: (_add_question, _fixed_bytes),
    Answered: (_add_answer, _fixed_bytes),
}

_TO_COORDINATOR: _Table = {
    Voted: (_add_vote, _answer_bytes),
    OnePhaseEnded: (_add_one_phase_ended, _answer_bytes),
    Acknowledged: (_add_acknowledged, _fixed_bytes),
    Question: (_add_question, _fixed_bytes),
    Answered: (_add_answer, _fixed_bytes),
}

_Batch = TypeVar("_Batch", participant_pb2.ToParticipant, participant_pb2.ToCoordinator)


def _encode(
    make: Callable[[], _Batch], table: _Table, messages: Sequence[Any], durable: int, limit: int
) -> list[_Batch]:
    batches: list[_Batch] = []
    room = -1
    batch = None
    for message in messages:
        add, size_of = table[type(message)]
        size = size_of(message)
        room -= size
        if room < 0 or batch is None:
            batch = make()
            batch.durable = durable
            batches.append(batch)
            room = limit - _FIXED_BYTES - size
        add(batch, message)
    return batches


def encode_to_participant(
    messages: Sequence[ToParticipant], durable: int, limit: int = BATCH_BYTES_MAX
) -> list[participant_pb2.ToParticipant]:
    """As few batches as keep below `limit` bytes each, in order; a single message above it makes a batch of its own
    (limits on a transaction's size belong to the node). `durable` is this process's highest durable number."""
    return _encode(participant_pb2.ToParticipant, _TO_PARTICIPANT, messages, durable, limit)


def encode_to_coordinator(
    messages: Sequence[ToCoordinator], durable: int, limit: int = BATCH_BYTES_MAX
) -> list[participant_pb2.ToCoordinator]:
    """The same towards the coordinator."""
    return _encode(participant_pb2.ToCoordinator, _TO_COORDINATOR, messages, durable, limit)


# Decoding.

_VOTES: Mapping[int, Vote] = {int(vote): vote for vote in Vote}
_ENDS: Mapping[int, Outcome] = {int(outcome): outcome for outcome in (Outcome.COMMITTED, Outcome.ABORTED)}
_ANSWERS: Mapping[int, Answer] = {int(answer): answer for answer in (Answer.PENDING, Answer.COMMITTED, Answer.ABORTED)}
_HEURISTICS: Mapping[int, Outcome | None] = {0: None, **_ENDS}


def end_of(outcome: int) -> Outcome | None:
    """How an attempt ended, COMMITTED or ABORTED; None for what is neither."""
    return _ENDS.get(outcome)


def answer_of(answer: int) -> Answer | None:
    """The answer of a unary reply; None for NONE and for what this version does not know: both say nothing."""
    return _ANSWERS.get(answer)


def decode_to_participant(batch: participant_pb2.ToParticipant) -> tuple[ToParticipant, ...]:
    """The messages of a batch in the order in which they are applied. Raises Malformed."""
    messages: list[ToParticipant] = []
    if batch.HasField("mark"):
        messages.append(Mark(batch.mark.low, tuple(getattr(batch.mark, "except"))))
    if batch.answers:
        messages += _answers(batch.answers)
    if batch.commits:
        messages += map(Commit, batch.commits)
    if batch.aborts:
        messages += map(Abort, batch.aborts)
    if batch.releases:
        messages += map(Release, batch.releases)
    if batch.questions:
        messages += [Question(question.number) for question in batch.questions]
    if batch.prepares:
        messages += [
            Prepare(prepare.number, prepare.operations, prepare.read_only, peers_of(prepare.peers))
            for prepare in batch.prepares
        ]
    if batch.one_phases:
        messages += [OnePhase(one.number, one.operations, one.incarnation) for one in batch.one_phases]
    return tuple(messages)


def decode_to_coordinator(batch: participant_pb2.ToCoordinator) -> tuple[ToCoordinator, ...]:
    """The messages of a batch in the order in which they are applied. Raises Malformed."""
    messages: list[ToCoordinator] = []
    try:
        if batch.votes:
            messages += [
                Voted(vote.number, _VOTES[vote.vote], vote.incarnation, vote.rows, _reason_of(vote))
                for vote in batch.votes
            ]
        if batch.one_phases:
            messages += [
                OnePhaseEnded(end.number, _ENDS[end.outcome], end.rows, _reason_of(end)) for end in batch.one_phases
            ]
        if batch.acknowledged:
            messages += [Acknowledged(ack.number, _HEURISTICS[ack.heuristic]) for ack in batch.acknowledged]
    except KeyError as error:
        raise Malformed(f"a vote or outcome of number {error} is none that a lane carries") from error
    if batch.questions:
        messages += [Question(question.number) for question in batch.questions]
    if batch.answers:
        messages += _answers(batch.answers)
    return tuple(messages)


def peers_of(peers: Iterable[participant_pb2.Peer]) -> tuple[Peer, ...]:
    """The peers that a prepare names."""
    return tuple([Peer(peer.participant, peer.address, peer.identity) for peer in peers])


def _answers(answers: Iterable[participant_pb2.Answered]) -> list[Answered]:
    try:
        return [Answered(answered.number, _ANSWERS[answered.answer]) for answered in answers]
    except KeyError as error:
        raise Malformed(f"an answer of number {error} is none that a lane carries") from error


def _reason_of(message: participant_pb2.Voted | participant_pb2.OnePhaseEnded) -> types_pb2.Reason | None:
    """A copy, since a part of a batch keeps the memory of the whole batch."""
    if not message.HasField("reason"):
        return None
    reason = types_pb2.Reason()
    reason.CopyFrom(message.reason)
    return reason
