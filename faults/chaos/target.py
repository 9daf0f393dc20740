"""What faults are injected into: where the processes are, and by what each can be broken."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faults.chaos.databases import Place, Servers
from faults.chaos.disk import Disk
from faults.chaos.proxy import Proxy
from faults.chaos.schedule import DISKS, LINKS, Fault, Field, Kind


@dataclass
class Target:
    """A cluster, ours or not. Names are those of its processes."""

    coordinators: Mapping[str, str]
    """Addresses by name, past every proxy: to look at."""
    participants: Mapping[str, str]
    """The same of the participants."""
    clients: Mapping[str, str]
    """Where clients reach each coordinator."""
    links: Mapping[str, Proxy]
    """By name, `who dials>who is dialled`."""
    link_sets: Sequence[tuple[str, ...]]
    """Links that are broken together."""
    pid: Callable[[str], Awaitable[int | None]]
    """The present pid of a process that may be signalled; None while it is down."""
    signalled: Sequence[str] = ()
    """The processes that may be."""
    disk: Disk | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    """The data files by process; empty when the cluster is not ours."""
    databases: Mapping[str, Place] = field(default_factory=dict)
    """Those that hold participants' data, by participant; as `files`."""
    servers: Servers | None = None
    """Those that may be killed, and are started again."""
    not_applied: Mapping[Kind, str] = field(default_factory=dict)
    """Kinds of fault that cannot be applied here, and why."""
    ended: Sequence[str] = ()
    """What the processes of a cluster of ours ended with that no fault explains; grows while it runs."""
    _stopped: dict[str, int] = field(default_factory=dict)
    """Pids by name: a stopped process cannot be asked for its own."""

    @property
    def names(self) -> list[str]:
        """Of all processes, the coordinators first."""
        return [*self.coordinators, *self.participants]

    @property
    def breakable(self) -> Field:
        """What there is to break."""
        disks = list(self.files) if self.disk else []
        return Field(list(self.signalled), list(self.link_sets), disks, self.servers.kinds if self.servers else [])

    async def begin(self, fault: Fault) -> bool:
        """Applies it; False when it hit nothing, for what it aims at is down already."""
        if fault.kind in LINKS:
            for name in fault.targets:
                self.links[name].begin(fault)
        elif fault.kind in DISKS:
            assert self.disk is not None
            for name in fault.targets:
                self.disk.begin(fault, self.files[name])
        elif fault.kind is Kind.SERVER:
            assert self.servers is not None
            for name in fault.targets:
                await self.servers.kill(name)
        else:
            return await self._signal(fault)
        return True

    async def end(self, fault: Fault) -> None:
        """Heals it; nothing for a kill."""
        for name in fault.targets:
            if fault.kind in LINKS:
                self.links[name].end(loses=fault.loses)
            elif fault.kind in DISKS:
                assert self.disk is not None
                self.disk.end(self.files[name])
            elif fault.kind is Kind.SERVER:
                assert self.servers is not None
                await self.servers.start(name)
            elif fault.kind is Kind.STOP and (pid := self._stopped.pop(name, None)):
                _signal(pid, signal.SIGCONT)

    async def _signal(self, fault: Fault) -> bool:
        """All of them at once that are there; whether any was."""
        assert set(fault.targets) <= set(self.signalled)
        pids = {name: pid for name in fault.targets if (pid := await self.pid(name)) is not None}
        if fault.kind is not Kind.STOP:
            hits = [_signal(pid, signal.SIGKILL) for pid in pids.values()]
            return any(hits)
        self._stopped |= {name: pid for name, pid in pids.items() if _signal(pid, signal.SIGSTOP)}
        return bool(pids.keys() & self._stopped.keys())


def _signal(pid: int, number: signal.Signals) -> bool:
    """False when it ended a moment ago."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
