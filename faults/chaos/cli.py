"""`troth chaos`: faults on purpose under load, and the word whether anything was lost."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from faults.chaos import own, page, running
from faults.chaos.databases import Servers
from faults.chaos.files import audited
from faults.chaos.report import Report
from faults.chaos.run import Plan, Run
from faults.chaos.schedule import Kind
from faults.chaos.screen import following
from faults.chaos.target import Target
from faults.servers import KINDS as SERVERS
from troth.cli import common
from troth.cli.up import Wanted, choose_participants
from troth.errors import BadInput
from troth.process.addresses import AddressType
from troth.process.durations import Duration

Opening = Callable[[Servers | None], AbstractAsyncContextManager[Target]]
"""Enters the cluster; private database servers run by then."""
KINDS = {kind.name.lower().replace("_", "-"): kind for kind in Kind}
_EVERY_S, _SETTLE_S = "3s", "1m"
_INTERRUPTED = 130
DURATION_MAX_S, EVERY_MIN_S = 7 * 86_400.0, 0.05
"""All faults are drawn before the load begins, so there is an end to how many there can be."""


class _PidType(click.ParamType):  # type: ignore[type-arg]  # generic only in later click
    """`p1=1234`, as a pair."""

    name = "name=pid"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        name, _, pid = str(value).rpartition("=")
        if not (name and pid.isascii() and pid.isdigit()):
            self.fail(f"{value!r} is no process: expected NAME=PID, as in p1=1234", param, ctx)
        return name, int(pid)


class _KindsType(click.ParamType):  # type: ignore[type-arg]
    """`postgresql,mariadb`, as a list."""

    name = "kind,..."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        kinds = [value] if isinstance(value, list) else str(value).split(",")
        if unknown := [kind for kind in kinds if kind not in SERVERS]:
            self.fail(f"there is no server {unknown[0]!r}, only {', '.join(SERVERS)}", param, ctx)
        return [str(kind) for kind in dict.fromkeys(kinds)]


@click.command("chaos")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long the load runs; by default 1.")
@click.option("--for", "duration", type=Duration(), help="The same as a duration, as in 90s.")
@click.option("--seed", type=int, help="Of the faults and of the workload; by default a new one, which is told.")
@click.option(
    "--in-flight", type=click.IntRange(1, 1000), default=64, show_default=True, help="Transactions open at once."
)
@click.option("--every", type=Duration(), default=_EVERY_S, show_default=True, help="Between two faults, on average.")
@click.option(
    "--fault",
    "faults",
    type=click.Choice(sorted(KINDS)),
    multiple=True,
    help="Only this kind of fault; may be repeated. By default all.",
)
@click.option(
    "--settle", type=Duration(), default=_SETTLE_S, show_default=True, help="Until what is in doubt is given up on."
)
@click.option("--participants", type=click.IntRange(min=1), show_default="3", help="Of a cluster of its own: how many.")
@click.option(
    "--participant",
    "named",
    multiple=True,
    metavar="NAME=KIND[:DSN]",
    help="One of them by name, as for `troth up`; its database must be empty.",
)
@click.option(
    "--servers",
    type=_KindsType(),
    help="Start private database servers for participants in turn, and kill these too: postgresql,mariadb.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of a cluster of its own, empty or missing; by default a new one below troth-chaos.",
)
@click.option(
    "--coordinator",
    "coordinators",
    type=AddressType(),
    multiple=True,
    help="Run against this one instead; once for each coordinator.",
)
@common.cluster_option
@click.option(
    "--pid",
    "pids",
    type=_PidType(),
    multiple=True,
    help="A process of a running cluster that may be killed and stopped.",
)
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for report.txt, .json and .html, which are written over.",
)
@common.json_option
def command(
    *,
    minutes: float | None,
    duration: float | None,
    seed: int | None,
    in_flight: int,
    every: float,
    faults: Sequence[str],
    settle: float,
    participants: int | None,
    named: tuple[str, ...],
    servers: list[str] | None,
    data: Path | None,
    coordinators: Sequence[str],
    folder: Path | None,
    pids: Sequence[tuple[str, int]],
    report: Path | None,
    as_json: bool,
) -> None:
    """Break a cluster on purpose under load, and say whether anything was lost.

    A bank and a list workload run while processes are killed and stopped, their connections cut, silenced and slowed,
    and their disks made full, failing and slow. Then all is healed, and when nothing is in doubt any more every row is
    compared with what was answered. By default that is a cluster of its own in --data, with the supervisor of `troth
    up`; Ctrl-C ends the load early, a second one everything.

    With --cluster or --coordinator it is one that runs already. It gets three tables chaos_... and keeps what was
    written. Its processes are killed and stopped only when --cluster or --pid says which they are, and whoever runs
    them must start them again. Never do that to a cluster that people rely on.

    With --servers the second, third, ... participant keeps its data in a private PostgreSQL or MariaDB, which is killed
    and started again and has its connections broken, like all others. With --participant it is in a database of yours,
    which must be empty and is left as it ends.

    The same seed makes the same faults and the same transactions; what real processes make of it differs each time.

    \b
    Examples:
      troth chaos --minutes 10
      troth chaos --for 30s --seed 7 --fault kill --fault stop
      troth chaos --servers postgresql,mariadb --minutes 5
      troth chaos --participant p1=sqlite --participant "p2=postgresql:host=db dbname=empty user=troth"
      troth chaos --cluster ./troth-data --minutes 5
      troth chaos --coordinator 127.0.0.1:7400 --pid p1=4711 --pid coordinator=4710

    \b
    Exit codes: 0 nothing lost, nothing in doubt; 1 something is lost, torn or contradictory; 2 bad usage; 5 only that
    something is still in doubt or could not be checked; 130 stopped.
    """
    if minutes is not None and duration is not None:
        raise click.UsageError("give --minutes or --for, not both")
    duration_s = duration or 60 * (minutes or 1)
    if not 0 < duration_s <= DURATION_MAX_S:
        raise click.UsageError(f"the load runs for {DURATION_MAX_S / 86_400:g} days at most")
    if every < EVERY_MIN_S:
        raise click.UsageError(f"--every is at least {EVERY_MIN_S:g} s")
    if folder is not None and (coordinators or pids):
        raise click.UsageError("--cluster says where all is: give no --coordinator and no --pid with it")
    if pids and not coordinators:
        raise click.UsageError("--pid is of a running cluster: give its --coordinator")
    if servers and named:
        raise click.UsageError("--servers has databases made for the participants, --participant names them: give one")
    if (servers or named) and (folder is not None or coordinators):
        raise click.UsageError("--servers and --participant are of a cluster of its own")
    plan = Plan(
        seed=secrets.randbelow(1_000_000) if seed is None else seed,
        duration_s=duration_s,
        in_flight=in_flight,
        every_s=every,
        kinds=frozenset(KINDS[name] for name in faults or KINDS) - (set() if servers or faults else {Kind.SERVER}),
        settle_s=settle,
    )
    opening: Opening
    if folder is None and not coordinators:
        wanted = _in_turn(participants or 3, servers) if servers else choose_participants(Path(), participants, named)
        data = own.made((data or Path("troth-chaos", time.strftime("%Y%m%d-%H%M%S"))).absolute())
        report = report or data / "report"
        opening = partial(own.running, data, wanted)
    else:
        opening = lambda _: running.reached(coordinators, folder, dict(pids))  # noqa: E731
    console = Console(stderr=as_json, highlight=False)
    common.run(
        _main(plan, opening, servers or [], console, report or Path("chaos-report"), as_json), interrupted=_INTERRUPTED
    )


def _in_turn(count: int, servers: Sequence[str]) -> list[Wanted]:
    """Participants whose data are in their file, at the first server, at the next, in their file again, ..."""
    kinds = ["", *servers]
    return [Wanted(f"p{n + 1}", kinds[n % len(kinds)]) for n in range(count)]


async def _main(
    plan: Plan, opening: Opening, servers: Sequence[str], console: Console, folder: Path, as_json: bool
) -> int:
    """The exit code. SIGINT and SIGTERM end the load early; a second one ends all."""
    story = asyncio.create_task(_story(plan, opening, servers, console, folder))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, story.cancel)
    try:
        report = await story
    except asyncio.CancelledError:
        console.print("stopped; nothing was checked")
        return _INTERRUPTED
    _write(report, folder)
    if as_json:
        common.say_json(report.as_json())
    else:
        common.say("\n".join(["", *report.lines(), "", f"report: {folder / 'report.html'}"]))
    return report.exit_code


async def _story(plan: Plan, opening: Opening, servers: Sequence[str], console: Console, folder: Path) -> Report:
    """Load with faults, checks, and when the processes are ours and stopped, their files and databases."""
    console.print(f"troth chaos: seed {plan.seed}, {plan.duration_s:g} s of load")
    async with Servers.started(servers) if servers else nullcontext() as started:
        async with opening(started) as target:
            _make(folder)  # before the load, not after it
            run = Run(plan, list(target.participants))
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, _stopper(run, asyncio.current_task()))
            async with following(run, console):
                await run.storm(target)
                await run.check(target)
        files, doubts = audited(list(target.files.values()), target.databases) if target.files else (None, [])
    left_out = {kind: why for kind, why in target.not_applied.items() if kind in plan.kinds}
    return Report.of(run, left_out, files, doubts)


def _stopper(run: Run, story: asyncio.Task[Any] | None) -> Callable[[], None]:
    """For a signal: the first ends the load early, the second the story."""
    assert story is not None
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            run.end_early()
        else:
            story.cancel()

    return stop


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"the folder of the report cannot be made: {error}") from error


def _write(report: Report, folder: Path) -> None:
    (folder / "report.txt").write_text("\n".join(report.lines()) + "\n", "utf-8")
    (folder / "report.json").write_text(json.dumps(report.as_json(), indent=1) + "\n", "utf-8")
    (folder / "report.html").write_text(page.html(report), "utf-8")
