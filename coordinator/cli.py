"""`troth coordinator`: one coordinator as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from coordinator import driver
from coordinator.settings import CoordinatorSettings
from troth import process
from troth.process import config, logging
from troth.process.addresses import NamedAddressType
from troth.process.config import ConfigError, option

EXITS = {**process.EXITS, driver.OwedToUnknown: process.EXIT_OWED}


@click.command("coordinator", context_settings={"auto_envvar_prefix": "TROTH_COORDINATOR"})
@process.place_options(port=7400)
@option("--name", default="coordinator", help="Its name, kept in the data file.")
@option(
    "--participant",
    "participants",
    type=NamedAddressType(),
    multiple=True,
    help="A participant's name and where it is reached; once for each. In a file: a table [participants].",
)
@config.settings_options(CoordinatorSettings)
@logging.options
def command(
    *,
    data: Path,
    name: str,
    listen: str,
    advertise: str | None,
    insecure: bool,
    participants: tuple[tuple[str, str], ...],
    log_level: logging.Level,
    log_format: logging.Format,
    **settings: Any,
) -> None:
    """Run one coordinator.

    It runs prepare and commit/abort rounds over its participants and keeps every decision in one SQLite file. Stop it
    with SIGTERM or Ctrl-C. A duration is written as in 200ms, 5s or 7d; in the file, as seconds.

    \b
    Examples:
      troth coordinator --data /var/lib/troth --participant p1=127.0.0.1:7401 --participant p2=127.0.0.1:7402
      troth coordinator --config coordinator.toml --vote-timeout 5s
      TROTH_COORDINATOR_VOTE_TIMEOUT=5s troth coordinator --config coordinator.toml

    \b
    coordinator.toml:
      data = "/var/lib/troth"
      vote_timeout_s = 5
      [participants]
      p1 = "127.0.0.1:7401"
      p2 = "127.0.0.1:7402"

    \b
    Exit codes: 0 stopped, 2 bad usage or configuration, 70 the log failed, 73 the data file is refused, 75 it is held
    by another process, 76 commits are owed to a participant that is not named.
    """
    place = process.place(data=data, name=name, listen=listen, advertise=advertise, insecure=insecure)
    named = _distinct(participants)
    filled = config.fill(CoordinatorSettings, settings)
    process.start_log(name, log_level, log_format)
    process.arm(name, driver.FAILPOINTS)
    sys.exit(
        process.serve(
            lambda ready: driver.serve(**place._asdict(), participants=named, settings=filled, ready=ready),
            EXITS,
        )
    )


def _distinct(participants: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """By name. Two participants of one name or at one address are one file counted twice, so refused."""
    named: dict[str, str] = {}
    for name, address in participants:
        if name in named:
            raise ConfigError(f"participant {name!r} is named twice: at {named[name]} and at {address}")
        if address in named.values():
            raise ConfigError(f"participant {name!r} is at {address}, where another one is named already")
        named[name] = address
    return named
