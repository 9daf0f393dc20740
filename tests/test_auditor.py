"""The auditor on files of a real run: clean as they are, and each damage done to them by hand named as what it is."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from faults.auditor import Audit, Verdict, audit
from participant.opening import open_file
from tests import audited
from tests.audited import change, value
from tests.submitting import command as troth_command
from troth.log import LogFile
from troth.words import number_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return audited.make(tmp_path_factory.mktemp("audited"))


@pytest.fixture
def stopped(run: tuple[Path, Path], tmp_path: Path) -> Path:
    """Everything has ended; to be damaged."""
    return audited.copy(run[0], tmp_path / "stopped")


@pytest.fixture
def killed(run: tuple[Path, Path], tmp_path: Path) -> Path:
    """Killed in the middle; to be damaged."""
    return audited.copy(run[1], tmp_path / "killed")


def kinds(found: Audit) -> set[str]:
    return {finding.kind for finding in found.contradictions}


def the_only(found: Audit, kind: str) -> str:
    """The sentence of the one contradiction, which is of this kind."""
    assert [finding.kind for finding in found.contradictions] == [kind], list(found.lines())
    assert found.exit_code == 1
    return found.contradictions[0].sentence


# As they are.


def test_files_at_rest_are_clean_and_stay_as_they_are(stopped: Path) -> None:
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    found = audit([stopped])
    assert (found.exit_code, found.contradictions, found.in_doubt, found.unreadable) == (0, [], [], [])
    assert found.outcomes == {"COMMITTED": 6, "ABORTED": 1}
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before
    rows = {report.name: report.rows for report in found.files}
    assert rows["p1"] == "all agree with the history, kept from its first day: 1 known by it"
    assert rows["p2"] == "all agree with the history, kept from its first day: 2 known by it"
    assert rows["p3"] == "not checked: no history is kept (--history)"


def test_what_kill_9_left_is_in_doubt_and_is_read_from_the_write_ahead_log(killed: Path) -> None:
    before = {path.name: path.read_bytes() for path in killed.iterdir()}
    assert "p1.db-wal" in before
    found = audit([killed])
    assert (found.exit_code, found.contradictions) == (5, [])
    assert {path.name: path.read_bytes() for path in killed.iterdir()} == before
    doubts = {(finding.kind, finding.id): finding.sentence for finding in found.in_doubt}
    assert set(doubts) == {("prepared", "order-5"), ("prepared", ""), ("one-phase", "order-7")}
    assert "COMMITTED by coordinator.db" in doubts["prepared", "order-5"]
    assert "ABORTED (presumed abort)" in doubts["prepared", ""]
    assert "only p1 can say" in doubts["one-phase", "order-7"]


def test_any_subset_of_the_files_will_do(killed: Path) -> None:
    participants = audit([killed / "p1.db", killed / "p2.db"])
    assert (participants.exit_code, participants.contradictions) == (5, [])
    said = {finding.sentence for finding in participants.in_doubt}
    assert any("COMMITTED by p2.db" in sentence for sentence in said), said
    assert any("the log of its coordinator" in sentence for sentence in said), said
    assert list(participants.absent.values()) == [9]
    alone = audit([killed / "coordinator.db"])
    assert sum(alone.absent.values()) == 13, alone.absent
    assert {finding.kind for finding in alone.in_doubt} == {"owed", "one-phase"}
    assert audit([killed / "p3.db"]).exit_code == 0


# Damage, one at a time: what is done, and the only kind of contradiction that is found.

Damage = Callable[[Path], None]


def sql(name: str, statement: str) -> Damage:
    """Behind the back of the owner of NAME.db."""
    return lambda folder: change(folder / f"{name}.db", statement)


def of(name: str, id: str, statement: str) -> Damage:
    """The same for the records of one transaction, by the number that the coordinator has for it."""

    def damage(folder: Path) -> None:
        number = value(folder / "coordinator.db", "SELECT number FROM troth_transactions WHERE id = ?", id)
        change(folder / f"{name}.db", f"{statement} WHERE number = {number}")

    return damage


GARBLED = "damaged-record"
DECISION, OUTCOME = "troth_transactions", "troth_finished"
LATER = number_of(9, 1)
PREPARE = f"INSERT INTO troth_prepared VALUES (1, {number_of(1, 30)}, x'ff', '[]', 0.0)"

ENDED: dict[str, tuple[Damage, str]] = {
    "an outcome is flipped": (of("p3", "opening", f"UPDATE {OUTCOME} SET outcome = 2"), "torn"),
    "a decision is flipped": (of("coordinator", "order-1", f"UPDATE {DECISION} SET state = 2"), "torn"),
    "an abort is flipped": (of("coordinator", "order-2", f"UPDATE {DECISION} SET state = 1"), "torn"),
    "a decision is removed": (of("coordinator", "order-1", f"DELETE FROM {DECISION}"), "no-decision"),
    "an outcome is removed": (of("p3", "closing", f"DELETE FROM {OUTCOME}"), "lost"),
    "an outcome is removed, its history stays": (of("p1", "order-1", f"DELETE FROM {OUTCOME}"), "outcome-removed"),
    "a row is changed": (sql("p2", "UPDATE accounts SET balance = 999 WHERE name = 'bob'"), "row-changed"),
    "a boolean is changed": (sql("p1", "UPDATE accounts SET open = 1"), "row-changed"),
    "a row is removed": (sql("p2", "DELETE FROM accounts WHERE name = 'dora'"), "row-missing"),
    "a row is added": (sql("p1", "INSERT INTO accounts VALUES ('zoe', 1, 1)"), "row-unexplained"),
    "a decision names nobody": (of("coordinator", "order-3", f"UPDATE {DECISION} SET branches = '[]'"), "not-named"),
    "a decision is garbled": (of("coordinator", "order-3", f"UPDATE {DECISION} SET branches = '?'"), GARBLED),
    "an outcome is none": (of("p3", "closing", f"UPDATE {OUTCOME} SET outcome = 7"), GARBLED),
    "a vote says not what to do": (sql("p1", PREPARE), GARBLED),
    "an abort has not ended": (sql("coordinator", f"UPDATE {DECISION} SET ended_at = NULL WHERE state = 2"), GARBLED),
    "a reason is none": (sql("coordinator", f"UPDATE {DECISION} SET reason = x'ff' WHERE state = 2"), GARBLED),
    "a name is changed": (sql("p3", "UPDATE troth_meta SET value = 'p4' WHERE key = 'name'"), "renamed"),
    "a number is none": (sql("p1", "UPDATE troth_history SET number = 'x'"), "damaged"),
    "a table is gone": (sql("p1", f"DROP TABLE {OUTCOME}"), "damaged"),
    "the role is gone": (sql("p1", "DELETE FROM troth_meta WHERE key = 'role'"), "damaged"),
    "a record is of no log": (sql("p3", f"UPDATE {OUTCOME} SET log = 9"), "damaged"),
    "an epoch has not been": (sql("p2", f"UPDATE {OUTCOME} SET number = {LATER} WHERE outcome = 2"), "not-issued"),
    "a counter goes back": (sql("p1", "UPDATE troth_meta SET value = 1 WHERE key = 'durable'"), "older-than-seen"),
}


@pytest.mark.parametrize(("damage", "kind"), list(ENDED.values()), ids=list(ENDED))
def test_damage_to_files_at_rest_is_named(stopped: Path, damage: Damage, kind: str) -> None:
    damage(stopped)
    the_only(audit([stopped]), kind)


MARK = f"INSERT INTO troth_marks VALUES (1, {number_of(2, 99)}, '[]')"

IN_DOUBT: dict[str, tuple[Damage, str]] = {
    "a vote is removed": (of("p1", "order-5", "DELETE FROM troth_prepared"), "lost"),
    "a decision is removed": (of("coordinator", "order-5", f"DELETE FROM {DECISION}"), "no-decision"),
    "a decision ends early": (of("coordinator", "order-5", f"UPDATE {DECISION} SET ended_at = 1"), "ended-early"),
    "a decision is flipped": (of("coordinator", "order-5", f"UPDATE {DECISION} SET state = 2, ended_at = 1"), "torn"),
    "a commit becomes one-phase": (of("coordinator", "order-5", f"UPDATE {DECISION} SET state = 0"), "two-states"),
    "a mark passes what is open": (sql("p3", MARK), "mark-early"),
}


@pytest.mark.parametrize(("damage", "kind"), list(IN_DOUBT.values()), ids=list(IN_DOUBT))
def test_damage_to_what_is_in_doubt_is_named(killed: Path, damage: Damage, kind: str) -> None:
    damage(killed)
    assert kinds(audit([killed])) == {kind}


def test_a_branch_that_is_prepared_and_ended_at_once_is_named(killed: Path) -> None:
    columns = "log, number, 1 FROM troth_prepared"
    change(killed / "p1.db", f"INSERT INTO troth_finished SELECT {columns} ORDER BY number DESC LIMIT 1")
    assert "prepared, finished COMMITTED at once" in the_only(audit([killed]), "two-states")


def test_a_history_entry_that_is_doubled_is_named(stopped: Path) -> None:
    last = "FROM troth_history ORDER BY position DESC LIMIT 1"
    change(stopped / "p1.db", f"INSERT INTO troth_history SELECT position + 1, log, number, operations, at {last}")
    assert kinds(audit([stopped])) == {"applied-twice", "row-changed"}


def test_a_history_entry_that_is_gone_is_named(stopped: Path) -> None:
    change(stopped / "p2.db", "DELETE FROM troth_history WHERE position = 1")
    assert kinds(audit([stopped])) == {"history-gap", "history-impossible", "row-unexplained"}


def test_an_id_with_two_outcomes_is_named(stopped: Path) -> None:
    change(stopped / "coordinator.db", "DROP INDEX troth_transactions_id")
    change(stopped / "coordinator.db", "UPDATE troth_transactions SET id = 'order-1' WHERE id = 'order-2'")
    assert "'order-1' has more than one outcome" in the_only(audit([stopped]), "id-twice")


def test_a_torn_heuristic_is_named_until_a_person_has_dealt_with_it(killed: Path) -> None:
    """p1's branch of order-5 was resolved as ABORTED; order-5 is COMMITTED."""
    number = value(killed / "coordinator.db", "SELECT number FROM troth_transactions WHERE id = 'order-5'")
    columns = "log, number, 2, NULL, peers, operations, at FROM troth_prepared"
    change(killed / "p1.db", f"INSERT INTO troth_heuristic SELECT {columns} WHERE number = {number}")
    change(killed / "p1.db", f"DELETE FROM troth_prepared WHERE number = {number}")
    assert "resolved its branch at p1.db as ABORTED: torn by hand" in the_only(audit([killed]), "torn-by-hand")


