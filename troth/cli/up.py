"""`troth up`: a coordinator and its participants on this machine, each a process of its own, kept running."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import click
import grpc
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from troth.cli import cluster
from troth.cli.supervisor import Child, OnNews, Spec, State, Supervisor
from troth.process import EXIT_HELD, addresses, logging
from troth.process.addresses import Address
from troth.process.config import ConfigError, option
from troth.v1 import participant_pb2, participant_pb2_grpc

HOST = "127.0.0.1"
PORT = 7400
DRAIN_S = 10.0
"""Until processes that were told to stop are killed."""
_FREED_WITHIN_S = 2.0
"""How long the processes of a `troth up` that was itself killed may take to let their ports go."""
_POLL_S = 1.0
_COLOURS = {State.SERVING: "green", State.DOWN: "red", State.STARTING: "yellow", State.STOPPING: "yellow"}


class Held(ConfigError):
    """Another `troth up` runs on the folder."""

    exit_code = EXIT_HELD


@click.command("up")
@option("--participants", type=click.IntRange(min=1), help="How many; by default as many as last time, or 3.")
@option(
    "--participant",
    "named",
    multiple=True,
    metavar="NAME=KIND[:DSN]",
    help="One participant, by name, instead of --participants: sqlite, or postgresql:DSN, or mariadb:DSN.",
)
@option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The folder for data files, logs and cluster.json; made when missing.",
)
@option(
    "--port",
    type=click.IntRange(0, 65000),
    help=f"The coordinator's; participants follow on. 0: free ones. By default as last time, or {PORT}.",
)
@option(
    "--schema",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="SQL that makes the participants' tables in new data files.",
)
@option("--history", is_flag=True, help="Keep what each committed branch did, in order, for the auditor.")
@option("--coordinator-config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its --config file.")
@option(
    "--participant-config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Their --config file."
)
@logging.options
def command(
    *,
    participants: int | None,
    named: tuple[str, ...],
    data: Path,
    port: int | None,
    schema: Path | None,
    history: bool,
    coordinator_config: Path | None,
    participant_config: Path | None,
    log_level: str,
    log_format: str,
) -> None:
    """Run a coordinator and N participants p1, p2, ... (or those named) as separate processes.

    One that dies is started again, with growing pauses. Ctrl-C or SIGTERM stops all, draining first; a second one stops
    at once. What runs where is kept in DIR/cluster.json, logs in DIR/log. On Linux no process outlives `troth up`, even
    when that is killed. Settings in the environment (TROTH_COORDINATOR_VOTE_TIMEOUT=5s) reach the processes.

    \b
    Examples:
      troth up --participants 3 --data ./troth-data
      troth up --data ./shop --schema shop.sql --port 9000
      troth up --data ./shop --participant p1=sqlite --participant "p2=postgresql:host=db dbname=shop"
    """
    data = data.absolute()
    data.mkdir(parents=True, exist_ok=True)
    shared = ["--log-level", log_level, "--log-format", log_format]
    with only_one(data):
        wanted = choose_participants(data, participants, named)
        ports = choose_ports(data, len(wanted), port)
        coordinator = _config(coordinator_config) + shared
        participant = _config(participant_config) + (["--history"] if history else []) + shared
        if schema:
            in_file = ["--schema", str(schema.absolute())]
            wanted = [each if each.kind else each._replace(arguments=in_file) for each in wanted]
        sys.exit(asyncio.run(supervise(data, specs(data, ports, wanted, coordinator, participant), screen())))


class Wanted(NamedTuple):
    """A participant as it was asked for."""

    name: str
    kind: str = ""
    """Of the server that holds its tables; empty when its file does."""
    dsn: str = ""
    arguments: Sequence[str] = ()
    """Of its command, beside those of all."""


def choose_participants(folder: Path, count: int | None, named: Sequence[str]) -> list[Wanted]:
    """Those named as NAME=KIND[:DSN], or so many, or those that the folder remembers, or three. Of those remembered,
    one whose tables a server holds refuses to run without its DSN. Raises ConfigError."""
    if count and named:
        raise ConfigError("--participants says how many, --participant which: give one of them")
    if named:
        wanted = [_parsed(text) for text in named]
        twice = [each.name for index, each in enumerate(wanted) if each.name in {one.name for one in wanted[:index]}]
        if twice:
            raise ConfigError(f"--participant {twice[0]} is given twice")
        return wanted
    remembered = [] if count else [each.name for each in _remembered(folder) if each.role == "participant"]
    return [Wanted(name) for name in remembered or [f"p{n}" for n in range(1, (count or 3) + 1)]]


def _parsed(text: str) -> Wanted:
    name, _, what = text.partition("=")
    kind, _, dsn = what.partition(":")
    if not name or not kind or (kind == "sqlite") == bool(dsn):
        raise ConfigError(f"--participant {text}: it is NAME=sqlite or NAME=KIND:DSN, as in p2=postgresql:host=db")
    return Wanted(name) if kind == "sqlite" else Wanted(name, kind, dsn, ["--resource", kind])


def _config(path: Path | None) -> list[str]:
    return ["--config", str(path.absolute())] if path else []


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; Held, naming the holder's pid, when another one does. The kernel lets go of
    it when a process dies, however that dies."""
    with (folder / "up.pid").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "just starting"
            raise Held(f"another `troth up` (pid {holder}) runs on {folder}; stop that one first") from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def choose_ports(folder: Path, participants: int, port: int | None) -> list[int]:
    """The coordinator's port and those of the participants, by what was asked for and what the folder remembers.

    Remembered ports are kept, so that addresses in logs and in other people's configuration stay right. Raises
    ConfigError for one that is taken."""
    known = [addresses.parse(member.address).port for member in _remembered(folder)]
    count = 1 + participants
    if known and port in (None, 0, known[0]):
        ports = [*known, *range(max(known) + 1, max(known) + 1 + count)][:count]
    elif port == 0:
        return addresses.free_ports(count, HOST)
    else:
        first = PORT if port is None else port
        ports = list(range(first, first + count))
    for taken in ports:
        _wait_free(Address(HOST, taken))
    return ports


