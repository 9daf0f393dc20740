"""One running cluster in which cell after cell is run: arm, submit, wait for the strike, heal, and judge.

Only what died is started again. A cell that leaves anything wrong behind ends the cluster with it: the next cell gets a
new one, so that no failure is counted twice.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import grpc

from coordinator.events import AbortAsked, Submitted
from faults.cluster import COORDINATOR, Cluster
from faults.matrix.cases import FIRST, LAST, PARTICIPANTS, SCHEMA, Case
from faults.matrix.cells import Cell, Fault, Outage
from faults.matrix.judge import Judge
from faults.matrix.person import Person
from faults.servers import KINDS, Database
from troth.failpoints import Action
from troth.operations import Transaction
from troth.process import EXIT_LOG_FAILED
from troth.v1.coordinator_pb2 import AbortRequest
from troth.words import Outcome

SETTINGS = {
    "TROTH_COORDINATOR_VOTE_TIMEOUT": "400ms",
    "TROTH_COORDINATOR_RETRY_FIRST": "10ms",
    "TROTH_COORDINATOR_RETRY_MAX": "300ms",
    "TROTH_COORDINATOR_MARK_INTERVAL": "20ms",
    "TROTH_COORDINATOR_EXPIRE_INTERVAL": "200ms",
    "TROTH_PARTICIPANT_INQUIRY_AFTER": "100ms",
    "TROTH_PARTICIPANT_INQUIRY_MAX": "100ms",
    "TROTH_PARTICIPANT_ASK_PEERS_AFTER": "200ms",
    "TROTH_PARTICIPANT_FORGET_INTERVAL": "50ms",
    "TROTH_PARTICIPANT_LOOK_INTERVAL": "200ms",
    "TROTH_COORDINATOR_LOG_FORMAT": "json",
    "TROTH_PARTICIPANT_LOG_FORMAT": "json",
}
"""Nothing that is asked, sent again, dropped or forgotten is long in coming."""

STOPPED_S = 0.6
"""How long a stopped process stays so: past the vote's deadline."""
STRIKE_WITHIN_S = 8.0
"""Until a rule that has not struck is taken as one that this transaction does not reach."""
SECOND_WITHIN_S = 2.0
"""The same for the second of two processes: what the first one's fault cuts off may be what would have led there."""
ANSWER_WITHIN_S = 15.0
TRIES = 3
"""Transactions in which a cell may be reached: which of two messages comes first is not always the same."""
TRIES_FOR_TWO = 10
"""The same when two are to be struck: the first one's fault may reach the second before it has come to the point."""

_POLL_S = 0.005

_ENDS: Mapping[Fault, int] = {
    Action.KILL: -signal.SIGKILL,
    Action.ERROR: EXIT_LOG_FAILED,
    Action.FULL: EXIT_LOG_FAILED,
}
"""The exit code of a process that a fault ends."""


class Result(NamedTuple):
    """How a cell ended."""

    cell: Cell
    problems: tuple[str, ...]
    """What did not hold, a sentence each; none: it is good."""
    told: str
    """What the client heard first."""
    tries: int
    seconds: float

    @property
    def good(self) -> bool:
        return not self.problems


class Logs:
    """What the processes of a cluster log, read as it comes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._read = dict.fromkeys(cluster.processes, 0)

    def new(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Lines since the last look, with the process that wrote them; what is not JSON as `text`."""
        for name, process in self._cluster.processes.items():
            if process.log.exists() and process.log.stat().st_size > self._read[name]:
                with process.log.open("rb") as file:
                    file.seek(self._read[name])
                    *lines, _ = file.read().split(b"\n")
                self._read[name] += sum(len(line) + 1 for line in lines)
                yield from ((name, _parsed(line)) for line in lines)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {"text": line.decode(errors="replace")}
    return found if isinstance(found, dict) else {"text": str(found)}


