"""The private database servers of a contender, one for each participant, all with the same settings and tables."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar

from bench.ledger import Rows
from bench.workloads import ACCOUNTS, COLUMNS, START, Workload, schema
from faults.servers import Database, MariaDB, PostgreSQL, Server, ServerMissing

SERVERS_MAX = 2
CONNECTIONS_MAX = 600
LOCK_TIMEOUT_S = 1
"""Each server sees its own locks only, so a deadlock over both ends by time. Troth's sessions set their own."""
_NAME = "bench"
_POLL_S = 0.05


class Databases(ABC):
    """Servers of one kind."""

    kind: ClassVar[type[Server]]
    drivers: ClassVar[tuple[str, ...]]
    """Packages that are needed to talk to them, by whomever."""
    settings: ClassVar[Mapping[str, str]]
    binary: ClassVar[str]
    """What bytes are called there."""

    def __init__(self) -> None:
        self.by_participant: dict[int, Database] = {}
        self._synced_before = 0.0

    @classmethod
    def missing(cls) -> str:
        """What this machine lacks to run them; empty when nothing. Raises ImportError for a driver."""
        for driver in cls.drivers:
            import_module(driver)
        try:
            cls.kind.find()
        except ServerMissing as error:
            return str(error)
        return ""

    def start(self, workload: Workload) -> None:
        """Blocks until all have their tables, filled. They end with the thread that calls this."""
        for at in range(1, workload.participants + 1):
            database = self.by_participant[at] = Database(self.kind(self.settings), _NAME)
            database.server.start()
            database.server.create(_NAME)
            for statement in schema("BIGINT", self.binary):
                database.execute(statement)
            for statement in self._filling(workload.accounts):
                database.execute(statement)
        self._synced_before = self._syncs_a_server() or 0.0

    @abstractmethod
    def _filling(self, accounts: int) -> list[str]:
        """Statements that fill the tables, and tell the server of it."""

    def rows(self, participant: int) -> Rows:
        """Everything in the tables there."""
        database = self.by_participant[participant]
        return Rows(*(dict(database.execute(f"SELECT id, {column} FROM {table}")) for table, column in COLUMNS.items()))

    @property
    def pids(self) -> dict[str, int]:
        """By a name for people."""
        return {f"server {at}": database.server.pid for at, database in self.by_participant.items()}

    def dead(self) -> list[str]:
        """Those that ended by themselves, with their logs."""
        servers = {at: database.server for at, database in self.by_participant.items()}
        return [f"server {at}:\n{server.text()}" for at, server in servers.items() if not server.running]

    async def syncs_a_server(self) -> float | None:
        """What a server has forced to disk since its tables were filled, in fsyncs, on average over the servers; None
        when they do not tell. Waits until they have counted it all; nothing may be open."""
        await self._counted()
        found = self._syncs_a_server()
        return None if found is None else found - self._synced_before

    def _syncs_a_server(self) -> float | None:
        found = [self._syncs(database) for database in self.by_participant.values()]
        return None if None in found else sum(each or 0 for each in found) / len(found)

    @abstractmethod
    def _syncs(self, database: Database) -> int | None:
        """Of its server, as it says now."""

    @abstractmethod
    async def _counted(self) -> None:
        """Returns when the servers have counted what was done."""

    def close(self) -> None:
        """Ends them, also one that was only half started."""
        for database in self.by_participant.values():
            database.server.close()


class PostgreSQLs(Databases):
    """PostgreSQL, with its WAL in files of the default size and everything forced."""

    kind = PostgreSQL
    drivers = ("psycopg",)
    settings: ClassVar[Mapping[str, str]] = {
        "max_connections": f"{CONNECTIONS_MAX}",
        "max_prepared_transactions": "512",
        "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    }
    binary = "BYTEA"
    counted_after_s = 10.5
    """A session counts what it did when it ends, and when it was idle for 10 s (PGSTAT_IDLE_INTERVAL)."""
    _COUNTING = range(15_00_00, 18_00_00)
    """The versions with pg_stat_wal.wal_sync and these rules: later ones have it elsewhere."""

    def _filling(self, accounts: int) -> list[str]:
        numbers = f"generate_series(0, {accounts - 1}) AS number"
        return [f"INSERT INTO {ACCOUNTS} SELECT number, {START} FROM {numbers}", "VACUUM ANALYZE"]

    def _syncs(self, database: Database) -> int | None:
        with database.connect() as connection:
            if connection.info.server_version not in self._COUNTING:
                return None
            return int(connection.execute("SELECT wal_sync FROM pg_stat_wal").fetchone()[0])

    async def _counted(self) -> None:
        deadline = time.monotonic() + self.counted_after_s
        while time.monotonic() < deadline and any(map(self._used, self.by_participant.values())):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    def _used(self, database: Database) -> bool:
        """Whether anybody else has a session."""
        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        return database.execute(f"SELECT 1 FROM pg_stat_activity WHERE {others} LIMIT 1") != []


class MariaDBs(Databases):
    """MariaDB without a binlog, as it comes."""

    kind = MariaDB
    drivers = ("asyncmy", "pymysql")
    settings: ClassVar[Mapping[str, str]] = {
        "max_connections": f"{CONNECTIONS_MAX}",
        "innodb_lock_wait_timeout": f"{LOCK_TIMEOUT_S}",
    }
    binary = "LONGBLOB"

    def _filling(self, accounts: int) -> list[str]:
        fill = [f"INSERT INTO {ACCOUNTS} SELECT seq, {START} FROM seq_0_to_{accounts - 1}"] if accounts else []
        return [*fill, f"ANALYZE TABLE {', '.join(COLUMNS)}"]

    def _syncs(self, database: Database) -> int | None:
        """Those of InnoDB's log; the few of its tables are counted with them."""
        return int(database.execute("SHOW GLOBAL STATUS LIKE 'Innodb_data_fsyncs'")[0][1])

    async def _counted(self) -> None:
        """They count at once."""
