"""The simulated disks: the shipped logs over SQLite in memory, and a queue before them.

What is queued has not happened; `flush` runs some of it in one transaction, as the writer thread does with a batch, and
from then on it survives. So a crash loses what was queued behind any point, and a batch is on the disk whole or not at
all, which is what SQLite's write-ahead log makes of any subset of pages and any torn end that a crash leaves (tried on
real files by the tests of the log). `Ledger`s keep beside each file what the checks need to know of it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import coordinator.log
import participant.log
from coordinator.events import Entry
from coordinator.log import DecisionLog
from faults.simulator.ledgers import DecisionLedger, VoteLedger
from faults.simulator.model import TABLES, Rows, number_in
from faults.simulator.servers import Server, at_once, fill
from participant.events import Forget
from participant.log import VoteLog
from participant.resources.outside import Elsewhere
from participant.resources.sqlite import SQLiteResource
from troth.log import LogFile

LOG = "00000000000000aa"
"""The identity of the simulated coordinator's log."""


class DiskFailed(Exception):
    """The disk said no in the middle of a batch: nothing of it is there, and the process stops."""


class Disk(ABC):
    """A file and the queue before it."""

    file: LogFile
    log: Any
    ledger: DecisionLedger | VoteLedger

    def __init__(self) -> None:
        self.queue: list[tuple[int, Any, bool]] = []
        """Number, job, forced: what the process has queued and nothing has run."""

    @abstractmethod
    def open(self) -> Any:
        """The log as a new process finds it; returns what it recovers."""

    def flush(self, count: int | None = None, *, full: bool = False) -> list[tuple[int, Any]]:
        """Makes the first `count` queued jobs durable, all by default; their numbers and results. With `full` the disk
        has no room for one page more: DiskFailed when it would have needed one."""
        batch = self.queue[:count]
        if not batch:
            return []
        del self.queue[: len(batch)]
        with self._no_room() if full else contextlib.nullcontext():
            self.file.begin()
            try:
                results = dict(self.log.write([(n, job) for n, job, _ in batch]))
                self.file.commit(len(batch))
            except BaseException as error:
                if self.file.connection.in_transaction:
                    self.file.connection.execute("ROLLBACK")
                if full:
                    raise DiskFailed(str(error)) from error
                raise
        done = [(n, job, results.get(n)) for n, job, _ in batch]
        for _, job, result in done:
            self.ledger.note(job, result)
        return [(n, result) for n, _, result in done]

    @contextlib.contextmanager
    def _no_room(self) -> Iterator[None]:
        connection = self.file.connection
        (most,) = connection.execute("PRAGMA max_page_count").fetchone()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        try:
            yield
        finally:
            connection.execute(f"PRAGMA max_page_count = {most}")

    def close(self) -> None:
        self.file.close()


class DecisionDisk(Disk):
    """The coordinator's."""

    ledger: DecisionLedger

    def __init__(self) -> None:
        super().__init__()
        self.file = LogFile.in_memory(role="coordinator", name="c", identity=LOG, schema=coordinator.log.SCHEMA)
        self.ledger = DecisionLedger()

    def open(self) -> DecisionLog:
        self.queue.clear()
        log = self.log = DecisionLog(self.file)
        return log

    def look_up(self, key: str | int) -> Entry | None:
        entry: Entry | None = self.log.look_up(key)
        return entry


class VoteDisk(Disk):
    """A participant's file, and the server beside it when its data are there."""

    ledger: VoteLedger

    def __init__(self, name: str, identity: str, rows: Rows, *, outside: bool = False) -> None:
        super().__init__()
        self.file = LogFile.in_memory(role="participant", name=name, identity=identity, schema=participant.log.SCHEMA)
        self.identity = identity
        self.initial = rows.copy()
        self.ledger = VoteLedger(name, identity, outside=outside)
        self.server = Server(self.ledger, rows) if outside else None
        if self.server is None:
            fill(self.file.connection, rows)
        self.resource: SQLiteResource | Server
        """Of the latest process."""
        self.forgets: list[Forget] = []
        """Durable here, and not told to the server yet."""

    def open(self) -> VoteLog:
        self.queue.clear()
        self.forgets.clear()
        if self.server is None:
            self.resource = resource = SQLiteResource(self.file.connection, self.file.name)
            log = self.log = VoteLog(self.file, resource, history=True)
        else:
            self.resource = self.server
            log = self.log = VoteLog(self.file, Elsewhere(self.server), history=True)
            held = at_once(self.server.survey())
            self.file.begin()
            log.merge(held, at=0.0, copied=False)
            self.file.commit(1)
            ended = {n for (n,) in self.file.connection.execute("SELECT number FROM troth_finished")}
            self.ledger.adopts(held, ended)
        return log

    def flush(self, count: int | None = None, *, full: bool = False) -> list[tuple[int, Any]]:
        batch = self.queue[:count]
        done = super().flush(count, full=full)
        if self.server is not None:
            self.forgets += [job for _, job, _ in batch if isinstance(job, Forget)]
        return done

    def close(self) -> None:
        super().close()
        if self.server is not None:
            at_once(self.server.close())

    def rows(self) -> Rows:
        """What is in the tables now."""
        return Rows({(table, key): row for table in TABLES for key, row in self._table(table)})

    def history(self) -> list[int]:
        """The numbers of the attempts applied, in order, by the file's own history."""
        return [n for (n,) in self.file.connection.execute("SELECT number FROM troth_history ORDER BY position")]

    def prepared(self) -> set[int]:
        """The numbers of the attempts that are prepared, by the file's own records."""
        return {n for (n,) in self.file.connection.execute("SELECT number FROM troth_prepared")}

    def _table(self, table: str) -> Iterator[tuple[Any, dict[str, int | None]]]:
        connection = self.file.connection if self.server is None else self.server.connection
        cursor: sqlite3.Cursor = connection.execute(f"SELECT * FROM {table}")
        names = [column for column, *_ in cursor.description]
        for row in cursor:
            values: Mapping[str, Any] = dict(zip(names, row, strict=True))
            yield values["k"], {name: number_in(value) for name, value in values.items() if name != "k"}
