"""The yardstick of `bench.unary` as a contender: so many tasks call it one after the other, over one channel."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc.aio

from bench import files
from bench.children import Children
from bench.contender import Contender, Counts
from bench.ledger import Rows
from bench.load import Answer, Load, Step, by_workers
from bench.unary import Call, caller, database
from bench.workloads import START, Add, Insert, Operation, Put, Read, Workload
from troth.words import Outcome

_SETTLE_PAUSE_S = 0.02


class OnUnary(Contender):
    """A coordinator and participants as processes."""

    name = "unary"

    def __init__(self) -> None:
        self._children: Children | None = None
        self._connections = AsyncExitStack()
        self._submit: Call | None = None
        self._counts: list[Call] = []

    async def start(self, folder: Path, workload: Workload) -> None:
        self._children = Children("bench.unary", folder, workload.participants)
        for process in self._children.participants.values():
            _fill(process.data, workload.accounts)
        self._children.start()
        await self._connect([process.address for process in self._children.by_name.values()])

    @property
    def _running(self) -> Children:
        assert self._children is not None
        return self._children

    async def _connect(self, at: Sequence[str]) -> None:
        channels = [await self._connections.enter_async_context(grpc.aio.insecure_channel(each)) for each in at]
        self._submit = caller(channels[0], "submit")
        self._counts = [caller(channel, "counts") for channel in channels]
        await self.counts()  # so that every channel is open

    @asynccontextmanager
    async def connected(self, in_flight: int) -> AsyncIterator[None]:
        yield

    async def run(self, load: Load) -> None:
        await by_workers(load, [self._transact] * load.in_flight)

    async def _transact(self, step: Step) -> Answer:
        assert self._submit is not None
        branches = [[b.participant - 1, [_written(operation) for operation in b.operations]] for b in step.branches]
        answer = await self._submit(branches)
        return Answer(Outcome[answer["outcome"]], answer.get("why", ""))

    async def settled(self) -> None:
        """Until no participant has anything prepared."""
        for process in self._running.participants.values():
            while _prepared(process.data):  # noqa: ASYNC110 - there is nothing else to await
                await asyncio.sleep(_SETTLE_PAUSE_S)

    async def rows(self, participant: int) -> Rows:
        return files.rows(self._running.by_name[f"p{participant}"].data)

    def processes(self) -> Mapping[str, int]:
        return self._running.pids()

    def dead(self) -> list[str]:
        return self._running.dead()

    async def counts(self) -> Counts:
        said = [await call(None) for call in self._counts]
        forced = sum(each["forced"] for each in said)
        return Counts(forced, forced, sum(each["messages"] for each in said))

    async def close(self) -> None:
        await self._connections.aclose()
        if self._children is not None:
            self._children.close()


def _written(operation: Operation) -> Sequence[Any]:
    match operation:
        case Add(key, by, least):
            return "add", key, by, least
        case Read(key):
            return "read", key
        case Insert(key, item):
            return "insert", key, item
        case Put(key, body):
            return "put", key, b64encode(body).decode()


def _fill(path: Path, accounts: int) -> None:
    with closing(database(path)) as connection:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO accounts VALUES (?, ?)", ((key, START) for key in range(accounts)))
        connection.execute("COMMIT")


def _prepared(path: Path) -> bool:
    return bool(files.select(path, "SELECT 1 FROM prepared LIMIT 1"))
