"""One SQLite file with one process: its lock, its identity, and what must be true before anything in it is believed.

The file says of itself what it is: `application_id` (Troth), `user_version` (the format), and in `troth_meta` the role,
the name, the identity and the highest durable number. All of Troth's own tables are named troth_*; a participant's file
holds its user's tables beside them.

This module knows nothing of records; see `coordinator/log.py` and `participant/log.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeVar

import structlog

from troth.log.holders import flock_holder, users_of, writers_of

Role = Literal["coordinator", "participant"]

APPLICATION_ID = 0x54726F74
"""`Trot`, in the header of every file of Troth."""

FORMAT = 1
"""The format of Troth's tables, kept in `user_version`. A newer one is refused by name."""

BUSY_WAIT_S = 0.2
"""How long SQLite itself waits for another program before we look who it is, and wait on."""

WARN_INTERVAL_S = 10.0
"""How often a wait for another program is warned of again."""

SQLITE_LEAST = (3, 37)
"""For `pragma_table_list`, by which a participant knows its tables."""
OPEN_WAIT_S = 30.0
"""How long opening waits for another program to leave the file, by default."""

_SCHEMA = """
CREATE TABLE troth_meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE troth_seen (identity TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE troth_audit (at REAL NOT NULL, subject TEXT NOT NULL, what TEXT NOT NULL, reason TEXT NOT NULL);
"""

_log = structlog.get_logger(__name__)


class LogHeld(Exception):
    """Another process has the file open. `pid` is None when its holder cannot be told."""

    def __init__(self, path: Path, pid: int | None) -> None:
        self.path, self.pid = path, pid
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(f"{path} is in use by {holder}; one process at a time may have it open")


class LogRefused(Exception):
    """The file is not one that may be opened so; the message says what it is and what to do."""


class LogFailed(Exception):
    """The file could not be read or written. What was being written is unknown: stop, and open it again."""


