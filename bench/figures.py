"""One measurement in figures, and several rounds of it as medians with their spread."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench.contender import Counts
from bench.load import Load
from bench.processes import Usage

CLIENT = "client"
"""This process, which is one of those that are measured."""


class Spread(NamedTuple):
    """Of several rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, found: Sequence[float]) -> Spread:
        return cls(statistics.median(found), min(found), max(found))


@dataclass(frozen=True)
class Figures:
    """Of one measurement. What is per transaction is per committed one; None is what cannot be known."""

    tx_per_s: float
    """Commits, as `Load.tx_per_s` counts them."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    committed: int
    aborted: Mapping[str, int]
    """By reason."""
    unknown: int
    cpu_s_per_1000: Mapping[str, float]
    """Processor time of each process."""
    written_bytes: float | None
    """Per transaction: what all processes together wrote to files."""
    peak_bytes: Mapping[str, int]
    """Most resident memory of each process."""
    forced: float | None
    flushes: float | None
    messages: float | None

    @classmethod
    def of(cls, load: Load, used: Mapping[str, Usage], counts: Counts) -> Figures:
        """`used` is by process, and like `counts` of this measurement alone; something was committed."""
        count = len(load.committed)
        latencies_s = sorted(load.latencies_s)
        written = [usage.written_bytes for usage in used.values()]
        return cls(
            tx_per_s=load.tx_per_s,
            p50_ms=1000 * latencies_s[count // 2],
            p99_ms=1000 * latencies_s[count * 99 // 100],
            max_ms=1000 * latencies_s[-1],
            committed=count,
            aborted=dict(load.aborted),
            unknown=len(load.unknown),
            cpu_s_per_1000={name: 1000 * usage.cpu_s / count for name, usage in used.items()},
            written_bytes=None if None in written else sum(each or 0 for each in written) / count,
            peak_bytes={name: usage.peak_bytes for name, usage in used.items()},
            **{name: None if found is None else found / count for name, found in counts._asdict().items()},
        )


_SPREADS = ("tx_per_s", "p50_ms", "p99_ms", "max_ms", "written_bytes", "forced", "flushes", "messages")


@dataclass
class Row:
    """One contender at one level of one workload, in all rounds."""

    workload: str
    in_flight: int
    contender: str
    rounds: list[Figures] = field(default_factory=list)
    commits_per_sync: float | None = None
    """At each of its database servers, over all rounds with their warm-up: transactions for an fsync of its log."""

    def spread(self, name: str) -> Spread | None:
        """Of a figure by its name; None when it is not known."""
        found = [getattr(each, name) for each in self.rounds]
        return None if None in found else Spread.of(found)

    @property
    def tx_per_s(self) -> Spread:
        return Spread.of([each.tx_per_s for each in self.rounds])

    def latency_ms(self, which: str) -> Spread:
        """`p50`, `p99` or `max`."""
        return Spread.of([getattr(each, f"{which}_ms") for each in self.rounds])

    @property
    def processes(self) -> list[str]:
        return list(self.rounds[0].cpu_s_per_1000)

    def cpu(self, process: str) -> Spread:
        """Seconds per 1,000 transactions."""
        return Spread.of([each.cpu_s_per_1000[process] for each in self.rounds])

    @property
    def cpu_in_all(self) -> Spread:
        return Spread.of([sum(each.cpu_s_per_1000.values()) for each in self.rounds])

    def peak_bytes(self, process: str) -> int:
        """In any round."""
        return max(each.peak_bytes[process] for each in self.rounds)

    @property
    def aborted(self) -> Counter[str]:
        """By reason, in all rounds."""
        return sum((Counter(each.aborted) for each in self.rounds), Counter())

    @property
    def unknown(self) -> int:
        """In all rounds."""
        return sum(each.unknown for each in self.rounds)

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        spreads = {name: self.spread(name) for name in _SPREADS}
        return {
            "workload": self.workload,
            "in_flight": self.in_flight,
            "contender": self.contender,
            "rounds": len(self.rounds),
            "committed": sum(each.committed for each in self.rounds),
            "aborted": dict(self.aborted),
            "unknown": self.unknown,
            **{name: plain(spread) for name, spread in spreads.items()},
            "commits_per_sync": self.commits_per_sync and round(self.commits_per_sync, 6),
            "cpu_s_per_1000": {name: plain(self.cpu(name)) for name in self.processes},
            "cpu_s_per_1000_in_all": plain(self.cpu_in_all),
            "peak_bytes": {name: self.peak_bytes(name) for name in self.processes},
        }


def plain(spread: Spread | None) -> dict[str, float] | None:
    """For JSON."""
    return None if spread is None else {name: round(value, 6) for name, value in spread._asdict().items()}
