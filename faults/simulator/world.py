"""The shipped nodes on simulated disks: what every driver of theirs has in common, whoever decides what happens when.

A `World` starts and stops processes, feeds their nodes, and carries effects out as far as that takes no time. All that
takes time (a message, a flush, a call, a timer) is left to a subclass: `simulation.py` draws it from a seed, and tests
of single paths move each by hand. Every effect passes the checks of `checks/watch.py` on its way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import coordinator.events as ce
import participant.events as pe
from coordinator.events import Entry
from coordinator.node import Coordinator
from coordinator.registers import EmbeddedRegister
from coordinator.settings import CoordinatorSettings
from faults.simulator.checks.watch import Watch
from faults.simulator.disks import LOG, DecisionDisk, Disk, VoteDisk
from faults.simulator.scenario import BEGIN, COORDINATOR
from faults.simulator.servers import Server, at_once
from faults.simulator.violation import require
from faults.simulator.workload import Parts, initial_rows
from participant.node import Participant
from participant.outside import part_of
from participant.settings import ParticipantSettings
from troth.messages import Peer
from troth.words import Answer, AttemptId, Now, Outcome


class Client:
    """Somebody who waits for an answer of the coordinator."""

    __slots__ = ("id", "kind", "life", "parts")

    def __init__(self, kind: str, id: str, parts: Parts, life: int) -> None:
        self.kind = kind
        """submit, abort or person."""
        self.id = id
        self.parts = parts
        self.life = life
        """The coordinator's, when it was asked."""


class Errand(NamedTuple):
    """A job that a participant has asked its server to do its part of."""

    name: str
    life: int
    server: Server
    n: int
    job: pe.BranchJob


