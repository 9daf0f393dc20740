"""`troth simulate`: the shipped nodes through many seeds, each a run with faults, healing and checks."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterable

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from faults.simulator.runs import Keep, Run, Size, chosen, run, run_all, shrink
from troth.cli.common import json_option

HISTORY_LINES = 200
"""Of a failing run's history the last lines are shown; --history shows all."""


class _Range(click.ParamType):  # type: ignore[type-arg]  # generic only in later click
    """`3` or `2-5`."""

    name = "N or N-M"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        least, _, most = str(value).partition("-")
        if not (least.isdecimal() and (most or least).isdecimal() and 2 <= int(least) <= int(most or least) <= 10):
            self.fail(f"a number from 2 to 10, or two as in 2-5, is wanted, not {value!r}", param, ctx)
        return int(least), int(most or least)


class _Kept(click.ParamType):  # type: ignore[type-arg]  # generic only in later click
    """What `Keep` spells."""

    name = "a1,f0,..."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Keep:
        try:
            return Keep.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("simulate")
@click.option("--seeds", type=click.IntRange(1), default=100, show_default=True, help="How many runs.")
@click.option("--seed", type=click.IntRange(0), help="The first seed; others follow it. By default any.")
@click.option("--transactions", type=click.IntRange(1), default=200, show_default=True, help="Submissions in one run.")
@click.option("--participants", type=_Range(), default="2-5", show_default=True, help="How many, or between.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option(
    "--keep", type=_Kept(), help="Of one seed, only these asks and faults (and with which chance); a failure prints it."
)
@click.option("--history", is_flag=True, help="Print what happened in the run; for one seed.")
@json_option
def command(
    seeds: int,
    seed: int | None,
    transactions: int,
    participants: tuple[int, int],
    jobs: int,
    keep: Keep | None,
    history: bool,
    as_json: bool,
) -> None:
    """Simulate a cluster of the shipped nodes, logs and SQLite tables, with faults, under one seed after the other.

    In each run a coordinator and its participants get transactions while messages are lost, late, doubled and out of
    order, links are cut, disks stall or are full, processes are stopped and killed at any step, files are swapped and
    people settle things by hand. At every step it is checked that nothing is promised before it is durable; then all
    heals, and everything must end, agree, and be what some serial execution gives. The same seed gives the same run.

    The first failing run is made smaller, and its history printed with the command that replays it.

    \b
    Exit code: 0 nothing was broken, 1 something was, 2 wrong usage.

    \b
    Examples:
      troth simulate --seeds 1000
      troth simulate --seed 17 --seeds 1 --history
      troth simulate --seed 17 --transactions 200 --participants 2-5 --keep a3,a9,f0
    """
    size = Size(transactions, participants)
    if keep is not None or history:
        if seed is None or (keep is None and seeds != 1):
            raise click.UsageError("--keep and --history are of one run: name its --seed, with --seeds 1")
        sys.exit(_one(seed, size, keep, history, as_json))
    first = random.SystemRandom().randrange(10**9) if seed is None else seed
    sys.exit(_many(range(first, first + seeds), size, min(jobs, seeds), as_json))


def _one(seed: int, size: Size, keep: Keep | None, history: bool, as_json: bool) -> int:
    made = chosen(seed, size, keep)
    found = run(seed, size, keep, traced=True)
    if as_json:
        click.echo(json.dumps(_report([found], 0.0) | {"history": list(found.history)}))
    else:
        about = f"{made.style}; {', '.join(made.features) or 'nothing goes wrong'}"
        click.echo(f"seed {seed}: {len(made.names)} participants, {about}")
        lines = found.history
        if not history:
            lines = lines[-HISTORY_LINES:] if found.failure else ()
        for line in lines:
            click.echo(line)
        click.echo(f"BROKEN: {found.failure.what} ({found.failure.where})" if found.failure else "nothing was broken")
    return 1 if found.failure else 0


def _many(seeds: range, size: Size, jobs: int, as_json: bool) -> int:
    began = time.monotonic()
    runs: list[Run] = []
    for each in _shown(run_all(seeds, size, jobs), len(seeds), size):
        runs.append(each)
        if each.failure is not None:
            break
    broken = runs[-1] if runs[-1].failure is not None else None
    keep = shrink(broken.seed, size, _progress) if broken else None
    report = {"first_seed": seeds.start, **_report(runs, time.monotonic() - began)}
    if broken and keep:
        report["replay"] = _replay(broken.seed, size, keep)
    if as_json:
        click.echo(json.dumps(report))
    else:
        click.echo(_summary(report, jobs))
        if broken and keep:
            _one(broken.seed, size, keep, history=False, as_json=False)
            click.echo(f"replay: {report['replay']}")
    return 1 if broken else 0


def _shown(runs: Iterable[Run], count: int, size: Size) -> Iterable[Run]:
    """With a progress bar, where somebody looks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from runs
        return
    columns = (TextColumn("{task.completed} of {task.total} runs"), BarColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=count, rate="")
        began = time.monotonic()
        for n, each in enumerate(runs, 1):
            rate = n * size.transactions / (time.monotonic() - began)
            progress.update(task, advance=1, rate=f"{rate:,.0f} transactions/s")
            yield each


def _progress(asks: int, faults: int) -> None:
    click.echo(f"making it smaller: {asks} asks and {faults} faults still break it", err=True)


def _replay(seed: int, size: Size, keep: Keep) -> str:
    least, most = size.participants
    many = f"--transactions {size.transactions} --participants {least}-{most}"
    return f"troth simulate --seed {seed} {many} --keep {keep}"


def _report(runs: list[Run], wall_s: float) -> dict[str, object]:
    done = [each.done for each in runs if each.done is not None]
    cpu_s = sum(each.cpu_s for each in runs)
    transactions = sum(each.transactions for each in done)
    return {
        "runs": len(runs),
        "transactions": transactions,
        "committed": sum(each.committed for each in done),
        "aborted": sum(each.aborted for each in done),
        "refused": sum(each.refused for each in done),
        "unknown": sum(each.unknown for each in done),
        "attempts": sum(each.attempts for each in done),
        "crashes": sum(each.crashes for each in done),
        "events": sum(each.events for each in done),
        "virtual_s": round(sum(each.virtual_s for each in done), 1),
        "wall_s": round(wall_s, 2),
        "cpu_s": round(cpu_s, 2),
        "transactions_per_cpu_s": round(transactions / cpu_s, 1) if cpu_s else 0.0,
        "failures": [{"seed": each.seed, **each.failure._asdict()} for each in runs if each.failure],
    }


def _summary(report: dict[str, object], jobs: int) -> str:
    broken = "something was broken" if report["failures"] else "nothing was broken"
    return (
        f"{report['runs']:,} runs from seed {report['first_seed']}, {report['transactions']:,} transactions: {broken}\n"
        f"  answers: {report['committed']:,} committed, {report['aborted']:,} aborted, {report['refused']:,} refused, "
        f"{report['unknown']:,} unknown\n"
        f"  {report['attempts']:,} attempts, {report['crashes']:,} crashes, {report['events']:,} events in "
        f"{report['virtual_s']:,} s of virtual time\n"
        f"  {report['wall_s']:,} s with {jobs} processes; "
        f"{report['transactions_per_cpu_s']:,} transactions a second of one core"
    )
