"""A coordinator and participants in one event loop, on free ports, through their public services only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any

import grpc.aio

from coordinator import driver as coordinator_driver
from coordinator.settings import CoordinatorSettings
from participant import driver as participant_driver
from participant.settings import ParticipantSettings
from troth.v1 import (
    coordinator_pb2_grpc,
    participant_pb2,
    participant_pb2_grpc,
    types_pb2,
)
from troth.v1.coordinator_pb2 import SubmitRequest

SCHEMA = "CREATE TABLE accounts (name TEXT NOT NULL PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0));"

COORDINATOR = CoordinatorSettings(vote_timeout_s=5.0, retry_first_s=0.01, retry_max_s=0.2, mark_interval_s=0.05)
PARTICIPANT = ParticipantSettings(lock_timeout_s=1.0, inquiry_after_s=0.1, inquiry_max_s=0.1, ask_peers_after_s=0.2)


class Process:
    """A driver's `serve` as a task, with the stubs of its services."""

    def __init__(self, task: asyncio.Task[None], address: str) -> None:
        self.task = task
        self.address = address
        self.channel = grpc.aio.insecure_channel(address)
        self.commands = coordinator_pb2_grpc.CommandsStub(self.channel)  # type: ignore[no-untyped-call]
        self.queries = coordinator_pb2_grpc.QueriesStub(self.channel)  # type: ignore[no-untyped-call]
        self.inquiries = coordinator_pb2_grpc.InquiriesStub(self.channel)  # type: ignore[no-untyped-call]
        self.branches = participant_pb2_grpc.BranchesStub(self.channel)  # type: ignore[no-untyped-call]
        self.tables = participant_pb2_grpc.ParticipantQueriesStub(self.channel)  # type: ignore[no-untyped-call]
        self.lanes = participant_pb2_grpc.LanesStub(self.channel)  # type: ignore[no-untyped-call]

    async def stop(self) -> None:
        """Stops it as SIGTERM would; raises what made it fail."""
        await self.channel.close()
        await self.drain()

    async def drain(self) -> None:
        """The same, but its services may still be called."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def start_participant(folder: Path, name: str, listen: str = "127.0.0.1:0", schema: str = SCHEMA) -> Process:
    file = folder / "schema.sql"
    file.write_text(schema)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = participant_driver.serve(
        data=folder / f"{name}.db",
        name=name,
        listen=listen,
        advertise=None,
        schema=file,
        adopt=False,
        history=False,
        settings=PARTICIPANT,
        ready=address.set_result,
    )
    return await _started(serving, address)


async def start_coordinator(
    folder: Path, participants: dict[str, str], settings: CoordinatorSettings = COORDINATOR
) -> Process:
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = coordinator_driver.serve(
        data=folder / "coordinator.db",
        name="coordinator",
        listen="127.0.0.1:0",
        advertise=None,
        participants=participants,
        settings=settings,
        ready=address.set_result,
    )
    return await _started(serving, address)


async def _started(serving: Coroutine[Any, Any, None], address: asyncio.Future[str]) -> Process:
    task = asyncio.create_task(serving)
    both: list[asyncio.Future[Any]] = [task, address]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    return Process(task, address.result())


class Cluster:
    """One coordinator and its participants."""

    def __init__(self, coordinator: Process, participants: dict[str, Process]) -> None:
        self.coordinator = coordinator
        self.participants = participants
        self.commands = coordinator.commands
        self.queries = coordinator.queries

    async def balance(self, participant: str, name: str) -> int | None:
        """What is applied there now; None when there is no such row."""
        request = participant_pb2.ReadRowRequest(table="accounts", key=[types_pb2.Value(text=name)])
        row = await self.participants[participant].tables.ReadRow(request)
        return row.values[1].value.integer if row.present else None


@contextlib.asynccontextmanager
async def cluster(
    folder: Path, names: Sequence[str] = ("p1", "p2"), settings: CoordinatorSettings = COORDINATOR
) -> AsyncIterator[Cluster]:
    """A cluster that stops at the end, in order."""
    participants = {name: await start_participant(folder, name) for name in names}
    coordinator = await start_coordinator(folder, {n: p.address for n, p in participants.items()}, settings)
    try:
        yield Cluster(coordinator, participants)
    finally:
        for process in [coordinator, *participants.values()]:
            await process.stop()


# Transactions of tests.


def insert(name: str, balance: int, position: int = 0) -> types_pb2.Operation:
    values = [types_pb2.Column(name="balance", value=types_pb2.Value(integer=balance))]
    return types_pb2.Operation(position=position, **_row(name), insert=types_pb2.Insert(values=values))


def add(name: str, by: int, position: int = 0) -> types_pb2.Operation:
    change = types_pb2.Add(column="balance", by=types_pb2.Value(integer=by))
    return types_pb2.Operation(position=position, **_row(name), add=change)


def read(name: str, position: int = 0) -> types_pb2.Operation:
    return types_pb2.Operation(position=position, **_row(name), read=types_pb2.Read())


def _row(name: str) -> dict[str, Any]:
    return {"table": "accounts", "key": [types_pb2.Value(text=name)]}


def submission(
    branches: dict[str, list[types_pb2.Operation]], *, id: str = "", timeout_s: float = 10.0, **fields: Any
) -> SubmitRequest:
    return SubmitRequest(
        id=id,
        timeout_s=timeout_s,
        branches=[
            types_pb2.Branch(participant=name, operations=types_pb2.Operations(operations=operations))
            for name, operations in branches.items()
        ],
        **fields,
    )
