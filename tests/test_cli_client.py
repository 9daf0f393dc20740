"""The client commands against a scripted coordinator: what they send, print and exit with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests import fake_coordinator
from tests.fake_coordinator import FakeCoordinator, FakeParticipant, Lost, aborted, committed, refused, unknown
from troth.cli import cluster, common, main
from troth.process.addresses import free_ports
from troth.v1 import coordinator_pb2 as pb
from troth.v1 import participant_pb2, types_pb2
from troth.v1.coordinator_pb2 import SubmitRequest, SubmitResult
from troth.words import AttemptId, Outcome

ADD = "p1: add accounts/alice balance -100 min=0"
ATTEMPT = AttemptId("c" * 16, 1 << 40 | 5)


@pytest.fixture
def fake() -> Iterator[FakeCoordinator]:
    with fake_coordinator.coordinator() as found:
        yield found


@pytest.fixture
def p1(fake: FakeCoordinator) -> Iterator[FakeParticipant]:
    """A participant that the coordinator knows."""
    with fake_coordinator.participant("p1") as found:
        fake.status.lanes.append(pb.LaneStatus(participant="p1", address=found.address, open=True))
        yield found


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address at which nobody listens, and no patience for it."""
    monkeypatch.setattr(common, "WAIT_S", 0.2)
    for module in ("doubt", "queries"):
        monkeypatch.setattr(f"troth.cli.{module}.WAIT_S", 0.2)
    return f"127.0.0.1:{free_ports(1)[0]}"


def troth(at: FakeCoordinator | str, *args: str, input: str | None = None) -> Result:
    address = at if isinstance(at, str) else at.address
    return CliRunner().invoke(main, [*args], input=input, env={"TROTH_COORDINATOR": address}, catch_exceptions=False)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# The root.


def test_help_of_the_root_names_every_command_and_loads_none() -> None:
    script = "import sys, troth.cli; troth.cli.main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    text, _, modules = found.stdout.rpartition("\n['")
    assert all(name in text for name in main.list_commands(None))  # type: ignore[attr-defined]
    assert not {"grpc", "coordinator", "participant"} & set(modules.replace("'", "").split(", "))


MINE = [
    *("submit", "get", "wait", "abort", "list", "show", "watch", "status"),
    *("read", "in-doubt", "resolve", "unresolved", "clear", "restore"),
]


@pytest.mark.parametrize("name", MINE)
def test_every_command_has_help_with_examples(name: str) -> None:
    found = CliRunner().invoke(main, [name, "--help"])
    assert found.exit_code == 0
    assert "Examples:\n" in found.output
    assert f"troth {name}" in found.output.partition("Examples:")[2]


def test_an_unknown_command_is_bad_usage() -> None:
    assert CliRunner().invoke(main, ["sumbit"]).exit_code == 2


# submit: exit codes.


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        (committed, 0, "COMMITTED x\n"),
        (aborted, 3, "ABORTED x: below_min at p1: balance would be -100\n"),
        (refused, 3, "REFUSED x: id_taken: the id is taken by other content\n"),
        (unknown, 4, "UNKNOWN x: the coordinator does not know it yet\n"),
    ],
)
def test_submit_exits_with_the_outcome(fake: FakeCoordinator, script: Any, code: int, text: str) -> None:
    fake.script = script
    found = troth(fake, "submit", "-o", ADD, "--id", "x")
    assert (found.exit_code, found.stdout) == (code, text)


def test_submit_sends_what_was_typed(fake: FakeCoordinator) -> None:
    found = troth(
        fake, "submit", "-o", ADD, "-o", "p2: read accounts/bob", "--timeout", "5s", "--wait", "applied", "--id", "x"
    )
    assert found.exit_code == 0
    assert found.stdout == "COMMITTED x\n  p2 accounts/bob balance=100\n"
    (request,) = fake.seen
    assert (request.id, request.timeout_s, request.wait_applied) == ("x", 5.0, True)
    assert [branch.participant for branch in request.branches] == ["p1", "p2"]


def test_a_reason_as_json_is_as_documented(fake: FakeCoordinator) -> None:
    fake.script = aborted
    found = troth(fake, "submit", "-o", ADD, "--id", "x", "--json")
    assert json.loads(found.stdout) == {
        "id": "x",
        "outcome": "ABORTED",
        "reason": {
            "code": "below_min",
            "participant": "p1",
            "operation": 0,
            "table": "accounts",
            "key": "alice",
            "column": "balance",
            "required": 0,
            "found": -100,
            "retryable": False,
            "message": "balance would be -100",
        },
    }


