"""One file, one process, one identity (DESIGN section 4); TRAPS "SQLite"."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

import troth.log.file
from tests.log_child import SCHEMA, open_rows
from tests.log_helpers import Warnings, child, let_go
from troth.log import FORMAT, LogFailed, LogFile, LogHeld, LogRefused
from troth.log.file import APPLICATION_ID, run_script, transaction


def plain(path: Path, *statements: str) -> None:
    """A database that another program made."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def pragma(file: LogFile, name: str) -> object:
    return file.connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_new_file_says_what_it_is_and_keeps_it(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "p1.db")
    identity = file.identity
    assert file.created
    assert len(bytes.fromhex(identity)) == 8
    assert (pragma(file, "application_id"), pragma(file, "user_version")) == (APPLICATION_ID, FORMAT)
    file.close()

    again = open_rows(tmp_path / "p1.db")
    assert (again.created, again.identity, again.role, again.name) == (False, identity, "participant", "p1")
    again.close()


def test_two_new_files_have_different_identities(tmp_path: Path) -> None:
    one, other = open_rows(tmp_path / "1.db"), open_rows(tmp_path / "2.db")
    assert one.identity != other.identity
    one.close()
    other.close()


def test_settings_of_the_connection_are_those_durability_rests_on(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "p1.db")
    assert [pragma(file, name) for name in ("journal_mode", "synchronous", "foreign_keys")] == ["wal", 2, 1]
    file.close()


def test_a_new_file_has_all_of_on_create_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p1.db"

    def half(connection: sqlite3.Connection) -> None:
        run_script(connection, "CREATE TABLE accounts (id TEXT PRIMARY KEY);\nCREATE TABLE accounts (id TEXT);")

    with pytest.raises(LogFailed, match="already exists"):
        LogFile.open(path, role="participant", name="p1", schema=SCHEMA, on_create=half)
    file = open_rows(path)
    assert file.created
    assert file.connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'accounts'").fetchone() == (0,)
    file.close()


def test_the_counter_and_what_was_seen_of_others_are_kept(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "p1.db")
    file.begin()
    file.commit(7, {"a" * 16: 3})
    file.begin()
    file.commit(2, {"a" * 16: 1, "b" * 16: 5})
    assert (file.durable, file.seen) == (9, {"a" * 16: 3, "b" * 16: 5})
    file.close()

    again = open_rows(tmp_path / "p1.db")
    assert (again.durable, again.seen) == (9, {"a" * 16: 3, "b" * 16: 5})
    again.close()


def test_size_counts_the_write_ahead_log(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "p1.db")
    before = file.size()
    file.begin()
    file.commit(1)
    assert file.size() > before
    file.close()


# One process.


def test_a_second_process_is_refused_with_the_holders_pid_also_through_a_symlink(tmp_path: Path) -> None:
    path, link = tmp_path / "p1.db", tmp_path / "link.db"
    link.symlink_to(path)
    with child("hold", path) as holder:
        for way in (path, link):
            with pytest.raises(LogHeld, match=f"process {holder.pid}") as held:
                open_rows(way)
            assert held.value.pid == holder.pid
    open_rows(link).close()


def test_a_second_process_is_refused_also_when_the_lock_file_was_deleted_or_the_file_has_another_name(
    tmp_path: Path,
) -> None:
    path, other = tmp_path / "p1.db", tmp_path / "other.db"
    with child("hold", path) as holder:
        other.hardlink_to(path)
        Path(f"{path}.lock").unlink()
        for way in (path, other):
            with pytest.raises(LogHeld, match=f"process {holder.pid}"):
                open_rows(way)
    other.unlink()
    open_rows(path).close()


def test_the_lock_ends_with_a_killed_process(tmp_path: Path) -> None:
    with child("hold", tmp_path / "p1.db") as holder:
        holder.kill()
    open_rows(tmp_path / "p1.db").close()


def test_a_second_open_in_the_same_process_is_refused(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "p1.db")
    with pytest.raises(LogHeld):
        open_rows(tmp_path / "p1.db")
    file.close()


def test_a_refused_open_leaves_no_lock(tmp_path: Path) -> None:
    open_rows(tmp_path / "p1.db").close()
    with pytest.raises(LogRefused):
        LogFile.open(tmp_path / "p1.db", role="participant", name="p2", schema=SCHEMA)
    open_rows(tmp_path / "p1.db").close()


# Whose file.


