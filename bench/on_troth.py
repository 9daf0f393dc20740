"""Troth as its users have it: a coordinator and participants as processes, and one client stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
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
from faults.cluster import COORDINATOR, Cluster, Process
from faults.servers import Database
from troth import Client, Transaction, connect
from troth.v1.coordinator_pb2 import CoordinatorStatus

RESTART_WITHIN_S = 60.0
"""How long the client waits for a coordinator that is started again."""
_FILL_BATCH, _FILL_IN_FLIGHT = 500, 4
_SETTLE_PAUSE_S = 0.02
_LOG_LINES_TOLD = 20


class OnTroth(Contender):
    """Behind the calls of every contender, and with more for what is measured of it alone."""

    name = "troth"

    def __init__(self, bystanders: int = 0, settings: Sequence[str] = ()) -> None:
        """`bystanders` are participants beyond those of the workload, with the same tables; `settings` are flags of the
        coordinator, which otherwise has its default ones."""
        self.away: set[str] = set()
        """Processes that were killed on purpose."""
        self.owed = 0
        """Transactions whose commit is owed on purpose: nothing waits for them."""
        self._bystanders = bystanders
        self._settings = list(settings)
        self._cluster: Cluster | None = None
        self._connections = AsyncExitStack()
        self._client: Client | None = None

    async def start(self, folder: Path, workload: Workload) -> None:
        await self._serving(folder, workload, {})
        fills = list(_fills(self.cluster.participants, workload.accounts))
        async for result in self.client.submit_many(fills, in_flight=_FILL_IN_FLIGHT):
            result.committed()
        await self.settled()

    async def _serving(self, folder: Path, workload: Workload, databases: Mapping[str, Database]) -> None:
        """Starts the processes, and connects the client; `databases` are those of participants without tables of their
        own, by name."""
        sql = "".join(f"{statement} STRICT;\n" for statement in schema("INTEGER", "BLOB"))
        participants, flags = workload.participants + self._bystanders, {COORDINATOR: self._settings}
        self._cluster = Cluster(folder, participants, schema=sql, flags=flags, databases=databases)
        self._cluster.__enter__()
        self._client = await self._connections.enter_async_context(
            connect(self._cluster[COORDINATOR].address, wait_s=RESTART_WITHIN_S)
        )

    @property
    def cluster(self) -> Cluster:
        """Its processes, for whoever kills and starts them."""
        assert self._cluster is not None
        return self._cluster

    @property
    def client(self) -> Client:
        """The one that loads are run by."""
        assert self._client is not None
        return self._client

    @asynccontextmanager
    async def connected(self, in_flight: int) -> AsyncIterator[None]:
        yield

    async def run(self, load: Load) -> None:
        await self.asking_again(load, 0.0)

    async def asking_again(self, load: Load, ask_again_s: float) -> None:
        """As `run`; what was not answered is asked again for so long."""
        steps: dict[int, Step] = {}  # By position.
        positions = count()

        def transactions() -> Iterator[Transaction]:
            for step in load:
                steps[next(positions)] = step
                yield transaction(step.branches)

        async for result in self.client.submit_many(transactions(), in_flight=load.in_flight, ask_again_s=ask_again_s):
            load.answered(steps.pop(result.position), Answer(result.outcome, result.code))

    async def settled(self) -> None:
        """Until the coordinator waits for no acknowledgement."""
        while (status := self.status()).unresolved > self.owed or status.in_flight:  # noqa: ASYNC110 - nothing to await
            await asyncio.sleep(_SETTLE_PAUSE_S)

    def status(self) -> CoordinatorStatus:
        """Of the coordinator."""
        status = self.cluster.status(COORDINATOR)
        assert isinstance(status, CoordinatorStatus)
        return status

    async def rows(self, participant: int) -> Rows:
        return files.rows(self.cluster[f"p{participant}"].data)

    def _expected(self) -> dict[str, Process]:
        """Those that nobody killed, by name."""
        return {name: process for name, process in self.cluster.processes.items() if name not in self.away}

    def processes(self) -> Mapping[str, int]:
        return {name: process.pid for name, process in self._expected().items()}

    def dead(self) -> list[str]:
        ended = [process for process in self._expected().values() if not process.running]
        return [f"{each.name}:\n" + "\n".join(each.text().splitlines()[-_LOG_LINES_TOLD:]) for each in ended]

    async def counts(self) -> Counts:
        found = self.cluster.counters(*self._expected()).values()
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


def transaction(branches: Branches) -> Transaction:
    """What a step asks for, with an id of its own."""
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
