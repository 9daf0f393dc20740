"""`troth bench compare`: what transactions cost, here and elsewhere, measured in turns and verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from bench import plot, report
from bench.commands import EXIT_INTERRUPTED, in_folder, say, tell, until_signalled
from bench.contender import NAMES
from bench.run import Found, Plan, run
from bench.workloads import WORKLOADS
from coordinator.settings import CoordinatorSettings
from troth.cli import common
from troth.errors import BadInput

_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)
_WARM_UP, _SECONDS, _SECONDS_MAX = 1.0, 3.0, 3600


F = TypeVar("F", bound=Callable[..., Any])

_COMPARED = ("troth", "unary", "bare", "postgresql")


def in_flight_option(default: Sequence[int], told: str = "") -> Callable[[F], F]:
    """The levels, by default these; `told` says so when the default depends on more."""
    return click.option(
        "--in-flight",
        "in_flight",
        type=click.IntRange(1, CoordinatorSettings().in_flight_max),
        multiple=True,
        default=default,
        show_default=not told,
        help=f"Transactions open at once; may be repeated.{told}",
    )


_TURNS: list[Callable[[F], F]] = [
    click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Turns of each contender."),
    click.option("--seconds", type=float, default=_SECONDS, show_default=True, help="Of each measurement."),
    click.option(
        "--warm-up",
        "warm_up_s",
        type=float,
        default=_WARM_UP,
        show_default=True,
        help="Seconds of the same load before each measurement.",
    ),
    click.option("--seed", type=int, default=1, show_default=True, help="Of the transactions."),
    common.json_option,
    click.option(
        "--plot", "plot_file", type=_FILE, help="Draw throughput over transactions in flight into this SVG file."
    ),
    click.option("--report", "report_file", type=_FILE, help="Write everything into this Markdown file."),
]


def turn_options(command: F) -> F:
    """What every command has whose contenders take turns."""
    for option in reversed(_TURNS):
        command = option(command)
    return command


@click.command("compare")
@click.option(
    "--workload",
    "workloads",
    type=click.Choice(list(WORKLOADS)),
    multiple=True,
    default=["transfer"],
    show_default=True,
    help="What a transaction does; may be repeated.",
)
@in_flight_option((), " By default 1, 16, 64, 256 and 1024 for transfer, and 256 for the others.")
@click.option(
    "--contender",
    "contenders",
    type=click.Choice(NAMES),
    multiple=True,
    help=f"What is measured; may be repeated. By default {', '.join(_COMPARED)}.",
)
@turn_options
def command(
    workloads: Sequence[str],
    in_flight: Sequence[int],
    contenders: Sequence[str],
    rounds: int,
    seconds: float,
    warm_up_s: float,
    seed: int,
    as_json: bool,
    plot_file: Path | None,
    report_file: Path | None,
) -> None:
    """Measure Troth beside its rivals on this machine, everything forced to disk and every row verified.

    The contenders are troth; unary, a plain two-phase commit with one call and one SQLite commit for each step; and
    postgresql, two-phase commit written by hand over two PostgreSQL servers, without a log of decisions. bare is a
    yardstick of latency, at 1 in flight unless it is named: what the streams and forced writes take that a client waits
    for. The others that can be named are those of `troth bench servers`. All that is measured is started for it, on
    loopback and in temporary folders, and takes turns in one run. What is missing here (a server, or its driver) is
    skipped and named. This is also what `troth bench` alone does.

    \b
    Examples:
      troth bench compare
      troth bench compare --in-flight 64 --in-flight 256 --seconds 10 --rounds 5
      troth bench compare --workload order --workload hot-row --contender troth --contender unary
      troth bench compare --contender troth --contender bare --in-flight 1
      troth bench compare --json --plot bench.svg --report bench.md

    \b
    Exit codes: 0 measured and verified; 1 the rows are not what was answered, or a process died; 2 bad usage;
    130 stopped.
    """
    plan = Plan(
        workloads=list(dict.fromkeys(workloads)),
        in_flight=list(dict.fromkeys(in_flight)),
        contenders=list(dict.fromkeys(contenders)) or list(_COMPARED),
        rounds=rounds,
        seconds=seconds,
        warm_up_s=warm_up_s,
        seed=seed,
        named=bool(contenders),
    )
    measure(plan, as_json, plot_file, report_file)


def measure(plan: Plan, as_json: bool, plot_file: Path | None, report_file: Path | None) -> NoReturn:
    """Carries out the plan, says what it found, and exits."""
    if not (0 < plan.seconds <= _SECONDS_MAX and 0 <= plan.warm_up_s <= _SECONDS_MAX):
        raise click.UsageError(f"--seconds is above 0, and like --warm-up {_SECONDS_MAX} at most")
    common.run(until_signalled(_main(plan, as_json, plot_file, report_file)), interrupted=EXIT_INTERRUPTED)


async def _main(plan: Plan, as_json: bool, plot_file: Path | None, report_file: Path | None) -> None:
    _writable(plot_file, report_file)
    found = await in_folder(lambda folder: run(plan, folder, tell))
    _write(plan, found, plot_file, report_file)
    if as_json:
        _say_json(found)
    else:
        _say(found)


def _writable(*paths: Path | None) -> None:
    """Before anything is measured, not after it."""
    for path in filter(None, paths):
        if not path.absolute().parent.is_dir():
            raise BadInput(f"there is no folder {path.parent} for {path.name}; make it first")


def _write(plan: Plan, found: Found, plot_file: Path | None, report_file: Path | None) -> None:
    if plot_file and found.rows:
        plot_file.write_text(plot.svg(found.rows), "utf-8")
    if report_file:
        report_file.write_text(report.markdown(plan, found), "utf-8")


def _say_json(found: Found) -> None:
    for row in found.rows:
        common.say_json(row.as_json())
    for ratio in report.ratios(found.rows):
        common.say_json(ratio.as_json())
    for each in found.skipped:
        common.say_json({"contender": each.contender, "workload": each.workload, "skipped": each.why})


def _say(found: Found) -> None:
    tables, legend = (report.tables(found.rows), [report.LEGEND]) if found.rows else ([], [])
    say(tables, *legend, *map(str, report.ratios(found.rows)), *report.skipped(found))
