"""A database with two tables, a participant's resource over it, and what a DBA sees."""

from __future__ import annotations

from participant.resources.mariadb import MariaDBResource
from tests.server_subject import TwoTables
from tests.sqlite_tools import encode, insert, read

SCHEMA = (
    "CREATE TABLE accounts(id varchar(20) PRIMARY KEY, balance bigint CHECK (balance >= 0))",
    "CREATE TABLE orders(id int PRIMARY KEY, account varchar(20), code varchar(20) UNIQUE,"
    " FOREIGN KEY (account) REFERENCES accounts(id))",
    "INSERT INTO accounts VALUES ('alice', 100), ('bob', 100)",
)


class MariaDBSubject(TwoTables):
    schema = SCHEMA

    aliases = (
        (encode([read("orders", 17)]), encode([read("ORDERS", "17")])),
        (encode([insert("orders", 17, account="alice")]), encode([insert("orders", 17.0, Account="alice")])),
    )
    lock_timeout_s = 1.0

    def make(self) -> MariaDBResource:
        return MariaDBResource(self.database.dsn, lock_timeout_s=self.lock_timeout_s, pool=self.at_work_max)
