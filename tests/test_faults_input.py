"""Bad input on real processes: said where it is wrong, nothing of it done, and the processes go on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import COORDINATOR, Cluster
from tests.submitting import (
    Submitting,
    cluster_for_module,
    committed,
    objects,
    refused_with,
    request,
    submit,
    submitting,
    troth,
    undecided,
    wait_locks,
)
from troth import operations as op
from troth.client.results import Result
from troth.ids import new_id
from troth.operations import Transaction
from troth.v1 import coordinator_pb2, types_pb2
from troth.v1.types_pb2 import Operation, Value
from troth.words import Outcome

SCHEMA = """
CREATE TABLE accounts (name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0), note TEXT) STRICT;
CREATE TABLE items (id INTEGER PRIMARY KEY, price REAL, sold BOOLEAN, picture BLOB);
CREATE TABLE stock (city TEXT NOT NULL, item TEXT NOT NULL, pieces INTEGER, PRIMARY KEY (city, item));
"""

NewCluster = Callable[..., Cluster]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_for_module(tmp_path_factory, participants=2, schema=SCHEMA) as found:
        yield found


def names(cluster: Cluster, at: str) -> set[str]:
    return {name for (name,) in cluster.rows(at, "SELECT name FROM accounts")}


def heard(cluster: Cluster) -> list[int]:
    """What the coordinator has heard of so far."""
    status = cluster.status(COORDINATOR)
    assert isinstance(status, coordinator_pb2.CoordinatorStatus)
    return [status.in_flight, status.committed, status.aborted, status.refused]


def account(name: str, /, **values: Any) -> Operation:
    return op.insert("accounts", name, {"balance": 0, **values})


# Files and operations that are malformed: nothing at all is sent.

GOOD = (
    '{"id": "good", "operations": [{"participant": "p1", "insert": '
    '{"table": "accounts", "key": "good", "values": {"balance": 1}}}]}'
)
OPERATION = '{"participant": "p1", "insert": {"table": "accounts", "key": "bad", "values": {"balance": 1}}}'

BAD_LINES = {
    # What is wrong: the line, with | before the place that the message must name; what it says.
    "the end is missing": ('{"operations": [|', "not JSON"),
    "a comma too many": ('{"operations": [' + OPERATION + ", |]}", "not JSON"),
    "not an object": ("|[1, 2]", "expected an object, found a list"),
    "no operations": ("|{}", "the key 'operations' is missing"),
    "an empty list": ('{"operations": |[]}', "expected a list of at least one operation"),
    "an unknown key": ('{|"timeout": 5, "operations": [' + OPERATION + "]}", "did you mean 'timeout_s'?"),
    "a doubled key": ('{"id": "a", |"id": "b", "operations": [' + OPERATION + "]}", "the key 'id' comes twice"),
    "two kinds": (
        '{"operations": [|{"participant": "p1", "read": {"table": "t", "key": 1}, "delete": {}}]}',
        "expected exactly one of",
    ),
    "an unknown kind": (
        '{"operations": [{"participant": "p1", |"inserts": {"table": "t", "key": 1, "values": {}}}]}',
        "did you mean 'insert'?",
    ),
    "a NULL in the key": (
        '{"operations": [{"participant": "p1", "read": {"table": "t", "key": |null}}]}',
        "a key is never NULL",
    ),
    "a number out of 64 bits": (
        '{"operations": [{"participant": "p1", "read": {"table": "t", "key": |9223372036854775808}}]}',
        "an integer has 64 bits",
    ),
    "NaN": (
        '{"operations": [{"participant": "p1", "add": {"table": "t", "key": 1, "column": "c", "by": |NaN}}]}',
        "a number must be finite",
    ),
    "an infinity": (
        '{"operations": [{"participant": "p1", "insert": {"table": "t", "key": 1, "values": {"c": |1e999}}}]}',
        "a number must be finite",
    ),
    "text where a number is due": (
        '{"operations": [{"participant": "p1", "add": {"table": "t", "key": 1, "column": "c", "by": |"5"}}]}',
        "expected a number, found text",
    ),
    "a timeout below zero": ('{"timeout_s": |-1, "operations": [' + OPERATION + "]}", "seconds above 0"),
    "an id taken by other content": (
        '{"id": "good", "operations": [' + OPERATION + "]}",
        "the id 'good' is that of line 1, with other operations",
    ),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_named_by_line_and_column_and_nothing_is_sent(
    cluster: Cluster, tmp_path: Path, case: str
) -> None:
    marked, said = BAD_LINES[case]
    line, column = marked.replace("|", "", 1), marked.find("|") + 1
    file = tmp_path / "orders.jsonl"
    file.write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    before = heard(cluster)
    found = troth(cluster, "submit", str(file), "--json")
    assert (found.returncode, found.stdout) == (2, "")
    assert f"{file}:2:{f'{column}:' if column else ''} " in found.stderr
    assert said in found.stderr
    assert "Traceback" not in found.stderr
    assert heard(cluster) == before
    assert "good" not in names(cluster, "p1")


def test_a_line_that_is_not_utf8_is_named_by_line_and_column(cluster: Cluster) -> None:
    found = troth(cluster, "submit", "-", input=GOOD.encode() + b'\n{"id": "\xff"}\n')
    assert found.returncode == 2
    assert "-:2:9: not UTF-8" in found.stderr
    assert "good" not in names(cluster, "p1")


BAD_TEXTS = {
    # The operation; what the message names.
    "p1 insert accounts/bad": "token 1: expected a participant and a colon",
    "p1: inser accounts/bad balance:=1": "insert",
    "p1: insert accounts balance:=1": "expected a row as table/key",
    "p1: insert accounts/bad balance": "token 4: expected column=text or column:=json, found 'balance'",
    "p1: insert accounts/bad balance:={": "not JSON",
    "p1: insert accounts/bad balance:=1 balance:=2": "column 'balance' is set twice",
    "p1: insert accounts/bad balance:=9223372036854775808": "64 bits",
    "p1: insert accounts/bad balance:=NaN": "finite",
    "p1: add accounts/bad balance many": "token 5: expected a number, found 'many'",
    "p1: add accounts/bad balance nan": "expected a number",
    "p1: add accounts/bad balance 1 mni=0": "expected min=NUMBER or max=NUMBER",
    "p1: delete accounts/bad now": "expected nothing more",
    "p1: check accounts/bad": "token 4: expected column=value",
    "p1: insert accounts/bad note='": "No closing quotation",
}


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_a_bad_operation_is_named_by_its_token_and_nothing_is_sent(cluster: Cluster, text: str) -> None:
    before = heard(cluster)
    found = troth(cluster, "submit", "-o", "p1: insert accounts/good balance:=1", "-o", text)
    assert (found.returncode, found.stdout) == (2, "")
    assert BAD_TEXTS[text] in found.stderr
    assert text.split()[-1] in found.stderr
    assert heard(cluster) == before


def test_the_same_id_twice_in_a_file_with_the_same_content_is_one_transaction(cluster: Cluster) -> None:
    id = new_id()
    line = json.dumps(
        {
            "id": id,
            "operations": [
                {"participant": "p1", "insert": {"table": "accounts", "key": id, "values": {"balance": 1}}},
                {"participant": "p2", "insert": {"table": "accounts", "key": id, "values": {"balance": 1}}},
            ],
        }
    )
    found = troth(cluster, "submit", "-", "--json", "--wait", "applied", input=f"{line}\n\n{line}\n")
    assert found.returncode == 0
    assert [(each["id"], each["outcome"]) for each in objects(found.stdout)] == [(id, "COMMITTED")]
    assert id in names(cluster, "p1") & names(cluster, "p2")


# What only a participant or the coordinator can see: an outcome with a reason, and nothing is done anywhere.

BAD_OPERATIONS: dict[str, tuple[Operation, str]] = {
    "unknown table": (op.insert("acounts", "x", {"balance": 1}), "no_such_table"),
    "Troth's own table": (op.delete("troth_meta", "identity"), "no_such_table"),
    "SQLite's own table": (op.delete("sqlite_schema", "accounts"), "no_such_table"),
    "unknown column": (account("x", balanze=1), "no_such_column"),
    "unknown column in add": (op.add("accounts", "x", "balanze", 1), "no_such_column"),
    "unknown column in check": (op.check("accounts", "x", "balanze", equals=1), "no_such_column"),
    "text for an integer": (account("x", balance="lots"), "wrong_type"),
    "a fraction for an integer": (account("x", balance=1.5), "wrong_type"),
    "bytes for text": (account("x", note=b"\xff"), "wrong_type"),
    "text for bytes": (op.insert("items", 1, {"picture": "x"}), "wrong_type"),
    "2 for a boolean": (op.insert("items", 1, {"sold": 2}), "wrong_type"),
    "an integer that a double cannot hold": (op.insert("items", 1, {"price": 2**53 + 1}), "wrong_type"),
    "64 bits and one more, as text": (account("x", balance="9223372036854775808"), "wrong_type"),
    "64 bits and one more, as a double": (account("x", balance=2.0**63), "wrong_type"),
    "a key out of 64 bits": (op.read("items", "9223372036854775808"), "wrong_type"),
    "a key with a fraction": (op.read("items", 17.5), "wrong_type"),
    "a key with a space": (op.read("items", " 17"), "wrong_type"),
    "a key with a leading zero": (op.read("items", "017"), "wrong_type"),
    "one key value of two": (op.read("stock", "berlin"), "bad_key"),
    "three key values of two": (op.read("stock", ["berlin", "hammer", "x"]), "bad_key"),
    "a key that is repeated otherwise": (account("x", name="y"), "bad_key"),
    "an update of the key": (op.update("accounts", "x", {"name": "y"}), "bad_key"),
    "add to text": (op.add("accounts", "x", "note", 1), "wrong_type"),
    "add to a key": (op.add("items", 1, "id", 1), "bad_operation"),
    "an operation of a user's own": (op.custom("transfer"), "bad_operation"),
    "a statement": (op.sql("UPDATE accounts SET balance = 0"), "bad_operation"),
    "NULL where it may not be": (account("x", balance=None), "not_null"),
    "no key": (Operation(table="accounts", insert=types_pb2.Insert()), "bad_key"),
    "a key that is nothing": (Operation(table="accounts", key=[Value()], read=types_pb2.Read()), "wrong_type"),
    "a key that is NULL": (Operation(table="accounts", key=[Value(null=True)], read=types_pb2.Read()), "bad_key"),
    "a check of nothing": (
        Operation(table="accounts", key=[Value(text="x")], check=types_pb2.Check()),
        "bad_operation",
    ),
}


def raw(table: str, key: Value, **values: Value) -> Operation:
    """An insert as our own client would not send it."""
    columns = [types_pb2.Column(name=name, value=value) for name, value in values.items()]
    return Operation(table=table, key=[key], insert=types_pb2.Insert(values=columns))


for what, number in (("NaN", math.nan), ("infinity", math.inf)):
    BAD_OPERATIONS |= {
        f"{what} for a real": (raw("items", Value(integer=1), price=Value(real=number)), "wrong_type"),
        f"{what} for an integer": (
            raw("accounts", Value(text="x"), balance=Value(integer=1), note=Value(real=number)),
            "wrong_type",
        ),
        f"{what} as a key": (raw("items", Value(real=number)), "wrong_type"),
        f"{what} to add": (
            Operation(table="items", key=[Value(integer=1)], add=types_pb2.Add(column="price", by=Value(real=number))),
            "wrong_type",
        ),
    }
BAD_OPERATIONS["a value that is nothing"] = (raw("items", Value(integer=1), price=Value()), "wrong_type")
BAD_OPERATIONS["text with NUL"] = (raw("accounts", Value(text="a\0b"), balance=Value(integer=1)), "wrong_type")


@pytest.mark.parametrize("what", BAD_OPERATIONS)
def test_a_bad_operation_aborts_with_its_reason_and_nothing_is_done(cluster: Cluster, what: str) -> None:
    operation, code = BAD_OPERATIONS[what]
    id = new_id()
    result = submit(cluster, Transaction(id).append("p2", account(id)).append("p1", operation))
    assert refused_with(result) == ("ABORTED", code)
    assert result.reason is not None
    assert (result.reason.participant, result.reason.operation, result.reason.retryable) == ("p1", 1, False)
    assert id not in names(cluster, "p2")


@pytest.mark.parametrize("what", BAD_OPERATIONS)
def test_a_bad_operation_alone_aborts_with_the_same_reason(cluster: Cluster, what: str) -> None:
    """One-phase, and read-only alone."""
    operation, code = BAD_OPERATIONS[what]
    assert refused_with(submit(cluster, Transaction().append("p1", operation))) == ("ABORTED", code)


def test_a_sum_out_of_64_bits_is_no_and_never_a_double(cluster: Cluster) -> None:
    id = new_id()
    committed(cluster, Transaction().append("p1", account(id, balance=2**63 - 1)))
    for alone in (True, False):
        over = Transaction().at("p1").add("accounts", id, "balance", 1)
        result = submit(cluster, over if alone else over.append("p2", account(new_id())))
        assert refused_with(result) == ("ABORTED", "above_max")
    where = "SELECT balance, typeof(balance) FROM accounts WHERE name = ?"
    assert cluster.rows("p1", where, id) == [(2**63 - 1, "integer")]


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "no branch": ({"branches": []}, "bad_request"),
    "a branch without operations": ({"branches": [types_pb2.Branch(participant="p1")]}, "bad_request"),
    "a branch without a participant": (
        {"branches": [types_pb2.Branch(operations=types_pb2.Operations(operations=[account("x")]))]},
        "bad_request",
    ),
    "an operation that says nothing": (
        {
            "branches": [
                types_pb2.Branch(participant="p1", operations=types_pb2.Operations(operations=[Operation(table="t")]))
            ]
        },
        "bad_request",
    ),
    "a participant twice": (
        {"branches": 2 * [types_pb2.Branch(participant="p1", operations={"operations": [account("x")]})]},
        "bad_request",
    ),
    "an unknown participant": (
        {"branches": [types_pb2.Branch(participant="p9", operations={"operations": [account("x")]})]},
        "unknown_participant",
    ),
    "a timeout that is not a number": ({"timeout_s": math.nan}, "bad_request"),
    "a timeout below zero": ({"timeout_s": -1.0}, "bad_request"),
    "a timeout without end": ({"timeout_s": math.inf}, "bad_request"),
    "an id with a line feed": ({"id": "a\nb"}, "bad_request"),
    "an id that is too long": ({"id": "x" * 201}, "bad_id"),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_a_bad_submission_is_refused_and_says_nothing_about_its_id(cluster: Cluster, what: str) -> None:
    """Rule 10: REFUSED leaves nothing behind."""
    fields, code = BAD_REQUESTS[what]
    good = Transaction().append("p1", account(new_id()))
    message = request(good)
    for name, value in fields.items():
        message.ClearField(name)
        if isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    assert refused_with(Result.of(cluster.commands.Submit(message, timeout=10))) == ("REFUSED", code)
    found = cluster.queries.Get(coordinator_pb2.GetRequest(id=message.id), timeout=10)
    assert found.state == coordinator_pb2.STATE_NOT_FOUND
    committed(cluster, good)


def test_an_unknown_participant_is_refused_by_the_command_with_3(cluster: Cluster) -> None:
    found = troth(cluster, "submit", "-o", "p1: insert accounts/x balance:=1", "-o", "p7: read accounts/x", "--json")
    assert found.returncode == 3
    (result,) = objects(found.stdout)
    assert (result["outcome"], result["reason"]["code"]) == ("REFUSED", "unknown_participant")
    assert "x" not in names(cluster, "p1")


# 17, "17" and 17.0.


def test_17_and_its_text_and_17_point_0_are_one_row_and_one_lock(cluster: Cluster) -> None:
    """A key is converted before the lock is taken: SQLite would find one row, under three locks."""
    committed(cluster, Transaction().at("p1").insert("items", 17, {"price": 1}))
    keys: tuple[str | float, ...] = ("17", 17.0)
    for key in keys:
        again = submit(cluster, Transaction().at("p1").insert("items", key, {"price": 2}))
        assert refused_with(again) == ("ABORTED", "row_exists")
    first = Transaction().at("p1").update("items", 17, {"price": 2}).append("p2", account(new_id()))
    waiting: list[Submitting] = []
    with undecided(cluster, first) as under_way:
        for count, key in enumerate(keys, 1):
            waiting.append(submitting(cluster, Transaction().at("p1").add("items", key, "price", 1)))
            wait_locks(cluster, "p1", waiting=count)
    assert [each.result().outcome for each in (under_way, *waiting)] == 3 * [Outcome.COMMITTED]
    assert cluster.rows("p1", "SELECT id, typeof(id), price FROM items WHERE id = 17") == [(17, "integer", 4.0)]
    assert troth(cluster, "read", "p1", "items/17").stdout == "p1 items/17 id=17 price=4.0 sold=null picture=null\n"


# Configuration.


@pytest.mark.parametrize(
    ("role", "key", "nearest"),
    [("coordinator", "vote_timeout", "vote_timeout_s"), ("participant", "lock_timeot_s", "lock_timeout_s")],
)
def test_an_unknown_key_of_a_configuration_file_is_refused_and_the_nearest_is_named(
    cluster: Cluster, tmp_path: Path, role: str, key: str, nearest: str
) -> None:
    config = tmp_path / "troth.toml"
    config.write_text(f'data = "."\nname = "p1"\n{key} = 5\n')
    found = troth(cluster, role, "--config", str(config), "--listen", "127.0.0.1:0")
    assert (found.returncode, found.stdout) == (2, "")
    assert f"{config}:3: unknown key '{key}'; did you mean '{nearest}'?" in found.stderr
    assert not list(tmp_path.glob("*.db"))


def test_a_pause_in_which_a_server_would_end_the_session_that_keeps_a_second_process_away_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    found = troth(cluster, "participant", "--name", "p1", "--data", str(tmp_path / "p1.db"), "--look-interval", "11s")
    assert (found.returncode, found.stdout) == (2, "")
    assert "look_interval is at most 10s, not 11s" in found.stderr
    assert not list(tmp_path.glob("*.db"))


# Logs.

MARKER = "xyzzy-7731"


def test_no_value_password_or_token_comes_into_any_log(new_cluster: NewCluster, tmp_path: Path) -> None:
    secrets = {
        f"TROTH_{role}_{name}": MARKER for role in ("COORDINATOR", "PARTICIPANT") for name in ("PASSWORD", "LISTENS")
    }
    flags = {name: ["--log-level", "debug"] for name in (COORDINATOR, "p1", "p2")}
    env = {**secrets, "TROTH_TOKEN": MARKER, "PGPASSWORD": MARKER}
    with new_cluster(participants=2, schema=SCHEMA, flags=flags, env=env) as cluster:
        good = Transaction().append("p1", account(MARKER, note=MARKER)).append("p2", account(MARKER, note=MARKER))
        committed(cluster, good)
        for bad in (
            account(MARKER, note=MARKER),
            account("x", balance=MARKER),
            op.read("items", MARKER),
            op.read(MARKER, 1),
            op.check("accounts", MARKER, "note", equals="other"),
        ):
            assert (
                submit(cluster, Transaction().append("p1", bad).append("p2", account("x"))).outcome is Outcome.ABORTED
            )
        # In doubt, recovered, and asked about.
        update = Transaction().at("p1").update("accounts", MARKER, {"note": MARKER + "2"}).append("p2", account("y"))
        with undecided(cluster, update):
            cluster.kill(COORDINATOR, "p1")
            cluster.start("p1")
        cluster.start(COORDINATOR)
        cluster.wait_settled()
        for name, text in cluster.logs().items():
            assert "serving" in text
            assert MARKER not in text, name
    config = tmp_path / "troth.toml"
    config.write_text(f'data = "."\ntoken = "{MARKER}"\n')
    found = troth(cluster, "coordinator", "--config", str(config))
    assert found.returncode == 2
    assert MARKER not in found.stderr
