"""The asyncio client: `async with connect("127.0.0.1:7400") as troth: await troth.submit(transaction)`.

It feels like a database driver: `submit` returns what was committed and raises everything else, for a forgotten `if`
must not lose money. When an outcome is not known (`OutcomeUnknown`), submitting the same transaction again, with its
id, gives the truth; nothing runs twice.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from troth.client.channel import Connection
from troth.client.many import GRACE_S, Many, Source, refusal
from troth.client.results import Result, Row
from troth.errors import OutcomeUnknown, ServerError, Unreachable
from troth.operations import Key, Transaction, checked_timeout
from troth.v1 import coordinator_pb2 as pb
from troth.v1 import coordinator_pb2_grpc, types_pb2
from troth.words import Answer, AttemptId, Outcome

DEFAULT_ADDRESS = "127.0.0.1:7400"
TIMEOUT_S = 30.0
"""Of a transaction that names none."""
WAIT_S = 5.0
"""How long the coordinator may be away before a call says so."""
_POLL_FIRST_S, _POLL_MAX_S = 0.02, 0.5
_ASK_AGAIN_PAUSE_S = 0.2

_DECIDED = {pb.STATE_COMMITTING, pb.STATE_COMMITTED, pb.STATE_ABORTED, pb.STATE_NOT_FOUND, pb.STATE_REFUSED}


@asynccontextmanager
async def connect(
    address: str = DEFAULT_ADDRESS, *, timeout_s: float = TIMEOUT_S, wait_s: float = WAIT_S
) -> AsyncIterator[Client]:
    """A client of the coordinator at `address`, which is there when this returns.

    `timeout_s` is for transactions without their own. `wait_s` is how long the coordinator may be away, now and before
    any later call. Raises BadInput for a bad address, and Unreachable."""
    connection = Connection(address, wait_s)
    try:
        await connection.ready()
        yield Client(connection, timeout_s=checked_timeout(timeout_s))
    finally:
        await connection.close()


class Client:
    """One coordinator. Any number of tasks of one event loop may use it at once."""

    def __init__(self, connection: Connection, *, timeout_s: float = TIMEOUT_S) -> None:
        """Use `connect`, which also closes the connection."""
        self._connection = connection
        self._timeout_s = timeout_s
        stub: Any = coordinator_pb2_grpc.CommandsStub
        self._commands = stub(connection.channel)
        stub = coordinator_pb2_grpc.QueriesStub
        self._queries = stub(connection.channel)
        stub = coordinator_pb2_grpc.InquiriesStub
        self._inquiries = stub(connection.channel)

    @property
    def address(self) -> str:
        """Of the coordinator."""
        return self._connection.address

    # Commands.

    async def submit(self, transaction: Transaction, *, wait_applied: bool = False, ask_again_s: float = 0.0) -> Result:
        """Runs the transaction and returns its committed result, with the rows that were read.

        `wait_applied`: only when every participant has applied, or its timeout has passed. `ask_again_s`: when the
        outcome is not known, submits again with the same id for so long.

        Raises Aborted, Refused (nothing ran), OutcomeUnknown, and BadInput (nothing was sent)."""
        request = transaction.to_request(wait_applied=wait_applied)
        request.timeout_s = request.timeout_s or self._timeout_s
        if refused := refusal(request):
            return refused.committed()
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + ask_again_s
        while True:
            try:
                return (await self._submit_once(request)).committed()
            except OutcomeUnknown:
                if loop.time() >= give_up_at:
                    raise
            await asyncio.sleep(_ASK_AGAIN_PAUSE_S)

    async def _submit_once(self, request: pb.SubmitRequest) -> Result:
        try:
            await self._connection.ready()
        except Unreachable as error:
            raise OutcomeUnknown(request.id, f"{error}; it was not sent now", sent=False) from error
        try:
            return Result.of(await self._commands.Submit(request, timeout=request.timeout_s + GRACE_S))
        except grpc.aio.AioRpcError as error:
            raise self._not_known(request.id, error, "submit") from error

    def _not_known(self, id: str, error: grpc.aio.AioRpcError, what: str) -> Exception:
        """What a broken call means: nearly always nothing (TRAPS: gRPC)."""
        if error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT):
            return self._connection.translated(error, what, changes=True)  # Certainly not run.
        return OutcomeUnknown(id, f"the call ended with {error.code().name}: {error.details() or 'no details'}")

    def submit_many(
        self, transactions: Source, *, in_flight: int = 256, wait_applied: bool = False, ask_again_s: float = 0.0
    ) -> AsyncGenerator[Result, None]:
        """Runs transactions, `in_flight` at once, and yields each result as it is known, in any order; see `submit`.

        Nothing raises per transaction: what cannot be sent is a REFUSED result, and what was open when the connection
        was lost is UNKNOWN (after it was asked again for `ask_again_s`). When the coordinator does not come back within
        the client's `wait_s` and the source has more, Unreachable is raised after the last result."""
        return Many(
            self._connection,
            self._commands.SubmitMany,
            transactions,
            in_flight=in_flight,
            wait_applied=wait_applied,
            timeout_s=self._timeout_s,
            ask_again_s=ask_again_s,
        ).results()

    async def abort(self, id: str) -> Result:
        """Fences an undecided id with a durable ABORTED, or says its true outcome: the result is ABORTED or COMMITTED.

        Raises Refused, and OutcomeUnknown: then `get` says how it stands."""
        try:
            await self._connection.ready()
            message = await self._commands.Abort(pb.AbortRequest(id=id), timeout=self._timeout_s + GRACE_S)
        except grpc.aio.AioRpcError as error:
            raise self._not_known(id, error, "abort") from error
        result = Result.of(message)
        return result.committed() if result.outcome in (Outcome.REFUSED, Outcome.UNKNOWN) else result

    async def resolve(self, id: str, participant: str, outcome: Outcome, why: str) -> str:
        """Settles at the coordinator the branch of a participant that can no longer answer (rule 12); a sentence that
        says what was done. A branch in doubt is resolved at its participant instead: `ParticipantClient.resolve`.

        Raises Contradiction."""
        request = pb.ResolveRequest(id=id, participant=participant, outcome=f"OUTCOME_{outcome.name}", reason=why)
        return await self._resolve(request)

    async def clear(self, id: str, participant: str, why: str) -> str:
        """Clears the kept heuristic records of one branch; a sentence that says what was done. Raises Contradiction."""
        return await self._resolve(pb.ResolveRequest(id=id, participant=participant, reason=why, clear=True))

    async def _resolve(self, request: pb.ResolveRequest) -> str:
        reply = await self._connection.call(self._commands.Resolve, request, "resolve", changes=True)
        return str(reply.message)

    # Queries.

    async def get(self, id: str) -> pb.Transaction:
        """What is known of an id; STATE_NOT_FOUND is no promise that it did not run. Raises Unreachable."""
        found: pb.Transaction = await self._connection.call(self._queries.Get, pb.GetRequest(id=id), "get")
        return found

    async def wait(self, id: str, *, timeout_s: float | None = None, applied: bool = False) -> pb.Transaction:
        """Returns when the id is no longer PENDING (with `applied`: also not COMMITTING), through restarts of the
        coordinator. Raises OutcomeUnknown after `timeout_s`; None waits without end."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        enough = _DECIDED - {pb.STATE_COMMITTING} if applied else _DECIDED
        pause_s, why = _POLL_FIRST_S, ""
        while True:
            try:
                found = await self.get(id)
                if found.state in enough:
                    return found
                why = "it is not finished"
            except Unreachable as error:
                why = str(error)
            if deadline is not None and loop.time() + pause_s > deadline:
                raise OutcomeUnknown(id, f"{why} after {timeout_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _POLL_MAX_S)

    async def list(self, limit: int = 0, *, in_flight: bool = False) -> builtins.list[pb.Transaction]:
        """Transactions in flight and lately finished, newest first; 0: as many as the coordinator likes."""
        request = pb.ListRequest(limit=limit, in_flight=in_flight)
        reply: pb.ListReply = await self._connection.call(self._queries.List, request, "list")
        return builtins.list(reply.transactions)

    async def watch(self) -> AsyncIterator[pb.Transaction]:
        """Outcomes as they become known, until the caller stops. Raises Unreachable when the connection is lost: what
        ended meanwhile is not told later."""
        await self._connection.ready()
        call = self._queries.Watch(pb.WatchRequest())
        try:
            async for transaction in call:
                yield transaction
        except grpc.aio.AioRpcError as error:
            raise self._connection.translated(error, "watch", changes=False) from error
        finally:
            call.cancel()

    async def unresolved(self) -> builtins.list[pb.Unresolved]:
        """What cannot be finished now, and why, oldest first."""
        request = pb.UnresolvedRequest()
        reply: pb.UnresolvedReply = await self._connection.call(self._queries.Unresolved, request, "unresolved")
        return builtins.list(reply.unresolved)

    async def status(self) -> pb.CoordinatorStatus:
        """How the coordinator is."""
        found: pb.CoordinatorStatus = await self._connection.call(self._queries.Status, pb.StatusRequest(), "status")
        return found

    async def outcome(self, attempt: AttemptId) -> Answer:
        """How an attempt ended by the coordinator's log (rule 7); NONE when it may not say."""
        named = types_pb2.Attempt(log=attempt.log, number=attempt.number)
        request = pb.OutcomeRequest(attempt=named, asker="client")
        reply: pb.OutcomeReply = await self._connection.call(self._inquiries.Outcome, request, "outcome")
        return Answer(reply.answer) if reply.answer else Answer.NONE

    async def read(self, participant: str, table: str, key: Key, *, timeout_s: float | None = None) -> Row:
        """One row, read under a shared lock by a transaction of its own. Raises as `submit` does."""
        result = await self.submit(Transaction(timeout_s=timeout_s).at(participant).read(table, key))
        if not result.rows:
            raise ServerError(f"{result.id} committed without the row that it read")
        return result.rows[0]
