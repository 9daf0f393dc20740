"""What a database with two tables is asked under the contract, whatever kind of server has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from faults.conformance.outside import OutsideSubject
from faults.servers import Database
from tests.sqlite_tools import add, encode, insert, read


class TwoTables(OutsideSubject):
    """Accounts with a balance that is at least 0, alice's and bob's of 100, and orders of an account with a code."""

    schema: Sequence[str]
    """The statements that make them."""

    change = encode([insert("orders", 1, account="alice"), add("accounts", "alice", "balance", -10), read("orders", 1)])
    increment = encode([add("accounts", "alice", "balance", -3), add("accounts", "alice", "balance", 1)])
    other = encode([add("accounts", "bob", "balance", 1)])
    look = encode([read("accounts", "alice"), read("accounts", "nobody")])
    denied = encode([insert("orders", 2), add("accounts", "bob", "balance", -1000)])
    impossible = encode([read("accounts", "alice"), read("nowhere", 1)])
    at_work_max = 3

    def __init__(self, make_database: Callable[[], Database]) -> None:
        self._make_database = make_database
        self.database = make_database()
        for statement in self.schema:
            self.database.execute(statement)

    async def state(self) -> Any:
        tables = ("accounts", "orders")
        return await asyncio.to_thread(
            lambda: [self.database.execute(f"SELECT * FROM {table} ORDER BY id") for table in tables]
        )

    def anew(self) -> OutsideSubject:
        return type(self)(self._make_database)