class World(ABC):
    """One coordinator and its participants."""

    def __init__(
        self,
        names: Sequence[str],
        coordinator_settings: CoordinatorSettings,
        participant_settings: ParticipantSettings,
        outside: Collection[str] = (),
    ) -> None:
        """`outside`: participants whose data are at a server."""
        self.names = list(names)
        self.coordinator_settings = coordinator_settings
        self.participant_settings = participant_settings
        self.mono = BEGIN
        self.clocks: dict[str, float] = {}
        """How far each process's wall clock is ahead."""
        self.initial = initial_rows()
        self.decision_disk = DecisionDisk()
        self.files: dict[str, list[VoteDisk]] = {
            name: [VoteDisk(name, f"file-{name}", self.initial, outside=name in outside)] for name in self.names
        }
        """Every file that was ever served under a name."""
        self.vote_disks: dict[str, VoteDisk] = {name: files[0] for name, files in self.files.items()}
        """The one that is served now."""
        self.coordinator: Coordinator | None = None
        self.participants: dict[str, Participant] = {}
        self.lives: dict[str, int] = dict.fromkeys([COORDINATOR, *self.names], 0)
        """The incarnation of each process that runs, or ran last."""
        self.decisions = EmbeddedRegister()
        self.clients: dict[int, Client] = {}
        self.replies: dict[int, Any] = {}
        """What clients and other callers heard, by their numbers."""
        self.alarms: list[str] = []
        self.trace: list[str] | None = None
        self._errands: dict[tuple[str, AttemptId], deque[Errand]] = {}
        """At a server or waiting for it, by branch: jobs of one branch are done one after the other."""
        self._callbacks: dict[int, tuple[str, Callable[[Any], None]]] = {}
        self._counter = 0
        self._effects: Mapping[type, Callable[[str, Any], None]] = {
            ce.Append: self._append,
            pe.Write: self._write,
            pe.Carry: self._carry,
            ce.Decide: self._decide_effect,
            ce.Undecide: self._undecide,
            ce.LookUp: self._look_up_effect,
            ce.Send: self._send_down,
            pe.Send: self._send_up,
            pe.Hello: self._hello,
            ce.Reply: self._reply_effect,
            pe.Reply: self._reply_effect,
            ce.Closed: lambda name, effect: None,
            pe.AskCoordinator: self._ask_coordinator,
            pe.AskPeer: self._ask_peer,
            ce.WakeAt: self._wake_at,
            pe.WakeAt: self._wake_at,
            ce.Alarm: self._alarm,
            pe.Alarm: self._alarm,
        }
        self.watch = Watch(self)

    # What takes time, and is a subclass's.

    @abstractmethod
    def post_down(self, name: str, message: Any) -> None:
        """The coordinator sends on its lane to that participant, if there is one."""

    @abstractmethod
    def post_up(self, name: str, message: Any) -> None:
        """The participant sends on the lane that it has, if any."""

    @abstractmethod
    def say_hello(self, name: str, hello: pe.Hello) -> None:
        """The participant answers a lane's hello."""

    @abstractmethod
    def queued(self, name: str, forced: bool) -> None:
        """Something stands in the queue before that process's disk."""

    @abstractmethod
    def to_server(self, errand: Errand) -> None:
        """`serve` there and then `served`, at once or later."""

    @abstractmethod
    def look_up(self, key: str | int) -> None:
        """Feeds `looked_up` once everything that is queued now is durable."""

    @abstractmethod
    def register(self, proposal: ce.Decide) -> None:
        """Feeds `decided`, at once or later."""

    @abstractmethod
    def ask(self, name: str, to: str, arrive: Callable[[], None], lost: Callable[[], None]) -> None:
        """A single call to another process: `arrive` there, or `lost` at the caller, which may also come late."""

    @abstractmethod
    def reply(self, name: str, to: str, arrive: Callable[[], None]) -> None:
        """The answer to a call goes back: `arrive` at the caller, or never."""

    @abstractmethod
    def wake_at(self, name: str, at: float) -> None:
        """The node asks to be woken."""

    @abstractmethod
    def answered(self, client: int, value: Any) -> None:
        """An answer leaves for a client."""

    # Processes.

    def now(self, name: str) -> Now:
        return Now(self.mono, self.mono + self.clocks.get(name, 0.0))

    def up(self, name: str) -> bool:
        return self.coordinator is not None if name == COORDINATOR else name in self.participants

    def every_file(self) -> list[VoteDisk]:
        """Of all participants, those included that are no longer served."""
        return [disk for files in self.files.values() for disk in files]

    def torn_by_hand(self) -> bool:
        """Whether a person has settled anything, at a participant or at the coordinator."""
        return bool(self.decision_disk.ledger.by_hand) or any(disk.ledger.heuristics for disk in self.every_file())

    def disk(self, name: str) -> Disk:
        return self.decision_disk if name == COORDINATOR else self.vote_disks[name]

    def start(self, name: str) -> None:
        """A new incarnation from what is on its disk."""
        self.lives[name] = self.next_number()
        self.note(f"{name} starts")
        if name == COORDINATOR:
            self.decisions = EmbeddedRegister()
            log = self.decision_disk.open()
            addresses = {each: f"addr-{each}" for each in self.names}
            node = Coordinator(LOG, log.epoch, self.coordinator_settings, addresses, log.recovered)
            self.coordinator = node
            self.perform(name, node.start(self.now(name)))
        else:
            disk = self.vote_disks[name]
            recovered = disk.open().recover()
            self.participants[name] = made = Participant(
                name,
                disk.identity,
                self.lives[name],
                self.participant_settings,
                lambda operations: disk.resource.plan(operations),
                recovered,
                outside=disk.server is not None,
            )
            self.perform(name, made.start(self.now(name)))
            self.watch.started(name)

    def stop(self, name: str) -> None:
        """The process is gone, and whatever it had queued. Whoever called it by a single call hears nothing."""
        self.disk(name).queue.clear()
        if name == COORDINATOR:
            self.coordinator = None
        else:
            del self.participants[name]
            self._errands = {branch: line for branch, line in self._errands.items() if branch[0] != name}
        for caller, (callee, callback) in list(self._callbacks.items()):
            if callee == name:
                del self._callbacks[caller]
                callback(None)

    def swap(self, name: str, index: int) -> None:
        """Another file under the name of a participant that is down; one past the last is a new one."""
        assert name not in self.participants
        files = self.files[name]
        if index == len(files):
            outside = files[0].server is not None
            files.append(VoteDisk(name, f"file-{name}-{index}", self.initial, outside=outside))
        self.vote_disks[name] = files[index]
        self.note(f"{name} is {files[index].identity} now")

    def close(self) -> None:
        self.decision_disk.close()
        for files in self.files.values():
            for disk in files:
                disk.close()

    # Events in, effects out.

    def next_number(self) -> int:
        self._counter += 1
        return self._counter

    def feed(self, name: str, event: Any) -> None:
        """Steps a node and carries out what follows; nothing when the process is down."""
        node: Any = self.coordinator if name == COORDINATOR else self.participants.get(name)
        if node is not None:
            self.perform(name, node.step(event, self.now(name)))

    def perform(self, name: str, effects: Sequence[Any]) -> None:
        table = self._effects
        for effect in effects:
            table[type(effect)](name, effect)
        if name == COORDINATOR:
            self.watch.stepped()

    def flushed(self, name: str, done: list[tuple[int, Any]]) -> None:
        """The process hears of what has become durable."""
        results = [(n, result) for n, result in done if result is not None]
        if name == COORDINATOR:
            self.feed(name, ce.Durable(done[-1][0]))
            for _, horizon in results:
                self.feed(name, ce.HorizonMoved(horizon))
        else:
            self.feed(name, pe.Flushed(done[-1][0], tuple(results)))

    def looked_up(self, key: str | int, entry: Entry | None) -> None:
        """What the log held when it was looked through; everything that it showed then has been told."""
        self.feed(COORDINATOR, ce.LookedUp(key, entry))

    def decided(self, proposal: ce.Decide) -> None:
        """The register's answer."""
        self.decisions.decide(proposal, lambda decided: self.feed(COORDINATOR, decided))

    # Servers.

    def _carry(self, name: str, effect: pe.Carry) -> None:
        server = self.vote_disks[name].server
        assert server is not None
        self.watch.carries(name, effect.job)
        errand = Errand(name, self.lives[name], server, effect.n, effect.job)
        line = self._errands.setdefault((name, effect.job.attempt), deque())
        line.append(errand)
        if len(line) == 1:
            self.to_server(errand)

    def serve(self, errand: Errand) -> Any:
        """The server does its part now; what it will say."""
        self.watch.serves(errand)
        if isinstance(errand.job, pe.Resolve):
            errand.server.by_hand.add(errand.job.attempt)
        result = at_once(part_of(errand.server, errand.job))
        if self.trace is not None:
            kind, number = type(errand.job).__name__, short(number_of(errand.job))
            self.note(f"{errand.name}'s server has done its part of {kind} {number}: {type(result).__name__}")
        self.watch.flushed(errand.name)
        return result

    def served(self, errand: Errand, result: Any) -> None:
        """The participant hears of it, and goes on with that branch."""
        branch = errand.name, errand.job.attempt
        line = self._errands[branch]
        line.popleft()
        if line:
            self.to_server(line[0])
        else:
            del self._errands[branch]
        self.feed(errand.name, pe.Carried(errand.n, result))

    def at_server(self, name: str) -> list[Any]:
        """The jobs of a participant whose records are not queued yet."""
        return [errand.job for (who, _), line in self._errands.items() if who == name for errand in line]

    # Clients.

    def submit(
        self,
        parts: Parts,
        *,
        id: str = "",
        timeout_s: float = 30.0,
        wait_applied: bool = False,
        client: int | None = None,
    ) -> int:
        """A submission arrives at the coordinator; the client's number. `replies` has the answer once it is there."""
        digest = repr(sorted((one.participant, one.operations) for one in parts)).encode()
        client = self._client("submit", id, parts, client)
        branches = tuple(
            ce.Branch(one.participant, one.operations, one.read_only, one.reads, len(one.work)) for one in parts
        )
        self.watch.submitted(client, id, parts, timeout_s, wait_applied)
        self.feed(COORDINATOR, ce.Submitted(client, ce.Submission(id, digest, branches, timeout_s, wait_applied)))
        return client

    def abort(self, id: str, client: int | None = None) -> int:
        client = self._client("abort", id, (), client)
        self.feed(COORDINATOR, ce.AbortAsked(client, id))
        return client

    def resolve(self, id: str, participant: str, outcome: Outcome | None) -> int:
        """A person settles or clears a branch at the coordinator."""
        client = self._client("person", id, (), None)
        self.feed(COORDINATOR, ce.ResolveAsked(client, id, participant, outcome, "by hand"))
        return client

    def resolve_branch(self, name: str, attempt: AttemptId, outcome: Outcome) -> None:
        """A person settles a branch at its participant."""
        self.note(f"a person resolves {short(attempt.number)} at {name} as {outcome.name}")
        self.feed(name, pe.ResolveAsked(self.next_number(), attempt, outcome, "by hand"))

    def _client(self, kind: str, id: str, parts: Parts, client: int | None) -> int:
        client = self.next_number() if client is None else client
        self.clients[client] = Client(kind, id, parts, self.lives[COORDINATOR])
        if self.trace is not None:
            what = ", ".join(f"{one.participant}: {' '.join(map(describe, one.work))}" for one in parts)
            self.note(f"client {client} -> {COORDINATOR}: {kind} {id or 'without an id'} {what}")
        return client

    # Effects.

    def _append(self, name: str, effect: ce.Append) -> None:
        self._queue(name, effect.n, effect.record, effect.forced)

    def _write(self, name: str, effect: pe.Write) -> None:
        self._queue(name, effect.n, effect.job, effect.forced)

    def _queue(self, name: str, n: int, job: Any, forced: bool) -> None:
        queue = self.disk(name).queue
        require(not queue or queue[-1][0] == n - 1, f"{name} queues number {n} out of order")
        self.watch.queues(name, job, forced)
        queue.append((n, job, forced))
        if self.trace is not None:
            self.note(f"{name} queues {'forced' if forced else 'lazy'} {type(job).__name__} {short(number_of(job))}")
        self.queued(name, forced)

    def _decide_effect(self, name: str, effect: ce.Decide) -> None:
        self.watch.decides(effect)
        self.register(effect)

    def _undecide(self, name: str, effect: ce.Undecide) -> None:
        self.decisions.undecide(effect.id)

    def _look_up_effect(self, name: str, effect: ce.LookUp) -> None:
        self.look_up(effect.key)

    def _send_down(self, name: str, effect: ce.Send) -> None:
        self.watch.says_down(effect.participant, effect.message)
        self.post_down(effect.participant, effect.message)

    def _send_up(self, name: str, effect: pe.Send) -> None:
        self.watch.says_up(name, effect.message)
        self.post_up(name, effect.message)

    def _hello(self, name: str, effect: pe.Hello) -> None:
        self.watch.says_hello(name, effect.questions)
        self.say_hello(name, effect)

    def _reply_effect(self, name: str, effect: Any) -> None:
        caller = effect.client if type(effect) is ce.Reply else effect.caller
        require(caller not in self.replies, f"{caller} is answered twice")
        self.replies[caller] = effect.value
        _, callback = self._callbacks.pop(caller, ("", None))
        if callback is not None:
            callback(effect.value)
        elif caller in self.clients:
            if self.trace is not None:
                self.note(f"{COORDINATOR} -> client {caller}: {_told(effect.value)}")
            self.watch.answers(caller, self.clients[caller], effect.value)
            self.answered(caller, effect.value)

    def _wake_at(self, name: str, effect: Any) -> None:
        self.wake_at(name, effect.at)

    def _alarm(self, name: str, effect: Any) -> None:
        self.note(f"{name}: ALARM: {effect.message}")
        self.alarms.append(f"{name}: {effect.message}")

    def _ask_coordinator(self, name: str, effect: pe.AskCoordinator) -> None:
        self.watch.asks_coordinator(name, effect.attempt.number)
        event = ce.Asked(self.next_number(), effect.attempt.log, effect.attempt.number)

        def said(answer: Answer | None) -> pe.CoordinatorAnswered:
            return pe.CoordinatorAnswered(effect.attempt, answer)

        self._call(name, COORDINATOR, event, event.client, said)

    def _ask_peer(self, name: str, effect: pe.AskPeer) -> None:
        attempt, peer = effect.attempt, effect.peer
        self.watch.asks_peer(name, attempt.number)
        event = pe.PeerAsked(self.next_number(), attempt, peer.identity)

        def said(answer: Answer | None) -> pe.PeerAnswered:
            return pe.PeerAnswered(attempt, peer, answer)

        self._call(name, _at_address(peer), event, event.caller, said)

    def _call(self, name: str, to: str, event: Any, caller: int, said: Callable[[Answer | None], Any]) -> None:
        """Asks once; the answer, or None when there is none, is fed to the caller if it still lives."""
        life = self.lives[name]
        done = False

        def back(answer: Answer | None) -> None:
            nonlocal done
            if not done and self.up(name) and self.lives[name] == life:
                done = True
                self.note(f"{name} hears {answer.name if answer else 'nothing'} from {to}")
                self.feed(name, said(answer))

        def arrives() -> None:
            if self.up(to):
                self._callbacks[caller] = to, lambda value: self._carry_back(name, to, event, value, back)
                self.note(f"{name} asks {to} by a call")
                self.feed(to, event)
            else:
                back(None)

        self.ask(name, to, arrives, lambda: back(None))

    def _carry_back(self, name: str, to: str, event: Any, value: Any, back: Callable[[Answer | None], None]) -> None:
        if type(event) is pe.PeerAsked and value is not None:
            self.watch.vouches(to, event.attempt.number, value)
        self.reply(to, name, lambda: back(value))

    # For people.

    def note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.mono - BEGIN:10.4f}  {text}")