def error_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; -1 for errors of the Python module itself."""
    return getattr(error, "sqlite_errorcode", -1) & 0xFF


def failure(path: Path, error: BaseException) -> LogFailed:
    """What to tell a person about an error that ended the use of the file; `error` is to be its cause."""
    unknown = "what was being written is unknown until the file is opened again"
    if isinstance(error, sqlite3.Error) and error_code(error) == sqlite3.SQLITE_FULL:
        return LogFailed(f"{path}: no space left on the disk; {unknown}. Free some space and start again")
    return LogFailed(f"{path}: {type(error).__name__}: {error}; {unknown}")


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Runs the statements of `script` inside the present transaction; sqlite3's own `executescript` would commit it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
    if statement.strip():
        connection.execute(statement)


def sync_folder(folder: Path) -> None:
    """Makes the names of files created in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileLock:
    """A lock beside the database, `<file>.lock`, with its holder's pid in it, and one on the database itself, which
    holds when somebody deletes the first or gives the database a second name. Both end with the process.

    The database's alone would not do: a file that is moved away and put back is another file."""

    def __init__(self, database: Path) -> None:
        self.path = Path(f"{database}.lock")
        self._database = database
        self._descriptors: list[int] = []
        try:
            beside = self._take(self.path, os.O_RDWR)
            self._take(database, os.O_RDONLY)
            os.ftruncate(beside, 0)
            os.pwrite(beside, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            self.release()
            raise

    def _take(self, path: Path, access: int) -> int:
        descriptor = os.open(path, access | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LogHeld(self._database, self._holder(path)) from None
        return descriptor

    def _holder(self, path: Path) -> int | None:
        # The kernel's word first: between taking the lock and writing its pid, a holder leaves the one before it there.
        text = os.pread(self._descriptors[0], 32, 0).strip()
        return flock_holder(path) or (int(text) if text.isdigit() else None)

    def release(self) -> None:
        """Lets the next process in; after SQLite's connection is closed, whose own locks on the database end when any
        descriptor of it is closed. Again: nothing, as a descriptor's number may be another file's by then."""
        while self._descriptors:
            os.close(self._descriptors.pop())


class Patience:
    """A wait for another program: warns now and then every WARN_INTERVAL_S, naming it, until `limit_s()` is over."""

    def __init__(self, path: Path, blame: Callable[[Path], str], what: str, limit_s: Callable[[], float]) -> None:
        self._path, self._blame, self._what = path, blame, what
        self._limit_s = limit_s
        self._began = time.monotonic()
        self._warn_at = self._began

    def wait(self) -> None:
        """One more short wait. Raises LogFailed when the limit is over."""
        now = time.monotonic()
        waited_s = now - self._began
        if waited_s >= self._limit_s():
            who = self._blame(self._path)
            raise LogFailed(
                f"{self._path}: {who} {self._what}; waited {waited_s:.0f} s for it. Stop it and start again"
            )
        if now >= self._warn_at:
            self._warn_at = now + WARN_INTERVAL_S
            _log.warning(
                "waiting for another program", file=str(self._path), who=self._blame(self._path), what=self._what
            )
        time.sleep(0.05)


T = TypeVar("T")

_WRITING = "holds a write transaction on the file"
_USING = "has the file in use"


class LogFile:
    """A log's file, opened and locked. Made by `open`.

    `connection` (WAL, FULL, foreign keys on, no implicit transactions) may be used by one thread at a time: by whoever
    opened the file until a `LogWriter` is started on it, then only by that writer's thread.
    """

    role: Role
    name: str
    identity: str
    """16 lowercase hex characters, new with each new or restored file."""
    durable: int
    """The highest durable number: grows with every flush that changed something, never goes back, and is kept."""
    seen: dict[str, int]
    """The highest durable number stored here of each other file, by identity."""

    def __init__(self, path: Path, lock: FileLock | None, connection: sqlite3.Connection, kind: _Kind) -> None:
        self.path = path
        self.connection = connection
        self.created = kind == "fresh"
        """The file was made in this open."""
        self.adopted = kind == "adopt"
        """A user's database was taken in this open."""
        self.undone = 0
        """Row changes so far that were rolled back to a savepoint, counted by whoever did: no reason to flush."""
        self._lock = lock
        self._load()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        role: Role,
        name: str,
        schema: str,
        adopt: bool = False,
        on_create: Callable[[sqlite3.Connection], None] | None = None,
        wait_s: float = OPEN_WAIT_S,
    ) -> LogFile:
        """Opens the log of `role` and `name`, or makes it.

        `schema` is the DDL of the role's own troth_ tables. `adopt` also takes an existing database without any such
        table; otherwise it is refused. `on_create` runs in the transaction that makes a new file (not an adopted one),
        so the file has all or nothing of it. Before this returns, everything visible in the file is on disk: a commit
        that was killed before its fdatasync is visible, and could still be lost by a power cut.

        Raises LogHeld, LogRefused, or LogFailed (also when another program uses the file for longer than `wait_s`).
        """

        def create(connection: sqlite3.Connection, kind: _Kind) -> None:
            _make_tables(connection, role, name, new_identity(), schema, at=time.time())
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            if on_create is not None and kind == "fresh":
                on_create(connection)

        def check(path: Path, connection: sqlite3.Connection) -> _Kind:
            kind = _kind_of(path, connection, adopt)
            if kind == "existing":
                _check_owner(path, connection, role, name)
            return kind

        return cls._open(path, check, create, wait_s)

    @classmethod
    def in_memory(cls, *, role: Role, name: str, identity: str, schema: str) -> LogFile:
        """A new log that is on no disk and that no process holds: for the simulator, which lets a crash lose what was
        not flushed by never running it."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.execute("PRAGMA foreign_keys = ON")
        _make_tables(connection, role, name, identity, schema, at=0.0)
        return cls(Path(f"{name}.db"), None, connection, "fresh")

    @classmethod
    def open_any(cls, path: Path, *, wait_s: float = OPEN_WAIT_S) -> LogFile:
        """Opens an existing log, whosever it is. Raises as `open` does, and LogRefused when there is none."""

        def check(path: Path, connection: sqlite3.Connection) -> _Kind:
            kind = _kind_of(path, connection, adopt=False)
            if kind == "fresh":
                raise LogRefused(f"{path} is not a log of Troth: there is nothing in it")
            return kind

        if not path.exists():
            raise LogRefused(f"{path} does not exist")
        return cls._open(path, check, None, wait_s)

    @classmethod
    def _open(
        cls,
        path: Path,
        check: Callable[[Path, sqlite3.Connection], _Kind],
        create: Callable[[sqlite3.Connection, _Kind], None] | None,
        wait_s: float,
    ) -> LogFile:
        if sqlite3.sqlite_version_info < SQLITE_LEAST:
            least = ".".join(map(str, SQLITE_LEAST))
            raise LogRefused(f"SQLite {least} or newer is needed; this Python has {sqlite3.sqlite_version}")
        path = Path(os.path.realpath(path))
        if not path.parent.is_dir():
            raise LogFailed(f"{path}: the folder does not exist")
        with contextlib.ExitStack() as undo, failures(path):
            lock = FileLock(path)
            undo.callback(lock.release)
            connection = connect(path)
            undo.callback(connection.close)
            patience = Patience(path, users_of, _USING, lambda: wait_s)
            kind = _patiently(lambda: check(path, connection), patience)
            _patiently(lambda: _set_wal(path, connection), patience)
            if kind != "existing" and create is not None:
                with transaction(path, connection, patience):
                    create(connection, kind)
            _settle(connection, patience)
            sync_folder(path.parent)
            file = cls(path, lock, connection, kind)
            undo.pop_all()
        return file

    def _load(self) -> None:
        meta = dict(self.connection.execute("SELECT key, value FROM troth_meta"))
        self.role, self.name, self.identity, self.durable = (
            meta[key] for key in ("role", "name", "identity", "durable")
        )
        self.seen = dict(self.connection.execute("SELECT identity, number FROM troth_seen"))

    def begin(self, limit_s: Callable[[], float] = lambda: math.inf) -> None:
        """Opens a write transaction; waits, with warnings, while another program has one. Raises LogFailed when it has
        waited for `limit_s()`, asked again all the while: nothing was written then."""
        begin(self.connection, Patience(self.path, writers_of, _WRITING, limit_s))

    def commit(self, jobs: int, seen: Mapping[str, int] | None = None) -> None:
        """Commits with one fdatasync; counts `jobs` and notes `seen` in the same transaction. After an exception it is
        unknown whether it committed."""
        self.connection.execute("UPDATE troth_meta SET value = value + ? WHERE key = 'durable'", (jobs,))
        news = {identity: number for identity, number in (seen or {}).items() if number > self.seen.get(identity, 0)}
        if news:
            self.connection.executemany("INSERT OR REPLACE INTO troth_seen VALUES (?, ?)", news.items())
        self.connection.execute("COMMIT")
        self.durable += jobs
        self.seen.update(news)

    def size(self) -> int:
        """Bytes of the file and its write-ahead log."""
        return self.path.stat().st_size + self.wal_size()

    def wal_size(self) -> int:
        """Bytes of the write-ahead log's file."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Closes the file and lets the next process in. An open transaction is rolled back."""
        try:
            self.connection.close()
        finally:
            if self._lock is not None:
                self._lock.release()


_Kind = Literal["fresh", "adopt", "existing"]


def _make_tables(connection: sqlite3.Connection, role: Role, name: str, identity: str, schema: str, at: float) -> None:
    run_script(connection, _SCHEMA + schema)
    facts = {"role": role, "name": name, "identity": identity, "durable": 0, "created_at": at}
    connection.executemany("INSERT INTO troth_meta VALUES (?, ?)", facts.items())


def new_identity() -> str:
    """64 random bits as hex."""
    return secrets.token_hex(8)


def connect(path: Path) -> sqlite3.Connection:
    """A connection with the settings that durability rests on. Raises LogFailed when one of them does not take."""
    connection = sqlite3.connect(path, timeout=BUSY_WAIT_S, isolation_level=None, check_same_thread=False)
    for name, setting, wanted in (("synchronous", "FULL", 2), ("foreign_keys", "ON", 1)):
        connection.execute(f"PRAGMA {name} = {setting}")
        (found,) = connection.execute(f"PRAGMA {name}").fetchone()
        if found != wanted:
            connection.close()
            raise LogFailed(f"{path}: PRAGMA {name} stays {found} where {wanted} is needed")
    return connection


def begin(connection: sqlite3.Connection, patience: Patience) -> None:
    """BEGIN IMMEDIATE, waiting for other writers as `patience` allows."""
    _patiently(lambda: connection.execute("BEGIN IMMEDIATE"), patience)


@contextlib.contextmanager
def transaction(path: Path, connection: sqlite3.Connection, patience: Patience | None = None) -> Iterator[None]:
    """One write transaction, for the steps before a writer thread runs."""
    begin(connection, patience or Patience(path, writers_of, _WRITING, lambda: OPEN_WAIT_S))
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def failures(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the file system, while a file is opened and read for the first time, as LogFailed, or
    LogRefused when it is no database."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if error_code(error) == sqlite3.SQLITE_NOTADB:
            raise LogRefused(f"{path} is not a SQLite database, or is encrypted") from error
        raise failure(path, error) from error
    except OSError as error:
        raise LogFailed(f"{path} cannot be opened: {error}") from error


def _patiently(step: Callable[[], T], patience: Patience) -> T:
    while True:
        try:
            return step()
        except sqlite3.OperationalError as error:
            if error_code(error) != sqlite3.SQLITE_BUSY:
                raise
        patience.wait()


def _set_wal(path: Path, connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LogFailed(f"{path}: the write-ahead log cannot be used there (journal_mode stays {mode})")


def _settle(connection: sqlite3.Connection, patience: Patience) -> None:
    """Brings everything visible to disk. A reader makes this fail without an error: only the row says so."""

    def settled() -> bool:
        busy, _log_frames, _moved = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    while not _patiently(settled, patience):
        patience.wait()


def _kind_of(path: Path, connection: sqlite3.Connection, adopt: bool) -> _Kind:
    """What the file is, without changing it. Raises LogRefused when it may not be opened."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if application not in (0, APPLICATION_ID):
        raise LogRefused(f"{path} belongs to another program (its application_id is {application:#x})")
    if application == APPLICATION_ID and "troth_meta" in tables:
        return _check_format(path, version)
    if any(name.startswith("troth_") for name in tables):
        raise LogRefused(f"{path} has tables named troth_ and is not a log of Troth; rename them or take another file")
    if not tables and version == 0:
        return "fresh"
    if not adopt:
        raise LogRefused(
            f"{path} is a database that Troth did not make. Adopt it (--adopt) to serve its tables, or name another"
        )
    if version != 0:
        raise LogRefused(
            f"{path} counts its own versions (user_version is {version}), where Troth keeps its format. "
            "If nothing needs that number, run PRAGMA user_version = 0 and adopt it again"
        )
    return "adopt"


def _check_format(path: Path, version: int) -> _Kind:
    if version > FORMAT:
        raise LogRefused(
            f"{path} is of format {version}, made by a newer Troth; this one knows up to {FORMAT}. Use the newer one"
        )
    if version < 1:
        raise LogRefused(f"{path} says that its format is {version}, which Troth never wrote; restore it from a copy")
    return "existing"


def _check_owner(path: Path, connection: sqlite3.Connection, role: Role, name: str) -> None:
    meta = dict(connection.execute("SELECT key, value FROM troth_meta"))
    found_role, found_name = meta["role"], meta["name"]
    if (found_role, found_name) != (role, name):
        raise LogRefused(
            f"{path} is the log of {found_role} {found_name!r}, not of {role} {name!r}; check the path and the name"
        )
