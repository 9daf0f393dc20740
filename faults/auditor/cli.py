"""`troth verify`: the auditor for people."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from faults.auditor.auditing import Verdict, audit
from troth.cli.common import EXIT_BAD_INPUT, complain, json_option, say, say_json


@click.command("verify")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--transactions", is_flag=True, help="List every attempt with its outcome and what each file says of it.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="List this transaction (or attempt); may be repeated.")
@json_option
def command(*, paths: tuple[Path, ...], transactions: bool, ids: tuple[str, ...], as_json: bool) -> None:
    """Audit logs and data files at rest: does each prove what the others say, and do the rows agree?

    A PATH is a data file (NAME.db) or a folder of them, of any of the processes: only the participants will do, or a
    backup. Nothing is changed. A file that a process holds is not read: stop it first, or audit a copy that was made
    while all were stopped. Files of different moments contradict each other without being wrong.

    Rows are replayed where the participant was run with --history.

    \b
    Examples:
      troth verify ./troth-data
      troth verify backup/p1.db backup/p2.db --transactions
      troth verify ./troth-data --id order-17
      troth verify ./troth-data --json

    \b
    Exit codes: 0 clean; 1 a contradiction was found; 2 bad usage, or something could not be read; 5 something is in
    doubt, and nothing contradicts.
    """
    missing = set(ids)
    try:
        found = audit(paths, each=_teller(frozenset(ids), missing, as_json) if transactions or ids else None)
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
