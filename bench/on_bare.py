"""The yardstick of `bench.bare` as a contender: it verifies nothing but that each number is in every file, once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from bench import files
from bench.bare import NUMBER_BYTES, Line
from bench.children import Children
from bench.contender import Contender, Counts
from bench.ledger import Ledger, Rows
from bench.load import Answer, Load, Step, by_workers
from bench.workloads import WORKLOADS, Workload
from faults.cluster import COORDINATOR
from troth.words import Outcome

_ABLE = ("transfer", "order", "wide")


class OnBare(Contender):
    """Streams and forced writes, as many as a transaction of so many participants has on its client's way."""

    name = "bare"
    levels = (1,)

    def __init__(self) -> None:
        self._children: Children | None = None
        self._line: Line | None = None
        self._answered = 0

    @classmethod
    def unable(cls, workload: Workload) -> str:
        if workload not in [WORKLOADS[name] for name in _ABLE]:
            return f"it is a yardstick for {', '.join(_ABLE)} only"
        return super().unable(workload)

    async def start(self, folder: Path, workload: Workload) -> None:
        self._children = Children("bench.bare", folder, workload.participants)
        self._children.start()
        self._line = Line(self._running.by_name[COORDINATOR].address)

    @property
    def _running(self) -> Children:
        assert self._children is not None
        return self._children

    @asynccontextmanager
    async def connected(self, in_flight: int) -> AsyncIterator[None]:
        yield

    async def run(self, load: Load) -> None:
        await by_workers(load, [self._transact] * load.in_flight)

    async def _transact(self, step: Step) -> Answer:
        assert self._line is not None
        await self._line.round_trip(step.number.to_bytes(NUMBER_BYTES, "big"))
        self._answered += 1
        return Answer(Outcome.COMMITTED)

    async def settled(self) -> None:
        """Always: nothing comes after an answer."""

    async def rows(self, participant: int) -> Rows:
        """Of the workload's tables: there are none."""
        return Rows({}, {}, {})

    async def complaints(self, ledger: Ledger) -> list[str]:
        """Numbers count up from 0, so all that were answered are there when as many are, up to the last."""
        said = []
        for name, process in self._running.by_name.items():
            found = files.select(process.data, "SELECT count(*), coalesce(max(number), -1) + 1 FROM forced")
            if found != [(self._answered, self._answered)]:
                said.append(f"{name}: {self._answered} numbers were answered; rows and end are {found[0]}")
        return said

    def processes(self) -> Mapping[str, int]:
        return self._running.pids()

    def dead(self) -> list[str]:
        return self._running.dead()

    async def counts(self) -> Counts:
        """One forced write in each process, and one message each way to each participant."""
        forced = self._answered * len(self._running.by_name)
        return Counts(forced, forced, 2 * self._answered * len(self._running.participants))

    async def close(self) -> None:
        if self._line is not None:
            await self._line.close()
        if self._children is not None:
            self._children.close()
