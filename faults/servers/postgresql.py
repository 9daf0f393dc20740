"""PostgreSQL, as a private server."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from faults.servers.server import HOST, Server

if TYPE_CHECKING:
    import psycopg


class PostgreSQL(Server):
    name = "postgresql"
    title = "PostgreSQL"
    package = "postgresql"
    programs = ("initdb", "postgres")
    folders = "/usr/lib/postgresql/*/bin"
    users = ("postgres", "nobody")
    superuser = "postgres"
    database = "postgres"
    defaults: ClassVar[Mapping[str, str]] = {
        "max_prepared_transactions": "100",  # else 0, and nothing can be prepared
        "dynamic_shared_memory_type": "mmap",  # else one that was killed leaves some of it outside its folder
    }
    ending = signal.SIGINT

    def _making(self) -> list[str]:
        return ["-D", str(self._data), "-U", self.superuser, "-A", "trust", "-E", "UTF8", "--no-sync"]

    def _serving(self, port: int) -> list[str]:
        own = {"listen_addresses": HOST, "port": str(port), "unix_socket_directories": ""}
        settings = [part for name, value in {**self._settings, **own}.items() for part in ("-c", f"{name}={value}")]
        return ["-D", str(self._data), *settings]

    def _ready(self, port: int) -> bool:
        """Line 8 of postmaster.pid says so; the first is whose file it is."""
        path = self._data / "postmaster.pid"
        lines = path.read_text().split("\n") if path.exists() else []
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def connect(self, database: str = "") -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg

        dbname = database or self.database
        return psycopg.connect(host=HOST, port=self.port, user=self.superuser, dbname=dbname, autocommit=True)

    def prepared(self, name: str) -> list[str]:
        query = "SELECT quote_literal(gid) FROM pg_prepared_xacts WHERE database = current_database()"
        return [gid for (gid,) in self.execute(query, name)]

    def drop(self, name: str) -> None:
        for gid in self.prepared(name):
            self.execute(f"ROLLBACK PREPARED {gid}", name)
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")
