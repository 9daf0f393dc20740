"""The disk of a database server is full: a clear NO, or a wait for what was promised, never a YES that is none; with
room again, all goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from faults.conformance.outside import FIRST, LOG, on_a_loop
from faults.servers import MariaDB, PostgreSQL, Server
from participant.resources import No
from participant.resources.outside import OutsideResource
from tests.mariadb_tools import MariaDBSubject
from tests.postgresql_tools import PostgreSQLSubject
from tests.server_subject import TwoTables
from tests.small_disk import Disk, on_small_disk
from tests.sqlite_tools import encode, insert
from troth.operations import sql
from troth.v1.types_pb2 import Code, Operation, Reason
from troth.words import AttemptId, number_of

MIB = 100
"""Of the disk; a new server has some forty."""
TRIES = 60


class Kind(NamedTuple):
    server: Server
    subject: Callable[..., TwoTables]
    bytes_type: str
    deadly: Callable[[], list[Operation]]
    """What a branch does that takes the server down when the disk is full."""


def fills_the_log() -> list[Operation]:
    """A log that cannot grow is the end of a PostgreSQL."""
    return [sql("SELECT pg_logical_emit_message(true, 'troth', repeat('x', 1000000))")]


def fills_a_table() -> list[Operation]:
    """MariaDB first fails to store so much, and then to roll that back: it ends itself."""
    return [insert("files", 0, body=os.urandom(200_000))]


def kind_of(name: str) -> Kind:
    if name == "postgresql":
        return Kind(PostgreSQL(), PostgreSQLSubject, "bytea", fills_the_log)
    return Kind(MariaDB({"innodb_log_file_size": "8M"}), MariaDBSubject, "longblob", fills_a_table)


KINDS = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=getattr(pytest.mark, f"needs_{name}")) for name in ("postgresql", "mariadb")]
)


class Branches:
    """Many, each with an order of its own."""

    def __init__(self, kind: Kind) -> None:
        self.subject = kind.subject(lambda: kind.server.create("small"))
        self._execute = self.subject.database.execute
        self._execute(f"CREATE TABLE files(id int PRIMARY KEY, body {kind.bytes_type})")
        self._execute("INSERT INTO orders(id) VALUES (0)")
        self.yes = {FIRST}
        self._tried = 0

    async def first(self, opened: OutsideResource) -> None:
        await opened.prepare(FIRST, opened.plan(self.subject.increment))

    async def next(self, opened: OutsideResource, *work: Operation) -> Reason | None:
        """One more: why not, if not."""
        self._tried += 1
        attempt = AttemptId(LOG, number_of(2, self._tried))
        try:
            await opened.prepare(attempt, opened.plan(encode([insert("orders", self._tried), *work])))
        except No as no:
            return no.reason
        self.yes.add(attempt)
        return None

    async def until_no(self, opened: OutsideResource, work: Callable[[], list[Operation]]) -> Reason:
        for _ in range(TRIES):
            if reason := await self.next(opened, *work()):
                return reason
        raise AssertionError("the disk was never full")

    async def go_on(self, opened: OutsideResource) -> None:
        """Whatever had a YES and has not ended is prepared, and nothing else; all of it commits, and so does what
        comes now."""
        survey = await opened.survey()
        assert survey.prepared | survey.committed.keys() == self.yes
        assert await self.next(opened) is None
        for attempt in sorted(self.yes):
            await opened.commit(attempt)
        assert (await opened.survey()).committed.keys() == self.yes
        assert self._execute("SELECT balance FROM accounts WHERE id = 'alice'") == [(98,)]
        assert self._execute("SELECT count(*) FROM orders") == [(len(self.yes),)]


@asynccontextmanager
async def at_a_full_disk(kind: Kind) -> AsyncIterator[tuple[Disk, Branches, OutsideResource]]:
    """A branch is prepared; then there is no room for another byte."""
    with on_small_disk(kind.server, MIB) as disk:
        branches = Branches(kind)
        async with branches.subject.opened() as opened:
            await branches.first(opened)
            disk.fill()
            yield disk, branches, opened


@pytest.mark.needs_mount
@KINDS
@on_a_loop
async def test_what_finds_no_room_is_a_no(name: str) -> None:
    """What is prepared commits all the same, as it needs no more."""
    kind = kind_of(name)
    async with at_a_full_disk(kind) as (disk, branches, opened):
        reason = await branches.until_no(opened, lambda: [insert("files", len(branches.yes), body=os.urandom(4000))])
        assert (reason.code, reason.retryable, reason.operation) == (Code.CODE_OVERLOADED, True, 1)
        assert "disk" in reason.message
        assert (await opened.survey()).prepared == branches.yes
        await opened.commit(FIRST)
        disk.make_room()
        await branches.go_on(opened)


@pytest.mark.needs_mount
@KINDS
@on_a_loop
async def test_a_server_that_a_full_disk_takes_down_keeps_what_was_promised(name: str) -> None:
    """A connection is lost in the middle of a branch, and a commit waits until there is room and a server."""
    kind = kind_of(name)
    async with at_a_full_disk(kind) as (disk, branches, opened):
        reason = await branches.until_no(opened, kind.deadly)
        assert (reason.code, reason.retryable) == (Code.CODE_UNREACHABLE, True)
        committing = asyncio.create_task(opened.commit(FIRST))
        while kind.server.running:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert not committing.done()
        disk.make_room()
        kind.server.start()
        await committing
        await branches.go_on(opened)
