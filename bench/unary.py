"""The yardstick: two-phase commit as one writes it in an afternoon, with unary grpc.aio calls and JSON.

    python -m bench.unary participant --data FILE --listen ADDRESS
    python -m bench.unary coordinator --data FILE --listen ADDRESS --participant ADDRESS ...

Every step of the protocol is one SQLite commit, forced (WAL, synchronous=FULL), called on the event loop itself, which
is the fastest simple way: the prepared record at the participant, the decision at the coordinator, and the changes
together with the end of the prepared record at the participant. Prepares go out at once, so do commits, and the client
is answered when the decision is durable. Rows are locked exclusively, in memory, for a second at most.

It is no product: nothing recovers (presumed abort would say how), nothing is sent twice, a decision is never forgotten,
and reads are prepared like changes.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from base64 import b64decode
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import grpc
import grpc.aio

from bench.serving import Handlers, serving
from bench.workloads import COLUMNS, schema
from troth.process import serve

LOCK_TIMEOUT_S = 1.0
SERVICE = "unary"
_PENDING_MAX = 100_000
_OPTIONS = [
    ("grpc.server.max_pending_requests", _PENDING_MAX),
    ("grpc.server.max_pending_requests_hard_limit", _PENDING_MAX),
]
"""Otherwise gRPC cancels calls, drawn at random, when more than 1,000 wait for the event loop."""

Call = Callable[[Any], Awaitable[Any]]
"""JSON in, JSON out."""


def database(path: Path) -> sqlite3.Connection:
    """With the settings of this room's yardstick, and its tables."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    for statement in schema("INTEGER", "BLOB"):
        connection.execute(statement.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
    connection.execute("CREATE TABLE IF NOT EXISTS prepared (number INTEGER PRIMARY KEY, operations TEXT NOT NULL)")
    connection.execute("CREATE TABLE IF NOT EXISTS decisions (number INTEGER PRIMARY KEY)")
    return connection


class Node:
    """What both sides are: a file, and counts of what is done."""

    def __init__(self, path: Path) -> None:
        self.db = database(path)
        self.forced = 0
        self.messages = 0

    def step(self, *statements: tuple[str, Sequence[Any]]) -> None:
        """One step of the protocol: one transaction, one fdatasync."""
        self.db.execute("BEGIN IMMEDIATE")
        for sql, values in statements:
            self.db.execute(sql, values)
        self.db.execute("COMMIT")
        self.forced += 1

    async def counts(self, _: Any) -> Any:
        return {"forced": self.forced, "messages": self.messages}


class Participant(Node):
    """Operations are [kind, key, ...]: `add key by min`, `read key`, `insert key item`, `put key base64`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._locks: dict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._held: dict[int, list[asyncio.Lock]] = {}
        """By number of the prepared transaction."""

    def calls(self) -> Mapping[str, Call]:
        return {"prepare": self.prepare, "commit": self.commit, "abort": self.abort, "counts": self.counts}

    async def prepare(self, request: Any) -> Any:
        number, operations = request
        locks = self._held[number] = []
        try:
            async with asyncio.timeout(LOCK_TIMEOUT_S):
                for row in sorted({(_table(kind), key) for kind, key, *_ in operations}):
                    await self._locks[row].acquire()
                    locks.append(self._locks[row])
        except TimeoutError:
            return self._no(number, "lock timeout")
        rows: list[Any] = []
        for operation in operations:
            if why := self._tried(operation, rows):
                return self._no(number, why)
        self.step(("INSERT INTO prepared VALUES (?, ?)", (number, json.dumps(operations))))
        self.messages += 1
        return {"vote": "YES", "rows": rows}

    def _no(self, number: int, why: str) -> Any:
        self._release(number)
        self.messages += 1
        return {"vote": "NO", "why": why}

    def _tried(self, operation: Any, rows: list[Any]) -> str:
        """Why an operation cannot be done; what is read is added to `rows`."""
        kind, key, *rest = operation
        if kind == "put":
            return ""
        table = _table(kind)
        found = self.db.execute(f"SELECT {COLUMNS[table]} FROM {table} WHERE id = ?", (key,)).fetchone()
        if kind == "insert":
            return "it is there" if found else ""
        if not found:
            return "it is not there"
        if kind == "read":
            rows.append(found[0])
            return ""
        by, least = rest
        return "below min" if least is not None and found[0] + by < least else ""

    async def commit(self, number: Any) -> Any:
        (text,) = self.db.execute("SELECT operations FROM prepared WHERE number = ?", (number,)).fetchone()
        changes = [_change(*operation) for operation in json.loads(text) if operation[0] != "read"]
        self.step(*changes, ("DELETE FROM prepared WHERE number = ?", (number,)))
        return self._ended(number)

    async def abort(self, number: Any) -> Any:
        self.step(("DELETE FROM prepared WHERE number = ?", (number,)))
        return self._ended(number)

    def _ended(self, number: int) -> Any:
        self._release(number)
        self.messages += 1
        return "ACK"

    def _release(self, number: int) -> None:
        for lock in self._held.pop(number):
            lock.release()


_TABLES = {"add": "accounts", "read": "accounts", "insert": "orders", "put": "documents"}


def _table(kind: str) -> str:
    return _TABLES[kind]


def _change(kind: str, key: int, value: Any, *_: Any) -> tuple[str, Sequence[Any]]:
    match kind:
        case "add":
            return "UPDATE accounts SET balance = balance + ? WHERE id = ?", (value, key)
        case "insert":
            return "INSERT INTO orders VALUES (?, ?)", (key, value)
        case _:
            return "INSERT OR REPLACE INTO documents VALUES (?, ?)", (key, b64decode(value))


class Coordinator(Node):
    """Branches are [index of the participant, operations]."""

    def __init__(self, path: Path, participants: Sequence[str]) -> None:
        super().__init__(path)
        channels = [grpc.aio.insecure_channel(address) for address in participants]
        self._prepare, self._commit, self._abort = (
            [caller(channel, name) for channel in channels] for name in ("prepare", "commit", "abort")
        )
        self._number = 0
        self._ending: set[asyncio.Task[None]] = set()

    def calls(self) -> Mapping[str, Call]:
        return {"submit": self.submit, "counts": self.counts}

    async def submit(self, branches: Any) -> Any:
        self._number += 1
        number = self._number
        self.messages += len(branches)
        votes = await asyncio.gather(*(self._prepare[at]([number, operations]) for at, operations in branches))
        willing = [at for (at, _), vote in zip(branches, votes, strict=True) if vote["vote"] == "YES"]
        if len(willing) < len(branches):
            self._end(self._abort, willing, number)
            return {"outcome": "ABORTED", "why": next(vote["why"] for vote in votes if vote["vote"] == "NO")}
        self.step(("INSERT INTO decisions VALUES (?)", (number,)))
        self._end(self._commit, willing, number)
        return {"outcome": "COMMITTED", "rows": [row for vote in votes for row in vote["rows"]]}

    def _end(self, calls: Sequence[Call], participants: Sequence[int], number: int) -> None:
        """Tells the outcome to all at once, after the client has been told."""

        async def tell() -> None:
            self.messages += len(participants)
            await asyncio.gather(*(calls[at](number) for at in participants))

        task = asyncio.create_task(tell())
        self._ending.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        """Nothing is sent twice, so one that was not told is the end of everything."""
        self._ending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            raise SystemExit(f"an outcome was not told: {task.exception()}")


def caller(channel: grpc.aio.Channel, method: str) -> Call:
    """One unary method, JSON both ways."""
    raw: Any = channel.unary_unary(f"/{SERVICE}/{method}")

    async def call(request: Any) -> Any:
        return json.loads(await raw(json.dumps(request).encode()))

    return call


def _handler(call: Call) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def handle(request: bytes, context: Any) -> bytes:
        return json.dumps(await call(json.loads(request))).encode()

    return grpc.unary_unary_rpc_method_handler(handle)


@click.command()
@click.argument("role", type=click.Choice(["coordinator", "participant"]))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--listen", required=True)
@click.option("--participant", "participants", multiple=True)
def main(role: str, data: Path, listen: str, participants: Sequence[str]) -> None:
    def handlers() -> Handlers:
        node = Participant(data) if role == "participant" else Coordinator(data, participants)
        return {name: _handler(call) for name, call in node.calls().items()}

    sys.exit(serve(lambda ready: serving(SERVICE, handlers, listen, ready, _OPTIONS)))


if __name__ == "__main__":
    main()
