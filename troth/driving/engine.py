"""The shape of both drivers: one node, one log writer, one clock, one timer.

A node decides and does nothing; an engine does and decides nothing. `feed(event)` steps the node and performs the
effects at once, without awaiting: one event is done before the next is looked at, and an event that an effect brings
about (a register that answers at once) is stepped before anything else. What the writer thread reports comes over to
the event loop, the results of several flushes as one event.

When the log fails, or anything else does that is not foreseen, nothing is known about what was not reported: the engine
steps no more, sends no more, and `failure` raises, which ends the process (DESIGN section 4).
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import structlog

from troth import failpoints
from troth.driving.server import Server
from troth.log import LogFailed, LogFile, LogWriter
from troth.v1 import types_pb2
from troth.words import Now

log = structlog.get_logger(__name__)

E = TypeVar("E")
F = TypeVar("F")
J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")
E_contra = TypeVar("E_contra", contravariant=True)
F_co = TypeVar("F_co", covariant=True)

ALARMS_KEPT = 100
"""Alarms that status shows; each is also logged and counted."""

STOP_GRACE_S = 0.5
"""What calls have, after draining, to carry their last answers away."""


class Node(Protocol[E_contra, F_co]):
    """What an engine drives: pure, synchronous, without a clock. It counts its log records where it queues them."""

    forced: int
    lazy: int

    def start(self, now: Now) -> Sequence[F_co]: ...

    def step(self, event: E_contra, now: Now) -> Sequence[F_co]: ...


class Engine(ABC, Generic[E, F, J, R]):
    """Drives a node of events E and effects F whose jobs J the writer thread runs with results R.

    Everything but the two callbacks of the writer runs on the event loop in which the engine was made."""

    def __init__(
        self, node: Node[E, F], file: LogFile, write: Callable[[Sequence[tuple[int, J]]], list[tuple[int, R]]]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._node = node
        self.file = file
        self.writer: LogWriter[J, R] = LogWriter(
            file, write, on_flushed=self._flushed_in_writer, on_failure=self._failed_in_writer
        )
        self.failure: asyncio.Future[None] = self._loop.create_future()
        """Raises when the process must stop; never returns."""

        self._mono_at_start, self._wall_at_start = time.monotonic(), time.time()
        self._timer_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

        self._effects = self.effects()
        self._events: deque[E] = deque()
        self._brought_about: list[E] = []
        self._stepping = False
        self._jobs: list[tuple[int, J, float]] = []
        self._flushes: deque[tuple[int, list[tuple[int, R]]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._callers = itertools.count(1)
        self._waiting: dict[int, Callable[[Any], None]] = {}

        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.alarms: deque[str] = deque(maxlen=ALARMS_KEPT)
        self.alarms_raised = 0

    # What a driver adds.

    @abstractmethod
    def effects(self) -> Mapping[type, Callable[[Any], None]]:
        """The method that performs each kind of effect. None of them awaits."""

    @abstractmethod
    def ticked(self) -> E:
        """The event for the time that was asked for."""

    @abstractmethod
    def flushed(self, upto: int, results: list[tuple[int, R]]) -> Iterable[E]:
        """The events for what the writer reports: all jobs up to `upto` are durable, with these results."""

    @abstractmethod
    def began(self, address: str) -> None:
        """The server answers at `address`, health does not say so yet: start what is to run beside it."""

    @abstractmethod
    async def drain(self) -> None:
        """Let go of what is open, within a bound."""

    # Time.

    def now(self) -> Now:
        """Wall time is taken once and runs with the monotonic clock, so a clock that is set does not reach the node."""
        mono = time.monotonic()
        return Now(mono, self._wall_at_start + mono - self._mono_at_start)

    def wake_at(self, at: float) -> None:
        """One `ticked` event at monotonic time `at`, or earlier when an earlier one was asked for."""
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._wake)

    def _wake(self) -> None:
        at, self._timer_at, self._timer = self._timer_at, math.inf, None
        if time.monotonic() < at:  # a loop's timers may be some milliseconds early
            self.wake_at(at)
        else:
            self.feed(self.ticked())

    # Events in, effects out.

    def start(self) -> None:
        """Starts the writer, then the node. What either raises is raised."""
        self.writer.start()
        self._stepping = True
        self._perform(self._node.start(self.now()))
        self._step_all()
        self._stepping = False

    def feed(self, *events: E) -> None:
        """Steps the node through `events` and performs what follows; called by an effect, it steps them next, before
        what was waiting. Does nothing once the engine has failed."""
        if self._stepping:
            self._brought_about.extend(events)
        elif not self.failure.done():
            self._events.extend(events)
            self._stepping = True
            try:
                self._step_all()
            except Exception as error:
                self.fail(error)
            finally:
                self._stepping = False

    def _step_all(self) -> None:
        """All that was fed at once happens at one time."""
        events, step, now = self._events, self._node.step, self.now()
        while events:
            self._perform(step(events.popleft(), now))
        self.hand_over()

    def _perform(self, effects: Sequence[F]) -> None:
        table = self._effects
        for effect in effects:
            table[type(effect)](effect)
        if self._brought_about:
            self._events.extendleft(reversed(self._brought_about))
            self._brought_about.clear()

    def alarm(self, message: str) -> None:
        """What needs a human: logged, counted, and among the last that status shows."""
        log.error("alarm", message=message)
        self.alarms_raised += 1
        self.alarms.append(message)

    # The writer.

    def queue(self, n: int, job: J, within_s: float) -> None:
        """Puts a job behind all others, to be flushed within so many seconds; it reaches the writer at the latest when
        the present feed is done."""
        self._jobs.append((n, job, within_s))

    def hand_over(self) -> None:
        """Gives the writer what was queued."""
        if self._jobs:
            jobs, self._jobs = self._jobs, []
            self.writer.put(jobs)

    def in_writer(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Runs `work` in the writer thread, behind everything queued; done when all that it saw is durable. Cancelled,
        it runs all the same. It is never done when the log fails: who waits is cut off with the process, as one who
        waits for a reply is."""
        self.hand_over()
        found = asyncio.wrap_future(self.writer.call(lambda _: work()), loop=self._loop)
        answer: asyncio.Future[T] = self._loop.create_future()

        def take(_: asyncio.Future[T]) -> None:
            error = found.exception()
            if isinstance(error, LogFailed):
                self.fail(error)
            elif answer.done():
                return
            elif error is None:
                answer.set_result(found.result())
            else:
                answer.set_exception(error)

        found.add_done_callback(take)
        return answer

    def _flushed_in_writer(self, upto: int, results: list[tuple[int, R]]) -> None:
        self._flushes.append((upto, results))
        self._loop.call_soon_threadsafe(self._take_flushes)

    def _take_flushes(self) -> None:
        """What several flushes reported while the loop was busy is one report; the later calls find nothing."""
        if not self._flushes:
            return
        upto, results = self._flushes.popleft()
        while self._flushes:
            upto, more = self._flushes.popleft()
            results = results + more
        self.feed(*self.flushed(upto, results))

    # Callers.

    def expect(self, deliver: Callable[[Any], None]) -> int:
        """A new caller's number, to be named by the event it feeds; `deliver` gets the value of the reply."""
        caller = next(self._callers)
        self._waiting[caller] = deliver
        return caller

    async def ask(self, event_of: Callable[[int], E]) -> Any:
        """Feeds an event that names its caller and awaits the reply. Cancelled, it forgets the caller and cuts nothing:
        what was asked for goes on in the node."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        caller = self.expect(lambda value: None if answer.done() else answer.set_result(value))
        event = event_of(caller)
        try:
            await failpoints.call("before-receive", type(event))
            self.feed(event)
            value = await answer
            await failpoints.call("before-reply", type(event))
            return value
        finally:
            self._waiting.pop(caller, None)

    def reply(self, caller: int, value: object) -> None:
        """Hands a caller its reply, if it still waits."""
        deliver = self._waiting.pop(caller, None)
        if deliver is not None:
            deliver(value)

    @property
    def waiting(self) -> int:
        """Callers without a reply."""
        return len(self._waiting)

    # Tasks and the end.

    def own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs `work` until it ends or the engine is closed. An exception of it ends the process."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The process must stop; the first reason counts. Nothing is stepped, so nothing decided or told, any more."""
        if not self.failure.done():
            log.error("stopping at once", why=str(error) or type(error).__name__)
            self.failure.set_exception(error)
            for task in self._tasks:
                task.cancel()

    def _failed_in_writer(self, error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self.fail, error)

    async def run(self, server: Server, ready: Callable[[str], None] | None) -> None:
        """Serves until cancelled or failed, and closes everything. Cancelled, it drains first, within a bound; failed,
        it stops at once and raises why."""
        grace_s = None
        try:
            self.start()
            await server.start()
            self.began(server.address)
            await server.serving(True)
            if ready is not None:
                ready(server.address)
            await asyncio.shield(self.failure)
        except asyncio.CancelledError:
            await server.serving(False)
            await self.drain()
            grace_s = STOP_GRACE_S
            raise
        finally:
            await server.stop(grace_s)
            await self.close()

    async def close(self) -> None:
        """Ends what the engine owns; what was queued is flushed first, unless the log has failed."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self.writer.close)
        if self.failure.done():
            self.failure.exception()  # seen, also when something else ended the process first
        else:
            self.failure.cancel()

    def counters(self) -> types_pb2.Counters:
        """What this process counted since it started."""
        return types_pb2.Counters(
            forced=self._node.forced,
            lazy=self._node.lazy,
            flushes=self.writer.flushes,
            sent=self.sent,
            received=self.received,
            alarms=self.alarms_raised,
        )
