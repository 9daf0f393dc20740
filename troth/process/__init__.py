"""How a coordinator or a participant lives as a process: its options, its signals, its exit code.

Exit codes: 0 stopped as asked, 1 an error in Troth itself, 2 bad usage or configuration, 69 the server that holds a
participant's data cannot be used, 70 the log failed (its state is not known; opening it again tells), 73 the data file
is refused, 75 it is held by another process, 76 commits are owed to a participant that is not configured. Of these only
1, 69 and 70 may pass by starting again.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import structlog
import uvloop

from troth import failpoints
from troth.driving.server import CannotListen
from troth.log import LogFailed, LogHeld, LogRefused
from troth.process import addresses, config, logging
from troth.process.addresses import AddressType
from troth.process.config import ConfigError, option

log = structlog.get_logger(__name__)
F = TypeVar("F", bound=Callable[..., Any])
Ready = Callable[[str], None]
"""Called once with the bound address when a process serves."""

EXIT_BROKEN, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_LOG_FAILED = 1, 2, 69, 70
EXIT_REFUSED, EXIT_HELD, EXIT_OWED = 73, 75, 76
LASTING = frozenset({EXIT_USAGE, EXIT_REFUSED, EXIT_HELD, EXIT_OWED})
"""Exit codes that say: starting again will not help until a person does something."""

EXITS: Mapping[type[Exception], int] = {
    LogHeld: EXIT_HELD,
    LogRefused: EXIT_REFUSED,
    LogFailed: EXIT_LOG_FAILED,
    CannotListen: EXIT_USAGE,
}
"""What both kinds of process may die of; each is told in one line, without a traceback."""

SERVING = "serving on "
"""How the line begins that a process prints to standard output once it serves; the bound address follows."""


GC_THRESHOLDS = (50_000, 20, 50)
"""Of Python's cyclic collector. What a transaction makes is freed by its reference counts, so the usual thresholds
(700, 10, 10) look through thousands of live objects for hardly any garbage: a sixth of the coordinator's time."""

FAILPOINTS = "TROTH_FAILPOINTS"
"""The name in the environment by which a process is told to fail; for tests."""


class Place(NamedTuple):
    """Where a process keeps its data and where it is found."""

    data: Path
    """Its SQLite file."""
    name: str
    listen: str
    advertise: str | None
    """Where others reach it; None: where it listens."""


def place_options(port: int) -> Callable[[F], F]:
    """A decorator for `--config` and the options of `place`; `port` is the default one."""
    listen = f"127.0.0.1:{port}"
    listen_help = "Where to listen; port 0 takes a free one. Beyond loopback --insecure is needed."
    decorators = [
        option(
            "--data",
            type=click.Path(path_type=Path),
            required=True,
            help="The SQLite file, made when missing; or an existing folder, and the file is NAME.db in it.",
        ),
        option("--listen", type=AddressType(), default=listen, help=listen_help),
        option("--advertise", type=AddressType(), help="Where others reach this process (containers, proxies)."),
        option("--insecure", is_flag=True, help="Listen beyond loopback although nothing is encrypted yet."),
    ]

    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return config.file_option(command)

    return decorate


def place(*, data: Path, name: str, listen: str, advertise: str | None, insecure: bool) -> Place:
    """Checks the options of `place_options` against each other. Raises ConfigError with what to do."""
    if "/" in name or "=" in name or not name.isprintable() or not name.strip():
        raise ConfigError(f"{name!r} cannot be a name: it is empty, or has a slash, = or an unprintable character")
    address = addresses.parse(listen)
    if not (address.loopback or insecure):
        raise ConfigError(
            f"--listen {listen} is beyond loopback and nothing is encrypted yet, so anyone who can reach it could read "
            f"and change your data; say --insecure if the network is yours alone"
        )
    if address.everywhere and advertise is None:
        raise ConfigError(f"--listen {listen} is no address to dial: say with --advertise where others reach this")
    try:
        addresses.try_listen(address)
    except OSError as error:
        raise ConfigError(f"--listen {listen}: {error.strerror}") from error
    return Place(_file(data, name), name, listen, advertise)


def _file(data: Path, name: str) -> Path:
    """The folder must be there: a missing one is more often a disk that is not mounted than a wish for a new log."""
    file = data / f"{name}.db" if data.is_dir() else data
    if not file.parent.is_dir():
        raise ConfigError(f"--data {data}: there is no folder {file.parent}; make it first")
    return file.absolute()


def start_log(name: str, level: logging.Level, format: logging.Format) -> None:
    """Sets the log up, and begins it with what looks wrong in the environment. Called within a click command."""
    logging.setup(name, level, format)
    for found, meant in config.misspelt(click.get_current_context(), os.environ):
        log.warning("unknown name in the environment", name=found, did_you_mean=meant)


def arm(name: str, catalogue: Sequence[failpoints.Point]) -> None:
    """Sets the failpoints that the environment asks for (`troth.failpoints`). Raises ConfigError."""
    try:
        failpoints.arm(name, catalogue, os.environ.get(FAILPOINTS, ""))
    except ValueError as error:
        raise ConfigError(f"{FAILPOINTS}: {error}") from error


def serve(serving: Callable[[Ready], Coroutine[Any, Any, None]], exits: Mapping[type[Exception], int] = EXITS) -> int:
    """Runs a driver until it ends, and gives the exit code.

    `serving(ready)` runs until cancelled, which SIGTERM and SIGINT do; it then drains within its own bound. A second
    signal ends the process at once: everything promised is on disk anyway. An exception named in `exits` is one line on
    standard error; any other is logged with its traceback."""
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        uvloop.run(_until_signalled(serving(_announce)))
    except tuple(exits) as error:
        # No log line for this: standard error is the log, and once is enough.
        print(f"troth: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return next(code for kind, code in exits.items() if isinstance(error, kind))
    except Exception:
        log.exception("stopped by an error that is not foreseen")
        return EXIT_BROKEN
    log.info("stopped")
    return 0


async def _until_signalled(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    stopping = False

    def stop(number: signal.Signals) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = True
        log.info("stopping", signal=number.name)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not stopping:
            raise


def _announce(address: str) -> None:
    gc.freeze()  # what was made or found until now stays for long: not to be looked through again and again
    print(f"{SERVING}{address}", flush=True)
    log.info("serving", address=address)
