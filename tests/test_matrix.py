"""The crash-point matrix: that it leaves nothing out, that it can fail, and a part of it.

`scripts/matrix` runs all of it, and so does CI.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from faults.cluster import COORDINATOR
from faults.matrix import __main__ as script
from faults.matrix import arena, report, resources
from faults.matrix.arena import Arena, Result, opened
from faults.matrix.cases import CASES, FIRST, LAST, NOT_REACHED, Case, carried
from faults.matrix.catalogue import POINTS, described
from faults.matrix.cells import FAULTS, Cell, Outage, cells, left_out, step_of, told
from faults.matrix.person import Person
from faults.matrix.run import Runner
from troth.cli import main
from troth.failpoints import Action, Point, Rule

ALL = list(cells())
BY_KEY = {cell.key: cell for cell in ALL}
ROOT = Path(__file__).resolve().parent.parent
TRACED_WITHIN_S = 8.0
FILES = pytest.param(False, id="files")
SERVERS = pytest.param(True, id="servers", marks=pytest.mark.needs_postgresql)
"""As in `Cell.at_servers`."""

EACH = 1
"""Cells of each case that `scripts/test` runs, drawn anew each time by the seed that pytest prints."""


def point(text: str) -> Point:
    (found,) = [each for each in POINTS if str(each) == text]
    return found


# What there is.


def test_every_point_has_a_cell_or_a_reason_why_not() -> None:
    without = left_out()
    assert [name for name, why in without.items() if why not in NOT_REACHED.values()] == []
    assert {re.sub(r":[a-z-]+$", "", name) for name in without} == set(NOT_REACHED)


def test_every_action_but_a_note_is_tried_at_every_moment_or_stands_for_its_neighbour() -> None:
    tried = {action for actions in FAULTS.values() for action in actions}
    assert tried == {*Action, *Outage} - {Action.NOTE}
    assert set(FAULTS) == {each.when for each in POINTS}
    for each in POINTS:
        assert {Action.KILL, Action.DROP, Action.ERROR, Action.FULL} & set(each.actions) <= set(FAULTS[each.when])


def test_each_cell_is_there_once_and_its_rules_can_be_meant() -> None:
    assert len(BY_KEY) == len(ALL)
    for cell in ALL:
        assert [Rule(text) for text in cell.rules]
        assert told(cell.action) in cell.point.actions


def test_cases_name_points_that_there_are() -> None:
    steps = {(each.role, step_of(each)) for each in POINTS}
    for case in CASES.values():
        assert {("coordinator", step) for step in case.coordinator} <= steps, case.name
        assert {("participant", step) for step in carried((*case.first, *case.last))} <= steps, case.name


def test_the_command_lists_every_point_with_what_it_can_do() -> None:
    listed = [json.loads(line) for line in CliRunner().invoke(main, ["failpoints", "--json"]).stdout.splitlines()]
    assert [each["point"] for each in listed] == list(map(str, POINTS))
    assert all(each["actions"] and re.search(r": \w", each["what"]) for each in listed)
    text = CliRunner().invoke(main, ["failpoints"]).stdout
    assert all(str(each) in text for each in POINTS)
    assert described(point("coordinator:epoch:before-flush")).startswith("written, its commit not begun: The epoch")


# That it can fail.


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """One cluster for the tests that leave nothing wrong behind."""
    with opened(tmp_path_factory.mktemp("matrix") / "cluster") as entered:
        yield entered


def kinds() -> list[str]:
    """Of the servers that are here."""
    return resources.servers(resources.there())


def tamper(arena: Arena, name: str, statement: str) -> None:
    connection = sqlite3.connect(arena.cluster[name].data, timeout=10)
    with connection:
        connection.execute(statement)
    connection.close()


def test_what_does_not_hold_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = BY_KEY["alone/participant:one-phase:before-receive=delay/first"]
    with Arena(tmp_path / "cluster") as stage:
        assert stage.run(cell).good
        monkeypatch.setattr("faults.matrix.judge.QUIET_WITHIN_S", 1.0)
        tamper(stage, "p2", "UPDATE accounts SET balance = balance + 5")
        assert stage.run(cell).problems == ("the balance at p2 is 5 and not 0",)
        tamper(stage, "p2", "UPDATE accounts SET balance = balance - 5")
        tamper(stage, "p3", "INSERT INTO troth_prepared VALUES (1, 99, x'', '[]', 0)")
        tamper(stage, "p3", "INSERT INTO troth_history (log, number, operations, at) VALUES (1, 99, x'', 0)")
        lost, twice = stage.run(cell).problems
        assert "the vote log of p3 still holds [(99,)] as prepared" in lost
        assert "p3 has applied 2 branches in all and not 1" in twice
        wrong = CASES["fence"]._replace(transaction=cell.case.transaction, first=cell.case.first)
        assert stage.run(cell._replace(case=wrong)).problems[0] == "it ended COMMITTED and not ABORTED"


ODD = {
    "postgresql": ("BEGIN", "INSERT INTO odd VALUES (1)", "PREPARE TRANSACTION 'odd'"),
    "mariadb": ("XA START 'odd'", "INSERT INTO odd VALUES (1)", "XA END 'odd'", "XA PREPARE 'odd'"),
}


@pytest.mark.parametrize("kind", [pytest.param(name, marks=getattr(pytest.mark, f"needs_{name}")) for name in ODD])
def test_what_does_not_hold_at_a_server_is_found(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = BY_KEY["alone/participant:one-phase:before-receive=delay/first/servers"]
    remembering = BY_KEY["commit/coordinator:mark:before-send=drop/last/servers"]
    with opened(tmp_path / "cluster", [kind]) as stage:
        assert stage.run(remembering).good
        assert stage.run(cell).good
        monkeypatch.setattr("faults.matrix.judge.QUIET_WITHIN_S", 1.0)
        shop = stage.cluster.databases["p3"]
        shop.execute("UPDATE accounts SET balance = balance + 5")
        (wrong,) = stage.run(cell).problems
        assert wrong.startswith("the balance at p3 is")
        shop.execute("UPDATE accounts SET balance = balance - 5")
        shop.execute("INSERT INTO troth_finished(identity, log, number) VALUES ('file', 'nobody', 99)")
        shop.execute("CREATE TABLE odd (id int)")
        with closing(shop.connect()) as connection, connection.cursor() as cursor:
            for statement in ODD[kind]:
                cursor.execute(statement)
        prepared = f"{shop.prepared()} are prepared at the server of "
        assert set(stage.run(cell).problems) - {f"{prepared}p1"} == {  # MariaDB does not say in which database
            f"{prepared}p3",
            "the server of p3 remembers 99 of nobody as committed, and its vote log does not",
        }


MISTAKES = {
    "the decision is told before it is forced": (
        "commit/coordinator:commit:after-send=kill/last",
        ("coordinator:committed:before-flush=delay(0.5)",),  # so that the mistake has the time to show
        """
