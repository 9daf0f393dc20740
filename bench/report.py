"""What a run found, as tables for a terminal and as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence

from bench.figures import Row, Spread
from bench.run import Found, Plan
from bench.workloads import WORKLOADS

COLUMNS = (
    "workload",
    "in flight",
    "contender",
    "tx/s",
    "p50 ms",
    "p99 ms",
    "max ms",
    "CPU s/1,000",
    "forced",
    "flushes",
    "messages",
    "written KiB",
    "peak MiB",
    "aborted",
    "unknown",
)
CPU_COLUMNS = ("workload", "in flight", "contender", "process", "CPU s/1,000", "peak MiB")
LEGEND = """\
Medians of the rounds, (min..max) beside them. tx/s are commits answered within the time. Everything is forced to disk,
and all rows were compared with what was answered. Per committed transaction: processor time of all processes (client
included) in seconds for 1,000; log records that something waited for; fdatasyncs of logs; messages between processes;
what all processes wrote to files, logs and tables together. Peak memory and aborts are of all rounds. "-" is what a
contender does not tell.
"""
_KIB, _MIB = 1024, 1024 * 1024


def main_rows(rows: Sequence[Row]) -> list[list[str]]:
    """A line for each contender at each level."""
    return [
        [
            row.workload,
            str(row.in_flight),
            row.contender,
            _wide(row.tx_per_s, 0),
            *(_wide(row.spread(name), 2) for name in ("p50_ms", "p99_ms", "max_ms")),
            f"{row.cpu_in_all.median:.3f}",
            *(_median(row.spread(name)) for name in ("forced", "flushes", "messages")),
            _median(row.spread("written_bytes"), _KIB),
            f"{sum(map(row.peak_bytes, row.processes)) / _MIB:.0f}",
            str(row.aborted.total()),
            str(sum(each.unknown for each in row.rounds)),
        ]
        for row in rows
    ]


def cpu_rows(rows: Sequence[Row]) -> list[list[str]]:
    """A line for each process of each."""
    return [
        [row.workload, str(row.in_flight), row.contender, name, f"{row.cpu(name).median:.3f}", _mib(row, name)]
        for row in rows
        for name in row.processes
    ]


def _mib(row: Row, process: str) -> str:
    return f"{row.peak_bytes(process) / _MIB:.0f}"


def _wide(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return "-"
    return f"{spread.median:,.{digits}f} ({spread.min:,.{digits}f}..{spread.max:,.{digits}f})"


def _median(spread: Spread | None, unit: int = 1) -> str:
    return "-" if spread is None else f"{spread.median / unit:.2f}"


def skipped(found: Found) -> list[str]:
    """A sentence for each."""
    return [f"{each.workload or 'all workloads'}: {each.contender} was skipped: {each.why}" for each in found.skipped]


def markdown(plan: Plan, found: Found) -> str:
    """The whole report."""
    return "".join(f"{line}\n" for line in _lines(plan, found))


def _lines(plan: Plan, found: Found) -> Iterator[str]:
    yield "# troth bench"
    yield ""
    yield f"{machine()}. {plan.rounds} rounds of {plan.seconds:g} s after {plan.warm_up_s:g} s of the same load, seed "
    yield f"{plan.seed}; the contenders took turns."
    yield ""
    yield from LEGEND.splitlines()
    yield ""
    for name in plan.workloads:
        workload = WORKLOADS[name]
        yield f"- **{name}**: {workload.about} ({workload.participants} participants)"
    yield ""
    yield from _table(COLUMNS, main_rows(found.rows))
    yield ""
    yield "## By process"
    yield ""
    yield from _table(CPU_COLUMNS, cpu_rows(found.rows))
    if found.skipped:
        yield ""
        yield "## Skipped"
        yield ""
        yield from (f"- {line}" for line in skipped(found))


def machine() -> str:
    """What it ran on."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in [columns, ["---"] * len(columns), *rows]:
        yield "| " + " | ".join(cells) + " |"
