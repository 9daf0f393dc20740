"""What the commands of this room share: their folder, their progress, and how they end."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from bench.report import Table
from troth.cli import common

T = TypeVar("T")

EXIT_INTERRUPTED = 130


def tell(text: str) -> None:
    """Progress, apart from what was found."""
    click.echo(text, err=True)


async def in_folder(measured: Callable[[Path], Awaitable[T]]) -> T:
    """What `measured` gives for a temporary folder, which is then gone."""
    with tempfile.TemporaryDirectory(prefix="troth-bench-") as folder:
        return await measured(Path(folder))


def say(tables: Sequence[Table], *sentences: str) -> None:
    """What was found, for people."""
    for table in tables:
        common.say(f"{table.title}\n")
        common.say_table(table.columns, table.rows)
        common.say("")
    for sentence in sentences:
        common.say(sentence)


async def until_signalled(main: Coroutine[Any, Any, None]) -> int:
    """The exit code. SIGINT and SIGTERM end everything that was started, and then this."""
    running = asyncio.create_task(main)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        tell("stopped")
        return EXIT_INTERRUPTED
    return 0
