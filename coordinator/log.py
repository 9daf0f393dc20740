"""The decision log: what the coordinator must never forget, as rows of its log file.

One row for each attempt that was decided or delegated, kept after its end as the answer to its id until it expires
(rule 11). An attempt without a row is aborted (presumed abort), so aborts of assigned ids leave nothing here.

`write` runs in the writer thread, inside the transaction of a batch. It asserts what the node above upholds: one final
outcome for one id, and no end without a beginning; a violation raises LogFailed and stops the process.
"""

from __future__ import annotations

import functools
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from coordinator.events import (
    Aborted,
    Claimed,
    Cleared,
    Committed,
    Dropped,
    Ended,
    Entry,
    Expired,
    Heuristic,
    Known,
    Owed,
    Record,
    Recovered,
    Settled,
)
from troth import failpoints
from troth.ids import time_of
from troth.log import LogFailed, LogFile, LogRefused
from troth.log.file import failures
from troth.v1 import types_pb2
from troth.words import SEQUENCE_BITS, AttemptId, Outcome

_CLAIMED = 0
"""State of a one-phase attempt whose outcome its participant decides; other states are those of `Outcome`."""

EPOCH = "epoch"
"""How failpoints name the record of a new epoch, which is in no queue."""

DROP_ROWS = 500
"""Expired outcomes dropped with one batch at most, so that no flush waits for the deletion of a day's worth."""

SCHEMA = """
CREATE TABLE troth_transactions (
    number INTEGER PRIMARY KEY,      -- epoch and sequence
    id TEXT,                         -- the client's; NULL when assigned
    digest BLOB,                     -- of the content; NULL matches any
    state INTEGER NOT NULL,          -- 0 claimed (one-phase), 1 COMMITTED, 2 ABORTED
    read INTEGER NOT NULL,           -- rows were read
    branches TEXT NOT NULL,          -- JSON: [[participant, identity, updating], ...]
    incarnation INTEGER NOT NULL,    -- of the claimed attempt
    reason BLOB,                     -- an encoded Reason
    at REAL NOT NULL,
    ended_at REAL,                   -- NULL while claimed or owed
    time REAL                        -- the id's own time, in seconds
);
CREATE UNIQUE INDEX troth_transactions_id ON troth_transactions (id) WHERE id IS NOT NULL;
CREATE INDEX troth_transactions_open ON troth_transactions (number) WHERE ended_at IS NULL;
CREATE INDEX troth_transactions_time ON troth_transactions (time) WHERE time IS NOT NULL;
CREATE INDEX troth_transactions_ended ON troth_transactions (ended_at) WHERE time IS NULL AND ended_at IS NOT NULL;
CREATE TABLE troth_heuristics (
    number INTEGER NOT NULL,
    participant TEXT NOT NULL,
    done INTEGER NOT NULL,
    reason TEXT NOT NULL,            -- a person's; empty for what a participant acknowledged
    at REAL NOT NULL,
    cleared_at REAL,                 -- when a person cleared one of a person: no longer listed, and kept
    PRIMARY KEY (number, participant)
) WITHOUT ROWID;
CREATE TABLE troth_known (participant TEXT PRIMARY KEY, identity TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO troth_meta VALUES ('epoch', 0), ('horizon', 0.0);
"""

