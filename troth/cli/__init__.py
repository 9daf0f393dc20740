"""The root of the `troth` command: its subcommands by path, each loaded when it is called.

So the help of one command costs nothing of the others, and `troth` imports neither the coordinator's nor the
participant's room until it is told to run one.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click


class _Command(NamedTuple):
    path: str
    """module:attribute"""
    help: str


_COMMANDS = {
    "up": _Command("troth.cli.up:command", "Run a coordinator and N participants on this machine."),
    "coordinator": _Command("coordinator.cli:command", "Run one coordinator."),
    "participant": _Command("participant.cli:command", "Run one participant."),
    "submit": _Command("troth.cli.submit:command", "Run one transaction, or a file of them."),
    "get": _Command("troth.cli.outcomes:get", "Say what is known of a transaction."),
    "wait": _Command("troth.cli.outcomes:wait", "Wait until a transaction has an outcome."),
    "abort": _Command("troth.cli.outcomes:abort", "Fence an undecided transaction, or learn its outcome."),
    "list": _Command("troth.cli.queries:list_", "List transactions in flight and lately finished."),
    "show": _Command("troth.cli.queries:show", "Show a transaction's steps with their times."),
    "watch": _Command("troth.cli.queries:watch", "Print outcomes as they become known."),
    "status": _Command("troth.cli.queries:status", "Show how every process is."),
    "read": _Command("troth.cli.read:command", "Read one row."),
    "in-doubt": _Command("troth.cli.doubt:in_doubt", "List the branches whose outcome a participant does not know."),
    "resolve": _Command("troth.cli.doubt:resolve", "Resolve a branch in doubt by hand."),
    "unresolved": _Command("troth.cli.doubt:unresolved", "List what the coordinator cannot finish now, and why."),
    "clear": _Command("troth.cli.doubt:clear", "Clear the kept records of a resolution by hand."),
    "restore": _Command("troth.cli.restore:command", "Give files that were copied back a new identity."),
    "simulate": _Command("faults.simulator.cli:command", "Run the shipped nodes through seeds of simulated faults."),
    "chaos": _Command("faults.chaos.cli:command", "Break a cluster on purpose under load, and check every row."),
    "bench": _Command("bench.cli:command", "Measure Troth on this machine, beside its rivals and alone."),
    "verify": _Command("faults.auditor.cli:command", "Audit logs and data files at rest."),
    "failpoints": _Command("faults.matrix.cli:failpoints", "List the points at which a process can be told to fail."),
    "check-participant": _Command(
        "faults.conformance.cli:command", "Check a participant, ours or yours, against the whole contract."
    ),
}


class _LazyGroup(click.Group):
    """A group that knows its commands by path only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].path.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, so that help loads nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in _COMMANDS.items()])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="troth", message="%(prog)s %(version)s")
def main() -> None:
    """All-or-nothing transactions across services and databases.

    The coordinator is found by --coordinator or TROTH_COORDINATOR; by default it is 127.0.0.1:7400.

    \b
    Examples:
      troth up --participants 3 --data ./troth-data
      troth submit -o 'p1: add accounts/alice balance -100 min=0' -o 'p2: add accounts/bob balance 100'
      troth status
      troth in-doubt
    """
