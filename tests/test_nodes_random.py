"""The nodes against each other under loss, doubling, reordering, crashes and lost lazy writes, by hypothesis.

After the faults everything heals, and then agreement, validity, stability, money and liveness must hold
(`judge.py`). Hypothesis prints the shortest failing run that it could find; `Play` plays more kinds of runs, and one of
its seeds is one run: `Play(seed).run()`.
"""

from __future__ import annotations

import random

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.judge import judge
from tests.memory import operations
from tests.play import Play
from tests.world import World

KEYS = st.sampled_from(["x", "y"])
WORK = st.one_of(
    st.tuples(st.just("add"), KEYS, st.sampled_from([-6, -3, -1, 2, 5]), st.just(0)).map(lambda op: (op,)),
    st.tuples(st.just("set"), KEYS, st.integers(0, 20)).map(lambda op: (op,)),
    st.tuples(st.just("read"), KEYS).map(lambda op: (op,)),
    st.just((("check", "x", 5), ("add", "x", -1, 0))),
    st.just((("add", "x", 3, 0), ("add", "x", -4, 0))),
).map(lambda ops: operations(*ops))


class Nodes(RuleBasedStateMachine):
    @initialize(count=st.integers(2, 3), slow=st.booleans())
    def begin(self, count: int, slow: bool) -> None:
        self.world = World(["a", "b", "c"][:count], slow=slow)
        self.contents: dict[str, tuple[tuple[str, bytes], ...]] = {}

    @precondition(lambda self: self.world.coordinator is not None)
    @rule(
        work=st.dictionaries(st.integers(0, 2), WORK, min_size=1),
        id=st.sampled_from(["", "id-1", "id-2", "id-3"]),
        timeout_s=st.sampled_from([3.0, 30.0]),
        same=st.integers(0, 9),
        wait_applied=st.booleans(),
    )
    def submit(self, work: dict[int, bytes], id: str, timeout_s: float, same: int, wait_applied: bool) -> None:
        names = self.world.names
        branches = tuple({names[i % len(names)]: encoded for i, encoded in work.items()}.items())
        if id and same:
            branches = self.contents.setdefault(id, branches)
        self.world.submit(*branches, id=id, timeout_s=timeout_s, wait_applied=wait_applied)

    @precondition(lambda self: self.world.coordinator is not None)
    @rule(id=st.sampled_from(["id-1", "id-2", "id-3"]))
    def abort(self, id: str) -> None:
        self.world.abort(id)

    @precondition(lambda self: self.world.net)
    @rule(index=st.integers(0, 50), how=st.sampled_from(["deliver"] * 8 + ["double", "lose"]))
    def message(self, index: int, how: str) -> None:
        index %= len(self.world.net)
        if how == "lose":
            self.world.net.pop(index)
        else:
            self.world.deliver(index, keep=how == "double")

    @precondition(lambda self: self.world.net)
    @rule(count=st.integers(1, 10))
    def deliver_some(self, count: int) -> None:
        for _ in range(min(count, len(self.world.net))):
            if self.world.net:
                self.world.deliver()

    @rule(who=st.integers(0, 3), count=st.sampled_from([None, 1, 2]))
    def flush(self, who: int, count: int | None) -> None:
        name = self.name(who)
        if name in self.world.participants or (name == "coordinator" and self.world.coordinator is not None):
            self.world.flush(name, count)

    @rule(who=st.integers(0, 3))
    def report(self, who: int) -> None:
        name = self.name(who)
        if self.world.up(name):
            self.world.report(name)

    @precondition(lambda self: self.world.calls)
    @rule()
    def call(self) -> None:
        self.world.call()

    @rule(seconds=st.sampled_from([0.05, 0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(who=st.integers(0, 3), surviving=st.integers(0, 3))
    def crash_or_start(self, who: int, surviving: int) -> None:
        name = self.name(who)
        if name in self.world.participants or (name == "coordinator" and self.world.coordinator is not None):
            self.world.crash(name, min(surviving, len(self.world.queues[name])))
        else:
            self.world.start(name)

    @rule(who=st.integers(1, 3), up=st.booleans())
    def lane(self, who: int, up: bool) -> None:
        if up:
            self.world.open_lane(self.name(who))
        else:
            self.world.lose_lane(self.name(who))

    def name(self, who: int) -> str:
        names = self.world.names
        return "coordinator" if who == 0 else names[who % len(names)]

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.heal()
            judge(self.world)
            assert not self.world.alarms


TestNodes = pytest.mark.timeout(600)(Nodes.TestCase)
TestNodes.settings = settings(
    max_examples=100, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


def test_random_runs() -> None:
    """Another part of the seeds in each session; pytest-randomly's seed gives the same ones again."""
    first = random.randrange(2**32)
    for seed in range(first, first + 400):
        try:
            Play(seed).run()
        except AssertionError as error:
            raise AssertionError(f"Play({seed}): {error}") from error
