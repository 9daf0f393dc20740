"""All branches of one participant process, without clock, network, disk or randomness.

`Participant.step(event, now)` takes one event and returns the effects in order; the same events give the same
effects. What a branch may do is the table of `protocol.py`; here is what the actions mean: locks, jobs for the
writer, messages. The driver (and the simulator) carry the effects out.

Invariants: a branch is in the lock table from its arrival until the job that ends it is queued. Whatever promises
something (a YES, an acknowledgement, an answer given for a peer) leaves from `_flushed`, after its job is durable.

With a resource outside the file (`resources/outside.py`) a branch's job is carried out there first and queued then
(`_carry_out`, `_carried`), so its locks are kept until the server has ended it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from participant.asks import Ask, Asks
from participant.events import (
    Alarm,
    Apply,
    AskCoordinator,
    AskPeer,
    BranchJob,
    Carried,
    Carry,
    Contradict,
    CoordinatorAnswered,
    Denied,
    Effect,
    Ended,
    Event,
    Flushed,
    Forget,
    FoundEnded,
    Hello,
    Job,
    LaneLost,
    LaneOpened,
    Learn,
    Note,
    PeerAnswered,
    PeerAsked,
    Received,
    Recovered,
    Refused,
    Reply,
    Resolve,
    ResolveAsked,
    RunAlone,
    Send,
    Ticked,
    Tried,
    Try,
    Undo,
    WakeAt,
    Write,
)
from participant.locks import Changes, Hopeless, LockTable
from participant.protocol import TABLE, Action, Input, State
from participant.resources import LockName, No, Plan
from participant.settings import ParticipantSettings
from participant.tables import Branch, Due, Log
from participant.views import Views, lock_text
from troth.messages import (
    Abort,
    Acknowledged,
    Answered,
    Commit,
    Mark,
    OnePhase,
    OnePhaseEnded,
    Prepare,
    Question,
    Release,
    ToCoordinator,
    Voted,
)
from troth.reasons import reason
from troth.timers import Timers
from troth.v1.types_pb2 import Code, Reason
from troth.values import to_value
from troth.words import Answer, AttemptId, Now, Outcome, Vote

ALARMS_MAX = 1_000
"""Alarms remembered, so that what somebody says again every second is raised once."""

IN_DOUBT = frozenset({State.PREPARED, State.READ_ONLY, State.HEURISTIC})
"""States whose branches ask."""

REMEMBERED = frozenset({State.COMMITTED, State.DENIED, State.ABORTED})
"""States that are dropped once the low-water mark has passed."""

TELLING = frozenset({State.WAITING, State.TRYING, State.RUNNING, State.COMMITTING, State.LEARNING})
"""States that end in a vote or an acknowledgement: single calls wait for it."""


class Ending(NamedTuple):
    """A job of a branch, and what follows it."""

    job: BranchJob
    branch: Branch
    forced: bool
    counted: bool = True
    """False for a trial: it is counted when it has left a record."""
    moves: bool = True
    """The branch moves when the record is durable."""
    caller: int | None = None
    """Who hears of it then."""
    applied: bool | None = None
    """The job ends the branch: its locks go as it is queued, with its adds in effect or not."""


class Participant(Views):
    """The node. `plan` is the resource's pure planner; `outside` says that the data are not in the vote log's file."""

    def __init__(
        self,
        name: str,
        identity: str,
        incarnation: int,
        settings: ParticipantSettings,
        plan: Callable[[bytes], Plan],
        recovered: Recovered,
        *,
        outside: bool = False,
    ) -> None:
        self.name = name
        self.identity = identity
        self.incarnation = incarnation
        self.settings = settings
        self.logs: dict[str, Log] = {}
        self.lock_table = LockTable()
        self.forced = 0
        self.lazy = 0
        self._plan = plan
        self._outside = outside
        self._carrying: dict[int, Ending] = {}
        self._carries = 0
        self._recovered = recovered
        self._out: list[Effect] = []
        self._todo: deque[tuple[Branch, Input, Any]] = deque()
        self._n = 0
        self._flushes: deque[tuple[int, Branch | None, int | None]] = deque()
        self._timers: Timers[Due, AttemptId] = Timers(self._may_be_due)
        self._asks = Asks(self._in_doubt_here)
        self._alarmed: dict[str, None] = {}
        self._now = Now(0.0, 0.0)

    def start(self, now: Now) -> list[Effect]:
        """Takes up what the vote log held: locks are taken again before anything is served."""
        self._now = now
        found = self._recovered
        for log, mark in found.marks:
            self._log(log).join(mark)
        for log, address in found.addresses:
            self._log(log).address = address
        for attempt, outcome in found.finished:
            branch = self._found(attempt)
            branch.state = State.COMMITTED if outcome is Outcome.COMMITTED else State.ABORTED
            self._remember(branch)
        for one in found.prepared:
            branch = self._found(one.attempt)
            branch.state, branch.operations, branch.plan, branch.peers = (
                State.PREPARED,
                one.operations,
                one.plan,
                one.peers,
            )
            branch.from_before, branch.why = self._outside, "found at start"
            self.lock_table.hold(one.attempt, one.plan.locks, one.values)
            self._later(self.settings.inquiry_after_s, Due.INQUIRE, one.attempt)
        for heuristic in found.heuristics:
            branch = self._found(heuristic.attempt)
            branch.state = State.LEARNED if heuristic.known else State.HEURISTIC
            branch.done, branch.known, branch.peers = heuristic.done, heuristic.known, heuristic.peers
            self._look_if_torn(branch)
            if not heuristic.known:
                self._later(self.settings.inquiry_after_s, Due.INQUIRE, heuristic.attempt)
        for each in self.logs.values():
            self._drop_below(each)
        self._recovered = Recovered((), (), (), (), ())
        return self._effects()

    def step(self, event: Event, now: Now) -> list[Effect]:
        """One event in, its effects out, in order."""
        self._now = now
        _EVENTS[type(event)](self, event)
        while self._todo:
            self._move(*self._todo.popleft())
        return self._effects()

    # Events.

    def _lane_opened(self, event: LaneOpened) -> None:
        log = self._log(event.log)
        log.lane = event.lane
        if log.address != event.address:
            log.address = event.address
            self._write(Note(log.name, event.address), forced=False, counted=False)
        asking = sorted(n for n, branch in log.branches.items() if branch.state in IN_DOUBT)
        self._out.append(Hello(event.lane, tuple(asking)))

    def _lane_lost(self, event: LaneLost) -> None:
        for log in self.logs.values():
            if log.lane == event.lane:
                log.lane = None

    def _received(self, event: Received) -> None:
        log = self._log(event.log)
        for message in event.messages:
            _MESSAGES[type(message)](self, log, message, event.caller)
            while self._todo:
                self._move(*self._todo.popleft())

    def _prepare(self, log: Log, message: Prepare, caller: int | None) -> None:
        branch = self._branch(log, message.number)
        if self._differs(branch, message.operations, message.read_only, alone=False, caller=caller):
            return
        if branch.state is State.UNKNOWN:
            branch.operations, branch.read_only, branch.peers = message.operations, message.read_only, message.peers
        if caller is not None:
            branch.callers.append(caller)
        ended = branch.state is State.UNKNOWN and log.below(message.number)
        self._move(branch, Input.PREPARE_ENDED if ended else Input.PREPARE)

    def _one_phase(self, log: Log, message: OnePhase, caller: int | None) -> None:
        branch = self._branch(log, message.number)
        if self._differs(branch, message.operations, read_only=False, alone=True, caller=caller):
            return
        given = Input.ONE_PHASE
        branch.alone = True  # also when it is only remembered: what it is told is the end of a one-phase request
        if branch.state is State.UNKNOWN:
            branch.operations = message.operations
            if message.incarnation != self.incarnation:
                given = Input.ONE_PHASE_FOREIGN
            elif log.below(message.number):
                given = Input.ONE_PHASE_ENDED
        self._move(branch, given)

    def _differs(self, branch: Branch, operations: bytes, read_only: bool, *, alone: bool, caller: int | None) -> bool:
        """Rule 8: the same number with other content is an alarm. What was found at start or only remembered has no
        content to compare."""
        if branch.state is State.UNKNOWN or not branch.operations:
            return False
        if (branch.operations, branch.read_only, branch.alone) == (operations, read_only, alone):
            return False
        text = f"rule 8: attempt {branch.attempt} came again with other content; it is {branch.state.value}"
        self._alarm(text)
        if caller is not None:
            self._out.append(Reply(caller, Refused(text)))
        return True

    def _commit(self, log: Log, message: Commit, caller: int | None) -> None:
        branch = self._branch(log, message.number)
        if caller is not None:
            branch.callers.append(caller)
        ended = branch.state is State.UNKNOWN and log.below(message.number)
        if not self._contradicts(branch, Outcome.COMMITTED, caller):
            self._move(branch, Input.COMMIT_ENDED if ended else Input.COMMIT, caller)

    def _abort(self, log: Log, message: Abort, caller: int | None) -> None:
        branch = self._branch(log, message.number)
        contradicts = self._contradicts(branch, Outcome.ABORTED, None)
        if not contradicts and (branch.state is not State.UNKNOWN or not log.below(message.number)):
            self._move(branch, Input.ABORT)
        if caller is not None:
            committed = contradicts or branch.state in (State.RUNNING, State.COMMITTING, State.COMMITTED)
            refused = Refused(f"{branch.attempt} is {branch.state.value} and cannot be aborted")
            self._out.append(Reply(caller, refused if committed else Acknowledged(message.number)))

    def _contradicts(self, branch: Branch, outcome: Outcome, caller: int | None) -> bool:
        """The true outcome of a branch that a person resolved was learned once; another one is an alarm (rule 7)."""
        if branch.known is None or branch.known is outcome:
            return False
        self._refuse_call(branch, caller)
        name = branch.known.name
        self._alarm(f"rule 7: {branch.attempt} is {name}, and its coordinator now says {outcome.name}")
        return True

    def _release(self, log: Log, message: Release, caller: int | None) -> None:
        self._move(self._branch(log, message.number), Input.RELEASE)
        if caller is not None:
            self._out.append(Reply(caller, Acknowledged(message.number)))

    def _question(self, log: Log, message: Question, caller: int | None) -> None:
        """The coordinator asks about a one-phase attempt (rule 13)."""
        branch = self._branch(log, message.number)
        ended = branch.state is State.UNKNOWN and log.below(message.number)
        self._move(branch, Input.COORDINATOR_ASKS_ENDED if ended else Input.COORDINATOR_ASKS)

    def _mark(self, log: Log, message: Mark, caller: int | None) -> None:
        log.join(message)
        self._drop_below(log)
        self._forget_soon(log)

    def _forget_soon(self, log: Log) -> None:
        if not log.dirty:
            log.dirty = True
            self._later(self.settings.forget_interval_s, Due.FORGET, AttemptId(log.name, 0))

    def _forget(self, log: Log) -> None:
        """Has the mark written, and what is below it forgotten. What is at a resource outside is excepted: its record
        is one more to be forgotten, and until that is written the resource's memory is all that there is of it."""
        log.dirty = False
        self._drop_below(log)
        carried = {ending.branch.attempt for ending in self._carrying.values()}
        kept = {attempt.number for attempt in carried if attempt.log == log.name and log.below(attempt.number)}
        owners = (owner for owner in self.lock_table if isinstance(owner, AttemptId) and owner.log == log.name)
        held = sorted(owner.number for owner in owners if log.below(owner.number))
        mark = Mark(log.low, tuple(sorted(log.excepted | kept)))
        self._write(Forget(log.name, mark, tuple(held)), forced=False, counted=False)

    def _answered(self, log: Log, message: Answered, caller: int | None) -> None:
        branch = log.branches.get(message.number)
        if branch is not None:
            self._heard(branch, message.answer, "the coordinator")

    def _coordinator_answered(self, event: CoordinatorAnswered) -> None:
        self._out.extend(self._asks.ended(event.attempt, None))
        if not self._in_doubt_here(event.attempt):
            return
        branch = self.logs[event.attempt.log].branches[event.attempt.number]
        if event.answer is None or event.answer is Answer.NONE:
            branch.why = "the coordinator did not answer"
            if branch.state is not State.READ_ONLY:
                self._ask_peers(branch)
        else:
            self._heard(branch, event.answer, "the coordinator")

    def _peer_answered(self, event: PeerAnswered) -> None:
        self._out.extend(self._asks.ended(event.attempt, event.peer))
        if not self._in_doubt_here(event.attempt):
            return
        branch = self.logs[event.attempt.log].branches[event.attempt.number]
        if event.answer in (Answer.COMMITTED, Answer.ABORTED):
            assert event.answer is not None
            self._heard(branch, event.answer, event.peer.participant)
        else:
            branch.why = f"the coordinator did not answer; {event.peer.participant} may not say"

    def _in_doubt_here(self, attempt: AttemptId) -> bool:
        branch = self.logs[attempt.log].branches.get(attempt.number)
        return branch is not None and branch.state in IN_DOUBT

    def _heard(self, branch: Branch, answer: Answer, who: str) -> None:
        """An answer to an inquiry. Only branches that ask listen: answers may come late and twice."""
        if branch.state not in IN_DOUBT:
            return
        branch.asked_at = None
        branch.why = f"{who} said {answer.name}"
        if answer is Answer.COMMITTED:
            self._move(branch, Input.COMMIT)
        elif answer is Answer.ABORTED:
            self._move(branch, Input.ABORT)

    def _peer_asked(self, event: PeerAsked) -> None:
        if event.identity != self.identity:
            self._out.append(Reply(event.caller, Answer.NONE))
            return
        log = self._log(event.attempt.log)
        branch = self._branch(log, event.attempt.number)
        ended = branch.state is State.UNKNOWN and log.below(event.attempt.number)
        if branch.read_only:
            # A read-only branch keeps no trace, so it never vouches (rule 6).
            self._out.append(Reply(event.caller, Answer.NONE))
        else:
            self._move(branch, Input.PEER_ASKS_ENDED if ended else Input.PEER_ASKS, event.caller)

    def _resolve_asked(self, event: ResolveAsked) -> None:
        branch = self._log(event.attempt.log).branches.get(event.attempt.number)
        if branch is None or branch.state is not State.PREPARED:
            state = "not known here" if branch is None else branch.state.value.replace("_", " ")
            self._out.append(
                Reply(event.caller, Refused(f"only a branch in doubt can be resolved: {event.attempt} is {state}"))
            )
            return
        given = Input.RESOLVE_COMMIT if event.outcome is Outcome.COMMITTED else Input.RESOLVE_ABORT
        self._move(branch, given, event)

    def _found_ended(self, event: FoundEnded) -> None:
        """Somebody has resolved the branch at the server, so it is one that a person resolved (rule 12)."""
        branch = self._log(event.attempt.log).branches.get(event.attempt.number)
        if branch is None or branch.state is not State.PREPARED:
            return
        self._alarm(f"rule 12: {event.attempt} was ended as {event.outcome.name} at the server, not by {self.name}")
        given = Input.RESOLVE_COMMIT if event.outcome is Outcome.COMMITTED else Input.RESOLVE_ABORT
        self._move(branch, given, event)

    def _carried(self, event: Carried) -> None:
        ending = self._carrying.pop(event.n)
        branch, job, result = ending.branch, ending.job, event.result
        branch.carrying -= 1
        if isinstance(result, Ended):
            self._contradicted(ending, result.found)
        elif isinstance(result, Denied) or (isinstance(result, Tried) and branch.read_only):
            self._tried(branch, result)  # nothing is to be recorded; what was read is durable at the server
        elif not isinstance(result, Tried):
            self._record(ending)
        elif branch.state is State.TRYING or branch.state is State.RUNNING:
            assert isinstance(job, Try | RunAlone)
            self._record(ending._replace(job=job._replace(tried=result)))
        log = self.logs[branch.attempt.log]
        if log.below(branch.attempt.number):
            self._forget_soon(log)

    def _contradicted(self, ending: Ending, found: Outcome) -> None:
        branch, job = ending.branch, ending.job
        branch.done = found
        if isinstance(job, Resolve):
            self._record(ending._replace(job=job._replace(outcome=found), applied=found is Outcome.COMMITTED))
        else:
            branch.known = Outcome.COMMITTED if isinstance(job, Apply) else Outcome.ABORTED
            self._move(branch, Input.CONTRADICTED)

    def _flushed(self, event: Flushed) -> None:
        results = dict(event.results)
        while self._flushes and self._flushes[0][0] <= event.upto:
            n, branch, caller = self._flushes.popleft()
            result = results.get(n)
            if branch is None:
                continue
            if caller is not None:
                done = branch.done.name if branch.done else ""
                self._out.append(
                    Reply(caller, f"{branch.attempt} is resolved by hand as {done} at {self.name}; it goes on asking")
                )
            elif result is None:
                self._move(branch, Input.DURABLE)
            else:
                self._tried(branch, result)

    def _tried(self, branch: Branch, result: Tried | Denied) -> None:
        """A trial came back. A branch that was aborted meanwhile no longer waits for it."""
        if isinstance(result, Tried) and not branch.read_only:
            self.forced += 1
        if branch.state is not State.TRYING and branch.state is not State.RUNNING:
            return
        if isinstance(result, Denied):
            self._move(branch, Input.TRIED_NO, result.reason)
            return
        branch.rows = result.rows
        if result.values and branch.attempt in self.lock_table:
            self._changed(self.lock_table.learn(branch.attempt, result.values))
        self._move(branch, Input.TRIED_READ_ONLY if branch.read_only else Input.TRIED)

    def _ticked(self, event: Ticked) -> None:
        for at, due, attempt in self._timers.due(self._now.mono):
            log = self.logs[attempt.log]
            if due is Due.FORGET:
                self._forget(log)
            elif self._may_be_due(at, due, attempt):
                branch = log.branches[attempt.number]
                if due is Due.LOCK:
                    self._move(branch, Input.NOT_GRANTED, self._lock_timeout(branch))
                else:
                    self._move(branch, Input.INQUIRE)
                    self._later(self.settings.inquiry_max_s, Due.INQUIRE, attempt)

    def _may_be_due(self, at: float, due: Due, attempt: AttemptId) -> bool:
        if due is Due.INQUIRE:
            return self._in_doubt_here(attempt)
        return due is Due.FORGET or self.lock_table.waits(attempt)

    # Moving.

    def _move(self, branch: Branch, given: Input, argument: Any = None) -> None:
        """One step of the table: the state first, then what is done on the way."""
        move = TABLE.get((branch.state, given))
        if move is None:
            self._alarm(f"{given.value} is not possible for attempt {branch.attempt}, which is {branch.state.value}")
            self._refuse_call(branch, argument)
            return
        action, state = move
        change = _CHANGES.get((branch.state, state))
        branch.state = state
        if change is not None:
            change(self, branch)
        _ACTIONS[action](self, branch, argument)
        if branch.callers:
            self._let_callers_go(branch)

    # What a move changes beside the branch's own state.

    def _appear(self, branch: Branch) -> None:
        self.logs[branch.attempt.log].branches[branch.attempt.number] = branch
        if branch.state in REMEMBERED:
            self._end(branch)

    def _vanish(self, branch: Branch) -> None:
        del self.logs[branch.attempt.log].branches[branch.attempt.number]

    def _end(self, branch: Branch) -> None:
        log, number = self.logs[branch.attempt.log], branch.attempt.number
        heapq.heappush(log.remembered, number)
        if log.below(number):
            self._forget_soon(log)

    def _let_callers_go(self, branch: Branch) -> None:
        """Single calls for which neither a vote nor an acknowledgement will come hear how the branch stands."""
        if branch.state not in TELLING:
            for caller in list(branch.callers):
                self._refuse_call(branch, caller)

    def _refuse_call(self, branch: Branch, caller: Any) -> None:
        if caller in branch.callers:
            branch.callers.remove(caller)
            self._out.append(Reply(caller, Refused(f"{branch.attempt} is {branch.state.value} here")))

    def _do_nothing(self, branch: Branch, _: Any) -> None:
        pass

    def _do_alarm(self, branch: Branch, caller: int | None) -> None:
        self._refuse_call(branch, caller)
        self._alarm(
            f"rule 7: {branch.attempt} is {branch.state.value} here and its coordinator says otherwise; "
            "nothing was changed, a person must look"
        )

    def _do_queue(self, branch: Branch, _: Any) -> None:
        try:
            branch.plan = plan = self._plan(branch.operations)
        except No as no:
            self._todo.append((branch, Input.NOT_GRANTED, no.reason))
            return
        if branch.read_only and not plan.read_only:
            wrong = reason(Code.CODE_BAD_OPERATION, "a branch sent as read-only has an operation that writes")
            self._todo.append((branch, Input.NOT_GRANTED, wrong))
            return
        self._changed(self.lock_table.request(branch.attempt, plan.locks))
        if self.lock_table.waits(branch.attempt):
            self._later(self.settings.lock_timeout_s, Due.LOCK, branch.attempt)

    def _do_try(self, branch: Branch, _: Any) -> None:
        assert branch.plan is not None
        job = Try(branch.attempt, branch.operations, branch.plan, branch.read_only, branch.peers, self._now.wall)
        self._carry_out(Ending(job, branch, forced=True, counted=False))

    def _do_run(self, branch: Branch, _: Any) -> None:
        assert branch.plan is not None
        job = RunAlone(branch.attempt, branch.operations, branch.plan, self._now.wall)
        # The job is the record that ends it. Increments stay: others count with the value that it leaves.
        increments = any(lock.adds for lock in branch.plan.locks)
        self._carry_out(Ending(job, branch, forced=True, counted=False, applied=None if increments else True))

    def _do_vote_yes(self, branch: Branch, _: Any) -> None:
        self._later(self.settings.inquiry_after_s, Due.INQUIRE, branch.attempt)
        self._tell(branch, Voted(branch.attempt.number, Vote.YES, self.incarnation, branch.rows))

    def _do_vote_read_only(self, branch: Branch, _: Any) -> None:
        self._later(self.settings.inquiry_after_s, Due.INQUIRE, branch.attempt)
        self._tell(branch, Voted(branch.attempt.number, Vote.READ_ONLY, self.incarnation, branch.rows))

    def _do_vote_no(self, branch: Branch, why: Reason) -> None:
        branch.reason = self._mine(why)
        self._unlock(branch, applied=False)
        self._say_no(branch, branch.reason)

    def _do_vote_no_ended(self, branch: Branch, _: Any) -> None:
        self._say_no(branch, self._mine(reason(Code.CODE_ENDED, "the attempt had ended here before it was prepared")))

    def _do_vote_again(self, branch: Branch, _: Any) -> None:
        if branch.from_before:
            return  # who asked for its vote has had it, or has aborted as the lane was lost
        if branch.state is State.PREPARED:
            self._tell(branch, Voted(branch.attempt.number, Vote.YES, self.incarnation, branch.rows))
        elif branch.state is State.READ_ONLY:
            self._tell(branch, Voted(branch.attempt.number, Vote.READ_ONLY, self.incarnation, branch.rows))
        else:
            assert branch.reason is not None
            self._say_no(branch, branch.reason)

    def _do_tell_committed(self, branch: Branch, _: Any) -> None:
        self._unlock(branch, applied=True)
        self._tell(branch, OnePhaseEnded(branch.attempt.number, Outcome.COMMITTED, branch.rows))
        branch.rows = b""

    def _do_apply(self, branch: Branch, _: Any) -> None:
        assert branch.plan is not None
        job = Apply(branch.attempt, branch.operations, branch.plan, self._now.wall)
        branch.rows = b""
        self._carry_out(Ending(job, branch, forced=True, applied=True))

    def _do_acknowledge(self, branch: Branch, _: Any) -> None:
        self._tell(branch, Acknowledged(branch.attempt.number))

    def _do_undo(self, branch: Branch, _: Any) -> None:
        job = Undo(branch.attempt, branch.plan, self._now.wall)
        self._carry_out(Ending(job, branch, forced=False, moves=False, applied=False))

    def _do_unlock(self, branch: Branch, _: Any) -> None:
        self._unlock(branch, applied=False)

    def _do_refuse(self, branch: Branch, caller: int) -> None:
        self._unlock(branch, applied=False)
        self._do_refuse_again(branch, caller)
        why = reason(Code.CODE_REFUSED_FOR_PEER, "another participant in doubt asked before the vote")
        branch.reason = self._mine(why)
        self._say_no(branch, branch.reason)

    def _do_refuse_again(self, branch: Branch, caller: int) -> None:
        branch.peer_callers.append(caller)
        self._carry_out(Ending(Undo(branch.attempt, branch.plan, self._now.wall), branch, forced=True))

    def _do_answer_later(self, branch: Branch, caller: int) -> None:
        branch.peer_callers.append(caller)

    def _do_answer_peers(self, branch: Branch, _: Any) -> None:
        self._out.extend(Reply(caller, Answer.ABORTED) for caller in branch.peer_callers)
        branch.peer_callers.clear()

    def _do_say_pending(self, branch: Branch, _: Any) -> None:
        self._send(branch, Answered(branch.attempt.number, Answer.PENDING))

    def _do_say_committed(self, branch: Branch, caller: int | None) -> None:
        self._say(branch, Answer.COMMITTED, caller)

    def _do_say_aborted(self, branch: Branch, caller: int | None) -> None:
        self._say(branch, Answer.ABORTED, caller)

    def _do_say_known(self, branch: Branch, caller: int | None) -> None:
        self._say(branch, Answer.COMMITTED if branch.known is Outcome.COMMITTED else Answer.ABORTED, caller)

    def _do_say_nothing(self, branch: Branch, caller: int | None) -> None:
        if caller is not None:
            self._out.append(Reply(caller, Answer.NONE))

    def _do_ask(self, branch: Branch, _: Any) -> None:
        self._do_ask_coordinator(branch, _)
        assert branch.asked_at is not None
        if self._now.mono - branch.asked_at >= self.settings.ask_peers_after_s:
            self._ask_peers(branch)

    def _do_ask_coordinator(self, branch: Branch, _: Any) -> None:
        log = self.logs[branch.attempt.log]
        if branch.asked_at is None:
            branch.asked_at = self._now.mono
            branch.why = "the coordinator was asked and has not answered"
        if log.lane is not None:
            self._send(branch, Question(branch.attempt.number))
        elif log.address:
            self._ask(AskCoordinator(branch.attempt, log.address))

    def _do_resolve(self, branch: Branch, event: ResolveAsked | FoundEnded) -> None:
        assert branch.plan is not None
        branch.done = event.outcome
        why, caller = "found so at the server", None
        if isinstance(event, ResolveAsked):
            why, caller = event.reason, event.caller
        job = Resolve(branch.attempt, branch.operations, branch.plan, event.outcome, why, self._now.wall)
        applied = event.outcome is Outcome.COMMITTED
        self._carry_out(Ending(job, branch, forced=True, moves=caller is not None, caller=caller, applied=applied))

    def _do_learn_committed(self, branch: Branch, _: Any) -> None:
        branch.known = Outcome.COMMITTED
        self._carry_out(Ending(Learn(branch.attempt, Outcome.COMMITTED, self._now.wall), branch, forced=True))

    def _do_learn_aborted(self, branch: Branch, _: Any) -> None:
        branch.known = Outcome.ABORTED
        self._carry_out(Ending(Learn(branch.attempt, Outcome.ABORTED, self._now.wall), branch, forced=False))

    def _do_keep_contradiction(self, branch: Branch, _: Any) -> None:
        assert branch.done is not None
        assert branch.known is not None
        job = Contradict(branch.attempt, branch.operations, branch.done, branch.known, self._now.wall)
        self._record(Ending(job, branch, forced=True, applied=branch.done is Outcome.COMMITTED))

    def _do_acknowledge_heuristic(self, branch: Branch, _: Any) -> None:
        self._look_if_torn(branch)
        self._do_answer_peers(branch, _)
        if branch.known is Outcome.COMMITTED:
            self._tell(branch, Acknowledged(branch.attempt.number, branch.done))

    # Small things.

    def _look_if_torn(self, branch: Branch) -> None:
        if branch.torn:
            assert branch.done is not None
            assert branch.known is not None
            done, known = branch.done.name, branch.known.name
            self._alarm(f"rule 12: {branch.attempt} was resolved by hand as {done} here and is {known}: torn")

    def _log(self, name: str) -> Log:
        log = self.logs.get(name)
        if log is None:
            log = self.logs[name] = Log(name)
        return log

    def _branch(self, log: Log, number: int) -> Branch:
        """The branch, or a new one in UNKNOWN that is kept only if it moves."""
        return log.branches.get(number) or Branch(AttemptId(log.name, number), self._now.mono)

    def _found(self, attempt: AttemptId) -> Branch:
        branch = Branch(attempt, self._now.mono)
        self._log(attempt.log).branches[attempt.number] = branch
        return branch

    def _remember(self, branch: Branch) -> None:
        heapq.heappush(self.logs[branch.attempt.log].remembered, branch.attempt.number)

    def _drop_below(self, log: Log) -> None:
        """Forgets finished attempts below the mark; those that it excepts are looked at again with the next one."""
        kept = []
        while log.remembered and log.remembered[0] < log.low:
            number = heapq.heappop(log.remembered)
            branch = log.branches.get(number)
            if branch is None or branch.state not in REMEMBERED:
                continue
            if number in log.excepted or branch.carrying:
                kept.append(number)
            else:
                del log.branches[number]
        for number in kept:
            heapq.heappush(log.remembered, number)

    def _ask_peers(self, branch: Branch) -> None:
        for peer in branch.peers:
            self._ask(AskPeer(branch.attempt, peer))

    def _ask(self, ask: Ask) -> None:
        self._out.extend(self._asks.put(ask))

    def _write(
        self, job: Job, *, forced: bool, counted: bool = True, branch: Branch | None = None, caller: int | None = None
    ) -> None:
        """Queues a job. Trials are counted when they have left a record; marks and addresses are of no attempt."""
        self._n += 1
        if counted and forced:
            self.forced += 1
        elif counted:
            self.lazy += 1
        self._out.append(Write(self._n, job, forced))
        if branch is not None:
            self._flushes.append((self._n, branch, caller))

    def _carry_out(self, ending: Ending) -> None:
        """Queues a branch's job; a resource outside the file does its part before."""
        if not self._outside:
            self._record(ending)
            return
        self._carries += 1
        self._carrying[self._carries] = ending
        ending.branch.carrying += 1
        self._out.append(Carry(self._carries, ending.job))

    def _record(self, ending: Ending) -> None:
        job, branch, forced, counted, moves, caller, applied = ending
        self._write(job, forced=forced, counted=counted, branch=branch if moves else None, caller=caller)
        if applied is not None:
            self._unlock(branch, applied)

    def _unlock(self, branch: Branch, applied: bool) -> None:
        if branch.attempt in self.lock_table:
            self._changed(self.lock_table.release(branch.attempt, applied))

    def _changed(self, changes: Changes) -> None:
        for owner, why in changes.hopeless:
            branch = self._owner(owner)
            self._todo.append((branch, Input.NOT_GRANTED, _hopeless(why)))
        for owner in changes.ready:
            branch = self._owner(owner)
            granted = Input.GRANTED_ALONE if branch.alone else Input.GRANTED
            # The mark tells of an abort whose message was lost: what waits below it is not tried any more.
            ended = self.logs[branch.attempt.log].below(branch.attempt.number)
            self._todo.append((branch, Input.ABORT if ended else granted, None))

    def _owner(self, owner: Any) -> Branch:
        return self.logs[owner.log].branches[owner.number]

    def _say_no(self, branch: Branch, why: Reason) -> None:
        if branch.alone:
            self._tell(branch, OnePhaseEnded(branch.attempt.number, Outcome.ABORTED, reason=why))
        else:
            self._tell(branch, Voted(branch.attempt.number, Vote.NO, self.incarnation, reason=why))

    def _say(self, branch: Branch, answer: Answer, caller: int | None) -> None:
        """Answers a peer's call, or the coordinator's question on its lane."""
        if caller is not None:
            self._out.append(Reply(caller, answer))
        else:
            self._send(branch, Answered(branch.attempt.number, answer))

    def _tell(self, branch: Branch, message: ToCoordinator) -> None:
        """To the single calls that wait for it, or else to the coordinator's lane."""
        if branch.callers:
            self._out.extend(Reply(caller, message) for caller in branch.callers)
            branch.callers.clear()
        else:
            self._send(branch, message)

    def _send(self, branch: Branch, message: ToCoordinator) -> None:
        self._out.append(Send(branch.attempt.log, message))

    def _mine(self, why: Reason) -> Reason:
        why.participant = self.name
        return why

    def _lock_timeout(self, branch: Branch) -> Reason:
        name, holders = self.lock_table.blockers(branch.attempt)[0]
        held = ", ".join(str(holder) for holder in holders) or "those in line before it"
        text = f"waited {self.settings.lock_timeout_s:g} s for {lock_text(name)}, held by {held}"
        return reason(Code.CODE_LOCK_TIMEOUT, text, **_row(name))

    def _alarm(self, text: str) -> None:
        if text in self._alarmed:
            return
        if len(self._alarmed) == ALARMS_MAX:
            del self._alarmed[next(iter(self._alarmed))]
        self._alarmed[text] = None
        self._out.append(Alarm(text))

    def _later(self, seconds: float, due: Due, attempt: AttemptId) -> None:
        self._timers.set(self._now.mono + seconds, due, attempt)

    def _effects(self) -> list[Effect]:
        wake = self._timers.wake()
        if wake is not None:
            self._out.append(WakeAt(wake))
        out, self._out = self._out, []
        return out


