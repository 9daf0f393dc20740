"""The driver's part of data outside the file: which call is made when, and what the node hears. Without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

from participant.driver import Driver
from participant.events import Apply, BranchJob, Carried, Carry, Denied, Ended, Forget, FoundEnded, Try, Undo
from participant.outside import GATHER_S, Begun, Outside, Waves, come_back, ended_there
from participant.resources import No, Plan, Prepared
from participant.resources.outside import EndedElsewhere, OutsideResource, Survey
from troth.messages import Mark
from troth.reasons import reason
from troth.v1.types_pb2 import Code
from troth.words import AttemptId, Outcome

PLAN = Plan((), None, read_only=False)
ONE, OTHER = AttemptId("log", 1), AttemptId("log", 2)


def try_(attempt: AttemptId) -> Try:
    return Try(attempt, b"", PLAN, False, (), 0.0)


class Slow:
    """A resource whose calls end when they are let go."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.gates: list[asyncio.Future[Any]] = []

    async def prepare(self, attempt: AttemptId, plan: Plan) -> Prepared:
        return cast(Prepared, await self._call("prepare", attempt))

    async def commit(self, attempt: AttemptId) -> None:
        await self._call("commit", attempt)

    async def abort(self, attempt: AttemptId) -> None:
        await self._call("abort", attempt)

    async def forget(self, log: str, mark: Mark) -> None:
        await self._call("forget", mark)

    async def _call(self, name: str, about: Any) -> Any:
        self.calls.append((name, about))
        self.gates.append(asyncio.get_running_loop().create_future())
        return await self.gates[-1]


class Fake:
    """As much of a driver as `Outside` uses."""

    def __init__(self, resource: Slow | None = None) -> None:
        self.heard: list[Any] = []
        self.alarms: list[str] = []
        self.durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.resource = resource or Slow()
        self.node = SimpleNamespace(
            settings=SimpleNamespace(look_interval_s=0.0), prepared=set, at_server=set, aborted=ONE.__eq__
        )
        self.outside = Outside(cast(Driver, self), cast(OutsideResource, self.resource))

    def own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    def feed(self, event: Any) -> None:
        self.heard.append(event)

    def alarm(self, text: str) -> None:
        self.alarms.append(text)

    def in_writer(self, work: Any) -> asyncio.Future[None]:
        return self.durable

    async def carries(self, *jobs: BranchJob) -> None:
        for n, job in enumerate(jobs, 1):
            self.outside.carry(Carry(n, job))
        await settle()

    async def lets_go(self, index: int, result: Any = None) -> None:
        gate = self.resource.gates[index]
        gate.set_exception(result) if isinstance(result, Exception) else gate.set_result(result)
        await asyncio.sleep(2 * GATHER_S)  # until nothing waits for others any more


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_jobs_of_one_branch_are_done_one_after_the_other_and_those_of_others_beside() -> None:
    async def main() -> None:
        driver = Fake()
        await driver.carries(try_(ONE), Undo(ONE, PLAN, 0.0), try_(OTHER))
        assert driver.resource.calls == [("prepare", ONE), ("prepare", OTHER)]
        await driver.lets_go(1, Prepared(b"rows", {}))
        assert [event.n for event in driver.heard] == [3]
        await driver.lets_go(0, Prepared(b"", {}))
        assert [event.n for event in driver.heard] == [3, 1]
        assert driver.resource.calls[2:] == [("abort", ONE)]
        await driver.lets_go(2)
        assert driver.heard[-1] == Carried(2, None)

    asyncio.run(main())


def test_a_no_and_an_end_by_somebody_else_are_told() -> None:
    async def main() -> None:
        driver = Fake()
        await driver.carries(try_(ONE), Apply(OTHER, b"", PLAN, 0.0))
        why = reason(Code.CODE_UNREACHABLE, "nobody is there")
        await driver.lets_go(0, No(why))
        await driver.lets_go(1, EndedElsewhere(OTHER, Outcome.ABORTED))
        assert driver.heard == [Carried(1, Denied(why)), Carried(2, Ended(Outcome.ABORTED))]

    asyncio.run(main())


def test_what_is_forgotten_is_durable_here_before_the_server_hears_of_it_but_for_what_is_not_ended() -> None:
    async def main() -> None:
        driver = Fake()
        forgetting = driver.own(driver.outside.forget(Forget("log", Mark(9, (7,)), (3,))))
        await settle()
        assert not driver.resource.calls
        driver.durable.set_result(None)
        await settle()
        assert driver.resource.calls == [("forget", Mark(9, (3, 7)))]
        await driver.lets_go(0)
        await forgetting

    asyncio.run(main())


