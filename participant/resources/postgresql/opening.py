"""What must be true of a server, so that a YES for it can be kept: each refusal says what to change."""

from __future__ import annotations

from typing import NamedTuple

from participant.resources.outside import ResourceRefused
from participant.resources.postgresql.catalog import quote
from participant.resources.postgresql.pool import ENDERS
from participant.resources.postgresql.session import Query, Session, text

VERSION_MIN = 120000
"""12: the first with collations known to be deterministic and generated columns, which the catalog is asked about."""

_FACTS = """
SELECT current_setting('server_version_num'), current_setting('server_version'), pg_is_in_recovery()::text,
       current_setting('transaction_read_only'), current_setting('max_prepared_transactions'),
       current_setting('max_connections'), current_setting('fsync'), current_setting('synchronous_commit'),
       current_setting('server_encoding'), current_schema(), current_user, current_database(),
       (SELECT system_identifier || '/' || oid FROM pg_control_system(), pg_database
        WHERE datname = current_database())
"""

UNFORCED = "PostgreSQL's fsync is off, and a YES would not outlive a power cut: set fsync = on"


class Server(NamedTuple):
    """What is to be known of it later."""

    finished: str
    """The table of what has committed, as statements name it."""
    place: str
    """The database by a name that no other one has: its cluster's own identifier, and its number there."""
    synchronous_commit: str
    """What our sessions set: "on" where it was off, so that no answer goes out before its commit is on disk."""


async def examine(session: Session, pool_size: int) -> Server:
    """Raises ResourceRefused; Lost."""
    found = await session.answer(Query(_FACTS, kept=False))
    facts = [text(found, 0, at) for at in range(found.nfields)]
    number, version, standby, read_only, slots, most, fsync, synchronous, encoding, schema, role, *names = facts
    database, place = names
    _require(int(number or 0) >= VERSION_MIN, f"PostgreSQL is {version}: 12 or newer is needed")
    _require(
        session.announced_pid == session.pid,
        "a connection pooler stands before PostgreSQL: connect to the server itself, sessions are counted on",
    )
    _require(
        standby == "false",
        "PostgreSQL is a standby: connect to its primary (in the DSN: target_session_attrs=read-write)",
    )
    _require(
        read_only == "off",
        f"PostgreSQL takes no writes from role {role}: set default_transaction_read_only = off for it",
    )
    _require(fsync == "on", UNFORCED)
    _require(
        encoding != "SQL_ASCII",
        f"database {database} has the encoding SQL_ASCII, where text has no meaning: use one made with ENCODING 'UTF8'",
    )
    _require(
        int(slots or 0) >= pool_size,
        f"PostgreSQL's max_prepared_transactions is {slots}, less than the {pool_size} branches worked on at a time,"
        " and those prepared wait for their end: set max_prepared_transactions = 100 in postgresql.conf and restart it",
    )
    wanted = pool_size + ENDERS + 1
    _require(
        int(most or 0) > wanted,
        f"PostgreSQL's max_connections is {most}, and {wanted} are needed: raise it, or make the pool smaller",
    )
    _require(
        schema is not None,
        f"role {role} has no schema in its search_path: set one (in the DSN: options='-c search_path=SCHEMA')",
    )
    finished = f"{quote(str(schema))}.troth_finished"
    await _make_finished(session, finished, str(role), quote(str(schema)))
    return Server(finished, str(place), "on" if synchronous == "off" else str(synchronous))


async def require_reach(session: Session, prefix: str) -> None:
    """That what is prepared under these names can be ended from here. Raises ResourceRefused; Lost."""
    listed = Query(
        "SELECT database, owner, current_database(), current_user FROM pg_prepared_xacts WHERE starts_with(gid, $1)"
        " AND (database <> current_database() OR owner <> current_user AND current_setting('is_superuser') <> 'on')",
        (prefix,),
    )
    found = await session.answer(listed)
    if found.ntuples:
        theirs, owner, database, role = [text(found, 0, at) for at in range(4)]
        raise ResourceRefused(
            f"branches of this participant are prepared in database {theirs} by role {owner}, which cannot be ended"
            f" from database {database} by role {role}: connect as before, until they have ended"
        )


async def _make_finished(session: Session, finished: str, role: str, schema: str) -> None:
    """Of what has committed: by the participant's file, the coordinator's log and the attempt. When two make it at
    once, PostgreSQL refuses one of them; so it is looked at again."""
    create = (
        f'CREATE TABLE IF NOT EXISTS {finished} (identity text COLLATE "C", log text COLLATE "C", number bigint,'
        " operations bytea, position bigint GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (identity, log, number))"
    )
    for _ in range(2):
        unit = await session.ask(Query(f"SELECT 1 FROM {finished} LIMIT 0", kept=False))
        if unit.failure is not None and unit.failure.sqlstate == "42P01":
            unit = await session.ask(Query(create, kept=False))
    if unit.failure is not None:
        raise ResourceRefused(
            f"role {role} may not make the table {finished} ({unit.failure.words()}):"
            f" GRANT CREATE ON SCHEMA {schema} TO {quote(role)}, or as another role: {create};"
            f" GRANT SELECT, INSERT, DELETE ON {finished} TO {quote(role)}"
        )
    wanted = Query(
        "SELECT string_agg(p, ', ') FROM unnest('{SELECT,INSERT,DELETE}'::text[]) p"
        " WHERE NOT has_table_privilege($1::regclass, p)",
        (finished,),
        kept=False,
    )
    if missing := text(await session.answer(wanted), 0, 0):
        grant = f"GRANT {missing} ON {finished} TO {quote(role)}"
        raise ResourceRefused(f"role {role} may not {missing} in {finished}: {grant}")


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise ResourceRefused(why)
