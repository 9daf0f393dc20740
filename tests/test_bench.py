"""`troth bench compare` on real processes: short runs that are measured and verified, and what it refuses and skips."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import contender, plot, processes, report
from bench.figures import Figures, Row
from bench.run import Found, Plan, Skip
from troth.cli import main

RUN_WITHIN_S = 90
SHORT = ("--seconds", "0.3", "--warm-up", "0.1", "--rounds", "1", "--in-flight", "4")
PLAN = Plan(["transfer"], [4], ["troth"], rounds=1, seconds=0.3, warm_up_s=0.1, seed=1)


def bench(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "troth", "bench", *arguments]
    env = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_WITHIN_S, env=env)


def measured(*arguments: str) -> dict[str, dict[str, Any]]:
    """The rows of a run that ended well, by contender."""
    ran = bench(*SHORT, "--json", *arguments)
    assert ran.returncode == 0, ran.stderr
    rows = map(json.loads, ran.stdout.splitlines())
    return {row.get("contender") or f"to {row['to']}": row for row in rows}


# Runs.


def test_a_short_run_is_measured_and_verified(tmp_path: Path) -> None:
    picture, page = tmp_path / "bench.svg", tmp_path / "bench.md"
    chosen = ("--contender", "troth", "--contender", "unary", "--plot", str(picture), "--report", str(page))
    found = measured(*chosen)
    assert list(found) == ["troth", "unary", "to unary"]
    ratio = found.pop("to unary")
    rates = [found[name]["tx_per_s"]["median"] for name in ("troth", "unary")]
    assert (ratio["ratio"], ratio["in_flight"]) == ("tx_per_s", 4)
    assert ratio["median"] == pytest.approx(rates[0] / rates[1], abs=0.001)
    assert "- transfer, 4 in flight: tx/s troth / unary = " in page.read_text()
    for row in found.values():
        assert (row["workload"], row["in_flight"], row["unknown"]) == ("transfer", 4, 0)
        assert row["committed"] > 0
        assert row["tx_per_s"]["min"] <= row["tx_per_s"]["median"] <= row["tx_per_s"]["max"]
        assert 0 < row["p50_ms"]["median"] <= row["p99_ms"]["median"] <= row["max_ms"]["median"]
        assert set(row["cpu_s_per_1000"]) == set(row["peak_bytes"]) == {"client", "coordinator", "p1", "p2"}
        assert row["forced"]["median"] == pytest.approx(5, rel=0.1), "a decision, and twice prepared and committed"
        assert row["messages"]["median"] == pytest.approx(8, rel=0.1)
        assert row["written_bytes"]["median"] > 0
    assert found["troth"]["flushes"]["median"] > 0
    xml.etree.ElementTree.fromstring(picture.read_text())
    assert all(name in picture.read_text() for name in ("transfer", "troth", "unary"))
    assert "| transfer | 4 | unary |" in page.read_text()


def test_a_table_says_the_same_for_people_and_progress_is_apart() -> None:
    ran = bench(*SHORT, "--contender", "unary", "--workload", "single", "--workload", "order")
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert ["single", "4", "unary"] in [line[:3] for line in lines]
    assert ["order", "4", "unary", "p3"] in [line[:4] for line in lines]
    assert "order, 4 in flight, round 1 of 1: unary" in ran.stderr
    assert "round 1" not in ran.stdout


@pytest.mark.parametrize("name", ["read-mostly", "hot-row", "contended", "large"])
def test_troth_does_what_the_other_workloads_ask(name: str) -> None:
    row = measured("--contender", "troth", "--workload", name)["troth"]
    assert row["workload"] == name
    assert row["committed"] > 0


@pytest.mark.needs_postgresql
@pytest.mark.parametrize("name", ["transfer", "contended", "single", "large", "read-mostly"])
def test_two_servers_of_postgresql_are_measured_and_verified(name: str) -> None:
    row = measured("--contender", "postgresql", "--workload", name)["postgresql"]
    assert row["committed"] > 0
    servers = {"server 1"} if name == "single" else {"server 1", "server 2"}
    assert set(row["cpu_s_per_1000"]) == {"client", *servers}
    if name == "transfer":
        assert row["messages"]["median"] == 16


def test_the_bare_cost_is_the_yardstick_of_latency_at_one_in_flight() -> None:
    found = measured("--contender", "troth", "--contender", "bare", "--in-flight", "1")  # beside 4
    assert found["bare"]["forced"]["median"] == 3
    assert found["to bare"]["ratio"] == "p50_ms"
    assert found["to bare"]["in_flight"] == 1
    assert found["to bare"]["median"] > 0


def test_the_bare_cost_is_measured_elsewhere_only_when_it_is_named() -> None:
    kind = contender.contender("bare")
    unnamed = Plan(["transfer"], [1, 4], ["bare"], rounds=1, seconds=0.3, warm_up_s=0.1, seed=1)
    assert unnamed.levels("transfer", kind) == [1]
    assert replace(unnamed, named=True).levels("transfer", kind) == [1, 4]
    assert replace(unnamed, in_flight=[]).levels("order", kind) == []
    assert unnamed.levels("transfer", contender.contender("troth")) == [1, 4]


# What is skipped and refused.


def test_a_contender_that_is_missing_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "bench.on_postgresql", raising=False)
    ran = CliRunner().invoke(main, ["bench", "--contender", "postgresql", "--report", str(tmp_path / "bench.md")])
    reason = "psycopg is not installed (pip install 'troth[bench]')"
    assert ran.exit_code == 0
    assert f"all workloads: postgresql was skipped: {reason}" in ran.stdout
    assert f"postgresql was skipped: {reason}" in (tmp_path / "bench.md").read_text()
    ran = CliRunner().invoke(main, ["bench", "--contender", "postgresql", "--json"])
    assert json.loads(ran.stdout) == {"contender": "postgresql", "workload": None, "skipped": reason}


def test_a_driver_without_its_library_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("no pq wrapper available.\nAttempts made: none")

    monkeypatch.setattr(contender, "contender", broken)
    assert contender.lacking("postgresql") == "no pq wrapper available. Attempts made: none"


@pytest.mark.needs_postgresql
def test_a_workload_that_a_contender_cannot_do_is_named_with_its_reason() -> None:
    ran = bench(*SHORT, "--json", "--contender", "postgresql", "--workload", "wide")
    assert ran.returncode == 0
    reason = "it has 2 servers, and 8 participants are needed"
    assert json.loads(ran.stdout) == {"contender": "postgresql", "workload": "wide", "skipped": reason}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workload", "nothing"],
        ["--contender", "nobody"],
        ["--in-flight", "0"],
        ["--rounds", "0"],
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--warm-up", "inf"],
        ["--plot", "missing/bench.svg"],
        ["--report", "missing/bench.md"],
    ],
)
def test_bad_usage_is_told_before_anything_is_started(arguments: list[str]) -> None:
    ran = CliRunner().invoke(main, ["bench", *arguments])
    assert ran.exit_code == 2
    assert "starting" not in ran.output


# What goes wrong.


def test_rows_that_are_not_what_was_answered_are_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = contender.contender("unary")
    found = kind.rows

    async def tampered(self: Any, participant: int) -> Any:
        rows = await found(self, participant)
        return rows._replace(accounts={**rows.accounts, 0: 0})

    monkeypatch.setattr(kind, "rows", tampered)
    ran = CliRunner().invoke(main, ["bench", *SHORT, "--contender", "unary"])
    assert ran.exit_code == 1
    assert "unary: the rows are not what was answered: accounts at p1: the sum is" in ran.stderr


def test_a_process_that_dies_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = contender.contender("unary")
    run = kind.run

    async def killing(self: Any, *arguments: Any) -> None:
        self._running.by_name["p2"].signal(9)
        self._running.by_name["p2"].wait()
        await run(self, *arguments)

    monkeypatch.setattr(kind, "run", killing)
    ran = CliRunner().invoke(main, ["bench", *SHORT, "--contender", "unary"])
    assert ran.exit_code == 1
    assert "unary: ended by itself: p2" in ran.stderr


def test_a_contender_that_does_not_start_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.children.addresses.free_ports", lambda count: [1] * count)
    monkeypatch.setattr("bench.children.sys.executable", "/bin/false")
    ran = CliRunner().invoke(main, ["bench", *SHORT, "--contender", "unary"])
    assert ran.exit_code == 1
    assert "unary did not start: coordinator ended with 1 before it served" in ran.stderr


def test_a_run_that_is_stopped_ends_what_it_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "troth", "bench", "--in-flight", "4", "--seconds", "60"]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*command, "--contender", "troth", "--contender", "unary"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=env,
    ) as child:
        assert child.stderr is not None
        child.stderr.readline()
        time.sleep(1.0)
        child.terminate()
        assert child.wait(RUN_WITHIN_S) == 130
    assert list(tmp_path.iterdir()) == []
    assert processes_with(str(tmp_path)) == []


def processes_with(text: str) -> list[str]:
    """Command lines that have it in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(path.read_text().replace("\0", " "))
    return [line for line in found if text in line]


