"""The auditor on participants whose data are at a real server: clean as they are, each damage there named as what it
is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from faults.auditor import Audit, audit
from faults.servers import Database
from tests import audited
from tests.audited import change, value
from tests.cluster import COORDINATOR, Cluster, eventually
from tests.moves import NewCluster, wait_ended
from tests.submitting import command as troth_command
from tests.submitting import committed, submit, submitting, wait_in_doubt
from tests.test_crash_servers import KINDS as ENDS
from troth.operations import Transaction
from troth.words import AttemptId, Outcome

SCHEMA = """
CREATE TABLE accounts (name VARCHAR(20) PRIMARY KEY NOT NULL, balance BIGINT NOT NULL DEFAULT 0 CHECK (balance >= 0));
"""
AT_SERVER = """
CREATE TABLE goods (
    id UUID PRIMARY KEY, price NUMERIC(8, 2) NOT NULL, made {moment}, note VARCHAR(9) DEFAULT 'it''s', sold BOOLEAN,
    seen {moment} DEFAULT CURRENT_TIMESTAMP, weight {single}, pieces INT DEFAULT 7
);
CREATE TABLE notes (n INT PRIMARY KEY, words TEXT);
"""


class Kind(NamedTuple):
    """What is different at a server."""

    moment: str
    single: str
    goods: str
    """Another name of the table."""
    no: str | int
    """False, as its BOOLEAN takes it."""


KINDS = {
    "postgresql": Kind("TIMESTAMPTZ", "REAL", "public.GOODS", "false"),
    "mariadb": Kind("TIMESTAMP NULL", "FLOAT", "goods", 0),
}
THING = "0b0e6b3a-0d05-4a5f-9d0e-0123456789ab"

NewDatabase = Callable[[], Database]


class Ran(NamedTuple):
    """Files at rest with the database that goes with p2's."""

    folder: Path
    database: Database

    @property
    def kind(self) -> str:
        return self.database.server.name

    def audit(self) -> Audit:
        return audit([self.folder], databases={"p2": self.database.dsn})

    def found(self) -> list[tuple[int, str, str]]:
        """Of an audit: the exit code's findings as (exit code, rule, kind)."""
        found = self.audit()
        return [(found.exit_code, each.rule, each.kind) for each in found.contradictions or found.in_doubt]


HERE = [kind for kind in KINDS if importlib.util.find_spec(f"participant.resources.{kind}")]


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=getattr(pytest.mark, f"needs_{kind}")) for kind in HERE]
)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """p1 keeps its rows in its file. A test leaves the database as it finds it, and the files too."""
    database = request.getfixturevalue(request.param).create("audited")
    try:
        yield run(database, tmp_path_factory.mktemp("audited"))
    finally:
        database.drop()


def run(database: Database, folder: Path) -> Ran:
    kind = KINDS[database.server.name]
    for statement in (SCHEMA + AT_SERVER.format(moment=kind.moment, single=kind.single)).split(";")[:-1]:
        database.execute(statement)
    env = audited.KEEP_FINISHED
    with Cluster(folder, 2, schema=SCHEMA, history=True, env=env, databases={"p2": database}) as cluster:
        opened = Transaction("opening").at("p1").insert("accounts", "alice", {"balance": 100})
        committed(cluster, opened.at("p2").insert("accounts", "bob", {"balance": 100}))
        committed(cluster, move("order-1", 10))
        assert submit(cluster, move("order-2", 1000)).outcome is Outcome.ABORTED
        alone = Transaction().at("p2").add("accounts", "bob", "balance", 1)
        assert submit(cluster, alone, assigned=True).outcome is Outcome.COMMITTED
        goods = {"price": "12.5", "made": "2026-01-02T03:04:05+02:00", "sold": kind.no, "weight": 1.5}
        committed(cluster, Transaction("goods").at("p2").insert(kind.goods, THING.upper(), goods))
        committed(cluster, Transaction("dearer").at("p2").add("goods", THING, "price", 0.1))
        made = Transaction("notes").at("p2").insert("notes", 1, {"words": "a"})
        committed(cluster, made.sql("UPDATE notes SET words = %s", ["b"]))
        wait_ended(cluster)
        cluster.stop(COORDINATOR, "p1", "p2")
    return Ran(folder, database)


