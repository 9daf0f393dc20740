"""Where the coordinator's node meets asyncio, gRPC, the decision log and the clock. It decides nothing.

One task per participant keeps that lane: dials, exchanges hellos, feeds what it reads, and dials again when it is lost.
A hello compares durable numbers both ways, so that a file restored from an older copy is found before it is believed.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import grpc
import grpc.aio
import structlog

from coordinator import service
from coordinator.events import (
    AbortAsked,
    Alarm,
    Append,
    Asked,
    Closed,
    Decide,
    Durable,
    Effect,
    Event,
    HorizonMoved,
    LaneLost,
    LaneOpened,
    LookedUp,
    LookUp,
    Received,
    Record,
    Reply,
    ResolveAsked,
    Send,
    Submitted,
    Ticked,
    Undecide,
    WakeAt,
)
from coordinator.log import EPOCH, DecisionLog
from coordinator.node import Coordinator
from coordinator.registers import EmbeddedRegister
from coordinator.settings import CoordinatorSettings
from troth import failpoints
from troth.driving import wire
from troth.driving.engine import Engine
from troth.driving.lane import (
    CHANNEL_OPTIONS,
    HELLO_TIMEOUT_S,
    PROTOCOL_VERSION,
    RECONNECT_MAX_S,
    Outbox,
    until_first,
    write_out,
)
from troth.driving.server import Server
from troth.errors import TrothError
from troth.log import AT_ONCE_S, LAZY_S, LogRefused
from troth.messages import ToCoordinator, ToParticipant
from troth.v1 import participant_pb2, participant_pb2_grpc

log = structlog.get_logger(__name__)

RECONNECT_FIRST_S = 0.05
"""The pause after a lane that was open is lost; doubled for each vain attempt, up to RECONNECT_MAX_S."""

DRAIN_S = 5.0
"""What open submissions have when the process is asked to stop."""

FAILPOINTS = failpoints.points(
    "coordinator",
    greets=(participant_pb2.CoordinatorHello,),
    greeted=(participant_pb2.ParticipantHello,),
    sends=get_args(ToParticipant),
    receives=get_args(ToCoordinator),
    writes=(EPOCH, *get_args(Record)),
    serves=(Submitted, AbortAsked, ResolveAsked, Asked),
)

Stream = grpc.aio.StreamStreamCall[participant_pb2.ToParticipant, participant_pb2.ToCoordinator]


class OwedToUnknown(TrothError):
    """Commits are owed to participants that are not configured (rule 5)."""


class LaneRefused(TrothError):
    """What answered the hello is not what the lane is for."""


class Lane:
    """This end of the lane to one participant."""

    def __init__(self, participant: str, address: str) -> None:
        self.participant = participant
        self.address = address
        self.identity = ""
        """The file identity last seen under this name."""
        self.outbox: Outbox[ToParticipant] | None = None
        """None when the lane is not open."""
        self.error = "not tried yet"
        """Why it is not open."""


async def serve(
    *,
    data: Path,
    name: str,
    listen: str,
    advertise: str | None,
    participants: dict[str, str],
    settings: CoordinatorSettings,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Runs one coordinator until cancelled; cancelled, it admits nothing more and gives what is open DRAIN_S to end.

    `data` is the decision log's file, `participants` names addresses, `ready` is called once with the bound address
    when health is SERVING. Raises LogRefused or LogHeld (`troth.log`), OwedToUnknown, CannotListen; LogFailed when the
    log failed, after which nothing was sent any more."""
    decisions = await asyncio.to_thread(DecisionLog.open, data, name)
    try:
        refuse_unknown(decisions, participants)
        driver = Driver(decisions, participants, settings)
        server = Server(listen, service.services(driver))
        driver.address = advertise or server.address
        await driver.run(server, ready)
    finally:
        await asyncio.to_thread(decisions.file.close)


def refuse_unknown(decisions: DecisionLog, participants: Mapping[str, str]) -> None:
    """Raises OwedToUnknown when the log holds what only a participant that is not configured can end (rule 5)."""
    owed: dict[str, int] = {}
    for entry in decisions.recovered.open:
        settled = {participant for participant, _ in entry.heuristics}
        for branch in entry.branches:
            if branch.updating and branch.participant not in {*participants, *settled}:
                owed[branch.participant] = owed.get(branch.participant, 0) + 1
    if owed:
        named = ", ".join(f"{participant!r} ({count})" for participant, count in sorted(owed.items()))
        raise OwedToUnknown(
            f"{decisions.file.path} owes commits to participants that are not configured: {named}. Name them again "
            "with their addresses (--participant NAME=ADDRESS), start, and drop them once nothing is owed to them"
        )


