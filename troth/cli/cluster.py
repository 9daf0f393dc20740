"""`cluster.json`: what `troth up` runs in a folder, for commands that look for it there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

FILE = "cluster.json"

Role = Literal["coordinator", "participant"]


class Member(NamedTuple):
    """One process of a cluster."""

    name: str
    role: Role
    address: str
    pid: int | None
    """None while it is down."""
    data: str
    """Its SQLite file."""


def write(folder: Path, members: Sequence[Member]) -> None:
    """Replaces the file in one step, so that a reader sees the old or the new one, whole."""
    coordinator = next(member.address for member in members if member.role == "coordinator")
    content = {"coordinator": coordinator, "processes": [member._asdict() for member in members]}
    new = folder / (FILE + ".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / FILE)


def read(folder: Path) -> list[Member]:
    """The processes, the coordinator first; none when there is no such file.

    Raises ValueError when it is not a file that `write` made."""
    path = folder / FILE
    try:
        content: Any = json.loads(path.read_text("utf-8"))
        members = [Member(**process) for process in content["processes"]]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a cluster's file: {error}") from error
    return sorted(members, key=lambda member: member.role != "coordinator")
