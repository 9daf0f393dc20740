"""The shape of both drivers, over a node that does as the test says and a real log file."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from coordinator.events import Decide, Decided
from coordinator.registers import DecisionRegister, EmbeddedRegister
from troth.driving.engine import ALARMS_KEPT, Engine
from troth.driving.lane import Outbox, until_first, write_out
from troth.log import AT_ONCE_S, LogFailed, LogFile
from troth.words import Now, Outcome

SCHEMA = "CREATE TABLE troth_notes (n INTEGER PRIMARY KEY, text TEXT);"


class Put(NamedTuple):
    """Effect: queue this job."""

    n: int
    job: str


class Bring(NamedTuple):
    """Effect: an event follows at once."""

    event: Any


class Wake(NamedTuple):
    """Effect."""

    at: float


class Reply(NamedTuple):
    """Effect."""

    caller: int
    value: object


class Script:
    """A node: `on[event]` says what an event brings; everything stepped is noted."""

    def __init__(self, on: Mapping[Any, Any]) -> None:
        self.on: dict[Any, Any] = dict(on)
        self.seen: list[Any] = []
        self.times: list[Now] = []
        self.forced = self.lazy = 0

    def start(self, now: Now) -> Sequence[Any]:
        effects: Sequence[Any] = self.on.get("start", ())
        return effects

    def step(self, event: Any, now: Now) -> Sequence[Any]:
        self.seen.append(event)
        self.times.append(now)
        effects: Sequence[Any] | Exception = self.on.get(event, ())
        if isinstance(effects, Exception):
            raise effects
        return effects


class Scripted(Engine[Any, Any, str, str]):
    """The smallest driver there can be."""

    def __init__(self, node: Script, file: LogFile) -> None:
        self.flush_seen = asyncio.Event()
        self.ticks = asyncio.Event()
        super().__init__(node, file, lambda jobs: self.write(jobs))
        self.connection = file.connection

    def write(self, jobs: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        if any(job == "fail" for _, job in jobs):
            raise sqlite3.OperationalError("disk I/O error")
        self.connection.executemany("INSERT INTO troth_notes VALUES (?, ?)", jobs)
        return [(n, job.upper()) for n, job in jobs]

    def effects(self) -> Mapping[type, Callable[[Any], None]]:
        return {
            Put: lambda effect: self.queue(effect.n, effect.job, AT_ONCE_S),
            Bring: lambda effect: self.feed(effect.event),
            Wake: lambda effect: self.wake_at(effect.at),
            Reply: lambda effect: self.reply(effect.caller, effect.value),
        }

    def ticked(self) -> Any:
        self.ticks.set()
        return "ticked"

    def flushed(self, upto: int, results: list[tuple[int, str]]) -> Iterable[Any]:
        self.flush_seen.set()
        yield ("flushed", upto, tuple(results))

    def began(self, address: str) -> None:
        """Nothing."""

    async def drain(self) -> None:
        """Nothing."""


def drive(folder: Path, on: Mapping[Any, Any], work: Callable[[Scripted, Script], Coroutine[Any, Any, None]]) -> Script:
    node = Script(on)

    async def main() -> None:
        file = LogFile.open(folder / "log.db", role="coordinator", name="c", schema=SCHEMA)
        engine = Scripted(node, file)
        try:
            engine.start()
            await work(engine, node)
        finally:
            await engine.close()
            file.close()

    asyncio.run(main())
    return node


def test_an_event_that_an_effect_brings_is_stepped_before_those_that_wait(tmp_path: Path) -> None:
    async def work(engine: Scripted, node: Script) -> None:
        engine.feed("a", "z")

    on = {"a": [Bring("b"), Bring("c")], "b": [Bring("b2")]}
    assert drive(tmp_path, on, work).seen == ["a", "b", "b2", "c", "z"]


def test_the_start_brings_effects_too(tmp_path: Path) -> None:
    async def work(engine: Scripted, node: Script) -> None:
        assert node.seen == ["first"]

    drive(tmp_path, {"start": [Bring("first")]}, work)


def test_jobs_of_one_feed_are_reported_durable_with_their_results(tmp_path: Path) -> None:
    async def work(engine: Scripted, node: Script) -> None:
        engine.feed("a", "b")
        await engine.flush_seen.wait()
        assert node.seen[-1] == ("flushed", 3, ((1, "X"), (2, "Y"), (3, "Z")))
        assert engine.writer.flushes == 1

    drive(tmp_path, {"a": [Put(1, "x"), Put(2, "y")], "b": [Put(3, "z")]}, work)


def keep_busy_until_flushed(engine: Scripted, flushes: int) -> None:
    """The event loop takes nothing meanwhile."""
    while engine.writer.flushes < flushes:
        time.sleep(0.001)


def test_what_several_flushes_report_while_the_loop_is_busy_is_one_event(tmp_path: Path) -> None:
    async def work(engine: Scripted, node: Script) -> None:
        for n in range(1, 4):
            engine.feed(n)
            keep_busy_until_flushed(engine, n)
        await engine.flush_seen.wait()
        assert node.seen == [1, 2, 3, ("flushed", 3, ((1, "X"), (2, "X"), (3, "X")))]

    drive(tmp_path, {n: [Put(n, "x")] for n in range(1, 4)}, work)


def test_a_failed_log_stops_everything_and_nothing_is_told(tmp_path: Path) -> None:
    """DESIGN section 4: a failed commit is unknown, not no."""

    async def work(engine: Scripted, node: Script) -> None:
        waiting = asyncio.create_task(engine.ask(lambda caller: "bad"))
        with pytest.raises(LogFailed, match="unknown until the file is opened again"):
            await asyncio.shield(engine.failure)
        engine.feed("later")
        assert node.seen == ["bad"]
        assert not waiting.done()
        waiting.cancel()
        found = engine.in_writer(lambda: None)
        await asyncio.sleep(0.05)
        assert not found.done()

    drive(tmp_path, {"bad": [Put(1, "fail")]}, work)


def test_what_nobody_waits_for_any_more_may_fail(tmp_path: Path) -> None:
    """Else asyncio reports an exception that was never retrieved, for a client that is gone."""

    def refused() -> None:
        raise ValueError("refused")

    async def work(engine: Scripted, node: Script) -> None:
        said: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))
        engine.in_writer(refused).cancel()
        with pytest.raises(ValueError, match="refused"):
            await engine.in_writer(refused)
        gc.collect()
        await asyncio.sleep(0)
        assert not said

    drive(tmp_path, {}, work)


def test_an_error_in_a_step_stops_everything(tmp_path: Path) -> None:
    async def work(engine: Scripted, node: Script) -> None:
        engine.feed("bad", "after")
        with pytest.raises(KeyError, match="broken"):
            await asyncio.shield(engine.failure)
        engine.feed("later")
        assert node.seen == ["bad"]

    drive(tmp_path, {"bad": KeyError("broken")}, work)


def test_an_error_in_a_task_stops_everything(tmp_path: Path) -> None:
    async def broken() -> None:
        raise RuntimeError("broken")

    async def work(engine: Scripted, node: Script) -> None:
        engine.own(broken())
        with pytest.raises(RuntimeError, match="broken"):
            await asyncio.shield(engine.failure)

    drive(tmp_path, {}, work)


def test_of_several_times_asked_for_the_earliest_counts_and_is_not_early(tmp_path: Path) -> None:
    async def work(engine: Scripted, node: Script) -> None:
        asked = time.monotonic() + 0.02
        engine.wake_at(asked + 1000)
        engine.wake_at(asked)
        engine.wake_at(asked + 500)
        await engine.ticks.wait()
        assert node.seen == ["ticked"]
        assert node.times[-1].mono >= asked

    drive(tmp_path, {}, work)


def test_wall_time_runs_with_the_monotonic_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that is set does not reach the node."""

    async def work(engine: Scripted, node: Script) -> None:
        before = engine.now()
        monkeypatch.setattr(time, "time", lambda: 0.0)
        after = engine.now()
        assert after.wall - before.wall == pytest.approx(after.mono - before.mono, abs=1e-6)

    drive(tmp_path, {}, work)


