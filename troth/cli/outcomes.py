"""`troth get`, `troth wait`, `troth abort`: the outcome of one transaction."""

from __future__ import annotations

import click

from troth.cli import render
from troth.cli.common import (
    EXIT_NOT_COMMITTED,
    EXIT_OTHER,
    EXIT_UNKNOWN,
    EXITS,
    connected,
    coordinator_option,
    json_option,
    run,
    say,
    say_json,
)
from troth.process.durations import Duration
from troth.v1 import coordinator_pb2 as pb
from troth.words import Outcome

_EXITS: dict[int, int] = {
    pb.STATE_NOT_FOUND: EXIT_OTHER,
    pb.STATE_PENDING: EXIT_UNKNOWN,
    pb.STATE_COMMITTING: 0,
    pb.STATE_COMMITTED: 0,
    pb.STATE_ABORTED: EXIT_NOT_COMMITTED,
    pb.STATE_REFUSED: EXIT_NOT_COMMITTED,
}


def _shown(found: pb.Transaction, as_json: bool) -> int:
    """Prints what is known, without its steps, and gives the exit code."""
    found.ClearField("steps")
    if as_json:
        say_json(render.transaction_json(found))
    else:
        say(render.transaction_text(found))
    return _EXITS.get(found.state, EXIT_OTHER)


@click.command("get")
@click.argument("id")
@coordinator_option
@json_option
def get(*, id: str, coordinator: str, as_json: bool) -> None:
    """Say what is known of transaction ID.

    NOT_FOUND means that the coordinator has neither a trace nor an outcome of it. That is no promise that it did not
    run: its outcome may have been dropped after the time that outcomes are kept, and a commit with an id that the
    coordinator assigned may have left nothing. To make sure that an id never commits, use `troth abort ID`.

    \b
    Examples:
      troth get order-17
      troth get order-17 --json

    \b
    Exit codes: 0 committed; 3 aborted; 4 pending; 1 NOT_FOUND and anything else.
    """

    async def main() -> int:
        async with connected(coordinator) as client:
            return _shown(await client.get(id), as_json)

    run(main())


@click.command("wait")
@click.argument("id")
@click.option("--timeout", type=Duration(), help="Give up after this; by default never.")
@click.option("--applied", is_flag=True, help="Also wait until every participant of a commit has applied.")
@coordinator_option
@json_option
def wait(*, id: str, timeout: float | None, applied: bool, coordinator: str, as_json: bool) -> None:
    """Wait until transaction ID has an outcome, through restarts of the coordinator.

    An id of which nothing is known is answered at once (NOT_FOUND; see `troth get --help`).

    \b
    Examples:
      troth wait order-17
      troth wait order-17 --timeout 30s --applied

    \b
    Exit codes: 0 committed; 3 aborted; 4 not known within the timeout; 1 NOT_FOUND and anything else.
    """

    async def main() -> int:
        async with connected(coordinator) as client:
            return _shown(await client.wait(id, timeout_s=timeout, applied=applied), as_json)

    run(main())


@click.command("abort")
@click.argument("id")
@coordinator_option
@json_option
def abort(*, id: str, coordinator: str, as_json: bool) -> None:
    """Make sure that transaction ID never commits, or learn that it has.

    An undecided id, also one that was never heard of, becomes ABORTED durably: a later submission with it does not run.
    A decided one is left as it is. Where the only participant decides alone and has not answered, the outcome is
    UNKNOWN: wait for it.

    \b
    Examples:
      troth abort order-17

    \b
    Exit codes: 0 it is ABORTED; 3 it is COMMITTED, or the id is refused; 4 not known; 1 anything else.
    """

    async def main() -> int:
        async with connected(coordinator) as client:
            result = await client.abort(id)
        if as_json:
            say_json(render.result_json(result))
        else:
            say(render.result_text(result))
        return 0 if result.outcome is Outcome.ABORTED else EXITS[result.outcome] or EXIT_NOT_COMMITTED

    run(main())
