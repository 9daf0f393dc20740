"""`troth chaos` on real processes: clean when nothing is lost, and told when something was changed behind its back."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from faults.chaos import own
from faults.chaos.databases import Place
from faults.chaos.files import audited
from faults.chaos.report import EXIT_CLEAN, EXIT_IN_DOUBT, EXIT_LOST, Report
from faults.chaos.run import Plan, Run
from faults.chaos.schedule import Kind
from faults.chaos.tables import ACCOUNTS, LISTS, TRANSFERS
from faults.servers import Database
from tests.cluster import COORDINATOR, eventually
from tests.moves import NewCluster
from tests.supervised import supervised
from troth.cli.supervisor import Spec
from troth.cli.up import Wanted, choose_participants
from troth.process import EXIT_LOG_FAILED
from troth.words import Outcome

RUN_WITHIN_S = 100


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "troth", "chaos", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_WITHIN_S)


@pytest.mark.timeout(120)
def test_a_run_with_kills_stops_links_and_disks_ends_clean_and_says_what_was_done(tmp_path: Path) -> None:
    data = tmp_path / "data"
    kinds = ["kill", "stop", "cut", "silence", "one-way", "slow"]
    chosen = [argument for kind in kinds for argument in ("--fault", kind)]
    ran = chaos("--for", "10s", "--seed", "5", "--every", "1s", "--in-flight", "16", "--data", str(data), *chosen)
    assert ran.returncode == EXIT_CLEAN, ran.stdout + ran.stderr
    assert "nothing was lost, and nothing is in doubt" in ran.stdout
    found = json.loads((data / "report" / "report.json").read_text())
    assert found["seed"] == 5
    assert found["findings"] == found["left"] == []
    assert found["in_the_end"]["COMMITTED"] > 50
    assert "UNKNOWN" not in found["in_the_end"]
    assert sum(found["faults_by_kind"].values()) >= 3, "how many there is time for depends on the machine"
    assert len(found["faults_by_kind"]) == len(kinds)
    page = (data / "report" / "report.html").read_text()
    assert "<svg" in page
    assert "http" not in page, "nothing is fetched"


@pytest.mark.parametrize("entry", ["chaos", "tools", "cluster.json", "p1.db"])
def test_a_folder_that_holds_anything_is_refused_and_left_as_it_is(tmp_path: Path, entry: str) -> None:
    kept = tmp_path / entry / "kept"
    kept.parent.mkdir()
    kept.write_text("mine")
    ran = chaos("--for", "1s", "--data", str(tmp_path))
    assert ran.returncode == 1
    assert "is not empty" in ran.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("flags", [["--minutes", "nan"], ["--minutes", "inf"], ["--for", "1s", "--every", "1ms"]])
def test_a_load_without_an_end_is_refused(tmp_path: Path, flags: list[str]) -> None:
    ran = chaos(*flags, "--data", str(tmp_path / "chaos"))
    assert (ran.returncode, list(tmp_path.iterdir())) == (2, [])


def test_folders_that_cannot_be_made_are_told_before_the_load(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    no_data = chaos("--for", "1s", "--data", str(tmp_path / "file" / "data"))
    assert (no_data.returncode, no_data.stderr.count("\n")) == (1, 1)
    no_report = chaos("--for", "1h", "--data", str(tmp_path / "data"), "--report", str(tmp_path / "file" / "report"))
    assert no_report.returncode == 2
    assert "the folder of the report cannot be made" in no_report.stderr


# Behind its back.


def tampered(folder: Path, tamper: Callable[[Run], None], wanted: Sequence[Wanted] = ()) -> Report:
    """What is reported of a short quiet run after `tamper` changed a file while nothing ran on it."""

    wanted = wanted or choose_participants(folder, 2, ())

    async def main() -> Report:
        plan = Plan(seed=1, duration_s=1.5, in_flight=8, every_s=1.0, kinds=[], settle_s=30.0)
        async with own.running(folder, wanted) as target:
            run = Run(plan, list(target.participants))
            await run.storm(target)
        tamper(run)
        async with own.running(folder, wanted) as target:
            await run.check(target)
        return Report.of(run, {}, None, [])

    own.made(folder)
    return asyncio.run(main())


def changed(folder: Path, name: str, sql: str, *parameters: object) -> None:
    connection = sqlite3.connect(folder / f"{name}.db")
    with connection:
        assert connection.execute(sql, parameters).rowcount == 1
    connection.close()


def some_transfer(run: Run) -> tuple[str, str]:
    """The id of a committed transfer over two participants, and one of them."""
    transfers = (each for each, outcome in run.load.known() if outcome is Outcome.COMMITTED)
    transfer = next(each for each in transfers if len(each.entries()) == 2)
    return transfer.id, min(transfer.entries())


def test_what_was_changed_behind_its_back_is_told(tmp_path: Path) -> None:
    def tamper(run: Run) -> None:
        id, participant = some_transfer(run)
        changed(tmp_path, participant, f"DELETE FROM {TRANSFERS} WHERE id = ?", id)
        _, account = run.load.bank.accounts[0]
        changed(tmp_path, "p1", f"UPDATE {ACCOUNTS} SET balance = balance + 1 WHERE name = ?", account)
        list_name = next(name for participant, name in sorted(run.load.lists.used, reverse=True))
        changed(tmp_path, "p2", f"UPDATE {LISTS} SET items = items || ',987654321' WHERE name = ?", list_name)

    report = tampered(tmp_path, tamper)
    assert report.exit_code == EXIT_LOST
    assert "SOMETHING IS WRONG" in report.lines()[0]
    assert {finding.kind for finding in report.findings} == {"torn", "wrong balance", "money", "foreign value"}


# Participants at servers.


@pytest.mark.timeout(120)
@pytest.mark.needs_postgresql
def test_a_server_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    ran = chaos(
        *("--for", "15s", "--seed", "2", "--every", "1s", "--in-flight", "16", "--data", str(tmp_path / "data")),
        *("--servers", "postgresql", "--participants", "2", "--fault", "server", "--fault", "cut"),
    )
    assert ran.returncode == EXIT_CLEAN, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "data" / "report" / "report.json").read_text())
    assert found["faults_by_kind"][Kind.SERVER.value] >= 1
    assert "3 files and 1 databases at rest" in ran.stdout


@pytest.mark.timeout(120)
def test_a_database_of_ones_own_is_used_checked_and_left(postgresql_database: Database, tmp_path: Path) -> None:
    """What is changed there behind its back is told, by its rows and by the auditor."""
    database = postgresql_database
    wanted = choose_participants(tmp_path, None, ["p1=sqlite", f"p2=postgresql:{database.dsn}"])

    def tamper(run: Run) -> None:
        id, _ = some_transfer(run)
        database.execute(f"DELETE FROM {TRANSFERS} WHERE id = '{id}'")

    report = tampered(tmp_path / "data", tamper, wanted)
    assert {finding.kind for finding in report.findings} == {"torn"}
    check, doubts = audited(sorted((tmp_path / "data").glob("*.db")), {"p2": Place("postgresql", database.dsn)})
    assert (check.findings, len(doubts)) == ([], 1)
    assert "is gone; its history leaves it there" in doubts[0]
    again = chaos("--for", "1s", "--participant", f"p1=postgresql:{database.dsn}", "--data", str(tmp_path / "again"))
    assert again.returncode == 1
    assert "the postgresql database has tables (chaos_accounts" in again.stderr


def test_servers_are_of_a_cluster_of_its_own(tmp_path: Path) -> None:
    for arguments, told in (
        (["--servers", "postgresql", "--participant", "p1=sqlite"], "give one"),
        (["--servers", "oracle"], "there is no server 'oracle'"),
        (["--servers", "mariadb", "--coordinator", "127.0.0.1:1"], "of a cluster of its own"),
        (["--participant", "p1=postgresql"], "NAME=KIND:DSN"),
        (["--participant", "p1=sqlite", "--participants", "2"], "give one of them"),
    ):
        ran = chaos("--for", "1s", "--data", str(tmp_path / "data"), *arguments)
        assert (ran.returncode, told in ran.stderr) == (2, True), ran.stderr
        assert list(tmp_path.iterdir()) == []


# Ends that no fault explains.


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise SystemExit(1)", ["coordinator ended with exit code 1"]),
        ("os.kill(os.getpid(), signal.SIGSEGV)", ["coordinator killed by SIGSEGV"]),
        ("os.kill(os.getpid(), signal.SIGKILL)", []),
        (f"print('no space', file=sys.stderr); raise SystemExit({EXIT_LOG_FAILED})", []),
    ],
)
def test_an_end_that_no_fault_explains_is_told_once(tmp_path: Path, code: str, told: list[str]) -> None:
    lives = tmp_path / "lives"
    life = f"""
