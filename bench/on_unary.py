"""The yardstick of `bench.unary` as a contender: so many tasks call it one after the other, over one channel."""

from __future__ import annotations

import asyncio
import signal
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc.aio

from bench import files
from bench.contender import Contender, Counts
from bench.ledger import Rows
from bench.load import Answer, Load, Step, by_workers
from bench.unary import Call, caller, database
from bench.workloads import START, Add, Insert, Operation, Put, Read, Workload
from faults.cluster import COORDINATOR, Process
from troth.process import addresses
from troth.words import Outcome

_SETTLE_PAUSE_S = 0.02


class OnUnary(Contender):
    """A coordinator and participants as processes."""

    name = "unary"

    def __init__(self) -> None:
        self._processes: dict[str, Process] = {}
        self._connections = AsyncExitStack()
        self._submit: Call | None = None
        self._counts: list[Call] = []

    async def start(self, folder: Path, workload: Workload) -> None:
        names = [COORDINATOR, *(f"p{n}" for n in range(1, workload.participants + 1))]
        at = [f"127.0.0.1:{port}" for port in addresses.free_ports(len(names))]
        for name, address in zip(names, at, strict=True):
            role = "coordinator" if name == COORDINATOR else "participant"
            data = folder / f"{name}.db"
            command = [sys.executable, "-m", "bench.unary", role, "--data", str(data), "--listen", address]
            if name == COORDINATOR:
                command += [argument for other in at[1:] for argument in ("--participant", other)]
            else:
                _fill(data, workload.accounts)
            self._processes[name] = Process(name, address, data, command, folder / f"{name}.log")
        for process in self._processes.values():
            process.launch((), {})
        for process in self._processes.values():
            process.wait_serving()
        await self._connect(at)

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
        for name, process in self._processes.items():
            while name != COORDINATOR and _prepared(process.data):  # noqa: ASYNC110 - there is nothing else to await
                await asyncio.sleep(_SETTLE_PAUSE_S)

    async def rows(self, participant: int) -> Rows:
        return files.rows(self._processes[f"p{participant}"].data)

    def processes(self) -> Mapping[str, int]:
        return {name: process.pid for name, process in self._processes.items()}

    def dead(self) -> list[str]:
        return [f"{name}: {process.text()}" for name, process in self._processes.items() if not process.running]

    async def counts(self) -> Counts:
        said = [await call(None) for call in self._counts]
        forced = sum(each["forced"] for each in said)
        return Counts(forced, forced, sum(each["messages"] for each in said))

    async def close(self) -> None:
        await self._connections.aclose()
        for process in self._processes.values():
            if process.popen is None:
                continue
            if process.running:
                process.signal(signal.SIGKILL)
            process.wait()


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
