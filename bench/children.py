"""A coordinator and participants of a yardstick of this room, as processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from faults.cluster import COORDINATOR, Process
from troth.process import addresses


class Children:
    """Made for a module that is run with a role, `--data`, `--listen` and, as coordinator, `--participant`."""

    def __init__(self, module: str, folder: Path, participants: int) -> None:
        names = [COORDINATOR, *(f"p{n}" for n in range(1, participants + 1))]
        at = [f"127.0.0.1:{port}" for port in addresses.free_ports(len(names))]
        self.by_name: Mapping[str, Process] = {
            name: _process(module, folder, name, address, at[1:]) for name, address in zip(names, at, strict=True)
        }

    @property
    def participants(self) -> Mapping[str, Process]:
        return {name: process for name, process in self.by_name.items() if name != COORDINATOR}

    def start(self) -> None:
        """Returns when all serve."""
        for process in self.by_name.values():
            process.launch((), {})
        for process in self.by_name.values():
            process.wait_serving()

    def pids(self) -> Mapping[str, int]:
        return {name: process.pid for name, process in self.by_name.items()}

    def dead(self) -> list[str]:
        """What ended by itself, with its log."""
        return [f"{name}: {process.text()}" for name, process in self.by_name.items() if not process.running]

    def close(self) -> None:
        for process in self.by_name.values():
            if process.popen is None:
                continue
            if process.running:
                process.signal(signal.SIGKILL)
            process.wait()


def _process(module: str, folder: Path, name: str, address: str, participants: list[str]) -> Process:
    role = "coordinator" if name == COORDINATOR else "participant"
    data = folder / f"{name}.db"
    command = [sys.executable, "-m", module, role, "--data", str(data), "--listen", address]
    if name == COORDINATOR:
        command += [argument for other in participants for argument in ("--participant", other)]
    return Process(name, address, data, command, folder / f"{name}.log")
