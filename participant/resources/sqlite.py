"""The built-in resource: ordinary tables in the participant's own SQLite file, beside its vote log.

Because data and vote log are one file, whatever this resource does becomes durable with the vote log's record of it, in
one local transaction; `abort` has nothing to undo, for a trial leaves nothing. The parts: `schema.py` says which tables
are served, `planning.py` turns operations into locks and steps, `steps.py` meets the rows.

What must not hold, ever: a `commit` that fails after `prepare` returned while the locks of the plan were held.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from participant.resources import InDoubt, LockName, No, Plan, Prepared, Resource, planning
from participant.resources import describe as descriptions
from participant.resources.planning import Work
from participant.resources.schema import load
from participant.resources.steps import ApplyFailed, EscrowAdd, Run, present, read_row
from participant.resources.targets import target_of
from troth.v1 import participant_pb2, types_pb2
from troth.words import AttemptId

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAVEPOINT = "troth_trial"


class SchemaChanged(Exception):
    """The schema changed while branches were prepared against another one: the participant must not serve."""


class TransactionLost(Exception):
    """SQLite rolled the whole batch back during a trial: nothing is known, the process stops (DESIGN section 4)."""


class SQLiteResource(Resource):
    """Serves the tables of `connection`, the vote log's own (WAL, FULL, foreign_keys=ON, isolation_level=None).

    Every method but `plan` and `tables` runs in the writer thread, inside the log's transaction.
    """

    def __init__(self, connection: sqlite3.Connection, participant: str = "") -> None:
        """`participant` is named in the rows that it reads."""
        if connection.execute("PRAGMA foreign_keys").fetchone()[0] != 1:
            raise ValueError("the connection must have foreign_keys=ON")
        self._connection = connection
        self._participant = participant
        self._cursor = connection.cursor()
        self._catalog = load(connection)

    def plan(self, operations: bytes) -> Plan:
        return planning.plan(self._catalog, operations)

    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        work = cast(Work, plan.work)
        run = Run(self._cursor, keep=False)
        if work.only_looks:
            self._try(work, run)
            self._check_open()
        else:
            with self._savepoint(kept=False):
                self._try(work, run)
        return self._prepared(run)

    def commit(self, attempt: AttemptId, plan: Plan) -> None:
        for step in cast(Work, plan.work).changes:
            step.apply(self._cursor)

    def run(self, attempt: AttemptId, plan: Plan) -> Prepared:
        run = Run(self._cursor, keep=True)
        with self._savepoint(kept=True):
            self._try(cast(Work, plan.work), run)
        return self._prepared(run)

    def abort(self, attempt: AttemptId, plan: Plan | None) -> None:
        """Nothing: a trial leaves nothing behind."""

    def recover(self, prepared: Sequence[tuple[AttemptId, bytes]]) -> list[InDoubt]:
        """Raises SchemaChanged, naming the tables and what differs, when the schema is not the one that the branches
        were prepared against. Opens a transaction of its own when none is open."""
        self.reload()
        if self._connection.in_transaction:
            self._keep_schema(must_equal=bool(prepared))
        else:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._keep_schema(must_equal=bool(prepared))
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        return [self._recover_one(attempt, operations) for attempt, operations in prepared]

    def reload(self) -> None:
        """Reads the schema again, after a table was made."""
        self._catalog = load(self._connection)

    def schema_changed(self) -> None:
        """Call inside the transaction that made a table: serves it, and keeps the new schema for the next start."""
        self.reload()
        self._keep_schema(must_equal=False)

    def fingerprint(self) -> str:
        """A short name of the present schema."""
        return descriptions.fingerprint(descriptions.describe(self._connection))

    def tables(self) -> list[participant_pb2.TableStatus]:
        """Every table, served or not, by name. Pure, so callable on the event loop."""
        statuses = []
        for table in self._catalog.served.values():
            status = participant_pb2.TableStatus(name=table.name, key=[column.name for column in table.key])
            for column in table.columns.values():
                status.columns.add(name=column.name, type=column.kind.value, nullable=column.nullable)
            statuses.append(status)
        for refused in self._catalog.refused.values():
            status = participant_pb2.TableStatus(name=refused.name, not_served=refused.why)
            for name, declared, nullable in refused.columns:
                status.columns.add(name=name, type=declared.lower(), nullable=nullable)
            statuses.append(status)
        return sorted(statuses, key=lambda status: status.name)

    def read_row(self, connection: sqlite3.Connection, table: str, key: Sequence[types_pb2.Value]) -> types_pb2.Row:
        """One row as applied now, read on `connection` (the log's own, or another one to the same file). Raises No."""
        target = target_of(self._catalog, 0, table, key)
        row = read_row(connection.cursor(), target)
        row.participant = self._participant
        return row

    def _try(self, work: Work, run: Run) -> None:
        for step in work.steps:
            step.attempt(run)

    @contextmanager
    def _savepoint(self, *, kept: bool) -> Iterator[None]:
        """What is done inside is undone at the end, except when it is to be kept and nothing was raised."""
        execute = self._cursor.execute
        execute(f"SAVEPOINT {_SAVEPOINT}")
        try:
            yield
        except No:
            self._check_open()
            execute(f"ROLLBACK TO {_SAVEPOINT}")
            execute(f"RELEASE {_SAVEPOINT}")
            raise
        self._check_open()
        if not kept:
            execute(f"ROLLBACK TO {_SAVEPOINT}")
        execute(f"RELEASE {_SAVEPOINT}")

    def _check_open(self) -> None:
        if not self._connection.in_transaction:
            raise TransactionLost("SQLite rolled the transaction back during a trial")

    def _prepared(self, run: Run) -> Prepared:
        for row in run.rows:
            row.participant = self._participant
        return Prepared(types_pb2.Rows(rows=run.rows).SerializeToString() if run.rows else b"", run.values)

    def _recover_one(self, attempt: AttemptId, operations: bytes) -> InDoubt:
        try:
            plan = self.plan(operations)
            values: dict[tuple[LockName, str], int] = {}
            for step in cast(Work, plan.work).changes:
                if isinstance(step, EscrowAdd):
                    slot = (step.target.name, step.column.name)
                    values[slot] = present(self._cursor, step.target, step.column)
        except No as error:
            raise SchemaChanged(f"{attempt} is prepared and can no longer be applied: {error}") from error
        return InDoubt(attempt, plan, values)

    def _keep_schema(self, *, must_equal: bool) -> None:
        """Compares the schema with the stored one, and stores it when they differ and may."""
        execute = self._connection.execute
        execute("CREATE TABLE IF NOT EXISTS troth_schema(name TEXT PRIMARY KEY NOT NULL, features TEXT NOT NULL)")
        rows = execute("SELECT name, features FROM troth_schema").fetchall()
        stored = {name: json.loads(features) for name, features in rows}
        found = descriptions.describe(self._connection)
        if stored == found:
            return
        if must_equal:
            changes = "; ".join(descriptions.differences(stored, found))
            raise SchemaChanged(f"the schema changed while branches are prepared: {changes}")
        execute("DELETE FROM troth_schema")
        pairs = [(name, json.dumps(features)) for name, features in found.items()]
        self._connection.executemany("INSERT INTO troth_schema(name, features) VALUES(?, ?)", pairs)


__all__ = ["ApplyFailed", "SQLiteResource", "SchemaChanged", "TransactionLost"]
