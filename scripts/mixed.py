"""The demo's second part: one transaction over a SQLite file, PostgreSQL and MariaDB, as far as their servers are here.

The servers are private ones with data in a temporary folder (`faults/servers`), and are killed like everything else.
"""

from __future__ import annotations

import shlex
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from stage import BACK_WITHIN_S, Checks, Up, check_settled, heading, run_troth, say, show_table

import troth
from faults.servers import Database, MariaDB, PostgreSQL, Server, ServerMissing
from troth.words import Outcome

SCHEMA = Path(__file__).resolve().parent / "demo-data" / "mixed.sql"
FILE = "p1"
AT: Mapping[str, type[Server]] = {"p2": PostgreSQL, "p3": MariaDB}
LAMP_CENTS, MONEY, LAMPS = 5900, 10_000_000, 1000
ORDERS, IN_FLIGHT = 400, 32


async def mixed(number: int, folder: Path, checks: Checks) -> None:
    """Runs in `folder`. Where a server is missing its participant keeps its tables in a file too."""
    heading(number, "One transaction over a SQLite file, PostgreSQL and MariaDB")
    with ExitStack() as stack:
        databases = dict(_databases(stack))
        if not databases:
            return
        wanted = [f"{name}={_kind(databases, name)}" for name in (FILE, *AT)]
        options = [argument for each in wanted for argument in ("--participant", each)]
        say(f"$ troth up {shlex.join(options)}", "bold cyan")
        async with Up.running(folder, 0, [*options, "--schema", str(SCHEMA), "--history"]) as up:
            await _story(up, folder, databases, checks)


def _databases(stack: ExitStack) -> Iterator[tuple[str, Database]]:
    """Of the servers that are here, by participant, with the tables made; says which are not."""
    for name, kind in AT.items():
        try:
            server = stack.enter_context(kind())
        except ServerMissing as missing:
            say(f"{name} keeps its tables in a SQLite file: {missing}", "yellow")
            continue
        database = server.create("shop")
        for statement in SCHEMA.read_text("utf-8").split(";")[:-1]:
            database.execute(statement)
        yield name, database


def _kind(databases: Mapping[str, Database], name: str) -> str:
    return f"{databases[name].server.name}:{databases[name].dsn}" if name in databases else "sqlite"


async def _story(up: Up, folder: Path, databases: Mapping[str, Database], checks: Checks) -> None:
    async with troth.connect(up.coordinator, wait_s=BACK_WITHIN_S) as client:
        opening = troth.Transaction().at("p1").insert("accounts", "alice", {"balance": MONEY})
        opening.at("p1").insert("accounts", "shop", {"balance": 0}).at("p2").insert("stock", "lamp", {"pieces": LAMPS})
        (await client.submit(opening)).committed()
        one = ["p1: add accounts/alice balance -5900", "p1: add accounts/shop balance 5900"]
        one += ["p2: add stock/lamp pieces -1", "p3: insert orders/0 item=lamp pieces:=1"]
        code, _ = await run_troth(up, "submit", *(word for text in one for word in ("-o", text)))
        checks.that(code == 0, "alice pays at p1, the lamp leaves p2, the order is at p3")
        many = ["p1: add accounts/alice balance -5900", "p2: add stock/lamp pieces -5000"]
        code, _ = await run_troth(up, "submit", *(word for text in many for word in ("-o", text)))
        checks.that(code == 3, "too many lamps: the CHECK of p2's table says no, and alice keeps her money")
        answers = await _with_kills(client, databases)
        checks.that(set(answers) == {Outcome.COMMITTED}, f"{answers.total()} orders of a lamp committed")
        await check_settled(client, up, checks)
    _check_rows(folder, databases, checks)


async def _with_kills(client: troth.Client, databases: Mapping[str, Database]) -> Counter[Outcome]:
    """Orders, and meanwhile a kill -9 of each server, which is started again at once."""
    answers: Counter[Outcome] = Counter()
    killed = {ORDERS * n // (len(databases) + 1): name for n, name in enumerate(databases, 1)}
    async for result in client.submit_many(_orders(), in_flight=IN_FLIGHT, ask_again_s=BACK_WITHIN_S):
        answers[result.outcome] += 1
        if name := killed.get(answers.total()):
            server = databases[name].server
            say(f"kill -9 {server.pid}     ({server.title}, with {IN_FLIGHT} orders under way)", "bold red")
            server.kill()
            server.start()  # by this thread: the server ends with the one that has started it
            say(f"{server.title} is pid {server.pid} now")
    return answers


def _orders() -> Iterator[troth.Transaction]:
    for number in range(1, ORDERS + 1):
        order = troth.Transaction(f"lamp-{number}").at("p1").add("accounts", "alice", "balance", -LAMP_CENTS, min=0)
        order.add("accounts", "shop", "balance", LAMP_CENTS).at("p2").add("stock", "lamp", "pieces", -1)
        yield order.at("p3").insert("orders", number, {"item": "lamp", "pieces": 1})


def _check_rows(folder: Path, databases: Mapping[str, Database], checks: Checks) -> None:
    def rows(name: str, sql: str) -> list[tuple[Any, ...]]:
        if name in databases:
            return databases[name].execute(sql)
        with closing(sqlite3.connect(f"{(folder / f'{name}.db').as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()

    accounts = dict(rows("p1", "SELECT name, balance FROM accounts"))
    [[stock]] = rows("p2", "SELECT pieces FROM stock")
    [[count, pieces]] = rows("p3", "SELECT count(*), sum(pieces) FROM orders")
    places = {name: databases[name].server.title if name in databases else "SQLite" for name in (FILE, *AT)}
    show_table(
        ["row", "at", "now"],
        [
            ["accounts/alice, accounts/shop", places["p1"], f"{accounts['alice']:,}, {accounts['shop']:,}"],
            ["stock/lamp", places["p2"], f"{stock:,}"],
            ["orders", places["p3"], f"{count:,}"],
        ],
    )
    due = ORDERS + 1
    paid = accounts == {"alice": MONEY - due * LAMP_CENTS, "shop": due * LAMP_CENTS}
    checks.that(paid and stock == LAMPS - due and count == pieces == due, f"{due} orders are in all three, or in none")
    for database in databases.values():
        checks.that(not database.prepared(), f"{database.server.title} has nothing prepared left")
