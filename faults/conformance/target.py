"""The participant under test, as its coordinator and its peers see it: what a check can send, take and require.

Everything goes over the public contract. A step that must succeed raises `Violated` when it does not, so that checks
read as a story of what is expected. What must *not* come is waited for by `settled`: questions that are answered behind
everything sent before, then a short time for a participant that handles messages side by side.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import grpc

from faults.conformance.check import Needs, NotChecked, Violated, require, violated
from faults.conformance.control import Control
from faults.conformance.scripted import NothingCame, ScriptedCoordinator, ScriptedInquiries, ScriptedParticipant
from faults.conformance.texts import encoded, vote_text
from faults.conformance.work import Place, Row, TableWork, Work
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
    ToParticipant,
    Voted,
)
from troth.operations import key_values
from troth.v1 import coordinator_pb2, participant_pb2, participant_pb2_grpc, types_pb2
from troth.v1.types_pb2 import Operation
from troth.words import Answer, Outcome, Vote, number_of

M = TypeVar("M")

FENCE_WITHIN_S = 1.0
"""How long an answer that only orders things is waited for."""
MANY = 64
"""Branches in one message when a kill is to meet some of them before they are durable."""


class Asked(NamedTuple):
    """A peer's question that is under way."""

    number: int
    call: Any

    def result(self) -> Answer:
        """Its answer, waited for."""
        return _answer(self.call.result())

    def answered(self) -> Answer | None:
        """Its answer, if one came; to be asked when none can come any more."""
        return None if self.call.exception() is not None else self.result()


