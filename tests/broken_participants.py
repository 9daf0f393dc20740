"""Our real participant with one rule broken, as a process that can be killed and started within milliseconds.

Children are forked from a server that has everything imported (multiprocessing's forkserver), so that a test can kill
them twenty times. They serve the real driver on a real file; what is broken is patched in the child before it serves.
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
from participant import driver
from participant.settings import ParticipantSettings
from tests.broken import WAYS
from troth.log import LogRefused
from troth.process import addresses, logging

SETTINGS = ParticipantSettings(
    lock_timeout_s=0.5, inquiry_after_s=0.05, inquiry_max_s=0.05, ask_peers_after_s=0.25, forget_interval_s=0.2
)
NAME = "p1"


def _forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tests.broken"])
    return context


class Forked(Control):
    """One participant through all its lives, broken as WAYS says under that name."""

    def __init__(self, folder: Path, schema: str, broken: str | None = None) -> None:
        self.address = f"127.0.0.1:{addresses.free_ports(1)[0]}"
        self._folder = folder
        self._broken = broken
        self._schema = folder / "schema.sql"
        self._schema.write_text(schema)
        self._process: BaseProcess | None = None

    def start(self) -> None:
        arguments = (self._folder, self.address, self._schema, self._broken)
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
        """What is in a table of its file."""
        with closing(sqlite3.connect(f"file:{self._folder / NAME}.db?mode=ro", uri=True)) as connection:
            return connection.execute(f"SELECT * FROM {table}").fetchall()

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")


def _serve(folder: Path, address: str, schema: Path, broken: str | None) -> None:
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
        schema=schema,
        adopt=False,
        history=False,
        settings=SETTINGS,
    )
    with contextlib.suppress(LogRefused):
        asyncio.run(serving)
