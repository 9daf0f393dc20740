"""`troth bench flat`, `restart`, `overload` and `stages`, with tiny numbers: measured, verified, told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import flat, offer, overload
from bench.alone import Size
from bench.figures import Spread
from bench.load import Load
from bench.on_troth import OnTroth
from bench.workloads import WORKLOADS
from tests.test_bench import RUN_WITHIN_S, bench, processes_with
from troth.cli import main
from troth.v1 import types_pb2
from troth.v1.coordinator_pb2 import SubmitResult

FLAT = ("flat", "--upto", "1000", "--seconds", "1", "--rounds", "1")
RESTART = ("restart", "--in-flight", "50", "--finished", "200")
OVERLOAD = ("overload", "--seconds", "1", "--search", "0.3", "--rounds", "1")


def found(*arguments: str) -> list[dict[str, Any]]:
    """What a run that ended well printed."""
    ran = bench(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_old_files_are_measured_beside_fresh_ones_in_doubt_and_with_one_that_was_away() -> None:
    point, doubt, back = found(*FLAT)
    assert point["point"] == 1000
    ratio = point["tx_per_s"]["median"] / point["fresh_tx_per_s"]["median"]
    assert point["old_to_fresh"]["median"] == pytest.approx(ratio, abs=0.001)
    assert set(point["resident_bytes"]) == {"client", "coordinator", "p1", "p2", "p3"}
    assert min(point["file_bytes"][name] for name in ("coordinator", "p1", "p2")) > 0
    assert doubt["in_doubt"] == 1
    assert doubt["with_to_without"]["median"] > 0
    assert 0 < back["serving_s"] <= back["lane_s"] <= back["committed_s"]


def test_a_restart_is_measured_for_each_kind_of_process_and_for_all() -> None:
    restarts = found(*RESTART)
    assert [(each["killed"], list(each["serving_s"])) for each in restarts] == [
        ("coordinator", ["coordinator"]),
        ("p1", ["p1"]),
        ("all", ["coordinator", "p1", "p2"]),
    ]
    assert restarts[0]["finished"] >= 200
    for each in restarts:
        assert 0 < each["committed"] + sum(each["aborted"].values()) == each["in_flight"] <= 50
        assert 0 < each["answered_s"] <= each["resolved_s"]


def test_what_is_too_much_is_refused_and_one_that_does_not_read_is_beside_the_others() -> None:
    closed, open_, *beside = found(*OVERLOAD, "--in-flight-max", "20")
    assert set(closed["closed_loop"]) == {"64", "256", "1024"}
    assert open_["wanted_per_s"] == 2 * open_["closed_per_s"] > 0
    assert set(open_["refused"]) == {"overloaded"}
    assert open_["committed"] > 0
    assert 0 < open_["latency_s"]["p50"] <= open_["latency_s"]["p99"] <= open_["latency_s"]["max"]
    assert set(open_["uses"]) == {"client", "coordinator", "p1", "p2"}
    for use in open_["uses"].values():
        assert use["cpus"] > 0
        assert 0 < use["start_bytes"] <= use["peak_bytes"] >= use["end_bytes"] > 0
    assert [each["beside"] for each in beside] == ["nobody", "one that reads", "one that never reads"]
    assert [each["other_sent"] > 0 for each in beside] == [False, True, True]
    assert all(each["tx_per_s"]["median"] > 0 for each in beside)


def test_tables_say_the_same_for_people_and_progress_is_apart() -> None:
    ran = bench(*RESTART)
    assert ran.returncode == 0, ran.stderr
    title, _, _, *rows = ran.stdout.splitlines()
    assert title == "Restart"
    assert [row.split()[0] for row in rows[:3]] == ["coordinator", "p1", "all"]
    assert "All rows were compared with what was answered" in ran.stdout
    assert "50 in flight; then p1 is killed" in ran.stderr
    assert "then p1 is killed" not in ran.stdout


def test_rows_that_are_not_what_was_answered_are_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = OnTroth.rows

    async def tampered(self: OnTroth, participant: int) -> Any:
        found = await rows(self, participant)
        return found._replace(accounts={**found.accounts, 0: 0})

    monkeypatch.setattr(OnTroth, "rows", tampered)
    ran = CliRunner().invoke(main, ["bench", *RESTART])
    assert ran.exit_code == 1
    assert "the rows are not what was answered: accounts at p1: the sum is" in ran.stderr


def test_a_cluster_that_commits_nothing_is_not_made_old(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: OnTroth, load: Load) -> None:
        list(load)

    monkeypatch.setattr(OnTroth, "run", nothing)
    ran = CliRunner().invoke(main, ["bench", *RESTART])
    assert ran.exit_code == 1
    assert "troth committed none of" in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["flat", "--upto", "10"],
        ["flat", "--seconds", "0"],
        ["restart", "--in-flight", "0"],
        ["restart", "--finished", "-1"],
        ["overload", "--in-flight-max", "0"],
        ["nothing"],
    ],
)
def test_bad_usage_is_told_before_anything_is_started(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["bench", *arguments]).exit_code == 2


def test_what_is_measured_is_listed() -> None:
    ran = CliRunner().invoke(main, ["bench", "--help"])
    assert [name for name in ("compare", "flat", "restart", "overload") if f"  {name} " not in ran.output] == []


def test_a_run_that_is_stopped_ends_what_it_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "troth", "bench", "restart", "--finished", "0"]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=env) as child:
        assert child.stderr is not None
        child.stderr.readline()  # The first progress: it is in the middle.
        child.send_signal(signal.SIGINT)
        assert child.wait(RUN_WITHIN_S) == 130
    assert list(tmp_path.iterdir()) == []
    assert processes_with(str(tmp_path)) == []


# Pieces.


def offered(*results: SubmitResult) -> offer.Offer:
    """Three transfers that were offered and got these results."""
    branches = WORKLOADS["transfer"].branches
    made = offer.Offer([7, 8, 9], [branches(1, number) for number in (7, 8, 9)], rate_per_s=3.0)
    for result in results:
        made._answered(result, 0.5)
    return made


def refusal(code: types_pb2.Code, retryable: bool) -> SubmitResult:
    reason = types_pb2.Reason(code=code, retryable=retryable)
    return SubmitResult(outcome=types_pb2.OUTCOME_REFUSED, reason=reason)


def test_a_refusal_is_one_of_overload_and_may_be_tried_again_or_it_is_wrong() -> None:
    overloaded, taken = types_pb2.CODE_OVERLOADED, types_pb2.CODE_ID_TAKEN
    made = offered(refusal(overloaded, True), refusal(overloaded, False), refusal(taken, True))
    assert made.refused == {"overloaded": 1}
    assert made.wrong == {"REFUSED overloaded": 1, "REFUSED id_taken": 1}


def test_latency_counts_from_when_it_was_due() -> None:
    made = offered(SubmitResult(outcome=types_pb2.OUTCOME_COMMITTED, tag=1))
    assert made.committed == [8]
    assert made.latencies_s == [pytest.approx(0.5 - 1 / 3)]


OVERLOADED = overload.Overload(
    in_flight_max=10,
    closed_per_s=100.0,
    wanted_per_s=200.0,
    offered_per_s=150.0,
    late_max_s=1.5,
    committed_per_s=90.0,
    refused_per_s=60.0,
    committed=90,
    refused={"overloaded": 60},
    latency_s={"p50": 1.0},
    uses={"p1": overload.Use(0.5, 2**20, 2 * 2**20, 3 * 2**20)},
)


def test_a_client_that_does_not_keep_up_says_so() -> None:
    [sentence] = overload.Found({64: 100.0}, [OVERLOADED]).sentences()
    assert "it sent 150 of 200 per second, 1.50 s late" in sentence


def test_a_load_ends_after_so_many_steps_or_when_it_is_stopped() -> None:
    load = Load(WORKLOADS["transfer"], seed=1, first=5, in_flight=2, seconds=60, count=3)
    assert [step.number for step in load] == [5, 6, 7]
    assert load.open == 3
    load = Load(WORKLOADS["transfer"], seed=1, first=5, in_flight=2, seconds=60)
    assert next(load).number == 5
    load.stop()
    assert list(load) == []


SPREADS = flat.Turns([90.0, 110.0], [100.0, 100.0])


def test_what_was_found_is_told_to_people() -> None:
    point = flat.Point(1000, SPREADS, {"p1": Size(2**20, 2**19)})
    aged = flat.Found([point], SPREADS, flat.Back(0.5, 0.75, 1.0))
    assert [table.rows for table in aged.tables()] == [
        [["1,000", "100 (90..110)", "100 (100..100)", "1.00 (0.90..1.10)"]],
        [["1,000", "p1", "1", "0.5"]],
    ]
    assert len(list(aged.sentences())) == 2
    spread = Spread.of([100.0])
    held = overload.Found({64: 100.0}, [OVERLOADED], [overload.Beside("nobody", spread, spread, 0, 0, 0)])
    closed, open_, uses, beside = [table.rows for table in held.tables()]
    assert closed == [["64", "100"]]
    assert open_ == [["10", "100", "150", "90", "0.90", "60", "1,000"]]
    assert uses == [["10", "p1", "0.50", "1", "3", "2"]]
    assert beside == [["nobody", "100 (100..100)", "100 (100..100)", "0", "0", "0"]]


@pytest.mark.parametrize(
    ("upto", "points"), [(1000, [1000]), (5000, [1000, 5000]), (10**6, [10**3, 10**4, 10**5, 10**6])]
)
def test_points_are_powers_of_ten_and_the_last(upto: int, points: list[int]) -> None:
    assert flat.Plan(upto=upto, seconds=1, rounds=1, seed=1).points == points


def test_the_stages_of_a_transfer_are_measured_for_each_role() -> None:
    (spent_us,) = found("stages", "--batch", "5", "--rounds", "3")
    assert {name.partition(":")[0] for name in spent_us} == {"client", "coordinator", "participants"}
    assert min(spent_us.values()) > 0
    ran = bench("stages", "--batch", "5", "--rounds", "3")
    assert ran.returncode == 0
    assert "participants: prepares handled" in ran.stdout