@pytest.mark.parametrize(("role", "name"), [("participant", "p2"), ("coordinator", "p1")])
def test_a_log_of_another_is_refused_with_both_names(tmp_path: Path, role: troth.log.Role, name: str) -> None:
    open_rows(tmp_path / "p1.db").close()
    with pytest.raises(LogRefused, match=f"log of participant 'p1', not of {role} '{name}'"):
        LogFile.open(tmp_path / "p1.db", role=role, name=name, schema=SCHEMA)


def test_a_newer_format_is_refused_by_name_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "p1.db"
    open_rows(path).close()
    plain(path, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(LogRefused, match=f"format {FORMAT + 1}, made by a newer Troth"):
        open_rows(path)
    plain(path, f"PRAGMA user_version = {FORMAT}")
    open_rows(path).close()


def test_a_file_of_another_program_is_refused_even_to_adopt(tmp_path: Path) -> None:
    plain(tmp_path / "p1.db", "CREATE TABLE t (a)", "PRAGMA application_id = 17")
    with pytest.raises(LogRefused, match="another program"):
        LogFile.open(tmp_path / "p1.db", role="participant", name="p1", schema=SCHEMA, adopt=True)


def test_a_users_database_is_taken_only_when_adopted(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    plain(path, "CREATE TABLE stock (id TEXT PRIMARY KEY, n INTEGER)", "INSERT INTO stock VALUES ('bolt', 7)")
    with pytest.raises(LogRefused, match="--adopt"):
        open_rows(path)
    file = LogFile.open(path, role="participant", name="p1", schema=SCHEMA, adopt=True)
    assert (file.adopted, file.created) == (True, False)
    assert file.connection.execute("SELECT * FROM stock").fetchall() == [("bolt", 7)]
    file.close()
    again = open_rows(path)
    assert (again.adopted, again.created, again.identity) == (False, False, file.identity)
    again.close()


@pytest.mark.parametrize(
    ("statements", "why"),
    [
        (["CREATE TABLE troth_meta (a)"], "tables named troth_"),
        (["CREATE TABLE t (a)", "PRAGMA user_version = 4"], "user_version is 4"),
    ],
)
def test_what_cannot_be_adopted_is_refused_with_what_to_do(tmp_path: Path, statements: list[str], why: str) -> None:
    plain(tmp_path / "p1.db", *statements)
    with pytest.raises(LogRefused, match=why):
        LogFile.open(tmp_path / "p1.db", role="participant", name="p1", schema=SCHEMA, adopt=True)


def test_what_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p1.db").write_text("id,amount\n" * 1000)
    with pytest.raises(LogRefused, match="not a SQLite database"):
        open_rows(tmp_path / "p1.db")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogFailed, match="the folder does not exist"):
        open_rows(tmp_path / "nowhere" / "p1.db")


# Other programs, and what is believed.


def test_a_reader_keeps_the_checkpoint_at_start_from_ending_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p1.db"
    file = open_rows(path)
    file.begin()
    file.commit(1)
    with child("read", path) as reader:
        file.close()
        with pytest.raises(LogFailed, match=f"process {reader.pid} .*has the file in use"):
            LogFile.open(path, role="participant", name="p1", schema=SCHEMA, wait_s=0.2)
    open_rows(path).close()


def test_opening_waits_for_a_reader_with_a_warning_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p1.db"
    warnings = Warnings()
    monkeypatch.setattr(troth.log.file, "_log", warnings)
    file = open_rows(path)
    file.begin()
    file.commit(1)
    with child("read", path) as reader:
        file.close()
        opened: list[LogFile] = []
        thread = threading.Thread(target=lambda: opened.append(open_rows(path)))
        thread.start()
        assert f"process {reader.pid} " in warnings.next()["who"]
        let_go(reader)
        thread.join()
    assert opened[0].durable == 1
    opened[0].close()


def test_everything_visible_is_in_the_database_itself_once_opened(tmp_path: Path) -> None:
    path = tmp_path / "p1.db"
    file = open_rows(path)
    with transaction(path, file.connection):
        file.connection.execute("INSERT INTO troth_rows VALUES (1)")
    # As a killed process leaves it: the row is in the write-ahead log only.
    copies = tmp_path / "copy"
    copies.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", copies / f"p1.db{suffix}")
    file.close()

    copied = open_rows(copies / "p1.db")
    assert copied.wal_size() == 0
    assert copied.connection.execute("SELECT n FROM troth_rows").fetchall() == [(1,)]
    copied.close()
