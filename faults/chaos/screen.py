"""What is shown while it runs: a picture that moves on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from faults.chaos.run import Run
from faults.chaos.watch import Sample, Watch

_LINE_EVERY_S = 5.0
_PICTURE_EVERY_S = 0.25
_RATE_OVER_S = 2.0
_BARS = " ▁▂▃▄▅▆▇█"
_BARS_SHOWN = 60


@asynccontextmanager
async def following(run: Run, console: Console) -> AsyncIterator[None]:
    """Shows the run until left."""
    task = asyncio.create_task(_picture(run, console) if console.is_terminal else _lines(run, console))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _picture(run: Run, console: Console) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_drawn(run), refresh=True)
            await asyncio.sleep(_PICTURE_EVERY_S)


async def _lines(run: Run, console: Console) -> None:
    said = ""
    while True:
        line = _line(run)
        if line != said:
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        said = line
        await asyncio.sleep(_LINE_EVERY_S)


def rates(samples: list[Sample], over_s: float) -> list[float]:
    """Committed transactions per second at each sample, over the seconds before it."""
    found, first = [], 0
    for sample in samples:
        while sample.at_s - samples[first].at_s > over_s:
            first += 1
        passed_s = sample.at_s - samples[first].at_s
        found.append((sample.committed - samples[first].committed) / passed_s if passed_s > 0 else 0.0)
    return found


def _line(run: Run) -> str:
    watch = run.watch
    if watch is None or not watch.samples or run.phase == "starting":
        return run.phase
    sample, rate = watch.samples[-1], rates(watch.samples, _LINE_EVERY_S)[-1]
    parts = [
        f"{sample.at_s:6.1f} s  {run.phase}: {rate:,.0f} committed/s",
        f"{sample.committed:,} committed, {sample.aborted:,} aborted, {sample.unknown} unknown",
        f"{sample.open} open, {sample.in_doubt} in doubt ({sample.in_doubt_long} for long)",
    ]
    if run.under_way:
        parts.append(f"faults: {'; '.join(map(str, run.under_way))}")
    if sample.away:
        parts.append(f"away: {', '.join(sample.away)}")
    return " | ".join(parts)


def _drawn(run: Run) -> Group:
    watch = run.watch
    plan = run.plan
    head = Text(f"troth chaos, seed {plan.seed}: {run.phase}", "bold")
    if watch is None or not watch.samples or run.phase == "starting":
        return Group(head)
    sample, rate = watch.samples[-1], rates(watch.samples, _RATE_OVER_S)
    head.append(f"   {sample.at_s:.0f} of {plan.duration_s:.0f} s", "")
    numbers = Table.grid(padding=(0, 3))
    numbers.add_row(
        f"[bold green]{rate[-1]:,.0f}[/] committed/s",
        f"{sample.committed:,} committed",
        f"{sample.aborted:,} aborted",
        f"{sample.unknown} unknown",
        f"{sample.open} open",
        f"[{'yellow' if sample.in_doubt_long else 'white'}]{sample.in_doubt} in doubt[/]"
        f", {sample.in_doubt_long} for long",
    )
    return Group(head, Text(_bars(rate), "green"), numbers, _processes(run, watch), _faults(run))


def _bars(values: list[float]) -> str:
    shown = values[-_BARS_SHOWN:]
    top = max([*shown, 1.0])
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in shown)


def _processes(run: Run, watch: Watch) -> Table:
    stopped = {name for fault in run.under_way for name in fault.targets}
    table = Table("process", "state", "in doubt", box=None)
    for name, serving in watch.serving.items():
        state = Text("serving", "green") if serving else Text("away", "bold red")
        if name in stopped:
            state.append("  under a fault", "yellow")
        table.add_row(name, state, str(len(watch.in_doubt[name])) if name in watch.in_doubt else "")
    return table


def _faults(run: Run) -> Text:
    text = Text(f"{len(run.applied)} faults done")
    for fault in run.under_way:
        text.append(f"\n  {fault}", "red")
    return text
