"""A cluster under `troth up`, which restarts what dies, with the calls and looks of the `Cluster` helper."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import Cluster
from tests.test_up import Up, running, troth_up
from troth.cli import cluster as cluster_file

ENDED = "ended with exit code"
"""What `troth up` says of a process that died of itself."""


class Supervised:
    """What runs in `data`; `cluster` only looks at it, and starts and stops nothing."""

    def __init__(self, up: Up, data: Path, coordinator: str, cluster: Cluster) -> None:
        self.up = up
        self.data = data
        self.coordinator = coordinator
        """Its address."""
        self.cluster = cluster

    def kill(self, *names: str) -> None:
        """SIGKILL, to all at once; returns when all serve again."""
        pids = self.up.pids()
        for name in names:
            os.kill(pids[name], signal.SIGKILL)
        waiting = {f"{name}: serving on" for name in names}
        assert self.up.popen.stdout is not None
        for line in self.up.popen.stdout:
            assert ENDED not in line, line
            waiting = {start for start in waiting if not line.startswith(start)}
            if not waiting:
                return
        raise AssertionError(f"it ended without {waiting}")


@contextmanager
def supervised(folder: Path, participants: int, schema: str, *arguments: str) -> Iterator[Supervised]:
    """Started on entering; stopped by SIGTERM on leaving, which it must obey."""
    (folder / "schema.sql").write_text(schema)
    data = folder / "data"
    options = ["--participants", str(participants), "--port", "0", "--schema", str(folder / "schema.sql")]
    with running(data, troth_up(data, *options, *arguments)) as up:
        coordinator = up.wait_line("ready: coordinator at ").rpartition(" ")[2]
        looking = Cluster(folder / "looking", participants)
        for member in cluster_file.read(data):
            looking[member.name].address, looking[member.name].data = member.address, Path(member.data)
        try:
            yield Supervised(up, data, coordinator, looking)
            code, said, _ = up.end()
            assert code == 0
            assert ENDED not in said, said
            for log in (data / "log").iterdir():
                assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            looking.close()
