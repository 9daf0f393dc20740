"""What each file says about each attempt, as streams ordered by attempt: nothing is held in memory but what is small.

The schema (`coordinator/log.py`, `participant/log.py`) is all that this shares with the engine.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from faults.auditor.files import Damaged, File
from faults.auditor.server import Copied
from troth.v1.types_pb2 import Operation, Operations, Reason
from troth.words import AttemptId

CLAIMED, COMMITTED, ABORTED = 0, 1, 2
"""The state of a row of the decision log; the last two are the outcomes everywhere."""

_ENDED = ("troth_finished", "troth_heuristic")

BEFORE_RESTORE = " before restore"
"""Behind the identity that a commit was owed to when a decision log was restored by force."""


class Branch(NamedTuple):
    """An updating branch as a decision names it."""

    participant: str
    identity: str


class Branches(NamedTuple):
    """The branches that a decision requires to be applied; a read-only one leaves no trace."""

    updating: tuple[Branch, ...]
    identities: frozenset[str]
    """Of their files; those that a forced restore of the log made unreachable under their true names."""


class Decision(NamedTuple):
    """A coordinator's row. `branches` is None when they, or the reason of an abort, cannot be read."""

    log: Coordinator
    state: int
    id: str | None
    branches: Branches | None
    ended: bool


class Prepared(NamedTuple):
    """A participant has voted YES and does not know the outcome."""

    log: Participant
    readable: bool
    """Whether what it is to apply, and whom it may ask, can be read."""


class Finished(NamedTuple):
    """A participant remembers the outcome."""

    log: Participant
    outcome: int


class ByHand(NamedTuple):
    """A person resolved the branch at the participant; `known` is the true outcome once it was heard."""

    log: Participant
    done: int
    known: int | None


class Applied(NamedTuple):
    """A participant's history has the branch, at this place."""

    log: Participant
    position: int
    at: float


class Held(NamedTuple):
    """The server that has a participant's data holds the branch."""

    log: Participant
    committed: bool
    """And is to be seen; otherwise it is prepared there."""
    alone: bool
    """It was committed in one step, without having been prepared (rule 13)."""


Claim = Decision | Prepared | Finished | ByHand | Applied | Held
Entry = tuple[str, int, tuple[int, int], Claim]
"""Log identity, number, a key of the stream (so that claims are never compared), and the claim."""


class Coordinator:
    """A decision log, read. `index` tells the files of one audit apart."""

    def __init__(self, file: File, index: int) -> None:
        self.file, self.index = file, index
        self._execute = file.connection.execute
        self.epoch = int(self._meta("epoch"))
        self.horizon = float(self._meta("horizon"))
        self.known: dict[str, str] = dict(self._execute("SELECT participant, identity FROM troth_known"))
        """The identity last seen under each participant's name."""
        self.by_hand = self._by_hand()
        """What people did to branches, by number and participant; cleared records are among it."""
        self.cleared = {key for key, whats in self.by_hand.items() if any("cleared" in what for what in whats)}
        _check_types(file, "troth_transactions", number="integer", state="integer", at="real")

    def _meta(self, key: str) -> Any:
        value = self.file.meta.get(key)
        if not isinstance(value, int | float):
            raise Damaged(f"its {key} is {value!r}")
        return value

    def _by_hand(self) -> Mapping[tuple[int, str], list[str]]:
        found: dict[tuple[int, str], list[str]] = {}
        for subject, what in self._execute("SELECT subject, what FROM troth_audit WHERE subject <> 'file'"):
            participant, _, rest = what.partition(": ")
            try:
                number = AttemptId.parse(subject).number
            except ValueError as error:
                raise Damaged(f"troth_audit has a subject that is no attempt: {subject!r}") from error
            found.setdefault((number, participant), []).append(rest)
        for number, participant in self._execute("SELECT number, participant FROM troth_heuristics"):
            found.setdefault((number, participant), []).append("resolved by hand")
        return found

    def issued(self, number: int) -> bool:
        """Whether it can have issued this number (as its present identity)."""
        attempt = AttemptId("", number)
        return 1 <= attempt.epoch <= self.epoch and attempt.sequence >= 1

    def streams(self) -> list[Iterator[Entry]]:
        """One for each identity that the log had: a row belongs to the one of its time."""
        streams = []
        since = float("-inf")
        for n, (identity, until) in enumerate([*self.file.restored, (self.file.identity, float("inf"))]):
            streams.append(self._decisions(n, identity, since, until))
            since = until
        return streams

    def _decisions(self, n: int, identity: str, since: float, until: float) -> Iterator[Entry]:
        key = (self.index, n)
        rows = self._execute(
            "SELECT number, state, id, branches, ended_at IS NOT NULL, reason FROM troth_transactions "
            "WHERE at >= ? AND at < ? ORDER BY number",
            (since, until),
        )
        for number, state, id, branches, ended, reason in rows:
            named = _branches(branches) if reason is None or _is_reason(reason) else None
            yield identity, number, key, Decision(self, state, id, named, bool(ended))

    def ids(self) -> Iterator[tuple[str, int, int]]:
        """Every client's id with the number and state of its row, by id."""
        query = "SELECT id, number, state FROM troth_transactions WHERE id IS NOT NULL ORDER BY id, number"
        return iter(self._execute(query))


