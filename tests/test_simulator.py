"""The simulator itself: the same seed is the same run, what fails is made small and replays, and fresh seeds hold."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from coordinator import attempts
from coordinator import protocol as cp
from faults.simulator.checks import serial
from faults.simulator.checks.serial import NEVER, Access
from faults.simulator.cli import command
from faults.simulator.disks import VoteDisk
from faults.simulator.model import Op, Rows, footprint
from faults.simulator.runs import Keep, Size, chosen, run, run_all, shrink
from faults.simulator.scenario import scenario
from faults.simulator.violation import Violation
from faults.simulator.workload import STYLES, initial_rows, part
from participant import node
from participant import protocol as pp
from participant.resources import No
from tests.mutants import mutated
from troth.words import AttemptId

SMALL = Size(60, (2, 3))
FRESH = 60
"""Seeds that nobody ran before, in each session."""


def simulate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "troth", "simulate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_fresh_seeds_hold(record_property: Callable[[str, object], None]) -> None:
    """Another portion in each session; its seed stands in the summary, and is given by pytest-randomly's."""
    first = random.randrange(10**9)
    record_property("simulated", f"{FRESH} runs from seed {first}")
    for each in run_all(range(first, first + FRESH), Size(100, (2, 5)), jobs=1):
        replay = f"troth simulate --seed {each.seed} --seeds 1 --transactions 100 --participants 2-5"
        assert each.failure is None, f"{each.failure}; replay: {replay}"


def test_the_same_seed_is_the_same_run_whatever_strings_hash_to() -> None:
    for seed in ("4", "11"):
        arguments = ("--seed", seed, "--seeds", "1", "--transactions", "60", "--history")
        first, second = (simulate(*arguments, PYTHONHASHSEED=hash_seed) for hash_seed in ("1", "2"))
        assert first.returncode == 0, first.stderr
        assert first.stdout == second.stdout
        assert len(first.stdout.splitlines()) > 200


def test_a_run_does_not_depend_on_those_before_it() -> None:
    alone = run(5, SMALL, traced=True)
    run(6, SMALL)
    assert run(5, SMALL, traced=True).history == alone.history


def test_runs_in_several_processes_are_the_same_runs() -> None:
    seeds = range(20, 26)
    here = {each.seed: each.done for each in run_all(seeds, SMALL, jobs=1)}
    there = {each.seed: each.done for each in run_all(seeds, SMALL, jobs=2)}
    assert here == there


def test_what_fails_is_made_smaller_and_fails_again() -> None:
    with mutated("a vote is sent before it is forced"):
        found = run(0, SMALL)
        assert found.failure is not None
        keep = shrink(0, SMALL)
        again = run(0, SMALL, Keep.parse(str(keep)), traced=True)
    assert len(keep.asks) == 1
    assert not keep.faults
    assert again.failure is not None
    assert "rule 6" in again.failure.what
    assert any("queues forced Try" in line for line in again.history)


def test_what_fails_is_made_smaller_for_the_same_check_and_alike_each_time() -> None:
    """Of seed 117 smaller scenarios fail by another check as well."""
    with mutated("a UNIQUE value is not locked"):
        found = run(117, SMALL).failure
        keep = shrink(117, SMALL)
        again = run(117, SMALL, Keep.parse(str(keep))).failure
        assert shrink(117, SMALL) == keep
    assert found is not None
    assert again is not None
    assert again.where == found.where
    assert len(keep.asks) <= 4


@pytest.mark.parametrize("text", ["a1,a20,f0", "a3,c2", "c0"])
def test_what_is_kept_is_spelled_as_it_is_read(text: str) -> None:
    assert str(Keep.parse(text)) == text


@pytest.mark.parametrize("seed", [3669])
def test_what_was_found_in_the_engine_stays_mended(seed: int) -> None:
    """3669: an outcome that a person had settled for a participant expired once the record was cleared; the participant
    came back prepared and was told ABORTED by presumption, of what had committed."""
    assert run(seed, Size(100, (2, 5))).failure is None