# One record at a time: all that decides anything between the files, and what is left when it is gone.

DECISIVE = {
    "coordinator": {"troth_transactions": ("number", "state", "branches")},
    "p1": {
        "troth_prepared": ("number", "log"),
        "troth_finished": ("number", "outcome"),
        "accounts": ("balance", "open"),
    },
    "p2": {
        "troth_finished": ("number", "outcome"),
        "troth_history": ("number", "operations"),
        "accounts": ("balance",),
    },
    "p3": {"troth_finished": ("number", "outcome", "log")},
}
CHANGES = {"branches": "'[]'", "operations": "x''"}
"""What a field becomes; any other is one more than it was."""

LEGAL = [
    ("coordinator", "troth_transactions", "id IN ('order-2', 'order-3', 'order-7')"),
    ("p1", "troth_prepared", "number NOT IN (SELECT number FROM troth_prepared ORDER BY number DESC LIMIT 1)"),
    ("p2", "troth_finished", "outcome = 2"),
]
"""Records that may be absent, or another's: an ABORTED, one-phase commits, a vote on what nobody has decided."""
SAMPLE = 40


def mutations(folder: Path) -> list[tuple[str, str]]:
    """The file, and one statement that removes a record or changes a field of it."""
    made = []
    for name, tables in DECISIVE.items():
        for table, fields in tables.items():
            legal = " OR ".join(f"({rule})" for where, of, rule in LEGAL if (where, of) == (name, table)) or "0"
            key = {"accounts": "name", "troth_history": "position"}.get(table, "number")
            with closing(sqlite3.connect(folder / f"{name}.db")) as connection:
                rows = connection.execute(f"SELECT {key} FROM {table} WHERE NOT ({legal})").fetchall()
            for (found,) in rows:
                where = f"WHERE {key} = {found!r}"
                made.append((name, f"DELETE FROM {table} {where}"))
                for field in fields:
                    value = CHANGES.get(field, f"{field} + 1")
                    made.append((name, f"UPDATE OR REPLACE {table} SET {field} = {value} {where}"))
    return made


