"""What takes time between participants and their servers: calls on their way, servers that are slow or down, and what a
killed participant had asked for.

A server that dies keeps what it has prepared and committed. Calls that it had not come to are made again by a resource
that must know their outcome; a `prepare` is rolled back once the server is up, and its answer is a retryable No. What a
killed participant had asked for may still be done, but not once its next incarnation has opened.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import participant.events as pe
from faults.simulator.scenario import Weather
from faults.simulator.servers import at_once
from faults.simulator.world import Errand
from participant.outside import CARRIED, come_back, ended_there, forget
from participant.resources.outside import Survey
from troth.reasons import reason
from troth.v1.types_pb2 import Code
from troth.words import AttemptId, Outcome

if TYPE_CHECKING:
    from faults.simulator.simulation import Simulation

WAIT_S = 0.02
"""How often a branch that waits for a lock at its server is looked at."""
SLOW = 100
"""How many times as long a slow server takes."""


class Errands:
    """All servers of one simulation, by the names of their participants."""

    def __init__(self, simulation: Simulation, weather: Weather, random: Random) -> None:
        self._sim = simulation
        self._weather = weather
        self._random = random
        self._under_way: dict[tuple[str, int, int], Errand] = {}
        """What a server was asked and has not done yet: by participant, its life, and number."""
        self._down: dict[str, float] = {}
        """When each server comes up that is down."""
        self._died: dict[str, float] = {}
        self._slow: dict[str, float] = {}

    # Calls.

    def send(self, errand: Errand) -> None:
        """On its way; what the resource has no part in only has its turn."""
        if not isinstance(errand.job, CARRIED):
            self._answer(errand, None, 0.0)
            return
        self._under_way[errand.name, errand.life, errand.n] = errand
        give_up_at = self._sim.mono + self._sim.participant_settings.lock_timeout_s
        self._sim.after(self._delay(errand.name), self._arrive, errand, give_up_at)

    def _arrive(self, errand: Errand, give_up_at: float) -> None:
        key = errand.name, errand.life, errand.n
        if key not in self._under_way:
            return
        sim, trial = self._sim, isinstance(errand.job, pe.Try | pe.RunAlone)
        if self.down_s(errand.name) and not self._lives(errand):
            del self._under_way[key]
        elif self.down_s(errand.name) and isinstance(errand.job, pe.Try):
            self._deny(errand, Code.CODE_UNREACHABLE, "the server cannot be reached")
        elif self.down_s(errand.name):
            sim.after(self.down_s(errand.name) + self._delay(errand.name), self._arrive, errand, give_up_at)
        elif trial and errand.server.waits(errand.job.attempt.number):
            if sim.mono < give_up_at:
                sim.after(WAIT_S, self._arrive, errand, give_up_at)
            else:
                self._deny(errand, Code.CODE_LOCK_TIMEOUT, "waited for a lock at the server")
        else:
            self._serve(errand)

    def _serve(self, errand: Errand) -> None:
        del self._under_way[errand.name, errand.life, errand.n]
        result = self._sim.serve(errand)
        if self._lives(errand):
            self._answer(errand, result, self._delay(errand.name))
            self._sim.strikes.happened(errand.name, "served")

    def _deny(self, errand: Errand, code: Code, why: str) -> None:
        del self._under_way[errand.name, errand.life, errand.n]
        if self._lives(errand):
            self._answer(errand, pe.Denied(reason(code, why)), 0.0)

    def _answer(self, errand: Errand, result: Any, delay: float) -> None:
        sim, done_at = self._sim, self._sim.mono
        sim.in_this_life(errand.name, sim.mono + delay, lambda: self._answered(errand, result, done_at))

    def _answered(self, errand: Errand, result: Any, done_at: float) -> None:
        """Unless the server has died meanwhile: then the resource asks it again, and rolls back what is prepared."""
        sim, server, attempt = self._sim, errand.server, errand.job.attempt
        broke = self._died.get(errand.name, 0.0) >= done_at and isinstance(errand.job, CARRIED)
        if broke and self.down_s(errand.name):
            again = sim.mono + self.down_s(errand.name)
            sim.in_this_life(errand.name, again, lambda: self._answered(errand, result, done_at))
            return
        if broke and isinstance(errand.job, pe.Try) and attempt in server.prepared:
            at_once(server.abort(attempt))
            result = pe.Denied(reason(Code.CODE_UNREACHABLE, "the connection to the server broke"))
        sim.served(errand, result)
        sim.strikes.happened(errand.name, "carried")

    def _lives(self, errand: Errand) -> bool:
        return self._sim.up(errand.name) and self._sim.lives[errand.name] == errand.life

    def _delay(self, name: str) -> float:
        slow = SLOW if self._slow.get(name, 0.0) > self._sim.mono else 1
        return self._weather.server_s * slow * (0.5 + self._random.random())

    # What goes wrong.

    def down_s(self, name: str) -> float:
        """For how long the server is down from now on."""
        return max(self._down.get(name, 0.0) - self._sim.mono, 0.0)

    def crash(self, name: str, for_s: float) -> None:
        server = self._sim.vote_disks[name].server
        if server is not None and self._random.random() < 0.5:
            server.forget_rollbacks()
        self._died[name] = self._sim.mono
        self._down[name] = self._sim.mono + for_s
        self._sim.note(f"{name}'s server dies for {for_s} s")

    def slow(self, name: str, for_s: float) -> None:
        self._slow[name] = self._sim.mono + for_s
        self._sim.note(f"{name}'s server is slow for {for_s} s")

    def end_one(self, name: str) -> None:
        """Somebody at the server ends a branch that is prepared there. Not one that was aborted and a crash brought
        back: its participant can but raise an alarm when it is committed then (tests/test_outside.py)."""
        server = self._sim.vote_disks[name].server
        if server is None or self.down_s(name):
            return
        if prepared := [attempt for attempt in server.prepared if not server.came_back(attempt)]:
            attempt = self._random.choice(prepared)
            outcome = self._random.choice([Outcome.COMMITTED, Outcome.ABORTED])
            self._sim.note(f"somebody ends {attempt} at {name}'s server as {outcome.name}")
            server.end_by_hand(attempt, outcome)

    def heal(self) -> None:
        self._down.clear()
        self._slow.clear()

    # Of a participant's life.

    def open(self, name: str) -> None:
        """A new incarnation opens: what the last one had asked for is done by now, or never."""
        for key, errand in list(self._under_way.items()):
            if errand.name == name and key in self._under_way:
                waits = isinstance(errand.job, pe.Try | pe.RunAlone) and errand.server.waits(errand.job.attempt.number)
                if waits or self._random.random() < 0.5:
                    del self._under_way[key]
                else:
                    self._serve(errand)

    def began(self, name: str) -> None:
        """The participant looks at its server from time to time."""
        sim = self._sim
        if sim.vote_disks[name].server is not None:
            sim.in_this_life(name, sim.mono + sim.participant_settings.look_interval_s, lambda: self._look(name))

    def _look(self, name: str) -> None:
        sim = self._sim
        node = sim.participants[name]
        before = node.prepared(), node.at_server()
        at = sim.mono + self.down_s(name) + self._delay(name)
        sim.in_this_life(name, at, lambda: self._survey(name, *before))

    def _survey(self, name: str, prepared: set[AttemptId], there: set[AttemptId]) -> None:
        sim, server = self._sim, self._sim.vote_disks[name].server
        assert server is not None
        survey = at_once(server.survey())
        sim.in_this_life(name, sim.mono + self._delay(name), lambda: self._compare(name, prepared, there, survey))

    def _compare(self, name: str, prepared: set[AttemptId], there: set[AttemptId], survey: Survey) -> None:
        sim, server = self._sim, self._sim.vote_disks[name].server
        assert server is not None
        for found in ended_there(prepared, survey, sim.participants[name].prepared()):
            sim.feed(name, found)
        back = come_back(there, survey, sim.participants[name].at_server())
        for attempt in filter(server.prepared.__contains__, back):
            sim.note(f"{name} rolls {attempt} back again")
            at_once(server.abort(attempt))
        self.began(name)

    def flushed(self, name: str) -> None:
        """What the vote log has forgotten, durably, the server may forget."""
        sim, disk = self._sim, self._sim.vote_disks[name]
        forgets, disk.forgets = disk.forgets, []
        for job in forgets:
            at = sim.mono + self.down_s(name) + self._delay(name)
            sim.in_this_life(name, at, lambda job=job: self._forget(name, job))  # type: ignore[misc]

    def _forget(self, name: str, job: pe.Forget) -> None:
        server = self._sim.vote_disks[name].server
        assert server is not None
        at_once(forget(server, job))
