"""Scripted peers: one end of a lane that does what a script says, message by message, against a real process.

A scripted participant votes when the script votes, so a transaction stands still at an exact point for as long as it
wants, without timing. A scripted coordinator sends what it likes, late, twice and out of order. The conformance kit is
made of them, and so are our own tests. They know the wire, and nothing of what is right.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, TypeVar

import grpc

from troth.driving import wire
from troth.driving.lane import PROTOCOL_VERSION, SERVER_OPTIONS
from troth.messages import Acknowledged, OnePhase, Peer, Prepare, Question, ToCoordinator, ToParticipant, Voted
from troth.v1 import coordinator_pb2, coordinator_pb2_grpc, participant_pb2, participant_pb2_grpc, types_pb2
from troth.words import Answer, Vote, number_of

M = TypeVar("M")

TAKE_WITHIN_S = 10.0
OPEN_WITHIN_S = 30.0
QUIET_S = 0.3
"""How long nothing must come before it is taken that nothing comes."""

LOG = "00000000deadbeef"
"""The log identity of a scripted coordinator."""


def number(sequence: int) -> int:
    """An attempt's number in the first epoch."""
    return number_of(1, sequence)


class NothingCame(AssertionError):
    """What was waited for did not come."""


class Inbox:
    """What has come on a lane and was not taken."""

    def __init__(self) -> None:
        self._waiting: list[Any] = []
        self._changed = threading.Condition()
        self.ended: Exception | None = None
        """How the lane ended, when that is known: nothing more will come then."""

    def end(self, error: Exception | None) -> None:
        with self._changed:
            self.ended = error
            self._changed.notify_all()

    def put(self, messages: tuple[Any, ...]) -> None:
        with self._changed:
            self._waiting.extend(messages)
            self._changed.notify_all()

    def take(self, kind: type[M], within_s: float = TAKE_WITHIN_S, number: int | None = None) -> M:
        """The first message of that kind (and number), which others may overtake. Raises NothingCame."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self.there(kind, number), within_s)
            message = self.there(kind, number)
            if message is None:
                how = f"before the lane ended: {self.ended}" if self.ended else f"within {within_s:g} s"
                raise NothingCame(f"no {kind.__name__} {how}; what came instead: {self._waiting}")
            self._waiting.remove(message)
            return message

    def there(self, kind: type[M], number: int | None = None) -> M | None:
        """The same, if it has come already; it stays."""
        fits = (m for m in list(self._waiting) if isinstance(m, kind) and number in (None, getattr(m, "number", None)))
        return next(fits, None)

    def take_all(self, kind: type[M]) -> list[M]:
        """Everything of that kind that has come."""
        with self._changed:
            taken = [message for message in self._waiting if isinstance(message, kind)]
            self._waiting = [message for message in self._waiting if not isinstance(message, kind)]
        return taken

    def quiet(self, kind: type[Any], for_s: float = QUIET_S) -> None:
        """Fails when a message of that kind comes."""
        with self._changed:
            if self._changed.wait_for(lambda: self.there(kind), for_s):
                raise AssertionError(f"a {kind.__name__} came: {self._waiting}")

    def clear(self) -> None:
        with self._changed:
            self._waiting.clear()


class _Outgoing:
    """What a stream still has to write; ends with `close`."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def put(self, batch: Any) -> None:
        self._queue.put(batch)

    def close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._queue.get, None)


def _pump(batches: Iterator[Any], decode: Callable[[Any], tuple[Any, ...]], inbox: Inbox) -> Exception | None:
    """Reads until the stream ends, and gives what broke it."""
    try:
        for batch in batches:
            inbox.put(decode(batch))
    except Exception as error:
        # gRPC raises a bare Exception when the server's side of a stream was cancelled.
        return error
    return None


def _listen(server: grpc.Server, address: str) -> str:
    """The address it listens on, with the port it got."""
    return f"{address.rpartition(':')[0]}:{server.add_insecure_port(address)}"


