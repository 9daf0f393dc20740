"""What a participant guards: the contract between the participant and a resource.

A resource is called from the participant's writer thread, one call at a time, inside the SQLite transaction in which
the vote log is written, except for `plan`, which is pure and runs on the event loop. A resource that lives in that same
file (`sqlite.py`) so becomes durable together with the vote; any other must be durable by itself when a method returns.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from troth.v1 import types_pb2
from troth.words import AttemptId


class Mode(enum.IntEnum):
    """How a lock is wanted. Shared goes with shared, increment with increment (when the bounds allow), nothing else."""

    SHARED = 1
    INCREMENT = 2
    EXCLUSIVE = 3


LockName = tuple[Any, ...]
"""A lock's name as the resource compares it: ("row", "accounts", "alice"), ("unique", "accounts_email", "a@b")."""

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1

ROWS_BYTES_MAX = 8 * 1024 * 1024
"""Encoded rows that one branch may read: a vote carries them, and a lane takes no message above 16 MiB."""


class Add(NamedTuple):
    """A number to be added to an integer column, with the bounds of the sum: the tightest of the operation's, the
    column's CHECK and 64 bits, so both always hold a number."""

    column: str
    by: int
    low: int
    high: int
    position: int
    """The operation's position in the transaction, for the reason."""


class Lock(NamedTuple):
    """One lock that a branch needs. `adds` is set for INCREMENT only: each add for itself, in order, never summed."""

    name: LockName
    mode: Mode
    adds: tuple[Add, ...] = ()


class Plan(NamedTuple):
    """What a branch will do, known from its operations alone: its locks, each name once in its strongest mode
    (two different modes on one name make EXCLUSIVE), and the resource's own converted form of the work."""

    locks: tuple[Lock, ...]
    work: Any
    read_only: bool
    """True when every operation only checks or reads."""


class Prepared(NamedTuple):
    """A branch that can be committed whatever comes."""

    rows: bytes
    """An encoded `troth.v1.Rows` of what `read` operations saw, at most ROWS_BYTES_MAX; empty when there are none."""
    values: dict[tuple[LockName, str], int]
    """The present value of every column under an INCREMENT lock, before the branch's own adds."""


class No(Exception):
    """The branch cannot be committed: a NO with its reason. Anything else that is raised stops the process."""

    def __init__(self, reason: types_pb2.Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


class InDoubt(NamedTuple):
    """A prepared branch as it was found at start."""

    attempt: AttemptId
    plan: Plan
    values: dict[tuple[LockName, str], int]
    """As in `Prepared`: the present values under its INCREMENT locks."""


class Resource(ABC):
    """The extension point. `bytes` named `operations` are an encoded `troth.v1.Operations`."""

    @abstractmethod
    def plan(self, operations: bytes) -> Plan:
        """The locks and the converted work of a branch. Pure: no I/O, called on the event loop, and the same
        operations give the same plan as long as the schema is the same.

        Raises No when the operations cannot be run here whatever the data (unknown table, wrong type, bad key)."""

    @abstractmethod
    def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        """Tries the branch and leaves nothing of it visible. After it returns, `commit` must succeed, at any later
        time and in a later incarnation, as long as the branch's locks are held.

        Raises No when a constraint, a row count or a bound says no. Any other exception means that nothing is known
        about the whole batch: the process stops."""

    @abstractmethod
    def commit(self, attempt: AttemptId, plan: Plan) -> None:
        """Applies a prepared branch. Idempotent for a resource outside the participant's file. Raising is an alarm
        that stops the process: a YES is always applicable."""

    def run(self, attempt: AttemptId, plan: Plan) -> Prepared:
        """Prepare and commit in one step, for a one-phase branch (rule 13). Raises No, having changed nothing."""
        prepared = self.prepare(attempt, plan)
        self.commit(attempt, plan)
        return prepared

    @abstractmethod
    def abort(self, attempt: AttemptId, plan: Plan | None) -> None:
        """Undoes what `prepare` left behind, if anything. Idempotent."""

    @abstractmethod
    def recover(self, prepared: Sequence[tuple[AttemptId, bytes]]) -> list[InDoubt]:
        """Called once at start with the prepared records found (attempt, operations), before anything is served: plans
        them again and reads the values under their INCREMENT locks. Raises when the schema no longer allows one of
        them, naming it."""