class Driver(Engine[Event, Effect, Record, float]):
    """The coordinator's engine: its effects, its lanes, and what the services need of it."""

    def __init__(self, decisions: DecisionLog, participants: Mapping[str, str], settings: CoordinatorSettings) -> None:
        recovered = decisions.recovered
        self.decisions = decisions
        self.epoch = decisions.epoch
        self.node = Coordinator(decisions.file.identity, decisions.epoch, settings, participants, recovered)
        self.address = ""
        """Where participants reach the Inquiries service."""
        self.admitting = True
        self.lanes = {name: Lane(name, address) for name, address in participants.items()}
        for name, identity in recovered.known:
            if name in self.lanes:
                self.lanes[name].identity = identity
        self.watchers: set[service.Watcher] = set()
        self._keys: list[str | int] = []
        self._register = EmbeddedRegister()
        super().__init__(self.node, decisions.file, decisions.write)
        self._drained: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing is admitted any more and nothing is open."""

    # What an engine asks of its driver.

    def effects(self) -> Mapping[type, Callable[[Any], None]]:
        return {
            Append: self._append,
            Decide: self._decide,
            Undecide: self._undecide,
            LookUp: self._look_up,
            Send: self._send,
            Reply: self._reply,
            Closed: self._closed,
            WakeAt: self._wake_at,
            Alarm: self._alarm,
        }

    def ticked(self) -> Event:
        return Ticked()

    def flushed(self, upto: int, results: list[tuple[int, float]]) -> Iterable[Event]:
        yield Durable(upto)
        for _, horizon in results:
            yield HorizonMoved(horizon)

    def began(self, address: str) -> None:
        for lane in self.lanes.values():
            self.own(self._keep_lane(lane))

    async def drain(self) -> None:
        self.admitting = False
        self.hand_over()
        await asyncio.wait({self._drained, self.failure}, timeout=DRAIN_S, return_when=asyncio.FIRST_COMPLETED)

    # Effects.

    def _append(self, effect: Append) -> None:
        self.queue(effect.n, effect.record, AT_ONCE_S if effect.forced else LAZY_S)

    def _decide(self, effect: Decide) -> None:
        self._register.decide(effect, self.feed)

    def _undecide(self, effect: Undecide) -> None:
        self._register.undecide(effect.id)

    def _look_up(self, effect: LookUp) -> None:
        self._keys.append(effect.key)

    def _send(self, effect: Send) -> None:
        outbox = self.lanes[effect.participant].outbox
        if outbox is not None:
            outbox.put(effect.message)

    def _reply(self, effect: Reply) -> None:
        self.reply(effect.client, effect.value)

    def _closed(self, effect: Closed) -> None:
        if self.watchers:
            transaction = service.closed_message(self, effect)
            for watcher in list(self.watchers):
                watcher.offer(transaction)

    def _wake_at(self, effect: WakeAt) -> None:
        self.wake_at(effect.at)

    def _alarm(self, effect: Alarm) -> None:
        self.alarm(effect.message)

    # Look-ups: all of one feed go to the writer together, behind the records queued before them.

    def hand_over(self) -> None:
        super().hand_over()
        if self._keys:
            keys, self._keys = self._keys, []
            look_up = self.decisions.look_up
            found = self.in_writer(lambda: [LookedUp(key, look_up(key)) for key in keys])
            found.add_done_callback(self._looked_up)
        if not (self.admitting or self._drained.done() or self.node.load(self.now()).in_flight):
            self._drained.set_result(None)

    def _looked_up(self, found: asyncio.Future[list[LookedUp]]) -> None:
        if found.cancelled():
            return
        error = found.exception()
        if error is None:
            self.feed(*found.result())
        else:
            self.fail(error)

    # Lanes.

    async def _keep_lane(self, lane: Lane) -> None:
        """One lane after the other until cancelled."""
        pause = RECONNECT_FIRST_S
        while True:
            opened, error = await self._run_lane(lane)
            if opened or error != lane.error:
                log.warning("no lane", participant=lane.participant, address=lane.address, why=error)
            lane.error = error
            self.feed(LaneLost(lane.participant, error))
            pause = RECONNECT_FIRST_S if opened else min(2 * pause, RECONNECT_MAX_S)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _run_lane(self, lane: Lane) -> tuple[bool, str]:
        """One lane from dialling to its loss. Says whether it was open, and why it no longer is."""
        opened = False
        try:
            async with grpc.aio.insecure_channel(lane.address, options=CHANNEL_OPTIONS) as channel:
                stream: Stream = participant_pb2_grpc.LanesStub(channel).Open()  # type: ignore[no-untyped-call]
                async with asyncio.timeout(HELLO_TIMEOUT_S):
                    hello = await self._greet(lane, stream)
                opened = True
                await self._use_lane(lane, stream, hello)
                return True, "the participant closed it"
        except grpc.aio.AioRpcError as error:
            why = f"{error.code().name}: {error.details()}"
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                self.fail(LogRefused(f"participant {lane.participant!r} at {lane.address}: {error.details()}"))
            elif error.code() is grpc.StatusCode.INVALID_ARGUMENT and why != lane.error:
                self.alarm(f"participant {lane.participant!r} at {lane.address} refuses the lane: {error.details()}")
            return opened, why
        except TimeoutError:
            return opened, f"no hello within {HELLO_TIMEOUT_S:g} s"
        except (LaneRefused, wire.Malformed) as error:
            if str(error) != lane.error:
                self.alarm(str(error))
            return opened, str(error)

    async def _greet(self, lane: Lane, stream: Stream) -> participant_pb2.ParticipantHello:
        """Hellos both ways. Raises LaneRefused when the other side is not the one the lane is for."""
        ours = participant_pb2.CoordinatorHello(
            version=PROTOCOL_VERSION,
            log=self.file.identity,
            epoch=self.epoch,
            participant=lane.participant,
            address=self.address,
            identity=lane.identity,
            seen=self.file.seen.get(lane.identity, 0),
        )
        await failpoints.call("before-send", type(ours))
        await _write(stream, participant_pb2.ToParticipant(hello=ours, durable=self.writer.durable))
        await failpoints.call("after-send", type(ours))
        first = await stream.read()
        if not isinstance(first, participant_pb2.ToCoordinator):
            raise LaneRefused(f"{lane.address} closed the lane before its hello")
        self._check(lane, first)
        await failpoints.call("before-receive", type(first.hello))
        self.writer.note_seen(first.hello.identity, first.durable)
        return first.hello

    def _check(self, lane: Lane, first: participant_pb2.ToCoordinator) -> None:
        theirs = first.hello
        who = f"participant {lane.participant!r} at {lane.address}"
        if theirs.version != PROTOCOL_VERSION:
            raise LaneRefused(f"{who} speaks protocol version {theirs.version}, this coordinator {PROTOCOL_VERSION}")
        if theirs.participant != lane.participant:
            raise LaneRefused(f"{who} calls itself {theirs.participant!r}: the address or the name is wrong")
        if theirs.seen > self.writer.durable:
            error = LogRefused(
                f"{self.file.path} is older than what {who} has seen of it (number {theirs.seen}; it reaches "
                f"{self.writer.durable}): it was restored from an older copy. Use `troth restore`"
            )
            self.fail(error)
            raise LaneRefused(str(error))
        stored = self.file.seen.get(theirs.identity, 0)
        if first.durable < stored:
            raise LaneRefused(
                f"the file of {who} (identity {theirs.identity}) is older than what was seen of it here (number "
                f"{stored}; it reaches {first.durable}): it was restored from an older copy. Use `troth restore` there"
            )

    async def _use_lane(self, lane: Lane, stream: Stream, hello: participant_pb2.ParticipantHello) -> None:
        outbox: Outbox[ToParticipant] = Outbox()
        lane.identity, lane.error, lane.outbox = hello.identity, "", outbox
        log.info("lane open", participant=lane.participant, address=lane.address, identity=hello.identity)
        questions = tuple(hello.questions)
        try:
            self.feed(LaneOpened(lane.participant, hello.identity, hello.incarnation, hello.address, questions))
            write = functools.partial(_write, stream)
            await until_first(self._read_lane(lane, stream), write_out(outbox, self._encode, write))
        finally:
            lane.outbox = None

    async def _read_lane(self, lane: Lane, stream: Stream) -> None:
        while isinstance(batch := await stream.read(), participant_pb2.ToCoordinator):
            messages = await failpoints.through("before-receive", wire.decode_to_coordinator(batch))
            wire.count(messages, self.received)
            self.writer.note_seen(lane.identity, batch.durable)
            self.feed(Received(lane.participant, tuple(messages)))
            await failpoints.through("after-receive", messages)

    def _encode(self, messages: Sequence[ToParticipant]) -> list[participant_pb2.ToParticipant]:
        wire.count(messages, self.sent)
        return wire.encode_to_participant(messages, self.writer.durable)


async def _write(stream: Stream, batch: participant_pb2.ToParticipant) -> None:
    """Raises AioRpcError also when the stream had ended before: there grpc.aio says no more than that."""
    try:
        await stream.write(batch)
    except asyncio.InvalidStateError as error:
        code, details, trailing = await stream.code(), await stream.details(), await stream.trailing_metadata()
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details) from error