def _remembered(folder: Path) -> list[cluster.Member]:
    try:
        return cluster.read(folder)
    except ValueError as error:
        raise ConfigError(f"{error}; `troth up` only needs it to keep its ports: remove it to go on") from error


def _wait_free(address: Address) -> None:
    deadline = time.monotonic() + _FREED_WITHIN_S
    while not addresses.is_free(address):
        if time.monotonic() > deadline:
            raise ConfigError(
                f"port {address.port} is taken by another process: choose others with --port (0 takes free ones)"
            )
        time.sleep(0.05)  # no event tells that another process lets a port go


def specs(
    folder: Path, ports: Sequence[int], wanted: Sequence[Wanted], coordinator: list[str], participant: list[str]
) -> list[Spec]:
    """What to run on these ports, the coordinator's first; `coordinator` and `participant` are further arguments of the
    commands."""
    first, *rest = (str(Address(HOST, port)) for port in ports)
    others = [f"--participant={each.name}={address}" for each, address in zip(wanted, rest, strict=True)]
    return [
        _spec(folder, "coordinator", "coordinator", first, [*others, *coordinator]),
        *(
            _spec(folder, each.name, "participant", address, [*each.arguments, *participant], each.dsn)
            for each, address in zip(wanted, rest, strict=True)
        ),
    ]


def _spec(folder: Path, name: str, role: cluster.Role, address: str, arguments: list[str], dsn: str = "") -> Spec:
    file = folder / f"{name}.db"
    place = ["--name", name, "--data", str(file), "--listen", address]
    command = [sys.executable, "-m", "troth", role, *place, *arguments]
    return Spec(name, role, address, file, command, {"TROTH_PARTICIPANT_DSN": dsn} if dsn else {})


