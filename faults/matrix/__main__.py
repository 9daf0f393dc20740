"""`scripts/matrix`: runs the crash-point matrix, or a part of it."""

from __future__ import annotations

import math
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from faults.matrix import report, resources
from faults.matrix.arena import Result
from faults.matrix.cells import Cell, cells
from faults.matrix.run import Runner
from troth.cli.common import say, say_json

_STOPPED = 130


@click.command("scripts/matrix")
@click.argument("words", nargs=-1)
@click.option("--clusters", type=click.IntRange(1, 16), default=3, show_default=True, help="Clusters side by side.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="As many as fit, in an order drawn by --seed.",
)
@click.option("--seed", type=int, help="For --minutes; without it a new one, which is in the report.")
@click.option(
    "--resources",
    "names",
    callback=lambda _context, _option, text: _resources(text),
    metavar="LIST",
    help="What holds the data: sqlite, postgresql, mariadb, with commas; all that are there.",
)
@click.option("--list", "only_list", is_flag=True, help="Print the cells and run none.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object for each cell.")
@click.option(
    "--report",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("matrix.md"),
    show_default=True,
    help="Where the table of results is written, as Markdown.",
)
def main(
    *,
    words: tuple[str, ...],
    clusters: int,
    minutes: float | None,
    seed: int | None,
    names: list[str],
    only_list: bool,
    as_json: bool,
    path: Path,
) -> None:
    """Run the crash-point matrix: each failpoint with each fault, on real processes, files and database servers.

    Cells are run twice: with all data in files, and with those of the first and of the last participant at servers,
    which are killed as well.

    WORDS choose cells: those whose name has every word in it. A cell's name is CASE/POINT=FAULT/VICTIM, with /servers
    behind it when it is run there; to run one that failed again, give its name.

    \b
    Examples:
      scripts/matrix
      scripts/matrix =kill recovery/
      scripts/matrix coordinator:committed /two
      scripts/matrix --minutes 5
      scripts/matrix --resources sqlite,postgresql carry

    Ctrl-C lets the cells under way end, and reports what was run.

    Exit codes: 0 every cell held, 1 one did not, 2 bad usage, 130 stopped.
    """
    kinds = resources.servers(names)
    stages = [at_servers for at_servers, there in ((False, "sqlite" in names), (True, bool(kinds))) if there]
    chosen = [cell for cell in cells(stages) if all(word in cell.key for word in words)]
    if not chosen:
        raise click.UsageError(f"no cell has {' and '.join(words)} in its name; --list prints them")
    seed = seed if seed is not None else random.SystemRandom().randrange(1_000_000)
    if minutes is not None:
        random.Random(seed).shuffle(chosen)
    if only_list:
        for cell in chosen:
            say(cell.key)
        return
    if not path.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder for the report {path}")
    root = Path(tempfile.mkdtemp(prefix="troth-matrix-"))
    runner = Runner(root, clusters, kinds)
    began = time.monotonic()
    results, stopped = _run(runner, chosen, math.inf if minutes is None else 60 * minutes, as_json)
    seconds = time.monotonic() - began
    limit = [] if minutes is None else [f"--minutes {minutes:g} --seed {seed}"]
    command = ["scripts/matrix", "--resources", ",".join(names), *words, *limit]
    summed = report.summary(" ".join(command), results, len(chosen), seconds)
    path.write_text(report.markdown(summed, results, runner.contradictions))
    bad = [result for result in results if not result.good]
    if not as_json:
        for result in bad:
            say(f"FAILED {result.cell.key}\n  " + "\n  ".join(result.problems))
        for sentence in runner.contradictions:
            say(f"FAILED at rest: {sentence}")
        say(f"{summed}; the table is in {path}")
    if any(root.iterdir()):
        click.echo(f"the files of the clusters that failed are in {root}", err=True)
        sys.exit(1)
    root.rmdir()
    if stopped:
        sys.exit(_STOPPED)
    if not results:
        click.echo("there was no time for any cell, so nothing was found out", err=True)
        sys.exit(1)


def _resources(text: str | None) -> list[str]:
    """Those that were asked for, or all that are there."""
    if text is None:
        return resources.there()
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if why := resources.why_not(name):
            raise click.BadParameter(f"{name}: {why}", param_hint="--resources")
    return names


def _run(runner: Runner, chosen: Sequence[Cell], within_s: float, as_json: bool) -> tuple[list[Result], bool]:
    """What fits, with a picture of how far it is on standard error; and whether Ctrl-C ended it before."""
    results: list[Result] = []
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(chosen))
        failed = 0
        try:
            for result in runner.run(chosen, within_s):
                results.append(result)
                failed += not result.good
                if as_json:
                    say_json(report.as_json(result))
                progress.update(task, advance=1, description=f"{failed} failed")
        except KeyboardInterrupt:
            return results, True
    return results, False


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the processes of the clusters would stay
    main(prog_name="scripts/matrix")
