"""A cluster that runs already. It is reached by its public services; processes are signalled only when a person said
which they are, and each is looked at again before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from faults.chaos import tables
from faults.chaos.proxy import Proxy
from faults.chaos.schedule import DISKS, SIGNALS, Kind
from faults.chaos.target import Target
from troth.cli import cluster
from troth.cli.common import WAIT_S, places_in, soon
from troth.client import connect
from troth.client.participants import connect_participant
from troth.errors import BadInput, ServerError, Unreachable
from troth.process import addresses

_NO_PIDS = "no process of the cluster was named (--pid NAME=PID, or --cluster DIR)"
_NOT_STARTED = "the processes are not started by this command, and it needs a library that is preloaded at their start"
_NO_SERVERS = "servers that hold its data, if any, are not started by this command"


@asynccontextmanager
async def reached(coordinators: Sequence[str], folder: Path | None, pids: Mapping[str, int]) -> AsyncIterator[Target]:
    """The cluster of these coordinators, or that of a `troth up` in `folder`; the tables are made where they miss.

    Raises BadInput for a pid that is not that process's, and Unreachable."""
    if folder is not None:
        coordinators = [places_in(folder).coordinator]
    names = ["coordinator"] if len(coordinators) == 1 else [f"coordinator{n}" for n in range(1, len(coordinators) + 1)]
    at = dict(zip(names, coordinators, strict=True))
    participants = await _participants(coordinators)
    for address in participants.values():
        async with connect_participant(address, wait_s=WAIT_S) as there:
            await tables.make(there)
    everything = {**at, **participants}
    for name, pid in pids.items():
        await _must_be(name, pid, everything)

    async def pid_of(name: str) -> int | None:
        return _recorded(folder, name) if folder else await _told(everything[name])

    signalled = list(everything) if folder else [name for name in everything if name in pids]
    async with AsyncExitStack() as stack:
        links = {f"client>{name}": await stack.enter_async_context(Proxy.open(name, at[name])) for name in names}
        yield Target(
            coordinators=at,
            participants=participants,
            clients={name: links[f"client>{name}"].address for name in names},
            links=links,
            link_sets=[(name,) for name in links],
            pid=pid_of,
            signalled=signalled,
            not_applied=_not_applied(signalled),
        )


def _not_applied(signalled: Sequence[str]) -> dict[Kind, str]:
    not_started = {**dict.fromkeys(DISKS, _NOT_STARTED), Kind.SERVER: _NO_SERVERS}
    return {**not_started, **({} if signalled else dict.fromkeys(SIGNALS, _NO_PIDS))}


async def _participants(coordinators: Sequence[str]) -> dict[str, str]:
    """By name, as all coordinators name them. Raises BadInput when two of them do not agree."""
    found: dict[str, str] = {}
    for address in coordinators:
        async with connect(address, wait_s=WAIT_S) as client:
            for lane in (await soon(client.status(), address)).lanes:
                if found.setdefault(lane.participant, lane.address) != lane.address:
                    raise BadInput(f"{lane.participant} is at {found[lane.participant]} and at {lane.address}")
    if not found:
        raise BadInput("the coordinator names no participants")
    return found


# Pids.


async def _must_be(name: str, pid: int, everything: Mapping[str, str]) -> None:
    if name not in everything:
        raise BadInput(f"--pid {name}={pid}: there is no process {name!r}, only {', '.join(everything)}")
    told = await _told(everything[name])
    if told != pid:
        raise BadInput(f"--pid {name}={pid}: the process at {everything[name]} says that it is {told} on this machine")


async def _told(address: str) -> int | None:
    """The pid that the process says; None when it does not answer, or is not on this machine."""
    if not addresses.parse(address).loopback:
        return None
    try:
        async with connect_participant(address, wait_s=WAIT_S) as participant:
            return (await soon(participant.status(), address)).pid
    except Unreachable:
        return None
    except ServerError:  # it is of the other kind, or silent
        pass
    try:
        async with connect(address, wait_s=WAIT_S) as coordinator:
            return (await soon(coordinator.status(), address)).pid
    except ServerError:
        return None


def _recorded(folder: Path, name: str) -> int | None:
    """By `cluster.json`; None also when another process has that pid by now."""
    member = next(member for member in cluster.read(folder) if member.name == name)
    try:
        running = Path(f"/proc/{member.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return member.pid if member.data.encode() in running else None
