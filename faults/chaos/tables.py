"""The tables of the workloads, which every participant has."""

from __future__ import annotations

from troth.client.participants import ParticipantClient
from troth.errors import BadInput, ServerError
from troth.v1.types_pb2 import Column
from troth.values import to_value

ACCOUNTS, TRANSFERS, LISTS = "chaos_accounts", "chaos_transfers", "chaos_lists"

SCHEMA = f"""\
CREATE TABLE {ACCOUNTS} (name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL) STRICT;
CREATE TABLE {TRANSFERS} (id TEXT PRIMARY KEY NOT NULL, amount INTEGER NOT NULL) STRICT;
CREATE TABLE {LISTS} (name TEXT PRIMARY KEY NOT NULL, items TEXT NOT NULL) STRICT;
"""

SERVER_SCHEMAS = {
    "postgresql": (
        f"CREATE TABLE {ACCOUNTS} (name text PRIMARY KEY, balance bigint NOT NULL)",
        f"CREATE TABLE {TRANSFERS} (id text PRIMARY KEY, amount bigint NOT NULL)",
        f"CREATE TABLE {LISTS} (name text PRIMARY KEY, items text NOT NULL)",
    ),
    "mariadb": (
        f"CREATE TABLE {ACCOUNTS} (name varchar(100) COLLATE utf8mb4_bin PRIMARY KEY, balance bigint NOT NULL)",
        f"CREATE TABLE {TRANSFERS} (id varchar(100) COLLATE utf8mb4_bin PRIMARY KEY, amount bigint NOT NULL)",
        f"CREATE TABLE {LISTS} (name varchar(100) COLLATE utf8mb4_bin PRIMARY KEY, items text NOT NULL)",
    ),
}
"""The same tables at a server, a statement each."""

_COLUMNS: dict[str, tuple[str, str, int | str]] = {
    ACCOUNTS: ("name", "balance", 0),
    TRANSFERS: ("id", "amount", 0),
    LISTS: ("name", "items", ""),
}
"""Key, column, and a value of the column's type."""


async def make(participant: ParticipantClient) -> None:
    """Makes the tables there that are missing. Raises BadInput, with what to do, when it does not make tables."""
    present = {table.name for table in await participant.tables() if not table.not_served}
    for table, (key, column, value) in _COLUMNS.items():
        if table not in present:
            key_column = Column(name=key, value=to_value("a"))
            try:
                await participant.create_table(table, [key_column], [Column(name=column, value=to_value(value))])
            except (BadInput, ServerError) as error:
                raise BadInput(
                    f"{participant.address} makes no table {table}: {error}; make there\n{SCHEMA}"
                ) from error
