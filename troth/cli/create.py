"""`troth submit --create`: tables that do not exist, made from the first row that is inserted or upserted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from troth.cli.common import WAIT_S, places_by, soon
from troth.client import Client
from troth.client.participants import connect_participant
from troth.errors import BadInput
from troth.operations import Transaction, row_name
from troth.v1.types_pb2 import Column, Operation

DEFAULT_KEY = "id"


@dataclass
class KeyColumns:
    """The names of primary-key columns, by table."""

    by_table: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, options: Iterable[str]) -> Self:
        """From TABLE=COLUMN[,COLUMN...]. Raises BadInput."""
        found = cls()
        for option in options:
            table, equals, columns = option.partition("=")
            names = columns.split(",")
            if not (table and equals and all(names)) or len(set(names)) < len(names) or table in found.by_table:
                raise BadInput(f"--key {option}: expected TABLE=COLUMN[,COLUMN...], each table and column once")
            found.by_table[table] = names
        return found

    def of(self, operation: Operation) -> list[str]:
        """One name for each value of the operation's key. Raises BadInput."""
        names = self.by_table.get(operation.table, [DEFAULT_KEY])
        if len(names) != len(operation.key):
            raise BadInput(
                f"{row_name(operation.table, operation.key)} has a key of {len(operation.key)} values, and "
                f"{', '.join(names)} names {len(names)}: say --key {operation.table}=COLUMN,COLUMN..."
            )
        return names


async def create_missing(client: Client, transactions: Iterable[Transaction], keys: KeyColumns) -> list[str]:
    """Makes what is missing, and returns its names as `p1 accounts`. Participants that the coordinator does not know
    are left out: it will refuse what is meant for them. Raises BadInput, Unreachable."""
    firsts = first_rows(transactions)
    addresses = (await places_by(client)).participants
    created = []
    for participant in sorted({name for name, _ in firsts} & addresses.keys()):
        rows = [operation for (name, _), operation in firsts.items() if name == participant]
        created += [f"{participant} {table}" for table in await _create_at(addresses[participant], rows, keys)]
    return created


def first_rows(transactions: Iterable[Transaction]) -> dict[tuple[str, str], Operation]:
    """The first insert or upsert for each participant and table."""
    firsts: dict[tuple[str, str], Operation] = {}
    for transaction in transactions:
        for participant, operation in transaction.operations:
            if operation.WhichOneof("kind") in ("insert", "upsert"):
                firsts.setdefault((participant, operation.table), operation)
    return firsts


async def _create_at(address: str, rows: Sequence[Operation], keys: KeyColumns) -> list[str]:
    async with connect_participant(address, wait_s=WAIT_S) as participant:
        known = {table.name for table in await soon(participant.tables(), address)}
        missing = [(row.table, *columns_of(row, keys.of(row))) for row in rows if row.table not in known]
        return [table for table, key, values in missing if await participant.create_table(table, key, values)]


def columns_of(operation: Operation, names: Sequence[str]) -> tuple[list[Column], list[Column]]:
    """The key columns and the other columns of a first row. A key column that is repeated among the values has that
    value: it may be a number where the key was written as text."""
    columns = operation.insert.values if operation.HasField("insert") else operation.upsert.values
    given = {column.name: column.value for column in columns}
    key = [Column(name=name, value=given.get(name, value)) for name, value in zip(names, operation.key, strict=True)]
    return key, [column for column in columns if column.name not in names]