class ScriptedParticipant:
    """Listens at `address` (port 0 takes a free one) and speaks the hello; everything else is the script's."""

    def __init__(self, name: str, address: str, *, identity: str = "f" * 16, incarnation: int = 1) -> None:
        self.name = name
        self.address = address
        self.identity = identity
        self.incarnation = incarnation
        self.questions: list[int] = []
        """What the next hello asks."""
        self.inbox = Inbox()
        self.answers: dict[int, Answer] = {}
        """What peers are told, by number; nothing for others."""
        self.asked: list[coordinator_pb2.OutcomeRequest] = []
        """What peers have asked."""
        self._acknowledging = False
        self._lane = _Outgoing()
        self._opened = threading.Semaphore(0)

    def __enter__(self) -> ScriptedParticipant:
        self._pool = futures.ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool, options=SERVER_OPTIONS)
        participant_pb2_grpc.add_LanesServicer_to_server(_Lanes(self), self._server)  # type: ignore[no-untyped-call]
        participant_pb2_grpc.add_BranchesServicer_to_server(_Peer(self), self._server)  # type: ignore[no-untyped-call]
        self.address = _listen(self._server, self.address)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._lane.close()
        self._server.stop(0).wait()
        self._pool.shutdown()

    def wait_lane(self) -> None:
        """Until the coordinator has opened one more lane."""
        if not self._opened.acquire(timeout=TAKE_WITHIN_S):
            raise NothingCame(f"no lane within {TAKE_WITHIN_S:g} s")

    def send(self, *messages: ToCoordinator) -> None:
        for batch in wire.encode_to_coordinator(messages, durable=1):
            self._lane.put(batch)

    def close_lane(self) -> None:
        """Ends it; the coordinator dials again."""
        self._lane.close()

    def vote(self, prepare: Prepare, vote: Vote = Vote.YES) -> None:
        self.send(Voted(prepare.number, vote, self.incarnation))

    def acknowledge_commits(self) -> None:
        """From now on, each on the lane on which it comes; those that came before come again (rule 5)."""
        self._acknowledging = True

    def take_prepare(self) -> Prepare:
        return self.inbox.take(Prepare)

    def serve_lane(self, requests: Iterator[Any], lane: _Outgoing) -> Iterator[Any]:
        next(requests)
        self._lane = lane
        hello = participant_pb2.ParticipantHello(
            version=PROTOCOL_VERSION,
            participant=self.name,
            identity=self.identity,
            incarnation=self.incarnation,
            address=self.address,
            questions=self.questions,
        )
        yield participant_pb2.ToCoordinator(hello=hello, durable=1)

        def decode(batch: participant_pb2.ToParticipant) -> tuple[ToParticipant, ...]:
            if self._acknowledging and batch.commits:
                for answer in wire.encode_to_coordinator([Acknowledged(n) for n in batch.commits], durable=1):
                    lane.put(answer)
            return wire.decode_to_participant(batch)

        reader = threading.Thread(target=_pump, args=(requests, decode, self.inbox))
        reader.start()
        self._opened.release()
        yield from lane


class _Lanes(participant_pb2_grpc.LanesServicer):
    def __init__(self, participant: ScriptedParticipant) -> None:
        self._participant = participant

    def Open(self, requests: Any, context: Any) -> Any:
        lane = _Outgoing()
        context.add_callback(lane.close)
        return self._participant.serve_lane(requests, lane)


class _Peer(participant_pb2_grpc.BranchesServicer):
    """Answers of a participant to its peers."""

    def __init__(self, participant: ScriptedParticipant) -> None:
        self._participant = participant

    def Outcome(self, request: Any, context: Any) -> Any:
        self._participant.asked.append(request)
        answer = self._participant.answers.get(request.attempt.number, Answer.NONE)
        return coordinator_pb2.OutcomeReply(answer=int(answer))  # type: ignore[arg-type]


DIALLING = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class LaneEnded(Exception):
    """A lane ended without an error."""


