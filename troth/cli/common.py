"""What the client commands share: their options, their exit codes, how they print, and where processes are found."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from troth import client as clients
from troth.cli import cluster
from troth.client import Client
from troth.errors import Aborted, BadInput, OutcomeUnknown, Refused, ServerError, TrothError, Unreachable
from troth.process.addresses import AddressType
from troth.words import Outcome

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

EXIT_OTHER, EXIT_BAD_INPUT, EXIT_NOT_COMMITTED, EXIT_UNKNOWN = 1, 2, 3, 4
EXITS = {
    Outcome.COMMITTED: 0,
    Outcome.ABORTED: EXIT_NOT_COMMITTED,
    Outcome.REFUSED: EXIT_NOT_COMMITTED,
    Outcome.UNKNOWN: EXIT_UNKNOWN,
}

WAIT_S = 2.0
"""How long a process may be away before a command says so: a restart under `troth up` is shorter."""
ANSWER_S = 5.0
"""How long a process that stands may take to answer when many are asked."""

coordinator_option = click.option(
    "--coordinator",
    type=AddressType(),
    envvar="TROTH_COORDINATOR",
    default=clients.DEFAULT_ADDRESS,
    show_default=True,
    show_envvar=True,
    help="Where the coordinator is.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
cluster_option = click.option(
    "--cluster",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of `troth up`: its cluster.json says where the processes are, also when the coordinator is dead.",
)


def run(main: Coroutine[Any, Any, int], *, interrupted: int = EXIT_OTHER) -> NoReturn:
    """Runs a command and exits with its code, with that of the error it raised, or on Ctrl-C with `interrupted`."""
    try:
        code = asyncio.run(main)
    except TrothError as error:
        complain(error)
        code = _code(error)
    except KeyboardInterrupt:
        code = interrupted
    sys.exit(code)


def _code(error: TrothError) -> int:
    match error:
        case BadInput():
            return EXIT_BAD_INPUT
        case Aborted() | Refused():
            return EXIT_NOT_COMMITTED
        case OutcomeUnknown():
            return EXIT_UNKNOWN
        case _:
            return EXIT_OTHER


def complain(error: object) -> None:
    """One sentence on standard error."""
    hint = "; is it running? (--coordinator, TROTH_COORDINATOR, `troth up`)" if type(error) is Unreachable else ""
    click.echo(f"troth: {clean(str(error))}{hint}", err=True)


def clean(text: str) -> str:
    """Without what could move a terminal's cursor: what users keep in their rows is printed too."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def say(text: str) -> None:
    """Text for people, on standard output."""
    click.echo(clean(text))


def say_json(found: dict[str, Any]) -> None:
    """One object, one line."""
    click.echo(json.dumps(found))


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table: with lines on a terminal, otherwise columns padded with spaces."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        table = Table()
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    for row in [list(columns), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Client]:
    """A client of the coordinator at `address`. Raises Unreachable."""
    async with clients.connect(address, wait_s=WAIT_S) as client:
        yield client


async def soon(call: Coroutine[Any, Any, T], address: str) -> T:
    """What the call returns. Raises ServerError when it takes longer than ANSWER_S, as of a stopped process."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await call
    except TimeoutError:
        raise ServerError(f"{address} did not answer within {ANSWER_S:g} s") from None


class Places(NamedTuple):
    """Where the processes are."""

    coordinator: str
    participants: dict[str, str]
    """Address by name; the name is the address itself while it is not known."""


def places_in(folder: Path) -> Places:
    """By `cluster.json`. Raises BadInput when there is none."""
    try:
        members = cluster.read(folder)
    except ValueError as error:
        raise BadInput(str(error)) from error
    if not members:
        raise BadInput(f"{folder / cluster.FILE} does not exist: {folder} is not the folder of a `troth up`")
    coordinator, *participants = members
    return Places(coordinator.address, {member.name: member.address for member in participants})


async def places_by(client: Client) -> Places:
    """As the coordinator is configured."""
    status = await soon(client.status(), client.address)
    return Places(client.address, {lane.participant: lane.address for lane in status.lanes})
