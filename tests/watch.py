"""What `World` checks while it runs: nothing leaves a process before what it promises is on a disk."""

from __future__ import annotations

from collections import Counter
from typing import Any

import coordinator.events as ce
from coordinator.node import Coordinator
from coordinator.protocol import State
from participant.node import Participant
from tests.memory import LOG, DecisionDisk, VoteDisk
from troth.messages import Acknowledged, Answered, Commit, Mark, OnePhase, OnePhaseEnded, Peer, Prepare, Question, Voted
from troth.words import Answer, AttemptId, Outcome, Vote

Branches = tuple[tuple[str, bytes], ...]
"""What a client submits: participants and encoded operations."""


class Watch:
    """What was seen so far, and the checks on each thing that leaves."""

    mono: float
    coordinator: Coordinator | None = None
    decision_disk: DecisionDisk

    def __init__(self) -> None:
        self.files: dict[str, list[VoteDisk]] = {}
        """Every file that was ever served under a name."""
        self.participants: dict[str, Participant] = {}
        self.vote_disks: dict[str, VoteDisk] = {}
        """The one that is served now."""
        self.sent: dict[int, dict[str, Prepare | OnePhase]] = {}
        """Every prepare and one-phase request that was sent: number -> participant -> message."""
        self.sent_to: dict[tuple[int, str], str] = {}
        """The file that each was meant for."""
        self.ids: dict[int, str] = {}
        """The transaction id of every attempt that was sent."""
        self.replies: dict[int, Any] = {}
        """What clients and other callers heard, by their numbers."""
        self.told: dict[str, set[Outcome]] = {}
        """What clients heard of each id."""
        self.alarms: list[str] = []
        self.trace: list[str] = []
        self.repeats: Counter[tuple[float, type, str, int]] = Counter()
        """How often the coordinator said the same thing at one time."""
        self.opened: Counter[tuple[float, str]] = Counter()
        """How often a lane opened at one time."""

    def file_of(self, number: int, name: str) -> VoteDisk:
        """The file that the branch was sent to."""
        return next(file for file in self.files[name] if file.identity == self.sent_to[number, name])

    def updating(self, number: int) -> set[str]:
        """The participants that the attempt changes something at."""
        return {name for name, m in self.sent.get(number, {}).items() if isinstance(m, OnePhase) or not m.read_only}

    def applied(self, number: int, name: str) -> bool:
        """Whether the branch is ended there: applied, or settled by a person."""
        file, attempt = self.file_of(number, name), AttemptId(LOG, number)
        return attempt in file.applied or attempt in file.heuristics

    def decided(self, number: int) -> Outcome | None:
        return self.decision_disk.outcomes.get(number)

    def by_hand(self, number: int) -> bool:
        """Whether a person decided a one-phase attempt at the coordinator."""
        alone = any(isinstance(message, OnePhase) for message in self.sent.get(number, {}).values())
        alone |= number in self.decision_disk.claimed
        return alone and any(settled == number for settled, _ in self.decision_disk.by_hand)

    # What the coordinator says.

    def watch_sent(self, effect: ce.Send) -> None:
        message, name = effect.message, effect.participant
        assert self.coordinator is not None
        if isinstance(message, Commit | Question):
            self.repeats[self.mono, type(message), name, message.number] += 1
            often = self.repeats[self.mono, type(message), name, message.number]
            assert often <= 1 + self.opened[self.mono, name], f"{message} is sent to {name} {often} times at once"
        if isinstance(message, Prepare | OnePhase):
            attempt = self.coordinator.attempts[message.number]
            assert attempt.submission is not None
            assert name not in self.sent.get(message.number, {}), f"rule 4: {message} is sent twice"
            self.sent.setdefault(message.number, {})[name] = message
            self.sent_to[message.number, name] = attempt.parts[name].identity
            self.ids[message.number] = attempt.submission.id
            if isinstance(message, OnePhase) and attempt.submission.chosen:
                assert message.number in self.decision_disk.entries, (
                    "rule 13: sent before its submitted record is durable"
                )
        elif isinstance(message, Commit) or (isinstance(message, Answered) and message.answer is Answer.COMMITTED):
            assert self.decided(message.number) is Outcome.COMMITTED, f"{message} before the decision is durable"
            lane = self.coordinator.lanes[name]
            right = lane.identity == self.sent_to.get((message.number, name), lane.identity)
            assert right or isinstance(message, Answered), f"{message} goes to another file"
        elif isinstance(message, Mark):
            self._watch_mark(message)

    def _watch_mark(self, mark: Mark) -> None:
        """Rule 7: below it everything is ended, but for what it lists."""
        for number, entry in self.decision_disk.entries.items():
            if number < mark.low and number not in mark.excepted and entry.ended_at is None:
                assert entry.state is Outcome.COMMITTED, f"rule 7: {mark} passes the claimed {number}"
                owed = [b.participant for b in entry.branches if b.updating and not self.applied(number, b.participant)]
                settled = {h.participant for h in self.decision_disk.heuristics if h.number == number}
                assert not set(owed) - settled, f"rule 7: {mark} passes {number}, which is owed to {owed}"

    def watch_answer(self, id: str, branches: Branches, value: Any) -> None:
        """Rule 11: an answer is a promise. `branches` is what was submitted, nothing for `abort ID`."""
        if not isinstance(value, ce.Result) or value.outcome not in (Outcome.COMMITTED, Outcome.ABORTED):
            return
        if id:
            self.told.setdefault(id, set()).add(value.outcome)
        ids = self.ids | self.decision_disk.claimed
        numbers = [number for number, each in ids.items() if each == value.id]
        # A person may contradict what a participant decided alone and had said before (rule 12).
        by_hand = any(map(self.by_hand, numbers))
        assert by_hand or len(self.told.get(id, ())) < 2, f"rule 11: {id} is told both outcomes"
        durable = self.decision_disk.outcomes
        chosen = bool(id) and not id.startswith("troth:")
        if value.outcome is Outcome.ABORTED:
            assert not chosen or durable.get(id) is Outcome.ABORTED, f"{id} is told ABORTED, and it is not durable"
            return
        committed = [n for n in numbers if self._is_committed(n)]
        readers = [n for n in numbers if n in self.sent and not self.updating(n)]
        if chosen and not committed:
            assert durable.get(id) is Outcome.COMMITTED, f"{id} is told COMMITTED, and it is not durable"
        assert committed or readers, f"{value.id} is told COMMITTED, and nothing durable says so"
        for number in committed:
            content = {name: message.operations for name, message in self.sent.get(number, {}).items()}
            assert not branches or not content or content == dict(branches), f"{id} committed other content"
        if value.applied:
            for number in committed:
                missing = {name for name in self.updating(number) if not self.applied(number, name)}
                settled = {name for name in missing if (number, name) in self.decision_disk.by_hand}
                assert missing == settled, f"{value.id} is told applied; {missing} have not"

    def _is_committed(self, number: int) -> bool:
        if self.decided(number) is Outcome.COMMITTED or self.by_hand(number):
            return True
        alone = [name for name, m in self.sent.get(number, {}).items() if isinstance(m, OnePhase)]
        return any(self.applied(number, name) for name in alone)

    def watch_decide(self, effect: ce.Decide) -> None:
        """Rule 9: whoever voted READ_ONLY holds its locks when COMMITTED is decided."""
        assert self.coordinator is not None
        for name, part in self.coordinator.attempts[effect.number].parts.items():
            if effect.outcome is Outcome.COMMITTED and part.vote is Vote.READ_ONLY:
                locked = (
                    name in self.participants and AttemptId(LOG, effect.number) in self.participants[name].lock_table
                )
                assert locked, f"rule 9: {effect.number} is decided and {name} does not hold its shared locks"

    # What a participant says.

    def _may_commit(self, number: int) -> bool:
        attempt = self.coordinator.attempts.get(number) if self.coordinator is not None else None
        return attempt is not None and attempt.state is not State.RECORDING_ABORT

    def watch_vouched(self, peer: Peer, attempt: AttemptId, answer: Answer) -> None:
        """Rule 6: what a peer says of an attempt that is not ended is on disk, in the file that was asked or in that of
        the participant that told it."""
        assert self.vote_disks[peer.participant].identity == peer.identity, f"{peer} was not asked about {attempt}"
        if answer is Answer.COMMITTED:
            assert self.decided(attempt.number) is Outcome.COMMITTED, f"{peer} says that {attempt} committed"
        elif self._may_commit(attempt.number):
            refused = [disk for disk in self.vote_disks.values() if disk.finished.get(attempt) is Outcome.ABORTED]
            assert refused, f"rule 6: {peer.participant} vouches for {attempt}, and no refusal is durable"

    def watch_said(self, name: str, message: Any) -> None:
        if not isinstance(message, Voted | Acknowledged | OnePhaseEnded):
            return
        attempt, file = AttemptId(LOG, message.number), self.vote_disks[name]
        if isinstance(message, Voted) and message.vote is Vote.YES:
            known = attempt in file.prepared or attempt in file.finished or attempt in file.heuristics
            assert known, f"{name} voted YES for {message.number} without a durable record"
        elif isinstance(message, Acknowledged) and message.heuristic is None:
            assert attempt in file.applied, f"{name} acknowledges {message.number} and has not applied it"
        elif isinstance(message, Acknowledged):
            assert file.heuristics[attempt].known is Outcome.COMMITTED, f"{message} before it is durable"
        elif isinstance(message, OnePhaseEnded) and message.outcome is Outcome.COMMITTED:
            assert attempt in file.applied, f"{name} says that {message.number} committed and has not applied it"
