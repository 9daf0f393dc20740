"""Where a transfer's processor time goes: client, coordinator and two participants in one thread, stage by stage.

The shipped nodes, encodings and logs are called one after the other with batches of one size, as the processes would
call them, but without gRPC, event loops, threads and disks (the logs are SQLite in memory). So what is left is what our
own lines cost, as steadily as a machine allows; what the processes cost beyond it is the price of what was left out.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import coordinator.events as ce
import coordinator.log
import participant.events as pe
import participant.log
from bench.report import Table
from coordinator import service
from coordinator.node import Coordinator
from coordinator.registers import EmbeddedRegister
from coordinator.settings import CoordinatorSettings
from participant.node import Participant
from participant.resources.setup import apply_schema
from participant.resources.sqlite import SQLiteResource
from participant.settings import ParticipantSettings
from troth.client.results import Result
from troth.driving import wire
from troth.log import LogFile
from troth.operations import Transaction
from troth.process import GC_THRESHOLDS
from troth.v1.coordinator_pb2 import SubmitBatch, SubmitResults
from troth.v1.participant_pb2 import ToCoordinator, ToParticipant
from troth.words import Now, Outcome

PARTICIPANTS = ("p1", "p2")
ACCOUNTS = 1_000
SCHEMA = "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);"
_INCARNATION = 7
LEGEND = "Microseconds of processor time for each transfer: medians of the batches.\n"
_BETWEEN_S = 0.001
"""Of virtual time, between two steps."""


class Stages:
    """Processor seconds by stage, for each round."""

    def __init__(self) -> None:
        self._rounds: list[dict[str, float]] = []

    def begin_round(self) -> None:
        self._rounds.append(defaultdict(float))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.thread_time()
        yield
        self._rounds[-1][name] += time.thread_time() - began

    def medians_us(self, batch: int) -> dict[str, float]:
        """Microseconds a transaction, in the order of the stages."""
        return {name: statistics.median(each[name] for each in self._rounds) / batch * 1e6 for name in self._rounds[-1]}


class _Participant:
    """One participant and what it has queued and sent."""

    def __init__(self, name: str, number: int) -> None:
        identity = f"{number:016x}"
        self.file = LogFile.in_memory(role="participant", name=name, identity=identity, schema=participant.log.SCHEMA)
        apply_schema(self.file.connection, SCHEMA)
        rows = ((key, 1_000_000) for key in range(ACCOUNTS))
        self.file.connection.executemany("INSERT INTO accounts VALUES (?, ?)", rows)
        resource = SQLiteResource(self.file.connection, name)
        self.votes = participant.log.VoteLog(self.file, resource, history=False)
        self.node = Participant(
            name, identity, _INCARNATION, ParticipantSettings(), resource.plan, self.votes.recover()
        )
        self.jobs: list[tuple[int, pe.Job]] = []
        self.sent: list[Any] = []

    def perform(self, effects: Iterable[pe.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, pe.Write):
                self.jobs.append((effect.n, effect.job))
            elif isinstance(effect, pe.Send):
                self.sent.append(effect.message)

    def write(self) -> tuple[int, list[tuple[int, Any]]]:
        jobs, self.jobs = self.jobs, []
        self.file.begin()
        results = self.votes.write(jobs)
        self.file.commit(len(jobs))
        return jobs[-1][0], results


class Pipeline:
    """Everybody, and the stages between them."""

    def __init__(self) -> None:
        self.stages = Stages()
        self._mono = 0.0
        self._clients = 0
        self._chance = random.Random(1)
        self._register = EmbeddedRegister()
        self._records: list[tuple[int, ce.Record]] = []
        self._sent: dict[str, list[Any]] = {name: [] for name in PARTICIPANTS}
        self._replies: list[Any] = []
        log = LogFile.in_memory(role="coordinator", name="c", identity=f"{9:016x}", schema=coordinator.log.SCHEMA)
        self._decisions = coordinator.log.DecisionLog(log)
        addresses = {name: f"127.0.0.1:{number}" for number, name in enumerate(PARTICIPANTS, 1)}
        settings, recovered = CoordinatorSettings(), self._decisions.recovered
        self._coordinator = Coordinator(log.identity, self._decisions.epoch, settings, addresses, recovered)
        self._participants = {name: _Participant(name, number) for number, name in enumerate(PARTICIPANTS, 1)}
        self._open_lanes()

    def _open_lanes(self) -> None:
        log = self._decisions.file.identity
        self._perform(self._coordinator.start(self._now()))
        for name, each in self._participants.items():
            each.perform(each.node.start(self._now()))
            each.perform(each.node.step(pe.LaneOpened(1, log, ""), self._now()))
            self._step(ce.LaneOpened(name, each.file.identity, _INCARNATION, "", ()))
            self._sent[name].clear()

    def round(self, batch: int) -> None:
        """One batch of transfers, from the client's call to the last acknowledgement."""
        self.stages.begin_round()
        self._submit(self._built(batch))
        self._exchange("prepare", "vote")
        self._decide()
        self._answer(batch)
        self._exchange("commit", "acknowledgement")
        self._decide()
        self._step(ce.Ticked())

    def _built(self, batch: int) -> bytes:
        with self.stages.stage("client: transactions built"):
            made = [self._transfer() for _ in range(batch)]
        with self.stages.stage("client: requests encoded"):
            message = SubmitBatch(submissions=[each.to_request(tag=tag) for tag, each in enumerate(made, 1)])
            return message.SerializeToString()

    def _transfer(self) -> Transaction:
        first, second = self._chance.randrange(ACCOUNTS), self._chance.randrange(ACCOUNTS)
        transfer = Transaction().at("p1").add("accounts", first, "balance", -1, min=0)
        return transfer.at("p2").add("accounts", second, "balance", 1)

    def _submit(self, encoded: bytes) -> None:
        with self.stages.stage("coordinator: requests decoded"):
            made = [service.submission_of(request) for request in SubmitBatch.FromString(encoded).submissions]
        with self.stages.stage("coordinator: attempts begun"):
            for submission in made:
                self._clients += 1
                self._step(ce.Submitted(self._clients, submission))

    def _exchange(self, there: str, back: str) -> None:
        for name, each in self._participants.items():
            with self.stages.stage(f"coordinator: {there}s encoded"):
                encoded = [
                    batch.SerializeToString() for batch in wire.encode_to_participant(self._sent[name], durable=1)
                ]
                self._sent[name] = []
            for one in encoded:
                with self.stages.stage(f"participants: {there}s decoded"):
                    messages = wire.decode_to_participant(ToParticipant.FromString(one))
                with self.stages.stage(f"participants: {there}s handled"):
                    received = pe.Received(self._decisions.file.identity, messages)
                    each.perform(each.node.step(received, self._now()))
            self._flush(each, there, back)
            self._bring_back(name, each, back)

    def _flush(self, each: _Participant, there: str, back: str) -> None:
        while each.jobs:
            with self.stages.stage(f"participants: {there}s in the log"):
                upto, results = each.write()
            with self.stages.stage(f"participants: {back}s made"):
                each.perform(each.node.step(pe.Flushed(upto, tuple(results)), self._now()))

    def _bring_back(self, name: str, each: _Participant, back: str) -> None:
        with self.stages.stage(f"participants: {back}s encoded"):
            encoded = [batch.SerializeToString() for batch in wire.encode_to_coordinator(each.sent, durable=1)]
            each.sent = []
        for one in encoded:
            with self.stages.stage(f"coordinator: {back}s decoded"):
                messages = wire.decode_to_coordinator(ToCoordinator.FromString(one))
            with self.stages.stage(f"coordinator: {back}s handled"):
                self._step(ce.Received(name, messages))

    def _decide(self) -> None:
        records, self._records = self._records, []
        with self.stages.stage("coordinator: records in the log"):
            self._decisions.file.begin()
            self._decisions.write(records)
            self._decisions.file.commit(len(records))
        with self.stages.stage("coordinator: decisions told"):
            self._step(ce.Durable(records[-1][0]))

    def _answer(self, batch: int) -> None:
        results, self._replies = self._replies, []
        assert [result.outcome for result in results] == [Outcome.COMMITTED] * batch
        with self.stages.stage("coordinator: results encoded"):
            messages = [service.result_message(result, tag) for tag, result in enumerate(results, 1)]
            encoded = SubmitResults(results=messages).SerializeToString()
        with self.stages.stage("client: results decoded"):
            for message in SubmitResults.FromString(encoded).results:
                Result.of(message)

    # The coordinator's effects.

    def _now(self) -> Now:
        self._mono += _BETWEEN_S
        return Now(self._mono, self._mono)

    def _step(self, event: ce.Event) -> None:
        self._perform(self._coordinator.step(event, self._now()))

    def _perform(self, effects: Iterable[ce.Effect]) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            if isinstance(effect, ce.Append):
                self._records.append((effect.n, effect.record))
            elif isinstance(effect, ce.Send):
                self._sent[effect.participant].append(effect.message)
            elif isinstance(effect, ce.Decide):
                answers: list[ce.Decided] = []
                self._register.decide(effect, answers.append)
                todo.extendleft(reversed(self._coordinator.step(answers[0], self._now())))
            elif isinstance(effect, ce.Undecide):
                self._register.undecide(effect.id)
            elif isinstance(effect, ce.Reply):
                self._replies.append(effect.value)


def measure(batch: int, rounds: int, warm_up: int = 10) -> dict[str, float]:
    """Microseconds of processor time a transaction, by stage (`ROLE: WHAT`): medians over the rounds."""
    gc.set_threshold(*GC_THRESHOLDS)  # as the processes have it
    pipeline = Pipeline()
    for _ in range(warm_up):
        pipeline.round(batch)
    pipeline.stages = Stages()
    for _ in range(rounds):
        pipeline.round(batch)
    return pipeline.stages.medians_us(batch)


def tables(found: Mapping[str, float]) -> list[Table]:
    """Every stage, and the sum of each role."""
    sums: dict[str, float] = defaultdict(float)
    for name, spent_us in found.items():
        sums[name.partition(":")[0]] += spent_us
    rows = [[name, f"{spent_us:.1f}"] for name, spent_us in found.items()]
    total = [[name, f"{spent_us:.1f}"] for name, spent_us in sums.items()]
    return [Table("Stages", ("stage", "us"), rows), Table("Roles", ("role", "us"), total)]
