"""A coordinator and participants as real processes, for whoever kills, stops, freezes and restarts them.

    with Cluster(tmp_path, participants=2, schema="CREATE TABLE ...") as cluster:
        cluster.commands.Submit(...)
        cluster.kill("p1")
        cluster.start("p1")
        assert cluster.rows("p1", "SELECT balance FROM accounts") == [(100,)]

Processes keep their ports over restarts. Nothing restarts them but whoever holds the cluster; `troth up` is not this.
"""

from __future__ import annotations

import os
import selectors
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc

from faults.servers import Database
from troth.process import SERVING, addresses
from troth.v1 import coordinator_pb2, coordinator_pb2_grpc, participant_pb2, participant_pb2_grpc, types_pb2

START_WITHIN_S = 30.0
STOP_WITHIN_S = 20.0
COORDINATOR = "coordinator"

T = TypeVar("T")


class Ended(Exception):
    """A process ended before it served; the message has its exit code and its log."""

    def __init__(self, name: str, code: int, log: str) -> None:
        super().__init__(f"{name} ended with {code} before it served; its log:\n{log}")
        self.code = code
        self.log = log


class Process:
    """One process through all its lives."""

    def __init__(self, name: str, address: str, data: Path, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.address = address
        self.data = data
        self.command = list(command)
        self.log = log
        self.popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process itself, or of the wrapper in front of it (`strace -D` is none: it steps aside)."""
        return self._running().pid

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.popen is not None, f"{self.name} was not started"
        return self.popen

    def launch(self, wrapper: Sequence[str], env: Mapping[str, str]) -> None:
        assert not self.running, f"{self.name} is running already"
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [*wrapper, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **env},
                start_new_session=True,  # so that a signal reaches a wrapper and what it wraps
            )

    def wait_serving(self) -> None:
        """Returns once it says that it serves. Raises Ended when it ends instead."""
        popen = self._running()
        assert popen.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(popen.stdout, selectors.EVENT_READ)
            if not selector.select(START_WITHIN_S):
                raise TimeoutError(f"{self.name} does not serve after {START_WITHIN_S} s; its log:\n{self.text()}")
        if not popen.stdout.readline().startswith(SERVING.encode()):
            raise Ended(self.name, self.wait(), self.text())

    def wait(self, timeout_s: float = STOP_WITHIN_S) -> int:
        """The exit code, once it has ended; negative for a signal."""
        popen = self._running()
        code = popen.wait(timeout_s)
        assert popen.stdout is not None
        popen.stdout.close()
        return code

    def signal(self, number: signal.Signals) -> None:
        """To the process and everything it started."""
        os.killpg(self._running().pid, number)

    def text(self) -> str:
        """Everything that it logged, in all its lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Cluster:
    """Started on entering, killed on leaving. Names are `coordinator`, `p1`, `p2`, ..."""

    def __init__(
        self,
        folder: Path,
        participants: int = 2,
        *,
        schema: str | None = None,
        history: bool = False,
        env: Mapping[str, str] | None = None,
        flags: Mapping[str, Sequence[str]] | None = None,
        databases: Mapping[str, Database] | None = None,
    ) -> None:
        """`env` goes to every process (settings: `TROTH_PARTICIPANT_LOCK_TIMEOUT=200ms`); `flags` are further arguments
        by name of process. `schema` makes the tables of participants that keep them in their file, and those of the
        empty `databases`, which hold the tables of others, by participant."""
        self.folder = folder
        self.env = dict(env or {})
        self.databases = dict(databases or {})
        self._channels: dict[str, grpc.Channel] = {}
        folder.mkdir(parents=True, exist_ok=True)
        ports = addresses.free_ports(1 + participants)
        names = [COORDINATOR, *(f"p{n}" for n in range(1, participants + 1))]
        at = {name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)}
        arguments: dict[str, list[str]] = {name: [] for name in names}
        for name in names[1:]:
            arguments[COORDINATOR] += ["--participant", f"{name}={at[name]}"]
            arguments[name] += ["--history"] if history else []
            if name in self.databases:
                database = self.databases[name]
                arguments[name] += ["--resource", database.server.name, "--dsn", database.dsn]
            elif schema:
                arguments[name] += ["--schema", str(self._schema(schema))]
        for name, extra in (flags or {}).items():
            arguments[name] += extra
        self.processes = {name: self._process(name, at[name], arguments[name]) for name in names}

    def _schema(self, sql: str) -> Path:
        path = self.folder / "schema.sql"
        path.write_text(sql)
        return path

    def _process(self, name: str, address: str, arguments: Sequence[str]) -> Process:
        role = "coordinator" if name == COORDINATOR else "participant"
        data = self.folder / f"{name}.db"
        command = [sys.executable, "-m", "troth", role, "--name", name, "--data", str(data), "--listen", address]
        return Process(name, address, data, [*command, *arguments], self.folder / f"{name}.log")

    def __enter__(self) -> Cluster:
        try:
            self.start(*self.processes)
            self.wait_lanes()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills what still runs."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        for process in self.processes.values():
            if process.running:
                process.signal(signal.SIGKILL)
                process.wait()

    def __getitem__(self, name: str) -> Process:
        return self.processes[name]

    @property
    def participants(self) -> list[str]:
        return [name for name in self.processes if name != COORDINATOR]

    # Lives.

    def start(self, *names: str, wrapper: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        """Starts these at once and waits until all serve. `wrapper` comes before the command (`strace -D ...`); `env`
        is for this life only. Raises Ended when one ends before it serves."""
        for name in names:
            self[name].launch(wrapper, {**self.env, **(env or {})})
        for name in names:
            self[name].wait_serving()

    def kill(self, *names: str) -> None:
        """SIGKILL, and waits until they are gone."""
        for name in names:
            self[name].signal(signal.SIGKILL)
        for name in names:
            self[name].wait()

    def stop(self, *names: str) -> list[int]:
        """SIGTERM, and waits; the exit codes."""
        for name in names:
            self[name]._running().terminate()
        return [self[name].wait() for name in names]

    def restart(self, *names: str) -> None:
        self.stop(*names)
        self.start(*names)

    def pause(self, *names: str) -> None:
        """SIGSTOP: there, and silent."""
        for name in names:
            self[name].signal(signal.SIGSTOP)

    def resume(self, *names: str) -> None:
        for name in names:
            self[name].signal(signal.SIGCONT)

    # Calls. Stubs last over restarts; a call to a process that is down fails with UNAVAILABLE.

    def channel(self, name: str) -> grpc.Channel:
        if name not in self._channels:
            options = [
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.enable_retries", 0),
                ("grpc.use_local_subchannel_pool", 1),
            ]
            self._channels[name] = grpc.insecure_channel(self[name].address, options)
        return self._channels[name]

    @cached_property
    def commands(self) -> Any:
        """The coordinator's Commands stub."""
        return coordinator_pb2_grpc.CommandsStub(self.channel(COORDINATOR))  # type: ignore[no-untyped-call]

    @cached_property
    def queries(self) -> Any:
        """The coordinator's Queries stub."""
        return coordinator_pb2_grpc.QueriesStub(self.channel(COORDINATOR))  # type: ignore[no-untyped-call]

    def branches(self, name: str) -> Any:
        """A participant's Branches stub."""
        return participant_pb2_grpc.BranchesStub(self.channel(name))  # type: ignore[no-untyped-call]

    def participant(self, name: str) -> Any:
        """A participant's ParticipantQueries stub."""
        return participant_pb2_grpc.ParticipantQueriesStub(self.channel(name))  # type: ignore[no-untyped-call]

    def status(self, name: str) -> coordinator_pb2.CoordinatorStatus | participant_pb2.ParticipantStatus:
        """What the process says of itself; waits for one that is just starting."""
        if name == COORDINATOR:
            return self.queries.Status(coordinator_pb2.StatusRequest(), timeout=10, wait_for_ready=True)  # type: ignore[no-any-return]
        request = participant_pb2.ParticipantStatusRequest()
        return self.participant(name).Status(request, timeout=10, wait_for_ready=True)  # type: ignore[no-any-return]

    def counters(self, *names: str) -> dict[str, types_pb2.Counters]:
        """The counters of these processes, or of all, by name."""
        return {name: self.status(name).counters for name in names or self.processes}

    def in_doubt(self, *names: str) -> int:
        """Branches in doubt at these participants, or at all."""
        return sum(self._participant_status(name).in_doubt for name in names or self.participants)

    def _participant_status(self, name: str) -> participant_pb2.ParticipantStatus:
        status = self.status(name)
        assert isinstance(status, participant_pb2.ParticipantStatus)
        return status

    def wait_lanes(self, *names: str) -> None:
        """Until the coordinator has a lane open to these participants, or to every one."""
        eventually(lambda: all(lane.open for lane in self._lanes(names)), f"lanes: {self._lanes(names)}")

    def _lanes(self, names: Sequence[str]) -> list[Any]:
        status = self.status(COORDINATOR)
        assert isinstance(status, coordinator_pb2.CoordinatorStatus)
        return [lane for lane in status.lanes if lane.participant in (names or self.participants)]

    def wait_settled(self, within_s: float = 5.0) -> None:
        """Until nothing is in doubt at any participant."""
        eventually(lambda: self.in_doubt() == 0, "nothing in doubt", within_s)

    # What is on disk.

    def rows(self, name: str, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """A SELECT on the data file of a process, running or not; it cannot write."""
        uri = f"file:{self[name].data}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=5)
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def data(self, name: str, sql: str) -> list[tuple[Any, ...]]:
        """The same of a participant's tables, wherever they are."""
        return self.databases[name].execute(sql) if name in self.databases else self.rows(name, sql)

    def log(self, name: str) -> str:
        """Everything that a process logged."""
        return self[name].text()

    def logs(self) -> dict[str, str]:
        """The same of all, by name."""
        return {name: process.text() for name, process in self.processes.items()}


def eventually(condition: Callable[[], T], what: str = "", within_s: float = 10.0) -> T:
    """What `condition` gives, once that is true. For what other processes do and no event tells of."""
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what or condition}")
        time.sleep(0.02)
    return result
