"""`troth check-participant` as people run it: what it prints, its exit codes, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from faults.conformance import work
from faults.conformance.check import CHECKS
from faults.conformance.cli import command
from faults.servers import Database
from tests.broken import LANES_ONLY
from tests.broken_participants import NAME, Forked
from tests.cluster import eventually
from troth.process import addresses

NAMES_SCHEMA = "CREATE TABLE names (name TEXT PRIMARY KEY NOT NULL, visits INTEGER NOT NULL, city TEXT NOT NULL);"
QUICK = ("--yes", "--within", "3s", "--quiet", "20ms")


@contextmanager
def served(folder: Path, schema: str = work.SCHEMA, way: str | None = None) -> Iterator[Forked]:
    participant = Forked(folder, schema, way)
    participant.start()
    try:
        yield participant
    finally:
        participant.close()


def check(*arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, *QUICK])


def found(result: Result) -> dict[str, dict[str, str]]:
    """The findings by name, of `--json`."""
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line["check"]: line for line in lines if "check" in line}


def test_a_table_of_findings_and_its_exit_code(tmp_path: Path) -> None:
    with served(tmp_path) as participant:
        result = check(participant.address, "--only", "rule 9", "--only", "rule 13")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    rules = [int(match[1]) for line in lines if (match := re.match(r"rule (\d+) ", line))]
    assert rules == sorted(rules)
    assert {8, 9, 13} == set(rules), "rule 8: nothing is left"
    assert re.search(r"^rule 9 +holds +read-only-keeps-its-locks +A READ_ONLY voter keeps", result.stdout, re.MULTILINE)
    assert re.search(r"^rule 9 +not checked +read-only-leaves-nothing +nobody said how", result.stdout, re.MULTILINE)
    assert re.fullmatch(r"\d+ holds, 0 violated, \d+ not checked", lines[-1])


def test_a_violation_is_told_with_what_was_expected_and_seen(tmp_path: Path) -> None:
    name = "a-prepared-peer-says-nothing"
    with served(tmp_path, way="says ABORTED to a peer while it is prepared") as participant:
        plain = check(participant.address, "--only", name)
        as_json = check(participant.address, "--only", name, "--json")
    assert (plain.exit_code, as_json.exit_code) == (1, 1)
    assert "Expected no answer to a peer; seen: ABORTED" in plain.stdout
    assert found(as_json)[name] == {
        "check": name,
        "rule": "rule 6",
        "requires": "A prepared peer says nothing.",
        "result": "violated",
        "expected": "no answer to a peer",
        "seen": "ABORTED",
    }
    assert json.loads(as_json.stdout.splitlines()[-1]) == {"holds": 1, "violated": 1, "not_checked": 0}


def test_a_participant_that_offers_lanes_only_is_checked_with_given_operations(tmp_path: Path) -> None:
    """What it does not offer is not checked, and no violation."""
    given = ["--writes", f"upsert {work.TABLE}/1 n:=1", "--writes", f"upsert {work.TABLE}/1 n:=2"]
    read = {"read": {"table": work.TABLE, "key": 1}}
    refused = ["--refused", f"add {work.TABLE}/1 n -1000 min=0"]
    with served(tmp_path, way=LANES_ONLY) as participant:
        nameless = check(participant.address, *given, "--reads", json.dumps(read))
        tableless = check(participant.address, "--name", NAME)
        result = check(participant.address, "--name", NAME, *given, "--reads", json.dumps(read), *refused, "--json")
    assert (nameless.exit_code, tableless.exit_code) == (2, 2)
    assert "does not say its name" in nameless.stderr
    assert "--writes and --reads" in tableless.stderr
    findings = found(result)
    assert {name for name, finding in findings.items() if finding["result"] == "violated"} == set()
    assert findings["a-torn-branch-says-so"]["why"] == "it does not offer ResolveBranch"
    assert findings["no-has-a-reason-and-leaves-nothing"]["result"] == "holds"
    assert findings["adds-go-together"]["result"] == "not checked"
    assert result.exit_code == 0


def test_a_table_of_the_users_own(tmp_path: Path) -> None:
    with served(tmp_path, NAMES_SCHEMA) as participant:
        result = check(participant.address, "--table", "names", "--only", "locks", "--json")
        bad = check(participant.address, "--table", "nowhere")
        rows = participant.rows("names")
    findings = found(result)
    assert result.exit_code == 0, result.output
    assert findings["two-names-are-one-lock"]["result"] == "holds"
    assert findings["a-unique-value-is-locked"]["why"] == "the tables of --print-schema are not there"
    assert rows == []
    assert bad.exit_code == 2
    assert "serves no table 'nowhere'" in bad.stderr


def test_a_table_is_made_where_none_is_named(tmp_path: Path) -> None:
    with served(tmp_path, NAMES_SCHEMA) as participant:
        result = check(participant.address, "--only", "a-writer-waits-for-a-writer")
        assert result.exit_code == 0, result.output
        assert participant.rows(work.TABLE) == []


def test_it_starts_and_kills_a_real_participant(tmp_path: Path) -> None:
    """With --start, and with --pid for one that runs already; what it started is killed in the end."""
    address = f"127.0.0.1:{addresses.free_ports(1)[0]}"
    serve = f"{sys.executable} -m troth participant --name {NAME} --data {tmp_path}/p.db --listen {address}"
    with subprocess.Popen(serve.split(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as first:
        assert first.stdout is not None
        first.stdout.readline()
        start = f"exec {serve} 2>>{tmp_path}/log"
        result = check(address, "--pid", str(first.pid), "--start", start, "--only", "locks-are-taken-again", "--json")
        assert first.wait() == -signal.SIGKILL
    assert found(result)["locks-are-taken-again"]["result"] == "holds", result.output
    again = check(address, "--start", start, "--only", "another-life-is-another-incarnation", "--json")
    assert found(again)["another-life-is-another-incarnation"]["result"] == "holds", again.output
    assert addresses.is_free(addresses.parse(address))


def test_a_real_participant_whose_data_are_at_a_server(server_database: Database, tmp_path: Path) -> None:
    kind = server_database.server.name
    address = f"127.0.0.1:{addresses.free_ports(1)[0]}"
    where = f"--data {tmp_path}/p.db --listen {address} --resource {kind} --dsn {server_database.dsn}"
    start = f"exec {sys.executable} -m troth participant --name {NAME} {where} 2>>{tmp_path}/log"
    arguments = (address, "--start", start, "--json", "--only", "locks-are-taken-again")
    tableless = check(address, "--start", start)
    assert tableless.exit_code == 2
    assert f"tables of {kind} are made at the server" in tableless.stderr
    for statement in work.SCHEMA.split(";")[:-1]:
        server_database.execute(statement)
    result = check(*arguments)
    assert {name: finding["result"] for name, finding in found(result).items()} == {
        "locks-are-taken-again": "holds",
        "nothing-is-left": "holds",
    }, result.output
    assert server_database.execute(f"SELECT * FROM {work.TABLE}") == server_database.prepared() == []


def test_a_restart_command_that_fails_is_not_checked(tmp_path: Path) -> None:
    with served(tmp_path) as participant:
        result = check(participant.address, "--restart", "echo no such thing >&2; exit 3", "--only", "locks", "--json")
    finding = found(result)["locks-are-taken-again"]
    assert (finding["result"], "no such thing" in finding["why"]) == ("not checked", True)


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    """It says what was found so far, and ends what was begun."""
    with served(tmp_path) as participant:
        check(participant.address, "--only", "rule 5")
        arguments = [participant.address, "--yes", "--only", "locks", "--quiet", "20ms"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            [sys.executable, "-m", "troth", "check-participant", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as checking:
            eventually(lambda: participant.rows("troth_prepared"), "a branch is prepared", 30)
            checking.send_signal(signal.SIGINT)
            output, errors = checking.communicate(timeout=60)
        assert checking.returncode == 2, errors
        assert "interrupted" in errors
        assert "nothing-is-left" in output
        assert participant.rows("troth_prepared") == []
        assert participant.rows(work.TABLE) == []


def test_nobody_there_and_wrong_usage() -> None:
    nobody = f"127.0.0.1:{addresses.free_ports(1)[0]}"
    assert check(nobody, "--within", "1s").exit_code == 2
    for wrong in (
        [],
        [nobody, "--pid", "17"],
        [nobody, "--start", "true", "--restart", "true"],
        [nobody, "--writes", "add a/1 n 1"],
        [nobody, "--writes", "frobnicate a/1", "--reads", "read a/1"],
        [nobody, "--only", "rule 99"],
    ):
        assert check(*wrong).exit_code == 2, wrong
    unasked = CliRunner().invoke(command, [nobody])
    assert unasked.exit_code == 2
    assert "throw away" in unasked.stderr


def test_it_lists_its_checks_and_prints_its_schema() -> None:
    listed = check("--list").stdout
    assert all(each.name in listed for each in CHECKS)
    assert check("--print-schema").stdout == work.SCHEMA


def test_every_check_has_a_rule_and_a_sentence() -> None:
    """The rule as ARCHITECTURE names it."""
    for each in CHECKS:
        assert re.fullmatch(r"rule ([1-9]|1[0-3])|locks|durability", each.rule), each
        assert each.requires.endswith("."), each
    assert len({each.name for each in CHECKS}) == len({each.requires for each in CHECKS}) == len(CHECKS)
