"""What both ends of a lane share: the protocol's version, gRPC's options, and the outbox.

A lane is one bidirectional stream. Its reader never waits to write: what a node sends goes to the outbox, and one
writer takes all that has gathered there while its last write was awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from troth import failpoints

M = TypeVar("M")
B = TypeVar("B")

PROTOCOL_VERSION = 1
"""What a hello says; the two ends must agree."""

HELLO_TIMEOUT_S = 5.0
"""Until a lane without the other side's hello is given up."""

RECEIVE_BYTES_MAX = 16 * 1024 * 1024
"""Far above what a transaction may have, so that one that is too large is refused by us, with a reason."""

KEEPALIVE_S = 2.0
"""A connection without traffic is asked for a sign of life after this."""
KEEPALIVE_TIMEOUT_S = 3.0
"""A peer that gives none (stopped, unplugged) is given up after this."""
CONNECT_TIMEOUT_S = 5.0
"""Until a connection that is not even refused is given up."""
RECONNECT_MAX_S = 1.0
"""The longest pause between two attempts to connect."""


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


_BOTH_ENDS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", _ms(KEEPALIVE_S)),
    ("grpc.keepalive_timeout_ms", _ms(KEEPALIVE_TIMEOUT_S)),
    # Without this the answer is waited for as long as 60 s, whatever the line above says (seen with grpcio 1.85).
    ("grpc.http2.ping_timeout_ms", _ms(KEEPALIVE_TIMEOUT_S)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]

SERVER_OPTIONS: Sequence[tuple[str, Any]] = [
    *_BOTH_ENDS,
    # Else a server answers such pings with GOAWAY too_many_pings; half, because timers are not exact.
    ("grpc.http2.min_ping_interval_without_data_ms", _ms(KEEPALIVE_S / 2)),
    ("grpc.http2.max_ping_strikes", 0),
    # A second process on the same port is an error, not a lottery.
    ("grpc.so_reuseport", 0),
]

CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = [
    *_BOTH_ENDS,
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", _ms(CONNECT_TIMEOUT_S)),
    ("grpc.max_reconnect_backoff_ms", _ms(RECONNECT_MAX_S)),
    # A new channel is a new connection: it shares no backoff with an old one of the same address.
    ("grpc.use_local_subchannel_pool", 1),
]


class Outbox(Generic[M]):
    """What waits to go out on one stream. One task takes; anyone on the event loop puts, without waiting.

    Not bounded by itself: what is in it is bounded by the node's limits."""

    def __init__(self) -> None:
        self._waiting: list[M] = []
        self._taker: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: M) -> None:
        """Adds one message behind the others."""
        self._waiting.append(message)
        if self._taker is not None:
            taker, self._taker = self._taker, None
            if not taker.done():
                taker.set_result(None)

    async def take(self) -> list[M]:
        """Everything that waits, at least one message, in order."""
        while not self._waiting:
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        taken, self._waiting = self._waiting, []
        return taken


async def write_out(
    outbox: Outbox[M], encode: Callable[[Sequence[M]], Sequence[B]], write: Callable[[B], Awaitable[None]]
) -> None:
    """Writes until cancelled or the stream breaks. What has gathered goes as the few messages that `encode` makes."""
    while True:
        messages = await failpoints.through("before-send", await outbox.take())
        for batch in encode(messages):
            await write(batch)
        await failpoints.through("after-send", messages)


async def until_first(*work: Coroutine[Any, Any, None]) -> None:
    """Runs the sides of a stream until one of them ends, then cancels the others. Raises what the ended ones raised,
    the first in the order given."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()
