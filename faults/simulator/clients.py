"""Those who ask: clients that submit and, while they do not know, ask again with the same id; people who settle things.

A client hears that nobody is there, an answer, that its connection broke, or nothing because the answer was lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faults.simulator.disks import LOG
from faults.simulator.scenario import COORDINATOR, Ask
from faults.simulator.workload import Parts
from participant.protocol import State
from troth.words import AttemptId, Outcome

if TYPE_CHECKING:
    from faults.simulator.simulation import Simulation

ASKED_AGAIN_MAX = 20
"""Ids that are submitted once more at the end of a run."""


class Clients:
    """The clients of one simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self.waiting: dict[int, tuple[Ask, int]] = {}
        """Who waits for an answer: what was asked, and how often it will be asked again."""
        self._contents: dict[str, Parts] = {}
        """What each id was submitted with first."""

    def ask(self, ask: Ask) -> None:
        if ask.kind == "person":
            self._person()
            return
        if ask.kind == "submit" and ask.id:
            self._contents.setdefault(ask.id, ask.parts)
        self._send(ask, ask.patience)

    def ask_again(self) -> None:
        """The last ids of the run, each with what it was submitted with first."""
        for id, parts in list(self._contents.items())[-ASKED_AGAIN_MAX:]:
            self._send(Ask(self._sim.mono, "submit", id, parts, timeout_s=30.0), 3)

    def answered(self, client: int, value: Any) -> None:
        found = self.waiting.pop(client, None)
        if found is None:
            return
        ask, patience = found
        sim, random = self._sim, self._sim.random.random
        lost = random() < sim.network.weather.loss
        unknown = getattr(value, "outcome", None) is Outcome.UNKNOWN
        if (lost or unknown) and patience and ask.id and ask.kind == "submit":
            sim.after(0.2 + random(), self._send, ask, patience - 1)
        elif ask.again_s is not None:
            sim.after(ask.again_s, self._send, ask._replace(again_s=None), patience)

    def connection_broke(self) -> None:
        """The coordinator died: nobody who waits knows."""
        for client in list(self.waiting):
            self._sim.after(self._sim.network.latency(), self._unknown, client)

    def _unknown(self, client: int) -> None:
        found = self.waiting.pop(client, None)
        if found is not None:
            ask, patience = found
            if patience and ask.id and ask.kind == "submit":
                self._sim.after(0.1 + 0.5 * self._sim.random.random(), self._send, ask, patience - 1)

    def _send(self, ask: Ask, patience: int) -> None:
        """The request goes out; it arrives, or nobody is there and it goes out again."""
        sim = self._sim

        def arrives() -> None:
            client = sim.next_number()
            self.waiting[client] = ask, patience
            if ask.kind == "abort":
                sim.abort(ask.id or self._assigned(), client)
            else:
                sim.submit(ask.parts, id=ask.id, timeout_s=ask.timeout_s, wait_applied=ask.wait_applied, client=client)

        def nobody() -> None:
            if patience or sim.healing:
                sim.after(0.3 * (0.5 + sim.random.random()), self._send, ask, max(patience - 1, 0))

        sim.at_process(COORDINATOR, sim.network.latency(), arrives, gone=nobody)

    def _assigned(self) -> str:
        """An id that the coordinator assigned, or one that it might have."""
        numbers = list(self._sim.watch.ids)[-8:] or [1]
        return str(AttemptId(LOG, self._sim.random.choice(numbers)))

    # People.

    def _person(self) -> None:
        """Somebody settles what is in doubt or unresolved somewhere, or clears what was settled."""
        if not self._sim.healing:
            self.settle(self._sim.random.choice([*self._sim.names, *[COORDINATOR] * len(self._sim.names)]))

    def settle(self, name: str) -> None:
        """Something at that process, if there is anything."""
        if name == COORDINATOR:
            self._settle_listed()
        else:
            self._settle_branch(name)

    def _settle_branch(self, name: str) -> None:
        sim = self._sim
        node = sim.participants.get(name)
        branches = [] if node is None else [b for log in node.logs.values() for b in log.branches.values()]
        doubted = [branch.attempt for branch in branches if branch.state is State.PREPARED]
        if doubted:
            sim.resolve_branch(name, sim.random.choice(doubted), self._either())

    def _settle_listed(self) -> None:
        sim = self._sim
        listed = [] if sim.coordinator is None else sim.coordinator.unresolved(sim.now(COORDINATOR))
        if listed:
            one = sim.random.choice(listed)
            sim.resolve(one.id, one.participant, None if one.kind == "heuristic" else self._either())

    def _either(self) -> Outcome:
        return self._sim.random.choice([Outcome.COMMITTED, Outcome.ABORTED])