from coordinator.attempts import Attempts
from coordinator.protocol import Input
right = Attempts._append
def wrong(self, record, *, forced, then=None, counted=True):
    right(self, record, forced=forced, counted=counted)
    if then is not None:
        then()
Attempts._append = wrong
""",
    ),
    "a prepared participant that hears nothing aborts": (
        "silence/participant:ask-peer:before-send=delay/first",
        (),
        """
from participant.node import Participant
from participant.protocol import Input
def wrong(self, event):
    self._out.extend(self._asks.ended(event.attempt, None))
    if self._in_doubt_here(event.attempt):
        branch = self.logs[event.attempt.log].branches[event.attempt.number]
        self._ask_peers(branch)
        self._move(branch, Input.ABORT)
import participant.node as node
node._EVENTS[node.CoordinatorAnswered] = wrong
""",
    ),
    "what a server holds is not looked at by the participant that starts": (
        "alone/participant:run-alone:after-carry=kill/first/servers",
        (),
        """
from participant.log import VoteLog
VoteLog.merge = lambda *_, **__: None
""",
    ),
    "a commit is acknowledged that the server was not told of": (
        "commit/participant:acknowledged:before-send=delay/last/servers",
        (),
        """
from participant import outside
from participant.events import Apply
right, applies = outside.part_of, []
async def wrong(resource, job):
    applies.extend([job] if isinstance(job, Apply) else [])
    return None if job in applies[1:] else await right(resource, job)
