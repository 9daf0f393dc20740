"""The coordinator's gRPC services: decode, ask the driver, encode. Nothing is decided here but what is malformed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from coordinator.events import (
    AbortAsked,
    Asked,
    Branch,
    Closed,
    Entry,
    Refusal,
    ResolveAsked,
    Result,
    Submission,
    Submitted,
)
from troth import failpoints
from troth.driving.lane import Outbox
from troth.driving.server import Service
from troth.driving.wire import BATCH_BYTES_MAX, end_of
from troth.reasons import reason
from troth.v1 import coordinator_pb2, coordinator_pb2_grpc, types_pb2
from troth.v1.coordinator_pb2 import State, SubmitRequest, SubmitResult, Transaction
from troth.v1.types_pb2 import Code, Reason
from troth.words import AttemptId, Outcome

if TYPE_CHECKING:
    from coordinator.driver import Driver
    from coordinator.log import DecisionLog

Context = grpc.aio.ServicerContext

RESULTS_WAITING_MAX = 10_000
"""Results that a client of SubmitMany may leave unread before no more is read from it."""

WATCHED_MAX = 10_000
"""Outcomes that a watcher may be behind before it is let go."""

LIST_DEFAULT = 100

_READING = frozenset({"check", "read"})
"""Operations that leave the resource as it was."""

_SAYING = frozenset({"custom", "sql"})
"""Operations that say themselves whether they do."""

_ENDED = {
    Outcome.COMMITTED: State.STATE_COMMITTED,
    Outcome.ABORTED: State.STATE_ABORTED,
    Outcome.REFUSED: State.STATE_REFUSED,
}


def services(driver: Driver) -> list[Service]:
    """All services of a coordinator."""
    return [
        Service("troth.v1.Commands", coordinator_pb2_grpc.add_CommandsServicer_to_server, Commands(driver)),
        Service("troth.v1.Queries", coordinator_pb2_grpc.add_QueriesServicer_to_server, Queries(driver)),
        Service("troth.v1.Inquiries", coordinator_pb2_grpc.add_InquiriesServicer_to_server, Inquiries(driver)),
    ]


# Submissions.


class Unfit(Exception):
    """A submission that is refused before the node sees it."""

    def __init__(self, why: Reason) -> None:
        super().__init__(why.message)
        self.reason = why


def submission_of(request: SubmitRequest) -> Submission:
    """Decodes a submission. Raises Unfit when it is malformed; limits are the node's to keep."""
    if not request.id.isprintable():
        raise _bad(f"the id {request.id!r} has a character that cannot be printed")
    if not 0.0 <= request.timeout_s < float("inf"):
        raise _bad(f"timeout_s is {request.timeout_s}; it must be a number of seconds, or 0 for the default")
    if not request.branches:
        raise _bad("the transaction has no branch")
    branches = tuple([_branch_of(branch) for branch in request.branches])
    if len({branch.participant for branch in branches}) != len(branches):
        raise _bad("a participant has two branches; put its operations into one")
    return Submission(
        id=request.id,
        digest=digest_of(branches),
        branches=branches,
        timeout_s=request.timeout_s,
        wait_applied=request.wait_applied,
    )


def digest_of(branches: Iterable[Branch]) -> bytes:
    """What makes two submissions of one id the same content (rule 11): who does what, in whatever order the branches
    are listed. The timeout and what the client waits for are not content."""
    content = b""
    for branch in sorted(branches):
        name, operations = branch.participant.encode(), branch.operations
        content += len(name).to_bytes(8, "big") + name + len(operations).to_bytes(8, "big") + operations
    return blake2b(content, digest_size=16).digest()


def _branch_of(branch: types_pb2.Branch) -> Branch:
    operations = branch.operations.operations
    if not branch.participant:
        raise _bad("a branch names no participant")
    if not operations:
        raise _bad(f"the branch at {branch.participant!r} has no operation")
    read_only, reads = True, False
    for operation in operations:
        kind = operation.WhichOneof("kind")
        if kind is None:
            raise _bad(f"operation {operation.position} at {branch.participant!r} says not what to do")
        looks = kind in _READING or (kind in _SAYING and getattr(operation, kind).read_only)
        read_only = read_only and looks
        reads = reads or kind == "read" or (kind == "sql" and looks)
    encoded = branch.operations.SerializeToString(deterministic=True)
    return Branch(branch.participant, encoded, read_only, reads, len(operations))


