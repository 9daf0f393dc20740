"""Troth as its users have it: a coordinator and participants as processes, and one client stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench import files
from bench.contender import Contender, Counts
from bench.ledger import Rows
from bench.load import Answer, Load, Step
from bench.workloads import (
    ACCOUNTS,
    COLUMNS,
    DOCUMENTS,
    ORDERS,
    START,
    Add,
    Branches,
    Insert,
    Put,
    Read,
    Workload,
    schema,
)
from faults.cluster import COORDINATOR, Cluster
from troth import Client, Transaction, connect
from troth.v1.coordinator_pb2 import CoordinatorStatus

_FILL_BATCH, _FILL_IN_FLIGHT = 500, 4
_SETTLE_PAUSE_S = 0.02
_LOG_LINES_TOLD = 20


class OnTroth(Contender):
    """With default settings."""

    name = "troth"

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._connections = AsyncExitStack()
        self._client: Client | None = None

    async def start(self, folder: Path, workload: Workload) -> None:
        sql = "".join(f"{statement} STRICT;\n" for statement in schema("INTEGER", "BLOB"))
        self._cluster = Cluster(folder, workload.participants, schema=sql)
        self._cluster.__enter__()
        self._client = await self._connections.enter_async_context(connect(self._cluster[COORDINATOR].address))
        fills = list(_fills(self._cluster.participants, workload.accounts))
        async for result in self._client.submit_many(fills, in_flight=_FILL_IN_FLIGHT):
            result.committed()
        await self.settled()

    @property
    def _running(self) -> Cluster:
        assert self._cluster is not None
        return self._cluster

    @asynccontextmanager
    async def connected(self, in_flight: int) -> AsyncIterator[None]:
        yield

    async def run(self, load: Load) -> None:
        assert self._client is not None
        steps: list[Step] = []  # By position.

        def transactions() -> Iterator[Transaction]:
            for step in load:
                steps.append(step)
                yield _transaction(step.branches)

        async for result in self._client.submit_many(transactions(), in_flight=load.in_flight):
            load.answered(steps[result.position], Answer(result.outcome, result.code))

    async def settled(self) -> None:
        """Until the coordinator waits for no acknowledgement."""
        while self._status().unresolved or self._status().in_flight:  # noqa: ASYNC110 - there is nothing else to await
            await asyncio.sleep(_SETTLE_PAUSE_S)

    def _status(self) -> CoordinatorStatus:
        status = self._running.status(COORDINATOR)
        assert isinstance(status, CoordinatorStatus)
        return status

    async def rows(self, participant: int) -> Rows:
        return files.rows(self._running[f"p{participant}"].data)

    def processes(self) -> Mapping[str, int]:
        return {name: process.pid for name, process in self._running.processes.items()}

    def dead(self) -> list[str]:
        ended = [process for process in self._running.processes.values() if not process.running]
        return [f"{each.name}:\n" + "\n".join(each.text().splitlines()[-_LOG_LINES_TOLD:]) for each in ended]

    async def counts(self) -> Counts:
        found = self._running.counters().values()
        return Counts(
            forced=sum(each.forced for each in found),
            flushes=sum(each.flushes for each in found),
            messages=sum(sum(each.sent.values()) for each in found),
        )

    async def close(self) -> None:
        await self._connections.aclose()
        if self._cluster is not None:
            self._cluster.close()


def _fills(participants: list[str], accounts: int) -> Iterator[Transaction]:
    for name in participants:
        for first in range(0, accounts, _FILL_BATCH):
            made = Transaction().at(name)
            for key in range(first, min(first + _FILL_BATCH, accounts)):
                made.insert(ACCOUNTS, key, {COLUMNS[ACCOUNTS]: START})
            yield made


def _transaction(branches: Branches) -> Transaction:
    made = Transaction()
    for branch in branches:
        made.at(f"p{branch.participant}")
        for operation in branch.operations:
            match operation:
                case Add(key, by, least):
                    made.add(ACCOUNTS, key, COLUMNS[ACCOUNTS], by, min=least)
                case Read(key):
                    made.read(ACCOUNTS, key)
                case Insert(key, item):
                    made.insert(ORDERS, key, {COLUMNS[ORDERS]: item})
                case Put(key, body):
                    made.upsert(DOCUMENTS, key, {COLUMNS[DOCUMENTS]: body})
    return made
