"""`troth check-participant`: the conformance kit against a participant of any make."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, TypeVar

import click

from faults.conformance import runner
from faults.conformance.check import CHECKS, Check, Finding, Result
from faults.conformance.control import ByCommand, Control, Started
from faults.conformance.target import Target
from faults.conformance.work import SCHEMA, TABLE, GivenWork, Work
from troth.cli.common import complain, json_option, say, say_json, say_table
from troth.cli.jsonlines import parse_transaction
from troth.cli.text import parse_operation
from troth.errors import BadInput
from troth.process.addresses import AddressType
from troth.process.durations import Duration
from troth.v1.types_pb2 import Operation

F = TypeVar("F", bound=Callable[..., Any])

EXIT_VIOLATED, EXIT_CANNOT = 1, 2


class OperationType(click.ParamType):  # type: ignore[type-arg]  # generic only in later click
    """A click parameter that is an operation, as text without a participant or as JSON."""

    name = "operation"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Operation:
        text = str(value)
        try:
            if text.lstrip().startswith("{"):
                fields = {"participant": "p", **json.loads(text)}
                return parse_transaction(json.dumps({"operations": [fields]})).operations[0][1]
            return parse_operation(f"p: {text}")[1]
        except (BadInput, ValueError) as error:
            self.fail(str(error), param, ctx)


class Given(NamedTuple):
    """Operations of the user's own."""

    writes: Sequence[Operation]
    reads: Sequence[Operation]
    refused: Sequence[Operation]


def _operations(flag: str, help: str) -> Callable[[F], F]:
    return click.option(flag, type=OperationType(), multiple=True, metavar="OP", help=help)