def _bad(message: str) -> Unfit:
    return Unfit(reason(Code.CODE_BAD_REQUEST, message))


def result_message(result: Result, tag: int = 0) -> SubmitResult:
    """A result as the client gets it."""
    message = SubmitResult(
        id=result.id,
        outcome=int(result.outcome),  # type: ignore[arg-type]
        reason=result.reason,
        rows_not_kept=result.rows_not_kept,
        applied=result.applied,
        tag=tag,
        attempts=result.attempts,
    )
    if result.rows:
        rows = types_pb2.Rows.FromString(result.rows).rows  # as the votes came
        message.rows.extend(sorted(rows, key=lambda row: row.position))
    return message


def in_batches(
    results: Sequence[SubmitResult], limit: int = BATCH_BYTES_MAX
) -> Iterator[coordinator_pb2.SubmitResults]:
    """As few messages as keep below `limit` bytes; a single result above it is one of its own."""
    batch, room = coordinator_pb2.SubmitResults(), limit
    for result in results:
        size = result.ByteSize() + 8
        if size > room and batch.results:
            yield batch
            batch, room = coordinator_pb2.SubmitResults(), limit
        batch.results.append(result)
        room -= size
    if batch.results:
        yield batch


class Commands(coordinator_pb2_grpc.CommandsServicer):
    """What changes something. A client that goes away cuts nothing: its submission lives in the node."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def Submit(self, request: SubmitRequest, context: Context[SubmitRequest, SubmitResult]) -> SubmitResult:
        answer: asyncio.Future[SubmitResult] = asyncio.get_running_loop().create_future()
        await failpoints.call("before-receive", Submitted)
        self.submit([request], lambda result: None if answer.done() else answer.set_result(result))
        result = await answer
        await failpoints.call("before-reply", Submitted)
        return result

    async def SubmitMany(
        self,
        requests: object,
        context: Context[coordinator_pb2.SubmitBatch, coordinator_pb2.SubmitResults],
    ) -> None:
        await SubmitStream(self, context).run()

    def submit(self, requests: Iterable[SubmitRequest], deliver: Callable[[SubmitResult], None]) -> None:
        """Submits all of them; `deliver` gets one result for each, in any order, at once for those refused here."""
        driver = self._driver
        events = []
        for request in requests:
            try:
                if not driver.admitting:
                    raise Unfit(reason(Code.CODE_NOT_SERVING, "the coordinator is stopping"))
                submission = submission_of(request)
            except Unfit as unfit:
                deliver(result_message(Result(request.id, Outcome.REFUSED, unfit.reason), request.tag))
            else:
                client = driver.expect(_delivery(request.tag, deliver))
                events.append(Submitted(client, submission))
        driver.feed(*events)

    async def Abort(
        self, request: coordinator_pb2.AbortRequest, context: Context[coordinator_pb2.AbortRequest, SubmitResult]
    ) -> SubmitResult:
        result = await self._driver.ask(lambda client: AbortAsked(client, request.id))
        return result_message(result)

    async def Resolve(
        self,
        request: coordinator_pb2.ResolveRequest,
        context: Context[coordinator_pb2.ResolveRequest, coordinator_pb2.ResolveReply],
    ) -> coordinator_pb2.ResolveReply:
        outcome = None if request.clear else end_of(request.outcome)
        if outcome is None and not request.clear:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the outcome must be COMMITTED or ABORTED")
        id = await self._attempt_of(request.id) if request.clear else request.id
        value = await self._driver.ask(
            lambda client: ResolveAsked(client, id, request.participant, outcome, request.reason)
        )
        if isinstance(value, Refusal):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, value.message)
        return coordinator_pb2.ResolveReply(message=value)

    async def _attempt_of(self, id: str) -> str:
        """The attempt by which the log knows this id, as heuristic records are kept by attempt; itself when it does
        not."""
        driver = self._driver
        log = driver.file.identity
        entry = await driver.in_writer(lambda: find(driver.decisions, id, log))
        return id if entry is None else str(AttemptId(log, entry.number))


def _delivery(tag: int, deliver: Callable[[SubmitResult], None]) -> Callable[[Result], None]:
    return lambda result: deliver(result_message(result, tag))


class SubmitStream:
    """One call of SubmitMany: a reader that submits, a writer that answers what has become known meanwhile.

    A client that reads no results holds up only itself: nothing more is read from it."""

    def __init__(
        self, commands: Commands, context: Context[coordinator_pb2.SubmitBatch, coordinator_pb2.SubmitResults]
    ) -> None:
        self._commands = commands
        self._context = context
        self._results: Outbox[SubmitResult | None] = Outbox()
        """None once: the client submits nothing more."""
        self._room = asyncio.Event()
        self._open = 0

    async def run(self) -> None:
        """Until the client has said that it is done and has all its results."""
        reader = asyncio.create_task(self._read())
        try:
            await self._write()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while isinstance(batch := await self._context.read(), coordinator_pb2.SubmitBatch):
                self._open += len(batch.submissions)
                self._commands.submit(batch.submissions, self._results.put)
                while len(self._results) > RESULTS_WAITING_MAX:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._results.put(None)

    async def _write(self) -> None:
        reading = True
        while reading or self._open:
            taken = await self._results.take()
            results = [result for result in taken if result is not None]
            reading = reading and len(results) == len(taken)
            self._open -= len(results)
            for batch in in_batches(results):
                await self._context.write(batch)
            self._room.set()


# Queries.


class Watcher:
    """One call of Watch."""

    def __init__(self) -> None:
        self.outcomes: Outbox[Transaction] = Outbox()
        self.behind = False
        """It was too slow, and gets nothing more."""

    def offer(self, transaction: Transaction) -> None:
        """Adds an outcome, unless the watcher is too far behind."""
        if len(self.outcomes) < WATCHED_MAX:
            self.outcomes.put(transaction)
        else:
            self.behind = True


class Queries(coordinator_pb2_grpc.QueriesServicer):
    """What only looks."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def Get(
        self, request: coordinator_pb2.GetRequest, context: Context[coordinator_pb2.GetRequest, Transaction]
    ) -> Transaction:
        driver = self._driver
        live = driver.node.describe(request.id, driver.now())
        if live is not None:
            return live
        log = driver.file.identity
        entry = await driver.in_writer(lambda: find(driver.decisions, request.id, log))
        if entry is None:
            return Transaction(id=request.id, state=State.STATE_NOT_FOUND)
        return entry_message(entry, log)

    async def List(
        self,
        request: coordinator_pb2.ListRequest,
        context: Context[coordinator_pb2.ListRequest, coordinator_pb2.ListReply],
    ) -> coordinator_pb2.ListReply:
        driver = self._driver
        listed = driver.node.listing(request.limit or LIST_DEFAULT, request.in_flight, driver.now())
        return coordinator_pb2.ListReply(transactions=listed)

    async def Watch(
        self, request: coordinator_pb2.WatchRequest, context: Context[coordinator_pb2.WatchRequest, Transaction]
    ) -> None:
        watcher = Watcher()
        self._driver.watchers.add(watcher)
        try:
            await context.send_initial_metadata(())  # so that a client knows from when on it sees everything
            while not watcher.behind:
                for transaction in await watcher.outcomes.take():
                    await context.write(transaction)
        finally:
            self._driver.watchers.discard(watcher)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"more than {WATCHED_MAX} outcomes behind; watch again")

    async def Unresolved(
        self,
        request: coordinator_pb2.UnresolvedRequest,
        context: Context[coordinator_pb2.UnresolvedRequest, coordinator_pb2.UnresolvedReply],
    ) -> coordinator_pb2.UnresolvedReply:
        return coordinator_pb2.UnresolvedReply(unresolved=self._driver.node.unresolved(self._driver.now()))

    async def Status(
        self,
        request: coordinator_pb2.StatusRequest,
        context: Context[coordinator_pb2.StatusRequest, coordinator_pb2.CoordinatorStatus],
    ) -> coordinator_pb2.CoordinatorStatus:
        return status_message(self._driver)


