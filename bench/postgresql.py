"""A private PostgreSQL server on loopback, for whoever starts, kills and starts it again.

    with PostgreSQL(settings={"max_prepared_transactions": "100"}) as server:
        psycopg.connect(server.dsn)
        server.kill()
        server.start()

Its folder is below the system's folder for temporary files, and is removed in the end. PostgreSQL refuses to run as
root, so then it runs as `postgres`, or as `nobody` where there is no such user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from troth.process import addresses

START_WITHIN_S, STOP_WITHIN_S = 30.0, 20.0
_POLL_S = 0.02
_DEBIAN = Path("/usr/lib/postgresql")
_USERS = ("postgres", "nobody")
_BECOME = """\
import os, sys
uid, gid, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.setgroups([]), os.setgid(gid), os.setuid(uid)
os.execv(program, sys.argv[3:])
"""
"""Becomes a program as another user: its process id stays that of the child."""
_STARTS = 3
"""Another process can take a free port before the server does."""


@cache
def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`: by PATH, otherwise the newest of Debian's; None when there is none."""
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "postgres").exists() and (path / "initdb").exists()]
    return max(versions, key=lambda path: float(path.parent.name), default=None)


class PostgreSQLError(Exception):
    """A server that did not start; the message has its log."""


class PostgreSQL:
    """One server through all its lives, on one port."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are those of postgresql.conf; what is forced to disk is as PostgreSQL has it by default: all."""
        found = binaries()
        assert found is not None, "ask `binaries` first"
        self._binaries = found
        self._settings = dict(settings or {})
        self._user = _unprivileged()
        self._popen: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="troth-postgresql-"))
        self.port = 0
        self._log = self.folder / "log"
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)

    def __enter__(self) -> PostgreSQL:
        try:
            self.make()
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
    def dsn(self) -> str:
        """Of its only database, by its superuser."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    @property
    def pid(self) -> int:
        """Of the postmaster, whose children are all other processes."""
        assert self._popen is not None, "it was not started"
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def text(self) -> str:
        """Everything that it logged, in all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def make(self) -> None:
        """Makes the data folder. Raises PostgreSQLError."""
        arguments = ["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        made = subprocess.run([*self._command("initdb"), *arguments], capture_output=True, **self._child())
        if made.returncode:
            raise PostgreSQLError(f"initdb ended with {made.returncode}: {made.stderr.decode(errors='replace')}")

    def start(self) -> None:
        """Returns when it takes connections, on the port that it had before. Raises PostgreSQLError."""
        for left in reversed(range(1 if self.port else _STARTS)):
            port = self.port or addresses.free_ports(1)[0]
            self._launch(port)
            if self._ready():
                self.port = port
                return
            if not left:
                raise PostgreSQLError(f"the server did not start; its log:\n{self.text()}")

    def _launch(self, port: int) -> None:
        assert not self.running, "it is running already"
        own = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": str(self.folder)}
        settings = [part for name, value in {**self._settings, **own}.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                [*self._command("postgres"), "-D", "data", *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that Ctrl-C ends it no sooner than its owner wants
                **self._child(),
            )

    def _child(self) -> dict[str, Any]:
        env = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
        return {"cwd": self.folder, "env": env}

    def _command(self, name: str) -> list[str]:
        """One of the programs, as the user whose folder this is. Not by `subprocess`'s own `user`: for that it forks,
        and gRPC's threads, begun again in the child, were seen to crash it before it became the program."""
        program = str(self._binaries / name)
        if self._user is None:
            return [program]
        return [sys.executable, "-c", _BECOME, str(self._user.pw_uid), str(self._user.pw_gid), program]

    def _ready(self) -> bool:
        """Whether it takes connections; waits until that is known. The server itself says so, in the eighth line of
        postmaster.pid."""
        deadline = time.monotonic() + START_WITHIN_S
        path = self.folder / "data" / "postmaster.pid"
        while self.running and time.monotonic() < deadline:
            lines = path.read_text().split("\n") if path.exists() else []
            if len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready":
                return True
            time.sleep(_POLL_S)
        return False

    def stop(self) -> int:
        """An orderly end that waits for no client; the exit code."""
        return self._ended(signal.SIGINT)

    def kill(self) -> int:
        """SIGKILL to the postmaster, whose children then end by themselves."""
        return self._ended(signal.SIGKILL)

    def _ended(self, number: signal.Signals) -> int:
        assert self._popen is not None, "it was not started"
        self._popen.send_signal(number)
        return self._popen.wait(STOP_WITHIN_S)

    def close(self) -> None:
        """Stops it when it runs, and removes its folder."""
        try:
            if self.running:
                self.stop()
        finally:
            shutil.rmtree(self.folder)


def _unprivileged() -> pwd.struct_passwd | None:
    """As whom a child is started so that it is not root; None when we are not."""
    if os.geteuid():
        return None
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgreSQLError(f"PostgreSQL does not run as root, and there is no user {' or '.join(_USERS)}")
