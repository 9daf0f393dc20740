"""`troth read`: one row at one participant."""

from __future__ import annotations

import click

from troth.cli import render
from troth.cli.common import (
    EXIT_OTHER,
    WAIT_S,
    connected,
    coordinator_option,
    json_option,
    places_by,
    run,
    say,
    say_json,
)
from troth.client.participants import connect_participant
from troth.client.results import Row
from troth.errors import BadInput
from troth.operations import parse_row
from troth.process.durations import Duration


@click.command("read")
@click.argument("participant")
@click.argument("row")
@click.option("--no-wait", is_flag=True, help="Read what is applied now, past every lock.")
@click.option("--timeout", type=Duration(), help="Until waiting for the row is given up.")
@coordinator_option
@json_option
def command(
    *, participant: str, row: str, no_wait: bool, timeout: float | None, coordinator: str, as_json: bool
) -> None:
    """Read ROW (as table/key) at PARTICIPANT.

    It waits for the row as a shared lock does, so what is read is committed and no transaction that changes it is under
    way. With --no-wait the participant reads what is applied: a commit that was decided a moment ago may not be in it.

    \b
    Examples:
      troth read p1 accounts/alice
      troth read p3 stock/berlin/widget --json
      troth read p1 accounts/alice --no-wait

    \b
    Exit codes: 0 the row is there; 1 it is not, and anything else; 3 aborted or refused; 4 unknown; 2 bad input.
    """
    table, key = parse_row_argument(row)

    async def main() -> int:
        async with connected(coordinator) as client:
            if no_wait:
                address = (await places_by(client)).participants.get(participant)
                if address is None:
                    raise BadInput(f"the coordinator names no participant {participant!r}")
                async with connect_participant(address, wait_s=WAIT_S) as there:
                    found = await there.read_row(table, key)
            else:
                found = await client.read(participant, table, key, timeout_s=timeout)
        return _shown(found, as_json)

    run(main())


def parse_row_argument(row: str) -> tuple[str, list[str]]:
    """As `parse_row`, its error as one of usage."""
    try:
        return parse_row(row)
    except BadInput as error:
        raise click.UsageError(str(error)) from error


def _shown(found: Row, as_json: bool) -> int:
    if as_json:
        say_json(render.row_json(found))
    else:
        say(render.row_text(found))
    return 0 if found.present else EXIT_OTHER
