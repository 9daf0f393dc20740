"""A cluster of our own: what `troth up` runs, under its supervisor, with proxies for links and disks that can fail."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import click

from faults.chaos.disk import Disk, NoDisk
from faults.chaos.proxy import Proxy
from faults.chaos.schedule import DISKS, Kind
from faults.chaos.tables import SCHEMA
from faults.chaos.target import Target
from troth.cli import cluster
from troth.cli.supervisor import Child, Spec, State, Supervisor
from troth.cli.up import DRAIN_S, HOST, choose_ports, only_one
from troth.process import EXIT_LOG_FAILED
from troth.process.addresses import Address

COORDINATOR = "coordinator"
START_WITHIN_S = 60.0
_TOOLS = "tools"
"""The folder, within the cluster's, of what its processes are started with: the preloaded library and the schema."""


def made(folder: Path) -> Path:
    """The folder, made when missing. One that holds anything is refused, and nothing is ever removed from it: whose it
    is cannot be told from what it looks like."""
    try:
        if folder.exists() and any(folder.iterdir()):
            raise click.ClickException(f"{folder} is not empty: choose another folder with --data, or remove it first")
        (folder / _TOOLS).mkdir(parents=True)  # refused when another run has just made it
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be made: {error}") from error
    return folder


@asynccontextmanager
async def running(folder: Path, participants: int) -> AsyncIterator[Target]:
    """All serve on entering and are stopped on leaving. The folder was made by `made`, or left by an earlier one."""
    async with AsyncExitStack() as stack:
        stack.enter_context(only_one(folder))
        ports = choose_ports(folder, participants, 0)
        at = {name: str(Address(HOST, port)) for name, port in zip(_names(participants), ports, strict=True)}
        links = {name: await stack.enter_async_context(Proxy.open(name, at[_dialled(name)])) for name in _links(at)}
        disk, not_applied = _disk(folder / _TOOLS)
        specs = _specs(folder, at, links, disk)
        ended: list[str] = []
        children = await stack.enter_async_context(_supervised(folder, specs, ended))
        addresses = dict(at)

        async def pid(name: str) -> int | None:
            return children[name].pid

        yield Target(
            coordinators={COORDINATOR: addresses.pop(COORDINATOR)},
            participants=addresses,
            clients={COORDINATOR: links[f"client>{COORDINATOR}"].address},
            links=links,
            link_sets=_sets(at),
            pid=pid,
            signalled=list(at),
            disk=disk,
            files={spec.name: spec.data for spec in specs},
            not_applied=not_applied,
            ended=ended,
        )


def _names(participants: int) -> list[str]:
    return [COORDINATOR, *(f"p{n}" for n in range(1, participants + 1))]


# Links. A coordinator tells all participants one address of its own, and so does each participant its peers.


def _links(at: dict[str, str]) -> list[str]:
    participants = [name for name in at if name != COORDINATOR]
    dialled = [f"{COORDINATOR}>{name}" for name in participants] + [f"participants>{name}" for name in at]
    return [f"client>{COORDINATOR}", *dialled]


def _dialled(link: str) -> str:
    return link.partition(">")[2]


def _sets(at: dict[str, str]) -> list[tuple[str, ...]]:
    """Single links, and all on which a participant and its coordinator meet, without and with its peers."""
    sets: list[tuple[str, ...]] = [(f"client>{COORDINATOR}",)]
    for name in at:
        if name != COORDINATOR:
            lane, back = f"{COORDINATOR}>{name}", f"participants>{COORDINATOR}"
            sets += [(lane,), (lane, back), (lane, back, f"participants>{name}")]
    return sets


# Processes.


def _disk(folder: Path) -> tuple[Disk | None, dict[Kind, str]]:
    try:
        return Disk(folder), {}
    except NoDisk as error:
        return None, dict.fromkeys(DISKS, str(error))


def _specs(folder: Path, at: dict[str, str], links: dict[str, Proxy], disk: Disk | None) -> list[Spec]:
    schema = folder / _TOOLS / "schema.sql"
    schema.write_text(SCHEMA, "utf-8")
    specs = []
    for name, address in at.items():
        arguments = ["--listen", address, "--advertise", links[f"participants>{name}"].address]
        if name == COORDINATOR:
            for other in list(at)[1:]:
                arguments += ["--participant", f"{other}={links[f'{COORDINATOR}>{other}'].address}"]
        else:
            arguments += ["--schema", str(schema), "--history"]
        specs.append(_spec(folder, name, address, arguments, disk))
    return specs


def _spec(folder: Path, name: str, address: str, arguments: list[str], disk: Disk | None) -> Spec:
    role: cluster.Role = "coordinator" if name == COORDINATOR else "participant"
    file = folder / f"{name}.db"
    command = [sys.executable, "-m", "troth", role, "--name", name, "--data", str(file), *arguments]
    environment = [f"{key}={value}" for key, value in disk.environment.items()] if disk else []
    return Spec(name, role, address, file, ["env", *environment, *command] if environment else command)


@asynccontextmanager
async def _supervised(folder: Path, specs: list[Spec], ended: list[str]) -> AsyncIterator[dict[str, Child]]:
    """All serve on entering; all are stopped on leaving. What they end with unexplained is added to `ended`."""
    all_serve = asyncio.Event()

    def on_news(child: Child, lasting: bool) -> None:
        cluster.write(folder, [each.member for each in supervisor.children])
        if child.state is State.DOWN and _is_unexplained(child.said):
            text = f"{child.spec.name} {child.said.partition('; starting again')[0]}"
            ended.extend({text}.difference(ended))
        if all(each.state is State.SERVING for each in supervisor.children):
            all_serve.set()

    supervisor = Supervisor(specs, folder / "log", on_news)
    life = asyncio.create_task(supervisor.run(DRAIN_S))
    try:
        async with asyncio.timeout(START_WITHIN_S):
            await all_serve.wait()
        yield {child.spec.name: child for child in supervisor.children}
    except TimeoutError:
        raise click.ClickException(
            f"the cluster does not serve within {START_WITHIN_S:g} s: {folder / 'log'}"
        ) from None
    finally:
        supervisor.stop()
        await life


def _is_unexplained(said: str) -> bool:
    """SIGKILL is what we send, and a failed log what a failing disk makes. Anything else is the process's own fault."""
    return not said.startswith(("killed by SIGKILL", f"ended with exit code {EXIT_LOG_FAILED}"))
