"""A file restored from a copy gets a new identity and vouches for nothing older (rule 7, DESIGN section 4)."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from coordinator.events import Append, Expired, Ticked
from coordinator.log import DecisionLog
from coordinator.node import Coordinator
from coordinator.settings import CoordinatorSettings
from participant.log import SCHEMA
from tests.log_child import open_rows
from tests.test_decision_log import N, claimed, committed, entry, write
from tests.test_vote_log import PEERS, Participant, X, try_
from troth.log import LogFile, LogHeld, LogRefused, restore
from troth.words import AttemptId, Now, Outcome


def test_a_restored_file_has_a_new_identity_and_says_so_in_its_audit_log(tmp_path: Path) -> None:
    path = tmp_path / "p1.db"
    file = LogFile.open(path, role="participant", name="p1", schema=SCHEMA)
    file.begin()
    file.commit(5)
    file.close()
    restored = restore(path)
    assert (restored.role, restored.name, restored.old, restored.notes) == ("participant", "p1", file.identity, ())
    again = LogFile.open(path, role="participant", name="p1", schema=SCHEMA)
    assert again.identity == restored.new != restored.old
    assert again.durable == 5
    assert again.connection.execute("SELECT what FROM troth_audit").fetchall() == [
        (f"restored: {restored.old} became {restored.new}",)
    ]
    again.close()


def test_a_file_in_use_is_not_restored(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "p1.db")
    with pytest.raises(LogHeld):
        restore(tmp_path / "p1.db")
    file.close()


@pytest.mark.parametrize("what", ["nothing", "empty", "foreign"])
def test_what_is_not_a_log_is_not_restored(tmp_path: Path, what: str) -> None:
    path = tmp_path / "p1.db"
    if what == "empty":
        path.touch()
    if what == "foreign":
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE t (a)")
        connection.close()
    with pytest.raises(LogRefused):
        restore(path)
    assert path.exists() == (what != "nothing")


def test_outcomes_stay_as_answers_those_of_assigned_ids_by_their_full_old_name(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    log = DecisionLog.open(path, "c")
    write(log, committed(N, "order-1", ()), committed(N + 1, None, ()))
    log.close()
    restored = restore(path)
    again = DecisionLog.open(path, "c")
    assert again.file.identity == restored.new
    assert entry(again, "order-1").state == Outcome.COMMITTED
    assert entry(again, str(AttemptId(restored.old, N + 1))).state == Outcome.COMMITTED
    assert again.epoch == log.epoch + 1
    again.close()


def test_outcomes_are_kept_for_their_time_although_restore_moved_the_horizon(tmp_path: Path) -> None:
    log = DecisionLog.open(tmp_path / "c.db", "c")
    id = f"{int(time.time() * 1000):012x}"
    id = f"{id[:8]}-{id[8:]}-7000-8000-000000000000"
    write(log, committed(N, id, ()))
    log.close()
    restore(tmp_path / "c.db")
    again = DecisionLog.open(tmp_path / "c.db", "c")
    settings = CoordinatorSettings()
    node = Coordinator(again.file.identity, again.epoch, settings, {}, again.recovered)
    node.start(Now(0.0, time.time()))
    later = Now(2 * settings.expire_interval_s, time.time())
    records = [effect.record for effect in node.step(Ticked(), later) if isinstance(effect, Append)]
    assert [type(record) for record in records] == [Expired]
    assert write(again, *records) == [(1, again.recovered.horizon)]
    assert entry(again, id).state == Outcome.COMMITTED
    again.close()


def test_ids_from_before_the_restore_are_below_the_horizon(tmp_path: Path) -> None:
    """What ran after the copy was made cannot be told from what never ran: such an id is refused, never run again."""
    before = time.time()
    log = DecisionLog.open(tmp_path / "c.db", "c")
    log.close()
    restore(tmp_path / "c.db")
    again = DecisionLog.open(tmp_path / "c.db", "c")
    assert before <= again.recovered.horizon <= time.time()
    again.close()


def test_a_log_that_owes_commits_is_restored_only_with_force_and_keeps_them_unresolved(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    log = DecisionLog.open(path, "c")
    write(log, committed(N), claimed(N + 1, "order-2"))
    log.close()
    with pytest.raises(LogRefused, match=r"owes 2 transactions: .* is not ended at p1, p2; order-2 is not ended at p1"):
        restore(path)
    untouched = DecisionLog.open(path, "c")
    assert untouched.file.identity == log.file.identity
    untouched.close()

    restored = restore(path, force=True)
    assert len(restored.notes) == 3
    again = DecisionLog.open(path, "c")
    assert [found.number for found in again.recovered.open] == [N, N + 1]
    identities = {branch.identity for found in again.recovered.open for branch in found.branches}
    assert all(identity.endswith("before restore") for identity in identities), "no file has such an identity"
    again.close()


def test_prepared_branches_of_a_restored_participant_stay_in_doubt_and_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "p1.db"
    participant = Participant(path)
    participant.write(try_(X))
    participant.file.close()
    restored = restore(path)
    assert len(restored.notes) == 1
    assert restored.notes[0].startswith(f"{X} is prepared and in doubt here")
    again = Participant(path)
    (found,) = again.log.recover().prepared
    assert (found.attempt, found.peers) == (X, PEERS)
    again.file.close()
