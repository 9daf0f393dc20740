"""What a log file holds after a process died, a sync failed or the disk was full (DESIGN section 4; TRAPS "SQLite")."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.log_child import open_rows
from tests.log_helpers import ROOT, WAIT_S, command

needs_strace = pytest.mark.needs_strace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty log, closed: what a process does on opening it does not touch the write-ahead log."""
    path = tmp_path / "p1.db"
    open_rows(path).close()
    return path


def traced(what: str, path: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs a child under strace; its result, and the lines of the trace."""
    trace = path.with_suffix(".trace")
    run = subprocess.run(
        ["strace", "-f", "-qq", "-y", "-o", str(trace), *options, *command(what, path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    return run, trace.read_text().splitlines()


def on_wal(path: Path, syscall: str, fault: str) -> list[str]:
    """Options of strace: `fault` at calls on the write-ahead log only. Calls are counted for each thread."""
    return ["-P", f"{path}-wal", "-e", f"trace={syscall}", "-e", f"inject={syscall}:{fault}"]


def calls_before_second_flush(path: Path, tmp_path: Path, syscall: str) -> int:
    """How often the writer thread makes that call on the write-ahead log until the first flush is told."""
    probe = tmp_path / "probe.db"
    open_rows(probe).close()
    _, lines = traced("append", probe, "-e", f"trace={syscall},write")
    told = next(i for i, line in enumerate(lines) if '"flushed 1' in line)
    return sum(f"{syscall}(" in line and "-wal>" in line for line in lines[:told])


def believed(path: Path) -> list[int]:
    file = open_rows(path)
    rows = [n for (n,) in file.connection.execute("SELECT n FROM troth_rows ORDER BY n")]
    assert file.durable == len(rows)
    file.close()
    return rows


@needs_strace
def test_each_flush_is_one_fdatasync(path: Path) -> None:
    run, lines = traced("stamps", path, "-e", "trace=fdatasync,fsync,write")
    begin, end = (next(i for i, line in enumerate(lines) if f'"{word}' in line) for word in ("begin", "end"))
    syncs = [line for line in lines[begin:end] if "sync(" in line]
    assert len(syncs) == 20
    assert all("-wal>" in line for line in syncs)
    assert run.stdout.splitlines() == ["begin", "end 20"]


@needs_strace
def test_a_failed_fdatasync_is_unknown_and_the_truth_comes_with_the_next_open(path: Path, tmp_path: Path) -> None:
    """The process that got EIO would see a rollback, the next one sees the row: the first tells nothing and stops."""
    nth = calls_before_second_flush(path, tmp_path, "fdatasync") + 1
    run, _ = traced("append", path, *on_wal(path, "fdatasync", f"error=EIO:when={nth}"))
    first, second = run.stdout.splitlines()
    assert first == "flushed 1"
    assert re.match(r"failed .*p1.db: .*disk I/O error; what was being written is unknown", second)
    assert run.returncode == 70
    assert believed(path) == [1, 2]


@needs_strace
def test_a_commit_killed_before_its_fdatasync_is_on_disk_before_it_is_believed(path: Path, tmp_path: Path) -> None:
    nth = calls_before_second_flush(path, tmp_path, "fdatasync") + 1
    run, _ = traced("append", path, *on_wal(path, "fdatasync", f"signal=SIGKILL:when={nth}"))
    assert run.stdout.splitlines() == ["flushed 1"]

    run, lines = traced("believe", path, "-e", "trace=fdatasync,fsync,write")
    assert run.stdout.splitlines() == ["believed [1, 2]"]
    told = next(i for i, line in enumerate(lines) if '"believed' in line)
    synced = [line for line in lines[:told] if "sync(" in line]
    assert any("p1.db-wal>" in line for line in synced)
    assert any("p1.db>" in line for line in synced)


@needs_strace
def test_a_full_disk_is_said_clearly_tells_nothing_and_the_file_serves_again_with_space(
    path: Path, tmp_path: Path
) -> None:
    nth = calls_before_second_flush(path, tmp_path, "pwrite64") + 1
    run, _ = traced("append", path, *on_wal(path, "pwrite64", f"error=ENOSPC:when={nth}+"))
    first, second = run.stdout.splitlines()
    assert first == "flushed 1"
    assert re.match(r"failed .*p1.db: no space left on the disk; what was being written is unknown", second)
    assert run.returncode == 70
    assert believed(path) == [1]


@needs_strace
def test_a_file_is_not_made_by_halves_on_a_full_disk(tmp_path: Path) -> None:
    """The creating transaction fails: the next open finds nothing in the file and makes it."""
    path = tmp_path / "p1.db"
    run, _ = traced("append", path, *on_wal(path, "pwrite64", "error=ENOSPC:when=3+"))
    assert run.returncode == 1
    assert "no space left on the disk" in run.stderr
    file = open_rows(path)
    assert file.created
    file.close()


@pytest.mark.parametrize("flushes", [1, 20])
def test_after_kill_9_under_load_everything_told_is_there_and_nothing_out_of_order(path: Path, flushes: int) -> None:
    with subprocess.Popen(command("load", path), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(flushes)]
        process.kill()
        lines += process.stdout.readlines()
    told = [int(line.split()[1]) for line in lines if line.endswith("\n")]
    rows = believed(path)
    assert rows == list(range(1, len(rows) + 1))
    assert len(rows) >= told[-1]