# Pieces.


def test_what_a_process_uses_is_counted_with_its_children(tmp_path: Path) -> None:
    busy = "import sys, os; sum(range(3_000_000)); open(sys.argv[1], 'wb').write(bytes(100_000)); print(); input()"
    shell = f'{sys.executable} -c "{busy}" {tmp_path / "file"}; true'
    with subprocess.Popen(["sh", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert len(list(processes.tree(child.pid))) == 2
        whole, alone = processes.usage(child.pid), processes.usage(child.pid, alone=True)
        child.communicate(b"\n")
    assert whole.cpu_s > alone.cpu_s
    assert whole.peak_bytes > alone.peak_bytes > 0
    assert whole.written_bytes is None or whole.written_bytes >= 100_000
    assert processes.usage(child.pid) == (0.0, 0, 0)


def figures(tx_per_s: float) -> Figures:
    return Figures(
        tx_per_s, 1.0, 2.0, 3.0, 10, {"lock timeout": 2}, 0, {"client": 0.5}, None, {"client": 1024}, 1, 1, None
    )


def test_rounds_become_a_median_with_its_spread_and_what_is_not_known_a_dash() -> None:
    row = Row("transfer", 4, "troth", [figures(100.0), figures(300.0), figures(200.0)])
    assert row.spread("written_bytes") is None
    told: dict[str, str] = {}
    for table in report.tables([row]):
        (cells,) = table.rows
        told |= zip(table.columns, cells, strict=True)
    assert told["tx/s"] == "200 (100..300)"
    assert (told["written KiB"], told["messages"], told["commits/fsync"], told["aborted"]) == ("-", "-", "-", "6")
    page = report.markdown(PLAN, Found([row], [Skip("unary", None, "it is tired")]))
    assert "- all workloads: unary was skipped: it is tired" in page


def test_one_level_with_nothing_in_it_can_be_drawn() -> None:
    picture = plot.svg([Row("transfer", 1, "troth", [figures(0.0)])])
    xml.etree.ElementTree.fromstring(picture)