import os, signal, sys, time
with open({str(lives)!r}, "a") as file:
    file.write("life\\n")
print("serving on 127.0.0.1:1", flush=True)
time.sleep(0.1)
{code}
"""
    spec = Spec("coordinator", "coordinator", "127.0.0.1:1", tmp_path / "c.db", [sys.executable, "-c", life])

    async def main() -> list[str]:
        ended: list[str] = []
        async with own._supervised(tmp_path, [spec], ended):
            await asyncio.to_thread(eventually, lambda: lives.read_text().count("life") >= 3, within_s=30.0)
        return ended

    assert asyncio.run(asyncio.wait_for(main(), 60)) == told


# On a cluster that runs already.


@pytest.mark.timeout(120)
def test_a_running_cluster_is_killed_and_checked_and_what_needs_a_start_of_ours_is_said(tmp_path: Path) -> None:
    with supervised(tmp_path, 2, "") as bank:
        ran = chaos(
            *("--cluster", str(bank.data), "--for", "5s", "--seed", "3", "--every", "1s", "--json"),
            *("--in-flight", "8", "--report", str(tmp_path / "report")),
            *("--fault", "kill", "--fault", "cut", "--fault", "full"),
        )
        assert ran.returncode == EXIT_CLEAN, ran.stdout + ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        assert found["faults_by_kind"].keys() == {Kind.KILL.value, Kind.CUT.value}
        assert sum(found["faults_by_kind"].values()) >= 1
        assert "not started by this command" in found["not_applied"][Kind.FULL.value]


@pytest.mark.timeout(120)
def test_a_process_that_nobody_starts_again_is_told_and_is_no_loss(new_cluster: NewCluster) -> None:
    with new_cluster(participants=2) as cluster:
        ran = chaos(
            *("--coordinator", cluster[COORDINATOR].address, "--pid", f"p1={cluster['p1'].pid}", "--fault", "kill"),
            *("--for", "3s", "--settle", "2s", "--in-flight", "4", "--seed", "1"),
            *("--report", str(cluster.folder / "report")),
        )
        assert not cluster["p1"].running
    assert ran.returncode == EXIT_IN_DOUBT, ran.stdout + ran.stderr
    assert "p1 does not serve" in ran.stdout
    assert "not checked: chaos_transfers at p1" in ran.stdout


def test_a_pid_that_is_not_the_processs_own_is_refused(tmp_path: Path) -> None:
    with supervised(tmp_path, 1, "") as bank:
        pids = bank.up.pids()
        ran = chaos("--coordinator", bank.coordinator, "--pid", f"p1={pids['coordinator']}", "--for", "1s")
        assert ran.returncode == 2
        assert f"p1={pids['coordinator']}" in ran.stderr
        ran = chaos("--coordinator", bank.coordinator, "--pid", f"p7={pids['p1']}", "--for", "1s")
        assert ran.returncode == 2
        assert "there is no process 'p7'" in ran.stderr
