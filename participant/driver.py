"""Where the participant's node meets asyncio, gRPC, its SQLite file and the clock. It decides nothing.

Coordinators dial; each of their logs has one lane here, and a new one takes the place of the old. A hello compares
durable numbers both ways, so that a file restored from an older copy is found before it is believed.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import grpc
import grpc.aio
import structlog

from participant import service
from participant.events import (
    Alarm,
    Apply,
    AskCoordinator,
    AskPeer,
    Carry,
    CoordinatorAnswered,
    Denied,
    Effect,
    Event,
    Flushed,
    Forget,
    Hello,
    Job,
    LaneLost,
    LaneOpened,
    PeerAnswered,
    PeerAsked,
    Received,
    Reply,
    ResolveAsked,
    Send,
    Ticked,
    Tried,
    WakeAt,
    Write,
)
from participant.node import Participant
from participant.opening import Opened, open_file, open_outside
from participant.outside import CARRIED, Outside
from participant.resources.outside import OutsideResource
from participant.settings import ParticipantSettings
from troth import failpoints
from troth.driving import wire
from troth.driving.engine import Engine
from troth.driving.lane import CHANNEL_OPTIONS, HELLO_TIMEOUT_S, PROTOCOL_VERSION, Outbox, until_first, write_out
from troth.driving.server import Server
from troth.log import AT_ONCE_S, LAZY_S, LogRefused
from troth.messages import ToCoordinator, ToParticipant
from troth.v1 import coordinator_pb2, coordinator_pb2_grpc, participant_pb2, participant_pb2_grpc, types_pb2
from troth.words import Answer

log = structlog.get_logger(__name__)

ASK_TIMEOUT_S = 1.0
"""Until a single question is taken as not answered; the node asks again."""

ACKNOWLEDGE_WITHIN_S = 0.005
"""How long a commit, and with it its acknowledgement, waits for the vote of another branch to go with: nothing but the
coordinator's memory of the transaction hangs on it."""

FAILPOINTS = failpoints.points(
    "participant",
    greets=(participant_pb2.ParticipantHello,),
    greeted=(participant_pb2.CoordinatorHello,),
    sends=get_args(ToCoordinator),
    receives=get_args(ToParticipant),
    writes=get_args(Job),
    carries=CARRIED,
    asks=(AskCoordinator, AskPeer),
    answers=(CoordinatorAnswered, PeerAnswered),
    serves=(Received, PeerAsked, ResolveAsked),
)

LaneContext = grpc.aio.ServicerContext


