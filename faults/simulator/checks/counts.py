"""How many records each attempt forced and how many messages it took, held against the table of DESIGN section 3.

In a calm run every attempt must cost exactly what its row says, inquiries of those that wait for long aside; where
something goes wrong, messages are sent again and nothing can be counted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import coordinator.events as ce
import participant.events as pe
from faults.simulator.scenario import COORDINATOR
from faults.simulator.violation import Violation
from troth.messages import Abort, Acknowledged, Commit, OnePhase, OnePhaseEnded, Prepare, Release, Voted
from troth.words import ASSIGNED, Outcome, Vote

if TYPE_CHECKING:
    from faults.simulator.world import World

_FORCED = (ce.Committed, ce.Aborted, ce.Claimed, pe.Try, pe.RunAlone, pe.Apply)
_LAZY = (ce.Ended, ce.Settled, ce.Dropped, pe.Undo)
_TO = (Prepare, OnePhase, Commit, Abort, Release)
_FROM = (Voted, OnePhaseEnded, Acknowledged)


class Cost(NamedTuple):
    """Of one branch: records of its participant, messages to it and from it."""

    applies: int
    undoes: int
    to: int
    from_: int


class Counts:
    """What each attempt has cost so far."""

    def __init__(self) -> None:
        self.active = False
        self.forced: Counter[int] = Counter()
        """The coordinator's, by attempt."""
        self.lazy: Counter[int] = Counter()
        self._jobs: Counter[tuple[type, str, int]] = Counter()
        self._to: Counter[tuple[str, int]] = Counter()
        self._from: Counter[tuple[str, int]] = Counter()
        self.votes: dict[tuple[str, int], Voted] = {}

    def queues(self, name: str, job: Any, forced: bool) -> None:
        kind = type(job)
        if not self.active or kind not in _FORCED + _LAZY:
            return
        if forced is not (kind in _FORCED):
            raise Violation(f"section 3, counts: {name} queues a {kind.__name__} {'forced' if forced else 'lazily'}")
        if name != COORDINATOR:
            self._jobs[kind, name, job.attempt.number] += 1
        elif forced:
            self.forced[job.number] += 1
        else:
            self.lazy[job.number] += 1

    def says_down(self, name: str, message: Any) -> None:
        if self.active and type(message) in _TO:
            self._to[name, message.number] += 1

    def says_up(self, name: str, message: Any) -> None:
        if self.active and type(message) in _FROM:
            self._from[name, message.number] += 1
            if type(message) is Voted:
                self.votes[name, message.number] = message

    def cost(self, name: str, number: int) -> Cost:
        return Cost(
            self._jobs[pe.Apply, name, number],
            self._jobs[pe.Undo, name, number],
            self._to[name, number],
            self._from[name, number],
        )


def counted(world: World) -> None:
    """Of a calm run: each attempt cost what its row of the table says. Raises Violation."""
    counts = world.watch.counts
    for number, sent in world.watch.sent.items():
        committed = world.watch.committed(number)
        written = counts.forced[number], counts.lazy[number]
        expected = _written(world, number, committed)
        if written != expected:
            raise Violation(f"section 3, counts: the coordinator wrote {written} of {number}, not {expected}")
        if any(type(message) is OnePhase for message in sent.values()):
            (name,) = sent
            _require(number, name, counts.cost(name, number), Cost(0, 0, 1, 1))
        else:
            votes = {name: counts.votes.get((name, number)) for name in sent}
            several = sum(vote is not None and vote.vote is Vote.NO for vote in votes.values()) > 1
            for name, message in sent.items():
                found = counts.cost(name, number)
                _require(number, name, found, _expected(message, votes[name], committed, several, found))


def _written(world: World, number: int, committed: bool) -> tuple[int, int]:
    """How many records, forced and lazy, the coordinator's log has of the attempt."""
    watch = world.watch
    chosen = not watch.ids[number].startswith(ASSIGNED)
    final = watch.decided(number) is Outcome.ABORTED
    if any(type(message) is OnePhase for message in watch.sent[number].values()):
        return (1 + final, 1 - final) if chosen else (0, 0)
    if committed and watch.updating(number):
        return 1, 1
    return int(chosen and (committed or final)), 0


def _expected(message: Any, vote: Voted | None, committed: bool, several: bool, found: Cost) -> Cost:
    if vote is not None and vote.vote is Vote.NO:
        # Of several, only the first is known before the others are told to abort.
        return Cost(0, 0, found.to if several and found.to == 2 else 1, 1)
    if message.read_only and vote is not None:
        return Cost(0, 0, 2, 1)
    if committed:
        return Cost(1, 0, 2, 2)
    # Without a vote it had waited for a lock or been tried: at most one lazy record.
    return Cost(0, 1 if vote else min(found.undoes, 1), 2, 1 if vote else 0)


def _require(number: int, name: str, found: Cost, expected: Cost) -> None:
    if found != expected:
        raise Violation(f"section 3, counts: attempt {number} cost {found} at {name}, not {expected}")
