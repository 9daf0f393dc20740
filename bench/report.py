"""What a run found, as tables for a terminal and as Markdown."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bench.figures import Row, Spread
from bench.run import Found, Plan
from bench.workloads import WORKLOADS

LEGEND = """\
Medians of the rounds, with (min..max) where they differ most. Everything is forced to disk, and all rows were compared
with what was answered. tx/s are commits, counted from when the first transactions have been answered; latency is the
client's, of commits. Per committed transaction: processor time of all processes, the client's too, in seconds for
1,000; log records that something waited for; fdatasyncs of a contender's own logs; messages between processes, both
ways; what all processes wrote to files, logs and tables together. Commits/fsync is how many transactions a database
server committed for each fsync of its log, over all rounds with their warm-up. Peak memory and aborts are of all
rounds. "-" is what a contender does not tell. postgresql and mariadb have at most 256 transactions open, one for each
connection. bare is not a contender for throughput but a yardstick of latency: the streams and forced writes that a
client waits for, and nothing else, so only its own rows were looked at. Ratios are of the same round, their median and
spread.
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
    cost = ("CPU s/1,000", "forced", "flushes", "commits/fsync", "messages", "written KiB", "peak MiB")
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
    latencies = [wide(row.latency_ms(name)) for name in ("p50", "p99", "max")]
    return [wide(row.tx_per_s), *latencies, str(row.aborted.total()), str(row.unknown)]


def _cost(row: Row) -> list[str]:
    return [
        f"{row.cpu_in_all.median:.3f}",
        *(_median(row.spread(name)) for name in ("forced", "flushes")),
        "-" if row.commits_per_sync is None else f"{row.commits_per_sync:.2f}",
        _median(row.spread("messages")),
        _median(row.spread("written_bytes"), _KIB),
        mib(sum(map(row.peak_bytes, row.processes))),
    ]


def _processes(row: Row) -> Iterator[list[str]]:
    for name in row.processes:
        yield [name, f"{row.cpu(name).median:.3f}", mib(row.peak_bytes(name))]


def mib(size_bytes: int) -> str:
    """In whole MiB."""
    return f"{size_bytes / _MIB:.0f}"


def wide(spread: Spread) -> str:
    """The median, and in brackets the least and the most."""
    digits = max(0, 2 - int(math.log10(max(spread.median, 1))))  # three that matter
    return f"{spread.median:,.{digits}f} ({spread.min:,.{digits}f}..{spread.max:,.{digits}f})"


def _median(spread: Spread | None, unit: int = 1) -> str:
    return "-" if spread is None else f"{spread.median / unit:.2f}"


_TX, _P50 = "tx_per_s", "p50_ms"
_RIVALS = {
    "troth": ("unary", "bare", "postgresql"),
    "troth-postgresql": ("postgresql",),
    "troth-mariadb": ("mariadb",),
}
"""Which contenders each kind of Troth is measured against."""


class Wanted(NamedTuple):
    """What a ratio is to be, at so many in flight and more."""

    bound: str
    ratio: float
    in_flight: int = 1

    def __str__(self) -> str:
        return f"{self.bound} {self.ratio:g}"


_WANTED = {
    ("troth-postgresql", _TX): Wanted("at least", 1.5, in_flight=16),
    ("troth-postgresql", _P50): Wanted("at most", 1.3),
    ("troth-mariadb", _TX): Wanted("at least", 1.0),
}


class Ratio(NamedTuple):
    """How a figure of one contender is to that of another at the same level, round by round."""

    figure: str
    workload: str
    in_flight: int | None
    """None: each at its best level."""
    of: str
    to: str
    spread: Spread

    @property
    def wanted(self) -> Wanted | None:
        """None when nothing is promised of it."""
        wanted = _WANTED.get((self.of, self.figure))
        return wanted if wanted and self.in_flight is not None and self.in_flight >= wanted.in_flight else None

    def __str__(self) -> str:
        where = "at its best" if self.in_flight is None else f"{self.in_flight} in flight"
        figure = {_TX: "tx/s", _P50: "p50"}[self.figure]
        found = self.spread
        return (
            f"{self.workload}, {where}: {figure} {self.of} / {self.to} = "
            f"{found.median:.2f} ({found.min:.2f}..{found.max:.2f})"
            f"{f', wanted {self.wanted}' if self.wanted else ''}"
        )

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "ratio": self.figure,
            "workload": self.workload,
            "in_flight": self.in_flight,
            "of": self.of,
            "to": self.to,
            **{name: round(value, 4) for name, value in self.spread._asdict().items()},
            "wanted": self.wanted and str(self.wanted),
        }


def ratios(rows: Sequence[Row]) -> list[Ratio]:
    """Of Troth's rates to those of its rivals, at each level and at the best one. Of latency, at 1 in flight, to bare's
    and to that of the same servers without Troth."""
    found: list[Ratio] = []
    for workload in dict.fromkeys(row.workload for row in rows):
        by_name: dict[str, list[Row]] = {}
        for row in rows:
            if row.workload == workload:
                by_name.setdefault(row.contender, []).append(row)
        for of, rivals in _RIVALS.items():
            for to in rivals:
                found += _ratios(workload, by_name.get(of, []), by_name.get(to, []))
    return found


def _ratios(workload: str, ours: Sequence[Row], theirs: Sequence[Row]) -> Iterator[Ratio]:
    """Of one pair of contenders."""
    pairs = [(us, them) for us in ours for them in theirs if us.in_flight == them.in_flight]
    for us, them in pairs:
        for figure in _figures(us, them):
            yield Ratio(figure, workload, us.in_flight, us.contender, them.contender, _ratio(figure, us, them))
    if len(pairs) > 1 and theirs[0].contender != "bare":
        us, them = _best(ours), _best(theirs)
        yield Ratio(_TX, workload, None, us.contender, them.contender, _ratio(_TX, us, them))


def _figures(us: Row, them: Row) -> list[str]:
    latency = [_P50] if us.in_flight == 1 and (them.contender == "bare" or us.contender != "troth") else []
    return latency if them.contender == "bare" else [_TX, *latency]


def _best(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda row: row.tx_per_s.median)


def _ratio(figure: str, ours: Row, theirs: Row) -> Spread:
    pairs = zip(ours.rounds, theirs.rounds, strict=True)
    return Spread.of([getattr(us, figure) / getattr(them, figure) for us, them in pairs])


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
    if found_ratios := ratios(found.rows):
        yield "## Ratios"
        yield ""
        yield from (f"- {ratio}" for ratio in found_ratios)
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