@contextmanager
def opened(folder: Path, kinds: Sequence[str] = ()) -> Iterator[Arena]:
    """An arena, entered. `kinds` are those of the servers that have the data of the first and of the last participant,
    in a database each; without any, all data are in files."""
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(KINDS[kind]()) for kind in dict.fromkeys(kinds)}
        databases: dict[str, Database] = {}
        for name, kind in zip((FIRST, LAST), (kinds[0], kinds[-1]), strict=True) if kinds else ():
            databases[name] = servers[kind].create(name)
            for statement in filter(str.strip, SCHEMA.split(";")):
                databases[name].execute(statement)
        arena = stack.enter_context(Arena(folder, databases))
        try:
            yield arena
        finally:
            if folder.exists():  # not swept away: what did not hold is to be understood
                for kind, server in servers.items():
                    (folder / f"{kind}.log").write_text(server.text())


class Arena:
    """A cluster with everything that a cell needs. Entered, it runs; left, it is gone."""

    def __init__(self, folder: Path, databases: Mapping[str, Database] | None = None) -> None:
        """`databases` have the tables of those participants that keep them at a server."""
        self._failpoints = folder / "failpoints"
        env = {**SETTINGS, "TROTH_FAILPOINTS": f"@{self._failpoints}"}
        self.cluster = Cluster(folder, len(PARTICIPANTS), schema=SCHEMA, history=True, env=env, databases=databases)
        self._logs = Logs(self.cluster)
        self._judge = Judge(self.cluster)
        self._count = 0
        self._struck: set[tuple[str, str]] = set()
        self._odd: list[str] = []
        self._starting: set[str] = set()

    def __enter__(self) -> Arena:
        self.cluster.__enter__()
        opened = Transaction("opened")
        for name in PARTICIPANTS:
            opened.at(name).insert("accounts", "all", {"balance": 0})
        self.cluster.commands.Submit(opened.to_request(wait_applied=True), timeout=ANSWER_WITHIN_S, wait_for_ready=True)
        self._judge.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cluster.close()

    def run(self, cell: Cell) -> Result:
        """Runs one cell; afterwards every process runs, and no failpoint is set."""
        began = time.monotonic()
        problems: list[str] = []
        told = ""
        for tries in range(1, (TRIES if len(cell.names) == 1 else TRIES_FOR_TWO) + 1):  # noqa: B007
            self._count += 1
            struck, told, problems = self._once(cell, f"{cell.key}#{self._count}")
            if struck or problems:
                break
        else:
            problems = ["the point was not reached"]
        return Result(cell, tuple(problems), told, tries, time.monotonic() - began)

    def _once(self, cell: Cell, id: str) -> tuple[bool, str, list[str]]:
        """One transaction: whether its points were struck, what the client heard, and what did not hold."""
        self._struck, self._odd = set(), []
        person = Person(self.cluster, id, lambda: self._launch(COORDINATOR)) if cell.case.by_hand else None
        life = self.cluster[COORDINATOR].pid
        self._arm(cell.rules)
        client = self._ask(cell.case, id)
        wanted = {(name, f"{cell.point.what}:{cell.point.when}") for name in cell.names}
        struck = self._until_struck(wanted, cell.case.down, person)
        if struck:
            self.cluster.kill(*cell.killed)
            self._outage(cell)
        problems = self._heal(cell) if struck else self._heal(None)
        if person is not None:
            self._clear(person)
        lost = cell.action is Action.DROP and cell.point.of in (Submitted, AbortAsked)
        first = self._heard(client, lost)
        final = self._final(cell.case, id)
        if first is Outcome.UNKNOWN and not lost and self.cluster[COORDINATOR].pid == life:
            problems.append("the client was told nothing, though its coordinator lived")
        if first not in (Outcome.UNKNOWN, final):
            problems.append(f"the client was told {first.name}, and by the same id later {final.name}")
        if final is not cell.case.outcome:
            problems.append(f"it ended {final.name} and not {cell.case.outcome.name}")
        problems += self._judge.judge(id, final, cell.case)
        self._look()
        return struck, first.name, problems + self._odd

    # Setting it up.

    def _arm(self, rules: list[str]) -> None:
        new = self._failpoints.with_suffix(".new")
        new.write_text("\n".join(rules))
        new.replace(self._failpoints)

    def _ask(self, case: Case, id: str) -> Any:
        commands, transaction = self.cluster.commands, case.transaction
        if transaction is None:
            return commands.Abort.future(AbortRequest(id=id), timeout=ANSWER_WITHIN_S, wait_for_ready=True)
        return commands.Submit.future(transaction(id).to_request(), timeout=ANSWER_WITHIN_S, wait_for_ready=True)

    # The strike.

    def _until_struck(self, wanted: set[tuple[str, str]], down: bool, person: Person | None) -> bool:
        """Until all these points were struck. Who dies of the first fault of a case is started again meanwhile, unless
        it is to stay dead."""
        coordinator = self.cluster[COORDINATOR]
        deadline = time.monotonic() + STRIKE_WITHIN_S
        while not wanted <= self._struck and time.monotonic() < deadline:
            dead = not coordinator.running  # before the look, which so sees all that it has logged
            self._look()
            if wanted & self._struck:
                deadline = min(deadline, time.monotonic() + SECOND_WITHIN_S)
            elif person is not None:
                person.step(dead)
            elif dead and not down:
                self._launch(COORDINATOR)
            time.sleep(_POLL_S)
        return wanted <= self._struck

    def _launch(self, name: str) -> None:
        """Starts one that has died; `_heal` waits until it serves."""
        self.cluster[name].wait()
        self.cluster[name].launch((), self.cluster.env)
        self._starting.add(name)

    def _look(self) -> None:
        """Takes what was logged: who was struck, and what should not be in a log."""
        for name, line in self._logs.new():
            event = line.get("event", "")
            if event == "failpoint":
                who, _, point = line["point"].partition(":")
                self._struck.add((who, point))
            elif event == "alarm":
                self._odd.append(f"{name} raised an alarm: {line['message']}")
            elif event.startswith("stopped by an error") or "Traceback" in line.get("text", ""):
                self._odd.append(f"{name} stopped by an error that is not foreseen: {line}")

    def _outage(self, cell: Cell) -> None:
        """Kills the servers of those who are struck, when the cell says so, and starts them again."""
        if isinstance(cell.action, Outage):
            for server in dict.fromkeys(self.cluster.databases[name].server for name in cell.names):
                server.kill()
                server.start()

    # Healing.

    def _heal(self, cell: Cell | None) -> list[str]:
        """No failpoint is set any more; who was stopped goes on, who has died or is about to is started again."""
        problems: list[str] = []
        self._arm([])
        if cell is not None and cell.action is Action.STOP:
            time.sleep(STOPPED_S)
        for name in self.cluster.processes:
            if self.cluster[name].running:
                self.cluster.resume(name)
        if cell is not None:
            problems = self._ended(cell)
        for name, process in self.cluster.processes.items():
            if not process.running:
                self._launch(name)
        for name in self._starting:
            self.cluster[name].wait_serving()
        self._starting.clear()
        return problems

    def _ended(self, cell: Cell) -> list[str]:
        """Waits for the end of who was told to end, and compares its exit code."""
        wanted = _ENDS.get(cell.action)
        if wanted is None:
            return []
        found = {name: self.cluster[name].wait() for name in cell.names}
        return [f"{name} ended with {code} and not {wanted}" for name, code in found.items() if code != wanted]

    def _clear(self, person: Person) -> None:
        """What the person has not come to do yet; a record that stays is found by the judge."""
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while not person.done and time.monotonic() < deadline:
            person.step(dead=False)
            time.sleep(_POLL_S)

    # The client.

    def _heard(self, client: Any, lost: bool) -> Outcome:
        """What the first call said; UNKNOWN when it broke, or is `lost` and not waited for."""
        if lost:
            client.cancel()
        return _outcome(client.result)

    def _final(self, case: Case, id: str) -> Outcome:
        """What the same id says again, once that is known."""
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while True:
            found = _outcome(self._ask(case, id).result)
            if found is not Outcome.UNKNOWN or time.monotonic() > deadline:
                return found
            time.sleep(_POLL_S)


def _outcome(result: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(result().outcome)
    except (grpc.RpcError, grpc.FutureCancelledError):
        return Outcome.UNKNOWN
