"""`troth bench servers`: what Troth adds to database servers, and what it takes from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from bench.compare import in_flight_option, measure, turn_options
from bench.run import Plan

_CONTENDERS = ("troth-postgresql", "postgresql", "troth-mariadb", "mariadb", "troth")


@click.command("servers")
@in_flight_option((1, 16, 64, 256))
@turn_options
def command(
    in_flight: Sequence[int],
    rounds: int,
    seconds: float,
    warm_up_s: float,
    seed: int,
    as_json: bool,
    plot_file: Path | None,
    report_file: Path | None,
) -> None:
    """Measure Troth in front of database servers beside two-phase commit written by hand at the same servers.

    Transfers between two servers of one kind, with the same settings, everything forced to disk and every row verified.
    troth-postgresql and troth-mariadb are a coordinator with a participant in front of each; postgresql (psycopg) and
    mariadb (asyncmy) are written by hand, prepared at both servers and then committed, without a log of decisions.
    troth keeps the rows in its participants' own SQLite files. All take turns in one run. What is missing here (a
    server, or its driver) is skipped and named.

    \b
    Examples:
      troth bench servers
      troth bench servers --in-flight 1 --in-flight 16 --seconds 10 --rounds 5
      troth bench servers --json --report servers.md

    \b
    Exit codes: 0 measured and verified; 1 the rows are not what was answered, or a process died; 2 bad usage;
    130 stopped.
    """
    plan = Plan(
        workloads=["transfer"],
        in_flight=list(dict.fromkeys(in_flight)),
        contenders=_CONTENDERS,
        rounds=rounds,
        seconds=seconds,
        warm_up_s=warm_up_s,
        seed=seed,
        named=True,
    )
    measure(plan, as_json, plot_file, report_file)
