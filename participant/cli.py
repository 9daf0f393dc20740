"""`troth participant`: one participant as a process of its own, on a SQLite file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from participant import driver
from participant.settings import ParticipantSettings
from troth import process
from troth.process import config, logging
from troth.process.config import option


@click.command("participant", context_settings={"auto_envvar_prefix": "TROTH_PARTICIPANT"})
@process.place_options(port=7401)
@option("--name", required=True, help="Its name, as the coordinator names it; kept in the data file.")
@option(
    "--schema",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="SQL that makes the tables of a new data file; later the file's tables are compared with it.",
)
@option("--adopt", is_flag=True, help="Take an existing SQLite file of yours; says which tables can be served.")
@option("--history", is_flag=True, help="Keep what each committed branch did, in order, for the auditor.")
@config.settings_options(ParticipantSettings)
@logging.options
def command(
    *,
    data: Path,
    name: str,
    listen: str,
    advertise: str | None,
    insecure: bool,
    schema: Path | None,
    adopt: bool,
    history: bool,
    log_level: logging.Level,
    log_format: logging.Format,
    **settings: Any,
) -> None:
    """Run one participant.

    It serves the tables of one SQLite file: takes row locks, keeps its votes in the same file, and applies or undoes.
    Any tool may read the file, none may write to it. Stop it with SIGTERM or Ctrl-C. A duration is written as in 200ms,
    5s or 7d; in the file, as seconds.

    \b
    Examples:
      troth participant --name p1 --data /var/lib/troth --listen 127.0.0.1:7401 --schema bank.sql
      troth participant --name stock --data shop.db --adopt
      troth participant --config p1.toml --lock-timeout 2s

    \b
    p1.toml:
      name = "p1"
      data = "/var/lib/troth"
      listen = "127.0.0.1:7401"
      lock_timeout_s = 2

    \b
    Exit codes: 0 stopped, 2 bad usage or configuration, 70 the log failed, 73 the data file is refused (its identity,
    format, age or schema), 75 it is held by another process.
    """
    place = process.place(data=data, name=name, listen=listen, advertise=advertise, insecure=insecure)
    filled = config.fill(ParticipantSettings, settings)
    process.start_log(name, log_level, log_format)
    process.arm(name, driver.FAILPOINTS)
    sys.exit(
        process.serve(
            lambda ready: driver.serve(
                **place._asdict(), schema=schema, adopt=adopt, history=history, settings=filled, ready=ready
            )
        )
    )
