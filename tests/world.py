"""A driver of the shipped nodes for tests: virtual time, a network and disks that lose what they may lose.

One coordinator and some participants in one thread. Whoever holds a `World` decides what happens next: which message
arrives (late, twice, never), whose log is flushed, who crashes and who comes back, with which file. Disks keep exactly
what was flushed. What may be checked at once is checked here (`watch.py`), the rest when all has come to rest
(`judge.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import coordinator.events as ce
import participant.events as pe
from coordinator.node import Coordinator
from coordinator.settings import CoordinatorSettings
from participant.node import Participant
from participant.settings import ParticipantSettings
from tests.memory import LOG, DecisionDisk, Memory, VoteDisk
from tests.watch import Branches, Watch
from troth.messages import Peer
from troth.words import Answer, AttemptId, Now, Outcome

COORDINATOR = "coordinator"


@dataclass
class Letter:
    """A message on its way on one lane."""

    lane: int
    to: str
    message: Any


@dataclass
class Client:
    """Somebody who asked the coordinator for something."""

    kind: str
    id: str
    branches: Branches
    life: int
    """The coordinator's, when it was asked."""


class World(Watch):
    """Everything, and the moves that a test can make."""

    def __init__(
        self,
        participants: Sequence[str] = ("a", "b"),
        data: dict[str, int] | None = None,
        coordinator_settings: CoordinatorSettings | None = None,
        participant_settings: ParticipantSettings | None = None,
        *,
        slow: bool = False,
    ) -> None:
        """`slow`: look-ups, the register and reports of flushes take their time, as moves of their own."""
        super().__init__()
        self.names = list(participants)
        self.coordinator_settings = coordinator_settings or CoordinatorSettings()
        self.participant_settings = participant_settings or ParticipantSettings()
        self.slow = slow
        self.mono = 1000.0
        self.clocks: dict[str, float] = {}
        """How far each process's wall clock is ahead."""
        self.decision_disk = DecisionDisk()
        self._data = data or {"x": 10, "y": 10}
        for name in self.names:
            self.files[name] = [VoteDisk(f"file-{name}", dict(self._data))]
            self.vote_disks[name] = self.files[name][0]
        self.registers: dict[str, tuple[int, Outcome]] = {}
        self.queues: dict[str, list[tuple[int, Any, bool]]] = {}
        self.reports: dict[str, list[list[tuple[int, Any]]]] = {}
        """Flushes that the node has not heard of."""
        self.net: list[Letter] = []
        self.calls: list[tuple[str, int, Callable[[], None]]] = []
        """Single calls, look-ups and slow registers on their way: to whom, to which of its lives."""
        self.cut: set[tuple[str, str]] = set()
        """Who cannot call whom; lanes are not concerned."""
        self.ghosts: list[tuple[str, str, Letter]] = []
        """Letters of lost lanes that arrive on a later lane to the same file: participant, its file, letter."""
        self.lanes: dict[str, int] = {}
        self.wakes: dict[str, float] = {}
        self.lives: dict[str, int] = {}
        self.clients: dict[int, Client] = {}
        self.cleared: set[tuple[int, str]] = set()
        """Heuristic records that a person cleared at the coordinator."""
        self._callbacks: dict[int, tuple[str, Callable[[Any], None]]] = {}
        self._counter = 0
        self._lane = 0
        for name in self.names:
            self.start(name)
        self.start(COORDINATOR)
        for name in self.names:
            self.open_lane(name)

    # Moves.

    def now(self, name: str) -> Now:
        return Now(self.mono, self.mono + self.clocks.get(name, 0.0))

    def up(self, name: str) -> bool:
        return self.coordinator is not None if name == COORDINATOR else name in self.participants

    def start(self, name: str) -> None:
        """A new incarnation from what is on its disk."""
        self.queues[name], self.reports[name] = [], []
        self.lives[name] = self._next()
        if name == COORDINATOR:
            disk = self.decision_disk
            disk.epoch += 1
            self.registers = {}
            addresses = {each: f"addr-{each}" for each in self.names}
            self.coordinator = Coordinator(LOG, disk.epoch, self.coordinator_settings, addresses, disk.recovered())
            self.perform(name, self.coordinator.start(self.now(name)))
        else:
            file = self.vote_disks[name]
            plan = Memory(file.data).plan
            node = Participant(name, file.identity, self.lives[name], self.participant_settings, plan, file.recovered())
            self.participants[name] = node
            self.perform(name, node.start(self.now(name)))

    def crash(self, name: str, surviving: int = 0) -> None:
        """Kills a process. The first `surviving` queued jobs reached the disk unannounced; the rest are lost."""
        self.trace.append(f"crash {name} ({surviving} of {len(self.queues[name])} unannounced survive)")
        for _, job, _ in self.queues[name][:surviving]:
            self._run(name, job)
        self.queues[name], self.reports[name] = [], []
        self.wakes.pop(name, None)
        if name == COORDINATOR:
            self.coordinator = None
            for each in list(self.lanes):
                self.lose_lane(each)
        else:
            del self.participants[name]
            self.lose_lane(name)
        for caller, (callee, callback) in list(self._callbacks.items()):
            if callee == name:
                del self._callbacks[caller]
                callback(None)

    def swap(self, name: str, index: int) -> None:
        """Another file under the name of a participant that is down; one past the last is a new, empty one."""
        assert name not in self.participants
        files = self.files[name]
        if index == len(files):
            files.append(VoteDisk(f"file-{name}-{index}", dict(self._data)))
        self.vote_disks[name] = files[index]
        self.trace.append(f"{name} is {files[index].identity}")

    def open_lane(self, name: str) -> None:
        """The coordinator dials; both say hello."""
        if self.coordinator is None or name not in self.participants or name in self.lanes:
            return
        self._lane += 1
        self.lanes[name] = self._lane
        self.opened[self.mono, name] += 1
        self.trace.append(f"lane {name} opens")
        self.feed(name, pe.LaneOpened(self._lane, LOG, COORDINATOR))
        ghosts = [letter for who, file, letter in self.ghosts if (who, file) == (name, self.vote_disks[name].identity)]
        self.ghosts = [ghost for ghost in self.ghosts if ghost[2] not in ghosts]
        self.net += [Letter(self._lane, ghost.to, ghost.message) for ghost in ghosts]

    def lose_lane(self, name: str, *, haunting: bool = False) -> None:
        """The lane breaks, and what was on it is lost; or, worse than any transport, arrives on a later one."""
        lane = self.lanes.pop(name, None)
        if lane is None:
            return
        self.trace.append(f"lane {name} lost")
        if haunting:
            file = self.vote_disks[name].identity
            self.ghosts += [(name, file, letter) for letter in self.net if letter.lane == lane]
        self.net = [letter for letter in self.net if letter.lane != lane]
        self.feed(name, pe.LaneLost(lane))
        self.feed(COORDINATOR, ce.LaneLost(name, "lost"))

    def flush(self, name: str, count: int | None = None) -> None:
        """Makes the first `count` queued jobs durable (all by default); the node hears of it, at once unless slow."""
        queue = self.queues[name][:count]
        if not queue:
            return
        self.queues[name] = self.queues[name][len(queue) :]
        self.reports[name].append([(n, self._run(name, job)) for n, job, _ in queue])
        self.trace.append(f"{name} flushes {', '.join(type(job).__name__ for _, job, _ in queue)}")
        if not self.slow:
            self.report(name)

    def report(self, name: str) -> None:
        """The node hears of all flushes so far."""
        done = [each for flush in self.reports[name] for each in flush]
        self.reports[name].clear()
        results = [(n, result) for n, result in done if result is not None]
        if done and name == COORDINATOR:
            self.feed(name, ce.Durable(done[-1][0]))
            for _, horizon in results:
                self.feed(name, ce.HorizonMoved(horizon))
        elif done:
            self.feed(name, pe.Flushed(done[-1][0], tuple(results)))

    def deliver(self, index: int = 0, *, keep: bool = False) -> None:
        """One message arrives; kept when it is to arrive again."""
        letter = self.net[index] if keep else self.net.pop(index)
        name = next(n for n, lane in self.lanes.items() if lane == letter.lane)
        self.trace.append(f"{name} {'<-' if letter.to == name else '->'} {_short(letter.message)}")
        if letter.to == COORDINATOR:
            self.feed(COORDINATOR, ce.Received(name, (letter.message,)))
        else:
            self.feed(name, pe.Received(LOG, (letter.message,)))

    def call(self, index: int = 0) -> None:
        """A single call arrives, unless the process it was meant for is gone."""
        name, life, call = self.calls.pop(index)
        if self.up(name) and self.lives[name] == life:
            call()

    def pass_time(self, seconds: float) -> None:
        """Time passes; whoever asked to be woken is."""
        self.mono += seconds
        for name in sorted(n for n, at in self.wakes.items() if at <= self.mono):
            del self.wakes[name]
            self.feed(name, ce.Ticked() if name == COORDINATOR else pe.Ticked())

    def submit(
        self, *branches: tuple[str, bytes], id: str = "", timeout_s: float = 30.0, wait_applied: bool = False
    ) -> int:
        """A client submits; its number. `replies` has the answer once it is there."""
        client = self._client("submit", id, branches)
        parts = []
        for name, encoded in branches:
            work = Memory({}).plan(encoded)
            reads = any(kind == "read" for kind, *_ in work.work)
            parts.append(ce.Branch(name, encoded, work.read_only, reads, len(work.work)))
        wanted = ce.Submission(id, repr(branches).encode(), tuple(parts), timeout_s, wait_applied)
        self.feed(COORDINATOR, ce.Submitted(client, wanted))
        return client

    def abort(self, id: str) -> int:
        client = self._client("abort", id, ())
        self.feed(COORDINATOR, ce.AbortAsked(client, id))
        return client

    def resolve(self, id: str, participant: str, outcome: Outcome | None) -> int:
        """A person settles or clears a branch at the coordinator."""
        client = self._client("resolve", id, ())
        self.feed(COORDINATOR, ce.ResolveAsked(client, id, participant, outcome, "by hand"))
        return client

    def resolve_branch(self, name: str, attempt: AttemptId, outcome: Outcome) -> None:
        """A person settles a branch at its participant."""
        self.trace.append(f"{name} resolves {_short(attempt)} as {outcome.name}")
        self._next()
        self.feed(name, pe.ResolveAsked(self._counter, attempt, outcome, "by hand"))

    def settle(self, rounds: int = 300) -> None:
        """Flushes and delivers everything until nothing moves."""
        for _ in range(rounds):
            busy = False
            for name in [COORDINATOR, *self.names]:
                if self.up(name) and (self.queues[name] or self.reports[name]):
                    self.flush(name)
                    self.report(name)
                    busy = True
            while self.net:
                self.deliver()
                busy = True
            while self.calls:
                self.call()
                busy = True
            if not busy:
                return
        raise AssertionError("the world does not come to rest")

    def heal(self, seconds: int = 60) -> None:
        """Everything up, everything connected, every file there for a while, time enough: liveness must follow."""
        self.trace.append("heal")
        self.cut.clear()
        self.ghosts.clear()
        for name in self.names:
            self.lose_lane(name)  # a lane that lost a message does not stay open
        if self.coordinator is None:
            self.start(COORDINATOR)
        self._run_well(seconds)
        for name in self.names:
            for index in [i for i, file in enumerate(self.files[name]) if file is not self.vote_disks[name]]:
                if name in self.participants:
                    self.crash(name)
                self.swap(name, index)
                self._run_well(15)

    def _run_well(self, seconds: int) -> None:
        for _ in range(seconds):
            for name in self.names:
                if name not in self.participants:
                    self.start(name)
                self.open_lane(name)
            self.settle()
            self.pass_time(1.0)
        self.settle()

    # Inside.

    def _next(self) -> int:
        self._counter += 1
        return self._counter

    def _client(self, kind: str, id: str, branches: Branches) -> int:
        client = self._next()
        self.clients[client] = Client(kind, id, branches, self.lives[COORDINATOR])
        self.trace.append(f"client {client}: {kind} {id or 'without id'} {[n for n, _ in branches]}")
        return client

    def feed(self, name: str, event: Any) -> None:
        node: Any = self.coordinator if name == COORDINATOR else self.participants.get(name)
        if node is not None:
            self.perform(name, node.step(event, self.now(name)))

    def perform(self, name: str, effects: Sequence[Any]) -> None:
        """Carries effects out; events that they bring about come after all of them, as with the engine."""
        soon: list[Callable[[], None]] = []
        for effect in effects:
            match effect:
                case ce.Append():
                    self._queue(name, effect.n, effect.record, effect.forced)
                case pe.Write():
                    self._queue(name, effect.n, effect.job, effect.forced)
                case ce.Decide():
                    self.watch_decide(effect)
                    soon.append(partial(self._decide, effect))
                case ce.Undecide():
                    self.registers.pop(effect.id, None)
                case ce.LookUp():
                    soon.append(partial(self._look_up, effect))
                case ce.Send():
                    self.watch_sent(effect)
                    if effect.participant in self.lanes:
                        self.net.append(Letter(self.lanes[effect.participant], effect.participant, effect.message))
                case pe.Send():
                    self.watch_said(name, effect.message)
                    if name in self.lanes:
                        self.net.append(Letter(self.lanes[name], COORDINATOR, effect.message))
                case pe.Hello():
                    node = self.participants[name]
                    hello = ce.LaneOpened(name, node.identity, node.incarnation, f"addr-{name}", effect.questions)
                    self.feed(COORDINATOR, hello)
                case ce.Reply():
                    self._reply(effect.client, effect.value)
                case pe.Reply():
                    self._reply(effect.caller, effect.value)
                case pe.AskCoordinator():
                    self._ask_coordinator(name, effect.attempt)
                case pe.AskPeer():
                    self._ask_peer(name, effect.attempt, effect.peer)
                case ce.WakeAt() | pe.WakeAt():
                    self.wakes[name] = min(effect.at, self.wakes.get(name, effect.at))
                case ce.Alarm() | pe.Alarm():
                    self.alarms.append(f"{name}: {effect.message}")

        for call in soon:
            # As a move of its own when slow, else before the next move.
            if self.slow:
                self.calls.append((name, self.lives[name], call))
            else:
                call()

    def _queue(self, name: str, n: int, job: Any, forced: bool) -> None:
        queue = self.queues[name]
        assert not queue or queue[-1][0] == n - 1, f"{name} queues number {n} behind {queue[-1][0]}"
        queue.append((n, job, forced))

    def _decide(self, effect: ce.Decide) -> None:
        won = self.registers.setdefault(effect.id, (effect.number, effect.outcome))
        self.feed(COORDINATOR, ce.Decided(effect.id, *won))

    def _look_up(self, effect: ce.LookUp) -> None:
        """Behind everything queued, so that is flushed and told first."""
        self.flush(COORDINATOR)
        self.report(COORDINATOR)
        self.feed(COORDINATOR, ce.LookedUp(effect.key, self.decision_disk.look_up(effect.key)))

    def _reply(self, caller: int, value: Any) -> None:
        assert caller not in self.replies, f"{caller} is answered twice"
        self.replies[caller] = value
        _, callback = self._callbacks.pop(caller, ("", None))
        if callback is not None:
            callback(value)
        elif caller in self.clients:
            self.trace.append(f"client {caller} hears {getattr(value, 'outcome', value)!r}")
            self.watch_answer(self.clients[caller].id, self.clients[caller].branches, value)

    def _ask_coordinator(self, name: str, attempt: AttemptId) -> None:
        """The answer, or None when the coordinator is not there."""
        event = ce.Asked(self._next(), attempt.log, attempt.number)

        def said(answer: Answer | None) -> pe.CoordinatorAnswered:
            return pe.CoordinatorAnswered(attempt, answer)

        self._ask(name, COORDINATOR, event, event.client, said)

    def _ask_peer(self, name: str, attempt: AttemptId, peer: Peer) -> None:
        event = pe.PeerAsked(self._next(), attempt, peer.identity)

        def said(answer: Answer | None) -> pe.PeerAnswered:
            if answer in (Answer.COMMITTED, Answer.ABORTED):
                self.watch_vouched(peer, attempt, answer)
            return pe.PeerAnswered(attempt, peer, answer)

        self._ask(name, peer.participant, event, event.caller, said)

    def _ask(self, name: str, to: str, event: Any, caller: int, said: Callable[[Answer | None], Any]) -> None:
        life = self.lives[name]

        def answered(answer: Answer | None) -> None:
            if self.up(name) and self.lives[name] == life:
                self.feed(name, said(answer))

        def arrives() -> None:
            if self.up(to) and (name, to) not in self.cut:
                self._callbacks[caller] = to, answered
                self.feed(to, event)
            else:
                answered(None)

        self.calls.append((name, life, arrives))

    def _run(self, name: str, job: Any) -> Any:
        return self.decision_disk.run(job) if name == COORDINATOR else self.vote_disks[name].run(job)


def _short(message: Any) -> str:
    number = next((part for part in message if isinstance(part, int)), 0)
    rest = [getattr(part, "name", "") for part in message if hasattr(part, "name")]
    return f"{type(message).__name__}({number >> 40}:{number & 0xFFFF}{''.join(' ' + each for each in rest)})"
