"""What the driver does when the data are outside the participant's file: the resource's part of each job.

Jobs of one attempt are carried out one after the other, those of different attempts side by side: what must not overlap
is kept apart by the node's locks, which a branch has until its end has been carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import structlog

from participant.events import (
    Apply,
    BranchJob,
    Carried,
    Carry,
    Denied,
    Ended,
    Forget,
    FoundEnded,
    Resolve,
    RunAlone,
    Tried,
    Try,
    Undo,
)
from participant.resources import No
from participant.resources.outside import EndedElsewhere, OutsideResource, Survey
from troth import failpoints
from troth.messages import Mark
from troth.words import AttemptId, Outcome

if TYPE_CHECKING:
    from participant.driver import Driver

log = structlog.get_logger(__name__)

CARRIED = (Try, RunAlone, Apply, Undo, Resolve)
"""Jobs that a resource outside has a part in; the others only keep their place among them."""

GATHER_S = 0.03
"""The longest time that an answer waits for others."""


async def part_of(resource: OutsideResource, job: BranchJob) -> Tried | Denied | Ended | None:
    """Has the resource do its part of the job; what the node hears of it."""
    try:
        if isinstance(job, Try):
            prepared = await resource.prepare(job.attempt, job.plan)
            return Tried(prepared.rows, prepared.values)
        if isinstance(job, RunAlone):
            prepared = await resource.run(job.attempt, job.operations, job.plan)
            return Tried(prepared.rows, prepared.values)
        if isinstance(job, Apply) or (isinstance(job, Resolve) and job.outcome is Outcome.COMMITTED):
            await resource.commit(job.attempt)
        elif isinstance(job, Undo | Resolve):
            await resource.abort(job.attempt)
    except No as no:
        return Denied(no.reason)
    except EndedElsewhere as ended:
        return Ended(ended.found)
    return None


async def forget(resource: OutsideResource, job: Forget) -> None:
    """Has the resource forget what the vote log has forgotten, but not what may still be prepared in it."""
    low, excepted = job.mark
    await resource.forget(job.log, Mark(low, tuple(sorted({*excepted, *job.held}))))


def ended_there(before: set[AttemptId], survey: Survey, after: set[AttemptId]) -> list[FoundEnded]:
    """Branches that were prepared here before the survey and after it, and at the server were not."""
    return [
        FoundEnded(attempt, Outcome.COMMITTED if attempt in survey.committed else Outcome.ABORTED)
        for attempt in sorted(before & after - survey.prepared)
    ]


def come_back(before: set[AttemptId], survey: Survey, after: set[AttemptId]) -> list[AttemptId]:
    """Branches that were prepared at the server, and are none that it may hold: neither before the survey nor after it.
    If they still are, they were rolled back and a crash of the server took that away; else one that began meanwhile has
    ended since."""
    return sorted(survey.prepared - before - after)


def committed_after_all(survey: Survey, aborted: Callable[[AttemptId], bool]) -> list[AttemptId]:
    """Branches that are committed at the server and have ended here as aborted: a crash of the server took the rollback
    away, and somebody committed them there before they were rolled back again."""
    return sorted(attempt for attempt in survey.committed if aborted(attempt))


class Begun(NamedTuple):
    """A job at the resource."""

    wave: int
    at: float


class Waves:
    """Gathers answers, as a step, a flush and a message for each by itself would cost more than the work at the server.

    The first answer closes a wave: it waits for the jobs that were begun since the last one closed, but no longer than
    it has taken itself, so what is alone waits for nobody. Jobs that were waited for in vain are not waited for again:
    one that is held up by a lock holds nobody up twice."""

    def __init__(self, deliver: Callable[[list[Carried]], None]) -> None:
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._wave = 0
        self._open = 0
        """Jobs of the present wave without an answer."""
        self._awaited = 0
        """The same of the wave that was closed last."""
        self._answers: list[Carried] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Begun:
        self._open += 1
        return Begun(self._wave, self._loop.time())

    def end(self, begun: Begun, answer: Carried) -> None:
        self._answers.append(answer)
        if begun.wave == self._wave:
            self._open -= 1
        elif begun.wave == self._wave - 1 and self._awaited:
            self._awaited -= 1
        if len(self._answers) == 1:
            self._wave, self._open, self._awaited = self._wave + 1, 0, self._open
            if self._awaited:
                within_s = min(self._loop.time() - begun.at, GATHER_S)
                self._timer = self._loop.call_later(within_s, self._tell)
            else:
                self._loop.call_soon(self._tell)
        elif self._timer is not None and not self._awaited:
            self._timer.cancel()
            self._timer = None
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        answers, self._answers = self._answers, []
        self._timer, self._awaited = None, 0
        self._deliver(answers)


class Outside:
    """Carries jobs to the resource and its answers to the node. An exception that is not foreseen ends the process."""

    def __init__(self, driver: Driver, resource: OutsideResource) -> None:
        self._driver = driver
        self._resource = resource
        self._last: dict[AttemptId, asyncio.Task[None]] = {}
        """Of each attempt that is at the resource."""
        self._waves = Waves(lambda carried: driver.feed(*carried))
        self._forgetting: dict[str, Forget] = {}
        """The newest by log, while the server is asked."""
        self._told: set[AttemptId] = set()
        """Of which an alarm has said that they were committed after they had been aborted."""

    def carry(self, effect: Carry) -> None:
        """Has the job done, behind the earlier ones of its attempt."""
        attempt = effect.job.attempt
        self._last[attempt] = self._driver.own(self._carry_out(effect, self._last.get(attempt)))

    async def _carry_out(self, effect: Carry, before: asyncio.Task[None] | None) -> None:
        attempt = effect.job.attempt
        if before is not None:
            await before
        begun = self._waves.begin()
        await failpoints.call("before-carry", type(effect.job))
        result = await part_of(self._resource, effect.job)
        await failpoints.call("after-carry", type(effect.job))
        if self._last[attempt] is asyncio.current_task():
            del self._last[attempt]
        self._waves.end(begun, Carried(effect.n, result))

    async def forget(self, job: Forget) -> None:
        """Once it is forgotten here, durably, it is forgotten there: the server remembers at least as much. One at a
        time for a log, so that a server that was away is not asked for each mark then: a newer one says it all."""
        newest = self._forgetting
        under_way = job.log in newest
        newest[job.log] = job
        if under_way:
            return
        try:
            while True:
                job = newest[job.log]
                await self._driver.in_writer(lambda: None)
                await forget(self._resource, job)
                if newest[job.log] is job:
                    return
        finally:
            del newest[job.log]

    async def watch(self) -> None:
        """Looks at once and from time to time for branches that somebody has ended at the server, for those that are
        there again though they have ended, and for those that somebody has committed then."""
        node = self._driver.node
        while True:
            prepared, there = node.prepared(), node.at_server()
            survey = await self._resource.survey()
            for found in ended_there(prepared, survey, node.prepared()):
                self._driver.feed(found)
            if back := come_back(there, survey, node.at_server()):
                again = await self._resource.survey()
                for attempt in filter(again.prepared.__contains__, back):
                    log.warning("rolled back again: the server had forgotten that", attempt=str(attempt))
                    await self._roll_back_again(attempt)
            for attempt in committed_after_all(survey, node.aborted):
                self._alarm(attempt)
            await asyncio.sleep(node.settings.look_interval_s)

    async def _roll_back_again(self, attempt: AttemptId) -> None:
        try:
            await self._resource.abort(attempt)
        except EndedElsewhere:
            self._alarm(attempt)

    def _alarm(self, attempt: AttemptId) -> None:
        if attempt not in self._told:
            self._told.add(attempt)
            self._driver.alarm(f"rule 12: {attempt} was committed at the server by somebody, after it had been aborted")