_COLUMNS = "number, id, digest, state, read, branches, incarnation, reason, at, ended_at"
_INSERT = f"INSERT INTO troth_transactions ({_COLUMNS}, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class DecisionLog:
    """A coordinator's log file, opened. `file.connection` belongs to the writer thread once that is started."""

    def __init__(self, file: LogFile) -> None:
        self.file = file
        self.epoch = self._next_epoch()
        """The epoch of this incarnation, on disk before anything is sent or answered."""
        self.recovered = self._recover()
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Aborted: self._abort,
            Dropped: self._drop,
            Heuristic: self._heuristic,
            Cleared: self._clear,
            Known: self._know,
        }
        self._horizon = self.recovered.horizon
        self._drop_below = self._drop_ended_before = 0.0
        self._dropping = False
        self._ended_count: int | None = None
        """Ended outcomes in the table; counted when first needed."""

    @classmethod
    def open(cls, path: Path, name: str) -> DecisionLog:
        """Opens or makes the log of coordinator `name`, forces its next epoch and reads what it holds. Raises as
        `LogFile.open` does."""
        file = LogFile.open(path, role="coordinator", name=name, schema=SCHEMA)
        try:
            with failures(file.path):
                return cls(file)
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Closes the file; the writer must have been closed before."""
        self.file.close()

    # Writing, in the writer thread.

    def write(self, records: Sequence[tuple[int, Record]]) -> list[tuple[int, float]]:
        """Writes records in their order; the result of an Expired is the horizon reached.

        Records of one attempt keep their order. Those of different ones need none, so what most attempts have is
        gathered: first rows that begin, then rows that end, each with one `executemany`; anything else is a barrier."""
        results: list[tuple[int, float]] = []
        begun: list[tuple[Any, ...]] = []
        settled: list[tuple[float, int]] = []
        ended: list[tuple[float, int]] = []
        for n, record in records:
            if isinstance(record, Committed):
                begun.append(_committed_row(record))
            elif isinstance(record, Ended):
                ended.append((record.at, record.number))
            elif isinstance(record, Claimed):
                begun.append(_claimed_row(record))
            elif isinstance(record, Settled):
                settled.append((record.at, record.number))
            else:
                self._write_gathered(begun, settled, ended)
                if isinstance(record, Expired):
                    results.append((n, self._expire(record)))
                else:
                    self._handlers[type(record)](record)
        self._write_gathered(begun, settled, ended)
        if self._dropping:
            self._drop_expired()
        return results

    def _write_gathered(
        self, begun: list[tuple[Any, ...]], settled: list[tuple[float, int]], ended: list[tuple[float, int]]
    ) -> None:
        self._insert(begun)
        self._update("UPDATE troth_transactions SET state = 1, ended_at = ? WHERE number = ? AND state = 0", settled)
        self._update(
            "UPDATE troth_transactions SET ended_at = ? WHERE number = ? AND state = 1 AND ended_at IS NULL", ended
        )
        begun.clear()
        settled.clear()
        ended.clear()

    def _insert(self, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        try:
            self.file.connection.executemany(_INSERT, rows)
        except sqlite3.IntegrityError as error:
            raise LogFailed(
                f"{self.file.path}: {error}: a second outcome for one id or attempt; the first writer wins"
            ) from error
        self._count(sum(row[9] is not None for row in rows))

    def _update(self, statement: str, rows: list[tuple[float, int]]) -> None:
        if not rows:
            return
        found = self.file.connection.executemany(statement, rows).rowcount
        if found != len(rows):
            raise LogFailed(f"{self.file.path}: of {len(rows)} attempts that end, {found} are in the log and open")
        self._count(found)

    def _count(self, ended: int) -> None:
        if self._ended_count is not None:
            self._ended_count += ended

    def _abort(self, record: Aborted) -> None:
        self.file.connection.execute("DELETE FROM troth_transactions WHERE id = ? AND state = 0", (record.id,))
        reason = record.reason.SerializeToString(deterministic=True)
        # Presumed abort: nobody is owed anything, so the outcome is ended as it is written.
        row = (record.number, record.id, record.digest, int(Outcome.ABORTED), 0, "[]", 0, reason, record.at, record.at)
        self._insert([(*row, time_of(record.id))])

    def _drop(self, record: Dropped) -> None:
        found = self.file.connection.execute(
            "DELETE FROM troth_transactions WHERE number = ? AND state = 0", (record.number,)
        ).rowcount
        if found != 1:
            raise LogFailed(f"{self.file.path}: attempt {record.number} is dropped and was not claimed")

    def _heuristic(self, record: Heuristic) -> None:
        row = (record.number, record.participant, int(record.done), record.reason, record.at)
        self.file.connection.execute("INSERT OR REPLACE INTO troth_heuristics VALUES (?, ?, ?, ?, ?, NULL)", row)
        what = "resolved by hand" if record.reason else "acknowledged as resolved by hand"
        self._audit(record.at, record.number, f"{record.participant}: {what} as {record.done.name}", record.reason)

    def _clear(self, record: Cleared) -> None:
        """A participant that a person spoke for has acknowledged nothing. Should it come back, prepared, it must hear
        the outcome and not a presumption, so the record stays, unlisted, and keeps the outcome from expiring."""
        of_it = "WHERE number = ? AND participant = ?"
        key = record.number, record.participant
        self.file.connection.execute(f"DELETE FROM troth_heuristics {of_it} AND reason = ''", key)
        self.file.connection.execute(f"UPDATE troth_heuristics SET cleared_at = ? {of_it}", (record.at, *key))
        self._audit(record.at, record.number, f"{record.participant}: heuristic record cleared", "")

    def _audit(self, at: float, number: int, what: str, reason: str) -> None:
        subject = str(AttemptId(self.file.identity, number))
        self.file.connection.execute("INSERT INTO troth_audit VALUES (?, ?, ?, ?)", (at, subject, what, reason))

    def _know(self, record: Known) -> None:
        self.file.connection.execute("INSERT OR REPLACE INTO troth_known VALUES (?, ?)", record)

    # Expiry.

    def _expire(self, record: Expired) -> float:
        """Moves the horizon, durably before anything is dropped; the rows go with this and later batches."""
        if self._ended_count is None:
            self._ended_count = self._one("SELECT count(*) FROM troth_transactions WHERE ended_at IS NOT NULL")
        self._drop_ended_before = max(self._drop_ended_before, record.ended_before)
        # Not the horizon kept: one that `restore` moved to the present refuses ids and still answers for older ones.
        self._drop_below = max(self._drop_below, record.horizon, self._overflow(record.answers_max))
        self._horizon = max(self._horizon, self._drop_below)
        self.file.connection.execute("UPDATE troth_meta SET value = ? WHERE key = 'horizon'", (self._horizon,))
        self._dropping = True
        return self._horizon

    def _overflow(self, answers_max: int) -> float:
        """The horizon below which enough outcomes lie that at most `answers_max` are left, as far as ids with a time
        can make room: others are promised to be kept for their time."""
        too_many = (self._ended_count or 0) - answers_max
        if too_many <= 0:
            return 0.0
        last = self._one(
            "SELECT max(time) FROM (SELECT time FROM troth_transactions "
            "WHERE time IS NOT NULL AND ended_at IS NOT NULL ORDER BY time LIMIT ?)",
            too_many,
        )
        return 0.0 if last is None else float(last) + 0.0005  # ids count milliseconds: all of that one go

    def _drop_expired(self) -> None:
        dropped = self._delete("time < ?", self._drop_below, DROP_ROWS)
        if dropped < DROP_ROWS:
            dropped += self._delete("time IS NULL AND ended_at < ?", self._drop_ended_before, DROP_ROWS - dropped)
        self._count(-dropped)
        self._dropping = dropped == DROP_ROWS

    def _delete(self, condition: str, before: float, limit: int) -> int:
        """Heuristic records keep their outcomes (rule 12)."""
        return self.file.connection.execute(
            "DELETE FROM troth_transactions WHERE number IN (SELECT number FROM troth_transactions "
            f"WHERE {condition} AND ended_at IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM troth_heuristics AS h WHERE h.number = troth_transactions.number) LIMIT ?)",
            (before, limit),
        ).rowcount

    # Reading.

    def look_up(self, key: str | int) -> Entry | None:
        """What the log holds of a client's id (str) or an attempt's number (int). In the writer thread."""
        column = "id" if isinstance(key, str) else "number"
        row = self.file.connection.execute(
            f"SELECT {_COLUMNS} FROM troth_transactions WHERE {column} = ?", (key,)
        ).fetchone()
        return None if row is None else self._entry(row)

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        number, id, digest, state, read, branches, incarnation, reason, at, ended_at = row
        heuristics = self.file.connection.execute(
            "SELECT participant, done FROM troth_heuristics WHERE number = ?", (number,)
        )
        return Entry(
            number=number,
            id=id,
            digest=digest,
            state=None if state == _CLAIMED else Outcome(state),
            branches=tuple(Owed(*branch) for branch in json.loads(branches)),
            incarnation=incarnation,
            read=bool(read),
            reason=None if reason is None else types_pb2.Reason.FromString(reason),
            at=at,
            ended_at=ended_at,
            heuristics=tuple((participant, Outcome(done)) for participant, done in heuristics),
        )

    def _newest(self) -> str:
        """The greatest id that carries a time."""
        latest = "SELECT max(time) FROM troth_transactions WHERE time IS NOT NULL"
        return self._one(f"SELECT max(id) FROM troth_transactions WHERE time = ({latest})") or ""

    def _recover(self) -> Recovered:
        execute = self.file.connection.execute
        rows = execute(f"SELECT {_COLUMNS} FROM troth_transactions WHERE ended_at IS NULL ORDER BY number").fetchall()
        heuristics = execute(
            "SELECT number, participant, done, reason, at FROM troth_heuristics WHERE cleared_at IS NULL"
        )
        return Recovered(
            open=tuple(map(self._entry, rows)),
            heuristics=tuple(Heuristic(n, name, Outcome(done), why, at) for n, name, done, why, at in heuristics),
            horizon=float(self._one("SELECT value FROM troth_meta WHERE key = 'horizon'")),
            known=tuple(execute("SELECT participant, identity FROM troth_known ORDER BY participant")),
            newest=self._newest(),
        )

    def _next_epoch(self) -> int:
        self.file.begin()
        self.file.connection.execute("UPDATE troth_meta SET value = value + 1 WHERE key = 'epoch'")
        epoch = int(self._one("SELECT value FROM troth_meta WHERE key = 'epoch'"))
        with failpoints.flush(self.file.connection, [EPOCH]):
            self.file.commit(1)
        return epoch

    def _one(self, query: str, *parameters: Any) -> Any:
        return self.file.connection.execute(query, parameters).fetchone()[0]


@functools.lru_cache(maxsize=4096)
def _branches_text(branches: tuple[Owed, ...]) -> str:
    """Encoded once for all attempts between the same participants."""
    return json.dumps(branches)


def _committed_row(record: Committed) -> tuple[Any, ...]:
    ended_at = None if any(branch.updating for branch in record.branches) else record.at
    time_ = None if record.id is None else time_of(record.id)
    branches = _branches_text(record.branches)
    row = (record.number, record.id, record.digest, 1, int(record.read), branches, 0, None, record.at, ended_at)
    return (*row, time_)


def _claimed_row(record: Claimed) -> tuple[Any, ...]:
    branches = _branches_text((Owed(record.participant, record.identity, True),))
    row = (record.number, record.id, record.digest, _CLAIMED, int(record.read), branches, record.incarnation)
    return (*row, None, record.at, None, time_of(record.id))


# Restoring from a copy.


def restored(file: LogFile, force: bool) -> list[str]:
    """What `troth.log.restore` does to a decision log, before its identity changes. Returns notes for a person.

    Attempts belong to the old identity and cannot be carried on under the new one: a COMMIT or a question that names
    the new identity would be about another attempt. So:

    - Outcomes stay as answers to their ids; those of assigned ids under their full old name.
    - The horizon moves to the present: an id made before it that this copy does not hold may have run since the copy
      was made, so it is refused as expired and never run again. Ids without a time cannot be told; a note says so.
    - Attempts not ended (commits owed, one-phase attempts without an outcome) refuse the restore unless `force`: the
      original file may still finish them. Forced, they stay open and owed to an identity that no file has, so that
      nothing is sent or guessed; they are listed as unresolved until a person resolves them.
    """
    execute = file.connection.execute
    opened = execute(
        "SELECT number, id, branches FROM troth_transactions WHERE ended_at IS NULL ORDER BY number"
    ).fetchall()
    notes = [
        f"{id or AttemptId(file.identity, number)} is not ended at {', '.join(_updating(branches))}"
        for number, id, branches in opened
    ]
    if opened and not force:
        raise LogRefused(
            f"{file.path} still owes {len(opened)} transactions: {'; '.join(notes[:5])}. Start the coordinator on the "
            "original file until they are ended; if it is lost, restore with force and resolve them by hand"
        )
    for number, _, branches in opened:
        execute("UPDATE troth_transactions SET branches = ? WHERE number = ?", (_unreachable(branches), number))
    prefix = str(AttemptId(file.identity, 0)).removesuffix("0:0")
    execute(
        "UPDATE troth_transactions SET id = ? || (number >> ?) || ':' || (number & ?) WHERE id IS NULL",
        (prefix, SEQUENCE_BITS, (1 << SEQUENCE_BITS) - 1),
    )
    execute("UPDATE troth_meta SET value = max(value, ?) WHERE key = 'horizon'", (time.time(),))
    notes.append(
        "ids with a time (UUIDv7) from before this moment that the copy does not hold will be refused as expired; "
        "ids without a time that ran after the copy was made would run again"
    )
    return notes


def _updating(branches: str) -> Iterable[str]:
    return (participant for participant, _, updating in json.loads(branches) if updating)


def _unreachable(branches: str) -> str:
    return json.dumps(
        [[name, f"{identity} before restore", updating] for name, identity, updating in json.loads(branches)]
    )
