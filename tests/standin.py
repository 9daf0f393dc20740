"""`python -m tests.standin FOLDER`: what `troth up` does, over stand-in children that need no data and no ports."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from tests import standin_child
from troth.cli import up
from troth.cli.cluster import Role
from troth.cli.supervisor import Spec


def spec(folder: Path, name: str, *fails: str) -> Spec:
    """A child that listens nowhere: its address is only a name."""
    role: Role = "coordinator" if name == "coordinator" else "participant"
    address = f"at-{name}:1"
    command = [sys.executable, "-S", standin_child.__file__, name, address, *fails]
    return Spec(name, role, address, folder / f"{name}.db", command)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    with up.only_one(folder):
        specs = [spec(folder, name) for name in ("coordinator", "p1", "p2")]
        sys.exit(asyncio.run(up.supervise(folder, specs, up.Lines())))


if __name__ == "__main__":
    main()
