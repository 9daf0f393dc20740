"""What stands between a participant and a database server, to be derived from."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faults.servers import Database
from faults.servers.server import HOST


class Proxy(ABC):
    """Listens in the server's place; what becomes of a connection is for `serve` to say."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection until its end."""

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One to the server."""
        return await asyncio.open_connection(HOST, self._database.server.port)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """The DSN of the same database through here."""
        tasks: set[asyncio.Task[None]] = set()

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.create_task(self.serve(reader, writer)))

        server = await asyncio.start_server(serve, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield self._database.dsn.replace(f":{self._database.server.port}/", f":{port}/")
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