class Inquiries(coordinator_pb2_grpc.InquiriesServicer):
    """What participants ask when a lane does not serve."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def Outcome(
        self,
        request: coordinator_pb2.OutcomeRequest,
        context: Context[coordinator_pb2.OutcomeRequest, coordinator_pb2.OutcomeReply],
    ) -> coordinator_pb2.OutcomeReply:
        attempt = request.attempt
        self._driver.received["question"] += 1
        answer = await self._driver.ask(lambda client: Asked(client, attempt.log, attempt.number))
        self._driver.sent["answer"] += 1
        return coordinator_pb2.OutcomeReply(answer=int(answer))  # type: ignore[arg-type]


def find(decisions: DecisionLog, id: str, log: str) -> Entry | None:
    """What the log holds of an id, in the writer thread. An assigned id whose transaction was tried again is kept as an
    id; one that committed at once is the number of its attempt."""
    return decisions.look_up(id) or decisions.look_up(key_of(id, log))


def key_of(id: str, log: str) -> str | int:
    """Under what the log keeps an id: its own by number; a client's, and one that another log assigned before this file
    was restored from it, by the id."""
    try:
        attempt = AttemptId.parse(id)
    except ValueError:
        return id
    return attempt.number if attempt.log == log else id


def entry_message(entry: Entry, log: str) -> Transaction:
    """What the log holds of a transaction, for people."""
    if entry.state is None:
        state = State.STATE_PENDING
    elif entry.state is Outcome.COMMITTED and entry.ended_at is None:
        state = State.STATE_COMMITTING
    else:
        state = _ENDED[entry.state]
    attempt = AttemptId(log, entry.number)
    return Transaction(
        id=entry.id or str(attempt),
        state=state,
        reason=entry.reason,
        attempt=types_pb2.Attempt(log=log, number=entry.number),
        participants=[branch.participant for branch in entry.branches],
        submitted_at=entry.at,
        ended_at=entry.ended_at or 0.0,
        heuristics=[f"{participant}: {done.name}" for participant, done in entry.heuristics],
    )


def closed_message(driver: Driver, closed: Closed) -> Transaction:
    """An outcome for those who watch. What was refused may carry the id of another transaction, so only its reason."""
    now = driver.now()
    known = None if closed.outcome is Outcome.REFUSED else driver.node.describe(closed.id, now)
    if known is not None:
        known.state = _ENDED[closed.outcome]  # the outcome is what is watched, not how far it has been applied
        return known
    return Transaction(id=closed.id, state=_ENDED[closed.outcome], reason=closed.reason, ended_at=now.wall)


def status_message(driver: Driver) -> coordinator_pb2.CoordinatorStatus:
    """How the coordinator is."""
    now = driver.now()
    load = driver.node.load(now)
    owed: dict[str, int] = {}
    for unresolved in driver.node.unresolved(now):
        if unresolved.kind == "owed commit":
            owed[unresolved.participant] = owed.get(unresolved.participant, 0) + 1
    return coordinator_pb2.CoordinatorStatus(
        log=driver.file.identity,
        epoch=driver.epoch,
        pid=os.getpid(),
        serving=driver.admitting,
        in_flight=load.in_flight,
        unresolved=load.unresolved,
        oldest_s=load.oldest_s,
        log_bytes=driver.file.size(),
        committed=load.committed,
        aborted=load.aborted,
        refused=load.refused,
        lanes=[
            coordinator_pb2.LaneStatus(
                participant=lane.participant,
                address=lane.address,
                open=lane.outbox is not None,
                identity=lane.identity,
                error=lane.error,
                owed=owed.get(lane.participant, 0),
            )
            for lane in driver.lanes.values()
        ],
        counters=driver.counters(),
        alarms=driver.alarms,
    )
