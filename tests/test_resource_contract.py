"""The contract suite over every resource of ours, and over bad ones, which must fail at the right promises."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from faults.conformance.outside import OutsideSubject, ServerContract
from faults.conformance.resource import OutsideContract, ResourceContract, Subject
from participant.resources import Resource
from participant.resources.sqlite import SQLiteResource
from tests.resources import bad, bad_servers
from tests.resources.counting import CountersSubject
from tests.resources.counting_server import ServerSubject
from tests.sqlite_tools import add, batch, encode, insert, open_like_the_log, read


class SQLiteSubject(Subject):
    """Two ordinary tables."""

    change = encode([insert("orders", 1, account="alice"), add("accounts", "alice", "balance", -10), read("orders", 1)])
    increment = encode([add("accounts", "alice", "balance", -30), add("accounts", "alice", "balance", 10)])
    look = encode([read("accounts", "alice"), read("accounts", "nobody")])
    denied = encode([insert("orders", 1), add("accounts", "alice", "balance", -101)])
    impossible = encode([read("accounts", "alice"), read("nowhere", 1)])
    aliases = (
        (encode([read("orders", 17)]), encode([read("ORDERS", "17")])),
        (encode([read("orders", 17)]), encode([read("orders", 17.0)])),
        (encode([insert("orders", 17, account="alice")]), encode([insert("orders", "17", Account="alice")])),
    )

    def __init__(self) -> None:
        self._connection = open_like_the_log(
            """CREATE TABLE accounts(id TEXT NOT NULL PRIMARY KEY, balance INTEGER CHECK (balance >= 0));
            CREATE TABLE orders(id INTEGER PRIMARY KEY, account TEXT REFERENCES accounts);
            INSERT INTO accounts VALUES('alice', 100);"""
        )

    def open(self) -> Resource:
        return SQLiteResource(self._connection)

    def state(self) -> Any:
        return [self._connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("accounts", "orders")]

    def batch(self) -> AbstractContextManager[None]:
        return batch(self._connection)


class TestSQLite(ResourceContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return SQLiteSubject()


class TestCounters(OutsideContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return CountersSubject()


class TestServerOfCounters(ServerContract):
    @pytest.fixture
    def subject(self) -> OutsideSubject:
        return ServerSubject()


@pytest.mark.parametrize("bad", [bad, bad_servers])
def test_a_bad_resource_fails_at_the_right_promises(tmp_path: Path, bad: ModuleType) -> None:
    """Rule by rule, as `pytest --troth` lists them: no bad resource passes, and none fails at a promise it keeps."""
    report = tmp_path / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=no",
        "--troth",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
    ]
    ran = subprocess.run([*command, f"--junit-xml={report}", str(bad.__file__)], capture_output=True, text=True)
    assert ran.returncode == 1, ran.stdout
    failed: dict[str, set[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None:
            failed.setdefault(case.attrib["classname"].rpartition(".")[2], set()).add(
                case.attrib["name"].partition("[")[0]
            )
    assert failed == {name: test.fails for name, test in vars(bad).items() if name.startswith("Test")}
    assert "Rule 5      violated" in ran.stdout
    assert "Rule 5      holds" in ran.stdout