class Target:
    """One participant. Attempts are numbered upwards in one log; `tidy` ends those that a check left open."""

    def __init__(
        self,
        lane: ScriptedCoordinator,
        inquiries: ScriptedInquiries,
        peer: ScriptedParticipant,
        control: Control | None,
        *,
        within_s: float,
        quiet_s: float,
    ) -> None:
        self.lane = lane
        self.inquiries = inquiries
        self.scripted_peer = peer
        self.peer = Peer(peer.name, peer.address, peer.identity)
        """Whom a prepare may name."""
        self.within_s = within_s
        """How long what must come may take; a start may take three times as long."""
        self.quiet_s = quiet_s
        """How long what must not come is waited for, beside what `settled` does."""
        self.work: Work
        self._control = control
        self._sequence = 0
        self._sent: dict[int, tuple[Operation, ...]] = {}
        """What each branch was to do that is not known to be committed."""
        self._open: dict[int, Commit | Abort | None] = {}
        """What ends each attempt that has not ended; nothing for those that the participant decides."""
        stub: Any = participant_pb2_grpc.BranchesStub
        self.branches = stub(lane.channel)
        stub = participant_pb2_grpc.ParticipantQueriesStub
        self.queries = stub(lane.channel)

    # Lives and lanes.

    @property
    def offers(self) -> Needs:
        return self.work.offers | (Needs.RESTART if self._control else Needs.NOTHING)

    def open(self, **hello: Any) -> participant_pb2.ParticipantHello:
        """A new lane, as a coordinator opens it that has seen this file before; gives the participant's hello."""
        seen = {"identity": self.lane.hello.identity, "seen": max(self.lane.announced, default=0)}
        self.lane.open(3 * self.within_s, **(seen | hello))
        return self.lane.hello

    def hang_up(self) -> None:
        self.lane.close()

    def refuses_lane(self, expected: str, **hello: Any) -> grpc.StatusCode | None:
        """A hello that must not be answered by one; the status with which the lane ended."""
        self.hang_up()
        usual = self.lane.hello
        try:
            self.open(**hello)
        except NothingCame:
            return _code(self.lane.inbox.ended)
        said, self.lane.hello = self.lane.hello, usual
        return violated(expected, f"a hello of {said.participant!r}")

    def crash(self) -> None:
        """kill -9. What had come until then can still be taken."""
        assert self._control is not None
        self._control.kill()
        self.hang_up()

    def back(self) -> participant_pb2.ParticipantHello:
        """Started again, with a lane. The first calls may still go out on the dead connection."""
        assert self._control is not None
        self._control.start()
        deadline = time.monotonic() + 3 * self.within_s
        while True:
            try:
                return self.open()
            except NothingCame:
                if _code(self.lane.inbox.ended) is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def kill(self) -> participant_pb2.ParticipantHello:
        self.crash()
        return self.back()

    # Sending.

    def number(self) -> int:
        """The number of a new attempt."""
        self._sequence += 1
        number = number_of(1, self._sequence)
        self._open[number] = Abort(number)
        return number

    def send(self, *messages: ToParticipant) -> None:
        self.lane.send(*messages)

    def prepare(
        self, *operations: Operation, read_only: bool = False, peers: Sequence[Peer] = (), number: int | None = None
    ) -> Prepare:
        """Sends it, and gives it back to be sent again."""
        prepare = Prepare(number or self.number(), encoded(operations), read_only, tuple(peers))
        self._sent[prepare.number] = operations
        self.send(prepare)
        return prepare

    def prepare_each(self, *operations: Operation) -> list[Prepare]:
        """Each as a branch of its own, all in one message."""
        prepares = [Prepare(self.number(), encoded([operation]), False, ()) for operation in operations]
        self._sent.update({p.number: (operation,) for p, operation in zip(prepares, operations, strict=True)})
        self.send(*prepares)
        return prepares

    def one_phase(self, *operations: Operation, number: int | None = None, incarnation: int | None = None) -> OnePhase:
        """The same for a branch that the participant decides."""
        alone = OnePhase(number or self.number(), encoded(operations), incarnation or self.lane.hello.incarnation)
        self._open[alone.number], self._sent[alone.number] = None, operations
        self.send(alone)
        return alone

    def one_phase_each(self, *operations: Operation) -> list[OnePhase]:
        """The same as `prepare_each`."""
        incarnation = self.lane.hello.incarnation
        requests = [OnePhase(self.number(), encoded([operation]), incarnation) for operation in operations]
        self._open.update(dict.fromkeys(request.number for request in requests))
        self._sent.update({r.number: (operation,) for r, operation in zip(requests, operations, strict=True)})
        self.send(*requests)
        return requests

    def many_writes(self) -> list[Operation]:
        """Writes that do not wait for each other: MANY where there is a table, else one."""
        if Needs.TABLE in self.offers:
            return [self.table.absent().insert() for _ in range(MANY)]
        return [self.place().write()]

    def abort(self, number: int) -> None:
        self.send(Abort(number))

    def release(self, number: int) -> None:
        self.send(Release(number))

    def mark(self, low: int, *excepted: int) -> None:
        self.send(Mark(low, excepted))

    # What must come.

    def take(self, kind: type[M], number: int, expected: str = "") -> M:
        try:
            return self.lane.inbox.take(kind, self.within_s, number)
        except NothingCame as nothing:
            raise Violated(expected or f"a {kind.__name__} for the attempt", str(nothing)) from nothing

    def vote(self, number: int) -> Voted:
        """The next vote on the attempt."""
        return self.take(Voted, number, "a vote")

    def yes(self, *operations: Operation, **more: Any) -> int:
        """A branch that gets its YES; its number."""
        number = self.prepare(*operations, **more).number
        self.votes_yes(number)
        return number

    def next_vote(self) -> Voted:
        """The next vote, on whatever attempt."""
        try:
            return self.lane.inbox.take(Voted, self.within_s)
        except NothingCame as nothing:
            raise Violated("a vote", str(nothing)) from nothing

    def votes_yes(self, number: int) -> Voted:
        voted = self.vote(number)
        require(voted.vote is Vote.YES, "the vote YES", vote_text(voted))
        return voted

    def votes_yes_each(self, prepares: Iterable[Prepare]) -> list[int]:
        """The numbers of those with a YES; for others there was no room now, and they may be tried again."""
        votes = [self.vote(prepare.number) for prepare in prepares]
        yes = [voted.number for voted in votes if voted.vote is Vote.YES]
        bad = [voted for voted in votes if voted.vote is not Vote.YES and not _may_be_tried_again(voted)]
        require(yes and not bad, "the vote YES, or a retryable NO", ", ".join(map(vote_text, bad or votes)))
        return yes

    def votes_no(self, number: int, expected: str = "the vote NO") -> Voted:
        voted = self.vote(number)
        require(voted.vote is Vote.NO, expected, vote_text(voted))
        return voted

    def votes_read_only(self, number: int) -> Voted:
        """READ_ONLY; whoever votes YES on a branch that only reads may, and then there is nothing to check."""
        voted = self.vote(number)
        if voted.vote is Vote.YES:
            self.commit(number)
            raise NotChecked("it votes YES where it might vote READ_ONLY")
        require(voted.vote is Vote.READ_ONLY, "the vote READ_ONLY", vote_text(voted))
        return voted

    def decide(self, *numbers: int) -> None:
        """Sends COMMIT for them."""
        self._open.update({number: Commit(number) for number in numbers})
        self.send(*map(Commit, numbers))

    def acknowledged(self, number: int) -> Acknowledged:
        taken = self.take(Acknowledged, number, "an acknowledgement of the COMMIT")
        self._open.pop(number, None)
        self.work.applied(self._sent.pop(number, ()))
        return taken

    def commit(self, number: int) -> Acknowledged:
        """Sends COMMIT and waits for its acknowledgement."""
        self.decide(number)
        return self.acknowledged(number)

    def apply(self, *operations: Operation) -> None:
        """One branch, prepared and committed."""
        self.commit(self.yes(*operations))

    def apply_each(self, *operations: Operation) -> int:
        """Each as a branch of its own, those with a YES committed; how many those were. A NO that may be tried again
        is."""
        done, left, deadline = 0, list(operations), time.monotonic() + self.within_s
        while left and time.monotonic() < deadline:
            votes = [self.vote(prepare.number) for prepare in self.prepare_each(*left)]
            yes = [voted.number for voted in votes if voted.vote is Vote.YES]
            self.decide(*yes)
            for number in yes:
                self.acknowledged(number)
            done += len(yes)
            left = [operation for operation, voted in zip(left, votes, strict=True) if _may_be_tried_again(voted)]
        return done

    def ended_alone(self, number: int) -> OnePhaseEnded:
        ended = self.take(OnePhaseEnded, number, "the end of the one-phase attempt")
        if ended.outcome is Outcome.COMMITTED:
            self.work.applied(self._sent.pop(number, ()))
        return ended

    def ask(self, number: int) -> None:
        """The coordinator's question about a one-phase attempt."""
        self._open[number] = None
        self.send(Question(number))

    def answer(self, number: int) -> Answer:
        """What the lane answers to it."""
        self.ask(number)
        return self.take(Answered, number, "an answer to the coordinator's question").answer

    def peer_asks(self, number: int, identity: str | None = None) -> Answer:
        """What a peer hears that asks about the attempt."""
        return _answer(self.call(self.branches.Outcome, self._peer_question(number, identity)))

    def peers_ask(self, numbers: Iterable[int]) -> list[Asked]:
        """The same about several at once."""
        return [Asked(n, self.branches.Outcome.future(self._peer_question(n), timeout=self.within_s)) for n in numbers]

    def _peer_question(self, number: int, identity: str | None = None) -> coordinator_pb2.OutcomeRequest:
        attempt = types_pb2.Attempt(log=self.lane.log, number=number)
        meant = self.lane.hello.identity if identity is None else identity
        return coordinator_pb2.OutcomeRequest(attempt=attempt, identity=meant, asker=self.peer.participant)

    def call(self, method: Any, request: Any) -> Any:
        """A single call. Raises NotChecked for what is not implemented."""
        try:
            return method(request, timeout=self.within_s, wait_for_ready=True)
        except grpc.RpcError as error:
            if _code(error) is grpc.StatusCode.UNIMPLEMENTED:
                raise NotChecked(f"it does not offer {type(request).__name__.removesuffix('Request')}") from error
            raise

    # What must not come.

    def settled(self) -> None:
        """Returns when what was sent has been handled, and what it queued for the log is durable, as far as can be
        seen from outside: a question on the lane, then a refusal that must be durable, are answered behind it."""
        number = self.number()
        self.ask(number)
        try:
            self.lane.inbox.take(Answered, FENCE_WITHIN_S, number)
        except NothingCame as nothing:
            if self.lane.inbox.ended:
                raise Violated("the lane to stay open", str(self.lane.inbox.ended)) from nothing
        self.peer_asks(self.number())
        time.sleep(self.quiet_s)

    def silent(self, kind: type[Any], number: int, expected: str) -> None:
        """Nothing of that kind has come, once everything is settled."""
        self.settled()
        came = self.lane.inbox.there(kind, number)
        require(came is None, expected, vote_text(came) if isinstance(came, Voted) else came)

    def waits(self, number: int, expected: str) -> bool:
        """No vote yet. Who says NO at once, to be tried again, does not wait in line and may: then it gives False."""
        self.settled()
        voted = self.lane.inbox.there(Voted, number)
        if voted is None:
            return True
        require(_may_be_tried_again(voted), f"{expected}: no vote yet, or a retryable NO", vote_text(voted))
        return False

    def not_yes(self, number: int, expected: str) -> None:
        """Whatever it votes, not YES."""
        self.settled()
        voted = self.lane.inbox.there(Voted, number)
        require(voted is None or voted.vote is Vote.NO, expected, voted and vote_text(voted))

    def eventually(self, holds: Any, expected: str, seen: Any) -> None:
        """For what only calls can tell."""
        deadline = time.monotonic() + self.within_s
        while not holds():
            if time.monotonic() > deadline:
                violated(expected, seen() if callable(seen) else seen)
            time.sleep(0.02)

    # Looking.

    def look(self, place: Place) -> tuple[bytes, ...]:
        """What is committed there, as rows that can be compared."""
        return tuple(_plain(row).SerializeToString(deterministic=True) for row in self._rows(place))

    def number_in(self, row: Row) -> int | None:
        """The number in a row; None without the row."""
        (found,) = self._rows(row)
        return _number(found, row.column)

    def applied_in(self, row: Row) -> int | None:
        """The same as applied now, whoever has it locked. Raises NotChecked when rows are not shown so."""
        request = participant_pb2.ReadRowRequest(table=row.table, key=key_values(row.key))
        return _number(self.call(self.queries.ReadRow, request), row.column)

    def _rows(self, place: Place) -> list[types_pb2.Row]:
        number = self.prepare(place.look(), read_only=True).number
        voted = self.vote(number)
        require(voted.vote is not Vote.NO, "to read what is committed", vote_text(voted))
        if voted.vote is Vote.YES:
            self.commit(number)
        self.release(number)
        return list(types_pb2.Rows.FromString(voted.rows).rows)

    def place(self) -> Place:
        return self.work.place(self)

    @property
    def table(self) -> TableWork:
        """For checks that need TABLE."""
        assert isinstance(self.work, TableWork)
        return self.work

    def row(self) -> Row:
        return self.table.row(self)

    # Leaving nothing behind.

    def tidy(self) -> None:
        """Ends what is open: aborts what was not decided, commits again what was. With a lane again, if there is none,
        whose inbox is empty."""
        if self.lane.inbox.ended:
            self.open()
        ends = [end for end in self._open.values() if end is not None]
        committed = {end.number for end in ends if isinstance(end, Commit)}
        self.inquiries.answers.update(
            {end.number: Answer.COMMITTED if end.number in committed else Answer.ABORTED for end in ends}
        )
        self.send(*ends)
        self._open.clear()
        self._sent.clear()
        self.scripted_peer.answers.clear()
        self.settled()
        self.lane.inbox.clear()

    def finish(self) -> None:
        """Everything is ended: nothing of this log needs to be remembered any more. The answer comes behind the mark,
        and is remembered in memory only."""
        self.mark(number_of(1, self._sequence + 1))
        self.answer(self.number())

    def left_behind(self) -> list[str]:
        """What of ours is still in doubt or locked, by what the participant says of itself. Raises NotChecked."""
        doubt = self.call(self.queries.InDoubt, participant_pb2.InDoubtRequest()).branches
        locks = self.call(self.queries.Locks, participant_pb2.LocksRequest()).locks
        return [f"in doubt: {', '.join(each.locked)} ({each.why})" for each in doubt if self._is_ours(each)] + [
            f"locked: {each.name} ({each.mode})" for each in locks if self._is_ours(each)
        ]

    def _is_ours(self, each: Any) -> bool:
        return bool(each.attempt.log == self.lane.log)


def _answer(reply: coordinator_pb2.OutcomeReply) -> Answer:
    return wire.answer_of(reply.answer) or Answer.NONE


def _may_be_tried_again(voted: Voted) -> bool:
    return voted.vote is Vote.NO and voted.reason is not None and voted.reason.retryable


def _number(row: types_pb2.Row, column: str) -> int | None:
    values = {each.name: each.value.integer for each in row.values}
    return values.get(column) if row.present else None


def _plain(row: types_pb2.Row) -> types_pb2.Row:
    """Without what differs between two looks at the same row."""
    plain = types_pb2.Row()
    plain.CopyFrom(row)
    plain.position = 0
    return plain


def _code(error: Any) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.RpcError) and hasattr(error, "code") else None
