"""Private database servers on loopback, for whoever starts, kills and starts them again: tests, chaos, bench, demo.

    with PostgreSQL() as server:
        database = server.create("shop")
        psycopg.connect(database.dsn)
        server.kill()
        server.start()

`server.py` is what they share, `postgresql.py` and `mariadb.py` say what is different; `scripts/services` is
`__main__.py`. The drivers (psycopg, PyMySQL) are only needed to talk to a server, not to run one.
"""

from __future__ import annotations

from collections.abc import Mapping

from faults.servers.mariadb import MariaDB
from faults.servers.postgresql import PostgreSQL
from faults.servers.server import Database, Server, ServerError, ServerMissing

KINDS: Mapping[str, type[Server]] = {kind.name: kind for kind in (PostgreSQL, MariaDB)}

__all__ = ["KINDS", "Database", "MariaDB", "PostgreSQL", "Server", "ServerError", "ServerMissing"]
