"""A database server whose data are on a small disk of their own (tmpfs), which can be filled up."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from faults.servers import Server

_BLOCK = bytes(4096)


@cache
def may_mount() -> bool:
    """Whether a disk can be had: it takes root, and containers often forbid it."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = _mount(Path(folder), "size=1m")
        if mounted:
            _unmount(Path(folder))
    return mounted


class Disk:
    """One small disk."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leaves no byte free."""
        with self._ballast.open("ab", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(_BLOCK)

    def make_room(self) -> None:
        self._ballast.unlink()


@contextmanager
def on_small_disk(server: Server, mib: int) -> Iterator[Disk]:
    """The server, started with its data on a disk of that size; in the end both are gone."""
    server.start()
    server.stop()
    data, made = server.folder / "data", server.folder / "made"
    data.rename(made)
    data.mkdir()
    owner = made.stat()
    try:
        assert _mount(data, f"size={mib}m,uid={owner.st_uid},gid={owner.st_gid},mode=700")
        try:
            subprocess.run(["cp", "-a", f"{made}/.", str(data)], check=True)
            server.start()
            yield Disk(data)
        finally:
            if server.running:
                server.kill()
            _unmount(data)
    finally:
        server.close()


def _mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def _unmount(folder: Path) -> None:
    """Processes that were killed may not have let go of it yet: it goes with the last of them."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
