"""Troth with its participants in front of database servers: the same coordinator and client, and the settings that
participants have by default. The tables are filled at the servers, and read there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from bench.databases import SERVERS_MAX, Databases, MariaDBs, PostgreSQLs
from bench.ledger import Rows
from bench.on_troth import OnTroth
from bench.workloads import Workload


class OnTrothAtServers(OnTroth):
    """A participant and a server for each of the workload's."""

    participants_max = SERVERS_MAX
    kind: ClassVar[type[Databases]]

    def __init__(self) -> None:
        super().__init__()
        self._databases = self.kind()

    @classmethod
    def missing(cls) -> str:
        return cls.kind.missing()

    async def start(self, folder: Path, workload: Workload) -> None:
        self._databases.start(workload)
        databases = {f"p{at}": database for at, database in self._databases.by_participant.items()}
        await self._serving(folder, workload, databases)

    async def rows(self, participant: int) -> Rows:
        return self._databases.rows(participant)

    def processes(self) -> Mapping[str, int]:
        return {**super().processes(), **self._databases.pids}

    def dead(self) -> list[str]:
        return [*self._databases.dead(), *super().dead()]

    async def syncs_a_server(self) -> float | None:
        return await self._databases.syncs_a_server()

    async def close(self) -> None:
        await super().close()
        self._databases.close()


class OnTrothAtPostgreSQL(OnTrothAtServers):
    name = "troth-postgresql"
    kind = PostgreSQLs


class OnTrothAtMariaDB(OnTrothAtServers):
    name = "troth-mariadb"
    kind = MariaDBs
