"""Troth by itself: a cluster with the ledger of all that was transferred in it, that can be made old."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from bench.contender import Failed
from bench.figures import CLIENT
from bench.load import Load
from bench.on_troth import OnTroth
from bench.processes import resident_bytes
from bench.run import Subject
from bench.workloads import WORKLOADS

WORKLOAD = "transfer"
IN_FLIGHT = 256
_CHUNK = 10_000
_TELL_EVERY_S = 5.0

Tell = Callable[[str], None]


class Size(NamedTuple):
    """Of one process, now."""

    resident_bytes: int
    file_bytes: int
    """Of its file with the write-ahead file."""


class Alone:
    """Made by `started`."""

    def __init__(self, troth: OnTroth, seed: int) -> None:
        self.troth = troth
        self.subject = Subject(troth, WORKLOADS[WORKLOAD], seed)
        self.committed = 0
        """Transfers, since the cluster was made."""

    async def grow(self, upto: int, tell: Tell) -> None:
        """Transfers until so many have committed. Raises Failed."""
        told_s = time.perf_counter()
        while self.committed < upto:
            load = self.subject.load(IN_FLIGHT, math.inf, min(_CHUNK, upto - self.committed))
            await self.subject.ran(load)
            self.count(load)
            if (now_s := time.perf_counter()) > told_s + _TELL_EVERY_S:
                told_s = now_s
                tell(f"{self.committed:,} of {upto:,} transactions")

    async def window(self, seconds: float, in_flight: int = IN_FLIGHT) -> float:
        """Transfers committed per second, for so long. Raises Failed when there was none."""
        load = await self.subject.ran(self.subject.load(in_flight, seconds))
        self.count(load)
        return load.tx_per_s

    def count(self, load: Load) -> None:
        """Adds what has committed. Raises Failed when nothing has."""
        if not load.committed:
            raise Failed(f"troth committed none of {load.aborted.total()} transactions: {dict(load.aborted)}")
        self.committed += len(load.committed)

    def sizes(self) -> Mapping[str, Size]:
        """By process, the client's included."""
        processes = self.troth.cluster.processes
        sizes = {CLIENT: Size(resident_bytes(os.getpid()), 0)}
        for name, pid in self.troth.processes().items():
            sizes[name] = Size(resident_bytes(pid), _file_bytes(processes[name].data))
        return sizes


def _file_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in (data, data.with_name(f"{data.name}-wal")) if path.exists())


@asynccontextmanager
async def started(
    folder: Path, seed: int, *, bystanders: int = 0, settings: Sequence[str] = ()
) -> AsyncIterator[Alone]:
    """A cluster in a folder of its own, ended on leaving. Raises Failed when it does not start."""
    await asyncio.to_thread(folder.mkdir)
    troth = OnTroth(bystanders, settings)
    try:
        try:
            await troth.start(folder, WORKLOADS[WORKLOAD])
        except Exception as error:
            raise Failed(f"troth did not start: {error}") from error
        yield Alone(troth, seed)
    finally:
        await troth.close()
