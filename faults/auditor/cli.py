"""`troth verify`: the auditor for people."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from faults.auditor.auditing import Verdict, audit
from troth.cli.common import EXIT_BAD_INPUT, complain, json_option, say, say_json


class _DatabaseType(click.ParamType):  # type: ignore[type-arg]  # generic only in later click
    """`p2=postgresql://db/shop`, as a pair; in the environment one a line."""

    name = "name=dsn"

    def split_envvar_value(self, rv: str) -> list[str]:
        return [line for line in rv.splitlines() if line.strip()]

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, _, dsn = str(value).partition("=")
        if not name or not dsn:
            self.fail("it is NAME=DSN, as in p2=postgresql://db/shop", param, ctx)
        return name.strip(), dsn.strip()


@click.command("verify")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--database",
    "databases",
    type=_DatabaseType(),
    multiple=True,
    envvar="TROTH_VERIFY_DATABASE",
    help="The server that has this participant's data; may be repeated.",
)
@click.option("--transactions", is_flag=True, help="List every attempt with its outcome and what each file says of it.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="List this transaction (or attempt); may be repeated.")
@json_option
def command(
    *,
    paths: tuple[Path, ...],
    databases: tuple[tuple[str, str], ...],
    transactions: bool,
    ids: tuple[str, ...],
    as_json: bool,
) -> None:
    """Audit logs and data files at rest: does each prove what the others say, and do the rows agree?

    A PATH is a data file (NAME.db) or a folder of them, of any of the processes: only the participants will do, or a
    backup. Nothing is changed. A file that a process holds is not read: stop it first, or audit a copy that was made
    while all were stopped. Files of different moments contradict each other without being wrong.

    Rows are replayed where the participant was run with --history.

    Where a participant's data are at PostgreSQL or MariaDB, --database says how to reach them: what is prepared and
    committed there and the rows are read in one snapshot, and nothing is changed. The DSN is the one that the
    participant was run with, or of a role that may only read; to keep a password from `ps`, put NAME=DSN in the
    environment variable TROTH_VERIFY_DATABASE, one a line. Other programs may have changed rows there, so one that
    differs from the history is in doubt and no contradiction. A server that is not named is in doubt as a whole.

    \b
    Examples:
      troth verify ./troth-data
      troth verify backup/p1.db backup/p2.db --transactions
      troth verify ./troth-data --id order-17
      troth verify ./troth-data --database p2=postgresql://troth@db/shop
      troth verify ./troth-data --json

    \b
    Exit codes: 0 clean; 1 a contradiction was found; 2 bad usage, or something could not be read; 5 something is in
    doubt or at a server that was not named, and nothing contradicts.
    """
    missing = set(ids)
    try:
        teller = _teller(frozenset(ids), missing, as_json) if transactions or ids else None
        found = audit(paths, databases=dict(databases), each=teller)
    except (OSError, sqlite3.Error) as error:
        complain(f"the audit did not come to its end: {error} (temporary files are in {tempfile.gettempdir()})")
        raise SystemExit(EXIT_BAD_INPUT) from error
    found.notes += [f"no file says anything of {id!r}" for id in dict.fromkeys(ids) if id in missing]
    if as_json:
        say_json({"kind": "audit", **found.as_json()})
    else:
        for line in found.lines():
            say(line)
    raise SystemExit(found.exit_code)


def _teller(ids: frozenset[str], missing: set[str], as_json: bool) -> Callable[[Verdict], None]:
    """Prints attempts as they are judged; all of them when no id is named. What was found is taken from `missing`."""

    def tell(verdict: Verdict) -> None:
        attempt = str(verdict.attempt)
        if ids and not ids & {attempt, verdict.id}:
            return
        missing.difference_update((attempt, verdict.id))
        if as_json:
            says = [{"file": file, "says": says} for file, says in verdict.says]
            say_json(
                {"kind": "attempt", "attempt": attempt, "id": verdict.id, "outcome": verdict.outcome, "says": says}
            )
        else:
            says_text = "; ".join(f"{file}: {says}" for file, says in verdict.says)
            say(f"{verdict.outcome} {attempt}{f' ({verdict.id})' if verdict.id else ''}: {says_text}")

    return tell