class Participant:
    """A vote log, read. `index` tells the files of one audit apart."""

    def __init__(self, file: File, index: int) -> None:
        self.file, self.index = file, index
        self.kind = str(file.meta.get("resource", ""))
        """Of the server that has its data; empty when this file has them."""
        self.copied: Copied | None = None
        """What that server holds, once it was looked at."""
        self._execute = file.connection.execute
        self.logs: dict[int, str] = dict(self._execute("SELECT log, identity FROM troth_logs ORDER BY identity"))
        for table in ("troth_prepared", "troth_finished", "troth_heuristic", "troth_history"):
            _check_types(file, table, number="integer")
            self._check_logs(table)
        self._check_logs("troth_marks")
        _check_types(file, "troth_history", at="real")
        self.marks = {self.logs[log]: mark for log, mark in self._marks()}
        self.history_length: int = self._execute("SELECT count(*) FROM troth_history").fetchone()[0]
        self.history_from = self._history_from()

    def _check_logs(self, table: str) -> None:
        query = f"SELECT log FROM {table} WHERE log NOT IN (SELECT log FROM troth_logs) LIMIT 1"
        row = self._execute(query).fetchone()
        if row is not None:
            raise Damaged(f"{table} has a record of log {row[0]}, which troth_logs does not name")

    def _marks(self) -> Iterator[tuple[int, tuple[int, frozenset[int]]]]:
        for log, low, excepted in self._execute("SELECT log, low, excepted FROM troth_marks"):
            try:
                yield log, (int(low), frozenset(json.loads(excepted)))
            except (ValueError, TypeError) as error:
                raise Damaged(f"the mark of log {self.logs[log]} is not a mark: {low!r}, {excepted!r}") from error

    def _history_from(self) -> int | None:
        """The position from which on every branch applied is in the history; 0: since the file was made, so that all
        its rows come from it. None: its process did not keep it."""
        value = self.file.meta.get("history_from")
        if value is not None and not isinstance(value, int):
            raise Damaged(f"its history_from is {value!r}")
        return value

    def below(self, log: str, number: int) -> bool:
        """Below the low-water mark: below and not excepted (rule 7)."""
        low, excepted = self.marks.get(log, (0, frozenset()))
        return number < low and number not in excepted

    def streams(self) -> list[Iterator[Entry]]:
        streams = [self._prepared(), self._finished(), self._heuristic(), self._applied()]
        return streams if self.copied is None else [*streams, self._held(self.copied)]

    def _by_log(self, columns: str, table: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for log, identity in self.logs.items():
            for row in self._execute(f"SELECT number, {columns} FROM {table} WHERE log = ? ORDER BY number", (log,)):
                yield identity, row

    def _prepared(self) -> Iterator[Entry]:
        for identity, (number, operations, peers) in self._by_log("operations, peers", "troth_prepared"):
            taken_up = bool(self.kind) and not operations  # from the server, which had it without a record here
            yield identity, number, (self.index, 1), Prepared(self, taken_up or _readable(operations, peers))

    def _finished(self) -> Iterator[Entry]:
        for identity, (number, outcome) in self._by_log("outcome", "troth_finished"):
            yield identity, number, (self.index, 2), Finished(self, outcome)

    def _heuristic(self) -> Iterator[Entry]:
        for identity, (number, done, known) in self._by_log("done, known", "troth_heuristic"):
            yield identity, number, (self.index, 3), ByHand(self, done, known)

    def _applied(self) -> Iterator[Entry]:
        """Sorted by SQLite, in its temporary files when there is much of it."""
        for identity, (number, position, at) in self._by_log("position, at", "troth_history"):
            yield identity, number, (self.index, 4), Applied(self, position, at)

    def _held(self, copied: Copied) -> Iterator[Entry]:
        for log, number, committed, operations in copied.held():
            yield log, number, (self.index, 5), Held(self, committed, bool(operations))


def unrecorded(log: Participant) -> Iterator[tuple[AttemptId, bytes]]:
    """What the server has committed and the history has not yet, with its operations, in the server's order."""
    if log.copied is None:
        return
    numbers, execute = {identity: log for log, identity in log.logs.items()}, log.file.connection.execute
    for identity, number, operations in log.copied.committed():
        key = numbers.get(identity), number
        prepared = execute("SELECT operations FROM troth_prepared WHERE log = ? AND number = ?", key).fetchone()
        if prepared is not None:
            if not _has(log, "troth_history", key):
                yield AttemptId(identity, number), prepared[0]
        elif operations and not (log.below(identity, number) or any(_has(log, table, key) for table in _ENDED)):
            yield AttemptId(identity, number), operations


def _has(log: Participant, table: str, key: tuple[int | None, int]) -> bool:
    found = log.file.connection.execute(f"SELECT 1 FROM {table} WHERE log = ? AND number = ?", key).fetchone()
    return found is not None


def tables_named(log: Participant) -> set[str]:
    """The tables, in lower case, that what was applied by the history may have changed; none without a history."""
    if log.history_from is None:
        return set()
    rows = log.file.connection.execute(
        "SELECT operations FROM troth_history WHERE position >= ? UNION ALL SELECT operations FROM troth_prepared",
        (log.history_from,),
    )
    return {operation.table.lower() for (encoded,) in rows for operation in _operations(encoded)}


def _operations(encoded: bytes) -> Sequence[Operation]:
    """None of what cannot be read, which is told elsewhere."""
    try:
        return Operations.FromString(encoded).operations
    except (DecodeError, TypeError):
        return ()


def _is_reason(reason: bytes) -> bool:
    try:
        return bool(Reason.FromString(reason).code)
    except (DecodeError, TypeError):
        return False


def _readable(operations: bytes, peers: str) -> bool:
    try:
        return bool(Operations.FromString(operations).operations) and all(len(peer) == 3 for peer in json.loads(peers))
    except (DecodeError, TypeError, ValueError):
        return False


@functools.lru_cache(maxsize=4096)
def _branches(text: str) -> Branches | None:
    try:
        named = [(str(name), str(identity), updating) for name, identity, updating in json.loads(text)]
    except (ValueError, TypeError):
        return None
    branches = tuple(Branch(name, identity) for name, identity, updating in named if updating)
    return Branches(branches, frozenset(branch.identity.removesuffix(BEFORE_RESTORE) for branch in branches))


def _check_types(file: File, table: str, **columns: str) -> None:
    """SQLite keeps anything in any column; what is compared and sorted here must be what it should be."""
    for column, wanted in columns.items():
        row = file.connection.execute(f"SELECT {column} FROM {table} WHERE typeof({column}) <> ? LIMIT 1", (wanted,))
        for (found,) in row:
            raise Damaged(f"{table} has a record whose {column} is {found!r}")


def count(connection: sqlite3.Connection, table: str) -> int:
    """Records in a table."""
    found: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return found
