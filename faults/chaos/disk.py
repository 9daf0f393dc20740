"""A disk that fails on demand: a small library (`disk.c`) that is compiled here and preloaded into our processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from faults.chaos.schedule import Fault, Kind

SOURCE = Path(__file__).with_name("disk.c")
_COMPILE_WITHIN_S = 60


class NoDisk(Exception):
    """The disk cannot be made to fail here; the message says why."""


class Disk:
    """Of one cluster whose processes were started with `environment`."""

    def __init__(self, folder: Path) -> None:
        """Compiles the library into `folder`, which must exist. Raises NoDisk."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if sys.platform != "linux":
            raise NoDisk("a library is preloaded for that, which is done on Linux only")
        if compiler is None:
            raise NoDisk("no C compiler was found for the library that is preloaded for that (cc, gcc, clang)")
        self._demands = Path(tempfile.mkdtemp(prefix="demands-", dir=folder))  # a new one, without demands of before
        library = folder / "disk.so"
        self.environment = {"LD_PRELOAD": str(library), "TROTH_CHAOS_DISK": str(self._demands)}
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
        made = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_WITHIN_S)
        if made.returncode != 0:
            raise NoDisk(f"{compiler} could not compile {SOURCE.name}: {made.stderr.strip().splitlines()[-1:]}")

    def begin(self, fault: Fault, file: Path) -> None:
        """From now on the fault is met by the process whose data file that is."""
        match fault.kind:
            case Kind.FULL:
                text = "full"
            case Kind.SYNC:
                text = "sync"
            case _:
                text = f"slow {fault.delay_s * 1000:.0f}"
        new = self._demands / f".{file.name}"
        new.write_text(text)
        new.replace(self._demands / file.name)  # whole, for it is read at any moment

    def end(self, file: Path) -> None:
        """The file's disk is well again."""
        (self._demands / file.name).unlink(missing_ok=True)
