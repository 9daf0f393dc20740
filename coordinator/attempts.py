"""What the protocol's actions mean: starting attempts, ending them, and telling participants, the log and clients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from coordinator.base import Base
from coordinator.events import (
    Aborted,
    Claimed,
    Closed,
    Committed,
    Decide,
    Decided,
    Dropped,
    Ended,
    Owed,
    Reply,
    Result,
    Settled,
    Undecide,
)
from coordinator.protocol import TABLE, Action, Input, State
from coordinator.tables import Attempt, Due, Open, Part, Waiter
from coordinator.views import Done
from troth.messages import (
    Abort,
    Commit,
    OnePhase,
    Prepare,
    Question,
    Release,
)
from troth.reasons import reason
from troth.v1.types_pb2 import Code, Reason
from troth.words import AttemptId, Outcome, Vote


class Attempts(Base):
    """The life of attempts; `protocol.py` says which action belongs to which move."""

    def _forget(self, sub: Open) -> None:
        """Leaves no cycle of references behind: the collector looks rarely (`troth.process.GC_THRESHOLDS`)."""
        sub.attempt = None
        del self.submissions[sub.id]
        self._parked.pop(sub.id, None)
        self._out.append(Undecide(sub.id))

    def _begin(self, sub: Open, number: int = 0) -> None:
        """A new attempt on all its lanes in one step; without all lanes the submission is parked until they open.
        A number that was assigned earlier is not taken up again: the mark may have passed it."""
        parts: dict[str, Part] = {}
        read = False
        for branch in sub.branches:
            name = branch.participant
            lane = self.lanes[name]
            if not lane.ready:
                text = f"{name} at {lane.address} cannot be reached: {lane.why}"
                sub.reason = reason(Code.CODE_UNREACHABLE, text, participant=name)
                self._note(sub, "waits for its lane", name)
                self._park(sub, math.inf)
                return
            parts[name] = Part(branch, lane.identity, lane.incarnation)
            read |= branch.reads
        number = number or self._number()
        attempt = sub.attempt = self.attempts[number] = Attempt(number, sub.id, sub, self._now.mono)
        sub.attempts += 1
        attempt.parts, attempt.read = parts, read
        attempt.missing = len(parts)
        attempt.alone = len(sub.branches) == 1 and not sub.branches[0].read_only
        self._time(attempt, min(self._now.mono + self.settings.vote_timeout_s, sub.deadline))
        if not attempt.alone:
            self._move(attempt, Input.PREPARE)
        else:
            self._move(attempt, Input.CLAIM if sub.chosen else Input.DELEGATE)

    def _park(self, sub: Open, resume: float) -> None:
        """Until `resume`, or until its lanes are open when that is infinite; in any case until its deadline."""
        self._parked[sub.id] = sub
        sub.resume = resume
        if resume < sub.deadline:
            self._timers.set(resume, Due.RETRY, sub.id)
        elif sub.timed != sub.deadline:
            sub.timed = sub.deadline
            self._timers.set(sub.deadline, Due.RETRY, sub.id)

    def _failed(self, attempt: Attempt, why: Reason) -> None:
        """The attempt is nobody's commit any more. Rule 11: tried again unless somebody's NO is final or time is up."""
        sub = attempt.submission
        assert sub is not None
        sub.reason = why
        self._note(sub, f"attempt failed: {why.message}", why.participant)
        again = why.retryable and not sub.abort_wanted and self._now.mono + self._pause(sub) < sub.deadline
        if not again and sub.branches:
            self._move(attempt, Input.FAILED_FOR_GOOD)
        else:
            self._move(attempt, Input.FAILED_CLAIMED if attempt.alone and sub.chosen else Input.FAILED)

    def _pause(self, sub: Open) -> float:
        return float(min(self.settings.retry_first_s * 2 ** (sub.attempts - 1), self.settings.retry_max_s))

    def _again(self, attempt: Attempt) -> None:
        """The attempt is over, the submission is not: the next attempt after a pause. Nobody holds the content of a
        one-phase attempt that was found at start and not submitted again: the id is free."""
        sub = attempt.submission
        assert sub is not None
        sub.attempt = None
        if sub.branches:
            self._park(sub, self._now.mono + self._pause(sub))
        else:
            self._forget(sub)

    def _give_up(self, sub: Open, why: Reason) -> None:
        """ABORTED for good without an attempt in flight."""
        sub.reason = why
        self._parked.pop(sub.id, None)
        number = self._number()
        sub.attempt = self.attempts[number] = Attempt(number, sub.id, sub, self._now.mono)
        self._move(sub.attempt, Input.ABANDON)

    def _move(self, attempt: Attempt, given: Input, argument: Any = None) -> None:
        """One step of the table: the state first, then what is done on the way."""
        move = TABLE.get((attempt.state, given))
        if move is None:
            name = AttemptId(self.log, attempt.number)
            self._alarm(f"{given.value} is not possible for attempt {name}, which is {attempt.state.value}")
            return
        action, attempt.state = move
        if attempt.state is State.ENDED:
            self.attempts.pop(attempt.number, None)
            self._mark_soon()
        _ACTIONS[action](self, attempt, argument)

    def _do_nothing(self, attempt: Attempt, _: Any) -> None:
        pass

    def _do_send_prepares(self, attempt: Attempt, _: Any) -> None:
        parts = attempt.parts
        peers = [self.lanes[name].peer for name, part in parts.items() if not part.branch.read_only]
        for name, part in parts.items():
            branch, own = part.branch, self.lanes[name].peer
            others = () if branch.read_only else tuple([peer for peer in peers if peer and peer is not own])
            self._send(name, Prepare(attempt.number, branch.operations, branch.read_only, others))
        self._note(attempt.submission, "prepares sent")

    def _do_claim(self, attempt: Attempt, _: Any) -> None:
        sub = attempt.submission
        assert sub is not None
        assert sub.digest is not None
        (name, part), *_none = attempt.parts.items()
        record = Claimed(
            attempt.number, sub.id, sub.digest, name, part.identity, part.incarnation, attempt.read, self._now.wall
        )
        self._append(record, forced=True, then=lambda: self._move(attempt, Input.DURABLE))

    def _do_send_one_phase(self, attempt: Attempt, _: Any) -> None:
        """Never to another incarnation than the record names: there the participant is asked instead."""
        (name, part), *_none = attempt.parts.items()
        lane = self.lanes[name]
        if lane.ready and (lane.identity, lane.incarnation) == (part.identity, part.incarnation):
            self._send(name, OnePhase(attempt.number, part.branch.operations, part.incarnation))
            self._note(attempt.submission, "one-phase request sent", name)
        else:
            self._do_ask(attempt, None)

    def _do_ask(self, attempt: Attempt, _: Any) -> None:
        (name, part), *_none = attempt.parts.items()
        lane = self.lanes.get(name)
        if lane is not None and lane.open and lane.identity == part.identity:
            self._send(name, Question(attempt.number))

    def _do_ask_register_commit(self, attempt: Attempt, _: Any) -> None:
        assert attempt.submission is not None
        self._out.append(Decide(attempt.submission.id, attempt.number, Outcome.COMMITTED))

    def _do_ask_register_abort(self, attempt: Attempt, waiter: Waiter | None) -> None:
        assert attempt.submission is not None
        if waiter is not None:
            attempt.submission.waiters.append(waiter)
        self._out.append(Decide(attempt.submission.id, attempt.number, Outcome.ABORTED))

    def _do_tell_abort(self, attempt: Attempt, _: Any) -> None:
        self._tell_abort(attempt)
        self._again(attempt)

    def _tell_abort(self, attempt: Attempt) -> None:
        if attempt.alone:
            return
        for name, part in attempt.parts.items():
            if part.vote is Vote.READ_ONLY:
                self._send(name, Release(attempt.number))
            elif part.vote is not Vote.NO:
                self._send(name, Abort(attempt.number))

    def _do_drop(self, attempt: Attempt, _: Any) -> None:
        """The mark passes the number only when this is durable: a claim found again is asked about, and below the mark
        nobody answers."""
        self._append(Dropped(attempt.number), forced=False, then=lambda: self._move(attempt, Input.DURABLE))
        self._again(attempt)

    def _do_record_commit(self, attempt: Attempt, _: Any) -> None:
        sub = attempt.submission
        assert sub is not None
        assert sub.digest is not None
        parts = attempt.parts.values()
        owed = tuple([Owed(part.branch.participant, part.identity, part.vote is Vote.YES) for part in parts])
        attempt.owed = {each.participant: each.identity for each in owed if each.updating}
        id = sub.id if sub.chosen or attempt.number != sub.first else None
        record = Committed(attempt.number, id, sub.digest, owed, attempt.read, self._now.wall)
        given = Input.DURABLE if attempt.owed else Input.DURABLE_READS
        self._append(record, forced=True, then=lambda: self._move(attempt, given))

    def _do_record_abort(self, attempt: Attempt, _: Any) -> None:
        sub = attempt.submission
        assert sub is not None
        assert sub.reason is not None
        self._tell_abort(attempt)
        digest = None if sub.abort_wanted else sub.digest
        record = Aborted(attempt.number, sub.id, digest, sub.reason, self._now.wall)
        self._append(record, forced=True, then=lambda: self._move(attempt, Input.DURABLE))

    def _do_answer_aborted(self, attempt: Attempt, _: Any) -> None:
        self._tell_abort(attempt)
        self._do_close_aborted(attempt, _)

    def _do_close_aborted(self, attempt: Attempt, _: Any) -> None:
        self._close(attempt, Outcome.ABORTED)

    def _do_tell_commit(self, attempt: Attempt, _: Any) -> None:
        """The client first: it waits, and the participants are prepared (rule 3)."""
        self._note(attempt.submission, "decided COMMITTED")
        self._time(attempt, self._now.mono + self.settings.retry_max_s)
        self._close(attempt, Outcome.COMMITTED)
        for name, part in attempt.parts.items():
            if part.vote is Vote.READ_ONLY:
                self._send(name, Release(attempt.number))
            elif self.lanes[name].identity == part.identity:
                self._send(name, Commit(attempt.number))

    def _do_release(self, attempt: Attempt, _: Any) -> None:
        self._close(attempt, Outcome.COMMITTED)
        for name in attempt.parts:
            self._send(name, Release(attempt.number))

    def _do_end(self, attempt: Attempt, _: Any) -> None:
        self._append(Ended(attempt.number, self._now.wall), forced=False)
        for waiter in attempt.applied:
            self._reply_committed(attempt, waiter, applied=True)
        done = self.done.get(attempt.id)
        if done is not None:
            done.end(self._now.wall)

    def _do_settle(self, attempt: Attempt, _: Any) -> None:
        self._append(
            Settled(attempt.number, self._now.wall), forced=False, then=lambda: self._move(attempt, Input.DURABLE)
        )
        self._close(attempt, Outcome.COMMITTED)

    def _do_answer_committed(self, attempt: Attempt, _: Any) -> None:
        self._close(attempt, Outcome.COMMITTED)

    def _do_send_again(self, attempt: Attempt, _: Any) -> None:
        for name, identity in attempt.owed.items():
            lane = self.lanes[name]
            if lane.open and lane.identity == identity:
                self._send(name, Commit(attempt.number))

    def _do_join(self, attempt: Attempt, waiter: Waiter) -> None:
        assert attempt.submission is not None
        attempt.submission.waiters.append(waiter)

    def _do_say_pending(self, attempt: Attempt, waiter: Waiter) -> None:
        (name,) = attempt.parts
        assert attempt.submission is not None
        self._out.append(Reply(waiter.client, Result(attempt.submission.id, Outcome.UNKNOWN, alone(name))))

    def _close(self, attempt: Attempt, outcome: Outcome) -> None:
        """The outcome is known and, where that was promised, durable: everybody who waits hears it."""
        sub = attempt.submission
        assert sub is not None
        committed = outcome is Outcome.COMMITTED
        why = None if committed else sub.reason
        for waiter in sub.waiters:
            if not committed:
                self._out.append(Reply(waiter.client, Result(sub.id, outcome, why, attempts=sub.attempts)))
            elif waiter.wait_applied and attempt.owed:
                attempt.applied.append(waiter)
            else:
                self._reply_committed(attempt, waiter, applied=not attempt.owed)
        if committed:
            self.committed += 1
        else:
            self.aborted += 1
        self._note(sub, outcome.name)
        self._out.append(Closed(sub.id, outcome, why))
        ended_at = 0.0 if attempt.owed else self._now.wall
        self.done[sub.id] = Done(
            sub.id, outcome, why, attempt.number, tuple(attempt.parts), sub.submitted_at, ended_at, sub.steps
        )
        self._forget(sub)

    def _reply_committed(self, attempt: Attempt, waiter: Waiter, *, applied: bool) -> None:
        rows = b"".join(attempt.rows)
        attempts = attempt.submission.attempts if attempt.submission else 0
        lost = attempt.rows_lost
        self._out.append(
            Reply(waiter.client, Result(attempt.id, Outcome.COMMITTED, None, rows, lost, applied, attempts))
        )

    def _decided(self, event: Decided) -> None:
        sub = self.submissions.get(event.id)
        if sub is None or sub.attempt is None or sub.attempt.state not in (State.DECIDING, State.ABORTING):
            return
        attempt = sub.attempt
        if event.outcome is Outcome.ABORTED:
            if attempt.state is State.DECIDING:
                sub.reason = by_request()
                self._move(attempt, Input.LOST_DECISION)
            else:
                self._move(attempt, Input.WON_ABORT if sub.chosen else Input.WON_ABORT_ASSIGNED)
        elif event.number != attempt.number:
            self._alarm(f"rule 11: {event.id} is committed by attempt {event.number}, not by {attempt.number}")
        else:
            unwritten = not sub.chosen and all(part.vote is Vote.READ_ONLY for part in attempt.parts.values())
            self._move(attempt, Input.WON_READS if unwritten else Input.WON_COMMIT)

    def _committed_alone(self, attempt: Attempt) -> None:
        assert attempt.submission is not None
        chosen = attempt.submission.chosen
        self._move(attempt, Input.COMMITTED_ALONE if chosen else Input.COMMITTED_ALONE_ASSIGNED)

    def _settle_owed(self, attempt: Attempt, participant: str) -> None:
        if attempt.owed.pop(participant, None) is None or attempt.state is not State.COMMITTING:
            return
        self._move(attempt, Input.ACKNOWLEDGED if attempt.owed else Input.LAST_ACKNOWLEDGED)


def taken(id: str) -> Reason:
    return reason(Code.CODE_ID_TAKEN, f"the id {id!r} is taken by a transaction of other content (rule 11)")


def by_request() -> Reason:
    return reason(Code.CODE_ABORTED_BY_REQUEST, "somebody asked for the abort")


def alone(participant: str) -> Reason:
    text = f"{participant} decides this one-phase transaction and has not answered; ask again with the same id"
    return reason(Code.CODE_TIMEOUT, text, participant=participant)


_ACTIONS: dict[Action, Callable[[Attempts, Attempt, Any], None]] = {
    action: getattr(Attempts, f"_do_{action.name.lower()}") for action in Action
}
