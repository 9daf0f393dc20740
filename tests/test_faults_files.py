"""Data files on real processes: in use by others, not the right one, too new or old, of another schema, a user's."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from tests.cluster import COORDINATOR, Cluster, Ended, eventually
from tests.submitting import (
    committed,
    objects,
    refused_with,
    submit,
    submitting,
    troth,
    undecided,
    wait_in_doubt,
)
from troth.operations import Transaction
from troth.process import EXIT_HELD, EXIT_REFUSED
from troth.v1 import participant_pb2
from troth.words import Outcome

SCHEMA = "CREATE TABLE accounts (name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0)) STRICT;"

NewCluster = Callable[..., Cluster]


def opened(name: str, *at: str) -> Transaction:
    """An account at these participants."""
    transaction = Transaction()
    for participant in at or ("p1", "p2"):
        transaction.at(participant).insert("accounts", name, {"balance": 100})
    return transaction


def names(cluster: Cluster, at: str) -> set[str]:
    return {name for (name,) in cluster.rows(at, "SELECT name FROM accounts")}


def refused(cluster: Cluster, name: str) -> str:
    """Starts a process whose file is refused; the last line that it said."""
    with pytest.raises(Ended) as ended:
        cluster.start(name)
    assert ended.value.code == EXIT_REFUSED
    assert "Traceback" not in ended.value.log
    return ended.value.log.splitlines()[-1]


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program that writes to a file: this one."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        yield connection


# Used by others.


@pytest.mark.parametrize("name", [COORDINATOR, "p1"])
def test_a_second_process_on_a_file_is_refused_and_names_the_first(new_cluster: NewCluster, name: str) -> None:
    with new_cluster(participants=1, schema=SCHEMA) as cluster:
        role = COORDINATOR if name == COORDINATOR else "participant"
        data = str(cluster[name].data)
        found = troth(cluster, role, "--name", name, "--data", data, "--listen", "127.0.0.1:0")
        assert (found.returncode, found.stdout) == (EXIT_HELD, "")
        assert f"in use by process {cluster[name].pid};" in found.stderr
        restoring = troth(cluster, "restore", data)
        assert restoring.returncode == 1
        assert f"in use by process {cluster[name].pid};" in restoring.stderr
        committed(cluster, opened("alice", "p1"))


@pytest.mark.parametrize("name", [COORDINATOR, "p1"])
def test_a_write_transaction_of_another_program_is_waited_for_with_its_name(new_cluster: NewCluster, name: str) -> None:
    """DESIGN section 4: "database is locked" at BEGIN is not a failure."""
    with new_cluster(participants=2, schema=SCHEMA) as cluster, writing(cluster[name].data) as other:
        other.execute("BEGIN IMMEDIATE")
        under_way = submitting(cluster, opened("alice"))
        eventually(lambda: "waiting for another program" in cluster.log(name), "a warning")
        assert f"process {os.getpid()} (" in warning(cluster, name)
        assert "holds a write transaction" in warning(cluster, name)
        assert not under_way.done
        other.execute("ROLLBACK")
        assert under_way.result().outcome is Outcome.COMMITTED
        assert names(cluster, "p1") == names(cluster, "p2") == {"alice"}


@pytest.mark.parametrize("name", [COORDINATOR, "p1"])
@pytest.mark.parametrize("what", ["BEGIN IMMEDIATE", "BEGIN; SELECT * FROM troth_meta"])
def test_at_start_what_another_program_holds_is_waited_for(new_cluster: NewCluster, name: str, what: str) -> None:
    """A reader keeps the checkpoint from ending, without any error: nothing is believed before it has gone."""
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        committed(cluster, opened("alice"))
        cluster.kill(name)
        assert (cluster.folder / f"{name}.db-wal").stat().st_size > 0
        with writing(cluster[name].data) as other:
            for statement in what.split("; "):
                other.execute(statement)
            cluster[name].launch((), cluster.env)
            eventually(lambda: "waiting for another program" in cluster.log(name), "a warning")
            assert f"process {os.getpid()} (" in warning(cluster, name)
            lives = cluster.log(name).count("serving")
            other.execute("ROLLBACK")
        cluster[name].wait_serving()
        eventually(lambda: cluster.log(name).count("serving") == lives + 1, "it serves")
        cluster.wait_lanes()
        committed(cluster, opened("bob"))


def test_a_read_transaction_of_another_program_holds_nothing_up(new_cluster: NewCluster) -> None:
    with new_cluster(participants=2, schema=SCHEMA) as cluster, writing(cluster["p1"].data) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM accounts").fetchone()
        committed(cluster, opened("alice"))
        assert reader.execute("SELECT count(*) FROM accounts").fetchone() == (0,)
        reader.execute("ROLLBACK")
        assert reader.execute("SELECT count(*) FROM accounts").fetchone() == (1,)


def warning(cluster: Cluster, name: str) -> str:
    return next(line for line in cluster.log(name).splitlines() if "waiting for another program" in line)


# Not the right file.


def prepared_file(path: Path, *statements: str) -> None:
    with writing(path) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_file_that_is_no_log_of_this_process_is_refused_by_name(new_cluster: NewCluster, tmp_path: Path) -> None:
    with new_cluster(participants=1, schema=SCHEMA) as cluster:
        committed(cluster, opened("alice", "p1"))
        cluster.stop(COORDINATOR, "p1")
        text = tmp_path / "text.db"
        text.write_text("no database at all " * 100)
        foreign, newer, old = (tmp_path / f"{name}.db" for name in ("foreign", "newer", "old"))
        prepared_file(foreign, "CREATE TABLE t (a)", "PRAGMA application_id = 42")
        prepared_file(old, "CREATE TABLE t (a)")
        shutil.copy(cluster["p1"].data, newer)
        prepared_file(newer, "PRAGMA user_version = 2")
        said = {
            cluster[COORDINATOR].data: "is the log of coordinator 'coordinator', not of participant 'p1'",
            text: "is not a SQLite database",
            foreign: "belongs to another program (its application_id is 0x2a)",
            newer: "is of format 2, made by a newer Troth; this one knows up to 1",
            old: "is a database that Troth did not make. Adopt it (--adopt)",
        }
        for path, why in said.items():
            before = path.read_bytes()
            found = troth(cluster, "participant", "--name", "p1", "--data", str(path), "--listen", "127.0.0.1:0")
            assert found.returncode == EXIT_REFUSED
            assert why in found.stderr
            assert path.read_bytes() == before, f"{path} was changed"
        for path in (cluster["p1"].data, newer):
            found = troth(cluster, "coordinator", "--data", str(path), "--listen", "127.0.0.1:0")
            assert found.returncode == EXIT_REFUSED


# Restored from a copy.


def copied(cluster: Cluster, *names: str) -> Callable[[], None]:
    """Copies the files of these (stopped meanwhile), and gives what puts them back (while they are stopped)."""
    cluster.stop(*names)
    for name in names:
        shutil.copy(cluster[name].data, cluster.folder / f"{name}.copy")
    cluster.start(*names)
    cluster.wait_lanes()

    def put_back() -> None:
        for name in names:
            for ending in ("-wal", "-shm"):
                Path(f"{cluster[name].data}{ending}").unlink(missing_ok=True)
            shutil.copy(cluster.folder / f"{name}.copy", cluster[name].data)

    return put_back


def test_an_older_copy_of_a_participants_file_is_refused_on_hello_and_restore_mends_it(new_cluster: NewCluster) -> None:
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        committed(cluster, opened("alice"))
        put_back = copied(cluster, "p1")
        committed(cluster, opened("bob"))
        cluster.stop("p1")
        put_back()
        cluster["p1"].launch((), cluster.env)
        assert cluster["p1"].wait() == EXIT_REFUSED
        said = cluster.log("p1").splitlines()[-1]
        assert "p1.db is older than what the coordinator of log" in said
        assert "it was restored from an older copy. Use `troth restore`" in said
        found = troth(cluster, "restore", str(cluster["p1"].data))
        assert found.returncode == 0
        cluster.start("p1")
        cluster.wait_lanes()
        # What is gone is gone; what comes is whole.
        assert (names(cluster, "p1"), names(cluster, "p2")) == ({"alice"}, {"alice", "bob"})
        committed(cluster, opened("carol"))
        cluster.restart("p1", COORDINATOR)
        cluster.wait_lanes()
        committed(cluster, opened("dave"))
        assert names(cluster, "p2") - names(cluster, "p1") == {"bob"}


def test_an_older_copy_of_the_coordinators_file_is_refused_on_hello_and_restore_mends_it(
    new_cluster: NewCluster,
) -> None:
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        first = opened("alice")
        committed(cluster, first)
        put_back = copied(cluster, COORDINATOR)
        lost = opened("bob")
        committed(cluster, lost)
        cluster.stop(COORDINATOR)
        put_back()
        cluster[COORDINATOR].launch((), cluster.env)
        assert cluster[COORDINATOR].wait() == EXIT_REFUSED
        assert "it was restored from an older copy. Use `troth restore`" in cluster.log(COORDINATOR).splitlines()[-1]
        assert troth(cluster, "restore", str(cluster[COORDINATOR].data)).returncode == 0
        cluster.start(COORDINATOR)
        cluster.wait_lanes()
        assert submit(cluster, first).outcome is Outcome.COMMITTED
        # It may have run since the copy was made, so it is never run again.
        assert refused_with(submit(cluster, lost)) == ("REFUSED", "id_expired")
        committed(cluster, opened("carol"))
        assert names(cluster, "p1") == names(cluster, "p2") == {"alice", "bob", "carol"}


def test_a_whole_folder_that_was_put_back_goes_on_after_restore(new_cluster: NewCluster) -> None:
    """Cold backup: stop, copy the whole folder, restore it whole."""
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        committed(cluster, opened("alice"))
        put_back = copied(cluster, *cluster.processes)
        committed(cluster, opened("bob"))
        cluster.stop(*cluster.processes)
        put_back()
        found = troth(cluster, "restore", str(cluster.folder))
        assert (found.returncode, found.stdout.count(" became ")) == (0, 3)
        cluster.start(*cluster.processes)
        cluster.wait_lanes()
        committed(cluster, opened("carol"))
        assert names(cluster, "p1") == names(cluster, "p2") == {"alice", "carol"}
        assert troth(cluster, "status").returncode == 0


def test_a_restored_participant_learns_the_outcome_of_what_is_prepared_and_a_person_settles_what_it_is_owed(
    new_cluster: NewCluster,
) -> None:
    """The branch asks under its old attempt; the new file does not answer for what the old one owes."""
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        first = opened("alice")
        with undecided(cluster, first, wait_applied=False) as under_way:
            cluster.kill("p1")
            assert troth(cluster, "restore", str(cluster["p1"].data)).stdout.count("is prepared and in doubt here") == 1
            cluster.start("p1")
            assert cluster.in_doubt("p1") == 1
        assert under_way.result().outcome is Outcome.COMMITTED
        eventually(lambda: names(cluster, "p1") == names(cluster, "p2") == {"alice"}, "both have applied")
        (owed,) = objects(troth(cluster, "unresolved", "--json").stdout)
        assert (owed["id"], owed["participant"], owed["kind"]) == (first.id, "p1", "owed commit")
        assert "can answer, and p1 is file" in owed["why"]
        by_hand = ("--participant", "p1", "--gone", "--reason", "the row is there", "--yes")
        contradicting = troth(cluster, "resolve", first.id, "abort", *by_hand)
        assert (contradicting.returncode, "contradicts the decision" in contradicting.stderr) == (1, True)
        assert troth(cluster, "resolve", first.id, "commit", *by_hand).returncode == 0
        assert troth(cluster, "get", first.id, "--json").returncode == 0


def test_a_coordinators_file_that_owes_is_restored_only_by_force_and_a_person_settles_it(
    new_cluster: NewCluster,
) -> None:
    with new_cluster(participants=1, schema=SCHEMA) as cluster:
        cluster.pause("p1")
        first = opened("alice", "p1")
        under_way = submitting(cluster, first)
        eventually(lambda: troth(cluster, "get", first.id).returncode == 4, "it is sent")
        cluster.kill(COORDINATOR)
        with pytest.raises(grpc.RpcError):
            under_way.result()
        data = str(cluster[COORDINATOR].data)
        found = troth(cluster, "restore", data)
        assert found.returncode == 1
        assert f"still owes 1 transactions: {first.id} is not ended at p1" in found.stderr
        assert troth(cluster, "restore", data, "--force").returncode == 0
        cluster.resume("p1")
        cluster.start(COORDINATOR)
        cluster.wait_lanes()
        (unresolved,) = objects(troth(cluster, "unresolved", "--json").stdout)
        assert (unresolved["id"], unresolved["kind"]) == (first.id, "one-phase")
        # Whether the request had reached p1 before the coordinator died, only a person who looks can tell.
        ran = names(cluster, "p1") == {"alice"}
        word, outcome = ("commit", Outcome.COMMITTED) if ran else ("abort", Outcome.ABORTED)
        by_hand = ("resolve", first.id, word, "--participant", "p1", "--gone", "--reason", "seen", "--yes")
        assert troth(cluster, *by_hand).returncode == 0
        assert submit(cluster, first).outcome == outcome
        assert troth(cluster, "clear", first.id, "--participant", "p1", "--reason", "done", "--yes").returncode == 0
        assert troth(cluster, "unresolved", "--json").stdout == ""


# Schemas.


def test_a_schema_that_differs_from_an_existing_file_is_refused_and_the_differences_are_named(
    new_cluster: NewCluster,
) -> None:
    with new_cluster(participants=1, schema=SCHEMA) as cluster:
        committed(cluster, opened("alice", "p1"))
        cluster.stop("p1")
        schema = cluster.folder / "schema.sql"
        schema.write_text(SCHEMA.replace(">= 0", ">= -5") + "CREATE TABLE orders (id INTEGER PRIMARY KEY);")
        said = refused(cluster, "p1")
        assert "table accounts: CHECK (balance >= - 5) is missing; table accounts: CHECK (balance >= 0) is new" in said
        assert "table orders is missing" in said
        schema.write_text("-- the same\n" + SCHEMA.replace(" ", "\n"))
        cluster.start("p1")
        cluster.wait_lanes()
        committed(cluster, opened("bob", "p1"))
        cluster.stop("p1")
        schema.write_text("CREATE TABLE accounts (name TEXT PRIMARY KEY")
        assert "syntax error" in refused(cluster, "p1")


def test_a_schema_file_that_cannot_be_used_leaves_no_half_made_file(new_cluster: NewCluster) -> None:
    cluster = new_cluster(participants=1, schema=SCHEMA + "CREATE TABLE accounts (twice TEXT);")
    assert "already exists" in refused(cluster, "p1")
    (cluster.folder / "schema.sql").write_text(SCHEMA)
    with cluster:
        committed(cluster, opened("alice", "p1"))


def test_a_schema_that_changed_while_branches_are_prepared_keeps_the_participant_from_serving(
    new_cluster: NewCluster,
) -> None:
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        command = cluster["p1"].command
        at = command.index("--schema")
        del command[at : at + 2]  # Else that is compared first.
        with undecided(cluster, opened("alice")) as under_way:
            cluster.kill("p1")
            prepared_file(cluster["p1"].data, "ALTER TABLE accounts ADD COLUMN note TEXT NOT NULL DEFAULT ''")
            said = refused(cluster, "p1")
            assert "the schema changed while branches are prepared" in said
            assert "table accounts: column note" in said
            prepared_file(cluster["p1"].data, "ALTER TABLE accounts DROP COLUMN note")
            cluster.start("p1")
        under_way.result()
        cluster.wait_settled()
        cluster.wait_lanes()
        assert names(cluster, "p1") == names(cluster, "p2")
        # With nothing prepared, it may.
        cluster.stop("p1")
        prepared_file(cluster["p1"].data, "ALTER TABLE accounts ADD COLUMN note TEXT NOT NULL DEFAULT ''")
        cluster.start("p1")
        cluster.wait_lanes()
        committed(cluster, opened("carol"))


# A user's own database.

SHOP = """
CREATE TABLE accounts (name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0));
INSERT INTO accounts VALUES ('old', 7);
CREATE TABLE loose (a, b);
CREATE TABLE audit (id INTEGER PRIMARY KEY, what TEXT);
CREATE TABLE watched (id INTEGER PRIMARY KEY, n INTEGER);
CREATE TRIGGER watch AFTER UPDATE ON watched BEGIN INSERT INTO audit (what) VALUES ('updated'); END;
CREATE TABLE parents (id INTEGER PRIMARY KEY);
CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents (id) ON DELETE CASCADE);
CREATE TABLE nocase (name TEXT COLLATE NOCASE PRIMARY KEY NOT NULL);
CREATE VIEW rich AS SELECT name FROM accounts WHERE balance > 100;
"""

NOT_SERVED = {
    "loose": "no primary key",
    "watched": "trigger",
    "children": "CASCADE",
    "parents": "CASCADE",
    "nocase": "a collation other than BINARY",
    "rich": "view",
}


def users_database(path: Path, sql: str = SHOP) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


def test_a_users_database_is_adopted_and_the_tables_that_cannot_be_served_are_named(new_cluster: NewCluster) -> None:
    cluster = new_cluster(participants=1, flags={"p1": ["--adopt"]})
    users_database(cluster["p1"].data)
    with cluster:
        tables = cluster.participant("p1").Tables(participant_pb2.TablesRequest(), timeout=10).tables
        assert {table.name for table in tables if not table.not_served} == {"accounts", "audit"}
        log = cluster.log("p1")
        for name, why in NOT_SERVED.items():
            (said,) = [table.not_served for table in tables if table.name == name]
            assert why in said
            assert f"table={name}" in log
        assert "every row against its NOT NULLs" in log
        committed(cluster, Transaction().at("p1").add("accounts", "old", "balance", 1))
        for name in ("watched", "rich"):
            result = submit(cluster, Transaction().at("p1").update(name, 1, {"n": 1}))
            assert refused_with(result) == ("ABORTED", "table_not_served")
        # Adopted once; the flag may stay and may go.
        cluster.restart("p1")
        del cluster["p1"].command[cluster["p1"].command.index("--adopt")]
        cluster.restart("p1")
        cluster.wait_lanes()
        committed(cluster, Transaction().at("p1").add("accounts", "old", "balance", 1))
        assert cluster.rows("p1", "SELECT * FROM accounts") == [("old", 9)]
        assert cluster.rows("p1", "SELECT name FROM sqlite_schema WHERE type = 'trigger'") == [("watch",)]


BAD_ROWS = {
    "a row without its parent": (
        "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (id INTEGER PRIMARY KEY, a REFERENCES a (id));"
        "PRAGMA foreign_keys = OFF; INSERT INTO b VALUES (1, 5);",
        "b: a row has a foreign key to a row of a that is not there",
    ),
    "a CHECK that does not hold": (
        "CREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER CHECK (n > 0));"
        "PRAGMA ignore_check_constraints = ON; INSERT INTO a VALUES (1, -1);",
        "CHECK constraint failed in a",
    ),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_database_whose_rows_break_its_own_rules_is_not_adopted_and_not_changed(
    new_cluster: NewCluster, what: str
) -> None:
    cluster = new_cluster(participants=1, flags={"p1": ["--adopt"]})
    sql, why = BAD_ROWS[what]
    users_database(cluster["p1"].data, sql)
    before = cluster["p1"].data.read_bytes()
    said = refused(cluster, "p1")
    assert "its rows break its own rules" in said
    assert why in said
    assert cluster["p1"].data.read_bytes() == before


# Tables from a first row.


def test_create_makes_tables_from_the_first_row_as_a_durable_step_of_its_own(new_cluster: NewCluster) -> None:
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        operations = [
            *("-o", "p1: insert orders/17 item=hammer pieces:=2 price:=2.5 paid:=false note:=null"),
            *("-o", "p2: insert stock/berlin/hammer pieces:=8"),
            *("-o", "p1: insert accounts/alice balance:=-1"),
        ]
        keys = ["--key", "stock=city,item"]
        assert troth(cluster, "submit", *operations).returncode == 3
        found = troth(cluster, "submit", "--create", *keys, *operations)
        assert found.returncode == 3, "the CHECK of accounts says no"
        assert sorted(found.stderr.splitlines()[:2]) == ["created table p1 orders", "created table p2 stock"]
        cluster.kill("p1", "p2")
        for name in cluster.participants:
            assert cluster.rows(name, "SELECT count(*) FROM accounts") == [(0,)]
        cluster.start("p1", "p2")  # --schema names no such tables: that is no difference.
        cluster.wait_lanes()
        again = troth(cluster, "submit", "--create", *keys, *operations[:4], "--wait", "applied")
        assert (again.returncode, again.stderr) == (0, "")
        columns = "SELECT name, type, pk FROM pragma_table_info(?)"
        stock = [("city", "TEXT", 1), ("item", "TEXT", 2), ("pieces", "INTEGER", 0)]
        assert cluster.rows("p1", columns, "orders") == [
            ("id", "TEXT", 1),
            ("item", "TEXT", 0),
            ("note", "TEXT", 0),
            ("paid", "BOOLEAN", 0),
            ("pieces", "INTEGER", 0),
            ("price", "REAL", 0),
        ]
        assert cluster.rows("p2", columns, "stock") == stock
        assert cluster.rows("p1", "SELECT * FROM orders") == [("17", "hammer", None, 0, 2, 2.5)]
        bad = troth(cluster, "submit", "--create", "-o", "p1: insert troth_x/1 a=b")
        assert bad.returncode == 2
        assert "cannot be called 'troth_x'" in bad.stderr


def test_a_table_made_while_branches_are_prepared_does_not_keep_the_participant_from_starting(
    new_cluster: NewCluster,
) -> None:
    """Troth's own changes of the schema are known to the next start."""
    with new_cluster(participants=2, schema=SCHEMA) as cluster:
        with undecided(cluster, opened("alice")) as under_way:
            made = troth(cluster, "submit", "--create", "-o", "p1: insert orders/1 item=hammer")
            assert made.returncode == 0, made.stderr
            cluster.kill("p1")
            cluster.start("p1")
            wait_in_doubt(cluster, "p1")
        under_way.result()
        cluster.wait_settled()
        assert names(cluster, "p1") == names(cluster, "p2")
