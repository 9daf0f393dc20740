"""The yardstick of latency: what the parts of one transaction cost, with nothing of a protocol around them.

    python -m bench.bare participant --data FILE --listen ADDRESS
    python -m bench.bare coordinator --data FILE --listen ADDRESS --participant ADDRESS ...

The processes are Troth's, and so are the parts that a client waits for: its message goes to the coordinator on a
stream, from there on streams to all participants at once, each makes one forced SQLite commit (WAL, synchronous=FULL)
of one row, and when all have said so the coordinator makes one too and answers. Messages are the 8 bytes of a number.
Nothing is locked, batched, shared, tried or sent twice, and nothing comes after the answer: no commit reaches a
participant. So it does no work that could be compared, and is not a contender for throughput.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import grpc
import grpc.aio

from bench.serving import Handlers, serving
from troth.process import serve

NUMBER_BYTES = 8
_METHOD = "Open"
_SERVICE = "bench.Bare"

Stream = grpc.aio.StreamStreamCall[bytes, bytes]
Step = Callable[[bytes], Awaitable[None]]
"""What a process does with a number before it sends it back."""


def database(path: Path) -> sqlite3.Connection:
    """With one table, used by one thread at a time."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS forced (number INTEGER PRIMARY KEY)")
    return connection


class Writer:
    """One thread, one commit for each number."""

    def __init__(self, path: Path) -> None:
        self._db = database(path)
        self._thread = ThreadPoolExecutor(1)

    async def force(self, number: bytes) -> None:
        """Returns when the row is on disk."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, int.from_bytes(number, "big"))

    def _commit(self, number: int) -> None:
        self._db.execute("INSERT INTO forced VALUES (?)", (number,))


class Line:
    """This end of a stream: many numbers may be out, and each is waited for."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stream: Stream = self._channel.stream_stream(f"/{_SERVICE}/{_METHOD}")(wait_for_ready=True)
        self._out: dict[bytes, asyncio.Future[None]] = {}
        self._writing = asyncio.Lock()  # gRPC takes one write of a stream at a time
        self._reader = asyncio.create_task(self._read())

    async def round_trip(self, number: bytes) -> None:
        """Returns when the number has come back. Raises ConnectionError when the stream has ended."""
        back = self._out[number] = asyncio.get_running_loop().create_future()
        async with self._writing:
            await self._stream.write(number)
        await back

    async def _read(self) -> None:
        try:
            async for number in self._stream:
                self._out.pop(number).set_result(None)
        except grpc.aio.AioRpcError as error:
            for back in self._out.values():
                back.set_exception(ConnectionError(f"the stream was lost: {error.details()}"))

    async def close(self) -> None:
        await self._channel.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


def participant(path: Path) -> Step:
    """One forced write."""
    return Writer(path).force


def coordinator(path: Path, participants: Sequence[str]) -> Step:
    """A round trip to all participants at once, then one forced write."""
    writer, lines = Writer(path), [Line(address) for address in participants]

    async def step(number: bytes) -> None:
        await asyncio.gather(*(line.round_trip(number) for line in lines))
        await writer.force(number)

    return step


def _handler(step: Step) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def handle(numbers: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        writing = asyncio.Lock()

        async def answer(number: bytes) -> None:
            await step(number)
            async with writing:
                await context.write(number)

        async with asyncio.TaskGroup() as tasks:
            async for number in numbers:
                tasks.create_task(answer(number))

    made: Any = grpc.stream_stream_rpc_method_handler
    handler: grpc.RpcMethodHandler[bytes, bytes] = made(handle)
    return handler


@click.command()
@click.argument("role", type=click.Choice(["coordinator", "participant"]))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--listen", required=True)
@click.option("--participant", "participants", multiple=True)
def main(role: str, data: Path, listen: str, participants: Sequence[str]) -> None:
    def handlers() -> Handlers:
        return {_METHOD: _handler(participant(data) if role == "participant" else coordinator(data, participants))}

    sys.exit(serve(lambda ready: serving(_SERVICE, handlers, listen, ready)))


if __name__ == "__main__":
    main()