outside.part_of = wrong
""",
    ),
}
"""A cell that finds it, what is provoked besides, and what makes every process of a cluster do it."""


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(each, marks=[pytest.mark.needs_postgresql] if key.endswith("/servers") else [])
        for each, (key, *_) in MISTAKES.items()
    ],
)
def test_a_mistake_in_the_engine_is_found(tmp_path: Path, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faults.matrix.judge.QUIET_WITHIN_S", 1.0)
    key, besides, code = MISTAKES[mistake]
    cell = BY_KEY[key]
    cell = cell._replace(case=cell.case._replace(provoked=(*cell.case.provoked, *besides)))
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with opened(tmp_path / "cluster", ["postgresql"] if cell.at_servers else ()) as stage:
        result = stage.run(cell)
    assert not result.good
    assert "the point was not reached" not in result.problems


def test_a_point_that_is_not_reached_is_no_success(stage: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faults.matrix.arena.STRIKE_WITHIN_S", 0.3)
    cell = Cell(point("participant:abort:before-receive"), Action.DROP, "first", CASES["alone"])
    result = stage.run(cell)
    assert (result.problems, result.tries) == (("the point was not reached",), arena.TRIES)


# The cases reach what they say, and nothing that has no cell.


def reaches(role: str, steps: Iterable[str], names: Sequence[str]) -> set[tuple[str, str]]:
    """Process and point, for the points of these steps."""
    found = [each for each in POINTS if each.role == role and step_of(each) in steps]
    return {(name, f"{each.what}:{each.when}") for each in found for name in names}


@pytest.mark.parametrize("at_servers", [FILES, SERVERS])
def test_each_case_reaches_what_it_says_and_nothing_that_has_no_cell(tmp_path: Path, at_servers: bool) -> None:
    with opened(tmp_path / "cluster", kinds() if at_servers else ()) as stage:
        check_reach(stage, at_servers)


def check_reach(stage: Arena, at_servers: bool) -> None:
    celled = {str(cell.point) for cell in ALL if cell.at_servers is at_servers}
    told_of = carried if at_servers else tuple
    for case in CASES.values():
        said = reaches("coordinator", case.coordinator, ["coordinator"])
        said |= reaches("participant", told_of(case.first), [FIRST])
        said |= reaches("participant", told_of(case.last), [LAST])
        for tries in range(arena.TRIES):
            reached = trace(stage, case, f"{case.name}#{tries}", said)
            if said <= reached:
                break
        assert said <= reached, f"{case.name}: {said - reached}"
        roles = {(who if who == "coordinator" else "participant", text) for who, text in reached}
        assert {f"{role}:{text}" for role, text in roles} <= celled


def trace(stage: Arena, case: Case, id: str, said: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The points that a transaction of that case reaches, all of which are told to make a note."""
    stage._struck = set()
    stage._arm([*case.provoked, *(f"{each}=note" for each in POINTS)])
    client = stage._ask(case, id)
    person = Person(stage.cluster, id, lambda: stage._launch(COORDINATOR)) if case.by_hand else None
    deadline = time.monotonic() + TRACED_WITHIN_S
    while not said <= stage._struck and time.monotonic() < deadline:
        dead = not stage.cluster[COORDINATOR].running
        stage._look()
        if person is not None:
            person.step(dead)
        elif dead and not case.down:
            stage._launch(COORDINATOR)
        time.sleep(0.01)
    stage._heal(None)
    if person is not None:
        stage._clear(person)
    client.cancel()
    outcome = stage._final(case, id)
    assert (outcome, stage._judge.judge(id, outcome, case), stage._odd) == (case.outcome, [], [])
    return stage._struck


