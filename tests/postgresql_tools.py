"""A database with two tables, a participant's resource over it, and what a DBA sees."""

from __future__ import annotations

from faults.servers import Database
from participant.resources.outside import OutsideResource
from participant.resources.postgresql import PostgreSQLResource
from tests.server_subject import TwoTables
from tests.sqlite_tools import encode, insert, read

SCHEMA = """
CREATE TABLE accounts(id text PRIMARY KEY, balance bigint CHECK (balance >= 0));
CREATE TABLE orders(id int PRIMARY KEY, account text REFERENCES accounts, code text UNIQUE);
INSERT INTO accounts VALUES ('alice', 100), ('bob', 100);
"""


class PostgreSQLSubject(TwoTables):
    schema = (SCHEMA,)

    aliases = (
        (encode([read("orders", 17)]), encode([read("public.orders", "17")])),
        (encode([read("orders", 17)]), encode([read("ORDERS", 17.0)])),
        (encode([insert("orders", 17, account="alice")]), encode([insert("orders", "17", Account="alice")])),
    )
    lock_timeout_s = 0.4

    def make(self) -> OutsideResource:
        return PostgreSQLResource(self.database.dsn, lock_timeout_s=self.lock_timeout_s, pool=self.at_work_max)


def listed(database: Database) -> list[str]:
    """The names prepared in this database."""
    query = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared"
    return [gid for (gid,) in database.execute(query)]


def balance(database: Database, name: str = "alice") -> int:
    """As committed."""
    found: int = database.execute(f"SELECT balance FROM accounts WHERE id = '{name}'")[0][0]
    return found
