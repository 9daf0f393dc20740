"""Transfers between participants: Troth beside a plain unary two-phase commit, interleaved, all forced, sums verified.

Prints the median of the rounds with its spread, latency, and Troth's flushes and messages per transaction.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import click
import grpc.aio
from plain import ROWS, START, caller
from rich.console import Console
from rich.table import Table

import troth

SCHEMA = "CREATE TABLE acct(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);"
FILL_BATCH = 500
READY = ("serving on", "ready: coordinator at")
"""What a process prints, with its address, once it serves."""


@contextmanager
def process(*command: str) -> Iterator[str]:
    """A child that prints the address it serves on; ended by its pid."""
    child = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(READY):
                yield line.rsplit(" ", 1)[1].strip()
                break
        else:
            raise click.ClickException(f"{' '.join(command)} ended with {child.wait()} before it served")
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


def work(participants: int) -> list[tuple[int, int]]:
    """One row and an amount at each participant; the amounts sum to nothing."""
    amount = random.randrange(1, 100)
    return [(random.randrange(ROWS), -amount)] + [
        (random.randrange(ROWS), amount if index == participants - 1 else 0) for index in range(1, participants)
    ]


class Plain:
    """The unary contender."""

    name = "plain unary 2PC"

    def __init__(self, submit: Any, totals: list[Any], participants: int) -> None:
        self._submit, self._totals, self._participants = submit, totals, participants
        self._number = 0

    async def round(self, count: int, in_flight: int) -> list[float]:
        latencies: list[float] = []

        async def worker(share: int) -> None:
            for _ in range(share):
                self._number += 1
                began = time.perf_counter()
                assert await self._submit([self._number, work(self._participants)]) == "COMMITTED"
                latencies.append(time.perf_counter() - began)

        await asyncio.gather(*(worker(count // in_flight) for _ in range(in_flight)))
        return latencies

    async def verify(self) -> None:
        total = sum([await call(None) for call in self._totals])
        assert total == ROWS * START * self._participants, f"plain: {total}"


class Troth:
    """A coordinator and participants as users start them, one client stream."""

    name = "troth"

    def __init__(self, client: troth.Client, participants: int, folder: Path) -> None:
        self._client, self._participants, self._folder = client, participants, folder

    async def fill(self) -> None:
        fills = []
        for index in range(self._participants):
            for first in range(0, ROWS, FILL_BATCH):
                transaction = troth.Transaction().at(f"p{index + 1}")
                for row in range(first, first + FILL_BATCH):
                    transaction.insert("acct", row, {"balance": START})
                fills.append(transaction)
        async for result in self._client.submit_many(fills, in_flight=4):
            assert result.outcome is troth.Outcome.COMMITTED, result

    async def round(self, count: int, in_flight: int) -> list[float]:
        began: dict[str, float] = {}
        latencies: list[float] = []

        def transactions() -> Iterator[troth.Transaction]:
            for _ in range(count):
                transaction = troth.Transaction(troth.new_id())
                for index, (row, amount) in enumerate(work(self._participants)):
                    transaction.at(f"p{index + 1}").add("acct", row, "balance", amount, min=0)
                assert transaction.id is not None
                began[transaction.id] = time.perf_counter()
                yield transaction

        async for result in self._client.submit_many(transactions(), in_flight=in_flight):
            assert result.outcome is troth.Outcome.COMMITTED, result
            latencies.append(time.perf_counter() - began.pop(result.id))
        return latencies

    async def verify(self) -> None:
        while (await self._client.status()).unresolved:  # noqa: ASYNC110 - there is nothing else to await
            await asyncio.sleep(0.1)
        total = 0
        for index in range(self._participants):
            path = (self._folder / f"p{index + 1}.db").absolute()
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
                total += connection.execute("SELECT sum(balance) FROM acct").fetchone()[0]
        assert total == ROWS * START * self._participants, f"troth: {total}"


@click.command(help=__doc__)
@click.option("--participants", default=2, show_default=True, help="Participants in each transaction.")
@click.option(
    "--in-flight", default="1,16,64,256", show_default=True, help="Transactions open at once, several by comma."
)
@click.option("--seconds", default=3.0, show_default=True, help="About how long each round takes.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of each contender; the median is shown.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(participants: int, in_flight: str, seconds: float, rounds: int, as_json: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="troth-bench-") as folder:
        found = asyncio.run(run(Path(folder), participants, [int(n) for n in in_flight.split(",")], seconds, rounds))
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        Console().print(table(found, participants))


async def run(folder: Path, participants: int, levels: list[int], seconds: float, rounds: int) -> list[dict[str, Any]]:
    with ExitStack() as processes:
        async with AsyncExitStack() as connections:
            contenders: list[Plain | Troth] = [
                await plain(folder, participants, processes, connections),
                await troth_(folder, participants, processes, connections),
            ]
            found = []
            for level in levels:
                rates: dict[str, list[float]] = {each.name: [] for each in contenders}
                latencies: dict[str, list[float]] = {each.name: [] for each in contenders}
                sizes = {each.name: max(level, await calibrate(each, level, seconds)) for each in contenders}
                for _ in range(rounds):
                    for each in contenders:
                        began = time.perf_counter()
                        taken = await each.round(sizes[each.name], level)
                        rates[each.name].append(len(taken) / (time.perf_counter() - began))
                        latencies[each.name] += taken
                found += [figures(each.name, level, rates[each.name], latencies[each.name]) for each in contenders]
                found[-1]["ratio"] = found[-1]["tx_per_s"] / found[-2]["tx_per_s"]
            for each in contenders:
                await each.verify()
            return found


async def calibrate(each: Any, level: int, seconds: float) -> int:
    """Warms up, and says how many transactions take about `seconds`."""
    count = max(level, 50)
    while True:
        began = time.perf_counter()
        done = len(await each.round(count, level))
        took = time.perf_counter() - began
        if took > 0.3:
            return int(done / took * seconds) // level * level
        count *= 2


def figures(name: str, level: int, rates: list[float], latencies: list[float]) -> dict[str, Any]:
    latencies.sort()
    return {
        "contender": name,
        "in_flight": level,
        "tx_per_s": statistics.median(rates),
        "spread": [min(rates), max(rates)],
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[len(latencies) * 99 // 100],
    }


async def plain(folder: Path, count: int, processes: ExitStack, connections: AsyncExitStack) -> Plain:
    script = str(Path(__file__).with_name("plain.py"))
    addresses = []
    for index in range(count):
        (folder / f"plain{index}").mkdir()
        addresses.append(processes.enter_context(process(script, "participant", str(folder / f"plain{index}"))))
    front = processes.enter_context(process(script, "coordinator", str(folder), *addresses))
    channels = [await connections.enter_async_context(grpc.aio.insecure_channel(a)) for a in [front, *addresses]]
    return Plain(caller(channels[0], "submit"), [caller(channel, "total") for channel in channels[1:]], count)


async def troth_(folder: Path, count: int, processes: ExitStack, connections: AsyncExitStack) -> Troth:
    schema = folder / "schema.sql"
    schema.write_text(SCHEMA)
    data = folder / "troth"
    command = [
        "-m",
        "troth",
        "up",
        "--participants",
        str(count),
        "--data",
        str(data),
        "--port",
        "0",
        "--schema",
        str(schema),
    ]
    address = processes.enter_context(process(*command))
    client = await connections.enter_async_context(troth.connect(address))
    made = Troth(client, count, data)
    await made.fill()
    return made


def table(found: list[dict[str, Any]], participants: int) -> Table:
    shown = Table(title=f"transfers over {participants} participants, everything forced, sums verified")
    for column in ("in flight", "contender", "tx/s", "spread", "p50 ms", "p99 ms", "ratio"):
        shown.add_column(column, justify="left" if column == "contender" else "right")
    for row in found:
        shown.add_row(
            str(row["in_flight"]),
            row["contender"],
            f"{row['tx_per_s']:,.0f}",
            f"{row['spread'][0]:,.0f}-{row['spread'][1]:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['ratio']:.1f}" if "ratio" in row else "",
        )
    return shown


if __name__ == "__main__":
    main()
