"""The participant's gRPC services: decode, ask the driver, encode. Nothing is decided here but what is malformed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from participant.events import PeerAsked, Received, Refused, ResolveAsked
from participant.resources import No
from participant.resources.outside import OutsideResource
from participant.resources.setup import create_table
from troth.driving import wire
from troth.driving.server import Service
from troth.messages import Abort, Acknowledged, Commit, Prepare, ToParticipant, Voted
from troth.v1 import coordinator_pb2, participant_pb2, participant_pb2_grpc, types_pb2
from troth.v1.types_pb2 import Code
from troth.words import AttemptId

if TYPE_CHECKING:
    from participant.driver import Driver

Context = grpc.aio.ServicerContext

_NOT_THERE = frozenset({Code.CODE_NO_SUCH_TABLE, Code.CODE_TABLE_NOT_SERVED})


def services(driver: Driver) -> list[Service]:
    """All services of a participant."""
    return [
        Service("troth.v1.Lanes", participant_pb2_grpc.add_LanesServicer_to_server, Lanes(driver)),
        Service("troth.v1.Branches", participant_pb2_grpc.add_BranchesServicer_to_server, Branches(driver)),
        Service(
            "troth.v1.ParticipantQueries",
            participant_pb2_grpc.add_ParticipantQueriesServicer_to_server,
            Queries(driver),
        ),
    ]


class Lanes(participant_pb2_grpc.LanesServicer):
    """The stream that a coordinator opens."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def Open(
        self, requests: object, context: Context[participant_pb2.ToParticipant, participant_pb2.ToCoordinator]
    ) -> None:
        await self._driver.keep_lane(context)


