"""A proxy before MariaDB that cuts a connection at a statement: before the server sees it, or instead of its answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from faults.servers import Database
from tests.proxy import Proxy

_HEADER = 4


class Cutter(Proxy):
    """While `at` is set, the connection that sends that text is cut, and it is unset. What waits for it is `cut`."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.at: bytes | None = None
        self.answered = False
        """Whether the server carries the packet out: the connection is cut when its answer comes."""
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await self.connect()
        answers = asyncio.create_task(self._copy(there, writer))
        try:
            while True:
                head = await reader.readexactly(_HEADER)
                body = await reader.readexactly(int.from_bytes(head[:3], "little"))
                cut = self.at is not None and self.at in body
                if cut:
                    self.at = None
                    self.cuts += 1
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                if not cut or self.answered:
                    back.write(head + body)
                if cut:
                    if self.answered:
                        await there.read(1)
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            answers.cancel()
            for each in (back, writer):
                each.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()