def test_rows_read_are_in_the_json(fake: FakeCoordinator) -> None:
    found = troth(fake, "submit", "-o", "p1: read accounts/alice", "--json")
    assert json.loads(found.stdout)["rows"] == [
        {
            "participant": "p1",
            "operation": 0,
            "table": "accounts",
            "key": "alice",
            "present": True,
            "values": {"balance": 100},
        }
    ]


# submit: bad input.


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give operations with -o, or a FILE"),
        (["-", "-o", ADD], "give operations with -o, or a FILE"),
        (["-", "--id", "x"], "--id is for operations given with -o"),
        (["-o", ADD, "--key", "a=b"], "--key is for --create"),
        (["-o", "p1: ad a/b"], "token 2"),
        (["-o", ADD, "--timeout", "5"], "duration"),
        (["-o", ADD, "--id", ""], "id"),
        (["-o", ADD, "--create", "--key", "a"], "expected TABLE=COLUMN"),
        (["nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_bad_input_sends_nothing_and_exits_2(fake: FakeCoordinator, args: list[str], message: str) -> None:
    found = troth(fake, "submit", *args, input="")
    assert found.exit_code == 2
    assert message in found.stderr
    assert not fake.seen


def test_a_bad_line_of_a_file_sends_nothing_and_says_where(fake: FakeCoordinator, tmp_path: Path) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text(f'{line_of("a")}\n{{"operatoins": []}}\n')
    found = troth(fake, "submit", str(file))
    assert found.exit_code == 2
    assert found.stderr.startswith(f"troth: {file}:2:2: unknown key 'operatoins'; did you mean 'operations'?")
    assert not fake.seen


# submit: files.


def line_of(id: str) -> str:
    add = {"table": "accounts", "key": "alice", "column": "balance", "by": 1}
    return json.dumps({"id": id, "operations": [{"participant": "p1", "add": add}]})


def test_a_file_is_answered_line_by_line_with_a_summary_on_stderr(fake: FakeCoordinator) -> None:
    fake.script = lambda request: (aborted if request.id == "t3" else refused if request.id == "t4" else committed)(
        request
    )
    found = troth(fake, "submit", "-", "--json", input="\n".join(line_of(f"t{n}") for n in range(10)))
    assert found.exit_code == 3
    assert {line["id"]: line["outcome"] for line in lines(found.stdout)} == {
        f"t{n}": {3: "ABORTED", 4: "REFUSED"}.get(n, "COMMITTED") for n in range(10)
    }
    assert "8 committed, 1 aborted (below_min 1), 1 refused (id_taken 1), 0 unknown; " in found.stderr
    assert "committed/s; latency" in found.stderr


def test_without_json_only_what_did_not_commit_is_printed(fake: FakeCoordinator) -> None:
    fake.script = lambda request: (aborted if request.id == "t3" else committed)(request)
    found = troth(fake, "submit", "-", input="\n".join(line_of(f"t{n}") for n in range(5)))
    assert found.stdout == "ABORTED t3: below_min at p1: balance would be -100\n"


def test_the_same_line_twice_is_one_transaction(fake: FakeCoordinator) -> None:
    found = troth(fake, "submit", "-", "--json", input=f"{line_of('a')}\n{line_of('a')}\n")
    assert len(lines(found.stdout)) == len(fake.seen) == 1


def test_unknown_weighs_more_than_aborted(fake: FakeCoordinator) -> None:
    fake.script = lambda request: (aborted if request.id == "a" else unknown)(request)
    assert troth(fake, "submit", "-", input=f"{line_of('a')}\n{line_of('b')}\n").exit_code == 4


def test_what_was_lost_is_asked_again_when_told_to(fake: FakeCoordinator) -> None:
    lost: list[str] = []

    def script(request: SubmitRequest) -> SubmitResult:
        if not lost:
            lost.append(request.id)
            raise Lost
        return committed(request)

    fake.script = script
    assert troth(fake, "submit", "-", "--ask-again", "30s", input=line_of("a")).exit_code == 0


def test_no_coordinator_is_1_and_nothing_was_sent(nobody: str) -> None:
    found = troth(nobody, "submit", "-o", ADD)
    assert found.exit_code == 1
    assert "no connection to" in found.stderr


def test_ctrl_c_stops_sending_and_says_what_is_unknown(fake: FakeCoordinator, tmp_path: Path) -> None:
    fake.script = lambda request: committed(request) if request.id in ("t0", "t1") else None
    file = tmp_path / "orders.jsonl"
    file.write_text("\n".join(line_of(f"t{n}") for n in range(100)))
    command = [sys.executable, "-m", "troth", "submit", str(file), "--json", "--in-flight", "4"]
    environment = {**os.environ, "TROTH_COORDINATOR": fake.address}
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment) as process:
        assert process.stdout is not None
        first = [process.stdout.readline(), process.stdout.readline()]  # It is in the middle now.
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    found = lines("".join(first) + rest)
    assert process.returncode == 4
    unknown = {line["id"] for line in found if line["outcome"] == "UNKNOWN"}
    assert {"t2", "t3"} <= unknown <= {"t2", "t3", "t4", "t5"}
    assert f"2 committed, 0 aborted, 0 refused, {len(unknown)} unknown, {98 - len(unknown)} not sent" in errors


# submit --create.


def test_create_makes_missing_tables_from_the_first_row(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    p1.tables = ["there"]
    found = troth(
        fake,
        *("submit", "--create", "--key", "stock=city,item"),
        *("-o", "p1: insert accounts/17 id:=17 balance:=5"),
        *("-o", "p1: insert accounts/18 balance:=6"),
        *("-o", "p1: upsert stock/berlin/widget pieces:=3"),
        *("-o", "p1: insert there/1/2 x=1"),
        *("-o", "elsewhere: insert t/1 x=1"),
    )
    assert found.exit_code == 0
    assert found.stderr == "created table p1 accounts\ncreated table p1 stock\n"
    accounts, stock = p1.calls
    assert [(column.name, column.value.integer) for column in accounts.key] == [("id", 17)]
    assert [(column.name, column.value.integer) for column in accounts.values] == [("balance", 5)]
    assert [(column.name, column.value.text) for column in stock.key] == [("city", "berlin"), ("item", "widget")]


def test_create_needs_the_names_of_a_composite_key(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    found = troth(fake, "submit", "--create", "-o", "p1: insert stock/berlin/widget pieces:=3")
    assert found.exit_code == 2
    assert "say --key stock=COLUMN,COLUMN" in found.stderr
    assert fake.seen == p1.calls == []


# get, wait, abort.


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (pb.STATE_COMMITTED, 0),
        (pb.STATE_COMMITTING, 0),
        (pb.STATE_ABORTED, 3),
        (pb.STATE_PENDING, 4),
        (pb.STATE_NOT_FOUND, 1),
    ],
)
def test_get_exits_with_the_state(fake: FakeCoordinator, state: pb.State, code: int) -> None:
    fake.transactions["x"] = [pb.Transaction(id="x", state=state)]
    found = troth(fake, "get", "x")
    name = pb.State.Name(state).removeprefix("STATE_")
    assert (found.exit_code, found.stdout) == (code, f"{name} x\n")
    assert json.loads(troth(fake, "get", "x", "--json").stdout) == {"id": "x", "state": name}


def test_help_of_get_says_that_not_found_is_no_promise() -> None:
    assert "That is no promise" in CliRunner().invoke(main, ["get", "--help"]).output


def test_wait_waits_and_gives_up(fake: FakeCoordinator) -> None:
    fake.transactions["x"] = [pb.Transaction(id="x", state=s) for s in (pb.STATE_PENDING, pb.STATE_ABORTED)]
    assert troth(fake, "wait", "x").exit_code == 3
    fake.transactions["x"] = [pb.Transaction(id="x", state=pb.STATE_PENDING)]
    found = troth(fake, "wait", "x", "--timeout", "50ms")
    assert found.exit_code == 4
    assert "the outcome of x is not known" in found.stderr


@pytest.mark.parametrize(("script", "code"), [(aborted, 0), (committed, 3), (refused, 3), (unknown, 4)])
def test_abort_succeeds_when_the_id_is_aborted(fake: FakeCoordinator, script: Any, code: int) -> None:
    fake.script = script
    assert troth(fake, "abort", "x").exit_code == code


# list, show, watch, status.


def _ended() -> pb.Transaction:
    return pb.Transaction(
        id="x",
        state=pb.STATE_ABORTED,
        reason=types_pb2.Reason(code=types_pb2.CODE_TIMEOUT, message="no vote of p2", retryable=True),
        attempt=types_pb2.Attempt(log=ATTEMPT.log, number=ATTEMPT.number),
        participants=["p1", "p2"],
        submitted_at=1_000_000.0,
        steps=[
            types_pb2.Step(at=1_000_000.0, what="submitted"),
            types_pb2.Step(at=1_000_000.25, what="voted YES", participant="p1"),
        ],
    )


def test_list_is_a_table_or_json_lines(fake: FakeCoordinator) -> None:
    fake.transactions["x"] = [_ended()]
    header, row = troth(fake, "list").stdout.splitlines()
    assert header.split()[:2] == ["state", "id"]
    assert row.split()[:3] == ["ABORTED", "x", "1970-01-12"]
    assert row.endswith("timeout: no vote of p2")
    (found,) = lines(troth(fake, "list", "--json", "--in-flight", "--limit", "5").stdout)
    assert found["attempt"] == str(ATTEMPT)
    assert fake.calls[-1] == pb.ListRequest(limit=5, in_flight=True)


def test_show_prints_steps_with_their_times(fake: FakeCoordinator) -> None:
    fake.transactions["x"] = [_ended()]
    assert troth(fake, "show", "x").stdout.splitlines() == [
        "ABORTED x: timeout: no vote of p2",
        f"  submitted 1970-01-12 13:46:40.000Z, attempt {ATTEMPT}",
        "         0.0 ms  coordinator: submitted",
        "       250.0 ms  p1: voted YES",
    ]
    assert json.loads(troth(fake, "show", "x", "--json").stdout)["steps"][1] == {
        "at": 1_000_000.25,
        "what": "voted YES",
        "participant": "p1",
    }
    assert troth(fake, "show", "nothing").exit_code == 1


def test_watch_prints_each_outcome(fake: FakeCoordinator) -> None:
    fake.transactions["x"] = [_ended()]
    found = troth(fake, "watch")
    assert (found.exit_code, found.stdout) == (0, "ABORTED x: timeout: no vote of p2\n")


def test_status_is_0_only_when_all_serve(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    found = troth(fake, "status")
    assert found.exit_code == 0
    assert [line.split()[:4] for line in found.stdout.splitlines()[1:]] == [
        ["coordinator", "coordinator", fake.address, "serving"],
        ["p1", "participant", p1.address, "serving"],
    ]
    fake.status.lanes[0].open = False
    fake.status.lanes[0].error = "connection refused"
    found = troth(fake, "status", "--json")
    assert found.exit_code == 1
    assert [(line["name"], line["serving"], line.get("lane")) for line in lines(found.stdout)] == [
        ("coordinator", True, None),
        ("p1", True, "connection refused"),
    ]


def test_status_of_a_dead_participant_is_1(fake: FakeCoordinator, nobody: str) -> None:
    fake.status.lanes.append(pb.LaneStatus(participant="p9", address=nobody))
    found = troth(fake, "status", "--json")
    assert found.exit_code == 1
    assert lines(found.stdout)[1]["up"] is False
    assert "no connection" in lines(found.stdout)[1]["error"]
    assert "p9: no connection" in troth(fake, "status").stderr


def _cluster(folder: Path, coordinator: str, p1: FakeParticipant) -> str:
    members = [
        cluster.Member("coordinator", "coordinator", coordinator, None, str(folder / "coordinator.db")),
        cluster.Member("p1", "participant", p1.address, 1, str(folder / "p1.db")),
    ]
    cluster.write(folder, members)
    return str(folder)


def test_status_with_a_dead_coordinator_finds_the_others_by_cluster_json(
    nobody: str, p1: FakeParticipant, tmp_path: Path
) -> None:
    found = troth(nobody, "status", "--json", "--cluster", _cluster(tmp_path, nobody, p1))
    assert found.exit_code == 1
    assert [(line["name"], line["up"]) for line in lines(found.stdout)] == [("coordinator", False), ("p1", True)]


# read.


def test_read_is_a_transaction_of_its_own(fake: FakeCoordinator) -> None:
    found = troth(fake, "read", "p1", "accounts/alice")
    assert (found.exit_code, found.stdout) == (0, "p1 accounts/alice balance=100\n")
    assert fake.seen[0].branches[0].operations.operations[0].HasField("read")
    assert troth(fake, "read", "p1", "accounts/nobody").exit_code == 1
    assert troth(fake, "read", "p1", "accounts").exit_code == 2
    fake.script = aborted
    assert troth(fake, "read", "p1", "accounts/alice").exit_code == 3


def test_read_without_waiting_asks_the_participant(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    found = troth(fake, "read", "p1", "accounts/alice", "--no-wait", "--json")
    assert json.loads(found.stdout)["present"] is False
    assert found.exit_code == 1
    assert not fake.seen
    assert troth(fake, "read", "p1", "nowhere/alice", "--no-wait").exit_code == 2
    assert troth(fake, "read", "p9", "accounts/alice", "--no-wait").exit_code == 2


# in-doubt and resolve.


def _doubt(p1: FakeParticipant) -> None:
    p1.branches = [
        participant_pb2.InDoubt(
            attempt=types_pb2.Attempt(log=ATTEMPT.log, number=ATTEMPT.number),
            age_s=12.5,
            locked=["accounts/alice"],
            why="the coordinator does not answer",
            waiting=[types_pb2.Attempt(log=ATTEMPT.log, number=ATTEMPT.number + 1)],
            coordinator="127.0.0.1:7400",
        )
    ]


def test_nothing_in_doubt_prints_nothing_as_json(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    assert troth(fake, "in-doubt", "--json").output == ""
    assert troth(fake, "in-doubt").output == "nothing is in doubt\n"


def test_in_doubt_prints_both_names_of_the_transaction(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    _doubt(p1)
    last = types_pb2.Attempt(log=ATTEMPT.log, number=ATTEMPT.number)
    fake.transactions[str(ATTEMPT)] = [pb.Transaction(id="order-17", state=pb.STATE_PENDING, attempt=last)]
    found = troth(fake, "in-doubt", "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout) == {
        "participant": "p1",
        "id": "order-17",
        "attempt": str(ATTEMPT),
        "age_s": 12.5,
        "locked": ["accounts/alice"],
        "why": "the coordinator does not answer",
        "waiting": [str(AttemptId(ATTEMPT.log, ATTEMPT.number + 1))],
        "peers": [],
        "coordinator": "127.0.0.1:7400",
    }
    row = troth(fake, "in-doubt").stdout.splitlines()[1]
    assert row.split()[:4] == ["p1", "order-17", str(ATTEMPT), "12.5s"]


def test_in_doubt_works_with_the_coordinator_dead(nobody: str, p1: FakeParticipant, tmp_path: Path) -> None:
    _doubt(p1)
    for args in (["--cluster", _cluster(tmp_path, nobody, p1)], ["--participant-address", p1.address]):
        found = troth(nobody, "in-doubt", "--json", *args)
        assert found.exit_code == 0
        assert json.loads(found.stdout)["id"] == str(ATTEMPT)
    assert troth(nobody, "in-doubt").exit_code == 2


def test_in_doubt_with_a_participant_that_does_not_answer_is_1(fake: FakeCoordinator, nobody: str) -> None:
    fake.status.lanes.append(pb.LaneStatus(participant="p9", address=nobody))
    found = troth(fake, "in-doubt", "--json")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "p9 cannot be asked" in found.stderr


RESOLVE = ("--participant", "p1", "--reason", "the disk is lost")


def test_resolve_by_the_clients_id_goes_to_the_participant(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    _doubt(p1)
    last = types_pb2.Attempt(log=ATTEMPT.log, number=ATTEMPT.number)
    fake.transactions["order-17"] = [pb.Transaction(id="order-17", state=pb.STATE_COMMITTING, attempt=last)]
    fake.answer = types_pb2.ANSWER_COMMITTED
    found = troth(fake, "resolve", "order-17", "commit", *RESOLVE, "--yes")
    assert (found.exit_code, found.stdout) == (0, "done at the participant\n")
    (call,) = p1.calls
    assert (call.attempt.number, call.outcome, call.reason) == (ATTEMPT.number, Outcome.COMMITTED, "the disk is lost")


def test_resolve_refuses_what_contradicts_the_decision(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    _doubt(p1)
    fake.answer = types_pb2.ANSWER_COMMITTED
    found = troth(fake, "resolve", str(ATTEMPT), "abort", *RESOLVE, "--yes")
    assert found.exit_code == 1
    assert "is COMMITTED by the coordinator's log, not ABORTED" in found.stderr
    assert not p1.calls


def test_resolve_asks_no_coordinator_about_another_ones_attempt(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    _doubt(p1)
    fake.status.log = "d" * 16
    assert troth(fake, "resolve", str(ATTEMPT), "abort", *RESOLVE, "--yes").exit_code == 0
    assert not fake.calls


def test_resolve_needs_confirmation(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    _doubt(p1)
    for answer in ("n\n", ""):
        found = troth(fake, "resolve", str(ATTEMPT), "abort", *RESOLVE, input=answer)
        assert found.exit_code == 1
        assert "locks accounts/alice" in found.stderr
        assert "nothing was changed" in found.stderr
    assert not p1.calls
    assert troth(fake, "resolve", str(ATTEMPT), "abort", *RESOLVE, input="y\n").exit_code == 0


def test_resolve_works_with_the_coordinator_dead(nobody: str, p1: FakeParticipant, tmp_path: Path) -> None:
    _doubt(p1)
    for args in (["--cluster", _cluster(tmp_path, nobody, p1)], ["--participant-address", p1.address]):
        assert troth(nobody, "resolve", str(ATTEMPT), "abort", *RESOLVE, "--yes", *args).exit_code == 0
    assert len(p1.calls) == 2
    found = troth(nobody, "resolve", "order-17", "abort", *RESOLVE, "--yes", "--participant-address", p1.address)
    assert found.exit_code == 2
    assert "give the attempt as `troth in-doubt` prints it" in found.stderr


def test_resolve_of_what_is_not_in_doubt_changes_nothing(fake: FakeCoordinator, p1: FakeParticipant) -> None:
    found = troth(fake, "resolve", str(ATTEMPT), "abort", *RESOLVE, "--yes")
    assert found.exit_code == 1
    assert "p1 has no branch of" in found.stderr
    wrong = troth(fake, "resolve", str(ATTEMPT), "abort", "--participant", "p9", "--reason", "x", "--yes")
    assert wrong.exit_code == 2
    named = ("--participant", "p9", "--reason", "x", "--participant-address", p1.address, "--yes")
    assert "is p1, not p9" in troth(fake, "resolve", str(ATTEMPT), "abort", *named).stderr
    assert not p1.calls


def test_resolve_of_a_participant_that_is_gone_is_settled_at_the_coordinator(
    fake: FakeCoordinator, nobody: str
) -> None:
    found = troth(fake, "resolve", "x", "commit", *RESOLVE, "--gone", "--yes")
    assert (found.exit_code, found.stdout) == (0, "done at the coordinator\n")
    assert (fake.calls[0].participant, fake.calls[0].outcome) == ("p1", Outcome.COMMITTED)
    assert troth(fake, "resolve", "known", "abort", *RESOLVE, "--gone", "--yes").exit_code == 1
    assert troth(nobody, "resolve", "x", "commit", *RESOLVE, "--gone", "--yes").exit_code == 2


def test_heuristics_are_listed_and_cleared(fake: FakeCoordinator) -> None:
    assert troth(fake, "unresolved").stdout == "nothing is unresolved\n"
    attempt = types_pb2.Attempt(log=ATTEMPT.log, number=ATTEMPT.number)
    fake.unresolved = [
        pb.Unresolved(id="x", attempt=attempt, participant="p1", age_s=4000, kind="heuristic", why="by hand")
    ]
    assert troth(fake, "unresolved").stdout.splitlines()[1].split() == ["heuristic", "p1", "x", "1h06m", "by", "hand"]
    (found,) = lines(troth(fake, "unresolved", "--json").stdout)
    assert found["kind"] == "heuristic"
    assert troth(fake, "clear", "x", *RESOLVE, "--yes").exit_code == 0
    assert fake.calls[0].clear


# restore.


def test_restore_of_what_is_no_data_file_says_so(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["restore", str(tmp_path)])
    assert found.exit_code == 2
    assert "has no data file" in found.stderr
    (tmp_path / "p1.db").write_text("not a database")
    assert CliRunner().invoke(main, ["restore", str(tmp_path)]).exit_code == 1


# Text that users keep in their rows.


def test_control_characters_never_reach_the_terminal() -> None:
    assert common.clean("a\x1b[2Jb\nc\r") == "a\\x1b[2Jb\nc\\r"
