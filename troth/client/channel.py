"""One connection to a process: gRPC's options, waiting until it stands, and its errors in the words of `troth.errors`.

There is no retryPolicy: a call that is sent twice by the library would run twice, and only a caller knows whether that
is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio

from troth.errors import BadInput, Contradiction, ServerError, TrothError, Unreachable
from troth.process import addresses

T = TypeVar("T")

CALL_TIMEOUT_S = 30.0
"""Until a call that runs no transaction is given up."""

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),  # No policy from DNS either.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),  # Lists and rows may be long.
    ("grpc.max_send_message_length", -1),  # Ours is checked where it can be said clearly.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # A new client shares no backoff with an old one.
)


class Connection:
    """A channel to one address, made within a running event loop and closed by `close`."""

    def __init__(self, address: str, wait_s: float) -> None:
        """`wait_s` is how long a call waits for the connection to stand. Raises BadInput for a bad address."""
        try:
            self.address = str(addresses.parse(address))
        except ValueError as error:
            raise BadInput(str(error)) from error
        self.wait_s = wait_s
        self.channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)

    async def close(self) -> None:
        """Ends every open call at once."""
        await self.channel.close()

    async def ready(self) -> None:
        """Returns when the connection stands. Raises Unreachable when it does not within `wait_s`."""
        if self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return
        try:
            async with asyncio.timeout(self.wait_s):
                await self.channel.channel_ready()
        except TimeoutError:
            raise Unreachable(f"no connection to {self.address} within {self.wait_s:g} s") from None

    async def call(
        self,
        method: Callable[..., Any],
        request: Any,
        what: str,
        *,
        changes: bool = False,
        timeout_s: float | None = None,
    ) -> Any:
        """The reply to a call that runs no transaction; `what` names it in errors, and `changes` says that it changes
        something there. Raises BadInput, Contradiction, Unreachable or ServerError."""
        await self.ready()
        try:
            return await method(request, timeout=CALL_TIMEOUT_S if timeout_s is None else timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self.translated(error, what, changes=changes) from error

    def translated(self, error: grpc.aio.AioRpcError, what: str, *, changes: bool) -> TrothError:
        """The error in our words."""
        details = error.details() or error.code().name
        match error.code():
            case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.NOT_FOUND:
                return BadInput(details)
            case grpc.StatusCode.FAILED_PRECONDITION:
                return Contradiction(details)
            case grpc.StatusCode.UNAVAILABLE if not changes:
                return Unreachable(f"{what}: the connection to {self.address} was lost: {details}")
            case grpc.StatusCode.UNIMPLEMENTED:
                return ServerError(f"{what}: the process at {self.address} does not serve this call")
        known = "; it may have been done or not" if changes else ""
        return ServerError(f"{what}: {self.address} answered {error.code().name}: {details}{known}")
