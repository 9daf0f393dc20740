"""`troth bench`: its commands, of which `compare` is what it does when none is named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import click

from bench import compare, flat, overload, restart, servers, stages
from bench.commands import EXIT_INTERRUPTED, in_folder, say, tell, until_signalled
from bench.report import Table
from troth.cli import common

F = TypeVar("F", bound=Callable[..., Any])

_SECONDS = click.FloatRange(min=0, max=3600, min_open=True)


_DEFAULT = "compare"


class _ComparesByDefault(click.Group):
    """A group that takes what is no command's name as options of `compare`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.command("bench", cls=_ComparesByDefault)
def command() -> None:
    """Measure Troth on this machine, everything forced to disk and what was answered verified.

    Without the name of a command it does what `compare` does, and takes its options. Each command starts all that it
    measures, on loopback and in temporary folders, and ends it again; progress goes to standard error.

    \b
    Examples:
      troth bench
      troth bench --in-flight 64 --rounds 5
      troth bench compare --help

    \b
    Exit codes: 0 measured and verified; 1 the rows are not what was answered, or a process died; 2 bad usage;
    130 stopped.
    """


command.add_command(compare.command)
command.add_command(servers.command)


def _option(name: str, kind: click.ParamType[Any], default: Any, text: str) -> Callable[[F], F]:
    return click.option(name, type=kind, default=default, show_default=True, help=text)


_seed_option = _option("--seed", click.INT, 1, "Of the transactions.")


@command.command("flat")
@_option("--upto", click.IntRange(min=flat.FRESH), 1_000_000, "Transactions until the last point.")
@_option("--seconds", _SECONDS, 5.0, "Of each window.")
@_option("--rounds", click.IntRange(min=1), 2, "Windows of each kind at each point.")
@_seed_option
@common.json_option
def flat_command(upto: int, seconds: float, rounds: int, seed: int, as_json: bool) -> None:
    """Measure whether a transaction costs the same after a million others in the same files.

    Two participants transfer at 256 in flight. After a thousand, ten thousand, ... transactions the rate is measured in
    turns with that of a fresh cluster; resident memory and files are looked at. With the last and oldest files: the
    rate while a third participant is stopped with a commit owed to it, in turns with that without; and how long a
    participant that was away from the beginning takes to be back. Settings are the default ones.

    \b
    Examples:
      troth bench flat
      troth bench flat --upto 20000 --seconds 2 --json

    \b
    Exit codes: 0 measured and verified; 1 the rows are not what was answered, or a process died; 2 bad usage;
    130 stopped.
    """
    plan = flat.Plan(upto=upto, seconds=seconds, rounds=rounds, seed=seed)

    _run(lambda folder: flat.run(plan, folder, tell), flat.LEGEND, as_json)


@command.command("restart")
@_option("--in-flight", click.IntRange(1, restart.IN_FLIGHT_MAX), 10_000, "Transactions open when it is killed.")
@_option("--finished", click.IntRange(min=0), 1_000_000, "Transactions in the files before.")
@_seed_option
@common.json_option
def restart_command(in_flight: int, finished: int, seed: int, as_json: bool) -> None:
    """Measure how long a kill -9 in the middle of many transactions is felt.

    Two participants transfer, with so many finished transactions in the files. Then, with so many in flight, the
    coordinator is killed and started again; then a participant; then everything. Clients ask again with the same ids,
    and every one must get its answer. Settings are the default ones, but that so many may be open.

    \b
    Examples:
      troth bench restart
      troth bench restart --in-flight 1000 --finished 20000 --json

    \b
    Exit codes: 0 measured and verified; 1 the rows are not what was answered, a client got no answer, or a process
    died; 2 bad usage; 130 stopped.
    """
    plan = restart.Plan(in_flight=in_flight, finished=finished, seed=seed)
    _run(lambda folder: restart.run(plan, folder, tell), restart.LEGEND, as_json)


@command.command("overload")
@_option("--seconds", _SECONDS, 15.0, "Of each offer.")
@_option("--search", _SECONDS, 3.0, "Seconds of each level when the best rate is looked for.")
@click.option(
    "--in-flight-max",
    type=click.IntRange(min=1),
    multiple=True,
    default=overload.IN_FLIGHT_MAX,
    show_default=True,
    help="What the coordinator takes on at once; may be repeated. The first default is also its own.",
)
@_option("--rounds", click.IntRange(min=1), 2, "Windows of each kind beside another client.")
@_seed_option
@common.json_option
def overload_command(
    seconds: float, search: float, in_flight_max: tuple[int, ...], rounds: int, seed: int, as_json: bool
) -> None:
    """Measure what happens when twice as much is wanted as can be done, and beside a client that never reads.

    The best rate of a closed loop is looked for. Twice that is offered as an open loop, at fixed times whatever the
    answers: what is committed, what is refused, how long what was admitted took, and memory. And a client transfers by
    itself, beside another one that offers a quarter of the best rate, and beside one that never reads what it gets.

    \b
    Examples:
      troth bench overload
      troth bench overload --seconds 5 --in-flight-max 1000 --json

    \b
    Exit codes: 0 measured and verified; 1 the rows are not what was answered, a refusal is not what it must be, or a
    process died; 2 bad usage; 130 stopped.
    """
    bounds = list(dict.fromkeys(in_flight_max))
    plan = overload.Plan(seconds=seconds, search_s=search, in_flight_max=bounds, rounds=rounds, seed=seed)
    _run(lambda folder: overload.run(plan, folder, tell), overload.LEGEND, as_json)


@command.command("stages")
@_option("--batch", click.IntRange(1, 10_000), 100, "Transfers that travel together.")
@_option("--rounds", click.IntRange(min=1), 100, "Batches that are measured.")
@common.json_option
def stages_command(batch: int, rounds: int, as_json: bool) -> None:
    """Measure where a transfer's processor time goes: the shipped nodes, encodings and logs in one thread.

    Batches of transfers between two participants go from the client's call to the last acknowledgement, without gRPC,
    event loops, threads and disks: what is left is what Troth's own lines cost, to be compared before and after a
    change of them.

    \b
    Examples:
      troth bench stages
      troth bench stages --batch 1 --rounds 2000 --json

    \b
    Exit codes: 0 measured; 2 bad usage.
    """
    found = stages.measure(batch, rounds)
    if as_json:
        common.say_json(found)
    else:
        say(stages.tables(found), stages.LEGEND)


class _Found(Protocol):
    """What a measurement gives."""

    def as_json(self) -> Iterable[dict[str, Any]]: ...

    def tables(self) -> Sequence[Table]: ...

    def sentences(self) -> Iterable[str]: ...


def _run(measured: Callable[[Path], Awaitable[_Found]], legend: str, as_json: bool) -> NoReturn:
    async def main() -> None:
        found = await in_folder(measured)
        if not as_json:
            say(found.tables(), legend, *found.sentences())
            return
        for each in found.as_json():
            common.say_json(each)

    common.run(until_signalled(main()), interrupted=EXIT_INTERRUPTED)
