"""Many submissions over one stream: batched, bounded in flight, and answered in the order in which outcomes come.

Whatever happens to the stream, every submission that was taken from the source is answered once: with what the
coordinator said, or with UNKNOWN. A lost stream is opened again for what has not been taken yet, and, when asking again
was asked for, for what is open: the same ids, so nothing runs twice (rule 11).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc.aio

from troth.client.channel import Connection
from troth.client.results import Result
from troth.errors import BadInput, Unreachable
from troth.operations import Transaction
from troth.reasons import reason
from troth.v1.coordinator_pb2 import SubmitBatch, SubmitRequest, SubmitResult
from troth.v1.types_pb2 import Code
from troth.words import Outcome

REQUEST_BYTES_MAX = 4 * 1024 * 1024 - 64 * 1024
"""gRPC's receivers refuse messages above 4 MiB; the rest is for what wraps a request."""
BATCH_BYTES_MAX = 1024 * 1024
"""A batch that has reached this goes out; a larger request goes alone."""
GRACE_S = 5.0
"""How long past a transaction's timeout its answer is waited for."""
_ASK_AGAIN_PAUSE_S = 0.2
_SWEEP_S = 0.25
_LAST_WORDS_S = 1.0
"""How long the coordinator may take to end a stream on which all is answered."""

Source = AsyncIterable[Transaction] | Iterable[Transaction]


def refusal(request: SubmitRequest, position: int = 0) -> Result | None:
    """Why a request cannot be sent; None when it can."""
    size = request.ByteSize()
    if size <= REQUEST_BYTES_MAX:
        return None
    message = f"the transaction has {size} bytes, and at most {REQUEST_BYTES_MAX} can be sent in one"
    return Result.refused(request.id, reason(Code.CODE_TOO_LARGE, message), position)


@dataclass
class _Open:
    """A submission without an answer."""

    request: SubmitRequest
    overdue_at: float = float("inf")
    """When no answer is waited for any longer; set when it is sent."""
    give_up_at: float | None = None
    """Until when it is asked again; set when it first was not answered."""
    queued: bool = True
    """It is to be written, now or after a pause; otherwise it is on the present stream."""


