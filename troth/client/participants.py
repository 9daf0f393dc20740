"""A client of one participant: its queries, resolving by hand, making a table. Transactions go to the coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from troth.client import WAIT_S
from troth.client.channel import Connection
from troth.client.results import Row
from troth.operations import Key, key_values
from troth.v1 import participant_pb2 as pb
from troth.v1 import participant_pb2_grpc
from troth.v1.coordinator_pb2 import ResolveReply
from troth.v1.types_pb2 import Attempt, Column
from troth.words import AttemptId, Outcome


@asynccontextmanager
async def connect_participant(address: str, *, wait_s: float = WAIT_S) -> AsyncIterator[ParticipantClient]:
    """A client of the participant at `address`, which is there when this returns. Raises BadInput and Unreachable."""
    connection = Connection(address, wait_s)
    try:
        await connection.ready()
        yield ParticipantClient(connection)
    finally:
        await connection.close()


class ParticipantClient:
    """One participant. Queries raise Unreachable and ServerError."""

    def __init__(self, connection: Connection) -> None:
        """Use `connect_participant`, which also closes the connection."""
        self._connection = connection
        stub: Any = participant_pb2_grpc.ParticipantQueriesStub
        self._queries = stub(connection.channel)
        stub = participant_pb2_grpc.BranchesStub
        self._branches = stub(connection.channel)

    @property
    def address(self) -> str:
        """Of the participant."""
        return self._connection.address

    async def in_doubt(self) -> list[pb.InDoubt]:
        """The branches in doubt, oldest first."""
        reply: pb.InDoubtReply = await self._connection.call(self._queries.InDoubt, pb.InDoubtRequest(), "in-doubt")
        return list(reply.branches)

    async def locks(self) -> list[pb.Lock]:
        """The locks held and waited for, by name, then in the order of the line."""
        reply: pb.LocksReply = await self._connection.call(self._queries.Locks, pb.LocksRequest(), "locks")
        return list(reply.locks)

    async def read_row(self, table: str, key: Key) -> Row:
        """A row as applied now, without waiting for locks. Raises BadInput for an unknown table or a wrong key."""
        request = pb.ReadRowRequest(table=table, key=key_values(key))
        return Row.of(await self._connection.call(self._queries.ReadRow, request, "read"))

    async def tables(self) -> list[pb.TableStatus]:
        """The tables served, and those that are not with the reason, by name."""
        reply: pb.TablesReply = await self._connection.call(self._queries.Tables, pb.TablesRequest(), "tables")
        return list(reply.tables)

    async def status(self) -> pb.ParticipantStatus:
        """How the participant is."""
        request = pb.ParticipantStatusRequest()
        found: pb.ParticipantStatus = await self._connection.call(self._queries.Status, request, "status")
        return found

    async def resolve(self, attempt: AttemptId, outcome: Outcome, why: str) -> str:
        """Resolves a branch in doubt by hand: a heuristic outcome, written to the audit log (rule 12). A sentence that
        says what was done. Raises Contradiction."""
        named = Attempt(log=attempt.log, number=attempt.number)
        request = pb.ResolveBranchRequest(attempt=named, outcome=f"OUTCOME_{outcome.name}", reason=why)
        reply: ResolveReply = await self._connection.call(self._branches.Resolve, request, "resolve", changes=True)
        return reply.message

    async def create_table(self, table: str, key: Sequence[Column], values: Sequence[Column]) -> bool:
        """Makes a table from a first row, durably: `key` are the primary-key columns in key order, and the values give
        the columns' types. False when the table was there already. Raises BadInput."""
        request = pb.CreateTableRequest(table=table, key=key, values=values)
        reply: pb.CreateTableReply = await self._connection.call(
            self._branches.CreateTable, request, "create table", changes=True
        )
        return reply.created
