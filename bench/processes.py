"""What processes cost, as the kernel counts it: read from /proc, for a process alone or with all its children."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_FORGET_PEAK = "5"
"""proc(5), clear_refs: the peak of resident memory begins anew at what is resident now."""


class Usage(NamedTuple):
    """Since the process began; `peak_bytes` since `forget_peak`."""

    cpu_s: float
    """User and system, with the children that have ended."""
    written_bytes: int | None
    """What it wrote to files, as it handed it to the kernel (`wchar`: sockets that are sent to are not in it). None
    where the kernel does not tell us. What went to disks is not known so well: the kernel's `write_bytes` counts
    256 KiB for 8 KiB, when those lie in a folio of that size."""
    peak_bytes: int
    """The most that was resident. Of children without what is shared memory or comes from files, which is counted with
    the first; what a child has from its parent and has not changed counts with both."""


def usage(pid: int, *, alone: bool = False) -> Usage:
    """Of a process and its children, or of it alone. One that has ended used nothing."""
    pids = [pid] if alone else list(tree(pid))
    written = [_written_bytes(each) for each in pids]
    return Usage(
        cpu_s=sum(_cpu_s(each, with_ended=not alone) for each in pids),
        written_bytes=None if None in written else sum(each or 0 for each in written),
        peak_bytes=sum(_peak_bytes(each, shared=each == pid) for each in pids),
    )


def tree(pid: int) -> Iterator[int]:
    """A process and all its children that run."""
    yield pid
    for child in _read(pid, f"task/{pid}/children").split():
        yield from tree(int(child))


def forget_peak(pid: int, *, alone: bool = False) -> None:
    """Begins the peaks of memory anew, where the kernel lets us: otherwise a peak is that of a whole life."""
    for each in [pid] if alone else tree(pid):
        try:
            Path(f"/proc/{each}/clear_refs").write_text(_FORGET_PEAK)
        except OSError:
            return


def resident_bytes(pid: int) -> int:
    """What is resident of one process now; 0 of one that has ended."""
    sizes = dict(line.split(":", 1) for line in _read(pid, "status").splitlines())
    return 1024 * int(sizes.get("VmRSS", "0 kB").split()[0])


def _cpu_s(pid: int, *, with_ended: bool) -> float:
    """The larger of what the kernel says in ticks of 10 ms, rounded down (which is much, for hundreds of processes that
    do little each), and what it says in nanoseconds, but only of threads that still run."""
    _, _, text = _read(pid, "stat").rpartition(") ")
    utime, stime, cutime, cstime = map(int, text.split()[11:15] or (0, 0, 0, 0))
    exact_s = sum(_nanoseconds(_read(pid, f"task/{thread}/schedstat")) for thread in _threads(pid)) / 1e9
    return max((utime + stime) / _TICKS_PER_S, exact_s) + (cutime + cstime) / _TICKS_PER_S * with_ended


def _nanoseconds(schedstat: str) -> int:
    """On a processor; 0 of a thread that has ended, and where the kernel does not count it."""
    return int(schedstat.split()[0]) if schedstat else 0


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []


def _written_bytes(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except PermissionError:
        return None
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(dict(line.split(": ") for line in text.splitlines())["wchar"])


def _peak_bytes(pid: int, *, shared: bool) -> int:
    pairs = (line.split(":", 1) for line in _read(pid, "status").splitlines())
    kib = {name: int(value.split()[0]) for name, value in pairs if name in ("VmHWM", "RssFile", "RssShmem")}
    if not kib:
        return 0
    return 1024 * (kib["VmHWM"] if shared else max(0, kib["VmHWM"] - kib["RssFile"] - kib["RssShmem"]))


def _read(pid: int, name: str) -> str:
    """The text; empty when the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
