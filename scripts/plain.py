"""The contender: a plain two-phase commit as one writes it first: unary grpc.aio calls, one SQLite commit per step.

Everything is forced (WAL, synchronous=FULL) as in Troth; there are no row locks, no batches and no recovery.

    plain.py participant FOLDER          rows acct(id, balance), prepare and commit
    plain.py coordinator FOLDER ADDR ADDR ...

Prints `serving on ADDRESS`. Requests are JSON: `[number, [[id, amount], ...]]`, one pair for each participant in order.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio

ROWS = 10_000
START = 1_000_000


def database(path: Path, schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(schema)
    return connection


def step(connection: sqlite3.Connection, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """One step of the protocol: one transaction, one fdatasync."""
    connection.execute("BEGIN IMMEDIATE")
    for sql, arguments in statements:
        connection.execute(sql, arguments)
    connection.execute("COMMIT")


def participant(folder: Path) -> dict[str, Callable[[Any], Awaitable[Any]]]:
    db = database(
        folder / "plain.db",
        "CREATE TABLE IF NOT EXISTS acct(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);"
        "CREATE TABLE IF NOT EXISTS prepared(number INTEGER PRIMARY KEY, id INTEGER, amount INTEGER);",
    )
    db.execute("BEGIN")
    db.executemany("INSERT OR IGNORE INTO acct VALUES (?, ?)", ((i, START) for i in range(ROWS)))
    db.execute("COMMIT")

    async def prepare(request: Any) -> Any:
        number, (row, amount) = request
        step(db, ("INSERT INTO prepared VALUES (?, ?, ?)", (number, row, amount)))
        return "YES"

    async def commit(number: Any) -> Any:
        row, amount = db.execute("SELECT id, amount FROM prepared WHERE number = ?", (number,)).fetchone()
        step(
            db,
            ("UPDATE acct SET balance = balance + ? WHERE id = ?", (amount, row)),
            ("DELETE FROM prepared WHERE number = ?", (number,)),
        )
        return "ACK"

    async def total(_: Any) -> Any:
        return db.execute("SELECT sum(balance) FROM acct").fetchone()[0]

    return {"prepare": prepare, "commit": commit, "total": total}


def coordinator(folder: Path, addresses: list[str]) -> dict[str, Callable[[Any], Awaitable[Any]]]:
    db = database(folder / "decisions.db", "CREATE TABLE IF NOT EXISTS decision(number INTEGER PRIMARY KEY);")
    channels = [grpc.aio.insecure_channel(address) for address in addresses]
    prepares = [caller(channel, "prepare") for channel in channels]
    commits = [caller(channel, "commit") for channel in channels]

    async def submit(request: Any) -> Any:
        number, work = request
        votes = await asyncio.gather(*(call([number, part]) for call, part in zip(prepares, work, strict=True)))
        if set(votes) != {"YES"}:
            return "ABORTED"
        step(db, ("INSERT INTO decision VALUES (?)", (number,)))
        await asyncio.gather(*(call(number) for call in commits))
        return "COMMITTED"

    return {"submit": submit}


def caller(channel: grpc.aio.Channel, method: str) -> Callable[[Any], Awaitable[Any]]:
    """One unary method, JSON both ways."""
    raw: Any = channel.unary_unary(f"/plain/{method}")

    async def call(request: Any) -> Any:
        return json.loads(await raw(json.dumps(request).encode()))

    return call


async def serve(methods: dict[str, Callable[[Any], Awaitable[Any]]]) -> None:
    def handler(method: Callable[[Any], Awaitable[Any]]) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def call(request: bytes, context: Any) -> bytes:
            return json.dumps(await method(json.loads(request))).encode()

        return grpc.unary_unary_rpc_method_handler(call)

    server = grpc.aio.server()
    handlers = {name: handler(method) for name, method in methods.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("plain", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def main() -> None:
    role, folder, *addresses = sys.argv[1:]
    made = participant(Path(folder)) if role == "participant" else coordinator(Path(folder), addresses)
    await serve(made)


if __name__ == "__main__":
    asyncio.run(main())