class ScriptedCoordinator:
    """Dials a real participant and speaks the hello. `address` is where its Inquiries are said to be."""

    def __init__(self, name: str, at: str, *, log: str = LOG, address: str = "127.0.0.1:1") -> None:
        self.name = name
        self.at = at
        self.log = log
        self.address = address
        self.durable = 1
        """The highest durable number that it announces."""
        self.inbox = Inbox()
        self.hello = participant_pb2.ParticipantHello()
        self.announced: list[int] = []
        """The durable number of every batch that came, over all lanes."""
        self.channel = grpc.insecure_channel(at, DIALLING)
        self._lane = _Outgoing()
        self._call: Any = None

    def __enter__(self) -> ScriptedCoordinator:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.channel.close()

    def open(self, within_s: float = OPEN_WITHIN_S, **hello: Any) -> None:
        """A new lane; `self.hello` is what the participant said. `hello` are fields of ours that are not as usual.
        Raises NothingCame, also when the lane was refused."""
        fields: dict[str, Any] = {
            "version": PROTOCOL_VERSION,
            "log": self.log,
            "epoch": 1,
            "participant": self.name,
        } | hello
        ours = participant_pb2.CoordinatorHello(address=self.address, **fields)
        self._lane = _Outgoing()
        self._lane.put(participant_pb2.ToParticipant(hello=ours, durable=self.durable))
        stub = participant_pb2_grpc.LanesStub(self.channel)  # type: ignore[no-untyped-call]
        self.inbox.end(None)
        self._call = stub.Open(iter(self._lane), wait_for_ready=True)
        self._reader = threading.Thread(target=self._read, args=(self._call, self._lane))
        self._reader.start()
        try:
            self.hello = self.inbox.take(participant_pb2.ParticipantHello, within_s)
        except NothingCame:
            self.close()
            raise

    def _read(self, call: Any, lane: _Outgoing) -> None:
        broken = _pump(call, self._decode, self.inbox)
        lane.close()
        self.inbox.end(broken or LaneEnded("the other side closed it"))

    def _decode(self, batch: participant_pb2.ToCoordinator) -> tuple[Any, ...]:
        self.announced.append(batch.durable)
        messages = wire.decode_to_coordinator(batch)
        return (batch.hello, *messages) if batch.HasField("hello") else messages

    def close(self) -> None:
        """Ends the lane, if there is one."""
        if self._call is not None:
            self._lane.close()
            self._call.cancel()
            self._reader.join()
            self._call = None

    def send(self, *messages: ToParticipant) -> None:
        for batch in wire.encode_to_participant(messages, durable=self.durable):
            self._lane.put(batch)

    def prepare(self, number: int, *operations: types_pb2.Operation, peers: tuple[Peer, ...] = ()) -> Prepare:
        """Sends it, and gives it back to be sent again."""
        message = Prepare(number, encoded(*operations), False, peers)
        self.send(message)
        return message

    def one_phase(self, number: int, *operations: types_pb2.Operation, incarnation: int | None = None) -> OnePhase:
        message = OnePhase(number, encoded(*operations), incarnation or self.hello.incarnation)
        self.send(message)
        return message

    def ask(self, number: int) -> None:
        self.send(Question(number))

    def take(self, kind: type[M], number: int | None = None) -> M:
        return self.inbox.take(kind, number=number)


class ScriptedInquiries(coordinator_pb2_grpc.InquiriesServicer):
    """A coordinator that answers single questions, and nothing else. Without an answer it may not say."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: dict[int, Answer] = {}
        self.asked: list[int] = []

    def Outcome(self, request: Any, context: Any) -> Any:
        self.asked.append(request.attempt.number)
        answer = self.answers.get(request.attempt.number, Answer.NONE)
        return coordinator_pb2.OutcomeReply(answer=int(answer))  # type: ignore[arg-type]

    def __enter__(self) -> ScriptedInquiries:
        self._pool = futures.ThreadPoolExecutor(4)
        self._server = grpc.server(self._pool, options=SERVER_OPTIONS)
        coordinator_pb2_grpc.add_InquiriesServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.address = _listen(self._server, self.address)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown()


def encoded(*operations: types_pb2.Operation) -> bytes:
    return types_pb2.Operations(operations=operations).SerializeToString(deterministic=True)
