"""What must be true of a server, so that a YES for it can be kept: each refusal says what to change.

With the binary log on, the server itself keeps its word (what XA PREPARE answered survives a crash, and is found by XA
RECOVER), if that log is forced as well: a one-phase COMMIT is then durable in it first, and InnoDB forces nothing. What
reads the log does not: XA PREPARE and XA COMMIT are two writes, to the log and to InnoDB, that a crash can part
(MDEV-21469). Then a replica may hold a prepared branch for ever, or stop at a second XA COMMIT. So it is allowed, with
a warning.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import NamedTuple

import structlog

from participant.resources.mariadb.pool import ENDERS, KEPT_PER_WORKER
from participant.resources.mariadb.session import Lost, Session
from participant.resources.mariadb.statements import quote
from participant.resources.outside import ResourceRefused

log = structlog.get_logger(__name__)

VERSION_MIN = (10, 5)
"""The first in which what is prepared outlives its connection (MDEV-742)."""
FINISHED = "troth_finished"

FORCING = "'innodb_flush_log_at_trx_commit', 'log_bin', 'sync_binlog'"
"""Settings on which it hangs that what is answered is on disk, quoted; they may be changed as the server runs."""
_FACTS = (
    f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({FORCING}, 'version', 'read_only', 'binlog_format', 'wsrep_on',"
    " 'max_connections', 'max_allowed_packet')",
    "SELECT CURRENT_USER(), DATABASE()",
)
_CREATE = (
    f"CREATE TABLE IF NOT EXISTS {FINISHED} (identity varbinary(64), log varbinary(64), number bigint,"
    " operations longblob, position bigint NOT NULL AUTO_INCREMENT UNIQUE,"
    " PRIMARY KEY (identity, log, number)) ENGINE=InnoDB"
)
_COMMENT = "what Troth has committed here: "
_MISSING = 1146


class Server(NamedTuple):
    """What is to be known of it later."""

    database: str
    place: str
    """The database by a name that no other one has, and that goes with its data to another server: the comment of our
    table, made with it."""
    packet_bytes_max: int


async def examine(session: Session, pool_size: int) -> Server:
    """Raises ResourceRefused; Lost."""
    unit = await session.ask(*_FACTS)
    if unit.failure is not None:
        raise ResourceRefused(f"MariaDB does not answer what it is: {unit.failure.message}")
    facts = {str(name): str(value) for name, value in unit.results[0].rows}
    account, database = map(str, unit.results[1].rows[0])
    version = facts["version"]
    numbers = re.match(r"(\d+)\.(\d+)", version)
    _require(
        "mariadb" in version.lower(),
        f"the server is {version}, not MariaDB: MySQL's XA is another, and untested",
    )
    _require(
        numbers is not None and (int(numbers[1]), int(numbers[2])) >= VERSION_MIN,
        f"MariaDB is {version}: 10.5 or newer is needed, where what is prepared outlives its connection",
    )
    _require(
        facts.get("wsrep_on", "OFF") == "OFF",
        "the server is a node of a Galera cluster (wsrep_on), which has no XA: use a server without it",
    )
    if unforced := why_unforced(facts):
        raise ResourceRefused(unforced)
    _require(
        facts["read_only"] == "OFF",
        f"MariaDB is read_only ({facts['read_only']}), as a replica is: connect to its primary, or set read_only = OFF",
    )
    if facts["log_bin"] == "ON":
        _binlog(facts)
    wanted = (1 + KEPT_PER_WORKER) * pool_size + ENDERS + 1
    _require(
        int(facts["max_connections"]) > wanted,
        f"MariaDB's max_connections is {facts['max_connections']}, and up to {wanted} are used: raise it, or make the"
        " pool smaller",
    )
    await _require_process(session, account)
    place = await _make_finished(session, account, database)
    return Server(database, place, int(facts["max_allowed_packet"]))


def why_unforced(facts: Mapping[str, str]) -> str:
    """Why a YES would not be kept, as the server is set now; empty when it would. `facts` are FORCING, by name."""
    flush = facts["innodb_flush_log_at_trx_commit"]
    if flush not in ("1", "3"):
        return (
            f"MariaDB's innodb_flush_log_at_trx_commit is {flush}, and a YES would not outlive a power cut: set"
            " innodb_flush_log_at_trx_commit = 1"
        )
    if facts["log_bin"] == "ON" and facts["sync_binlog"] != "1":
        return (
            f"MariaDB's binary log is on and sync_binlog is {facts['sync_binlog']}, so that a power cut takes commits"
            " away: set sync_binlog = 1"
        )
    return ""


def _binlog(facts: dict[str, str]) -> None:
    _require(
        facts["binlog_format"] != "STATEMENT",
        "MariaDB's binlog_format is STATEMENT, which READ COMMITTED transactions cannot be written in: set it to ROW",
    )
    log.warning(
        "MariaDB's binary log is on: after a crash of this server a replica can hold a prepared branch for ever, or"
        " stop (MDEV-21469)"
    )


async def _require_process(session: Session, account: str) -> None:
    """Without it one does not see whose transactions are still being taken down (see `pool`)."""
    unit = await session.ask("SELECT COUNT(*) FROM information_schema.innodb_trx")
    if unit.failure is not None:
        raise ResourceRefused(f"user {account} may not see INNODB_TRX: GRANT PROCESS ON *.* TO {_account(account)}")


async def _make_finished(session: Session, account: str, database: str) -> str:
    """Of what has committed: by the participant's file, the coordinator's log and the attempt. Its comment, or where
    another hand has made it without one the database's own name."""
    unit = await session.ask(f"SELECT 1 FROM {FINISHED} LIMIT 0")
    if unit.failure is not None and unit.failure.number == _MISSING:
        unit = await session.ask(f"{_CREATE} COMMENT='{_COMMENT}{secrets.token_hex(8)}'")
    where = f"{quote(database)}.{FINISHED}"
    if unit.failure is not None:
        raise ResourceRefused(
            f"user {account} may not make the table {FINISHED} ({unit.failure.message}): GRANT CREATE, SELECT, INSERT,"
            f" DELETE ON {where} TO {_account(account)}"
        )
    unit = await session.ask(
        f"INSERT INTO {FINISHED} SELECT * FROM {FINISHED} LIMIT 0", f"DELETE FROM {FINISHED} WHERE identity = ''"
    )
    if unit.failure is not None:
        raise ResourceRefused(
            f"user {account} may not use the table {FINISHED} ({unit.failure.message}): GRANT SELECT, INSERT, DELETE ON"
            f" {where} TO {_account(account)}"
        )
    engine = await session.ask(
        "SELECT engine, table_comment FROM information_schema.tables"
        f" WHERE table_schema = DATABASE() AND table_name = '{FINISHED}'"
    )
    if engine.failure is not None:
        raise Lost(engine.failure.message)
    found, comment = map(str, engine.results[0].rows[0])
    _require(found == "InnoDB", f"the engine of {FINISHED} is {found}: ALTER TABLE {where} ENGINE=InnoDB")
    return comment if comment.startswith(_COMMENT) else database


def _account(account: str) -> str:
    user, _, host = account.rpartition("@")
    return f"'{user}'@'{host}'"


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise ResourceRefused(why)
