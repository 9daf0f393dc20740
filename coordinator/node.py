"""All transactions of one coordinator process, without clock, network, disk or randomness.

`Coordinator.step(event, now)` takes one event and returns the effects in order; the same events give the same
effects. What an attempt may do is the table of `protocol.py`; here is what the actions mean, and what lies around
attempts: submissions that join, wait for lanes and are tried again, the low-water mark, lanes, and what a person may
settle.

Invariants: `submissions` holds every id whose outcome is not yet in the log, so an id is looked up in the log
exactly when it is neither open here nor surely new (`recent.py`); `attempts` holds every attempt that the mark must
except. What promises an outcome to a client leaves from `_durable` (or `_decided`, when the coordinator assigned the
id).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from coordinator.attempts import alone, by_request, taken
from coordinator.events import (
    AbortAsked,
    Asked,
    Branch,
    Closed,
    Decided,
    Durable,
    Effect,
    Entry,
    Event,
    Expired,
    Heuristic,
    HorizonMoved,
    Known,
    LaneLost,
    LaneOpened,
    LookedUp,
    LookUp,
    Received,
    Recovered,
    Reply,
    ResolveAsked,
    Result,
    Submission,
    Submitted,
    Ticked,
)
from coordinator.people import People
from coordinator.protocol import Input, State
from coordinator.tables import Attempt, Due, Lane, Open, Part, Waiter
from coordinator.views import Views
from troth.ids import time_of
from troth.messages import (
    Acknowledged,
    Answered,
    Commit,
    OnePhaseEnded,
    Peer,
    Question,
    Voted,
)
from troth.reasons import reason
from troth.v1.types_pb2 import Code, Reason
from troth.words import ASSIGNED, Answer, AttemptId, Now, Outcome, Vote


class Coordinator(People, Views):
    """The node."""

    def start(self, now: Now) -> list[Effect]:
        """Takes up what the log held: commits that are owed and one-phase attempts that are open."""
        self._now = now
        for name, identity in self._recovered.known:
            if name in self.lanes:
                self.lanes[name].known = identity
        for entry in sorted(self._recovered.open):
            self._take_up(entry)
        self._later(self.settings.expire_interval_s, Due.EXPIRE, 0)
        self._recovered = Recovered((), (), self.horizon, (), "")
        return self._effects()

    def step(self, event: Event, now: Now) -> list[Effect]:
        """One event in, its effects out, in order."""
        self._now = now
        while len(self.done) > self.settings.finished_kept:  # not where they end: who watches is told after the step
            self.done.popitem(last=False)
        _EVENTS[type(event)](self, event)
        return self._effects()

    def _take_up(self, entry: Entry) -> None:
        attempt = Attempt(entry.number, entry.id or str(AttemptId(self.log, entry.number)), None, self._now.mono)
        attempt.read = entry.read
        self.attempts[entry.number] = attempt
        if entry.state is Outcome.COMMITTED:
            attempt.state = State.COMMITTING
            settled = {participant for participant, _ in entry.heuristics}
            attempt.owed = {
                b.participant: b.identity for b in entry.branches if b.updating and b.participant not in settled
            }
            if not attempt.owed:
                self._move(attempt, Input.LAST_ACKNOWLEDGED)
                return
        else:
            assert entry.id is not None
            attempt.state, attempt.alone = State.DELEGATED, True
            one = entry.branches[0]
            branch = Branch(one.participant, b"", False, entry.read, 0)
            attempt.parts[one.participant] = Part(branch, one.identity, entry.incarnation)
            sub = Open(entry.id, chosen=True, digest=entry.digest, branches=(), now=self._now)
            sub.submitted_at, sub.attempt, sub.attempts = entry.at, attempt, 1
            attempt.submission = self.submissions[entry.id] = sub
            by_hand = [each for each in self.heuristics if each.number == entry.number]
            if by_hand:
                self._move(attempt, Input.RESOLVED)
                self._end_by_hand(attempt, by_hand[0])
                return
        self._time(attempt, self._now.mono + self.settings.retry_max_s)

    def _submitted(self, event: Submitted) -> None:
        wanted = event.submission
        why = self._refusal(wanted)
        if why is not None:
            self._refuse(event.client, wanted.id, why)
            return
        timeout = wanted.timeout_s or self.settings.timeout_s
        waiter = Waiter(event.client, wanted.wait_applied, self._now.mono + timeout, wanted.digest)
        sub = self.submissions.get(wanted.id) if wanted.id else None
        if sub is not None:
            self._join(sub, wanted, waiter)
            return
        if len(self.submissions) >= self.settings.in_flight_max:
            text = (
                f"{len(self.submissions)} transactions are open and no more than {self.settings.in_flight_max} may be"
            )
            self._refuse(event.client, wanted.id, reason(Code.CODE_OVERLOADED, text))
            return
        first = 0
        if not wanted.id:
            first = self._number()
        id = wanted.id or str(AttemptId(self.log, first))
        sub = Open(id, chosen=bool(wanted.id), digest=wanted.digest, branches=wanted.branches, now=self._now)
        sub.deadline, sub.first = waiter.until, first
        sub.waiters.append(waiter)
        self.submissions[id] = sub
        self._note(sub, "submitted")
        if not sub.chosen:
            self._begin(sub, first)
        elif self._recent.open(id):
            self._begin_new(sub)
        else:
            sub.looking = True
            self._out.append(LookUp(id))

    def _refusal(self, wanted: Submission) -> Reason | None:
        """Why this submission is not run, whatever is known of its id."""
        limits = self.settings
        count = size = 0
        for branch in wanted.branches:
            if branch.participant not in self.lanes:
                names = ", ".join(self.lanes) or "none"
                text = f"no participant {branch.participant!r} is configured; there are: {names}"
                return reason(Code.CODE_UNKNOWN_PARTICIPANT, text)
            count += branch.length
            size += len(branch.operations)
        if wanted.id.startswith(ASSIGNED):
            return reason(
                Code.CODE_BAD_ID, f"ids that begin with {ASSIGNED!r} are the coordinator's own (rule 11): {wanted.id!r}"
            )
        if len(wanted.id.encode()) > limits.id_bytes_max:
            return reason(
                Code.CODE_BAD_ID,
                f"an id has at most {limits.id_bytes_max} bytes; this one has {len(wanted.id.encode())}",
            )
        if wanted.timeout_s > limits.timeout_max_s:
            text = (
                f"a timeout of {wanted.timeout_s:g} s; at most {limits.timeout_max_s:g} s are allowed (timeout_max_s)"
            )
            return reason(Code.CODE_BAD_REQUEST, text)
        if count > limits.operations_max:
            return reason(Code.CODE_TOO_LARGE, f"{count} operations; at most {limits.operations_max} are allowed")
        if size > limits.transaction_bytes_max:
            return reason(
                Code.CODE_TOO_LARGE, f"{size} bytes of operations; at most {limits.transaction_bytes_max} are allowed"
            )
        return None

    def _refuse(self, client: int, id: str, why: Reason) -> None:
        self.refused += 1
        self._out.append(Reply(client, Result(id, Outcome.REFUSED, why)))
        self._out.append(Closed(id, Outcome.REFUSED, why))

    def _join(self, sub: Open, wanted: Submission, waiter: Waiter) -> None:
        """Rule 11: while a submission is open a second one of its id joins it, or is refused for other content."""
        if not sub.looking and sub.digest is not None and sub.digest != wanted.digest:
            self._refuse(waiter.client, wanted.id, taken(wanted.id))
            return
        sub.waiters.append(waiter)
        if not sub.branches and sub.digest is not None:
            # A one-phase attempt found at start: now there is somebody to try it again for.
            sub.branches = wanted.branches
        if sub.attempt is not None and sub.attempt.state is State.DELEGATED:
            sub.deadline = max(sub.deadline, waiter.until)
            self._time(sub.attempt, min(sub.attempt.due, waiter.until))

    def _abort_asked(self, event: AbortAsked) -> None:
        waiter = Waiter(event.client, False, self._now.mono + self.settings.timeout_s)
        sub = self.submissions.get(event.id)
        if sub is None:
            self._fence(event.id, waiter)
        elif sub.looking:
            sub.waiters.append(waiter)
            sub.abort_wanted = True
        elif sub.attempt is None:
            sub.waiters.append(waiter)
            sub.abort_wanted = True
            self._give_up(sub, by_request())
        else:
            if sub.attempt.state is State.PREPARING:
                sub.reason = by_request()
                sub.abort_wanted = True
            self._move(sub.attempt, Input.ABORT_ASKED, waiter)

    def _fence(self, id: str, waiter: Waiter) -> None:
        """`abort ID` of an id that is not open: its outcome from the log, or a durable ABORTED."""
        chosen = not id.startswith(ASSIGNED)
        if not chosen and not self._issued(id):
            why = reason(Code.CODE_BAD_ID, f"{id!r} was never issued by this coordinator")
            self._out.append(Reply(waiter.client, Result(id, Outcome.UNKNOWN, why)))
            return
        if not id or len(id.encode()) > self.settings.id_bytes_max:
            self._refuse(
                waiter.client,
                id,
                reason(Code.CODE_BAD_ID, "an id to abort has at least one byte and at most id_bytes_max"),
            )
            return
        sub = Open(id, chosen=chosen, digest=None, branches=(), now=self._now)
        sub.waiters.append(waiter)
        sub.looking = sub.abort_wanted = True
        self.submissions[id] = sub
        self._recent.open(id)
        self._out.append(LookUp(id))

    def _issued(self, id: str) -> bool:
        try:
            attempt = AttemptId.parse(id)
        except ValueError:
            return False
        return attempt.log == self.log and attempt.number < self._next()

    def _looked_up(self, event: LookedUp) -> None:
        if isinstance(event.key, int):
            self._question_looked_up(event.key, event.entry)
            return
        sub = self.submissions.get(event.key)
        if sub is None or not sub.looking:
            return
        if event.entry is None and not sub.chosen:
            number = AttemptId.parse(sub.id).number
            self._questions.setdefault(number, []).append((sub.id, -1))
            self._out.append(LookUp(number))
            return
        sub.looking = False
        if event.entry is not None:
            self._answer_from_log(sub, event.entry)
        else:
            self._begin_new(sub)

    def _begin_new(self, sub: Open) -> None:
        """The log does not hold the id."""
        time = time_of(sub.id)
        if time is not None and time < self.horizon:
            age = self.horizon - time
            text = f"the id's time lies {age:.0f} s before the horizon: its outcome may have been dropped (rule 11)"
            self._close_refused(sub, reason(Code.CODE_ID_EXPIRED, text))
        elif sub.abort_wanted:
            self._give_up(sub, by_request())
        else:
            self._refuse_others(sub)
            self._begin(sub)

    def _refuse_others(self, sub: Open) -> None:
        """Whoever came with other content while the log was looked through: only now is the id the first one's."""
        for waiter in [each for each in sub.waiters if each.digest not in (None, sub.digest)]:
            sub.waiters.remove(waiter)
            self._refuse(waiter.client, sub.id, taken(sub.id))

    def _answer_from_log(self, sub: Open, entry: Entry) -> None:
        """The id has its outcome: everybody who waits hears it, or that the id is taken by other content."""
        assert entry.state is not None, "an open one-phase attempt is in `submissions`"
        attempt = self.attempts.get(entry.number)
        applied = attempt is None and entry.state is Outcome.COMMITTED
        kept = Result(sub.id, entry.state, entry.reason, rows_not_kept=entry.read, applied=applied)
        for waiter in sub.waiters:
            if None not in (waiter.digest, entry.digest) and waiter.digest != entry.digest:
                self._refuse(waiter.client, sub.id, taken(sub.id))
            elif waiter.wait_applied and attempt is not None:
                attempt.rows_lost = attempt.read and not attempt.rows
                attempt.applied.append(waiter)
            else:
                self._out.append(Reply(waiter.client, kept))
        self._forget(sub)

    def _close_refused(self, sub: Open, why: Reason) -> None:
        for waiter in sub.waiters:
            self._refuse(waiter.client, sub.id, why)
        self._forget(sub)

    def _durable(self, event: Durable) -> None:
        while self._flushes and self._flushes[0][0] <= event.upto:
            self._flushes.popleft()[1]()

    def _horizon_moved(self, event: HorizonMoved) -> None:
        self.horizon = max(self.horizon, event.horizon)

    def _lane_opened(self, event: LaneOpened) -> None:
        lane = self.lanes[event.participant]
        lane.open, lane.why = True, ""
        lane.peer = Peer(event.participant, event.address or lane.address, event.identity)
        lane.identity, lane.incarnation = event.identity, event.incarnation
        if lane.known != event.identity:
            self._new_file(event.participant, lane)
        lane.unanswered.clear()
        for number in sorted(event.questions):
            self._lane_asks(event.participant, number, hello=True)
        for attempt in list(self.attempts.values()):
            if attempt.owed.get(event.participant) == event.identity and attempt.state is State.COMMITTING:
                self._send(event.participant, Commit(attempt.number))
            elif attempt.state is State.DELEGATED and event.participant in attempt.parts:
                self._move(attempt, Input.REMIND)
        self._send(event.participant, self._mark())
        self._unpark()

    def _new_file(self, participant: str, lane: Lane) -> None:
        """Another file under a known name: it can do new work, and answers for nothing that the old one owes."""
        owed = [n for n, attempt in self.attempts.items() if attempt.owed.get(participant) == lane.known]
        if lane.known and owed:
            self._alarm(
                f"{participant} is file {lane.identity} now; {len(owed)} commits are owed to file {lane.known}: "
                "bring it back or settle them with `troth resolve`"
            )
        lane.known = lane.identity
        self._append(Known(participant, lane.identity), forced=False, counted=False)

    def _lane_lost(self, event: LaneLost) -> None:
        lane = self.lanes[event.participant]
        lane.open, lane.why = False, event.why
        lane.unanswered.clear()
        for attempt in list(self.attempts.values()):
            part = attempt.parts.get(event.participant)
            if part is not None and attempt.state is State.PREPARING and part.vote is None:
                text = f"the lane to {event.participant} was lost before its vote: {event.why}"
                self._failed(attempt, reason(Code.CODE_LANE_LOST, text, participant=event.participant))

    def _received(self, event: Received) -> None:
        for message in event.messages:
            _MESSAGES[type(message)](self, event.participant, message)

    def _voted(self, participant: str, message: Voted) -> None:
        attempt = self.attempts.get(message.number)
        part = attempt.parts.get(participant) if attempt else None
        if attempt is None or part is None or attempt.state is not State.PREPARING or part.vote is not None:
            return
        part.vote, part.incarnation = message.vote, message.incarnation
        if message.vote is Vote.NO:
            self._failed(
                attempt, message.reason or reason(Code.CODE_RESOURCE, "no reason given", participant=participant)
            )
            return
        if message.vote is Vote.READ_ONLY and not part.branch.read_only:
            self._alarm(f"rule 6: {participant} voted READ_ONLY for an updating branch of attempt {message.number}")
            part.vote = None
            return
        self._note(attempt.submission, _VOTED[message.vote], participant)
        if message.rows:
            attempt.rows.append(message.rows)
        attempt.missing -= 1
        if attempt.missing:
            self._move(attempt, Input.VOTE)
            return
        stale = self._stale_reader(attempt)
        if stale is not None:
            text = f"{stale} restarted after its READ_ONLY vote: its locks are gone (rule 9)"
            self._failed(attempt, reason(Code.CODE_LANE_LOST, text, participant=stale))
        else:
            self._move(attempt, Input.LAST_VOTE)

    def _stale_reader(self, attempt: Attempt) -> str | None:
        """Rule 9: a READ_ONLY vote counts only from the incarnation of the present lane."""
        for name, part in attempt.parts.items():
            lane = self.lanes[name]
            if part.vote is Vote.READ_ONLY and not (lane.open and lane.incarnation == part.incarnation):
                return name
        return None

    def _one_phase_ended(self, participant: str, message: OnePhaseEnded) -> None:
        attempt = self._delegated(participant, message.number)
        if attempt is None:
            return
        if message.outcome is not Outcome.COMMITTED:
            self._failed(
                attempt, message.reason or reason(Code.CODE_RESOURCE, "no reason given", participant=participant)
            )
            return
        if message.rows:
            attempt.rows.append(message.rows)
        else:
            attempt.rows_lost = attempt.read
        self._committed_alone(attempt)

    def _delegated(self, participant: str, number: int) -> Attempt | None:
        """The open one-phase attempt, if this participant's present file is the one that can answer for it."""
        attempt = self.attempts.get(number)
        if attempt is None or attempt.state is not State.DELEGATED or participant not in attempt.parts:
            return None
        return attempt if attempt.parts[participant].identity == self.lanes[participant].identity else None

    def _acknowledged(self, participant: str, message: Acknowledged) -> None:
        attempt = self.attempts.get(message.number)
        if attempt is None or attempt.owed.get(participant) != self.lanes[participant].identity:
            return
        if message.heuristic is None:
            self._settle_owed(attempt, participant)
            return
        if self._is_heuristic(attempt.number, participant):
            return
        if message.heuristic is not Outcome.COMMITTED:
            name = AttemptId(self.log, attempt.number)
            self._alarm(f"rule 12: {name} is COMMITTED and {participant} was resolved by hand as ABORTED")
        record = Heuristic(attempt.number, participant, message.heuristic, "", self._now.wall)
        self._keep_heuristic(record, lambda: self._settle_owed(attempt, participant), counted=True)

    def _question(self, participant: str, message: Question) -> None:
        self._lane_asks(participant, message.number, hello=False)

    def _lane_asks(self, participant: str, number: int, *, hello: bool) -> None:
        answer = self._answer(self.log, number)
        if answer is None:
            if hello:
                self.lanes[participant].unanswered.add(number)
            self._look_up_question(number, participant, 0)
        elif answer is not Answer.NONE:
            self._send(participant, Answered(number, answer))

    def _asked(self, event: Asked) -> None:
        answer = self._answer(event.log, event.number)
        if answer is None:
            self._look_up_question(event.number, "", event.client)
        else:
            self._out.append(Reply(event.client, answer))

    def _answer(self, log: str, number: int) -> Answer | None:
        """Rule 7, as far as memory knows; None when the log must be looked through."""
        if log != self.log or number >= self._next():
            self._alarm(f"rule 7: asked for attempt {AttemptId(log, number)}, which this log cannot have issued")
            return Answer.NONE
        attempt = self.attempts.get(number)
        if attempt is None:
            return None
        if attempt.state in (State.COMMITTING, State.SETTLING):
            return Answer.COMMITTED
        return Answer.ABORTED if attempt.state is State.RECORDING_ABORT else Answer.PENDING

    def _look_up_question(self, number: int, participant: str, client: int) -> None:
        """One look-up answers all who ask meanwhile; a participant that asks again waits already."""
        waiting = self._questions.setdefault(number, [])
        if not waiting:
            self._out.append(LookUp(number))
        if client or (participant, client) not in waiting:
            waiting.append((participant, client))

    def _question_looked_up(self, number: int, entry: Entry | None) -> None:
        """Presumed abort: what the log does not hold is aborted, for participants only."""
        committed = entry is not None and entry.state is Outcome.COMMITTED
        answer = Answer.COMMITTED if committed else Answer.ABORTED
        ready = False
        for who, client in self._questions.pop(number, []):
            if client < 0:
                self._assigned_looked_up(who, entry)
            elif client:
                self._out.append(Reply(client, answer))
            else:
                lane = self.lanes[who]
                ready |= lane.unanswered == {number}
                lane.unanswered.discard(number)
                self._send(who, Answered(number, answer))
        if ready:  # looking at all that is parked for each answer would take longer than the next question
            self._unpark()

    def _assigned_looked_up(self, id: str, entry: Entry | None) -> None:
        """`abort` of an id that was assigned: presumed abort never answers a client (rule 11). The number in it may be
        that of an attempt of another transaction, which is none of its business."""
        sub = self.submissions[id]
        if entry is not None and entry.id is None:
            self._answer_from_log(sub, entry)
            return
        why = reason(
            Code.CODE_BAD_ID, "the log does not hold this assigned id; it may have committed and left nothing there"
        )
        self._out.extend(Reply(waiter.client, Result(id, Outcome.UNKNOWN, why)) for waiter in sub.waiters)
        self._forget(sub)

    def _answered(self, participant: str, message: Answered) -> None:
        """A participant's answer about a one-phase attempt (rule 13)."""
        attempt = self._delegated(participant, message.number)
        if attempt is None or message.answer is Answer.PENDING:
            return
        if message.answer is Answer.COMMITTED:
            attempt.rows_lost = attempt.read
            self._committed_alone(attempt)
        else:
            text = f"{participant} had not run the one-phase request and refuses it now"
            self._failed(attempt, reason(Code.CODE_LANE_LOST, text, participant=participant))

    def _ticked(self, event: Ticked) -> None:
        for at, due, key in self._timers.due(self._now.mono):
            if due is Due.ATTEMPT:
                if self._may_be_due(at, due, key):
                    self._attempt_due(self.attempts[key])
            elif due is Due.RETRY:
                self._retry_due(key)
            elif due is Due.MARK:
                self._mark_due()
            else:
                self._expire()

    def _attempt_due(self, attempt: Attempt) -> None:
        if attempt.state is State.PREPARING:
            names = [name for name, part in attempt.parts.items() if part.vote is None]
            text = f"no vote in time from {', '.join(names)}"
            self._failed(attempt, reason(Code.CODE_TIMEOUT, text, participant=names[0]))
        elif attempt.state in (State.COMMITTING, State.DELEGATED):
            self._answer_late(attempt)
            self._move(attempt, Input.REMIND)
            self._time(attempt, self._now.mono + self.settings.retry_max_s)
        elif attempt.state is State.CLAIMING:
            self._time(attempt, self._now.mono + self.settings.retry_max_s)

    def _answer_late(self, attempt: Attempt) -> None:
        """Clients whose time is up hear what is known: a decision does not end by a timeout (rules 4, 13)."""
        late = [waiter for waiter in attempt.applied if waiter.until <= self._now.mono]
        for waiter in late:
            attempt.applied.remove(waiter)
            self._reply_committed(attempt, waiter, applied=False)
        sub = attempt.submission
        if attempt.state is State.DELEGATED and sub is not None:
            (name,) = attempt.parts
            for waiter in [waiter for waiter in sub.waiters if waiter.until <= self._now.mono]:
                sub.waiters.remove(waiter)
                self._out.append(Reply(waiter.client, Result(sub.id, Outcome.UNKNOWN, alone(name))))

    def _retry_due(self, id: str) -> None:
        sub = self._parked.get(id)
        if sub is None:
            return
        if self._now.mono >= sub.deadline:
            self._give_up(sub, sub.reason or reason(Code.CODE_TIMEOUT, "the transaction's time is up"))
        elif self._now.mono >= sub.resume:
            del self._parked[id]
            self._begin(sub)

    def _unpark(self) -> None:
        """Submissions that waited for lanes go on, in the order in which they came."""
        for sub in list(self._parked.values()):
            if sub.resume == math.inf and all(self.lanes[branch.participant].ready for branch in sub.branches):
                del self._parked[sub.id]
                self._begin(sub)

    def _mark_due(self) -> None:
        self._marking = False
        mark = self._mark()
        if mark != self._marked:
            self._marked = mark
            for name, lane in self.lanes.items():
                if lane.open:
                    self._send(name, mark)

    def _expire(self) -> None:
        before = self._now.wall - self.settings.answers_kept_s
        # Not the horizon kept, which `restore` moves to the present: the log never moves it back by itself.
        self._append(Expired(before, before, self.settings.answers_max), forced=False, counted=False)
        self._later(self.settings.expire_interval_s, Due.EXPIRE, 0)


_VOTED = {vote: f"voted {vote.name}" for vote in Vote}

_EVENTS: dict[type, Callable[[Coordinator, Any], None]] = {
    Submitted: Coordinator._submitted,
    AbortAsked: Coordinator._abort_asked,
    ResolveAsked: Coordinator._resolve_asked,
    LookedUp: Coordinator._looked_up,
    Decided: Coordinator._decided,
    Durable: Coordinator._durable,
    HorizonMoved: Coordinator._horizon_moved,
    LaneOpened: Coordinator._lane_opened,
    LaneLost: Coordinator._lane_lost,
    Received: Coordinator._received,
    Asked: Coordinator._asked,
    Ticked: Coordinator._ticked,
}

_MESSAGES: dict[type, Callable[[Coordinator, str, Any], None]] = {
    Voted: Coordinator._voted,
    OnePhaseEnded: Coordinator._one_phase_ended,
    Acknowledged: Coordinator._acknowledged,
    Question: Coordinator._question,
    Answered: Coordinator._answered,
}