def test_a_caller_that_goes_away_is_forgotten_and_its_reply_dropped(tmp_path: Path) -> None:
    async def work(engine: Scripted, node: Script) -> None:
        gone = asyncio.create_task(engine.ask(lambda caller: ("asks", caller)))
        await asyncio.sleep(0)
        ((_, caller),) = node.seen
        gone.cancel()
        engine.reply(caller, "between the cancel and its delivery")
        await asyncio.gather(gone, return_exceptions=True)
        assert gone.cancelled()
        engine.reply(caller, "late")
        assert engine.waiting == 0
        assert not engine.failure.done()

    drive(tmp_path, {}, work)


def test_a_caller_gets_its_own_reply(tmp_path: Path) -> None:
    async def work(engine: Scripted, node: Script) -> None:
        node.on["asks 1"] = [Reply(1, "one")]
        assert await engine.ask(lambda caller: f"asks {caller}") == "one"

    drive(tmp_path, {}, work)


def test_alarms_are_counted_and_the_last_are_kept(tmp_path: Path) -> None:
    async def work(engine: Scripted, node: Script) -> None:
        for n in range(ALARMS_KEPT + 5):
            engine.alarm(f"alarm {n}")
        assert engine.counters().alarms == ALARMS_KEPT + 5
        assert list(engine.alarms)[0::99] == ["alarm 5", f"alarm {ALARMS_KEPT + 4}"]

    drive(tmp_path, {}, work)


