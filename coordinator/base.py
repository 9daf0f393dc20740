"""What every part of the coordinator's node stands on: its tables, its timers, its effects, the low-water mark."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

from coordinator.events import (
    Alarm,
    Append,
    Effect,
    Heuristic,
    Record,
    Recovered,
    Send,
    WakeAt,
)
from coordinator.recent import Recent
from coordinator.settings import CoordinatorSettings
from coordinator.tables import Attempt, Due, Lane, Open
from coordinator.views import Done
from troth.messages import (
    Mark,
)
from troth.timers import Timers
from troth.words import Now, number_of

MARK_EXCEPTIONS_MAX = 1_000
"""Numbers that a mark lists at most; the mark stays below the next one."""

ALARMS_MAX = 1_000
"""Alarms remembered, so that what somebody says again every second is raised once."""

STEPS_MAX = 100
"""Steps kept of one transaction; of one that is tried again and again the latest and how it began."""


class Base:
    """The tables and the small things; no protocol."""

    def __init__(
        self,
        log: str,
        epoch: int,
        settings: CoordinatorSettings,
        participants: Mapping[str, str],
        recovered: Recovered,
    ) -> None:
        self.log = log
        self.epoch = epoch
        self.settings = settings
        self.lanes = {name: Lane(address) for name, address in participants.items()}
        self.submissions: dict[str, Open] = {}
        self.attempts: dict[int, Attempt] = {}
        self.done: OrderedDict[str, Done] = OrderedDict()
        self.heuristics = list(recovered.heuristics)
        self.committed = self.aborted = self.refused = 0
        self.forced = 0
        self.lazy = 0
        self.horizon = recovered.horizon
        self._recovered = recovered
        self._sequence = 0
        self._parked: dict[str, Open] = {}
        self._recent = Recent(recovered.newest)
        self._questions: dict[int, list[tuple[str, int]]] = {}
        """Attempts looked up in the log, and who asked: (participant, 0) by lane or ("", client) by call."""
        self._flushes: deque[tuple[int, Callable[[], None]]] = deque()
        self._n = 0
        self._timers: Timers[Due, Any] = Timers(self._may_be_due)
        self._marking = False
        self._marked = Mark(0, ())
        self._alarmed: dict[str, None] = {}
        self._out: list[Effect] = []
        self._now = Now(0.0, 0.0)

    def _next(self) -> int:
        return number_of(self.epoch, self._sequence + 1)

    def _number(self) -> int:
        self._sequence += 1
        return number_of(self.epoch, self._sequence)

    def _append(
        self, record: Record, *, forced: bool, then: Callable[[], None] | None = None, counted: bool = True
    ) -> None:
        """Queues a record; `then` runs once it is durable. Names, marks and expiry are of no attempt and not
        counted."""
        self._n += 1
        if counted and forced:
            self.forced += 1
        elif counted:
            self.lazy += 1
        self._out.append(Append(self._n, record, forced))
        if then is not None:
            self._flushes.append((self._n, then))

    def _send(self, participant: str, message: Any) -> None:
        self._out.append(Send(participant, message))

    def _alarm(self, text: str) -> None:
        if text in self._alarmed:
            return
        if len(self._alarmed) == ALARMS_MAX:
            del self._alarmed[next(iter(self._alarmed))]
        self._alarmed[text] = None
        self._out.append(Alarm(text))

    def _note(self, sub: Open | None, what: str, participant: str = "") -> None:
        if sub is None:
            return
        sub.steps.append((self._now.wall, what, participant))
        if len(sub.steps) > STEPS_MAX:
            del sub.steps[STEPS_MAX // 2]

    def _is_heuristic(self, number: int, participant: str) -> bool:
        return any((each.number, each.participant) == (number, participant) for each in self.heuristics)

    def _keep_heuristic(self, record: Heuristic, then: Callable[[], None], *, counted: bool) -> None:
        """One record for a branch, kept until a person clears it (rule 12)."""
        self.heuristics = [
            each for each in self.heuristics if (each.number, each.participant) != (record.number, record.participant)
        ]
        self.heuristics.append(record)
        self._append(record, forced=True, then=then, counted=counted)

    def _later(self, seconds: float, due: Due, key: Any) -> None:
        self._timers.set(self._now.mono + seconds, due, key)

    def _may_be_due(self, at: float, due: Due, key: Any) -> bool:
        if due is Due.ATTEMPT:
            attempt = self.attempts.get(key)
            return attempt is not None and attempt.due == at
        return due is not Due.RETRY or key in self.submissions

    def _time(self, attempt: Attempt, at: float) -> None:
        """Sets the attempt's one timer anew."""
        attempt.due = at
        self._timers.set(at, Due.ATTEMPT, attempt.number)

    def _effects(self) -> list[Effect]:
        wake = self._timers.wake()
        if wake is not None:
            self._out.append(WakeAt(wake))
        out, self._out = self._out, []
        return out

    def _mark_soon(self) -> None:
        if not self._marking:
            self._marking = True
            self._later(self.settings.mark_interval_s, Due.MARK, 0)

    def _mark(self) -> Mark:
        """Below the first young open attempt everything is ended except the old ones that it lists (rule 7)."""
        young = self._now.mono - self.settings.mark_age_s
        excepted: list[int] = []
        for number in sorted(self.attempts):
            if self.attempts[number].since > young or len(excepted) == MARK_EXCEPTIONS_MAX:
                return Mark(number, tuple(excepted))
            excepted.append(number)
        return Mark(self._next(), tuple(excepted))
