"""Random runs of a `World`: one seed is one run, with faults first and then healing; the same seed gives the same run.

What may happen depends on the seed too, so that some runs are about one thing: people who resolve, files that change,
ids that expire, marks that move, look-ups and registers that take their time.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from coordinator.settings import CoordinatorSettings
from participant.protocol import State
from participant.settings import ParticipantSettings
from tests.judge import judge
from tests.memory import LOG, operations
from tests.watch import Branches
from tests.world import COORDINATOR, World
from troth.words import AttemptId, Outcome

FEATURES = (
    "people",
    "files",
    "expiry",
    "slow",
    "marks",
    "alone",
    "reads",
    "loops",
    "calm",
    "cut",
    "ghosts",
    "shuffled",
)
CONTENTS = ("mixed", "mixed", "hot", "crossing")
"""What submissions are like: of all kinds; adds to one row at its bounds; all over one row at every participant."""


class Play:
    """One run."""

    def __init__(self, seed: int, world: Callable[..., World] = World) -> None:
        self.random = random.Random(seed)
        self.features = {each for each in FEATURES if self.random.random() < 0.3}
        self.content = self.random.choice(CONTENTS)
        names = ["a", "b", "c"][: self.random.choice([2, 2, 3])]
        self.world = world(
            names,
            coordinator_settings=self._coordinator(),
            participant_settings=ParticipantSettings(
                lock_timeout_s=self.random.choice([1.0, 5.0]),
                ask_peers_after_s=0.2 if "cut" in self.features else 2.0,
            ),
            slow="slow" in self.features,
        )
        if "cut" in self.features:
            self.world.cut = {(name, COORDINATOR) for name in names}
        self.ids = [self._id(n) for n in range(4)]
        self.contents: dict[str, Branches] = {}
        self.moves: list[tuple[Callable[[], None], int]] = [
            (self.submit, 15),
            (self.abort, 2),
            (self.message, 40),
            (self.flush, 22),
            (self.report, 8 if self.world.slow else 0),
            (self.call, 15 if "cut" in self.features else 5),
            (self.wait, 6),
            (self.crash, 0 if "calm" in self.features else 3),
            (self.start, 6),
            (self.lose_lane, 1 if "calm" in self.features else 6 if "cut" in self.features else 2),
            (self.open_lane, 6),
            (self.resolve_branch, 3 if "people" in self.features else 0),
            (self.resolve, 3 if "people" in self.features else 0),
            (self.swap, 3 if "files" in self.features else 0),
            (self.cut, 1 if "cut" in self.features else 0),
        ]

    def _coordinator(self) -> CoordinatorSettings:
        expiring = "expiry" in self.features
        return CoordinatorSettings(
            vote_timeout_s=self.random.choice([2.0, 10.0]),
            mark_interval_s=0.01 if "marks" in self.features else 0.1,
            mark_age_s=0.2 if "marks" in self.features else 1.0,
            answers_kept_s=5.0 if expiring else 1e9,
            expire_interval_s=1.0 if expiring else 1e6,
        )

    def _id(self, n: int) -> str:
        """With a time when they may expire: without one, an id is answered for only so long."""
        if "expiry" not in self.features:
            return f"id-{n}"
        ms = int((self.world.mono + self.random.uniform(-4, 1)) * 1000)
        return f"{ms:012x}"[:8] + "-" + f"{ms:012x}"[8:] + f"-7000-8000-{self.random.randrange(16**12):012x}"

    def run(self, steps: int = 120) -> World:
        """The faults, the healing, and what must then hold."""
        moves = [move for move, _ in self.moves]
        weights = [weight for _, weight in self.moves]
        for _ in range(steps):
            self.random.choices(moves, weights)[0]()
        world = self.world
        world.heal()
        judge(world)
        self._ask_again()
        if not world.cleared and not any(file.heuristics for files in world.files.values() for file in files):
            assert not [alarm for alarm in world.alarms if "is file" not in alarm], world.alarms[:3]
        return world

    def _ask_again(self) -> None:
        """Rule 11: across one more restart, whoever asks again hears what was heard (checked by the world)."""
        self.world.crash(COORDINATOR, len(self.world.queues[COORDINATOR]))
        self.world.start(COORDINATOR)
        for id, branches in self.contents.items():
            self.world.submit(*branches, id=id)
        self.world.heal(30)
        judge(self.world)

    # Moves.

    def _branches(self, names: list[str]) -> Branches:
        if self.content == "crossing":
            work = operations(("read", "x")) if self.random.random() < 0.5 else operations(("set", "x", 1))
            return tuple((name, work) for name in self.random.sample(self.world.names, len(self.world.names)))
        return tuple(self._hot(name) if self.content == "hot" else self._branch(name) for name in names)

    def _hot(self, name: str) -> tuple[str, bytes]:
        adds = [self.random.choice([-9, -6, -4, -1, 1, 4, 6, 9]) for _ in range(self.random.choice([1, 1, 2]))]
        return name, operations(
            *[self.random.choice([("add", "x", by, 0, 20), ("add", "x", by, 0), ("add", "x", by)]) for by in adds]
        )

    def _branch(self, name: str) -> tuple[str, bytes]:
        kind, key = self.random.random(), self.random.choice("xy")
        if "reads" in self.features and kind < 0.4:
            return name, operations(("read", key), ("check", self.random.choice("xy"), 1))
        if "loops" in self.features and kind < 0.5:
            other = "y" if key == "x" else "x"
            return name, operations(("read", key), ("add", other, self.random.choice([-2, 1, 2]), 0))
        if kind < 0.5:
            return name, operations(("add", key, self.random.choice([-6, -3, -1, 2, 5]), 0))
        if kind < 0.6:
            return name, operations(("set", key, self.random.randrange(20)))
        if kind < 0.75:
            return name, operations(("read", key))
        if kind < 0.85:
            return name, operations(("check", key, 5), ("add", key, -1, 0))
        return name, operations(("add", "x", 3, 0), ("add", "x", -4, 0))

    def submit(self) -> None:
        world = self.world
        if world.coordinator is None:
            return
        if "expiry" in self.features and self.random.random() < 0.1:
            self.ids.append(self._id(0))
        id = self.random.choice(["", *self.ids])
        branches = self.contents.get(id)
        if branches is None or self.random.random() < 0.1:
            count = 1 if "alone" in self.features and self.random.random() < 0.7 else self.random.choice([1, 2, 2, 3])
            chosen = self.random.sample(world.names, min(count, len(world.names)))
            branches = self._branches(chosen)
            if id:
                self.contents.setdefault(id, branches)
        timeout_s = self.random.choice([3, 10, 30])
        world.submit(*branches, id=id, timeout_s=timeout_s, wait_applied=self.random.random() < 0.2)

    def abort(self) -> None:
        if self.world.coordinator is None:
            return
        numbers = list(self.world.ids)
        assigned = [str(AttemptId(LOG, self.random.choice(numbers)))] if numbers else []
        self.world.abort(self.random.choice(self.ids + assigned))

    def message(self) -> None:
        net = self.world.net
        if not net:
            return
        often = 1.0 if "shuffled" in self.features else 0.3
        index = self.random.randrange(len(net)) if self.random.random() < often else 0
        chance = 1.0 if "calm" in self.features else self.random.random()
        if chance < 0.06:
            net.pop(index)
        else:
            self.world.deliver(index, keep=chance < 0.14)

    def flush(self) -> None:
        name = self._name()
        if self.world.up(name):
            self.world.flush(name, self.random.choice([None, 1, 2]))

    def report(self) -> None:
        name = self._name()
        if self.world.up(name):
            self.world.report(name)

    def call(self) -> None:
        if self.world.calls:
            self.world.call(self.random.randrange(len(self.world.calls)) if self.random.random() < 0.3 else 0)

    def wait(self) -> None:
        self.world.pass_time(self.random.choice([0.05, 0.3, 1, 3]))

    def crash(self) -> None:
        name = self._name()
        if self.world.up(name):
            self.world.crash(name, self.random.randrange(len(self.world.queues[name]) + 1))

    def start(self) -> None:
        name = self._name()
        if not self.world.up(name):
            if name == COORDINATOR and "expiry" in self.features:
                self.world.clocks[name] = self.random.choice([0.0, 0.0, -20.0, 3.0, 8.0])
            self.world.start(name)

    def lose_lane(self) -> None:
        haunting = "ghosts" in self.features and self.random.random() < 0.5
        self.world.lose_lane(self.random.choice(self.world.names), haunting=haunting)

    def open_lane(self) -> None:
        self.world.open_lane(self.random.choice(self.world.names))

    def swap(self) -> None:
        name = self.random.choice(self.world.names)
        if not self.world.up(name):
            self.world.swap(name, self.random.randrange(min(3, len(self.world.files[name]) + 1)))

    def cut(self) -> None:
        """A call that fails, or works again: to the coordinator often, to a peer seldom."""
        name = self.random.choice(self.world.names)
        to = self.random.choice([COORDINATOR] * 4 + self.world.names)
        self.world.cut ^= {(name, to)}

    def resolve_branch(self) -> None:
        name = self.random.choice(self.world.names)
        node = self.world.participants.get(name)
        branches = [] if node is None else [b for log in node.logs.values() for b in log.branches.values()]
        doubted = [branch.attempt for branch in branches if branch.state is State.PREPARED]
        if doubted:
            outcome = self.random.choice([Outcome.COMMITTED, Outcome.ABORTED])
            self.world.resolve_branch(name, self.random.choice(doubted), outcome)

    def resolve(self) -> None:
        """Settles what the coordinator lists as unresolved, or clears what it lists as heuristic."""
        world, node = self.world, self.world.coordinator
        listed = [] if node is None else node.unresolved(world.now(COORDINATOR))
        if not listed:
            return
        one = self.random.choice(listed)
        if one.kind == "heuristic":
            world.cleared.add((one.attempt.number, one.participant))
            world.resolve(one.id, one.participant, None)
        else:
            world.resolve(one.id, one.participant, self.random.choice([Outcome.COMMITTED, Outcome.ABORTED]))

    def _name(self) -> str:
        return self.random.choice([COORDINATOR, *self.world.names])