# The lane's parts.


def test_what_gathers_while_a_write_is_awaited_goes_as_one() -> None:
    written: list[list[int]] = []

    async def work() -> None:
        outbox: Outbox[int] = Outbox()
        may_go_on = asyncio.Event()
        all_written = asyncio.Event()
        begun = asyncio.Event()

        async def write(batch: list[int]) -> None:
            written.append(batch)
            begun.set()
            await may_go_on.wait()
            if written[-1][-1] == 5:
                all_written.set()

        writer = asyncio.create_task(write_out(outbox, lambda messages: [messages], write))
        outbox.put(1)
        await begun.wait()
        for n in range(2, 6):
            outbox.put(n)
        may_go_on.set()
        await all_written.wait()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)

    asyncio.run(work())
    assert written == [[1], [2, 3, 4, 5]]


def test_a_side_of_a_stream_that_ends_ends_the_other_and_its_error_is_told() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("other")

    async def breaks() -> None:
        await asyncio.sleep(0)
        raise ConnectionError("broken")

    async def work() -> None:
        with pytest.raises(ConnectionError, match="broken"):
            await until_first(forever(), breaks())

    asyncio.run(work())
    assert ended == ["other"]


# Decision registers: one contract for every register.


@pytest.fixture(params=[EmbeddedRegister])
def register(request: pytest.FixtureRequest) -> DecisionRegister:
    made: DecisionRegister = request.param()
    return made


def decided(register: DecisionRegister, id: str, number: int, outcome: Outcome) -> Decided:
    answers: list[Decided] = []
    register.decide(Decide(id, number, outcome), answers.append)
    (answer,) = answers
    return answer


def test_rule_2_the_first_writer_wins_and_everyone_hears_the_same(register: DecisionRegister) -> None:
    first = Decided("x", 7, Outcome.COMMITTED)
    assert decided(register, "x", 7, Outcome.COMMITTED) == first
    assert decided(register, "x", 7, Outcome.ABORTED) == first
    assert decided(register, "x", 8, Outcome.ABORTED) == first
    assert decided(register, "x", 7, Outcome.COMMITTED) == first


def test_rule_2_ids_have_entries_of_their_own(register: DecisionRegister) -> None:
    decided(register, "x", 7, Outcome.COMMITTED)
    assert decided(register, "y", 8, Outcome.ABORTED) == Decided("y", 8, Outcome.ABORTED)


def test_undeciding_twice_or_what_was_never_decided_is_nothing(register: DecisionRegister) -> None:
    decided(register, "x", 7, Outcome.ABORTED)
    register.undecide("x")
    register.undecide("x")
    register.undecide("never")


def test_the_embedded_register_keeps_only_open_entries_and_nothing_durable() -> None:
    register = EmbeddedRegister()
    decided(register, "x", 7, Outcome.ABORTED)
    decided(register, "y", 8, Outcome.ABORTED)
    register.undecide("x")
    assert len(register) == 1
    assert register.durable is False