class Counting(dict[Any, Any]):
    """A protocol's table that remembers which pairs were asked for."""

    def __init__(self, table: dict[Any, Any]) -> None:
        super().__init__(table)
        self.asked: set[Any] = set()

    def get(self, key: Any, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def test_what_the_tables_refuse_never_happens_and_most_that_is_legal_does() -> None:
    """In 250 runs 39 of the coordinator's 40 moves are made, and 74 of the participant's 96: what is left are alarms
    and what only a broken coordinator would bring about. Here are fewer runs."""
    coordinator, participant = Counting(cp.TABLE), Counting(pp.TABLE)
    with patch.object(attempts, "TABLE", coordinator), patch.object(node, "TABLE", participant):
        for seed in range(40):
            assert run(seed, Size(100, (2, 4))).failure is None
    assert coordinator.asked <= cp.TABLE.keys()
    assert participant.asked <= pp.TABLE.keys()
    alarms = {key for key, (action, _) in pp.TABLE.items() if action is pp.Action.ALARM}
    assert not participant.asked & alarms, "an alarm of the table is for what cannot be"
    assert len(coordinator.asked) >= 0.7 * len(cp.TABLE)
    assert len(participant.asked) >= 0.5 * len(pp.TABLE)


# The command.


def test_the_command_says_what_it_did() -> None:
    done = simulate("--seeds", "2", "--seed", "100", "--transactions", "30", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "2 runs from seed 100, 60 transactions: nothing was broken" in done.stdout
    report = json.loads(simulate("--seeds", "2", "--seed", "100", "--transactions", "30", "--json").stdout)
    assert (report["runs"], report["transactions"], report["failures"]) == (2, 60, [])


def test_a_broken_run_exits_with_1_and_prints_what_replays_it() -> None:
    with mutated("a vote is sent before it is forced"):
        found = CliRunner().invoke(command, ["--seed", "0", "--seeds", "3", "--transactions", "30", "--jobs", "1"])
    assert found.exit_code == 1
    assert "BROKEN: rule 6" in found.stdout
    replay = next(line for line in found.stdout.splitlines() if line.startswith("replay: "))
    arguments = replay.removeprefix("replay: troth simulate ").split()
    with mutated("a vote is sent before it is forced"):
        again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 1
    assert "BROKEN: rule 6" in again.stdout
    assert CliRunner().invoke(command, arguments).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--participants", "1"], "from 2 to 10"),
        (["--participants", "5-2"], "from 2 to 10"),
        (["--keep", "x1", "--seed", "1"], "a list such as"),
        (["--keep", "a1"], "name its --seed"),
        (["--history", "--seed", "1"], "--seeds 1"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], complaint: str) -> None:
    found = CliRunner().invoke(command, arguments)
    assert found.exit_code == 2
    assert complaint in found.output


# The scenarios and the model.


def test_a_scenario_is_what_its_seed_says() -> None:
    assert scenario(7) == scenario(7)
    assert scenario(7) != scenario(8)
    made = chosen(7, SMALL, Keep(frozenset({0, 2}), frozenset()))
    assert len(made.asks) == 2
    assert not made.faults


@pytest.mark.parametrize("style", STYLES)
def test_requests_do_to_sqlite_what_they_do_to_the_model(style: str) -> None:
    """Each work, through the shipped planner and resource, has the outcome and the rows that the model says."""
    chance = random.Random(style)
    disk, model = VoteDisk("a", "file-a", initial_rows()), initial_rows()
    disk.open().recover()
    applied = 0
    for number in range(150):
        for work in STYLES[style](chance, ["a", "b"]).values():
            plan = disk.resource.plan(part("a", work, chance).operations)
            disk.file.begin()
            try:
                disk.resource.run(AttemptId("x", number), plan)
                allowed = True
            except No:
                allowed = False
            disk.file.connection.execute("COMMIT")
            if allowed:
                model.run(work)
                applied += 1
            else:
                with pytest.raises(Violation):
                    model.copy().run(work)
            assert disk.rows().rows == model.rows
    assert applied
    disk.close()


@pytest.mark.parametrize(
    "op",
    [
        Op("update", "items", 1, (("u", 2),)),
        Op("insert", "items", 1, (("v", 1),)),
        Op("add", "items", 1, (("v", -6),)),
        Op("add", "items", 3, (("v", 1),)),
        Op("add", "items", 1, (("v", -1),), 5),
        Op("exists", "items", 1, (("", 0),)),
        Op("equals", "items", 3, (("v", None),)),
    ],
)
def test_the_model_refuses_what_a_constraint_would(op: Op) -> None:
    rows = Rows({("items", 1): {"v": 5, "u": 1}, ("items", 2): {"v": 5, "u": 2}})
    with pytest.raises(Violation):
        rows.run((op,))


def test_a_footprint_names_rows_and_unique_values() -> None:
    work = (Op("add", "hot", "x", (("v", 1),)), Op("read", "hot", "y"), Op("upsert", "items", 1, (("u", 3), ("v", 1))))
    assert footprint(work) == {
        ("hot", "x"): "add",
        ("hot", "y"): "look",
        ("items", 1): "write",
        ("unique", "items", 3): "write",
    }
    assert footprint((Op("read", "hot", "x"), Op("add", "hot", "x", (("v", 1),)))) == {("hot", "x"): "write"}


# The checker of serializability, on histories made by hand. An access: number, how, seen at, done at.


def order(*slots: list[Access]) -> list[int]:
    numbers = {access.number for accesses in slots for access in accesses}
    before: dict[int, set[int]] = {number: set() for number in numbers}
    for accesses in slots:
        serial._order(accesses, before)
    return serial._sorted(before)


def not_serializable(*slots: list[Access]) -> None:
    with pytest.raises(Violation, match="before the next one"):
        order(*slots)


def test_a_lost_update_is_found() -> None:
    both_look = [Access(1, "look", 0, NEVER), Access(2, "look", 0, NEVER)]
    not_serializable([*both_look, Access(1, "write", 0, 0), Access(2, "write", 0, 1)])


def test_write_skew_is_found() -> None:
    x = [Access(1, "look", 0, NEVER), Access(2, "write", 0, 0)]
    y = [Access(2, "look", 0, NEVER), Access(1, "write", 0, 0)]
    not_serializable(x, y)


def test_a_torn_read_over_two_files_is_found() -> None:
    """1 writes at both; 2 sees it at one and not at the other."""
    here = [Access(1, "write", 0, 0), Access(2, "look", 1, NEVER)]
    there = [Access(1, "write", 0, 0), Access(2, "look", 0, NEVER)]
    not_serializable(here, there)


def test_adds_commute_unless_one_saw_the_other() -> None:
    together = [Access(1, "add", 0, 0), Access(2, "add", 0, 1)]
    swapped = [Access(2, "add", 0, 0), Access(1, "add", 0, 1)]
    assert sorted(order(together, swapped)) == [1, 2]
    not_serializable([Access(1, "add", 0, 0), Access(2, "add", 1, 1)], [Access(2, "add", 0, 0), Access(1, "add", 1, 1)])


def test_what_is_serializable_is_ordered() -> None:
    assert order([Access(2, "write", 0, 0), Access(1, "look", 1, NEVER), Access(3, "write", 1, 1)]) == [2, 1, 3]