def test_while_the_server_is_asked_to_forget_only_the_newest_mark_waits() -> None:
    async def main() -> None:
        driver = Fake()
        driver.durable.set_result(None)
        first, *others = (driver.own(driver.outside.forget(Forget("log", Mark(low, ()), ()))) for low in range(5))
        await settle()
        assert driver.resource.calls == [("forget", Mark(0, ()))]
        await asyncio.gather(*others)
        await driver.lets_go(0)
        assert driver.resource.calls[1:] == [("forget", Mark(4, ()))]
        await driver.lets_go(1)
        await first
        again = driver.own(driver.outside.forget(Forget("log", Mark(9, ()), ())))
        await settle()
        await driver.lets_go(2)
        await again

    asyncio.run(main())


def test_a_look_finds_what_was_prepared_here_all_the_while_and_not_there() -> None:
    numbers = [AttemptId("log", n) for n in range(6)]
    survey = Survey(frozenset(numbers[:2]), {numbers[2]: b"", numbers[4]: b""}, ())
    found = ended_there(set(numbers[:4]), survey, {*numbers[1:4], numbers[5]})
    assert found == [FoundEnded(numbers[2], Outcome.COMMITTED), FoundEnded(numbers[3], Outcome.ABORTED)]


def test_a_look_finds_what_the_server_holds_again_and_may_not() -> None:
    """Not what was at the server before the look or is there now: its trial may just have been prepared."""
    numbers = [AttemptId("log", n) for n in range(4)]
    survey = Survey(frozenset(numbers), {}, ())
    assert come_back({numbers[0]}, survey, {numbers[2]}) == [numbers[1], numbers[3]]


def test_what_somebody_committed_after_it_had_been_aborted_is_an_alarm_once() -> None:
    class Server(Slow):
        async def survey(self) -> Survey:
            self.calls.append(("survey", None))
            return Survey(frozenset(), {ONE: b"", OTHER: b""}, ())

    async def main() -> None:
        driver = Fake(Server())
        looking = asyncio.get_running_loop().create_task(driver.outside.watch())
        await settle()
        looking.cancel()
        assert len(driver.resource.calls) > 1
        assert driver.alarms == [f"rule 12: {ONE} was committed at the server by somebody, after it had been aborted"]

    asyncio.run(main())


class Gathered:
    """Waves of jobs whose answers are their numbers; `now` is the loop's time."""

    def __init__(self) -> None:
        self.told: list[list[int]] = []
        self.waves = Waves(lambda answers: self.told.append([answer.n for answer in answers]))
        self.begun: dict[int, Begun] = {}

    def begin(self, *numbers: int) -> None:
        self.begun.update({n: self.waves.begin() for n in numbers})

    async def end(self, *numbers: int) -> None:
        for n in numbers:
            self.waves.end(self.begun.pop(n), Carried(n, None))
        await settle()


def test_answers_of_jobs_that_were_begun_together_are_told_together() -> None:
    async def main() -> None:
        gathered = Gathered()
        gathered.begin(1, 2, 3)
        await asyncio.sleep(GATHER_S)
        await gathered.end(2)
        gathered.begin(4)  # of the next wave: not waited for
        await gathered.end(1)
        assert gathered.told == []
        await gathered.end(3)
        assert gathered.told == [[2, 1, 3]]
        await gathered.end(4)
        assert gathered.told == [[2, 1, 3], [4]]

    asyncio.run(main())


def test_an_answer_waits_no_longer_than_it_took_and_never_again_for_the_same_job() -> None:
    async def main() -> None:
        gathered = Gathered()
        gathered.begin(1, 2)
        await asyncio.sleep(GATHER_S / 3)
        await gathered.end(1)
        assert gathered.told == []
        while not gathered.told:  # noqa: ASYNC110 - a time is what is waited for
            await asyncio.sleep(GATHER_S / 10)
        gathered.begin(3)
        await gathered.end(3)
        assert gathered.told == [[1], [3]]
        gathered.begin(4, 5)
        await asyncio.sleep(GATHER_S)
        await gathered.end(4, 2)
        assert gathered.told == [[1], [3]], "2 is not of the wave, and 5 is waited for"
        await gathered.end(5)
        assert gathered.told == [[1], [3], [4, 2, 5]]

    asyncio.run(main())
