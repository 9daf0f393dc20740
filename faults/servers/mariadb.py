"""MariaDB, as a private server."""

from __future__ import annotations

import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults.servers.server import HOST, START_WITHIN_S, Server

if TYPE_CHECKING:
    import pymysql


_LEAVING = """SELECT 1 FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> 0
AND trx_mysql_thread_id NOT IN (SELECT id FROM information_schema.processlist)"""
"""Transactions of sessions that are being taken down."""
_TRX_LISTED_AFTER_S = 0.15
"""How old INNODB_TRX can be."""


class MariaDB(Server):
    name = "mariadb"
    title = "MariaDB"
    package = "mariadb-server"
    programs = ("mariadb-install-db", "mariadbd")
    folders = "/usr/sbin"
    users = ("mysql", "nobody")
    superuser = "root"
    database = "test"
    ending = signal.SIGTERM

    def _making(self) -> list[str]:
        return [*self._places(), "--auth-root-authentication-method=normal"]

    def _serving(self, port: int) -> list[str]:
        own = {"bind_address": HOST, "port": str(port), "socket": "", "pid_file": str(self._pid_file())}
        settings = [f"--{name}={value}" for name, value in {**self._settings, **own}.items()]
        return [*self._places(), "--skip-name-resolve", *settings]

    def _places(self) -> list[str]:
        """Its data and its own files; and none of the machine's settings. A server that starts removes temporary tables
        where it looks for its own, so that in a shared folder another one, at that moment, loses its."""
        own = [f"--datadir={self._data}", f"--tmpdir={self.folder}"]
        return ["--no-defaults", f"--basedir={Path(self._program).parent.parent}", *own]

    def _pid_file(self) -> Path:
        return self.folder / "pid"

    def _ready(self, port: int) -> bool:
        """It writes its pid when it listens, and greets whoever connects a moment later. Between the two it was seen to
        lose a SIGTERM."""
        path = self._pid_file()
        if not path.exists() or path.read_text().strip() != str(self.pid):
            return False
        try:
            with socket.create_connection((HOST, port), START_WITHIN_S) as connection:
                return connection.recv(1) != b""
        except ConnectionError:
            return False

    def connect(self, database: str = "") -> pymysql.Connection[Any]:
        import pymysql

        return pymysql.connect(
            host=HOST,
            port=self.port,
            user=self.superuser,
            database=database or self.database,
            autocommit=True,
            ssl_disabled=True,  # else it reads the machine's certificates each time, for a tenth of a second
        )

    def prepared(self, name: str) -> list[str]:
        """Those of all databases: MariaDB does not say in which one a branch is."""
        return [xid for *_, xid in self.execute("XA RECOVER FORMAT='SQL'", name)]

    def drop(self, name: str) -> None:
        """Also rolls back all else that is prepared."""
        from pymysql.err import OperationalError

        users = f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
        while found := self.execute(users):
            for (id,) in found:
                with suppress(OperationalError):  # it left meanwhile
                    self.execute(f"KILL {id}")
        self.wait_let_go()
        for xid in self.prepared(name):
            with suppress(OperationalError):  # one that changed nothing was rolled back when its session left
                self.execute(f"XA ROLLBACK {xid}")
        self.execute(f"DROP DATABASE {name}")

    def wait_let_go(self) -> None:
        """Returns once no session that has ended holds its transaction: until then XA ROLLBACK from another says OK,
        and does nothing."""
        time.sleep(_TRX_LISTED_AFTER_S)
        while self.execute(_LEAVING):
            time.sleep(_TRX_LISTED_AFTER_S)
