"""A database with two tables, a participant's resource over it, and what a DBA sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from faults.conformance.outside import OutsideSubject
from faults.servers import Database
from participant.resources.mariadb import MariaDBResource
from tests.sqlite_tools import add, encode, insert, read

SCHEMA = (
    "CREATE TABLE accounts(id varchar(20) PRIMARY KEY, balance bigint CHECK (balance >= 0))",
    "CREATE TABLE orders(id int PRIMARY KEY, account varchar(20), code varchar(20) UNIQUE,"
    " FOREIGN KEY (account) REFERENCES accounts(id))",
    "INSERT INTO accounts VALUES ('alice', 100), ('bob', 100)",
)


class MariaDBSubject(OutsideSubject):
    """Two ordinary tables."""

    change = encode([insert("orders", 1, account="alice"), add("accounts", "alice", "balance", -10), read("orders", 1)])
    increment = encode([add("accounts", "alice", "balance", -3), add("accounts", "alice", "balance", 1)])
    other = encode([add("accounts", "bob", "balance", 1)])
    look = encode([read("accounts", "alice"), read("accounts", "nobody")])
    denied = encode([insert("orders", 2), add("accounts", "bob", "balance", -1000)])
    impossible = encode([read("accounts", "alice"), read("nowhere", 1)])
    aliases = (
        (encode([read("orders", 17)]), encode([read("ORDERS", "17")])),
        (encode([insert("orders", 17, account="alice")]), encode([insert("orders", 17.0, Account="alice")])),
    )
    lock_timeout_s = 1.0
    at_work_max = 3

    def __init__(self, make_database: Callable[[], Database]) -> None:
        self._make_database = make_database
        self.database = make_database()
        for statement in SCHEMA:
            self.database.execute(statement)

    def make(self) -> MariaDBResource:
        return MariaDBResource(self.database.dsn, lock_timeout_s=self.lock_timeout_s, pool=self.at_work_max)

    async def state(self) -> Any:
        tables = ("accounts", "orders")
        return await asyncio.to_thread(
            lambda: [self.database.execute(f"SELECT * FROM {table} ORDER BY id") for table in tables]
        )

    def anew(self) -> OutsideSubject:
        return type(self)(self._make_database)