def _at_address(peer: Peer) -> str:
    """Who answers at a peer's address: whatever file is served under that name by then."""
    return peer.address.removeprefix("addr-")


def number_of(job: Any) -> int:
    """The attempt that a record, a job or a message is of; 0 for none."""
    attempt = getattr(job, "attempt", None)
    return int(attempt.number) if attempt is not None else int(getattr(job, "number", 0))


def short(number: int) -> str:
    """An attempt's number for people: epoch and sequence."""
    return f"{number >> 40}:{number & (1 << 40) - 1}" if number else ""


def describe(op: Any) -> str:
    """An operation for people."""
    values = " ".join(f"{column}={value}" for column, value in op.values)
    bounds = "".join(f" {name}={bound}" for name, bound in (("min", op.low), ("max", op.high)) if bound is not None)
    return f"[{op.kind} {op.table}/{op.key} {values}{bounds}]".replace(" ]", "]")


def spoken(message: Any) -> str:
    """A message for people."""
    rest = " ".join(getattr(part, "name", "") for part in message if hasattr(part, "name"))
    if type(message).__name__ == "Mark":
        rest = f"{short(message.low)} but {[short(n) for n in message.excepted]}"
    return f"{type(message).__name__} {short(number_of(message))} {rest}".strip()


def _told(value: Any) -> str:
    if not isinstance(value, ce.Result):
        return str(value)
    return f"{value.outcome.name} {value.id}{': ' + value.reason.message if value.reason else ''}"
