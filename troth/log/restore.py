"""Gives a file that was copied back a new identity, so that it vouches for nothing older (rule 7, DESIGN section 4)."""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

from troth.log.file import LogFile, Role, new_identity, transaction

_STEPS = {"coordinator": "coordinator.log:restored", "participant": "participant.log:restored"}
"""What a role does to its own tables, by path: this room imports neither."""


class Restored(NamedTuple):
    """What was done to one file."""

    path: Path
    role: Role
    name: str
    old: str
    """The identity that the file had."""
    new: str
    """The identity that it has."""
    notes: tuple[str, ...]
    """What a person should know or do, one sentence each."""


def restore(path: Path, *, force: bool = False) -> Restored:
    """Gives the file a new identity, and does to its tables what `restored` of its role says, in one transaction.

    Nobody who knew the file by its old identity will take it for that file again. Run it once on each file that was put
    back from a copy, while no process serves it; on the original files never.

    Raises LogHeld while a process has the file open, LogRefused when there is no log of Troth or (unless `force`) when
    commits are owed, LogFailed when it cannot be written.
    """
    file = LogFile.open_any(path)
    try:
        old, new = file.identity, new_identity()
        step = cast(Callable[[LogFile, bool], list[str]], pkgutil.resolve_name(_STEPS[file.role]))
        with transaction(file.path, file.connection):
            notes = step(file, force)
            file.connection.execute("UPDATE troth_meta SET value = ? WHERE key = 'identity'", (new,))
            file.connection.execute(
                "INSERT INTO troth_audit VALUES (?, ?, ?, ?)",
                (time.time(), "file", f"restored: {old} became {new}", ""),
            )
        return Restored(file.path, file.role, file.name, old, new, tuple(notes))
    finally:
        file.close()
