"""How the participant under test is killed and started again. The commands are the user's, run by a shell."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from abc import ABC, abstractmethod

GONE_WITHIN_S = 20.0


class CannotRestart(Exception):
    """The user's command failed, or the process does not end."""


class Control(ABC):
    """A way to kill -9 the participant and have it back. Whether it serves again is seen by dialling it."""

    @abstractmethod
    def kill(self) -> None:
        """Ends it without any warning."""

    @abstractmethod
    def start(self) -> None:
        """Starts it on the same data at the same address."""

    @abstractmethod
    def close(self) -> None:
        """Ends what was started here, if anything."""


class ByCommand(Control):
    """`--restart`: one command kills it and starts it again; what it starts is not ours to end."""

    def __init__(self, command: str) -> None:
        self._command = command

    def kill(self) -> None:
        """Does both."""
        done = subprocess.run(self._command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise CannotRestart(f"{self._command!r} ended with {done.returncode}: {done.stderr.strip()[-300:]}")

    def start(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """What the command started stays."""


class Started(Control):
    """`--start`: the participant is a child of ours, and killed with all that the command has started. `pid` is one
    that runs already and is to be killed first."""

    def __init__(self, command: str, pid: int | None = None) -> None:
        self._command = command
        self._pid = pid
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._child = subprocess.Popen(
            self._command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def kill(self) -> None:
        if self._child is not None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._child = None
        elif self._pid is not None:
            pid, self._pid = self._pid, None
            _kill(pid)

    def close(self) -> None:
        if self._child is not None:
            self.kill()


def _kill(pid: int) -> None:
    """Kills a process that need not be a child, and waits until it is gone."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        if not select.select([process], [], [], GONE_WITHIN_S)[0]:
            raise CannotRestart(f"process {pid} is still there {GONE_WITHIN_S:g} s after it was killed")
    except PermissionError as error:
        raise CannotRestart(f"process {pid} may not be killed: {error.strerror}") from error
    finally:
        os.close(process)
