"""Opens Troth's files as they lie on the disk, write-ahead log included, and changes nothing: not the file, not its
-wal, not a folder that holds them.

A file with a write-ahead log (its process was killed) is copied to a scratch folder first, where SQLite may do its
recovery; one without is opened as immutable, in place. A file that a process holds is refused: what is written
meanwhile would look like damage, and files of different moments contradict each other without being wrong.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

APPLICATION_ID = 0x54726F74
FORMAT = 1
"""What the header of every file of Troth says (`application_id`, `user_version`)."""

INTEGRITY_LINES = 5
"""Lines of SQLite's own check that a sentence quotes."""

_BESIDE = ("-wal", "-journal")
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR)
_TABLES = {
    "coordinator": ("troth_transactions", "troth_heuristics", "troth_known"),
    "participant": (
        "troth_logs",
        "troth_prepared",
        "troth_finished",
        "troth_heuristic",
        "troth_marks",
        "troth_history",
    ),
}
_OF_ALL = ("troth_meta", "troth_seen", "troth_audit")


class Unreadable(Exception):
    """The path cannot be audited, and that says nothing about any transaction; one sentence."""


class Damaged(Exception):
    """The file is one of Troth's and is broken; one sentence."""


class Empty(Exception):
    """There is nothing in the file yet: its process was stopped while it made it."""


class Restored(NamedTuple):
    """The file had this identity until then (`troth restore`)."""

    identity: str
    until: float


class File:
    """One file of Troth, opened to be read. `connection` gives text that is no UTF-8 with replacement characters."""

    def __init__(self, path: Path, uri: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self.uri = uri
        """As SQLite opens it: the copy, when there is one."""
        self.connection = connection
        meta = dict(connection.execute("SELECT key, value FROM troth_meta"))
        self.meta: dict[str, object] = meta
        try:
            self.role = str(meta["role"])
            self.name = str(meta["name"])
            self.identity = str(meta["identity"])
            self.durable = int(meta["durable"])
            self.created_at = float(meta["created_at"])
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"what troth_meta says of it is not whole: {error!r}") from error
        self.seen: dict[str, int] = dict(connection.execute("SELECT identity, number FROM troth_seen"))
        self.restored = sorted(_restores(connection), key=lambda each: each.until)
        """Its earlier identities, oldest first."""
        self.identities = (*(each.identity for each in self.restored), self.identity)
        """All that it ever had, its present one last."""

        self.label = path.name
        """How sentences name it."""

    def __str__(self) -> str:
        return self.label


def _restores(connection: sqlite3.Connection) -> Iterator[Restored]:
    for at, what in connection.execute("SELECT at, what FROM troth_audit WHERE subject = 'file' ORDER BY at"):
        words = what.split()
        if len(words) == 4 and words[0] == "restored:":
            yield Restored(words[1], at)


def found(paths: Iterable[Path]) -> list[Path]:
    """The files to read: a path itself, or every *.db in a folder. Raises Unreadable."""
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.glob("*.db") if file.is_file())
            if not inside:
                raise Unreadable(f"{path} has no data file (*.db)")
            files.update(dict.fromkeys(inside))
        elif path.is_file():
            files[path] = None
        else:
            raise Unreadable(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    return list({file.resolve(): file for file in files}.values())


def open_file(path: Path, scratch: Path) -> File:
    """Opens one file and looks whether SQLite finds it whole, which reads all of it. `scratch` is a folder for copies.

    Raises Unreadable, Damaged, or Empty."""
    try:
        _refuse_if_held(path)
        uri = _uri(path, scratch)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read, or not be copied to {scratch}: {error}") from error
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        connection.text_factory = _text
        _identify(connection)
        problems = [line for (line,) in connection.execute(f"PRAGMA integrity_check({INTEGRITY_LINES})")]
        if problems != ["ok"]:
            raise Damaged(f"SQLite's integrity_check says: {'; '.join(problems)}")
        file = File(path, uri, connection)
        _check_tables(connection, file.role)
    except sqlite3.DatabaseError as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF in _CORRUPT:
            raise Damaged(f"SQLite cannot read it: {error}") from error
        raise Unreadable(f"{path} cannot be read: {error}") from error
    except BaseException:
        connection.close()
        raise
    return file


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _refuse_if_held(path: Path) -> None:
    for locked in (Path(f"{path}.lock"), path):
        try:
            descriptor = os.open(locked, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unreadable(f"{path} is in use by {_holder(path)}: stop it first, or audit a copy") from None
        finally:
            os.close(descriptor)


def _holder(path: Path) -> str:
    text = Path(f"{path}.lock").read_text(errors="replace").strip()
    return f"process {text}" if text.isdigit() else "another process"


def _uri(path: Path, scratch: Path) -> str:
    beside = [suffix for suffix in _BESIDE if _size(Path(f"{path}{suffix}"))]
    if not beside:
        return f"{path.absolute().as_uri()}?immutable=1"
    folder = scratch / str(len(list(scratch.iterdir())))
    folder.mkdir()
    for suffix in ("", *beside):
        shutil.copyfile(f"{path}{suffix}", folder / f"{path.name}{suffix}")
    return f"{(folder / path.name).as_uri()}?mode=rw"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _identify(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if application == APPLICATION_ID and version > FORMAT:
        raise Unreadable(f"it is of format {version}, made by a newer Troth; this one knows up to {FORMAT}")
    if application == APPLICATION_ID and "troth_meta" in tables:
        return
    if any(name.startswith("troth_") for name in tables):
        raise Damaged(f"it has Troth's tables and its header does not say so (application_id {application:#x})")
    if not tables and application == 0:
        raise Empty
    raise Unreadable("it is a SQLite database that Troth did not make")


def _check_tables(connection: sqlite3.Connection, role: str) -> None:
    if role not in _TABLES:
        raise Damaged(f"its role is {role!r}")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    missing = [name for name in (*_OF_ALL, *_TABLES[role]) if name not in tables]
    if missing:
        raise Damaged(f"the table {missing[0]} of a {role} is not in it")
