"""What both parts of the demo share: how things are shown, the processes, and the checks."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

import troth
from troth.cli import cluster
from troth.cli.leash import leashed

PLAIN_WIDTH = 120
START_WITHIN_S, BACK_WITHIN_S, SETTLED_WITHIN_S, STOP_WITHIN_S = 30.0, 30.0, 5.0, 20.0
POLL_S = 0.02

out = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


class Failed(Exception):
    """The demo cannot go on."""


# What is shown.


def heading(number: int, text: str) -> None:
    out.print(f"\n[bold]{number}. {text}[/]")


def say(text: str, style: str = "") -> None:
    """One line, as it is: no markup."""
    out.print(Text(f"   {text}", style), soft_wrap=True)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    for row in (columns, *rows):
        first, *others = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        say("   ".join((first, *others)), "bold" if row is columns else "")


def euros(cents: int) -> str:
    return f"{cents / 100:,.2f}"


# The processes.


class Up:
    """`troth up` as a child; ends with us, however we end."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self._process = process
        self._serving = asyncio.Condition()
        self._lives: Counter[str] = Counter()
        self.coordinator = ""
        self._reader = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def running(cls, folder: Path, port: int, arguments: Sequence[str]) -> AsyncIterator[Up]:
        """Serving on entering, stopped on leaving."""
        command = [sys.executable, "-m", "troth", "up", "--data", str(folder), "--port", str(port), *arguments]
        process = await asyncio.create_subprocess_exec(
            *leashed(command), stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        up = cls(folder, process)
        try:
            await up._ready()
            yield up
        finally:
            await up._stop()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            name, _, said = line.partition(": ")
            async with self._serving:
                if name == "ready":
                    self.coordinator = said.rpartition(" ")[2]
                elif said.startswith("serving on"):
                    self._lives[name] += 1
                self._serving.notify_all()
            if "starting again" in said:
                say(f"troth up | {line}", "yellow")
            elif said.startswith("serving on") and self._lives[name] > 1:
                say(f"troth up | {line}", "green")

    async def _ready(self) -> None:
        await self._until(lambda: bool(self.coordinator), START_WITHIN_S, "`troth up` does not serve")

    async def _until(self, condition: Callable[[], bool], within_s: float, otherwise: str) -> None:
        try:
            async with asyncio.timeout(within_s), self._serving:
                await self._serving.wait_for(lambda: condition() or self._reader.done())
        except TimeoutError:
            raise Failed(f"{otherwise} within {within_s:g} s; see {self.folder / 'log'}") from None
        if not condition():
            raise Failed(f"{otherwise}: it ended with {await self._process.wait()}; see {self.folder / 'log'}")

    def pid(self, name: str) -> int:
        """As `cluster.json` has it."""
        return next(member.pid for member in cluster.read(self.folder) if member.name == name and member.pid)

    async def kill_and_see_it_back(self, name: str) -> None:
        """kill -9, then waits until `troth up` has started it again and it serves."""
        pid, life = self.pid(name), self._lives[name]
        say(f"kill -9 {pid}     ({name})", "bold red")
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        await self._until(lambda: self._lives[name] > life, BACK_WITHIN_S, f"{name} does not come back")
        say(f"{name} is pid {self.pid(name)} now, and served again after {time.monotonic() - began:.1f} s")

    async def ended(self) -> None:
        """Returns when it ends by itself."""
        await self._process.wait()

    async def _stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_WITHIN_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()  # and the kernel everything below it
        await self._reader


async def run_troth(up: Up, *arguments: str, shown: Sequence[str] | None = None) -> tuple[int, str]:
    """Runs a `troth` command as a user types it, and shows what it prints; its exit code and that."""
    out.print(Text(f"   $ troth {shlex.join(shown or arguments)}", "bold cyan"), soft_wrap=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "troth", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TROTH_COORDINATOR": up.coordinator},
    )
    try:
        text, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    printed = text.decode(errors="replace").strip()
    for line in printed.splitlines():
        say(line)
    assert process.returncode is not None
    return process.returncode, printed


# The checks.


class Checks:
    """What must hold, each said as it is looked at."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def that(self, holds: bool, text: str) -> None:
        out.print(Text("   ok      " if holds else "   FAILED  ", "green" if holds else "bold red").append(text, ""))
        if not holds:
            self.failed.append(text)


async def check_settled(client: troth.Client, up: Up, checks: Checks) -> None:
    """The coordinator owes nothing, and no participant is in doubt."""
    began = time.monotonic()
    addresses = [member.address for member in cluster.read(up.folder) if member.role == "participant"]
    settled = await _settled(client, addresses)
    while not settled and time.monotonic() < began + SETTLED_WITHIN_S:
        await asyncio.sleep(POLL_S)  # what other processes do, no event tells of
        settled = await _settled(client, addresses)
    checks.that(settled, f"nothing was left open {time.monotonic() - began:.1f} s after the last answer")


async def _settled(client: troth.Client, addresses: Sequence[str]) -> bool:
    status = await client.status()
    if status.in_flight or status.unresolved:
        return False
    for address in addresses:
        async with troth.connect_participant(address) as participant:
            if (await participant.status()).in_doubt:
                return False
    return True
