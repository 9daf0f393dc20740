"""Runs a command that dies with the process that started it: `python leash.py PARENT_PID COMMAND...`.

Linux only (`prctl(2)`, PR_SET_PDEATHSIG). Started by path and isolated: so it costs some ten milliseconds, and the
modules beside it do not stand in for those of the standard library. It then becomes the command, under the same pid.
On other systems the command runs without the leash, and a `kill -9` of its parent leaves it running.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def leashed(command: list[str]) -> list[str]:
    """`command` such that it is killed when the calling process dies, however that dies.

    The kernel looks at the *thread* that starts the child, so it must be one that lives as long as the process."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]


def _tie(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent:  # it died before the tie was made
        os._exit(128 + signal.SIGKILL)


if __name__ == "__main__":
    if sys.platform == "linux":
        _tie(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
