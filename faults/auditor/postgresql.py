"""A PostgreSQL database as the auditor reads it: one transaction, REPEATABLE READ and READ ONLY."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from faults.auditor.files import Unreadable
from faults.auditor.server import AT_WORK_WITHIN_S, Branch, Column, Snapshot, Table
from faults.auditor.twins import DECIMAL, MOMENT, UNKNOWN_DEFAULT, UUID_TEXT, SqlValue, quote

_PREFIX = "troth:"
_ROWS_AT_ONCE = 10_000
_LOOK_AGAIN_S = 0.1

_PLACE = """
SELECT system_identifier || '/' || oid, current_schema(), pg_is_in_recovery()
FROM pg_control_system(), pg_database WHERE datname = current_database()
"""
_AT_WORK = """
SELECT pid, coalesce(host(client_addr), 'a local socket') FROM pg_stat_activity
WHERE datname = current_database() AND starts_with(application_name, %s)
"""
_LISTED = """
SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts
WHERE database = current_database() AND starts_with(gid, %s) ORDER BY gid
"""
_TABLES = """
SELECT c.oid, n.nspname, c.relname, n.nspname = current_schema(),
       (SELECT array_agg(a.attname ORDER BY k.n)
        FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
        JOIN pg_attribute a USING (attnum) WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid
        AND k.n <= i.indnkeyatts),
       EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal),
       EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f'
               AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd')))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema'
  AND (lower(n.nspname || '.' || c.relname) = ANY (%(names)s)
       OR n.nspname = current_schema() AND lower(c.relname) = ANY (%(names)s))
  AND NOT starts_with(c.relname, 'troth_')
ORDER BY n.nspname, c.relname
"""
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typname, t.typtype::text,
       t.typnamespace = 'pg_catalog'::regnamespace, pg_get_expr(d.adbin, d.adrelid), a.attidentity <> ''
FROM pg_attribute a JOIN pg_type own ON own.oid = a.atttypid
JOIN pg_type t ON t.oid = coalesce(nullif(own.typbasetype, 0), own.oid)
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum
"""

_DECLARED = {
    **dict.fromkeys(("int2", "int4", "int8"), "INTEGER"),
    "float8": "REAL",
    "numeric": DECIMAL,
    **dict.fromkeys(("text", "varchar", "bpchar", "date"), "TEXT"),
    "bytea": "BLOB",
    "bool": "BOOLEAN",
    "uuid": UUID_TEXT,
    **dict.fromkeys(("timestamp", "timestamptz"), MOMENT),
}
_AS_THEY_ARE = ("int2", "int4", "int8", "float8", "bytea", "bool")
_CONSTANT = re.compile(r"(?P<sql>-?\d+(\.\d+)?|'([^']|'')*'|true|false)(::[\w ]+)?")


@contextmanager
def opened(dsn: str, namespace: str) -> Iterator[Snapshot]:
    """Raises Unreadable."""
    try:
        with psycopg.connect(dsn, autocommit=True, application_name="troth verify") as connection:
            yield _Snapshot(connection, namespace)
    except psycopg.Error as error:
        raise Unreadable(f"PostgreSQL: {' '.join(str(error).split())}") from error


class _Snapshot(Snapshot):
    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], namespace: str) -> None:
        self._execute = connection.execute
        self._connection = connection
        self._execute("SET datestyle = 'ISO'")
        self._execute("SET timezone = 'UTC'")
        ((place, schema, standby),) = self._execute(_PLACE)
        if standby:
            raise Unreadable("PostgreSQL is a standby, which may be behind: name its primary")
        self.place, self.schema = str(place), str(schema or "")
        self._wait_alone(namespace)
        self._listed = self._execute(_LISTED, (_PREFIX,)).fetchall()  # before the snapshot, which does not hold it
        self._execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    def _wait_alone(self, namespace: str) -> None:
        """Until no session of the participant is there: one that was killed may finish what it was told."""
        deadline = time.monotonic() + AT_WORK_WITHIN_S
        while at_work := self._execute(_AT_WORK, (f"{_PREFIX}{namespace}:",)).fetchall():
            if time.monotonic() > deadline:
                pid, where = at_work[0]
                raise Unreadable(f"the participant is still at work there, as process {pid} (from {where}): stop it")
            time.sleep(_LOOK_AGAIN_S)

    def prepared(self) -> Iterator[tuple[Branch | None, str, float | None]]:
        for gid, age_s in self._listed:
            yield _branch(str(gid)), str(gid), float(str(age_s))

    def committed(self, namespace: str) -> Iterator[tuple[str, int, bytes | None]]:
        query = "SELECT log, number, operations FROM troth_finished WHERE identity = %s ORDER BY position"
        with self._connection.cursor("troth_finished") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            for log, number, operations in cursor.execute(query, (namespace,)):
                assert isinstance(number, int)
                assert operations is None or isinstance(operations, bytes)
                yield str(log), number, operations

    def tables(self, names: Collection[str]) -> Iterator[Table]:
        for oid, schema, name, is_first, key, triggered, cascades in self._execute(_TABLES, {"names": list(names)}):
            assert key is None or isinstance(key, list)
            refused = "it has triggers" if triggered else "its rows follow those of another table" if cascades else ""
            yield Table(
                name=str(name) if is_first else f"{schema}.{name}",
                sql=f"{quote(str(schema))}.{quote(str(name))}",
                columns=[_column(*map(str, row[:4]), *row[4:]) for row in self._execute(_COLUMNS, (oid,))],
                key=key or [],
                refused=refused,
            )

    def rows(self, table: Table) -> Iterator[Sequence[SqlValue]]:
        with self._connection.cursor("troth_rows") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            columns = ", ".join(column.sql for column in table.compared)
            yield from cursor.execute(f"SELECT {columns} FROM {table.sql}".encode())


def _branch(gid: str) -> Branch | None:
    namespace, _, rest = gid.removeprefix(_PREFIX).partition(":")
    log, _, number = rest.rpartition(":")
    return Branch(namespace, log, int(number)) if log and number.isascii() and number.isdecimal() else None


def _column(name: str, shown: str, type_name: str, sort: str, built_in: object, default: object, own: object) -> Column:
    """`own`: an identity column, whose value the server makes."""
    declared = "TEXT" if sort == "e" else _DECLARED.get(type_name, "") if built_in else ""
    sql = quote(name)
    if type_name == "bpchar":
        sql = f"rtrim({sql}::text)"
    elif type_name not in _AS_THEY_ARE:
        sql = f"{sql}::text"
    return Column(name, shown, declared, sql, UNKNOWN_DEFAULT if own else _default(default, declared))


def _default(default: object, declared: str) -> str | None:
    if default is None:
        return None
    matched = _CONSTANT.fullmatch(str(default))
    is_plain = matched is not None and declared in ("INTEGER", "REAL", "TEXT", "BOOLEAN")
    return matched["sql"] if matched is not None and is_plain else UNKNOWN_DEFAULT
