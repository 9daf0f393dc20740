"""`troth chaos`: the proxy of a link, and the disk that fails on demand."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from faults.chaos.disk import Disk
from faults.chaos.proxy import Proxy
from faults.chaos.schedule import Fault, Kind, Way

Connection = tuple[StreamReader, StreamWriter]
SILENT_S = 0.3
"""How long nothing comes is looked at; only that something comes is ever waited for longer."""


def fault(kind: Kind, way: Way = Way.BOTH, delay_s: float = 0.0) -> Fault:
    return Fault(0.0, 1.0, kind, ("a>b",), way, delay_s)


@asynccontextmanager
async def echo(heard: list[bytes]) -> AsyncIterator[str]:
    """A server that keeps what it heard and sends it back."""

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                heard.append(data)
                writer.write(data)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def over_a_link(story: Callable[[Proxy, Connection, list[bytes]], Awaitable[None]]) -> None:
    """Runs the story with a proxy in front of an echo, a connection through it, and what the echo heard."""

    async def main() -> None:
        heard: list[bytes] = []
        async with echo(heard) as address, Proxy.open("a>b", address) as proxy:
            connection = await dial(proxy)
            assert await said_back(connection, b"hello") == b"hello"
            await story(proxy, connection, heard)
            connection[1].close()

    asyncio.run(asyncio.wait_for(main(), 30))


async def dial(proxy: Proxy) -> Connection:
    host, port = proxy.address.split(":")
    return await asyncio.open_connection(host, int(port))


async def said_back(connection: Connection, text: bytes) -> bytes:
    connection[1].write(text)
    return await connection[0].read(1000)


async def silent(connection: Connection, text: bytes) -> bool:
    """Whether nothing comes back for a while."""
    connection[1].write(text)
    try:
        async with asyncio.timeout(SILENT_S):
            await connection[0].read(1000)
    except TimeoutError:
        return True
    return False


async def broken(connection: Connection) -> bool:
    try:
        return await said_back(connection, b"?") == b""
    except ConnectionError:
        return True
    finally:
        connection[1].close()


async def works(proxy: Proxy) -> bool:
    """Whether a new connection does."""
    connection = await dial(proxy)
    try:
        return await said_back(connection, b"again") == b"again"
    finally:
        connection[1].close()


def test_a_cut_link_breaks_its_connections_and_refuses_new_ones_until_it_is_whole() -> None:
    async def story(proxy: Proxy, connection: Connection, heard: list[bytes]) -> None:
        proxy.begin(fault(Kind.CUT))
        assert await broken(connection)
        assert await broken(await dial(proxy))
        proxy.end(loses=False)
        assert await works(proxy)
        assert heard == [b"hello", b"again"]

    over_a_link(story)


@pytest.mark.parametrize(("way", "arrived"), [(Way.BOTH, False), (Way.THERE, False), (Way.BACK, True)])
def test_a_silent_link_holds_bytes_back_and_lets_them_go_later(way: Way, arrived: bool) -> None:
    async def story(proxy: Proxy, connection: Connection, heard: list[bytes]) -> None:
        proxy.begin(fault(Kind.SILENCE if way is Way.BOTH else Kind.ONE_WAY, way))
        assert await silent(connection, b"late")
        assert (b"late" in heard) is arrived
        proxy.end(loses=False)
        assert await connection[0].read(1000) == b"late"

    over_a_link(story)


def test_a_silent_link_that_loses_breaks_the_connection_and_its_bytes_never_arrive() -> None:
    async def story(proxy: Proxy, connection: Connection, heard: list[bytes]) -> None:
        proxy.begin(fault(Kind.SILENCE))
        assert await silent(connection, b"lost")
        proxy.end(loses=True)
        assert await broken(connection)
        assert await works(proxy)
        assert heard == [b"hello", b"again"]

    over_a_link(story)


def test_a_slow_link_delivers_everything_in_order() -> None:
    async def story(proxy: Proxy, connection: Connection, heard: list[bytes]) -> None:
        proxy.begin(fault(Kind.SLOW, delay_s=0.05))
        for text in (b"one", b"two", b"three"):
            assert await said_back(connection, text) == text
        proxy.end(loses=False)
        assert heard == [b"hello", b"one", b"two", b"three"]

    over_a_link(story)


def test_a_link_to_nobody_breaks_the_connection() -> None:
    async def main() -> None:
        async with echo([]) as address:
            pass
        async with Proxy.open("a>b", address) as proxy:
            assert await broken(await dial(proxy))

    asyncio.run(asyncio.wait_for(main(), 30))


# The disk.

WRITE = "import os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); os.pwrite(f, b'x', 0); os.fdatasync(f)"


@pytest.mark.needs_cc
@pytest.mark.parametrize(
    ("kind", "said"), [(Kind.FULL, "No space left on device"), (Kind.SYNC, "Input/output error"), (Kind.SLOW_DISK, "")]
)
def test_a_disk_fails_for_one_file_and_its_log_and_only_while_it_is_told_to(
    tmp_path: Path, kind: Kind, said: str
) -> None:
    disk = Disk(tmp_path)

    def written(name: str) -> str:
        command = [sys.executable, "-c", WRITE, str(tmp_path / name)]
        environment = {**os.environ, **disk.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30).stderr

    disk.begin(fault(kind, delay_s=0.05), tmp_path / "p1.db")
    for name in ("p1.db", "p1.db-wal"):
        assert written(name) == "" if not said else said in written(name)
    assert written("p2.db") == ""
    disk.end(tmp_path / "p1.db")
    assert written("p1.db") == ""
