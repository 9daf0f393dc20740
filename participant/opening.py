"""Opens a participant's file: lock and identity (`troth.log`), the user's tables, what the vote log holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import structlog

from participant.events import Recovered
from participant.log import SCHEMA, VoteLog
from participant.resources.setup import BadSchema, adoption_report, apply_schema, compare_schema
from participant.resources.sqlite import SchemaChanged, SQLiteResource
from troth.log import LogFile, LogRefused
from troth.log.file import APPLICATION_ID, failures, transaction

log = structlog.get_logger(__name__)


class Opened(NamedTuple):
    """An opened file with all that reads and writes it."""

    file: LogFile
    resource: SQLiteResource
    votes: VoteLog
    recovered: Recovered


def open_file(path: Path, name: str, *, schema: Path | None, adopt: bool, history: bool) -> Opened:
    """Opens or makes the file of participant `name` and reads what it holds; blocks. `schema` makes the tables of a new
    file and is compared with those of any other; `adopt` takes an existing database, whose rows are looked over first.

    Raises as `LogFile.open` does, and LogRefused also when the tables are not what they must be."""
    try:
        if adopt:
            if not path.exists():
                raise LogRefused(f"{path} does not exist: there is nothing to adopt")
            _look_over(path)
        text = None if schema is None else schema.read_text()
        file = LogFile.open(path, role="participant", name=name, schema=SCHEMA, adopt=adopt, on_create=_tables_of(text))
        try:
            with failures(file.path):
                return _open_tables(file, text, history)
        except BaseException:
            file.close()
            raise
    except (BadSchema, SchemaChanged) as error:
        raise LogRefused(f"{path}: {error}") from error


def _tables_of(schema: str | None) -> Callable[[sqlite3.Connection], None] | None:
    return None if schema is None else lambda connection: apply_schema(connection, schema)


def _open_tables(file: LogFile, schema: str | None, history: bool) -> Opened:
    if schema is not None and not file.created:
        differences = compare_schema(file.connection, schema)
        if differences:
            raise BadSchema(f"a schema only makes new tables, and those here differ from it: {'; '.join(differences)}")
    resource = SQLiteResource(file.connection, file.name)
    for table in resource.tables():
        if table.not_served:
            log.warning("table not served", table=table.name, why=table.not_served)
    votes = VoteLog(file, resource, history)
    _note_history(file, history)
    return Opened(file, resource, votes, votes.recover())


def _note_history(file: LogFile, history: bool) -> None:
    """`history_from` in troth_meta: the position from which on the history misses nothing, for the auditor. 0 says that
    the file was made with it, so that every row comes from it; without the key none is kept."""
    execute = file.connection.execute
    kept = execute("SELECT 1 FROM troth_meta WHERE key = 'history_from'").fetchone() is not None
    if kept == history:
        return
    with transaction(file.path, file.connection):
        if history:
            (next_,) = execute("SELECT coalesce(max(position), 0) + 1 FROM troth_history").fetchone()
            execute("INSERT INTO troth_meta VALUES ('history_from', ?)", (0 if file.created else next_,))
        else:
            execute("DELETE FROM troth_meta WHERE key = 'history_from'")


def _look_over(path: Path) -> None:
    """Says what was checked of a database that is about to be adopted, before anything in it is changed. Raises
    BadSchema when its rows break its own rules: a YES could then not be kept."""
    if not path.exists():
        return
    # Not mode=ro: SQLite forgets the CHECKs of a database that is opened so, and finds every row right.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
        connection.execute("PRAGMA query_only = ON")
        if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
            return
        reports = adoption_report(connection)
    for report in reports:
        log.info("table to adopt", table=report.name, served=report.served, why=report.why, checked=report.checked)
    problems = [f"{report.name}: {problem}" for report in reports for problem in report.problems]
    if problems:
        raise BadSchema(f"cannot be adopted, for its rows break its own rules: {'; '.join(problems)}")
