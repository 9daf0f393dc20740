"""A proxy before MariaDB whose connections fall silent while both their ends stay open: as when a host loses its power,
or a NAT on the way forgets them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from faults.servers import Database
from tests.proxy import Proxy


class Staller(Proxy):
    """Passes on what it is sent, until `stall`."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.ungreeted = 0
        """How many of the next connections are taken, and hear nothing."""
        self._stalled = asyncio.Event()

    def stall(self) -> None:
        """From now on nothing passes on the connections that are there, nor their end; it does on later ones."""
        self._stalled.set()
        self._stalled = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stalled, writers = self._stalled, [writer]
        try:
            if self.ungreeted:
                self.ungreeted -= 1
                await asyncio.Event().wait()
            there, back = await self.connect()
            writers.append(back)
            await asyncio.gather(_copy(reader, back, stalled), _copy(there, writer, stalled))
        finally:
            for each in writers:
                each.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stalled: asyncio.Event) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            if stalled.is_set():
                break
            writer.write(data)
            await writer.drain()
    if stalled.is_set():
        await asyncio.Event().wait()
    writer.close()
