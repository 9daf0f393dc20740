"""What each operation needs from a user of few rights, at real servers: without it a NO that says so and leaves
nothing, with it a YES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from faults.conformance.outside import FIRST, NAMESPACE, on_a_loop
from faults.servers import Database
from participant.cli import _server
from participant.resources import No
from participant.resources.outside import OutsideResource
from participant.settings import ParticipantSettings
from tests.mariadb_tools import MariaDBSubject
from tests.postgresql_tools import PostgreSQLSubject
from tests.sqlite_tools import add, check, delete, encode, insert, read, update, upsert
from troth.operations import sql
from troth.v1.types_pb2 import Code, Operation

OPERATIONS: dict[str, Operation] = {
    "insert": insert("orders", 1),
    "update": update("accounts", "bob", balance=5),
    "upsert": upsert("accounts", "bob", balance=6),
    "delete": delete("orders", 0),
    "add": add("accounts", "bob", "balance", 1),
    "check": check("accounts", "bob", exists=True),
    "read": read("accounts", "bob"),
    "sql": sql("UPDATE accounts SET balance = balance + 1 WHERE id = %s", ["bob"]),
    "read-only sql": sql("SELECT * FROM accounts", read_only=True),
}
CHANGES = {"update", "add", "sql"}
GRANTS: dict[str, dict[str, set[str]]] = {
    "postgresql": {  # what reads a row locks it, and that is a right to change it
        "SELECT": {"read-only sql"},
        "UPDATE": {"check", "read", *CHANGES},
        "INSERT": {"insert", "upsert"},
        "DELETE": {"delete"},
    },
    "mariadb": {
        "SELECT": {"read-only sql", "check", "read"},
        "UPDATE": CHANGES,
        "INSERT": {"insert", "upsert"},
        "DELETE": {"delete"},
    },
}
"""One right after the other, and what it makes possible."""


class Limited(NamedTuple):
    """A user of a database who may only have a participant there."""

    database: Database
    name: str
    dsn: str

    def may(self, rights: str, *tables: str) -> None:
        for table in tables:
            self.database.execute(f"GRANT {rights} ON {table} TO {self.name}")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[OutsideResource]:
        resource = _server(self.database.server.name, self.dsn, "p", ParticipantSettings(connections=2))
        await resource.open(NAMESPACE)
        try:
            yield resource
        finally:
            await resource.close()


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, f"needs_{name}")) for name in GRANTS])
def limited(request: pytest.FixtureRequest) -> Iterator[Limited]:
    server: Any = request.getfixturevalue(request.param)
    database: Database = server.create("limited_in_all")  # in MariaDB everybody may do everything in those named test_
    if request.param == "postgresql":
        PostgreSQLSubject(lambda: database)
        name, first = "limited", ["CREATE ROLE limited LOGIN", "GRANT CREATE ON SCHEMA public TO limited"]
        last = ["DROP OWNED BY limited", "DROP ROLE limited"]
    else:
        MariaDBSubject(lambda: database)
        name = "limited@'127.0.0.1'"
        finished = f"GRANT CREATE, SELECT, INSERT, DELETE ON troth_finished TO {name}"
        first = [f"CREATE USER {name}", f"GRANT PROCESS ON *.* TO {name}", finished]
        last = [f"DROP USER {name}"]
    for statement in ("INSERT INTO orders(id) VALUES (0)", *first):
        database.execute(statement)
    yield Limited(database, name, database.dsn.replace(f"{server.superuser}@", "limited@"))
    for statement in last:
        database.execute(statement)
    database.drop()


@on_a_loop
async def test_what_each_operation_needs(limited: Limited) -> None:
    able: set[str] = set()
    for right, more in GRANTS[limited.database.server.name].items():
        limited.may(right, "accounts", "orders")
        able |= more
        async with limited.opened() as resource:
            for name, operation in OPERATIONS.items():
                plan = resource.plan(encode([operation]))
                if name in able:
                    await resource.prepare(FIRST, plan)
                    await resource.abort(FIRST)
                    continue
                with pytest.raises(No, match="connects as may not do this") as caught:
                    await resource.prepare(FIRST, plan)
                assert (caught.value.reason.code, caught.value.reason.operation) == (Code.CODE_BAD_OPERATION, 0)
                assert not caught.value.reason.retryable
                assert (await resource.survey()).prepared == frozenset()
    assert able == OPERATIONS.keys()


@on_a_loop
async def test_a_right_that_is_taken_away_while_it_serves(limited: Limited) -> None:
    limited.may("SELECT, UPDATE", "accounts")
    async with limited.opened() as resource:
        limited.database.execute(f"REVOKE INSERT ON troth_finished FROM {limited.name}")
        with pytest.raises(No, match="connects as may not do this"):
            await resource.prepare(FIRST, resource.plan(encode([OPERATIONS["add"]])))
        assert (await resource.survey()).prepared == frozenset()
