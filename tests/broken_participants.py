"""Our real participant with one rule broken, as a process that can be killed and started within milliseconds.

Children are forked from a server that has everything imported (multiprocessing's forkserver), so that a test can kill
them twenty times. They serve the real driver on a real file, or a real database; what is broken is patched in the child
before it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import sqlite3
import sys
from contextlib import closing
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from faults.conformance.control import Control
from faults.servers import Database
from participant import driver
from participant.cli import SERVERS, _server
from participant.settings import ParticipantSettings
from tests.broken import WAYS
from troth.log import LogRefused
from troth.process import addresses, logging

SETTINGS = ParticipantSettings(
    lock_timeout_s=0.5, inquiry_after_s=0.05, inquiry_max_s=0.05, ask_peers_after_s=0.25, forget_interval_s=0.2
)
NAME, SCHEMA = "p1", "schema.sql"


def _forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    servers = [f"participant.resources.{kind}" for kind in SERVERS]  # those whose drivers are installed
    context.set_forkserver_preload([__name__, "tests.broken", *servers])
    return context


class Forked(Control):
    """One participant through all its lives, broken as WAYS says under that name. Its data are in its file, or in
    `database`, where the tables are made."""

    def __init__(
        self, folder: Path, schema: str, broken: str | None = None, *, database: Database | None = None
    ) -> None:
        self.address = f"127.0.0.1:{addresses.free_ports(1)[0]}"
        self._folder = folder
        self._broken = broken
        self._database = database
        if database is None:
            (folder / SCHEMA).write_text(schema)
        else:
            for statement in schema.split(";")[:-1]:
                database.execute(statement)
        self._process: BaseProcess | None = None

    def start(self) -> None:
        server = (self._database.server.name, self._database.dsn) if self._database else None
        arguments = (self._folder, self.address, server, self._broken)
        self._process = _forkserver().Process(target=_serve, args=arguments, daemon=True)
        self._process.start()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.join()
        self._process.close()
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """What is in a table of its data."""
        if self._database is not None:
            return self._database.execute(f"SELECT * FROM {table}")
        return self.file_rows(table)

    def file_rows(self, table: str) -> list[tuple[Any, ...]]:
        """What is in a table of its file."""
        with closing(sqlite3.connect(f"file:{self._folder / NAME}.db?mode=ro", uri=True)) as connection:
            return connection.execute(f"SELECT * FROM {table}").fetchall()

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")


def _serve(folder: Path, address: str, server: tuple[str, str] | None, broken: str | None) -> None:
    """`server` is the kind and the DSN of what holds its data, if that is not its file."""
    with (folder / "log").open("ab") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    logging.setup(NAME, "info", "console")
    if broken is not None:
        WAYS[broken].breaking()
    serving = driver.serve(
        data=folder / f"{NAME}.db",
        name=NAME,
        listen=address,
        advertise=None,
        schema=None if server else folder / SCHEMA,
        adopt=False,
        history=False,
        settings=SETTINGS,
        resource=_server(*server, NAME, SETTINGS) if server else None,
    )
    with contextlib.suppress(LogRefused):
        asyncio.run(serving)