class Branches(participant_pb2_grpc.BranchesServicer):
    """The steps of a branch as single calls. A caller that goes away cuts nothing: the branch lives in the node."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def Prepare(
        self,
        request: participant_pb2.PrepareRequest,
        context: Context[participant_pb2.PrepareRequest, participant_pb2.Voted],
    ) -> participant_pb2.Voted:
        attempt = await _attempt_of(request.attempt, context)
        operations = request.operations.SerializeToString(deterministic=True)
        message = Prepare(attempt.number, operations, request.read_only, wire.peers_of(request.peers))
        value = await self._tell(attempt, message, context)
        if not isinstance(value, Voted):
            await context.abort(grpc.StatusCode.ABORTED, f"{attempt} ended before its vote")
        return wire.encode_to_coordinator([value], durable=0)[0].votes[0]

    async def Commit(
        self,
        request: participant_pb2.BranchRequest,
        context: Context[participant_pb2.BranchRequest, participant_pb2.Acknowledged],
    ) -> participant_pb2.Acknowledged:
        attempt = await _attempt_of(request.attempt, context)
        return await self._acknowledged(attempt, Commit(attempt.number), context)

    async def Abort(
        self,
        request: participant_pb2.BranchRequest,
        context: Context[participant_pb2.BranchRequest, participant_pb2.Acknowledged],
    ) -> participant_pb2.Acknowledged:
        attempt = await _attempt_of(request.attempt, context)
        return await self._acknowledged(attempt, Abort(attempt.number), context)

    async def Outcome(
        self,
        request: coordinator_pb2.OutcomeRequest,
        context: Context[coordinator_pb2.OutcomeRequest, coordinator_pb2.OutcomeReply],
    ) -> coordinator_pb2.OutcomeReply:
        attempt = await _attempt_of(request.attempt, context)
        self._driver.received["question"] += 1
        answer = await self._driver.ask(lambda caller: PeerAsked(caller, attempt, request.identity))
        self._driver.sent["answer"] += 1
        return coordinator_pb2.OutcomeReply(answer=int(answer))  # type: ignore[arg-type]

    async def Resolve(
        self,
        request: participant_pb2.ResolveBranchRequest,
        context: Context[participant_pb2.ResolveBranchRequest, coordinator_pb2.ResolveReply],
    ) -> coordinator_pb2.ResolveReply:
        attempt = await _attempt_of(request.attempt, context)
        outcome = wire.end_of(request.outcome)
        if outcome is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the outcome must be COMMITTED or ABORTED")
        value = await self._driver.ask(lambda caller: ResolveAsked(caller, attempt, outcome, request.reason))
        if isinstance(value, Refused):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, value.message)
        return coordinator_pb2.ResolveReply(message=value)

    async def CreateTable(
        self,
        request: participant_pb2.CreateTableRequest,
        context: Context[participant_pb2.CreateTableRequest, participant_pb2.CreateTableReply],
    ) -> participant_pb2.CreateTableReply:
        file, resource = self._driver.opened.file, self._driver.opened.resource
        if isinstance(resource, OutsideResource):
            why = f"tables of {resource.kind} are made at the server, by its own tools"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, why)

        def create() -> bool:
            created = create_table(file.connection, request.table, request.key, request.values)
            if created:
                resource.schema_changed()
            return created

        try:
            return participant_pb2.CreateTableReply(created=await self._driver.in_writer(create))
        except No as no:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, no.reason.message)

    async def _tell(self, attempt: AttemptId, message: ToParticipant, context: Context[Any, Any]) -> object:
        driver = self._driver
        wire.count((message,), driver.received)
        value = await driver.ask(lambda caller: Received(attempt.log, (message,), caller))
        if isinstance(value, Refused):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, value.message)
        wire.count((value,), driver.sent)
        return value

    async def _acknowledged(
        self, attempt: AttemptId, message: ToParticipant, context: Context[Any, Any]
    ) -> participant_pb2.Acknowledged:
        value = await self._tell(attempt, message, context)
        if not isinstance(value, Acknowledged):
            await context.abort(grpc.StatusCode.ABORTED, f"{attempt} ended otherwise: {value}")
        return wire.encode_to_coordinator([value], durable=0)[0].acknowledged[0]


class Queries(participant_pb2_grpc.ParticipantQueriesServicer):
    """What only looks."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def InDoubt(
        self,
        request: participant_pb2.InDoubtRequest,
        context: Context[participant_pb2.InDoubtRequest, participant_pb2.InDoubtReply],
    ) -> participant_pb2.InDoubtReply:
        return participant_pb2.InDoubtReply(branches=self._driver.node.in_doubt(self._driver.now()))

    async def Locks(
        self,
        request: participant_pb2.LocksRequest,
        context: Context[participant_pb2.LocksRequest, participant_pb2.LocksReply],
    ) -> participant_pb2.LocksReply:
        return participant_pb2.LocksReply(locks=self._driver.node.locks())

    async def ReadRow(
        self,
        request: participant_pb2.ReadRowRequest,
        context: Context[participant_pb2.ReadRowRequest, types_pb2.Row],
    ) -> types_pb2.Row:
        """Read in the writer's turn and answered after its flush, so never what a power cut could take back."""
        try:
            return await self._read(request)
        except No as no:
            missing = no.reason.code in _NOT_THERE
            code = grpc.StatusCode.NOT_FOUND if missing else grpc.StatusCode.INVALID_ARGUMENT
            await context.abort(code, no.reason.message)

    async def _read(self, request: participant_pb2.ReadRowRequest) -> types_pb2.Row:
        file, resource = self._driver.opened.file, self._driver.opened.resource
        if isinstance(resource, OutsideResource):
            return await resource.read_row(request.table, request.key)
        return await self._driver.in_writer(lambda: resource.read_row(file.connection, request.table, request.key))

    async def Tables(
        self,
        request: participant_pb2.TablesRequest,
        context: Context[participant_pb2.TablesRequest, participant_pb2.TablesReply],
    ) -> participant_pb2.TablesReply:
        return participant_pb2.TablesReply(tables=self._driver.opened.resource.tables())

    async def Status(
        self,
        request: participant_pb2.ParticipantStatusRequest,
        context: Context[participant_pb2.ParticipantStatusRequest, participant_pb2.ParticipantStatus],
    ) -> participant_pb2.ParticipantStatus:
        return status_message(self._driver)


async def _attempt_of(attempt: types_pb2.Attempt, context: Context[Any, Any]) -> AttemptId:
    if not attempt.log or attempt.number <= 0:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the attempt must name its log and a positive number")
    return AttemptId(attempt.log, attempt.number)


def status_message(driver: Driver) -> participant_pb2.ParticipantStatus:
    """How the participant is."""
    load = driver.node.load(driver.now())
    return participant_pb2.ParticipantStatus(
        participant=driver.file.name,
        identity=driver.file.identity,
        incarnation=driver.incarnation,
        pid=os.getpid(),
        serving=driver.serving,
        in_flight=load.in_flight,
        in_doubt=load.in_doubt,
        oldest_s=load.oldest_s,
        log_bytes=driver.file.size(),
        finished=load.finished,
        counters=driver.counters(),
        alarms=driver.alarms,
    )