class Screen(Protocol):
    """What shows the people in front of it how the processes are."""

    def news(self, child: Child, lasting: bool) -> None:
        """A child changed; `lasting` when it will not get better by itself."""

    def ready(self, text: str) -> None:
        """All serve, for the first time."""

    def watching(self, children: Sequence[Child]) -> AbstractContextManager[object]:
        """Entered within the event loop while the processes run."""


def screen() -> Screen:
    """A table that follows the processes on a terminal, otherwise plain lines."""
    return LiveTable(Console(highlight=False)) if sys.stdout.isatty() else Lines()


class Lines:
    """One plain line for each piece of news; what needs a person also on standard error."""

    def news(self, child: Child, lasting: bool) -> None:
        print(f"{child.spec.name}: {child.said}", flush=True)
        if lasting:
            print(_needs_you(child), file=sys.stderr, flush=True)

    def ready(self, text: str) -> None:
        print(text, flush=True)

    @contextmanager
    def watching(self, children: Sequence[Child]) -> Iterator[None]:
        yield


class LiveTable:
    """A table of the processes below the lines that need to be kept."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._children: Sequence[Child] = ()
        self._in_doubt: dict[str, str] = {}

    def news(self, child: Child, lasting: bool) -> None:
        if lasting:
            self._console.print(f"[bold red]{escape(_needs_you(child))}[/]")
        elif child.state is State.DOWN:
            self._console.print(f"[yellow]{escape(child.spec.name)}: {escape(child.said)}[/]")

    def ready(self, text: str) -> None:
        self._console.print(text)

    @contextmanager
    def watching(self, children: Sequence[Child]) -> Iterator[None]:
        self._children = children
        polls = [asyncio.create_task(self._poll(child)) for child in children if child.spec.role == "participant"]
        try:
            with Live(console=self._console, get_renderable=self._table, refresh_per_second=4):
                yield
        finally:
            for poll in polls:
                poll.cancel()

    def _table(self) -> Table:
        table = Table("name", "role", "address", "pid", "state", "restarts", "in doubt")
        for child in self._children:
            spec, colour = child.spec, _COLOURS.get(child.state, "white")
            pid = str(child.pid or "")
            in_doubt = self._in_doubt.get(spec.name, "") if child.state is State.SERVING else ""
            state = f"[{colour}]{child.state.value}[/]"
            table.add_row(spec.name, spec.role, spec.address, pid, state, str(child.restarts), in_doubt)
        return table

    async def _poll(self, child: Child) -> None:
        async with grpc.aio.insecure_channel(child.spec.address) as channel:
            status = participant_pb2_grpc.ParticipantQueriesStub(channel).Status  # type: ignore[no-untyped-call]
            while True:
                try:
                    reply = await status(participant_pb2.ParticipantStatusRequest(), timeout=_POLL_S)
                    self._in_doubt[child.spec.name] = str(reply.in_doubt)
                except grpc.aio.AioRpcError:
                    self._in_doubt[child.spec.name] = "?"
                await asyncio.sleep(_POLL_S)


def _needs_you(child: Child) -> str:
    return f"{child.spec.name} CANNOT RUN and will not get better by itself: {child.said}"


async def supervise(folder: Path, specs: Sequence[Spec], screen: Screen) -> int:
    """Runs the processes until SIGTERM or SIGINT, keeping `cluster.json` current. The exit code of `troth up`."""
    supervisor = Supervisor(specs, folder / "log", _on_news(folder, screen, lambda: supervisor.children))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    with screen.watching(supervisor.children):
        await supervisor.run(DRAIN_S)
    return 0


def _on_news(folder: Path, screen: Screen, children: Callable[[], Sequence[Child]]) -> OnNews:
    """Writes `cluster.json` when it changes, tells the screen, and says once that all serve."""
    written: list[cluster.Member] = []
    was_ready = False

    def on_news(child: Child, lasting: bool) -> None:
        nonlocal written, was_ready
        members = [child.member for child in children()]
        if members != written:
            cluster.write(folder, members)
            written = members
        screen.news(child, lasting)
        if not was_ready and all(child.state is State.SERVING for child in children()):
            was_ready = True
            screen.ready(f"ready: coordinator at {members[0].address}")

    return on_news