def move(id: str, amount: int) -> Transaction:
    made = Transaction(id).at("p1").add("accounts", "alice", "balance", -amount)
    return made.at("p2").add("accounts", "bob", "balance", amount)


def rows(found: Audit) -> str:
    return next(report.rows for report in found.files if report.name == "p2")


# At rest.


def test_files_and_their_server_are_clean_and_what_is_not_compared_is_said(ran: Ran) -> None:
    found = ran.audit()
    assert found.exit_code == 0, "\n".join(found.lines())
    assert found.outcomes == {"COMMITTED": 6, "ABORTED": 1}
    single = KINDS[ran.kind].single.lower()
    assert rows(found) == (
        "all agree with the history, kept from its first day: 1 known by it, 1 there before and known in the columns "
        "set since, 1 not judged, in tables that a statement (sql) may have changed; not compared: "
        f"goods.weight ({single})"
    )
    assert "0 prepared, 6 remembered as committed" in "\n".join(found.lines())


def test_a_server_that_is_not_named_is_no_clean_audit(ran: Ran) -> None:
    found = audit([ran.folder])
    assert (found.exit_code, found.contradictions) == (5, [])
    assert [finding.kind for finding in found.in_doubt] == ["not-looked-at"]
    assert f"the data of p2 are at {ran.kind} (" in found.in_doubt[0].sentence
    assert rows(found).startswith(f"not checked: they are at {ran.kind}")


def test_the_command_takes_the_server_by_an_option_or_by_the_environment(ran: Ran) -> None:
    named = f"p2={ran.database.dsn}"
    for arguments, variable in ((["--database", named], ""), ([], f"\n{named}\n")):
        env = {**os.environ, "TROTH_VERIFY_DATABASE": variable}
        command = troth_command("verify", str(ran.folder), *arguments)
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
    wrong = subprocess.run(troth_command("verify", str(ran.folder), "--database", "p2"), capture_output=True, text=True)
    assert (wrong.returncode, "it is NAME=DSN" in wrong.stderr) == (2, True)


def test_what_cannot_be_read_of_a_server_says_why(ran: Ran) -> None:
    def unreadable(name: str, dsn: str) -> str:
        found = audit([ran.folder], databases={name: dsn})
        assert found.exit_code == 2
        return " ".join(found.unreadable)

    server = ran.database.server
    other = server.create("elsewhere")
    try:
        assert f"goes with those in {ran.kind}" in unreadable("p2", other.dsn)
    finally:
        other.drop()
    assert f"they are at {ran.kind}, and the DSN given is of other" in unreadable(
        "p2", "other://root@127.0.0.1/audited"
    )
    assert f"{server.title}: " in unreadable("p2", f"{ran.kind}://postgres@127.0.0.1:1/audited")
    assert "the data of p2 are at a server" in unreadable("p1", ran.database.dsn)


