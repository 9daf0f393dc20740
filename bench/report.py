"""What a run found, as tables for a terminal and as Markdown."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.figures import Row, Spread
from bench.run import Found, Plan
from bench.workloads import WORKLOADS

LEGEND = """\
Medians of the rounds, with (min..max) where they differ most. Everything is forced to disk, and all rows were compared
with what was answered. tx/s are commits, counted from when the first transactions have been answered; latency is the
client's, of commits. Per committed transaction: processor time of all processes, the client's too, in seconds for
1,000; log records that something waited for; fdatasyncs of logs; messages between processes, both ways; what all
processes wrote to files, logs and tables together. Peak memory and aborts are of all rounds. "-" is what a contender
does not tell. postgresql has at most 256 transactions open, one for each connection.
"""
_KIB, _MIB = 1024, 1024 * 1024
_WHO = ("workload", "in flight", "contender")


class Table(NamedTuple):
    """One of those that a run ends with."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]


def tables(rows: Sequence[Row]) -> list[Table]:
    """All of them."""
    speed = ("tx/s", "p50 ms", "p99 ms", "max ms", "aborted", "unknown")
    cost = ("CPU s/1,000", "forced", "flushes", "messages", "written KiB", "peak MiB")
    return [
        Table("Speed", (*_WHO, *speed), [[*_who(row), *_speed(row)] for row in rows]),
        Table("Cost", (*_WHO, *cost), [[*_who(row), *_cost(row)] for row in rows]),
        Table(
            "Cost of each process",
            (*_WHO, "process", "CPU s/1,000", "peak MiB"),
            [[*_who(row), *cells] for row in rows for cells in _processes(row)],
        ),
    ]


def _who(row: Row) -> list[str]:
    return [row.workload, str(row.in_flight), row.contender]


def _speed(row: Row) -> list[str]:
    latencies = [_wide(row.latency_ms(name)) for name in ("p50", "p99", "max")]
    return [_wide(row.tx_per_s), *latencies, str(row.aborted.total()), str(row.unknown)]


def _cost(row: Row) -> list[str]:
    return [
        f"{row.cpu_in_all.median:.3f}",
        *(_median(row.spread(name)) for name in ("forced", "flushes", "messages")),
        _median(row.spread("written_bytes"), _KIB),
        _mib(sum(map(row.peak_bytes, row.processes))),
    ]


def _processes(row: Row) -> Iterator[list[str]]:
    for name in row.processes:
        yield [name, f"{row.cpu(name).median:.3f}", _mib(row.peak_bytes(name))]


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.0f}"


def _wide(spread: Spread) -> str:
    digits = max(0, 2 - int(math.log10(max(spread.median, 1))))  # three that matter
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
    yield f"{machine()}. Each contender had {plan.rounds} turns of {plan.seconds:g} s, each after"
    yield f"{plan.warm_up_s:g} s of the same load; seed {plan.seed}."
    yield ""
    yield from LEGEND.splitlines()
    yield ""
    for name in plan.workloads:
        workload = WORKLOADS[name]
        yield f"- **{name}**: {workload.about} ({workload.participants} participants)"
    yield ""
    for table in tables(found.rows) if found.rows else ():
        yield f"## {table.title}"
        yield ""
        yield from _table(table.columns, table.rows)
        yield ""
    if found.skipped:
        yield "## Skipped"
        yield ""
        yield from (f"- {line}" for line in skipped(found))


def machine() -> str:
    """What it ran on."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in [columns, ["---"] * len(columns), *rows]:
        yield "| " + " | ".join(cells) + " |"
