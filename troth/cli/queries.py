"""`troth list`, `troth show`, `troth watch`, `troth status`: looking, and changing nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from troth.cli import render
from troth.cli.common import (
    EXIT_OTHER,
    WAIT_S,
    cluster_option,
    complain,
    connected,
    coordinator_option,
    json_option,
    places_in,
    run,
    say,
    say_json,
    say_table,
    soon,
)
from troth.cli.processes import ProcessStatus
from troth.client import connect
from troth.client.participants import connect_participant
from troth.errors import ServerError
from troth.v1 import coordinator_pb2 as pb


@click.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many.")
@click.option("--in-flight", is_flag=True, help="Only those that are not finished.")
@coordinator_option
@json_option
def list_(*, limit: int, in_flight: bool, coordinator: str, as_json: bool) -> None:
    """List transactions in flight and lately finished, newest first.

    \b
    Examples:
      troth list
      troth list --in-flight
      troth list --limit 1000 --json
    """

    async def main() -> int:
        async with connected(coordinator) as client:
            found = await client.list(limit, in_flight=in_flight)
        if as_json:
            for transaction in found:
                say_json(render.transaction_json(transaction))
        elif found:
            say_table(["state", "id", "submitted", "participants", "waits for", "reason"], map(_listed, found))
        return 0

    run(main())


def _listed(found: pb.Transaction) -> Sequence[str]:
    return (
        render.STATES[found.state],
        found.id,
        render.time_text(found.submitted_at),
        ", ".join(found.participants),
        ", ".join(found.waiting_for),
        render.reason_text(found.reason) if found.HasField("reason") else "",
    )


@click.command("show")
@click.argument("id")
@coordinator_option
@json_option
def show(*, id: str, coordinator: str, as_json: bool) -> None:
    """Show the steps of transaction ID with their times.

    Steps are kept in memory for what is live or lately finished; of anything older the logs hold only how it ended.

    \b
    Examples:
      troth show order-17
      troth show order-17 --json
    """

    async def main() -> int:
        async with connected(coordinator) as client:
            found = await client.get(id)
        if as_json:
            say_json(render.transaction_json(found))
        else:
            say(render.transaction_text(found))
        return EXIT_OTHER if found.state == pb.STATE_NOT_FOUND else 0

    run(main())


@click.command("watch")
@coordinator_option
@json_option
def watch(*, coordinator: str, as_json: bool) -> None:
    """Print outcomes as they become known, until Ctrl-C.

    \b
    Examples:
      troth watch
      troth watch --json | grep ABORTED
    """

    async def main() -> int:
        async with connected(coordinator) as client:
            async for found in client.watch():
                if as_json:
                    say_json(render.transaction_json(found))
                else:
                    found.ClearField("steps")
                    say(render.transaction_text(found))
        return 0

    run(main(), interrupted=0)


@click.command("status")
@coordinator_option
@cluster_option
@json_option
def status(*, coordinator: str, folder: Path | None, as_json: bool) -> None:
    """Show how every process is: up or not, in flight, in doubt, oldest, log size.

    Participants are found through the coordinator; with --cluster also when it is dead. `lane` says whether the
    coordinator has its connection to that participant.

    \b
    Examples:
      troth status
      troth status --cluster ./troth-data --json

    \b
    Exit codes: 0 all are serving, with their lanes open; 1 otherwise.
    """

    async def main() -> int:
        found = await _all(coordinator, folder)
        if as_json:
            for process in found:
                say_json(process.json())
        else:
            say_table(ProcessStatus.COLUMNS, (process.cells() for process in found))
            for process in found:
                for trouble in process.troubles:
                    complain(f"{process.name}: {trouble}")
        return 0 if all(process.well for process in found) else EXIT_OTHER

    run(main())


async def _all(address: str, folder: Path | None) -> list[ProcessStatus]:
    places = None if folder is None else places_in(folder)
    address = address if places is None else places.coordinator
    known = {} if places is None else places.participants
    first, lanes = await _coordinator(address)
    by_name = {**known, **{name: lane.address for name, lane in lanes.items()}}
    others = [_participant(name, where, lanes.get(name)) for name, where in by_name.items()]
    return [first, *await asyncio.gather(*others)]


async def _coordinator(address: str) -> tuple[ProcessStatus, dict[str, pb.LaneStatus]]:
    try:
        async with connect(address, wait_s=WAIT_S) as client:
            found = await soon(client.status(), address)
    except ServerError as error:
        return ProcessStatus.down("coordinator", "coordinator", address, str(error)), {}
    return ProcessStatus.of_coordinator(address, found), {lane.participant: lane for lane in found.lanes}


async def _participant(name: str, address: str, lane: pb.LaneStatus | None) -> ProcessStatus:
    try:
        async with connect_participant(address, wait_s=WAIT_S) as client:
            found = await soon(client.status(), address)
    except ServerError as error:
        return ProcessStatus.down(name, "participant", address, str(error))
    return ProcessStatus.of_participant(address, found, lane)
