"""The simulated server of a participant whose data are outside of its file: tables, what is prepared, what committed.

It keeps its word: what it has prepared or committed is durable, and a participant's death changes nothing of it; only a
rollback may be lost by a crash of its own. Its tables are those of the shipped SQLite resource, which tries a branch in
isolation; what it has prepared keeps others from changing the same rows, as a server's own locks do, while whoever only
looks sees what is committed and does not wait. That takes no time here: what does (calls on their way, a server that is
down) is `errands.py`'s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from faults.simulator.ledgers import VoteLedger
from faults.simulator.model import SCHEMA, Rows, footprint
from participant.resources import Lock, Mode, Plan, Prepared
from participant.resources.outside import EndedElsewhere, OutsideResource, Survey
from participant.resources.setup import apply_schema
from participant.resources.sqlite import SQLiteResource
from troth.messages import Mark
from troth.v1 import participant_pb2, types_pb2
from troth.words import AttemptId, Outcome

T = TypeVar("T")


def at_once(part: Coroutine[Any, Any, T]) -> T:
    """The result of what never has to wait."""
    try:
        part.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    raise AssertionError(f"{part} waits")


def fill(connection: sqlite3.Connection, rows: Rows) -> None:
    """Makes the tables of every simulated participant, with these rows."""
    apply_schema(connection, SCHEMA)
    for (table, key), row in rows.rows.items():
        columns = ", ".join(row)
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} (k, {columns}) VALUES (?, {marks})", (key, *row.values()))


class Server(OutsideResource):
    """What one participant file guards."""

    kind = "simulated"

    def __init__(self, ledger: VoteLedger, rows: Rows) -> None:
        self.ledger = ledger
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.execute("PRAGMA foreign_keys = ON")
        fill(self.connection, rows)
        self._tables = SQLiteResource(self.connection, ledger.name)
        self.prepared: dict[AttemptId, Plan] = {}
        self.committed: dict[AttemptId, bytes] = {}
        """In the order committed."""
        self._rolled_back: dict[AttemptId, Plan] = {}
        """Since something was last forced: what a crash may bring back."""
        self._came_back: set[AttemptId] = set()
        self.by_hand: set[AttemptId] = set()
        """Branches that a person has ended, here or through the participant."""

    async def open(self, namespace: str) -> str:
        return namespace

    async def survey(self) -> Survey:
        return Survey(frozenset(self.prepared), dict(self.committed), ())

    def plan(self, operations: bytes) -> Plan:
        """Without escrow."""
        plan = self._tables.plan(operations)
        locks = [Lock(lock.name, Mode.EXCLUSIVE) if lock.mode is Mode.INCREMENT else lock for lock in plan.locks]
        return plan._replace(locks=tuple(locks))

    async def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        with self._transaction():
            found = self._tables.prepare(attempt, plan)
        if not plan.read_only:
            self.prepared[attempt] = plan
            self._rolled_back.clear()
        self.ledger.tries(attempt.number, found.rows)
        return Prepared(found.rows, {})

    async def run(self, attempt: AttemptId, operations: bytes, plan: Plan) -> Prepared:
        with self._transaction():
            found = self._tables.run(attempt, plan)
        self.ledger.tries(attempt.number, found.rows)
        self._commits(attempt, operations)
        return Prepared(found.rows, {})

    async def commit(self, attempt: AttemptId) -> None:
        plan = self.prepared.pop(attempt, None)
        if plan is not None:
            with self._transaction():
                self._tables.commit(attempt, plan)
            self._commits(attempt, b"")
        elif attempt not in self.committed:
            raise EndedElsewhere(attempt, Outcome.ABORTED)

    async def abort(self, attempt: AttemptId) -> None:
        """Not forced by itself: whatever is prepared or committed next takes it along."""
        plan = self.prepared.pop(attempt, None)
        if plan is not None:
            self._rolled_back[attempt] = plan
        if attempt in self.committed:
            raise EndedElsewhere(attempt, Outcome.COMMITTED)

    async def forget(self, log: str, mark: Mark) -> None:
        for attempt in list(self.committed):
            if attempt.log == log and attempt.number < mark.low and attempt.number not in mark.excepted:
                del self.committed[attempt]

    async def read_row(self, table: str, key: Sequence[types_pb2.Value]) -> types_pb2.Row:
        return self._tables.read_row(self.connection, table, key)

    def tables(self) -> list[participant_pb2.TableStatus]:
        return self._tables.tables()

    async def close(self) -> None:
        self.connection.close()

    # Beside the contract.

    def waits(self, number: int) -> bool:
        """Whether a branch would have to wait for one that is prepared here."""
        wanted = self._changed(number)
        return any(wanted & self._changed(other.number) for other in self.prepared)

    def forget_rollbacks(self) -> None:
        """The server has died: what was rolled back and not forced is prepared again."""
        self.prepared |= self._rolled_back
        self._came_back |= self._rolled_back.keys()
        self._rolled_back.clear()

    def rolled_back(self, attempt: AttemptId) -> bool:
        """Whether it is not prepared, or was not once, before a crash brought it back."""
        return attempt not in self.prepared or self.came_back(attempt)

    def came_back(self, attempt: AttemptId) -> bool:
        """Whether it was rolled back once, and a crash took that away."""
        return attempt in self._came_back

    def end_by_hand(self, attempt: AttemptId, outcome: Outcome) -> None:
        """Somebody at the server ends a prepared branch, as its coordinator says or not."""
        self.by_hand.add(attempt)
        at_once(self.commit(attempt) if outcome is Outcome.COMMITTED else self.abort(attempt))

    def _changed(self, number: int) -> set[Any]:
        work = self.ledger.works.get(number, ())
        return {slot for slot, how in footprint(work).items() if how != "look"}

    def _commits(self, attempt: AttemptId, operations: bytes) -> None:
        self.committed[attempt] = operations
        self._rolled_back.clear()
        self.ledger.applies(attempt.number)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("COMMIT")
