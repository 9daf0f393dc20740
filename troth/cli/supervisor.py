"""Keeps processes running: starts them, starts again what died, stops all in order.

It knows nothing of transactions; a process is a command that prints `serving on ADDRESS` once it serves. What it prints
to standard error goes to its own log file.
"""

from __future__ import annotations

import asyncio
import enum
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from troth.cli.cluster import Member, Role
from troth.cli.leash import leashed
from troth.process import LASTING, SERVING

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 5.0
STEADY_S = 5.0
"""A process that served for so long is started again without having its earlier deaths counted against it."""
LOG_BYTES_MAX = 64 * 1024 * 1024
"""A log file larger than this is put aside as NAME.log.1 when its process starts."""
_TAIL_BYTES = 4096


class Spec(NamedTuple):
    """What to run. The command is the same in every life, so it names a fixed address."""

    name: str
    role: Role
    address: str
    data: Path
    command: Sequence[str]
    env: Mapping[str, str] = {}
    """Beside that of the supervisor; what nobody should read in a list of processes."""


class State(enum.Enum):
    """Where a child is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DOWN = "down"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Child:
    """One process through all its lives. Only its supervisor changes it."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.state = State.DOWN
        self.restarts = 0
        self.said = ""
        """The latest news, one sentence."""
        self.process: Process | None = None
        self.serving_since: float | None = None
        """Loop time; None while it does not serve."""

    @property
    def pid(self) -> int | None:
        """None while it is down."""
        return self.process.pid if self.process else None

    @property
    def member(self) -> Member:
        """As `cluster.json` has it."""
        spec = self.spec
        return Member(spec.name, spec.role, spec.address, self.pid, str(spec.data))


OnNews = Callable[[Child, bool], None]
"""Called after each change of a child; True when it will not get better by itself."""


class Supervisor:
    """Runs children until told to stop. Construct and use within one event loop, in the main thread."""

    def __init__(self, specs: Sequence[Spec], logs: Path, on_news: OnNews) -> None:
        self.children = [Child(spec) for spec in specs]
        self._logs = logs
        self._on_news = on_news
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Makes `run` stop all children and return. Called a second time, it kills what is still there."""
        if self._stopping.is_set():
            for child in self.children:
                _signal(child, signal.SIGKILL)
        self._stopping.set()

    async def run(self, drain_s: float) -> None:
        """Keeps all children running until `stop`; then stops them, role by role, in `drain_s` seconds at most.

        The coordinator goes first, while the participants that its open transactions need are still there; the
        participants share what it left of the time. What has not ended by then is killed."""
        self._logs.mkdir(parents=True, exist_ok=True)
        lives = {child.spec.name: asyncio.create_task(self._keep(child)) for child in self.children}
        failure = asyncio.create_task(_first_failure(list(lives.values())))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([failure, stopping], return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        deadline = asyncio.get_running_loop().time() + drain_s
        for role in ("coordinator", "participant"):
            ending = [child for child in self.children if child.spec.role == role]
            await self._end(ending, [lives[child.spec.name] for child in ending], deadline)
        await failure  # raises what made a life fail

    async def _end(self, children: list[Child], lives: list[asyncio.Task[None]], deadline: float) -> None:
        for child in children:
            if child.process:
                self._tell(child, State.STOPPING, "stopping")
                _signal(child, signal.SIGTERM)
        if not lives:
            return
        _, late = await asyncio.wait(lives, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        for child in children:
            if late and child.process:
                self._tell(child, State.STOPPING, "did not stop in time: killed")
                _signal(child, signal.SIGKILL)
        await asyncio.wait(lives)

    async def _keep(self, child: Child) -> None:
        """One child, life after life, until stopping."""
        backoff_s = BACKOFF_FIRST_S
        while not self._stopping.is_set():
            log_start, code, served_s = await self._live(child)
            if self._stopping.is_set():
                break
            backoff_s = BACKOFF_FIRST_S if served_s >= STEADY_S else backoff_s
            wait_s = BACKOFF_MAX_S if code in LASTING else backoff_s
            why = f"{_ended(code)}{_last_words(self._log_file(child), log_start) if code > 0 else ''}"
            self._tell(child, State.DOWN, f"{why}; starting again in {wait_s:g} s", lasting=code in LASTING)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            child.restarts += 1
            await self._pause(wait_s)
        self._tell(child, State.STOPPED, "stopped")

    async def _live(self, child: Child) -> tuple[int, int, float]:
        """One life. Where its log begins, its exit code (negative: the signal), and the seconds it served."""
        loop = asyncio.get_running_loop()
        path = self._log_file(child)
        _put_aside(path)
        with path.open("ab") as log:
            log_start = log.tell()
            child.process = await asyncio.create_subprocess_exec(
                *leashed(child.spec.command),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=log,
                env={**os.environ, **child.spec.env},
                start_new_session=True,  # Ctrl-C reaches only us, and we stop the children in order
            )
        self._tell(child, State.STARTING, f"started as pid {child.pid}")
        if self._stopping.is_set():
            _signal(child, signal.SIGTERM)
        try:
            await self._listen(child, child.process)
            code = await child.process.wait()
        finally:
            _signal(child, signal.SIGKILL)  # nothing when it has ended
            child.process = None
        served_s = loop.time() - child.serving_since if child.serving_since is not None else 0.0
        child.serving_since = None
        return log_start, code, served_s

    async def _listen(self, child: Child, process: Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if line.startswith(SERVING.encode()) and not self._stopping.is_set():
                child.serving_since = asyncio.get_running_loop().time()
                self._tell(child, State.SERVING, line.decode(errors="replace").strip())

    def _tell(self, child: Child, state: State, said: str, lasting: bool = False) -> None:
        child.state, child.said = state, said
        self._on_news(child, lasting)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _log_file(self, child: Child) -> Path:
        return self._logs / f"{child.spec.name}.log"


async def _first_failure(lives: list[asyncio.Task[None]]) -> None:
    """Ends when all lives have ended, or raises what the first failing one raised."""
    for life in asyncio.as_completed(lives):
        await life


def _signal(child: Child, number: signal.Signals) -> None:
    if child.process and child.process.returncode is None:
        child.process.send_signal(number)


def _ended(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _last_words(log: Path, start: int) -> str:
    """The last line that a process wrote to its log in this life."""
    with log.open("rb") as file:
        file.seek(max(start, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return f" ({lines[-1].strip()})" if lines else ""


def _put_aside(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))