# A part of it.


@pytest.mark.parametrize("at_servers", [FILES, SERVERS])
def test_a_part_of_the_matrix_holds(tmp_path: Path, request: pytest.FixtureRequest, at_servers: bool) -> None:
    seed = request.config.getoption("randomly_seed", default=None)
    drawn = random.Random(seed)
    there = [cell for cell in ALL if cell.at_servers is at_servers]
    chosen = [cell for case in CASES.values() for cell in drawn.sample([c for c in there if c.case is case], EACH)]
    runner = Runner(tmp_path, 2, kinds())
    results = list(runner.run(chosen))
    assert {result.cell.key: result.problems for result in results if not result.good} == {}
    assert len(results) == len(chosen)
    assert runner.contradictions == []
    assert list(tmp_path.iterdir()) == [], "good clusters are swept"


def test_an_audit_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def audit(paths: Sequence[Path], *, databases: object) -> object:
        raise OSError(f"no room to copy {paths}")

    monkeypatch.setattr("faults.matrix.run.audit", audit)
    with pytest.raises(OSError, match="no room"):
        list(Runner(tmp_path, 1).run([BY_KEY["fence/coordinator:abort-asked:before-reply=delay/first"]]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_reports_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "faults.matrix",
        "fence/",
        "--resources",
        "sqlite",
        "--json",
        "--report",
        str(tmp_path / "matrix.md"),
    ]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()  # of the first cell
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["matrix.md"]


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--minutes", "1", "--report", "missing/matrix.md"]])
def test_a_run_that_could_show_nothing_is_not_begun(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(script.main, arguments).exit_code == 2
    assert CliRunner().invoke(script.main, ["--minutes", "0.00000001"]).exit_code == 1


# The report.


def results() -> list[Result]:
    good = [Result(cell, (), "COMMITTED", 1, 0.1) for cell in ALL if cell.case.name == "alone" and not cell.at_servers]
    return [*good[:-1], good[-1]._replace(problems=("the sky\nfell",))]


def test_the_report_shows_each_cell_and_what_failed() -> None:
    summed = report.summary("scripts/matrix alone/", results(), len(results()) + 3, 12.3)
    text = report.markdown(summed, results(), ["rule 2: torn"])
    assert f"scripts/matrix alone/: {len(results())} cells in 12 s, 1 failed, 3 for which there was no time." in text
    assert f"- `{results()[-1].cell.key}`\n  - the sky fell\n" in text
    assert "| coordinator:claimed:before-flush | 1 2 | . | 1 | . | . | 1 2 | 1 2 | . | . |" in text
    assert "!" in text.split("## alone")[1]
    assert "- rule 2: torn\n" in text
    assert "coordinator:known:before-flush: only when" in text


def test_the_script_runs_what_is_chosen_and_writes_its_table(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    key = "fence/coordinator:abort-asked:before-receive=delay/first"
    ran = CliRunner().invoke(script.main, [key, "--resources", "sqlite", "--json", "--report", str(path)])
    assert ran.exit_code == 0, ran.output
    (line,) = [json.loads(line) for line in ran.stdout.splitlines()]
    assert (line["cell"], line["good"], line["told"]) == (key, True, "ABORTED")
    assert "1 cells" in path.read_text()
    assert CliRunner().invoke(script.main, ["nonsense"]).exit_code == 2
    assert "no such resource" in CliRunner().invoke(script.main, ["--resources", "sqlite,oracle"]).output
    listed = subprocess.run(["scripts/matrix", "--list", "=full"], capture_output=True, text=True, check=True)
    there = cells([False, True] if kinds() else [False])
    assert listed.stdout.splitlines() == [cell.key for cell in there if cell.action is Action.FULL]