def _row(name: LockName) -> dict[str, Any]:
    """The table and key of a lock's name, as fields of a reason."""
    if name[0] != "row":
        return {"table": str(name[1])}
    return {"table": name[1], "key": [to_value(value) for value in name[2:]]}


def _hopeless(why: Hopeless) -> Reason:
    """The NO of an add that no outcome of the pending ones could allow."""
    low = why.add.by < 0
    bound, code = (why.add.low, Code.CODE_BELOW_MIN) if low else (why.add.high, Code.CODE_ABOVE_MAX)
    return reason(
        code,
        f"adding {why.add.by} to {lock_text(why.name)} {why.add.column} would pass {bound}, whatever is pending does",
        operation=why.add.position,
        column=why.add.column,
        required=to_value(bound),
        found=to_value(why.base),
        **_row(why.name),
    )


_EVENTS: dict[type, Callable[[Participant, Any], None]] = {
    LaneOpened: Participant._lane_opened,
    LaneLost: Participant._lane_lost,
    Received: Participant._received,
    Flushed: Participant._flushed,
    Carried: Participant._carried,
    FoundEnded: Participant._found_ended,
    CoordinatorAnswered: Participant._coordinator_answered,
    PeerAnswered: Participant._peer_answered,
    PeerAsked: Participant._peer_asked,
    ResolveAsked: Participant._resolve_asked,
    Ticked: Participant._ticked,
}

