"""What must hold after a cell has healed, read from the processes' public services and from their files.

Nothing here asks the nodes' own view of what is true: outcome, data and logs come from what is on disk; services are
asked only whether anything is left over.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from faults.cluster import COORDINATOR, Cluster
from faults.matrix.cases import BY, PARTICIPANTS, Case
from troth.v1 import coordinator_pb2, participant_pb2
from troth.words import Outcome

QUIET_WITHIN_S = 10.0
"""Until everything must have ended, from the moment when all processes run and the outcome is known."""


class Judge:
    """Keeps what the files must hold after each transaction so far."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._balances = dict.fromkeys(PARTICIPANTS, 0)
        self._applied: dict[str, int] = {}

    def begin(self) -> None:
        """Once the accounts are there."""
        self._applied = {name: self._history(name) for name in PARTICIPANTS}

    def judge(self, id: str, outcome: Outcome, case: Case) -> list[str]:
        """What does not hold, a sentence each, now that `id` has ended so."""
        if outcome is Outcome.COMMITTED:
            for name in case.updating:
                self._balances[name] += BY[name]
                self._applied[name] += 1
        deadline = time.monotonic() + QUIET_WITHIN_S
        while problems := [*self._left(), *self._log(id, outcome), *self._data(id, outcome, case), *self._servers()]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        return problems

    # What is left over.

    def _left(self) -> Iterator[str]:
        status = self._cluster.status(COORDINATOR)
        assert isinstance(status, coordinator_pb2.CoordinatorStatus)
        if status.in_flight or status.unresolved:
            yield f"the coordinator still has {status.in_flight} in flight and {status.unresolved} unresolved"
        for lane in status.lanes:
            if not lane.open:
                yield f"no lane to {lane.participant}: {lane.error}"
        for name in PARTICIPANTS:
            stub = self._cluster.participant(name)
            for branch in stub.InDoubt(participant_pb2.InDoubtRequest(), timeout=10, wait_for_ready=True).branches:
                yield f"{name} is in doubt about {branch.attempt.number}: {branch.why}"
            for lock in stub.Locks(participant_pb2.LocksRequest(), timeout=10, wait_for_ready=True).locks:
                yield f"{name} still has a lock on {lock.name} for {lock.attempt.number}"

    # The logs.

    def _log(self, id: str, outcome: Outcome) -> Iterator[str]:
        query = "SELECT number, state, ended_at FROM troth_transactions WHERE id = ?"
        found = self._cluster.rows(COORDINATOR, query, id)
        if [state for _, state, _ in found] != [outcome]:
            yield f"the decision log holds {found} for {id}, which is {outcome.name}"
        if kept := by_hand(self._cluster):
            yield f"the decision log still holds {kept} as resolved by hand"
        if any(ended_at is None for *_, ended_at in found):
            yield f"the decision log holds {id} as not ended"
        for name in PARTICIPANTS:
            if prepared := self._cluster.rows(name, "SELECT number FROM troth_prepared"):
                yield f"the vote log of {name} still holds {prepared} as prepared"

    # The data.

    def _data(self, id: str, outcome: Outcome, case: Case) -> Iterator[str]:
        for name in PARTICIPANTS:
            ((balance,),) = self._cluster.data(name, "SELECT balance FROM accounts")
            if balance != self._balances[name]:
                yield f"the balance at {name} is {balance} and not {self._balances[name]}"
            if (count := self._history(name)) != self._applied[name]:
                yield f"{name} has applied {count} branches in all and not {self._applied[name]}"
            latest = [found for (found,) in self._cluster.data(name, "SELECT id FROM latest")]
            applied = outcome is Outcome.COMMITTED and name in case.updating
            if (latest == [id]) is not applied:
                yield f"the latest at {name} is {latest}, and {id} is {outcome.name}"

    # What servers hold.

    def _servers(self) -> Iterator[str]:
        """A server remembers what the vote log knows to be committed there, and nothing else but what is below the
        mark, which it is to forget."""
        for name, database in self._cluster.databases.items():
            if prepared := database.prepared():
                yield f"{prepared} are prepared at the server of {name}"
            known = self._cluster.rows(
                name, "SELECT identity, number, outcome FROM troth_finished JOIN troth_logs USING (log)"
            )
            marks = self._cluster.rows(
                name, "SELECT identity, low, excepted FROM troth_marks JOIN troth_logs USING (log)"
            )
            low = {log: low for log, low, _ in marks}
            excepted = {(log, number) for log, _, numbers in marks for number in json.loads(numbers)}
            committed = {(log, number) for log, number, outcome in known if outcome == Outcome.COMMITTED.value}
            rows = database.execute("SELECT log, number FROM troth_finished")
            kept = {(log.decode() if isinstance(log, bytes) else log, number) for log, number in rows}
            if lost := committed - kept:
                yield f"the server of {name} does not remember {sorted(lost)} as committed"
            for log, number in sorted(kept - committed):
                if number >= low.get(log, 0) or (log, number) in excepted:
                    yield f"the server of {name} remembers {number} of {log} as committed, and its vote log does not"

    def _history(self, name: str) -> int:
        ((count,),) = self._cluster.rows(name, "SELECT count(*) FROM troth_history")
        return int(count)


def by_hand(cluster: Cluster) -> list[int]:
    """The attempts that the coordinator's log keeps as resolved by hand. What a participant acknowledged so is gone
    when it is cleared; only what a person settled in a participant's place would stay, and no case does that."""
    return [number for (number,) in cluster.rows(COORDINATOR, "SELECT number FROM troth_heuristics")]
