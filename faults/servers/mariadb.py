"""MariaDB, as a private server."""

from __future__ import annotations

import secrets
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults.servers.server import HOST, START_WITHIN_S, Server

if TYPE_CHECKING:
    import pymysql


_OWNERS = """SELECT trx_mysql_thread_id = CONNECTION_ID() AND trx_query LIKE %s,
trx_mysql_thread_id NOT IN (SELECT id FROM information_schema.processlist)
FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> 0"""
"""Of each transaction's session: whether it asks just this, and whether it is being taken down."""
_TRX_UNREAD_S = 0.15
"""After so long without a question INNODB_TRX is made anew (`participant/resources/mariadb/pool.py`)."""


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
        with self.connect() as connection:
            while not self._let_go(connection):
                time.sleep(_TRX_UNREAD_S)

    def _let_go(self, connection: pymysql.Connection[Any]) -> bool:
        """By a list that was made for this question; False also when it was not."""
        mark = secrets.token_hex(8)
        with connection.cursor() as cursor:
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            cursor.execute(_OWNERS, (f"%{mark}%",))
            found = cursor.fetchall()
            cursor.execute("COMMIT")
        return any(fresh for fresh, _ in found) and not any(leaving for _, leaving in found)
