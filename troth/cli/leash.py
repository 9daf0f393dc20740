"""Runs a command that dies with the process that started it: `python leash.py PARENT_PID USER COMMAND...`.

USER is `UID:GID`, as whom the command runs, which takes root; `-` changes nothing. Linux only (`prctl(2)`,
PR_SET_PDEATHSIG). Started by path and isolated: so it costs some ten milliseconds, and the modules beside it do not
stand in for those of the standard library. It then becomes the command, under the same pid. On other systems the
command runs without the leash, and a `kill -9` of its parent leaves it running.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_SAME = "-"


def leashed(command: Sequence[str], user: tuple[int, int] | None = None) -> list[str]:
    """`command` such that it is killed when the calling process dies, however that dies; run as `user`, a uid and a
    gid, when that is given.

    The kernel looks at the *thread* that starts the child, so it must be one that lives as long as the process."""
    text = f"{user[0]}:{user[1]}" if user else _SAME
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), text, *command]


def _become(user: str) -> None:
    uid, gid = map(int, user.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _tie(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent:  # it died before the tie was made
        os._exit(128 + signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[2] != _SAME:
        _become(sys.argv[2])  # before the tie, which the kernel cuts when the user changes
    if sys.platform == "linux":
        _tie(int(sys.argv[1]))
    os.execvp(sys.argv[3], sys.argv[3:])