_MESSAGES: dict[type, Callable[[Participant, Log, Any, int | None], None]] = {
    Prepare: Participant._prepare,
    OnePhase: Participant._one_phase,
    Commit: Participant._commit,
    Abort: Participant._abort,
    Release: Participant._release,
    Question: Participant._question,
    Mark: Participant._mark,
    Answered: Participant._answered,
}

_ACTIONS: dict[Action, Callable[[Participant, Branch, Any], None]] = {
    Action.NOTHING: Participant._do_nothing,
    Action.ALARM: Participant._do_alarm,
    Action.QUEUE: Participant._do_queue,
    Action.TRY: Participant._do_try,
    Action.RUN: Participant._do_run,
    Action.VOTE_YES: Participant._do_vote_yes,
    Action.VOTE_READ_ONLY: Participant._do_vote_read_only,
    Action.VOTE_NO: Participant._do_vote_no,
    Action.VOTE_NO_ENDED: Participant._do_vote_no_ended,
    Action.VOTE_AGAIN: Participant._do_vote_again,
    Action.TELL_COMMITTED: Participant._do_tell_committed,
    Action.APPLY: Participant._do_apply,
    Action.ACKNOWLEDGE: Participant._do_acknowledge,
    Action.REMEMBER: Participant._do_nothing,
    Action.WITHDRAW: Participant._do_unlock,
    Action.UNDO: Participant._do_undo,
    Action.UNLOCK: Participant._do_unlock,
    Action.REFUSE: Participant._do_refuse,
    Action.REFUSE_AGAIN: Participant._do_refuse_again,
    Action.ANSWER_LATER: Participant._do_answer_later,
    Action.ANSWER_PEERS: Participant._do_answer_peers,
    Action.SAY_PENDING: Participant._do_say_pending,
    Action.SAY_COMMITTED: Participant._do_say_committed,
    Action.SAY_ABORTED: Participant._do_say_aborted,
    Action.SAY_KNOWN: Participant._do_say_known,
    Action.SAY_NOTHING: Participant._do_say_nothing,
    Action.ASK: Participant._do_ask,
    Action.ASK_COORDINATOR: Participant._do_ask_coordinator,
    Action.RESOLVE: Participant._do_resolve,
    Action.LEARN_COMMITTED: Participant._do_learn_committed,
    Action.LEARN_ABORTED: Participant._do_learn_aborted,
    Action.ACKNOWLEDGE_HEURISTIC: Participant._do_acknowledge_heuristic,
    Action.KEEP_CONTRADICTION: Participant._do_keep_contradiction,
}


def _change(before: State, after: State) -> Callable[[Participant, Branch], None] | None:
    if before is State.UNKNOWN:
        return Participant._appear if after is not State.UNKNOWN else None
    if after is State.UNKNOWN:
        return Participant._vanish
    return Participant._end if after in REMEMBERED and before not in REMEMBERED else None


_CHANGES = {(before, after): _change(before, after) for before in State for after in State}
