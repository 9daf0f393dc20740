"""What people may see of a participant: read-only pictures of its node, as the messages of the query services."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from participant.protocol import State
from participant.resources import LockName
from troth.v1 import participant_pb2, types_pb2
from troth.words import AttemptId, Now, Outcome

if TYPE_CHECKING:
    from participant.locks import LockTable
    from participant.tables import Branch, Log

DOUBT = frozenset({State.PREPARED, State.READ_ONLY, State.HEURISTIC, State.LEARNING})
AT_SERVER = frozenset({State.TRYING, State.RUNNING, State.PREPARED, State.COMMITTING})
BUSY = frozenset({State.WAITING, State.TRYING, State.RUNNING, State.COMMITTING, State.REFUSING})


class Load(NamedTuple):
    """How much a participant carries."""

    in_flight: int
    in_doubt: int
    oldest_s: float
    finished: int


class Views:
    """The accessors of `Participant`; nothing here changes it."""

    name: str
    logs: dict[str, Log]
    lock_table: LockTable

    def load(self, now: Now) -> Load:
        """Counts over all branches."""
        branches = [branch for log in self.logs.values() for branch in log.branches.values()]
        busy = [branch.since for branch in branches if branch.state in BUSY]
        doubt = [
            branch.since for branch in branches if branch.state is State.PREPARED or branch.state is State.HEURISTIC
        ]
        oldest = min(busy + doubt, default=now.mono)
        return Load(len(busy), len(doubt), now.mono - oldest, len(branches) - len(busy) - len(doubt))

    def prepared(self) -> set[AttemptId]:
        """Branches that voted YES in this life and have heard nothing. Of one that was found in doubt at start with its
        data at a resource outside the file it is not known who has ended it there, when it is ended there."""
        branches = (branch for log in self.logs.values() for branch in log.branches.values())
        return {b.attempt for b in branches if b.state is State.PREPARED and not b.from_before}

    def at_server(self) -> set[AttemptId]:
        """Branches that a resource outside the file may rightly hold as prepared."""
        branches = (branch for log in self.logs.values() for branch in log.branches.values())
        return {branch.attempt for branch in branches if branch.carrying or branch.state in AT_SERVER}

    def aborted(self, attempt: AttemptId) -> bool:
        """Whether the branch has ended here as aborted, by whomever."""
        log = self.logs.get(attempt.log)
        branch = None if log is None else log.branches.get(attempt.number)
        if branch is None or branch.carrying:
            return False
        return branch.state is State.ABORTED or branch.done is Outcome.ABORTED

    def in_doubt(self, now: Now) -> list[participant_pb2.InDoubt]:
        """Branches that wait for an outcome, oldest first."""
        found = [b for log in self.logs.values() for b in log.branches.values() if b.state in DOUBT]
        return [self._in_doubt(branch, now) for branch in sorted(found, key=lambda b: (b.since, b.attempt))]

    def _in_doubt(self, branch: Branch, now: Now) -> participant_pb2.InDoubt:
        waiting = [attempt for attempt in self.lock_table.waiters(branch.attempt) if isinstance(attempt, AttemptId)]
        return participant_pb2.InDoubt(
            attempt=attempt_message(branch.attempt),
            age_s=now.mono - branch.since,
            locked=[lock_text(lock.name) for lock in self.lock_table.locks(branch.attempt)],
            why=branch.why or "the outcome has not come yet",
            waiting=[attempt_message(attempt) for attempt in waiting],
            peers=[
                participant_pb2.Peer(participant=p.participant, address=p.address, identity=p.identity)
                for p in branch.peers
            ],
            coordinator=self.logs[branch.attempt.log].address,
            heuristic=types_pb2.Outcome.Name(branch.done) if branch.done else None,
            read_only=branch.read_only,
        )

    def locks(self) -> list[participant_pb2.Lock]:
        """Every lock, by name, in the order of its line."""
        listed = []
        for name, mode, held, owner in sorted(self.lock_table.listing(), key=lambda lock: lock_text(lock[0])):
            assert isinstance(owner, AttemptId)
            attempt = attempt_message(owner)
            listed.append(
                participant_pb2.Lock(name=lock_text(name), mode=mode.name.lower(), held=held, attempt=attempt)
            )
        return listed


def attempt_message(attempt: AttemptId) -> types_pb2.Attempt:
    return types_pb2.Attempt(log=attempt.log, number=attempt.number)


def lock_text(name: LockName) -> str:
    """`accounts/alice` for a row, `accounts_email:a@b` for a unique index's values."""
    kind, table, *rest = name
    parts = [part.hex() if isinstance(part, bytes) else str(part).replace("/", "%2F") for part in rest]
    return "/".join([str(table), *parts]) if kind == "row" else f"{table}:{','.join(parts)}"
