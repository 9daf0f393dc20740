"""Files of a real run for the auditor's tests: at rest after everything had ended, and as kill -9 left them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from coordinator.events import Owed
from coordinator.log import DecisionLog
from participant.opening import open_file
from tests.cluster import COORDINATOR, Cluster, eventually
from tests.moves import wait_ended
from tests.submitting import committed, submit, submitting, wait_in_doubt
from troth.log import LogFile
from troth.operations import Transaction, add, insert
from troth.v1.types_pb2 import Operations
from troth.words import Outcome, number_of

SCHEMA = """
CREATE TABLE accounts (
    name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL DEFAULT 0 CHECK (balance >= 0), open BOOLEAN DEFAULT TRUE
);
"""
NAMES = ("p1", "p2", "p3")
KEEP_FINISHED = {"TROTH_PARTICIPANT_FORGET_INTERVAL": "1h"}
"""Remembered outcomes stay in the files, above the mark that is kept there."""


def make(folder: Path) -> tuple[Path, Path]:
    """Runs a cluster; a folder of its files after it was stopped, and one after all was killed in the middle.

    p1 and p2 keep their history from the first day, p3 keeps none. In the second folder p1 is prepared for order-5,
    which p2 has applied, and for order-6, which nobody has decided; one-phase order-7 is claimed and was never run."""
    flags = {name: ["--history"] for name in NAMES[:2]}
    with Cluster(folder / "run", 3, schema=SCHEMA, env=KEEP_FINISHED, flags=flags) as cluster:
        _work(cluster)
        wait_ended(cluster)
        cluster.stop(COORDINATOR, *NAMES)
        stopped = copy(cluster.folder, folder / "stopped")
        cluster.start(COORDINATOR, *NAMES)
        cluster.wait_lanes()
        _leave_in_doubt(cluster)
    return stopped, copy(cluster.folder, folder / "killed")


def move(id: str, amount: int) -> Transaction:
    made = Transaction(id).at("p1").add("accounts", "alice", "balance", -amount)
    return made.at("p2").add("accounts", "bob", "balance", amount)


def _work(cluster: Cluster) -> None:
    opened = Transaction("opening")
    for name, account in zip(NAMES, ("alice", "bob", "carol"), strict=True):
        opened.at(name).insert("accounts", account, {"balance": 100})
    committed(cluster, opened)
    committed(cluster, move("order-1", 10))
    assert submit(cluster, move("order-2", 1000)).outcome is Outcome.ABORTED
    committed(cluster, Transaction("order-3").at("p1").update("accounts", "alice", {"open": False}))
    committed(cluster, move("order-4", 5).at("p3").read("accounts", "carol"))
    committed(cluster, Transaction("closing").at("p2").insert("accounts", "dora").at("p3").delete("accounts", "carol"))
    alone = Transaction().at("p2").add("accounts", "bob", "balance", 1)
    assert submit(cluster, alone, assigned=True).outcome is Outcome.COMMITTED


def _leave_in_doubt(cluster: Cluster) -> None:
    cluster.pause("p2", "p3")
    made = Transaction("order-6").at("p1").insert("accounts", "eve").at("p3").insert("accounts", "finn")
    undecided = submitting(cluster, made)
    decided = submitting(cluster, move("order-5", 20), wait_applied=False)
    wait_in_doubt(cluster, "p1", 2)
    cluster.pause("p1")
    cluster.resume("p2")
    assert decided.result().outcome is Outcome.COMMITTED
    eventually(lambda: cluster.rows("p2", "SELECT balance FROM accounts WHERE name = 'bob'") == [(136,)])
    waiting = submitting(cluster, Transaction("order-7").at("p1").insert("accounts", "gina"))
    claimed = "SELECT count(*) FROM troth_transactions WHERE state = 0"
    eventually(lambda: cluster.rows(COORDINATOR, claimed) == [(1,)], "order-7 is claimed")
    cluster.kill(COORDINATOR, *NAMES)
    del undecided, waiting


def copy(folder: Path, to: Path) -> Path:
    """The data files with what lies beside them, as they are."""
    to.mkdir()
    for path in folder.glob("*.db*"):
        shutil.copy2(path, to)
    return to


def change(path: Path, sql: str, *parameters: Any) -> None:
    """One statement that must change something, behind the back of the file's owner."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(sql, parameters).rowcount != 0, sql
        connection.commit()


def value(path: Path, sql: str, *parameters: Any) -> Any:
    """The first column of the first row."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, parameters).fetchone()[0]


ACCOUNTS = 1_000


def many(folder: Path, count: int) -> Path:
    """The files of a coordinator and two participants after so many transfers, written without running them: each moves
    1 from an account at p1 to one at p2 and inserts a row at p1. All have ended and lie below the marks."""
    schema = folder / "schema.sql"
    schema.write_text("CREATE TABLE accounts (n INTEGER PRIMARY KEY NOT NULL, balance INTEGER NOT NULL);")
    log = DecisionLog.open(folder / "coordinator.db", COORDINATOR)
    ends = [open_file(folder / f"{name}.db", name, schema=schema, adopt=False, history=True) for name in NAMES[:2]]
    owed = json.dumps([Owed(end.file.name, end.file.identity, True) for end in ends])
    rows = ((number_of(1, n), f"job-{n}", owed, time.time(), time.time()) for n in range(1, count + 1))
    columns = "number, id, branches, at, ended_at, state, read, incarnation"
    _fill(log.file, f"INSERT INTO troth_transactions ({columns}) VALUES (?, ?, ?, ?, ?, 1, 0, 0)", rows)
    for end, step in zip(ends, (-1, 1), strict=True):
        balances = Counter(dict.fromkeys(range(ACCOUNTS), 0))
        entry = "INSERT INTO troth_history (log, number, operations, at) VALUES (1, ?, ?, ?)"
        _fill(end.file, entry, _moves(count, step, balances))
        _fill(end.file, "INSERT INTO accounts VALUES (?, ?)", balances.items())
        _fill(end.file, "INSERT INTO troth_logs VALUES (1, ?, '')", [(log.file.identity,)])
        _fill(end.file, "INSERT INTO troth_marks VALUES (1, ?, '[]')", [(number_of(1, count + 1),)])
        end.file.close()
    log.close()
    return folder


def _moves(count: int, step: int, balances: Counter[int]) -> Iterator[tuple[int, bytes, float]]:
    """The history of one participant; what it leaves comes to `balances`."""
    opening = [insert("accounts", n, {"balance": 0}) for n in range(ACCOUNTS)]
    yield number_of(1, 1), Operations(operations=opening).SerializeToString(), time.time()
    for n in range(2, count + 1):
        account = n * 7 % ACCOUNTS
        balances[account] += step
        operations = [add("accounts", account, "balance", step)]
        if step < 0:
            balances[ACCOUNTS + n] = 0
            operations.append(insert("accounts", ACCOUNTS + n, {"balance": 0}))
        yield number_of(1, n), Operations(operations=operations).SerializeToString(), time.time()


def _fill(file: LogFile, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
    file.begin()
    file.connection.executemany(sql, rows)
    file.commit(1)
