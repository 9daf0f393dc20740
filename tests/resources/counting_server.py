"""The subject of the server's contract over `server.OutsideCounters`."""

from __future__ import annotations

from typing import Any

from faults.conformance.outside import OutsideSubject
from tests.resources.counting import custom
from tests.resources.server import AT_WORK_MAX, LOCK_TIMEOUT_S, OutsideCounters, Server


class ServerSubject(OutsideSubject):
    """Counters of a server in memory."""

    resource: type[OutsideCounters] = OutsideCounters
    change = custom(("add", "a", -1), ("get", "a", None))
    increment = custom(("add", "a", -3), ("add", "a", 1))
    other = custom(("add", "b", 1))
    look = custom(("get", "a", None))
    denied = custom(("add", "b", 1), ("add", "b", -1000))
    impossible = custom(("frobnicate", "a", 1))
    lock_timeout_s = LOCK_TIMEOUT_S
    at_work_max = AT_WORK_MAX

    def __init__(self) -> None:
        self._server = Server({"a": 100, "b": 20})

    def make(self) -> OutsideCounters:
        return self.resource(self._server)

    async def state(self) -> Any:
        return dict(self._server.counters)

    def anew(self) -> OutsideSubject:
        return type(self)()
