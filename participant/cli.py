"""`troth participant`: one participant as a process of its own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from participant import driver
from participant.resources.outside import OutsideResource, ResourceRefused
from participant.settings import ParticipantSettings
from troth import process
from troth.process import config, logging
from troth.process.config import ConfigError, option

SERVERS = {"postgresql": "PostgreSQLResource", "mariadb": "MariaDBResource"}
"""Kinds of servers that may hold a participant's data: a package of `participant.resources` and its class there."""
EXITS = {**process.EXITS, ResourceRefused: process.EXIT_UNAVAILABLE}


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
@option(
    "--resource",
    type=click.Choice(["sqlite", *SERVERS]),
    default="sqlite",
    help="What holds its tables: the data file itself, or a server, when that file is the vote log alone.",
)
@option(
    "--dsn", help="The server's database, as its driver writes it; better in TROTH_PARTICIPANT_DSN, which ps hides."
)
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
    resource: str,
    dsn: str | None,
    log_level: logging.Level,
    log_format: logging.Format,
    **settings: Any,
) -> None:
    """Run one participant.

    It serves the tables of one SQLite file: takes row locks, keeps its votes in the same file, and applies or undoes.
    Any tool may read the file, none may write to it. With --resource postgresql or mariadb the tables are those of a
    database there, which other programs go on using; the file then holds the votes alone. Stop it with SIGTERM or
    Ctrl-C. A duration is written as in 200ms, 5s or 7d; in the file, as seconds.

    \b
    Examples:
      troth participant --name p1 --data /var/lib/troth --listen 127.0.0.1:7401 --schema bank.sql
      troth participant --name stock --data shop.db --adopt
      troth participant --name p2 --data /var/lib/troth --resource postgresql --dsn "host=db dbname=shop user=troth"
      troth participant --config p1.toml --lock-timeout 2s

    \b
    p1.toml:
      name = "p1"
      data = "/var/lib/troth"
      listen = "127.0.0.1:7401"
      lock_timeout_s = 2

    \b
    Exit codes: 0 stopped, 2 bad usage or configuration, 69 the server cannot be used as it is, 70 the log failed, 73
    the data file is refused (its identity, format, age or schema), 75 it is held by another process.
    """
    place = process.place(data=data, name=name, listen=listen, advertise=advertise, insecure=insecure)
    filled = config.fill(ParticipantSettings, settings)
    outside = None if resource == "sqlite" else _server(resource, dsn, name, filled)
    if outside is None and dsn is not None:
        raise ConfigError("--dsn names a server's database, and --resource says which kind of server: give both")
    if outside is not None and (schema is not None or adopt):
        raise ConfigError(f"--schema and --adopt are of a SQLite file; tables of {resource} are made at the server")
    process.start_log(name, log_level, log_format)
    process.arm(name, driver.FAILPOINTS)
    sys.exit(
        process.serve(
            lambda ready: driver.serve(
                **place._asdict(),
                schema=schema,
                adopt=adopt,
                history=history,
                settings=filled,
                resource=outside,
                ready=ready,
            ),
            EXITS,
        )
    )


def _server(kind: str, dsn: str | None, name: str, settings: ParticipantSettings) -> OutsideResource:
    """Raises ConfigError when it is not installed, or the DSN is missing or cannot be read."""
    if dsn is None:
        raise ConfigError(f"--resource {kind} needs --dsn: which database of which server")
    try:
        made = getattr(importlib.import_module(f"participant.resources.{kind}"), SERVERS[kind])
    except ModuleNotFoundError as error:
        raise ConfigError(f"--resource {kind} needs {error.name}: pip install 'troth[{kind}]'") from error
    try:
        resource: OutsideResource = made(dsn, name, lock_timeout_s=settings.lock_timeout_s, pool=settings.connections)
    except ValueError as error:
        raise ConfigError(f"--dsn: {error}") from error
    return resource