async def serve(
    *,
    data: Path,
    name: str,
    listen: str,
    advertise: str | None,
    schema: Path | None,
    adopt: bool,
    history: bool,
    settings: ParticipantSettings,
    resource: OutsideResource | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Runs one participant until cancelled.

    `data` is its file, `schema` SQL for a new one, `adopt` takes an existing database, `history` keeps what each
    committed branch did; `resource` holds the data when they are not in that file. `ready` is called once with the
    bound address when the locks are taken again and health is SERVING. Raises LogRefused or LogHeld (`troth.log`),
    ResourceRefused, CannotListen; LogFailed when the file failed, after which nothing was sent."""
    if resource is not None:
        opened = await open_outside(data, name, resource, history=history)
    else:
        opened = await asyncio.to_thread(open_file, data, name, schema=schema, adopt=adopt, history=history)
    try:
        driver = Driver(opened, settings)
        server = Server(listen, service.services(driver))
        driver.address = advertise or server.address
        await driver.run(server, ready)
    finally:
        if resource is not None:
            await resource.close()
        await asyncio.to_thread(opened.file.close)


class Lane:
    """This end of the lane of one coordinator log."""

    def __init__(self, number: int, log: str) -> None:
        self.number = number
        self.log = log
        self.outbox: Outbox[ToCoordinator] = Outbox()
        self.questions: tuple[int, ...] = ()
        """What the hello asks."""
        self._closing: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def close(self, why: str) -> None:
        """Ends the lane; the coordinator dials again."""
        if not self._closing.done():
            self._closing.set_result(why)

    async def closed(self) -> None:
        """Raises LaneClosed once `close` was called."""
        raise LaneClosed(await self._closing)


class LaneClosed(Exception):
    """This side ends the lane."""


class Driver(Engine[Event, Effect, Job, Tried | Denied]):
    """The participant's engine: its effects, its lanes, its questions, and what the services need of it."""

    def __init__(self, opened: Opened, settings: ParticipantSettings) -> None:
        self.opened = opened
        self.incarnation = secrets.randbelow(2**63 - 1) + 1
        self.node = Participant(
            opened.file.name,
            opened.file.identity,
            self.incarnation,
            settings,
            opened.resource.plan,
            opened.recovered,
            outside=isinstance(opened.resource, OutsideResource),
        )
        self.address = ""
        """Where peers reach this participant."""
        self.serving = True
        self._lanes: dict[str, Lane] = {}
        self._lane_numbers = itertools.count(1)
        self._channels: dict[str, grpc.aio.Channel] = {}
        super().__init__(self.node, opened.file, opened.votes.write)
        self._outside: Outside | None = None
        if isinstance(opened.resource, OutsideResource):
            self._outside = Outside(self, opened.resource)

    # What an engine asks of its driver.

    def effects(self) -> Mapping[type, Callable[[Any], None]]:
        return {
            Hello: self._hello,
            Write: self._write,
            Carry: self._carry,
            Send: self._send,
            Reply: self._reply,
            AskCoordinator: self._ask_coordinator,
            AskPeer: self._ask_peer,
            WakeAt: self._wake_at,
            Alarm: self._alarm,
        }

    def ticked(self) -> Event:
        return Ticked()

    def flushed(self, upto: int, results: list[tuple[int, Tried | Denied]]) -> Iterable[Event]:
        yield Flushed(upto, tuple(results))

    def began(self, address: str) -> None:
        """Coordinators dial; nothing runs beside the server but a look at the data outside from time to time."""
        if self._outside is not None:
            self.own(self._outside.watch())

    async def drain(self) -> None:
        """Nothing is waited for: what is open ends when the coordinator dials again."""
        self.serving = False
        for lane in list(self._lanes.values()):
            lane.close("the participant is stopping")

    async def close(self) -> None:
        await super().close()
        for channel in self._channels.values():
            await channel.close()

    # Effects.

    def _hello(self, effect: Hello) -> None:
        for lane in self._lanes.values():
            if lane.number == effect.lane:
                lane.questions = effect.questions

    def _write(self, effect: Write) -> None:
        forced_s = ACKNOWLEDGE_WITHIN_S if isinstance(effect.job, Apply) else AT_ONCE_S
        self.queue(effect.n, effect.job, forced_s if effect.forced else LAZY_S)
        if self._outside is not None and isinstance(effect.job, Forget):
            self.own(self._outside.forget(effect.job))

    def _carry(self, effect: Carry) -> None:
        assert self._outside is not None
        self._outside.carry(effect)

    def _send(self, effect: Send) -> None:
        lane = self._lanes.get(effect.log)
        if lane is not None:
            lane.outbox.put(effect.message)

    def _reply(self, effect: Reply) -> None:
        self.reply(effect.caller, effect.value)

    def _ask_coordinator(self, effect: AskCoordinator) -> None:
        self.own(self._question_coordinator(effect))

    def _ask_peer(self, effect: AskPeer) -> None:
        self.own(self._question_peer(effect))

    def _wake_at(self, effect: WakeAt) -> None:
        self.wake_at(effect.at)

    def _alarm(self, effect: Alarm) -> None:
        self.alarm(effect.message)

    # Questions by single calls.

    async def _question_coordinator(self, asked: AskCoordinator) -> None:
        stub = coordinator_pb2_grpc.InquiriesStub(self._channel(asked.address))  # type: ignore[no-untyped-call]
        answer = await self._question(stub.Outcome, asked, "", CoordinatorAnswered)
        self.feed(CoordinatorAnswered(asked.attempt, answer))

    async def _question_peer(self, asked: AskPeer) -> None:
        stub = participant_pb2_grpc.BranchesStub(self._channel(asked.peer.address))  # type: ignore[no-untyped-call]
        answer = await self._question(stub.Outcome, asked, asked.peer.identity, PeerAnswered)
        self.feed(PeerAnswered(asked.attempt, asked.peer, answer))

    async def _question(
        self, outcome: Any, asked: AskCoordinator | AskPeer, identity: str, answered: type
    ) -> Answer | None:
        """The answer, None without one; `answered` is the event that it will be."""
        attempt = asked.attempt
        request = coordinator_pb2.OutcomeRequest(
            attempt=types_pb2.Attempt(log=attempt.log, number=attempt.number),
            identity=identity,
            asker=self.file.name,
        )
        self.sent["question"] += 1
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await failpoints.call("before-send", type(asked))
                reply = await outcome(request)
                await failpoints.call("before-receive", answered)
        except grpc.aio.AioRpcError as error:
            log.debug("no answer", attempt=str(attempt), code=error.code().name, why=error.details())
            return None
        except TimeoutError:
            log.debug("no answer", attempt=str(attempt), why=f"not within {ASK_TIMEOUT_S:g} s")
            return None
        self.received["answer"] += 1
        return wire.answer_of(reply.answer)

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        return channel

    # Lanes.

    async def keep_lane(
        self, context: LaneContext[participant_pb2.ToParticipant, participant_pb2.ToCoordinator]
    ) -> None:
        """One lane from the coordinator's hello to its loss."""
        hello = await self._hear_hello(context)
        lane = Lane(next(self._lane_numbers), hello.log)
        if hello.log in self._lanes:
            self._lanes[hello.log].close("a newer lane of the same coordinator log takes its place")
        self._lanes[hello.log] = lane
        log.info("lane open", log=hello.log, epoch=hello.epoch, address=hello.address)
        try:
            self.feed(LaneOpened(lane.number, hello.log, hello.address))
            if self.failure.done():
                raise LaneClosed("the participant is stopping")
            answer = self._answer_hello(lane)
            await failpoints.call("before-send", type(answer.hello))
            await context.write(answer)
            await failpoints.call("after-send", type(answer.hello))
            await until_first(
                lane.closed(),
                self._read_lane(lane, context),
                write_out(lane.outbox, self._encode, context.write),
            )
        except LaneClosed as closed:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(closed))
        except wire.Malformed as error:
            self.alarm(f"the lane of coordinator log {hello.log} at {hello.address}: {error}")
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            log.info("lane lost", log=hello.log)
            if self._lanes.get(hello.log) is lane:
                del self._lanes[hello.log]
            self.feed(LaneLost(lane.number))

    async def _hear_hello(
        self, context: LaneContext[participant_pb2.ToParticipant, participant_pb2.ToCoordinator]
    ) -> participant_pb2.CoordinatorHello:
        """The coordinator's hello, checked; a lane that is refused ends here. FAILED_PRECONDITION says that the
        coordinator's log must not be used, so it stops."""
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await context.read()
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no hello within {HELLO_TIMEOUT_S:g} s")
        if not isinstance(first, participant_pb2.ToParticipant) or not first.hello.log:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message of a lane is a hello")
        hello = first.hello
        await failpoints.call("before-receive", type(hello))
        who = f"the coordinator of log {hello.log} at {hello.address}"
        if hello.version != PROTOCOL_VERSION:
            why = f"{who} speaks protocol version {hello.version}, participant {self.file.name!r} {PROTOCOL_VERSION}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)
        if hello.participant != self.file.name:
            why = f"this is participant {self.file.name!r}, not {hello.participant!r}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)
        if hello.identity == self.file.identity and hello.seen > self.writer.durable:
            error = LogRefused(
                f"{self.file.path} is older than what {who} has seen of it (number {hello.seen}; it reaches "
                f"{self.writer.durable}): it was restored from an older copy. Use `troth restore`"
            )
            self.fail(error)
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        stored = self.file.seen.get(hello.log, 0)
        if first.durable < stored:
            why = (
                f"coordinator log {hello.log} is older than what participant {self.file.name!r} has seen of it (number "
                f"{stored}; it reaches {first.durable}): it was restored from an older copy. Use `troth restore`"
            )
            self.alarm(why)
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, why)
        self.writer.note_seen(hello.log, first.durable)
        return hello

    def _answer_hello(self, lane: Lane) -> participant_pb2.ToCoordinator:
        ours = participant_pb2.ParticipantHello(
            version=PROTOCOL_VERSION,
            participant=self.file.name,
            identity=self.file.identity,
            incarnation=self.incarnation,
            address=self.address,
            seen=self.file.seen.get(lane.log, 0),
            questions=lane.questions,
        )
        return participant_pb2.ToCoordinator(hello=ours, durable=self.writer.durable)

    async def _read_lane(
        self, lane: Lane, context: LaneContext[participant_pb2.ToParticipant, participant_pb2.ToCoordinator]
    ) -> None:
        while isinstance(batch := await context.read(), participant_pb2.ToParticipant):
            messages = await failpoints.through("before-receive", wire.decode_to_participant(batch))
            wire.count(messages, self.received)
            self.writer.note_seen(lane.log, batch.durable)
            self.feed(Received(lane.log, tuple(messages)))
            await failpoints.through("after-receive", messages)

    def _encode(self, messages: Sequence[ToCoordinator]) -> list[participant_pb2.ToCoordinator]:
        wire.count(messages, self.sent)
        return wire.encode_to_coordinator(messages, self.writer.durable)
