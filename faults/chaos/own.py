"""A cluster of our own: what `troth up` runs, under its supervisor, with proxies for links and disks that can fail."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import click

from faults.chaos.databases import Place, Servers, make_tables
from faults.chaos.disk import Disk, NoDisk
from faults.chaos.proxy import Proxy
from faults.chaos.schedule import DISKS, Kind
from faults.chaos.tables import SCHEMA
from faults.chaos.target import Target
from troth.cli import cluster
from troth.cli.supervisor import Child, Spec, State, Supervisor
from troth.cli.up import DRAIN_S, HOST, Wanted, choose_ports, only_one
from troth.process import EXIT_LOG_FAILED, EXIT_UNAVAILABLE
from troth.process.addresses import Address

COORDINATOR = "coordinator"
START_WITHIN_S = 60.0
_NO_SERVERS = "no private database server was started for that (--servers)"
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
async def running(folder: Path, wanted: Sequence[Wanted], servers: Servers | None = None) -> AsyncIterator[Target]:
    """All serve on entering and are stopped on leaving. The folder was made by `made`, or left by an earlier one. A
    participant with a kind and no DSN gets a new database at the private server of that kind."""
    async with AsyncExitStack() as stack:
        stack.enter_context(only_one(folder))
        names = [COORDINATOR, *(each.name for each in wanted)]
        ports = choose_ports(folder, len(wanted), 0)
        at = {name: str(Address(HOST, port)) for name, port in zip(names, ports, strict=True)}
        places = {each.name: await _place(folder, each, servers) for each in wanted if each.kind}
        links = {
            name: await stack.enter_async_context(Proxy.open(name, address))
            for name, address in {**_links(at), **_to_servers(places)}.items()
        }
        disk, not_applied = _disk(folder / _TOOLS)
        specs = _specs(folder, at, links, places, disk)
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
            link_sets=[*_sets(at), *((name,) for name in _to_servers(places))],
            pid=pid,
            signalled=list(at),
            disk=disk,
            files={spec.name: spec.data for spec in specs},
            databases=places,
            servers=servers,
            not_applied=not_applied if servers else {**not_applied, Kind.SERVER: _NO_SERVERS},
            ended=ended,
        )


async def _place(folder: Path, wanted: Wanted, servers: Servers | None) -> Place:
    """Its database, with the tables made when its file is still to be."""
    if wanted.dsn:
        place = Place(wanted.kind, wanted.dsn)
    else:
        assert servers is not None
        place = await servers.create(wanted.kind, wanted.name)
    if not (folder / f"{wanted.name}.db").exists():
        await asyncio.to_thread(make_tables, place.kind, place.dsn)
    return place


# Links. A coordinator tells all participants one address of its own, and so does each participant its peers.


def _links(at: dict[str, str]) -> dict[str, str]:
    """By name, `who dials>who is dialled`, the address behind it."""
    participants = [name for name in at if name != COORDINATOR]
    dialled = [f"{COORDINATOR}>{name}" for name in participants] + [f"participants>{name}" for name in at]
    return {name: at[name.partition(">")[2]] for name in [f"client>{COORDINATOR}", *dialled]}


def _to_servers(places: Mapping[str, Place]) -> dict[str, str]:
    """The same of those to servers of ours."""
    return {f"{name}>{place.kind}": place.server for name, place in places.items() if place.server}


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


def _specs(
    folder: Path, at: dict[str, str], links: dict[str, Proxy], places: Mapping[str, Place], disk: Disk | None
) -> list[Spec]:
    schema = folder / _TOOLS / "schema.sql"
    schema.write_text(SCHEMA, "utf-8")
    specs = []
    for name, address in at.items():
        arguments = ["--listen", address, "--advertise", links[f"participants>{name}"].address]
        if name == COORDINATOR:
            for other in list(at)[1:]:
                arguments += ["--participant", f"{other}={links[f'{COORDINATOR}>{other}'].address}"]
        elif name in places:
            arguments += ["--resource", places[name].kind, "--history"]
        else:
            arguments += ["--schema", str(schema), "--history"]
        spec = _spec(folder, name, address, arguments, disk)
        if name in places:
            link = links.get(f"{name}>{places[name].kind}")
            dsn = places[name].through(link.address) if link else places[name].dsn
            spec = spec._replace(env={"TROTH_PARTICIPANT_DSN": dsn})
        specs.append(spec)
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
    """SIGKILL is what we send, a failed log what a failing disk makes, and a server that cannot be used at a start what
    a killed server or a broken link to it makes. Anything else is the process's own fault."""
    codes = tuple(f"ended with exit code {code}" for code in (EXIT_LOG_FAILED, EXIT_UNAVAILABLE))
    return not said.startswith(("killed by SIGKILL", *codes))