class Many:
    """One run of `Client.submit_many`; `results` is its only way in."""

    def __init__(
        self,
        connection: Connection,
        stream: Callable[[], grpc.aio.StreamStreamCall[Any, Any]],
        source: Source,
        *,
        in_flight: int,
        wait_applied: bool,
        timeout_s: float,
        ask_again_s: float,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._source = source
        self._wait_applied = wait_applied
        self._timeout_s = timeout_s
        self._ask_again_s = ask_again_s
        self._slots = asyncio.Semaphore(in_flight)
        self._open: dict[int, _Open] = {}  # By tag, oldest first.
        self._unsent: deque[int] = deque()  # Tags to be written; those that are no longer open are skipped.
        self._tag = 0  # The last one given; tags count positions from 1.
        self._exhausted = False  # Nothing more comes from the source.
        self._gone: Unreachable | None = None
        """Set when the coordinator stayed away and everything taken was answered: what else comes stays unsent."""
        self._error: Exception | None = None
        """What ended the source early."""
        self._moved = asyncio.Event()  # There is something to write, or nothing more to wait for.
        self._results: asyncio.Queue[list[Result] | None] = asyncio.Queue()
        self._now = asyncio.get_running_loop().time

    async def results(self) -> AsyncGenerator[Result, None]:
        """Every result as it becomes known. Raises what the source raised, or Unreachable when the rest of the source
        could not be sent, both only after everything taken from the source was answered."""
        tasks = [asyncio.create_task(step()) for step in (self._run, self._pull, self._sweep)]
        try:
            while (batch := await self._results.get()) is not None:
                for result in batch:
                    self._slots.release()
                    yield result
            await tasks[0]
            if self._error is not None:
                raise self._error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # From the source.

    async def _pull(self) -> None:
        source = _each(self._source)
        try:
            while await self._slots.acquire():
                self._take(await anext(source))
        except StopAsyncIteration:
            pass
        except Exception as error:  # The source's own: raised again where its owner sees it.
            self._error = error
        self._exhausted = True
        self._moved.set()

    def _take(self, transaction: Transaction) -> None:
        if self._gone is not None:
            raise self._gone
        position, self._tag = self._tag, self._tag + 1
        try:
            request = transaction.to_request(wait_applied=self._wait_applied, tag=self._tag)
        except BadInput as error:
            self._answer([Result.refused(transaction.id, reason(Code.CODE_BAD_REQUEST, str(error)), position)])
            return
        request.timeout_s = request.timeout_s or self._timeout_s
        if refused := refusal(request, position):
            self._answer([refused])
            return
        self._open[self._tag] = _Open(request)
        self._write_soon(self._tag)

    def _write_soon(self, tag: int) -> None:
        self._unsent.append(tag)
        self._moved.set()

    # To whoever reads the results.

    def _answer(self, results: list[Result]) -> None:
        self._results.put_nowait(results)
        self._moved.set()

    def _not_known(self, tag: int, why: str) -> None:
        """Asks again after a pause while that was asked for, otherwise answers UNKNOWN."""
        entry, now = self._open[tag], self._now()
        if entry.give_up_at is None:
            entry.give_up_at = now + self._ask_again_s
        if now >= entry.give_up_at:
            del self._open[tag]
            self._answer([Result.unknown(entry.request.id, why, tag - 1)])
        elif not entry.queued:
            entry.queued, entry.overdue_at = True, float("inf")
            asyncio.get_running_loop().call_later(_ASK_AGAIN_PAUSE_S, self._write_soon, tag)

    async def _sweep(self) -> None:
        """Answers for what the coordinator does not."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = self._now()
            for tag in [tag for tag, entry in self._open.items() if entry.overdue_at < now]:
                self._not_known(tag, "no answer came within the transaction's timeout")

    # The stream.

    @property
    def _done(self) -> bool:
        return self._exhausted and not self._open

    async def _run(self) -> None:
        try:
            while await self._something_open():
                await self._one_connection()
        finally:
            self._results.put_nowait(None)

    async def _something_open(self) -> bool:
        """True as soon as a submission is open; False when none is left and none will come."""
        while not (self._open or self._exhausted):
            self._moved.clear()
            await self._moved.wait()
        return bool(self._open)

    async def _one_connection(self) -> None:
        try:
            await self._connection.ready()
        except Unreachable as error:
            for tag, entry in list(self._open.items()):
                self._not_known(tag, f"{error}" + ("; it was not sent now" if entry.queued else ""))
            self._gone = None if self._open else error
            return
        why = await self._one_stream()
        for tag in [tag for tag, entry in self._open.items() if not entry.queued]:
            self._not_known(tag, why)

    async def _one_stream(self) -> str:
        """Writes and reads until the stream ends or all is done, and says why it ended.

        Raises ServerError when the process there takes no submissions."""
        call = self._stream()
        reader = asyncio.create_task(self._read(call))
        writer = asyncio.create_task(self._write(call))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():  # All is answered, or the stream broke and the reader is about to say how.
                await asyncio.wait((reader,), timeout=_LAST_WORDS_S)
            return reader.result() if reader.done() else "the stream did not end"
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            call.cancel()

    async def _read(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> str:
        try:
            async for message in call:
                self._answered(message.results)
            return "the coordinator ended the stream"
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise self._connection.translated(error, "submit", changes=True) from error
            return f"the connection was lost: {error.details() or error.code().name}"

    def _answered(self, messages: Iterable[SubmitResult]) -> None:
        results = []
        for message in messages:
            if message.tag not in self._open:  # Answered as overdue before.
                continue
            result = Result.of(message, message.tag - 1)
            if result.outcome is Outcome.UNKNOWN:
                self._not_known(message.tag, message.reason.message or "the coordinator does not know it yet")
            else:
                del self._open[message.tag]
                results.append(result)
        if results:
            self._answer(results)

    async def _write(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
        try:
            while not self._done:
                while batch := self._batch():
                    await call.write(batch)
                self._moved.clear()
                if not (self._done or self._unsent):
                    await self._moved.wait()
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # The stream is broken: its reader says how.

    def _batch(self) -> SubmitBatch | None:
        """What is to be written next, oldest first; None when there is nothing."""
        batch, size = SubmitBatch(), 0
        while self._unsent:
            entry = self._open.get(self._unsent[0])
            if entry is not None:
                size += entry.request.ByteSize()
                if batch.submissions and size > BATCH_BYTES_MAX:
                    break
                batch.submissions.append(entry.request)
                entry.queued = False
                entry.overdue_at = self._now() + entry.request.timeout_s + GRACE_S
            self._unsent.popleft()
        return batch if batch.submissions else None


async def _each(source: Source) -> AsyncIterator[Transaction]:
    if isinstance(source, AsyncIterable):
        async for transaction in source:
            yield transaction
    else:
        for transaction in source:
            yield transaction
