"""`scripts/services`: private database servers until Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack

import click

from faults.servers import KINDS, Server, ServerError, ServerMissing
from troth.cli.common import json_option, say, say_json

_POLL_S = 0.1


class Stop:
    """Whether SIGINT, SIGTERM or SIGHUP came. None interrupts: what is started is seen through, and then stopped."""

    def __init__(self) -> None:
        self.told = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._tell)

    def _tell(self, *_: object) -> None:
        self.told = True


@click.command("scripts/services")
@click.argument("names", nargs=-1, metavar="[" + "|".join(KINDS) + "]...", type=click.Choice(list(KINDS)))
@json_option
def main(*, names: tuple[str, ...], as_json: bool) -> None:
    """Run private database servers on loopback, ready for prepared transactions, until Ctrl-C or SIGTERM.

    NAMES say which; by default all that are installed. Each gets a free port and a new temporary folder, which is
    removed in the end. Everybody on this machine may do everything in them: for trying and testing only.

    \b
    Examples:
      scripts/services
      scripts/services postgresql --json

    Exit codes: 0 stopped, 1 one is missing, did not start or died, 2 bad usage.
    """
    stop = Stop()
    try:
        with ExitStack() as stack:
            servers = [stack.enter_context(kind()) for kind in _chosen(names)]
            for server in servers:
                _show(server, as_json)
            if not as_json:
                say("Ctrl-C stops them and removes their data")
            _watch(servers, stop)
    except (ServerMissing, ServerError) as error:
        raise click.ClickException(str(error)) from error


def _chosen(names: Sequence[str]) -> list[type[Server]]:
    """Raises ServerMissing for one that was named and is not there, and when there is none at all."""
    if names:
        chosen = [KINDS[name] for name in dict.fromkeys(names)]
        for kind in chosen:
            kind.find()
        return chosen
    missing = {}
    for kind in KINDS.values():
        try:
            kind.find()
        except ServerMissing as error:
            missing[kind] = str(error)
    if len(missing) == len(KINDS):
        raise ServerMissing("\n".join(missing.values()))
    for sentence in missing.values():
        click.echo(f"left out: {sentence}", err=True)
    return [kind for kind in KINDS.values() if kind not in missing]


def _show(server: Server, as_json: bool) -> None:
    if as_json:
        say_json({"server": server.name, "dsn": server.dsn, "pid": server.pid, "folder": str(server.folder)})
    else:
        say(f"{server.name}: {server.dsn}")


def _watch(servers: Sequence[Server], stop: Stop) -> None:
    """Returns when told to stop. Raises ServerError when one has died."""
    while not stop.told:
        for server in servers:
            if not server.running:
                raise ServerError(f"{server.title} ended; its log:\n{server.text()}")
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main(prog_name="scripts/services")
