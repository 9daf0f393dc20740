"""The client without await, for scripts: `with connect("127.0.0.1:7400") as troth: troth.submit(transaction)`.

Each connection has a thread of its own with an event loop, in which the asyncio client runs; every method here hands a
call over and waits for it. What each does and raises is written in `troth.client.Client`.
"""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from troth import client
from troth.client import DEFAULT_ADDRESS, TIMEOUT_S, WAIT_S
from troth.client.results import Result, Row
from troth.operations import Key, Transaction
from troth.v1 import coordinator_pb2 as pb
from troth.words import Outcome

T = TypeVar("T")


@contextmanager
def connect(
    address: str = DEFAULT_ADDRESS, *, timeout_s: float = TIMEOUT_S, wait_s: float = WAIT_S
) -> Iterator[Client]:
    """As `troth.client.connect`."""
    with _Loop() as loop:
        opening = client.connect(address, timeout_s=timeout_s, wait_s=wait_s)
        inner = loop.run(opening.__aenter__())
        try:
            yield Client(inner, loop)
        finally:
            loop.run(opening.__aexit__(None, None, None))


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="troth client", daemon=True)

    def __enter__(self) -> _Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()  # Ends what is left of interrupted calls.

    def start(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns. When the wait is interrupted (Ctrl-C), the coroutine is cancelled."""
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Any, *args: Any) -> None:
        self._loop.call_soon_threadsafe(function, *args)


class Client:
    """As `troth.client.Client`, without await. One thread at a time."""

    def __init__(self, inner: client.Client, loop: _Loop) -> None:
        """Use `connect`."""
        self._inner = inner
        self._loop = loop

    @property
    def address(self) -> str:
        """Of the coordinator."""
        return self._inner.address

    def submit(self, transaction: Transaction, *, wait_applied: bool = False, ask_again_s: float = 0.0) -> Result:
        """See `troth.client.Client.submit`."""
        return self._loop.run(self._inner.submit(transaction, wait_applied=wait_applied, ask_again_s=ask_again_s))

    def submit_many(
        self,
        transactions: Iterable[Transaction],
        *,
        in_flight: int = 256,
        wait_applied: bool = False,
        ask_again_s: float = 0.0,
    ) -> Iterator[Result]:
        """See `troth.client.Client.submit_many`. The source is read in the calling thread, as results are taken."""
        options = {"in_flight": in_flight, "wait_applied": wait_applied, "ask_again_s": ask_again_s}
        many = _Many(self._inner, self._loop, options)
        return many.results(iter(transactions), in_flight)

    def abort(self, id: str) -> Result:
        """See `troth.client.Client.abort`."""
        return self._loop.run(self._inner.abort(id))

    def resolve(self, id: str, participant: str, outcome: Outcome, why: str) -> str:
        """See `troth.client.Client.resolve`."""
        return self._loop.run(self._inner.resolve(id, participant, outcome, why))

    def clear(self, id: str, participant: str, why: str) -> str:
        """See `troth.client.Client.clear`."""
        return self._loop.run(self._inner.clear(id, participant, why))

    def get(self, id: str) -> pb.Transaction:
        """See `troth.client.Client.get`."""
        return self._loop.run(self._inner.get(id))

    def wait(self, id: str, *, timeout_s: float | None = None, applied: bool = False) -> pb.Transaction:
        """See `troth.client.Client.wait`."""
        return self._loop.run(self._inner.wait(id, timeout_s=timeout_s, applied=applied))

    def list(self, limit: int = 0, *, in_flight: bool = False) -> builtins.list[pb.Transaction]:
        """See `troth.client.Client.list`."""
        return self._loop.run(self._inner.list(limit, in_flight=in_flight))

    def watch(self) -> Iterator[pb.Transaction]:
        """See `troth.client.Client.watch`."""
        return self._each(self._inner.watch())

    def unresolved(self) -> builtins.list[pb.Unresolved]:
        """See `troth.client.Client.unresolved`."""
        return self._loop.run(self._inner.unresolved())

    def status(self) -> pb.CoordinatorStatus:
        """See `troth.client.Client.status`."""
        return self._loop.run(self._inner.status())

    def read(self, participant: str, table: str, key: Key, *, timeout_s: float | None = None) -> Row:
        """See `troth.client.Client.read`."""
        return self._loop.run(self._inner.read(participant, table, key, timeout_s=timeout_s))

    def _each(self, found: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> T | None:
            return await anext(found, None)

        while (item := self._loop.run(following())) is not None:
            yield item


class _Many:
    """One run of `submit_many`: the caller's thread feeds transactions and takes results."""

    def __init__(self, inner: client.Client, loop: _Loop, options: dict[str, Any]) -> None:
        self._inner = inner
        self._loop = loop
        self._options = options
        self._fed: asyncio.Queue[Transaction | None] = asyncio.Queue()
        self._results: queue.SimpleQueue[Result | None] = queue.SimpleQueue()

    def results(self, source: Iterator[Transaction], in_flight: int) -> Iterator[Result]:
        """Feeds while fewer than `in_flight` are open, and yields results as they come."""
        running = self._loop.start(self._run())
        opened, exhausted = 0, False
        try:
            while True:
                if not exhausted and opened < in_flight:
                    transaction = next(source, None)
                    exhausted = transaction is None
                    opened += not exhausted
                    self._loop.call(self._fed.put_nowait, transaction)
                if exhausted or opened == in_flight or not self._results.empty():
                    result = self._results.get()
                    if result is None:
                        break
                    opened -= 1
                    yield result
            running.result()
        finally:
            running.cancel()

    async def _run(self) -> None:
        try:
            async for result in self._inner.submit_many(self._feed(), **self._options):
                self._results.put(result)
        finally:
            self._results.put(None)

    async def _feed(self) -> AsyncIterator[Transaction]:
        while (transaction := await self._fed.get()) is not None:
            yield transaction
