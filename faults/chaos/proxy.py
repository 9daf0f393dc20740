"""A TCP proxy for one link between processes: it can break it, silence it either way, and slow it down."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faults.chaos.schedule import Fault, Kind, Way
from troth.process import addresses

_CHUNK_BYTES = 64 * 1024
_HOST = "127.0.0.1"


class Proxy:
    """One link. What is under way on it belongs to it and ends with it."""

    def __init__(self, name: str, target: str) -> None:
        """Use `Proxy.open`."""
        self.name = name
        self._target = addresses.parse(target)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._refuses = False
        self._delay_s = 0.0
        self._flows = {Way.THERE: asyncio.Event(), Way.BACK: asyncio.Event()}
        for flow in self._flows.values():
            flow.set()

    @classmethod
    @asynccontextmanager
    async def open(cls, name: str, target: str) -> AsyncIterator[Proxy]:
        """A link to the address `target`, where nobody needs to listen yet; closed on leaving."""
        proxy = cls(name, target)
        proxy._server = await asyncio.start_server(proxy._accepted, _HOST, 0)
        try:
            yield proxy
        finally:
            proxy._server.close()
            proxy._break()
            await asyncio.gather(*proxy._connections, return_exceptions=True)

    @property
    def address(self) -> str:
        """Where it is dialled."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(addresses.Address(host, port))

    # Faults.

    def begin(self, fault: Fault) -> None:
        """From now on the link is as the fault says."""
        match fault.kind:
            case Kind.CUT:
                self._refuses = True
                self._break()
            case Kind.SLOW:
                self._delay_s = fault.delay_s
            case _:
                for way, flow in self._flows.items():
                    if fault.way in (way, Way.BOTH):
                        flow.clear()

    def end(self, *, loses: bool) -> None:
        """The link is whole again. What it held back arrives now, or with `loses` never: its connections break."""
        if loses:
            self._break()
        self._refuses, self._delay_s = False, 0.0
        for flow in self._flows.values():
            flow.set()

    def _break(self) -> None:
        for connection in self._connections:
            connection.cancel()

    # Connections.

    async def _accepted(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if not self._refuses:
                await self._carry(reader, writer)
            writer.close()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()  # the other end is gone, or the link was broken
        finally:
            self._connections.discard(task)

    async def _carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Until one of both ends closes."""
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        pumps = [
            asyncio.create_task(self._pump(reader, there_writer, Way.THERE)),
            asyncio.create_task(self._pump(there_reader, writer, Way.BACK)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            there_writer.close()

    async def _pump(self, reader: StreamReader, writer: StreamWriter, way: Way) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(_CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._flows[way].wait()
                writer.write(chunk)
                await writer.drain()
