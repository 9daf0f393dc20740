"""What the private servers share: their lives, their folder, their port.

A server's folder is below the system's folder for temporary files, and is removed in the end. Database servers refuse
to run as root, so then they run as somebody else.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from troth.cli.leash import leashed
from troth.process import addresses

HOST = "127.0.0.1"
START_WITHIN_S, STOP_WITHIN_S = 30.0, 20.0
_POLL_S = 0.02
_STARTS = 3
"""Another process can take a free port before the server does."""


class ServerError(Exception):
    """A server that did not start, or did not end; the message has its log."""


class ServerMissing(Exception):
    """It is not installed here; the message says what to install."""


class Server(ABC):
    """One server through all its lives, on one port. What it forces to disk is as it has it by default: all.

    It also ends when the thread that started it does (Linux), so a `kill -9` of ours leaves its folder only."""

    name: ClassVar[str]
    """As in `scripts/services NAME`, and the scheme of its DSN."""
    title: ClassVar[str]
    package: ClassVar[str]
    """Debian's, which has both programs."""
    programs: ClassVar[tuple[str, str]]
    """The one that makes the data, and the server."""
    folders: ClassVar[str]
    """Where they are when not on the PATH; a pattern, of which the newest version counts."""
    users: ClassVar[Sequence[str]]
    """As whom it runs when we are root: the first that there is."""
    superuser: ClassVar[str]
    """Of its databases; has no password."""
    database: ClassVar[str]
    """The one that is there from the start."""
    defaults: ClassVar[Mapping[str, str]] = {}
    """Settings that hold unless others are given."""
    ending: ClassVar[signal.Signals]
    """Asks for an orderly end that waits for no client."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """`settings` go by their names in the server's documentation. Raises ServerMissing."""
        self._maker, self._program = self.find()
        self._settings = {**self.defaults, **(settings or {})}
        self._user = self._unprivileged()
        self._popen: subprocess.Popen[bytes] | None = None
        self.port = 0
        """From the first start on."""
        self.folder = Path(tempfile.mkdtemp(prefix=f"troth-{self.name}-"))
        self._data = self.folder / "data"
        self._log = self.folder / "log"
        if self._user:
            os.chown(self.folder, *self._user)

    # What is there.

    @classmethod
    def variable(cls) -> str:
        """The environment variable with the only folders to look in, written as PATH is."""
        return f"TROTH_{cls.name.upper()}_PATH"

    @classmethod
    def find(cls) -> tuple[str, str]:
        """Where its programs are. Raises ServerMissing."""
        told = os.environ.get(cls.variable())
        path = told or os.pathsep.join([os.environ.get("PATH", os.defpath), *_newest_first(cls.folders)])
        maker, program = (shutil.which(program, path=path) for program in cls.programs)
        if maker and program:
            return os.path.realpath(maker), os.path.realpath(program)
        raise ServerMissing(
            f"no {cls.title} server was found: {' and '.join(cls.programs)} are not both in {told or 'the PATH'} "
            f"(Debian: apt install {cls.package}; {cls.variable()} names folders elsewhere)"
        )

    @classmethod
    def _unprivileged(cls) -> tuple[int, int] | None:
        """The uid and gid of somebody who is not root; None when we are not."""
        if os.geteuid():
            return None
        for name in cls.users:
            try:
                user = pwd.getpwnam(name)
            except KeyError:
                continue
            return user.pw_uid, user.pw_gid
        raise ServerMissing(f"{cls.title} does not run as root, and there is no user {' or '.join(cls.users)}")

    # Lives.

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the server, whose children are all its other processes."""
        return self._running().pid

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._popen is not None, f"{self.title} was not started"
        return self._popen

    def text(self) -> str:
        """Everything that it logged, in all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Returns when it takes connections, with the data and on the port that it had before. Raises ServerError."""
        assert not self.running, f"{self.title} is running already"
        if self._popen is not None:  # it died by itself
            self.kill()
        if not self._data.exists():
            self._make()
        for _ in range(1 if self.port else _STARTS):
            port = self.port or addresses.free_ports(1)[0]
            self._launch(port)
            if self._serves(port):
                self.port = port
                return
            self.kill()
        raise ServerError(f"{self.title} did not start; its log:\n{self.text()}")

    def _make(self) -> None:
        made = subprocess.run([*self._child(self._maker), *self._making()], capture_output=True, **self._around())
        if made.returncode:
            said = (made.stdout + made.stderr).decode(errors="replace")
            raise ServerError(f"{self.programs[0]} ended with {made.returncode}: {said}")

    def _launch(self, port: int) -> None:
        command = [*self._child(self._program), *self._serving(port)]
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, **self._around())

    def _child(self, program: str) -> list[str]:
        """Not by `subprocess`'s own `user`: for that it forks, and gRPC's threads, begun again in the child, were seen
        to crash it before it became the program."""
        return leashed([program], self._user)

    def _around(self) -> dict[str, Any]:
        """A session of its own, so that Ctrl-C ends it no sooner than its owner wants."""
        env = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
        return {"cwd": self.folder, "env": env, "stdin": subprocess.DEVNULL, "start_new_session": True}

    def _serves(self, port: int) -> bool:
        """Whether it takes connections, once that is known."""
        deadline = time.monotonic() + START_WITHIN_S
        while self.running and time.monotonic() < deadline:
            if self._ready(port):
                return True
            time.sleep(_POLL_S)
        return False

    def stop(self) -> int:
        """An orderly end that waits for no client; the exit code."""
        return self._end(self.ending)

    def kill(self) -> int:
        """SIGKILL to all its processes; the exit code. Children left alone would first end what they are at, which was
        seen to take seconds, and until then there is no new start."""
        popen = self._running()
        popen.send_signal(signal.SIGSTOP)  # so that it starts no other, and the ids of those that end stay theirs
        for child in _children(popen.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        """Returns once all its processes are gone: each holds its standard output, to which none writes."""
        popen = self._running()
        popen.send_signal(number)
        try:
            popen.communicate(timeout=STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise ServerError(f"{self.title} does not end; its log:\n{self.text()}") from None
        self._popen = None
        return popen.returncode

    def close(self) -> None:
        """Stops it when it runs, and removes its folder."""
        try:
            if self._popen is not None:
                self.stop()
        finally:
            if self._popen is not None:
                self.kill()
            shutil.rmtree(self.folder)

    @abstractmethod
    def _making(self) -> list[str]:
        """Arguments of the program that makes the data."""

    @abstractmethod
    def _serving(self, port: int) -> list[str]:
        """Arguments of the server."""

    @abstractmethod
    def _ready(self, port: int) -> bool:
        """Whether it takes connections on this port, and is not another server that does."""

    # Databases.

    @property
    def dsn(self) -> str:
        """Of the database that is there from the start."""
        return Database(self, self.database).dsn

    @abstractmethod
    def connect(self, database: str = "") -> Any:
        """A blocking connection of the driver, in autocommit; without a name to the database there from the start."""

    def execute(self, sql: str, database: str = "") -> list[tuple[Any, ...]]:
        """The rows of one statement, which has a connection of its own."""
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def create(self, name: str) -> Database:
        """Makes a database. The name is used as it is: letters, digits and underscores."""
        self.execute(f"CREATE DATABASE {name}")
        return Database(self, name)

    @abstractmethod
    def prepared(self, name: str) -> list[str]:
        """What is prepared in a database and not ended, as statements name it."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Removes a database with all that uses it: connections, and what is prepared there."""


@dataclass(frozen=True)
class Database:
    """One database of a server."""

    server: Server
    name: str

    @property
    def dsn(self) -> str:
        """By the superuser, over TCP: `postgresql://postgres@127.0.0.1:14321/shop`."""
        return f"{self.server.name}://{self.server.superuser}@{HOST}:{self.server.port}/{self.name}"

    def connect(self) -> Any:
        return self.server.connect(self.name)

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        return self.server.execute(sql, self.name)

    def prepared(self) -> list[str]:
        return self.server.prepared(self.name)

    def drop(self) -> None:
        self.server.drop(self.name)


def _children(pid: int) -> list[int]:
    """None where the kernel does not tell (other than Linux), or it has ended."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return list(map(int, path.read_text().split())) if path.exists() else []


def _newest_first(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern), key=lambda path: [int(part) for part in re.findall(r"\d+", path)], reverse=True)
