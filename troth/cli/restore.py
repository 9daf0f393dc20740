"""`troth restore`: data files that were copied back get a new identity."""

from __future__ import annotations

from pathlib import Path

import click

from troth.cli.common import EXIT_OTHER, complain, say
from troth.log import LogFailed, LogHeld, LogRefused, Restored, restore


@click.command("restore")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, path_type=Path))
@click.option("--force", is_flag=True, help="Also when commits are owed by a file: they are then yours to settle.")
def command(*, folder: Path, force: bool) -> None:
    """Give every data file (*.db) in DIR, put back from a copy, a new identity. DIR may also be one file.

    Run it once, on the copies, while no process serves them. A file that was put back without it is refused: it would
    vouch for what it has forgotten. Back up and restore the whole folder, stopped: files of different moments tear the
    transactions between them.

    \b
    Examples:
      rm -r troth-data && cp -a backup troth-data && troth restore troth-data

    \b
    Exit codes: 0 all were restored; 1 one was not (those after it were not tried).
    """
    files = sorted(folder.glob("*.db")) if folder.is_dir() else [folder]
    if not files:
        raise click.UsageError(f"{folder} has no data file (*.db)")
    for path in files:
        try:
            _tell(restore(path, force=force))
        except (LogHeld, LogRefused, LogFailed) as error:
            complain(error)
            raise SystemExit(EXIT_OTHER) from error


def _tell(restored: Restored) -> None:
    say(f"{restored.path}: {restored.role} {restored.name}: {restored.old} became {restored.new}")
    for note in restored.notes:
        say(f"  {note}")