BOB = "WHERE name = 'bob'"
DAMAGE: dict[str, tuple[str, str, tuple[int, str, str]]] = {
    "a row is changed": (
        f"UPDATE accounts SET balance = 999 {BOB}",
        f"UPDATE accounts SET balance = 111 {BOB}",
        (5, "rows", "row-changed"),
    ),
    "a decimal is changed": (
        "UPDATE goods SET price = price + 1",
        "UPDATE goods SET price = price - 1",
        (5, "rows", "row-changed"),
    ),
    "a moment is changed": (
        "UPDATE goods SET made = made + INTERVAL '1' HOUR",
        "UPDATE goods SET made = made - INTERVAL '1' HOUR",
        (5, "rows", "row-changed"),
    ),
    "a row is removed": (
        f"DELETE FROM accounts {BOB}",
        "INSERT INTO accounts VALUES ('bob', 111)",
        (5, "rows", "row-missing"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_changed_at_the_server_is_named(ran: Ran, damage: str) -> None:
    do, undo, wanted = DAMAGE[damage]
    ran.database.execute(do)
    try:
        assert ran.found() == [wanted]
    finally:
        ran.database.execute(undo)


def test_a_commit_that_the_server_does_not_remember_is_named(ran: Ran) -> None:
    identity = value(ran.folder / "p2.db", "SELECT value FROM troth_meta WHERE key = 'namespace'")
    number = value(ran.folder / "coordinator.db", "SELECT number FROM troth_transactions WHERE id = 'order-1'")
    change_at = "UPDATE troth_finished SET identity = '{}' WHERE number = {}"
    ran.database.execute(change_at.format("x", number))
    try:
        assert ran.found() == [(1, "durability", "server-behind")]
    finally:
        ran.database.execute(change_at.format(identity, number))


IN_LOG: dict[str, tuple[str, set[tuple[int, str, str]]]] = {
    "an outcome is flipped": (
        "UPDATE troth_finished SET outcome = 2",
        {(1, "rule 2", "torn"), (1, "rule 6", "two-states")},
    ),
    "an outcome and its history are removed": ("DELETE FROM troth_finished", {(1, "rule 7", "outcome-removed")}),
}


@pytest.mark.parametrize("damage", IN_LOG)
def test_what_is_changed_in_the_log_is_held_against_the_server(ran: Ran, tmp_path: Path, damage: str) -> None:
    statement, wanted = IN_LOG[damage]
    copied = Ran(audited.copy(ran.folder, tmp_path / "copy"), ran.database)
    number = value(copied.folder / "coordinator.db", "SELECT number FROM troth_transactions WHERE id = 'order-1'")
    if "removed" in damage:
        change(copied.folder / "p2.db", f"DELETE FROM troth_history WHERE number = {number}")
    change(copied.folder / "p2.db", f"{statement} WHERE number = {number}")
    assert wanted <= set(copied.found())


def test_a_one_phase_commit_that_was_not_written_down_is_in_doubt_and_its_rows_agree(ran: Ran, tmp_path: Path) -> None:
    copied = Ran(audited.copy(ran.folder, tmp_path / "copy"), ran.database)
    last = value(copied.folder / "coordinator.db", "SELECT number FROM troth_transactions WHERE id = 'dearer'")
    for table in ("troth_history", "troth_finished"):
        change(copied.folder / "p2.db", f"DELETE FROM {table} WHERE number = {last}")
    change(copied.folder / "p2.db", "UPDATE troth_history SET position = position - 1 WHERE position > 5")
    assert copied.found() == [(5, "rule 6", "no-record")]


# In the middle.


@pytest.fixture
def database(server_database: Database) -> Database:
    """With the table."""
    server_database.execute(SCHEMA)
    return server_database


@pytest.fixture
def in_doubt(database: Database, new_cluster: NewCluster) -> Iterator[tuple[Cluster, list[AttemptId]]]:
    """All are killed; three branches are prepared at p2, and nobody has decided them."""
    options = {"schema": SCHEMA, "history": True, "env": audited.KEEP_FINISHED}
    with new_cluster(2, databases={"p2": database}, **options) as cluster:
        committed(cluster, Transaction("first").at("p1").insert("accounts", "a").at("p2").insert("accounts", "a"))
        cluster.pause("p1")
        calls = [
            submitting(cluster, Transaction(name).at("p1").insert("accounts", name).at("p2").insert("accounts", name))
            for name in ("one", "two", "three")
        ]
        attempts = sorted(wait_in_doubt(cluster, "p2", 3))
        cluster.kill(COORDINATOR, "p1", "p2")
        del calls
        if ENDS[database.server.name].bound:
            database.server.kill()
            database.server.start()
        yield cluster, attempts


def named(database: Database, attempt: AttemptId) -> str:
    """The branch of that attempt, as statements name it at the server."""
    number = str(attempt.number)
    ends = f":{number}'", f"X'{number.encode().hex()}'"
    (name,) = [name for name in database.prepared() if name.endswith(ends)]
    return name


def commit_by_hand(database: Database, attempt: AttemptId) -> None:
    database.execute(ENDS[database.server.name].commit.format(named(database, attempt)))


def roll_back_by_hand(database: Database, attempt: AttemptId) -> None:
    database.execute(ENDS[database.server.name].rollback.format(named(database, attempt)))


def test_what_a_kill_left_and_what_a_person_does_to_it_at_the_server(
    in_doubt: tuple[Cluster, list[AttemptId]], tmp_path: Path
) -> None:
    (cluster, attempts), database = in_doubt, in_doubt[0].databases["p2"]
    killed = Ran(audited.copy(cluster.folder, tmp_path / "killed"), database)
    assert killed.found() == [(5, "rule 6", "prepared")] * 3
    alone = audit([killed.folder / "p2.db"], databases={"p2": database.dsn})
    assert {finding.kind for finding in alone.in_doubt} == {"prepared"}, alone.in_doubt

    log, p2 = attempts[0].log, killed.folder / "p2.db"
    assert len(database.prepared()) == len(attempts)

    commit_by_hand(database, attempts[0])
    assert (1, "rule 12", "ended-at-server") in killed.found()
    found = killed.audit()
    assert "somebody committed it there" in found.contradictions[0].sentence
    assert rows(found).startswith("all agree"), "what is committed and not written down is replayed"

    roll_back_by_hand(database, attempts[1])
    assert len(killed.found()) == 1, "its abort may have been carried out and not written down"
    coordinator = killed.folder / "coordinator.db"
    change(coordinator, _decided(coordinator), attempts[1].number)
    sentences = [each.sentence for each in killed.audit().contradictions if each.kind == "ended-at-server"]
    assert any("somebody rolled it back there" in sentence for sentence in sentences), sentences

    change(p2, "DELETE FROM troth_prepared WHERE number = ?", attempts[2].number)
    assert "no-record" in {each.kind for each in killed.audit().in_doubt}
    change(
        p2, "INSERT INTO troth_finished SELECT log, ?, 1 FROM troth_logs WHERE identity = ?", attempts[2].number, log
    )
    assert "server-behind" in {each.kind for each in killed.audit().contradictions}
    change(p2, "UPDATE troth_meta SET value = 'f00f00f00f00f00f' WHERE key = 'namespace'")
    assert any("has troth:" in note and "of another participant file" in note for note in killed.audit().notes)


def test_a_branch_that_a_person_committed_at_the_server_and_that_is_aborted_is_torn_by_hand_and_nothing_else(
    in_doubt: tuple[Cluster, list[AttemptId]],
) -> None:
    """The participant finds it at its next start, and its history must have what is in its rows."""
    (cluster, attempts), database = in_doubt, in_doubt[0].databases["p2"]
    commit_by_hand(database, attempts[0])
    ran = Ran(cluster.folder, database)
    cluster.start("p2")  # which takes it up, and hears nothing
    cluster.stop("p2")
    assert {kind for _, _, kind in ran.found()} == {"ended-at-server", "no-decision"}
    assert rows(ran.audit()).startswith("all agree")
    cluster.start(COORDINATOR, "p1", "p2")
    cluster.wait_lanes()
    eventually(lambda: cluster.rows("p2", "SELECT count(*) FROM troth_prepared") == [(0,)], "all is written down")
    cluster.stop(COORDINATOR, "p1", "p2")
    assert ran.found() == [(1, "rule 12", "torn-by-hand")]
    assert rows(ran.audit()).startswith("all agree with the history, kept from its first day: 2 known by it")


def _decided(path: Path) -> str:
    """The statement that decides a number, as it was for `first`."""
    with_number = value(path, "SELECT group_concat(name) FROM pragma_table_info('troth_transactions')").split(",")
    given = {"number": "?", "id": "'decided'", "ended_at": "NULL"}
    columns = ", ".join(given.get(name, name) for name in with_number)
    return f"INSERT INTO troth_transactions SELECT {columns} FROM troth_transactions WHERE id = 'first'"


def test_a_participant_at_work_is_not_audited(database: Database, tmp_path: Path) -> None:
    """As with files: what it does meanwhile would look like damage."""
    with Cluster(tmp_path / "run", 2, schema=SCHEMA, databases={"p2": database}) as cluster:
        cluster.pause("p2")
        copied = Ran(audited.copy(cluster.folder, tmp_path / "copy"), database)
        found = copied.audit()
        cluster.resume("p2")
    assert found.exit_code == 2
    assert "the participant is still at work there, " in " ".join(found.unreadable)
    eventually(lambda: copied.audit().exit_code == 0, "its sessions are gone")
