"""A gRPC server with health and reflection, as both processes need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from troth.driving.lane import SERVER_OPTIONS


class CannotListen(Exception):
    """The address cannot be listened on."""


class Service(NamedTuple):
    """One service: its full name, the generated function that adds it, and what answers it."""

    name: str
    add: Callable[[Any, Any], None]
    servicer: Any


class Server:
    """Listens from its making on, answers from `start` on, and is SERVING in the eyes of health from `serving` on."""

    def __init__(self, listen: str, services: Sequence[Service]) -> None:
        """`listen` is host:port; port 0 takes a free one. Raises CannotListen."""
        self._names = [service.name for service in services]
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        for service in services:
            service.add(service.servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        try:
            port = self._server.add_insecure_port(listen)
        except RuntimeError as error:
            raise CannotListen(f"cannot listen on {listen}: {error}") from error
        self.address = f"{listen.rpartition(':')[0]}:{port}"
        """Where it listens, with the port it got."""

    async def start(self) -> None:
        """Begins to answer; health says NOT_SERVING until `serving`."""
        await self.serving(False)
        await self._server.start()

    async def serving(self, yes: bool) -> None:
        """What health says, for the process as a whole and for each service."""
        status = health_pb2.HealthCheckResponse.SERVING if yes else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ["", *self._names]:
            await self._health.set(name, status)

    async def stop(self, grace_s: float | None) -> None:
        """Takes no new calls, and cancels those that are not done after `grace_s` (None: at once)."""
        await self._server.stop(grace_s)
