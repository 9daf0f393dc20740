"""Opens a participant's file: lock and identity (`troth.log`), what it guards, what the vote log holds."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import structlog

from participant.events import Recovered
from participant.log import SCHEMA, VoteLog
from participant.resources.outside import Elsewhere, OutsideResource, Survey
from participant.resources.setup import BadSchema, adoption_report, apply_schema, compare_schema
from participant.resources.sqlite import SchemaChanged, SQLiteResource
from troth.log import LogFile, LogRefused
from troth.log.file import APPLICATION_ID, failures, transaction

log = structlog.get_logger(__name__)


class Opened(NamedTuple):
    """An opened file with all that reads and writes it."""

    file: LogFile
    resource: SQLiteResource | OutsideResource
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


async def open_outside(path: Path, name: str, resource: OutsideResource, *, history: bool) -> Opened:
    """Opens or makes the file of participant `name`, whose data `resource` holds, connects to that, and merges what
    both hold. Raises as `LogFile.open` does, LogRefused also when the file goes with other data; ResourceRefused."""
    file = await asyncio.to_thread(_open_votes, path, name, resource.kind)
    try:
        place = await resource.open(_namespace(file))
        try:
            survey = await resource.survey()
            return await asyncio.to_thread(_merge, file, resource, place, survey, history)
        except BaseException:
            await resource.close()
            raise
    except BaseException:
        await asyncio.to_thread(file.close)
        raise


def _open_votes(path: Path, name: str, kind: str) -> LogFile:
    def goes_with(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO troth_meta VALUES ('resource', ?)", (kind,))
        connection.execute("INSERT INTO troth_meta SELECT 'namespace', value FROM troth_meta WHERE key = 'identity'")

    file = LogFile.open(path, role="participant", name=name, schema=SCHEMA, on_create=goes_with)
    try:
        _check_kind(file, kind)
    except BaseException:
        file.close()
        raise
    return file


def _namespace(file: LogFile) -> str:
    """The name under which the file's branches are known at the server: the identity that it was made with, kept when
    `troth restore` gives it another one, as what was prepared then must still be found."""
    with failures(file.path):
        return str(_meta(file)["namespace"])


def _meta(file: LogFile) -> dict[str, object]:
    return dict(file.connection.execute("SELECT key, value FROM troth_meta"))


def _check_kind(file: LogFile, kind: str) -> None:
    found = _meta(file).get("resource", "sqlite")
    if found != kind:
        raise LogRefused(f"{file.path} is the vote log of a participant with --resource {found}, not {kind}")


def _merge(file: LogFile, resource: OutsideResource, place: str, survey: Survey, history: bool) -> Opened:
    with failures(file.path):
        votes = VoteLog(file, Elsewhere(resource), history)
        with transaction(file.path, file.connection):
            meta = _meta(file)
            kept = meta.get("place")
            if kept not in (None, place):
                raise LogRefused(f"{file.path} goes with the data in {kept}; it was started with those in {place}")
            file.connection.execute("INSERT OR IGNORE INTO troth_meta VALUES ('place', ?)", (place,))
            votes.merge(survey, time.time(), copied=meta["namespace"] != file.identity)
        _note_history(file, history)
        _tell_unserved(resource)
        for stray in survey.strays:
            log.warning("prepared at the server for another participant file", name=stray.name, age_s=stray.age_s)
        return Opened(file, resource, votes, votes.recover())


def _tell_unserved(resource: SQLiteResource | OutsideResource) -> None:
    for table in resource.tables():
        if table.not_served:
            log.warning("table not served", table=table.name, why=table.not_served)


def _tables_of(schema: str | None) -> Callable[[sqlite3.Connection], None] | None:
    return None if schema is None else lambda connection: apply_schema(connection, schema)


def _open_tables(file: LogFile, schema: str | None, history: bool) -> Opened:
    if schema is not None and not file.created:
        differences = compare_schema(file.connection, schema)
        if differences:
            raise BadSchema(f"a schema only makes new tables, and those here differ from it: {'; '.join(differences)}")
    _check_kind(file, "sqlite")
    resource = SQLiteResource(file.connection, file.name)
    _tell_unserved(resource)
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
