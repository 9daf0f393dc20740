"""The cluster of `faults/cluster.py`, and what tests wrap around its processes."""

from __future__ import annotations

import os
from pathlib import Path

from faults.cluster import COORDINATOR, Cluster, Ended, Process, eventually

__all__ = ["COORDINATOR", "Cluster", "Ended", "Process", "eventually"]


def strace(*inject: str, output: Path | None = None) -> list[str]:
    """A wrapper that injects faults into system calls, e.g. `strace("fdatasync:error=EIO:when=3")`. `-D` lets the
    process keep its pid and its signals. What `when` counts are the calls of one thread, not those of the process."""
    calls = ",".join(sorted({rule.split(":")[0] for rule in inject}))
    rules = [argument for rule in inject for argument in ("-e", f"inject={rule}")]
    return ["strace", "-D", "-f", "-qq", "-e", f"trace={calls}", *rules, "-o", str(output or os.devnull)]


def faketime(library: Path, clock: Path) -> dict[str, str]:
    """The environment of a process whose wall clock follows the file `clock`: it holds an offset such as `+0` or `-2h`,
    and is read anew for every look at the clock. Monotonic time goes on as ever."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
