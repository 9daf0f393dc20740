"""What a branch costs at one PostgreSQL server, by the resource and by hand: `python -m bench.branches`.

Both add to one of many accounts within a bound, prepare, commit, and so on, as many side by side as asked. By hand is
what people write with psycopg, as in `on_postgresql.py`: a connection for each, a statement after the other, and no
memory of what committed. The two go by turns, so that both meet the same machine.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg

from bench.processes import usage
from faults.servers import PostgreSQL
from participant.resources.postgresql import PostgreSQLResource
from troth.operations import add
from troth.v1 import types_pb2
from troth.words import AttemptId

ACCOUNTS = 10_000
SETTINGS = {"max_connections": "300", "max_prepared_transactions": "300"}
Branch = Callable[[int, int], Awaitable[None]]
"""One branch from its beginning to its end, by worker and number."""


@asynccontextmanager
async def by_resource(dsn: str, in_flight: int) -> AsyncIterator[Branch]:
    resource = PostgreSQLResource(dsn, pool=in_flight)
    await resource.open("0123456789abcdef")

    async def branch(worker: int, number: int) -> None:
        attempt = AttemptId("fedcba9876543210", number)
        operation = add("accounts", random.randrange(ACCOUNTS), "balance", -1, min=0)
        operations = types_pb2.Operations(operations=[operation]).SerializeToString()
        await resource.prepare(attempt, resource.plan(operations))
        await resource.commit(attempt)

    try:
        yield branch
    finally:
        await resource.close()


@asynccontextmanager
async def by_hand(dsn: str, in_flight: int) -> AsyncIterator[Branch]:
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(await psycopg.AsyncConnection.connect(dsn, autocommit=True))
            for _ in range(in_flight)
        ]

        async def branch(worker: int, number: int) -> None:
            connection = connections[worker]
            await connection.execute("BEGIN")
            sql = "UPDATE accounts SET balance = balance + %s WHERE id = %s AND balance + %s >= %s"
            done = await connection.execute(sql, (-1, random.randrange(ACCOUNTS), -1, 0))
            assert done.rowcount == 1
            prepared = await connection.execute(f"PREPARE TRANSACTION 'hand-{number}'")
            assert prepared.statusmessage == "PREPARE TRANSACTION"
            await connection.execute(f"COMMIT PREPARED 'hand-{number}'")

        yield branch


WAYS = {"resource": by_resource, "by hand": by_hand}


async def measure(server: PostgreSQL, way: str, in_flight: int, seconds: float, first: int) -> tuple[int, str]:
    """How many branches there were, and a line about them."""
    latencies: list[float] = []
    async with WAYS[way](server.dsn, in_flight) as branch:
        numbers = iter(range(first, first + 10_000_000))
        deadline = time.perf_counter() + 0.5  # warm: connections, plans

        async def work(worker: int) -> None:
            while (start := time.perf_counter()) < deadline:
                await branch(worker, next(numbers))
                latencies.append(time.perf_counter() - start)

        await asyncio.gather(*map(work, range(in_flight)))
        latencies.clear()
        before = _cpu_s(server)
        began = time.perf_counter()
        deadline = began + seconds
        await asyncio.gather(*map(work, range(in_flight)))
        took = time.perf_counter() - began
        ours, theirs = (after - was for after, was in zip(_cpu_s(server), before, strict=True))
    count = len(latencies)
    median_ms = sorted(latencies)[count // 2] * 1e3
    cpu = f"CPU us a branch: {ours / count * 1e6:.0f} ours, {theirs / count * 1e6:.0f} the server's"
    return next(numbers), f"{way:9}{in_flight:4} in flight{count / took:7.0f} /s{median_ms:8.2f} ms  {cpu}"


def _cpu_s(server: PostgreSQL) -> tuple[float, float]:
    """Ours and the server's."""
    return usage(os.getpid(), alone=True).cpu_s, usage(server.pid).cpu_s


async def main(levels: Sequence[int] = (1, 16, 64), seconds: float = 3.0, rounds: int = 3) -> None:
    with PostgreSQL(SETTINGS) as server:
        server.execute("CREATE TABLE accounts(id bigint PRIMARY KEY, balance bigint NOT NULL)")
        server.execute(f"INSERT INTO accounts SELECT key, 1000000000 FROM generate_series(0, {ACCOUNTS - 1}) AS key")
        server.execute("VACUUM ANALYZE")
        first = 1
        for in_flight in levels:
            for _ in range(rounds):
                for way in WAYS:
                    first, line = await measure(server, way, in_flight, seconds, first)
                    print(line, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
