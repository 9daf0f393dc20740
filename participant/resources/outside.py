"""What a participant guards outside of its own file: a server with a prepare of its own (PostgreSQL, MariaDB).

The vote log stays the participant's SQLite file; the data are the server's. A vote is YES only when both hold it: first
the server has prepared the branch, durably, then the prepared record is forced here. A commit goes the same way round:
first the server, then the record, then the acknowledgement. Whatever dies between the two, the server is asked at the
next start, for it remembers which branches are prepared and, in a table written in the same transaction as the work,
which have committed: that a branch is not known there is so never ambiguous.

    prepare   server: prepared           -> record: prepared -> YES
    commit    server: committed          -> record: committed -> acknowledged
    run       server: committed at once  -> record: committed -> told (rule 13)
    abort     server: rolled back        -> record: aborted, lazy
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from participant.resources import InDoubt, No, Plan, Prepared, Resource
from troth.messages import Mark
from troth.v1 import participant_pb2, types_pb2
from troth.words import AttemptId, Outcome


class ResourceRefused(Exception):
    """The server cannot be guarded as it is: one sentence that says what was found and what to change."""


class EndedElsewhere(Exception):
    """Somebody ended a prepared branch behind the participant's back, otherwise than its coordinator says."""

    def __init__(self, attempt: AttemptId, found: Outcome) -> None:
        super().__init__(f"{attempt} was ended as {found.name} at the server, not by this participant")
        self.found = found


class Stray(NamedTuple):
    """A branch that the server has prepared for a participant file that is not this one; never touched from here."""

    name: str
    """As the server lists it."""
    age_s: float


class Survey(NamedTuple):
    """What the server holds of this participant's branches, at one moment."""

    prepared: frozenset[AttemptId]
    """Prepared and not ended."""
    committed: Mapping[AttemptId, bytes]
    """Remembered as committed, all since the last `forget`, of two that changed one row the first before the second;
    with the operations of what `run` committed, empty for others."""
    strays: tuple[Stray, ...]


class OutsideResource(ABC):
    """The contract. All methods but `plan` and `tables` are called on the event loop and may run side by side, one at a
    time for each attempt; none of them is cancelled before it returns, unless the process ends.

    Waiting is bounded: a lock that the server makes a branch wait for is given up after the participant's
    `lock_timeout_s`, with a retryable No. A server that cannot be reached is a retryable No for `prepare`; `run`,
    `commit`, `abort` and `survey` wait until it can be, as their outcome must be known."""

    kind: str
    """What `--resource` calls it."""

    @abstractmethod
    async def open(self, namespace: str) -> str:
        """Connects for the participant file whose branches carry that name (16 lowercase hex characters) at the server,
        and waits until no earlier incarnation of it is at work there any more (its backends may outlive a killed
        participant, and finish what they were told).

        Returns a name of the database that no other one has, for a participant's file goes with one database. Raises
        ResourceRefused, with no connection left open."""

    @abstractmethod
    async def survey(self) -> Survey:
        """Called at start after `open`, and from time to time: what is prepared, committed, strange. Raises
        ResourceRefused when what is answered would not be kept any more."""

    @abstractmethod
    def plan(self, operations: bytes) -> Plan:
        """As `participant.resources.Resource.plan`. Locks here keep branches that want the same row from waiting
        inside the server, where each would hold a connection; what other programs and constraints make wait there, the
        server's own locks do. Without escrow: every change of a row is exclusive. Raises No."""

    @abstractmethod
    async def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        """Runs the branch at the server and prepares it there, durably, by the server's own word; a read-only plan is
        only run, and leaves nothing. Nothing of it is visible to others before `commit`, which must then succeed in
        whatever incarnation. Raises No, and then nothing of the branch is left, or ever comes to be, at the server."""

    @abstractmethod
    async def run(self, attempt: AttemptId, operations: bytes, plan: Plan) -> Prepared:
        """Runs and commits the branch in one step (rule 13), remembering it as committed, with its operations. Raises
        No, and then nothing of it was, or ever will be, committed."""

    @abstractmethod
    async def commit(self, attempt: AttemptId) -> None:
        """Commits a prepared branch; nothing when it is committed already. Raises EndedElsewhere when it was rolled
        back."""

    @abstractmethod
    async def abort(self, attempt: AttemptId) -> None:
        """Rolls back what `prepare` left, if anything. That need not be durable: what a server has prepared again after
        a crash is found by the next look, and rolled back again. Raises EndedElsewhere when it is committed."""

    @abstractmethod
    async def forget(self, log: str, mark: Mark) -> None:
        """Drops what is remembered as committed of attempts of that coordinator log below the mark: below it and not
        excepted."""

    @abstractmethod
    async def read_row(self, table: str, key: Sequence[types_pb2.Value]) -> types_pb2.Row:
        """One row as committed now, without waiting for locks. Raises No."""

    @abstractmethod
    def tables(self) -> list[participant_pb2.TableStatus]:
        """Every table, served or not with the reason, by name."""

    @abstractmethod
    async def close(self) -> None:
        """Lets the connections go that `open` made, once it has returned. What is prepared stays."""


class Elsewhere(Resource):
    """What is left to do in the participant's own file when the data are outside: nothing. The node has the outside
    resource do its part before a job comes here."""

    def __init__(self, outside: OutsideResource) -> None:
        self._outside = outside

    def plan(self, operations: bytes) -> Plan:
        return self._outside.plan(operations)

    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        raise AssertionError(f"{attempt} is tried outside")

    def commit(self, attempt: AttemptId, plan: Plan) -> None:
        pass

    def abort(self, attempt: AttemptId, plan: Plan | None) -> None:
        pass

    def recover(self, prepared: Sequence[tuple[AttemptId, bytes]]) -> list[InDoubt]:
        """What cannot be planned any more, as its tables have changed, is locked at the server alone."""
        found = []
        for attempt, operations in prepared:
            try:
                plan = self.plan(operations)
            except No:
                plan = Plan((), None, read_only=False)
            found.append(InDoubt(attempt, plan, {}))
        return found
