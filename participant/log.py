"""The vote log: a participant's word, kept in the same SQLite file as the data it is about.

A prepared record holds what to apply (redo), the peers to ask, and so the locks to take again; it goes in the same
transaction in which the branch is applied or undone and its outcome is remembered. Remembered outcomes go below the
low-water mark (rule 7), which is kept instead.

`write` runs in the writer thread, inside the transaction of a batch, and calls the resource there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from participant.events import (
    Apply,
    Contradict,
    Denied,
    Forget,
    Found,
    Heuristic,
    Job,
    Learn,
    Note,
    Recovered,
    Resolve,
    RunAlone,
    Tried,
    Try,
    Undo,
)
from participant.resources import No, Plan, Prepared, Resource
from participant.resources.outside import Survey
from troth.log import LogFailed, LogFile, LogRefused
from troth.messages import Mark, Peer
from troth.words import AttemptId, Outcome

SCHEMA = """
CREATE TABLE troth_logs (
    log INTEGER PRIMARY KEY,         -- stands for a coordinator's log in the tables below
    identity TEXT NOT NULL UNIQUE,
    address TEXT NOT NULL            -- where its coordinator is asked; empty when never said
);
CREATE TABLE troth_prepared (
    log INTEGER NOT NULL,
    number INTEGER NOT NULL,
    operations BLOB NOT NULL,        -- an encoded Operations
    peers TEXT NOT NULL,             -- JSON: [[participant, address, identity], ...]
    at REAL NOT NULL,
    PRIMARY KEY (log, number)
) WITHOUT ROWID;
CREATE TABLE troth_finished (
    log INTEGER NOT NULL,
    number INTEGER NOT NULL,
    outcome INTEGER NOT NULL,        -- 1 COMMITTED, 2 ABORTED
    PRIMARY KEY (log, number)
) WITHOUT ROWID;
CREATE TABLE troth_heuristic (
    log INTEGER NOT NULL,
    number INTEGER NOT NULL,
    done INTEGER NOT NULL,           -- what a person said
    known INTEGER,                   -- the true outcome; NULL while unknown
    peers TEXT NOT NULL,
    operations BLOB NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (log, number)
) WITHOUT ROWID;
CREATE TABLE troth_marks (
    log INTEGER PRIMARY KEY,
    low INTEGER NOT NULL,
    excepted TEXT NOT NULL           -- JSON, ascending
);
CREATE TABLE troth_history (
    position INTEGER PRIMARY KEY,    -- in the order applied
    log INTEGER NOT NULL,
    number INTEGER NOT NULL,
    operations BLOB NOT NULL,
    at REAL NOT NULL
);
"""

_Key = tuple[int, int]
"""A log's small integer and an attempt's number."""


class VoteLog:
    """The vote log in a participant's file, with the resource that it guards.

    With `history`, the redo of each branch applied is kept in the order of application, for the auditor."""

    def __init__(self, file: LogFile, resource: Resource, history: bool) -> None:
        self._file = file
        self._connection = file.connection
        self._resource = resource
        self._history = history
        self._logs: dict[str, int] = dict(self._connection.execute("SELECT identity, log FROM troth_logs"))
        self._pending = _Pending()
        self._written: set[_Key] = set()
        """Branches in doubt that the history has already, as a resource outside the file has committed them."""
        self._run: dict[type[Any], Callable[[Any], Tried | Denied | None]] = {
            Try: self._try,
            RunAlone: self._run_alone,
            Apply: self._apply,
            Undo: self._undo,
            Resolve: self._resolve,
            Learn: self._learn,
            Contradict: self._contradict,
            Forget: self._forget,
            Note: self._note,
        }

    def write(self, jobs: Sequence[tuple[int, Job]]) -> list[tuple[int, Tried | Denied]]:
        """Runs jobs in their order; the results of those that try a branch.

        What the resource raises, other than No from a trial, propagates: nothing is known then of the whole batch."""
        results: list[tuple[int, Tried | Denied]] = []
        for n, job in jobs:
            result = self._run[type(job)](job)
            if result is not None:
                results.append((n, result))
        self._store_pending()
        return results

    # The jobs.

    def _try(self, job: Try) -> Tried | Denied:
        result: Tried | Denied | None = job.tried
        if result is None:
            before = self._connection.total_changes
            result = self._trial(self._resource.prepare, job.attempt, job.plan)
            # Whatever the resource changed in this file, it rolled back: that alone is no reason to flush.
            self._file.undone += self._connection.total_changes - before
        if isinstance(result, Tried) and not job.read_only:
            key = self._key(job.attempt)
            self._pending.prepared[key] = (*key, job.operations, _peers_text(job.peers), job.at)
        return result

    def _run_alone(self, job: RunAlone) -> Tried | Denied:
        before = self._connection.total_changes
        result = job.tried if job.tried is not None else self._trial(self._resource.run, job.attempt, job.plan)
        if isinstance(result, Denied):
            self._file.undone += self._connection.total_changes - before
        else:
            key = self._key(job.attempt)
            self._applied(key, job.operations, job.at)
            self._finish(key, Outcome.COMMITTED)
        return result

    def _trial(self, trial: Callable[[AttemptId, Plan], Prepared], attempt: AttemptId, plan: Plan) -> Tried | Denied:
        result: Tried | Denied
        try:
            prepared = trial(attempt, plan)
            result = Tried(prepared.rows, prepared.values)
        except No as no:
            result = Denied(no.reason)
        # SQLite rolls the whole batch back by itself on some errors, after which each statement would commit alone.
        if not self._connection.in_transaction:
            raise LogFailed(f"{self._file.path}: the trial of {attempt} ended the transaction of its whole batch")
        return result

    def _apply(self, job: Apply) -> None:
        self._resource.commit(job.attempt, job.plan)
        key = self._key(job.attempt)
        self._take_prepared(key)
        self._applied(key, job.operations, job.at)
        self._finish(key, Outcome.COMMITTED)

    def _undo(self, job: Undo) -> None:
        self._resource.abort(job.attempt, job.plan)
        key = self._key(job.attempt)
        if self._pending.prepared.pop(key, None) is None:
            self._pending.dropped.append(key)
        self._finish(key, Outcome.ABORTED)

    def _resolve(self, job: Resolve) -> None:
        key = self._key(job.attempt)
        if job.outcome == Outcome.COMMITTED:
            self._resource.commit(job.attempt, job.plan)
            self._applied(key, job.operations, job.at)
        else:
            self._resource.abort(job.attempt, job.plan)
        self._store_pending()
        peers = self._peers_text_of(key)
        if peers is None:
            raise LogFailed(f"{self._file.path}: {job.attempt} is resolved by hand and was not prepared")
        self._take_prepared(key)
        self._keep_heuristic(key, job.outcome, None, peers, job)
        self._audit(job.at, job.attempt, f"resolved by hand as {job.outcome.name}", job.reason)

    def _learn(self, job: Learn) -> None:
        self._connection.execute(
            "UPDATE troth_heuristic SET known = ? WHERE log = ? AND number = ?",
            (int(job.outcome), *self._key(job.attempt)),
        )
        self._audit(job.at, job.attempt, f"the true outcome is {job.outcome.name}", "")

    def _contradict(self, job: Contradict) -> None:
        self._store_pending()
        key = self._key(job.attempt)
        peers = self._peers_text_of(key)
        self._pending.dropped.append(key)
        if job.done is Outcome.COMMITTED:
            self._applied(key, job.operations, job.at)
        self._keep_heuristic(key, job.done, job.known, peers or "[]", job)
        self._audit(job.at, job.attempt, f"found as {job.done.name} at the server, and is {job.known.name}", "")

    def _forget(self, job: Forget) -> None:
        self._store_pending()
        log = self._log(job.log)
        low, excepted = job.mark
        self._connection.execute(
            "INSERT OR REPLACE INTO troth_marks VALUES (?, ?, ?)", (log, low, json.dumps(excepted))
        )
        self._connection.executemany(
            "DELETE FROM troth_finished WHERE log = ? AND number > ? AND number < ?",
            [(log, above, below) for above, below in _gaps(low, excepted)],
        )

    def _note(self, job: Note) -> None:
        log = self._log(job.log)
        self._connection.execute(
            "UPDATE troth_logs SET address = ? WHERE log = ? AND address <> ?", (job.address, log, job.address)
        )

    # Their parts.

    def _take_prepared(self, key: _Key) -> None:
        if self._pending.prepared.pop(key, None) is None:
            self._pending.taken.append(key)

    def _finish(self, key: _Key, outcome: Outcome) -> None:
        self._pending.finished.append((*key, outcome.value))

    def _applied(self, key: _Key, operations: bytes, at: float) -> None:
        if self._history and key not in self._written:
            self._pending.history.append((*key, operations, at))

    def _peers_text_of(self, key: _Key) -> str | None:
        """Of a prepared record that is stored; None when there is none."""
        row = self._connection.execute("SELECT peers FROM troth_prepared WHERE log = ? AND number = ?", key).fetchone()
        return None if row is None else row[0]

    def _keep_heuristic(
        self, key: _Key, done: Outcome, known: Outcome | None, peers: str, job: Resolve | Contradict
    ) -> None:
        self._connection.execute(
            "INSERT INTO troth_heuristic VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, int(done), None if known is None else int(known), peers, job.operations, job.at),
        )

    def _audit(self, at: float, attempt: AttemptId, what: str, reason: str) -> None:
        self._connection.execute("INSERT INTO troth_audit VALUES (?, ?, ?, ?)", (at, str(attempt), what, reason))

    def _key(self, attempt: AttemptId) -> _Key:
        return self._log(attempt.log), attempt.number

    def _log(self, identity: str) -> int:
        log = self._logs.get(identity)
        if log is None:
            row = self._connection.execute("INSERT INTO troth_logs (identity, address) VALUES (?, '')", (identity,))
            log = self._logs[identity] = int(row.lastrowid or 0)
        return log

    # What the jobs of a batch leave in the vote log is gathered and written with one statement for each kind: the data
    # of the resource does not depend on it, and no two kinds touch the same attempt in another order.

    def _store_pending(self) -> None:
        pending, self._pending = self._pending, _Pending()
        many = self._connection.executemany
        if pending.dropped:
            many("DELETE FROM troth_prepared WHERE log = ? AND number = ?", pending.dropped)
        if pending.taken:
            found = many("DELETE FROM troth_prepared WHERE log = ? AND number = ?", pending.taken).rowcount
            if found != len(pending.taken):
                raise LogFailed(f"{self._file.path}: of {len(pending.taken)} branches applied, {found} were prepared")
        if pending.prepared:
            many("INSERT INTO troth_prepared VALUES (?, ?, ?, ?, ?)", pending.prepared.values())
        if pending.finished:
            self._store_finished(pending.finished)
        if pending.history:
            many("INSERT INTO troth_history (log, number, operations, at) VALUES (?, ?, ?, ?)", pending.history)

    def _store_finished(self, rows: list[tuple[int, int, int]]) -> None:
        """Remembers outcomes; the same one twice is once, and never another one in its place."""
        insert = "INSERT INTO troth_finished VALUES (?, ?, ?) ON CONFLICT (log, number) DO NOTHING"
        if self._connection.executemany(insert, rows).rowcount == len(rows):
            return
        for log, number, outcome in rows:
            (kept,) = self._connection.execute(
                "SELECT outcome FROM troth_finished WHERE log = ? AND number = ?", (log, number)
            ).fetchone()
            if kept != outcome:
                names = f"{Outcome(kept).name} and now {Outcome(outcome).name}"
                raise LogFailed(f"{self._file.path}: attempt {number} of log {log} was {names}")

    # At start.

    def recover(self) -> Recovered:
        """Everything the vote log holds; the resource plans the prepared branches again. Before the writer starts."""
        identities = {log: identity for identity, log in self._logs.items()}
        execute = self._connection.execute

        def attempts(table: str, columns: str) -> Iterator[tuple[Any, ...]]:
            for log, number, *rest in execute(f"SELECT log, number, {columns} FROM {table} ORDER BY log, number"):
                yield AttemptId(identities[log], number), *rest

        return Recovered(
            prepared=self._found(list(attempts("troth_prepared", "operations, peers, at"))),
            finished=tuple((attempt, Outcome(outcome)) for attempt, outcome in attempts("troth_finished", "outcome")),
            heuristics=tuple(
                Heuristic(attempt, Outcome(done), None if known is None else Outcome(known), at, _peers(peers))
                for attempt, done, known, at, peers in attempts("troth_heuristic", "done, known, at, peers")
            ),
            marks=tuple(
                (identities[log], Mark(low, tuple(json.loads(excepted))))
                for log, low, excepted in execute("SELECT log, low, excepted FROM troth_marks ORDER BY log")
            ),
            addresses=tuple(execute("SELECT identity, address FROM troth_logs WHERE address <> '' ORDER BY log")),
        )

    def merge(self, survey: Survey, at: float, *, copied: bool) -> None:
        """Takes up what a resource outside the file holds and this log does not, in a transaction of the caller: the
        process, or the server, died between the server's part of a job and its record.

        A branch that is committed with its operations was one-phase. Any other that is not known here was never voted
        for, whoever has committed it since: it is in doubt, and its coordinator knows; but when this file is a copy of
        an older one (`copied`) the resource knows better. Raises LogRefused when the server does not remember what this
        log knows to be committed there."""
        execute = self._connection.execute
        prepared = {
            (log, number): operations
            for log, number, operations in execute("SELECT log, number, operations FROM troth_prepared")
        }
        ended = {(log, number): outcome for log, number, outcome in execute("SELECT * FROM troth_finished")}
        by_hand = {
            (log, number): done for log, number, done in execute("SELECT log, number, done FROM troth_heuristic")
        }
        committed = {self._key(attempt): operations for attempt, operations in survey.committed.items()}
        held = {self._key(attempt) for attempt in survey.prepared}
        lost = [key for key, outcome in ended.items() if outcome == Outcome.COMMITTED and key not in committed]
        lost += [key for key in sorted(held) if Outcome.COMMITTED in (ended.get(key), by_hand.get(key))]
        if lost:
            raise LogRefused(
                f"{self._file.path} knows how {len(lost)} branches ended, among them number {lost[0][1]}, and the "
                f"server does not: its data were restored from an older copy"
            )
        marks = {log: (low, json.loads(excepted)) for log, low, excepted in execute("SELECT * FROM troth_marks")}

        def forgotten(key: _Key) -> bool:
            low, excepted = marks.get(key[0], (0, []))
            return key not in prepared and key[1] < low and key[1] not in excepted

        # One that was aborted is there again after a crash of the server: the first look rolls it back.
        in_doubt = held - prepared.keys() - ended.keys() - by_hand.keys()
        applied = {
            key: prepared.get(key, operations)
            for key, operations in committed.items()
            if key not in ended and key not in by_hand and not forgotten(key)
        }
        self._written = {key for key in execute("SELECT log, number FROM troth_history") if key in applied}
        for key, operations in applied.items():
            self._applied(key, operations, at)
            if committed[key] or (copied and key not in prepared):
                self._finish(key, Outcome.COMMITTED)
            else:
                self._written.add(key)
                in_doubt |= {key} - prepared.keys()
        for key in sorted(in_doubt):
            self._pending.prepared[key] = (*key, b"", "[]", at)
        self._store_pending()

    def _found(self, records: list[tuple[Any, ...]]) -> tuple[Found, ...]:
        self._file.begin()
        try:
            in_doubt = self._resource.recover([(attempt, operations) for attempt, operations, _, _ in records])
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        branches = {branch.attempt: branch for branch in in_doubt}
        missing = [attempt for attempt, *_ in records if attempt not in branches]
        if missing:
            raise LogFailed(f"{self._file.path}: the resource did not recover {', '.join(map(str, missing))}")
        return tuple(
            Found(attempt, operations, branches[attempt].plan, branches[attempt].values, _peers(peers), at)
            for attempt, operations, peers, at in records
        )


class _Pending:
    """What the jobs so far leave in the vote log."""

    def __init__(self) -> None:
        self.prepared: dict[_Key, tuple[Any, ...]] = {}
        self.dropped: list[_Key] = []
        """Records that may be there."""
        self.taken: list[_Key] = []
        """Records that must be there."""
        self.finished: list[tuple[int, int, int]] = []
        self.history: list[tuple[Any, ...]] = []


@functools.lru_cache(maxsize=4096)
def _peers_text(peers: tuple[Peer, ...]) -> str:
    """Encoded once for all branches with the same peers."""
    return json.dumps(peers)


def _peers(text: str) -> tuple[Peer, ...]:
    return tuple(Peer(*peer) for peer in json.loads(text))


def _gaps(low: int, excepted: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The open intervals between the excepted numbers, below `low`."""
    above = -1
    for number in excepted:
        if number >= low:
            break
        yield above, number
        above = number
    yield above, low


# Restoring from a copy.


def restored(file: LogFile, force: bool) -> list[str]:
    """What `troth.log.restore` does to a vote log, before its identity changes: nothing. Returns notes for a person.

    All that the log holds is of attempts of coordinators, which keep their own identity, so it stays true or in doubt:

    - Prepared branches are in doubt again, with their locks, and go on asking under their old attempts; the notes list
      them. `force` makes no difference, as nothing here is owed to anybody.
    - Outcomes, marks and heuristic records stay: late duplicates are still refused by them.
    - What the original file did after the copy was made is gone from the data, and nothing can tell. As questions name
      the identity that they are meant for, this file is no longer asked about it and so never vouches for it.
    """
    rows = file.connection.execute(
        "SELECT identity, number FROM troth_prepared JOIN troth_logs USING (log) ORDER BY log, number"
    )
    return [
        f"{AttemptId(identity, number)} is prepared and in doubt here; it asks when it is served again (troth in-doubt)"
        for identity, number in rows
    ]
