"""An open loop: submissions at fixed times, whatever the answers, over one stream of raw messages made beforehand.

Latency counts from the time at which a submission was due, not from when it went out, so a client or a coordinator that
falls behind hides nothing. A client that cannot keep up says so: `offered_per_s` is what it really sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from bench.on_troth import transaction
from bench.workloads import Branches
from troth import Transaction
from troth.client.many import GRACE_S
from troth.reasons import code_name
from troth.v1.coordinator_pb2 import SubmitBatch, SubmitResult
from troth.v1.coordinator_pb2_grpc import CommandsStub
from troth.v1.types_pb2 import Code
from troth.words import Outcome

TIMEOUT_S = 30.0
"""Of each transaction, which is the coordinator's default."""
_TICK_S = 0.005
_BATCH_MAX = 256


class Offer:
    """One client. `numbers` are those of the steps, in the order in which they are offered."""

    def __init__(self, numbers: Sequence[int], steps: Sequence[Branches], rate_per_s: float) -> None:
        self.transactions: Sequence[Transaction] = [transaction(branches) for branches in steps]
        self.numbers = numbers
        self.committed: list[int] = []
        self.latencies_s: list[float] = []
        """Of the committed, from when they were due."""
        self.refused: Counter[str] = Counter()
        """By code; those that are overload and say that they may be tried again."""
        self.wrong: Counter[str] = Counter()
        """The same of all other answers that are neither COMMITTED nor such a refusal."""
        self.sent = 0
        self.late_max_s = 0.0
        """The longest between the time at which something was due and its being sent."""
        self.in_time: Counter[Outcome] = Counter()
        """Answers while it was offered."""
        self._rate_per_s = rate_per_s
        self._seconds = len(numbers) / rate_per_s
        self._requests = [each.to_request(tag=tag) for tag, each in enumerate(self.transactions)]
        self._began_s = 0.0
        self._answers = 0

    @property
    def offered_per_s(self) -> float:
        """What was really sent."""
        return self.sent / self._seconds

    @property
    def unanswered(self) -> int:
        return self.sent - self._answers

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Offers everything, and returns when all of it is answered, or no answer can come any more."""
        async with self._stream(channel) as stream:
            reader = asyncio.create_task(self._read(stream))
            try:
                await self._write(stream)
                await stream.done_writing()
                async with asyncio.timeout(TIMEOUT_S + GRACE_S):
                    await reader
            except TimeoutError:
                return  # `unanswered` says how many
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    @asynccontextmanager
    async def unread(self, channel: grpc.aio.Channel) -> AsyncIterator[None]:
        """Offers while this is entered, and never reads a result."""
        async with self._stream(channel) as stream:
            writer = asyncio.create_task(self._write(stream))
            try:
                yield
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    @asynccontextmanager
    async def _stream(self, channel: grpc.aio.Channel) -> AsyncIterator[Any]:
        stub: Any = CommandsStub
        stream = stub(channel).SubmitMany()
        try:
            yield stream
        finally:
            stream.cancel()

    async def _write(self, stream: Any) -> None:
        """Until all is sent or the time is over: what could not be sent then is not sent at all."""
        self._began_s = time.perf_counter()
        while self.sent < len(self._requests) and (passed_s := time.perf_counter() - self._began_s) < self._seconds:
            due = min(int(passed_s * self._rate_per_s) + 1, self.sent + _BATCH_MAX, len(self._requests))
            if due > self.sent:
                first, self.sent = self.sent, due
                await stream.write(SubmitBatch(submissions=self._requests[first:due]))
                self.late_max_s = max(self.late_max_s, time.perf_counter() - self._due_s(first))
            if self._due_s(self.sent) > time.perf_counter():
                await asyncio.sleep(_TICK_S)

    def _due_s(self, position: int) -> float:
        return self._began_s + position / self._rate_per_s

    async def _read(self, stream: Any) -> None:
        async for message in stream:
            now = time.perf_counter()
            for result in message.results:
                self._answered(result, now)

    def _answered(self, result: SubmitResult, now: float) -> None:
        outcome = Outcome(result.outcome)
        self._answers += 1
        if now < self._began_s + self._seconds:
            self.in_time[outcome] += 1
        if outcome is Outcome.COMMITTED:
            self.committed.append(self.numbers[result.tag])
            self.latencies_s.append(now - self._due_s(result.tag))
        elif outcome is Outcome.REFUSED and result.reason.code == Code.CODE_OVERLOADED and result.reason.retryable:
            self.refused[code_name(result.reason.code)] += 1
        else:
            self.wrong[f"{outcome.name} {code_name(result.reason.code)}"] += 1

    def per_s(self, outcome: Outcome) -> float:
        """Answers while it was offered."""
        return self.in_time[outcome] / self._seconds
