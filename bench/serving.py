"""How a yardstick of this room serves: gRPC with handlers of bytes, until it is told to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import grpc.aio

from troth.process import Ready

Handlers: TypeAlias = "dict[str, grpc.RpcMethodHandler[bytes, bytes]]"
"""By the name of the method."""


async def serving(
    service: str, made: Callable[[], Handlers], listen: str, ready: Ready, options: Sequence[tuple[str, Any]] = ()
) -> None:
    """Until cancelled. What serves is made here: gRPC's channels belong to the loop that runs."""
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, made()),))
    server.add_insecure_port(listen)
    await server.start()
    ready(listen)
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(None)