@click.command("check-participant")
@click.argument("address", type=AddressType(), metavar="ADDR", required=False)
@click.option("--name", help="The participant's name, when it does not say it itself.")
@click.option("--start", metavar="CMD", help="A shell command that runs the participant; it is killed with kill -9.")
@click.option("--pid", type=click.IntRange(min=2), help="With --start: the process that runs already, to be killed.")
@click.option("--restart", metavar="CMD", help="Instead: a shell command that kills it and starts it again.")
@click.option("--table", metavar="T", help=f"A table with an integer column to fill; default {TABLE}, made if missing.")
@_operations("--writes", "Instead of a table: changes what --reads shows, each time. Several take turns.")
@_operations("--reads", "Brings that back.")
@_operations("--refused", "Is refused by the data as they are.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the participant reaches this machine.")
@click.option("--within", type=Duration(), default="10s", show_default=True, help="How long an answer may take.")
@click.option("--quiet", type=Duration(), default="300ms", show_default=True, help="How long silence is waited for.")
@click.option(
    "--only", multiple=True, metavar="NAME", help="Only checks of that rule (as in 'rule 6') or of that name."
)
@click.option("--list", "listing", is_flag=True, help="List the checks and run none.")
@click.option("--print-schema", is_flag=True, help="Print the SQL of tables with which constraints are checked, too.")
@click.option("--yes", is_flag=True, help="Write without asking.")
@json_option
def command(
    *,
    address: str | None,
    name: str | None,
    start: str | None,
    pid: int | None,
    restart: str | None,
    table: str | None,
    writes: Sequence[Operation],
    reads: Sequence[Operation],
    refused: Sequence[Operation],
    host: str,
    within: float,
    quiet: float,
    only: Sequence[str],
    listing: bool,
    print_schema: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Check a participant, ours or yours, against the whole contract.

    It dials the participant at ADDR as a coordinator does, answers its questions, asks as a peer does, and prints rule
    by rule what holds. With --start or --restart it also kills the participant, some twenty-five times, and looks what
    is still true afterwards.

    Give it a participant, or at least a table, that you can throw away. It writes rows and deletes them again, and ends
    everything that it began, also after Ctrl-C. What stays: the table, what --writes did, and the records of a few
    branches that it resolved by hand.

    \b
    Examples:
      troth check-participant 127.0.0.1:7401
      troth check-participant --print-schema > check.sql  # at a server: psql shop < check.sql
      troth check-participant 127.0.0.1:7499 --start \\
        'exec troth participant --name p1 --data /tmp/p1.db --listen 127.0.0.1:7499 --schema check.sql'
      troth check-participant 127.0.0.1:7401 --restart 'docker kill mine && docker start mine' --yes --json
      troth check-participant 127.0.0.1:7401 --writes '{"custom": {"name": "put", "body": 1}}' \\
        --writes '{"custom": {"name": "put", "body": 2}}' --reads '{"custom": {"name": "get", "read_only": true}}'

    \b
    Exit codes: 0 all that was checked holds; 1 a rule is violated; 2 bad usage, nobody there, or interrupted.
    """
    checks = _chosen(only)
    if print_schema:
        return say(SCHEMA.rstrip())
    if listing:
        return say_table(("rule", "check", "what is required"), [(c.rule, c.name, c.requires) for c in checks])
    if address is None:
        raise click.UsageError("say where the participant is: ADDR")
    given = _given(table, writes, reads, refused)
    control = _control(start, pid, restart)
    if not yes:
        _ask(address, table or TABLE, given)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a participant that dies is no news here
    findings = _Findings(as_json)
    try:
        with (
            _interrupted_between(findings),
            _running(control, start_now=pid is None),
            runner.connected(address, name, control, host=host, within_s=within, quiet_s=quiet) as target,
        ):
            runner.run(target, _work(target, table, given), findings.add, checks)
    except runner.CannotCheck as error:
        complain(error)
        sys.exit(EXIT_CANNOT)
    except KeyboardInterrupt:
        findings.show()
        complain("interrupted: the checks above are not all of them")
        sys.exit(EXIT_CANNOT)
    findings.show()
    sys.exit(EXIT_VIOLATED if findings.count[Result.VIOLATED] else 0)


@contextmanager
def _interrupted_between(findings: _Findings) -> Iterator[None]:
    """The first Ctrl-C counts when the check under way has ended, the second at once: a KeyboardInterrupt in the middle
    of gRPC may be lost there, or leave a lock of it held."""

    def note(number: int, frame: object) -> None:
        findings.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _chosen(only: Sequence[str]) -> list[Check]:
    known = {check.name for check in CHECKS} | {check.rule for check in CHECKS}
    for wanted in only:
        if wanted not in known:
            raise click.UsageError(f"no rule and no check is called {wanted!r}: see --list")
    return [check for check in CHECKS if not only or check.name in only or check.rule in only]


def _given(
    table: str | None, writes: Sequence[Operation], reads: Sequence[Operation], refused: Sequence[Operation]
) -> Given | None:
    if not (writes or reads or refused):
        return None
    if table is not None or not (writes and reads):
        raise click.UsageError("give --writes and --reads (and --refused), or --table, or none of them")
    return Given(writes, reads, refused)


def _control(start: str | None, pid: int | None, restart: str | None) -> Control | None:
    if restart is not None and (start is not None or pid is not None):
        raise click.UsageError("give --restart, or --start (and --pid), not both")
    if pid is not None and start is None:
        raise click.UsageError("--pid needs --start: how it is started again")
    if start is not None:
        return Started(start, pid)
    return None if restart is None else ByCommand(restart)


@contextmanager
def _running(control: Control | None, *, start_now: bool) -> Iterator[None]:
    """While entered, what we start is ours; in the end it is killed."""
    if control is None:
        yield
        return
    with closing(control):
        if start_now:
            control.start()
        yield


def _work(target: Target, table: str | None, given: Given | None) -> Work:
    return runner.table_work(target, table) if given is None else GivenWork(*given)


def _ask(address: str, table: str, given: Given | None) -> None:
    """Says what will be written, and to whom."""
    what = f"rows in its table {table!r} (and in {TABLE}_...)" if given is None else "what --writes says"
    click.echo(f"This writes to the participant at {address}: {what}, and a few records of branches", err=True)
    click.echo("resolved by hand. Use one that you can throw away.", err=True)
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked: say --yes")
    if not click.confirm("Go on?", err=True):
        sys.exit(EXIT_CANNOT)


class _Findings:
    """What was found so far: as JSON at once, for people as a table in the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._found: list[Finding] = []
        self.count: Counter[Result] = Counter()
        self.interrupted = False

    def add(self, finding: Finding) -> None:
        """Raises KeyboardInterrupt when there was one meanwhile."""
        self._found.append(finding)
        self.count[finding.result] += 1
        if self._as_json:
            say_json(finding.as_json())
        elif sys.stderr.isatty():
            click.echo(f"\r\x1b[K{len(self._found)}: {finding.check.name}", err=True, nl=False)
        if self.interrupted:
            raise KeyboardInterrupt

    def show(self) -> None:
        """In the order of the rules, as they are numbered."""
        if self._as_json:
            say_json({result.name.lower(): self.count[result] for result in Result})
            return
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", err=True, nl=False)
        rows = sorted(self._found, key=lambda finding: _place(finding.check.rule))
        say_table(
            ("rule", "result", "check", ""), [(f.check.rule, f.result.value, f.check.name, _note(f)) for f in rows]
        )
        say(", ".join(f"{self.count[result]} {result.value}" for result in Result))


def _place(rule: str) -> tuple[int, str]:
    """Numbered rules by their number, then the others by name."""
    number = rule.removeprefix("rule ")
    return (int(number), "") if number.isdigit() else (sys.maxsize, rule)


def _note(finding: Finding) -> str:
    match finding.result:
        case Result.HOLDS:
            return finding.check.requires
        case Result.NOT_CHECKED:
            return finding.seen
        case Result.VIOLATED:
            return f"{finding.check.requires} Expected {finding.expected}; seen: {finding.seen}"