def test_any_one_record_that_is_removed_or_changed_is_found(run: tuple[Path, Path], tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    everything = [(folder, *each) for folder in run for each in mutations(audited.copy(folder, tmp_path / folder.name))]
    for n, (folder, name, statement) in enumerate(chance.sample(everything, SAMPLE)):
        damaged = audited.copy(folder, tmp_path / str(n))
        change(damaged / f"{name}.db", statement)
        found = audit([damaged])
        assert found.exit_code == 1, f"seed {seed}: {folder.name}/{name}.db: {statement}"


# Whole files.


def test_a_truncated_file_is_named(stopped: Path) -> None:
    path = stopped / "p1.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "p1.db is damaged" in the_only(audit([stopped]), "damaged")


def test_a_page_that_was_overwritten_is_named(stopped: Path) -> None:
    path = stopped / "p2.db"
    page = value(path, "SELECT rootpage FROM sqlite_master WHERE name = 'troth_history'")
    data = bytearray(path.read_bytes())
    data[4096 * (page - 1) : 4096 * (page - 1) + 64] = bytes(range(64))
    path.write_bytes(data)
    assert "p2.db is damaged" in the_only(audit([stopped]), "damaged")


def test_a_foreign_database_and_what_is_none_are_not_read(stopped: Path) -> None:
    with closing(sqlite3.connect(stopped / "shop.db")) as connection:
        connection.execute("CREATE TABLE stock (item TEXT)")
    (stopped / "notes.db").write_text("this is no database, and long enough not to be taken for an empty one" * 20)
    (stopped / "new.db").touch()
    found = audit([stopped, stopped / "nowhere"])
    assert (found.exit_code, found.contradictions) == (2, [])
    assert sorted(found.unreadable) == [
        f"{stopped / 'notes.db'} cannot be read: file is not a database",
        f"{stopped / 'nowhere'} does not exist",
        f"{stopped / 'shop.db'}: it is a SQLite database that Troth did not make",
    ]
    assert ["new.db is empty" in note for note in found.notes] == [True]


@pytest.mark.parametrize("name", ["p1", "coordinator"])
def test_a_file_cut_to_nothing_is_damaged_when_others_have_worked_with_it(stopped: Path, name: str) -> None:
    (stopped / f"{name}.db").write_bytes(b"")
    assert "it is empty" in the_only(audit([stopped]), "damaged")


def test_what_is_no_file_is_not_read(stopped: Path) -> None:
    os.mkfifo(stopped / "pipe.db")  # opened to be read, it would wait for a writer
    found = audit([stopped, stopped / "pipe.db"])
    assert found.unreadable == [f"{stopped / 'pipe.db'} is no file"]
    assert found.contradictions == []


def test_a_file_that_lost_its_header_is_damaged_not_foreign(stopped: Path) -> None:
    with closing(sqlite3.connect(stopped / "p1.db")) as connection:
        connection.execute("PRAGMA application_id = 0")
    assert "its header does not say so" in the_only(audit([stopped]), "damaged")


def test_a_file_that_a_process_holds_is_not_read(stopped: Path) -> None:
    file = LogFile.open_any(stopped / "p1.db")
    try:
        found = audit([stopped])
    finally:
        file.close()
    assert (found.exit_code, len(found.unreadable)) == (2, 1)
    assert "is in use by process" in found.unreadable[0]


def test_a_copy_beside_its_original_is_named(stopped: Path) -> None:
    shutil.copy(stopped / "p1.db", stopped / "p1-copy.db")
    assert "have the same identity" in the_only(audit([stopped]), "same-identity")


def test_swapped_files_are_named(stopped: Path) -> None:
    (stopped / "p1.db").rename(stopped / "other")
    (stopped / "p2.db").rename(stopped / "p1.db")
    (stopped / "other").rename(stopped / "p2.db")
    found = audit([stopped])
    assert [finding.kind for finding in found.contradictions] == ["swapped", "swapped"]
    assert "p1.db is the log of participant p2, not of p1" in found.contradictions[0].sentence


def test_a_file_of_another_cluster_is_named(stopped: Path) -> None:
    change(stopped / "p3.db", "UPDATE troth_meta SET value = 'f000000000000001' WHERE key = 'identity'")
    change(stopped / "p3.db", "UPDATE troth_logs SET identity = 'f000000000000002'")
    assert "has worked for another coordinator only" in the_only(audit([stopped]), "foreign")


@pytest.mark.parametrize("name", ["p1", "p2", "coordinator"])
def test_an_older_copy_put_back_is_named(stopped: Path, killed: Path, name: str) -> None:
    for suffix in ("-wal", "-shm"):
        (killed / f"{name}.db{suffix}").unlink()
    shutil.copy(stopped / f"{name}.db", killed / f"{name}.db")
    found = audit([killed])
    assert found.contradictions[0].kind == "older-than-seen"
    assert f"{name}.db is older than what" in found.contradictions[0].sentence


# Many.


def test_one_wrong_row_and_one_removed_entry_among_thousands_are_found(tmp_path: Path) -> None:
    folder = audited.many(tmp_path, 5_000)
    assert (audit([folder]).exit_code, audit([folder]).outcomes) == (0, {"COMMITTED": 5_000})
    change(folder / "p1.db", "UPDATE accounts SET balance = balance - 1 WHERE n = 70")
    change(folder / "p2.db", "DELETE FROM troth_history WHERE position = 3000")
    found = audit([folder])
    assert found.counts["contradictions"] == {"row-changed": 2, "history-gap": 1, "lost": 1}


# The command.


def verify(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(troth_command("verify", *map(str, arguments)), capture_output=True, text=True, timeout=60)


def test_the_command_says_what_was_found_and_ends_with_its_code(stopped: Path, killed: Path) -> None:
    clean, doubt, none = verify(stopped), verify(killed, "--json"), verify(killed / "nowhere")
    assert (clean.returncode, doubt.returncode, none.returncode) == (0, 5, 2), (clean, doubt, none)
    assert clean.stdout.splitlines()[-1] == "nothing contradicts, nothing is in doubt"
    (found,) = map(json.loads, doubt.stdout.splitlines())
    assert {each["kind"] for each in found["in_doubt"]} == {"prepared", "one-phase"}
    change(stopped / "p2.db", "UPDATE accounts SET balance = 999 WHERE name = 'bob'")
    damaged = verify(stopped)
    assert damaged.returncode == 1
    assert "CONTRADICTION: rows: p2.db: accounts/bob: balance is 999, by its history 116" in damaged.stdout


def test_the_command_lists_transactions(killed: Path) -> None:
    everything = verify(killed, "--transactions").stdout
    one = verify(killed, "--id", "order-5", "--json").stdout.splitlines()
    assert sum(line.startswith(("COMMITTED", "ABORTED", "PENDING")) for line in everything.splitlines()) == 10
    first = json.loads(one[0])
    assert (len(one), first["id"], first["outcome"]) == (2, "order-5", "COMMITTED")
    assert {each["file"] for each in first["says"]} == {"coordinator.db", "p1.db", "p2.db"}


def test_the_command_says_when_nobody_knows_an_id(killed: Path) -> None:
    found = verify(killed, "--id", "order-5", "--id", "no-such-order").stdout
    assert found.count("no file says anything of") == found.count("no file says anything of 'no-such-order'") == 1


def test_every_attempt_is_judged_in_order(stopped: Path) -> None:
    judged: list[Verdict] = []
    audit([stopped], each=judged.append)
    assert [verdict.attempt.sequence for verdict in judged] == [1, 2, 3, 4, 5, 6, 7]


# What a participant's file says of its history.


def test_the_file_says_from_where_its_history_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "p1.db"
    said = []
    for history in (True, True, False, True):
        opened = open_file(path, "p1", schema=None, adopt=False, history=history)
        opened.file.connection.execute("INSERT INTO troth_history (log, number, operations, at) VALUES (1, 1, '', 0)")
        said += [list(opened.file.connection.execute("SELECT value FROM troth_meta WHERE key = 'history_from'"))]
        opened.file.close()
    assert said == [[(0,)], [(0,)], [], [(4,)]]
