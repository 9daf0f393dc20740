"""A MariaDB database as the auditor reads it: one transaction, WITH CONSISTENT SNAPSHOT and READ ONLY."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql.cursors import SSCursor

from faults.auditor.files import Unreadable
from faults.auditor.server import AT_WORK_WITHIN_S, Branch, Column, Snapshot, Table
from faults.auditor.twins import DECIMAL, LOOSE_KEY, MOMENT, UNKNOWN_DEFAULT, UUID_TEXT, SqlValue

_PREFIX = "troth:"
_PORT = 3306
_CONNECT_WITHIN_S = 5
_LOOK_AGAIN_S = 0.1
_SLOTS_MAX = 512
"""Sessions of one participant file: each holds a lock with its number."""

_AT_WORK = f"""
WITH RECURSIVE slots(slot) AS (SELECT 0 UNION ALL SELECT slot + 1 FROM slots WHERE slot < {_SLOTS_MAX})
SELECT IS_USED_LOCK(IF(slot, CONCAT(%s, ':', slot), %s)) AS id FROM slots HAVING id IS NOT NULL
"""
_PLACE = """
SELECT coalesce((SELECT table_comment FROM information_schema.tables
                 WHERE table_schema = DATABASE() AND table_name = 'troth_finished'), ''), DATABASE(), @@read_only
"""
_COMMENT = "what Troth has committed here: "
"""How the comment begins that names the database."""
_TABLES = """
SELECT t.table_name,
       (SELECT GROUP_CONCAT(column_name ORDER BY seq_in_index SEPARATOR '\\n') FROM information_schema.statistics s
        WHERE s.table_schema = DATABASE() AND s.table_name = t.table_name AND index_name = 'PRIMARY'),
       EXISTS (SELECT 1 FROM information_schema.triggers
               WHERE event_object_schema = DATABASE() AND event_object_table = t.table_name),
       EXISTS (SELECT 1 FROM information_schema.referential_constraints c
               WHERE c.constraint_schema = DATABASE() AND c.table_name = t.table_name
               AND (delete_rule IN ('CASCADE', 'SET NULL') OR update_rule IN ('CASCADE', 'SET NULL')))
FROM information_schema.tables t
WHERE t.table_schema = DATABASE() AND t.table_type = 'BASE TABLE' AND t.table_name NOT LIKE 'troth\\_%'
ORDER BY t.table_name
"""
_COLUMNS = """
SELECT column_name, data_type, column_type, column_default, extra, coalesce(collation_name, ''), column_key = 'PRI'
FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s AND is_generated = 'NEVER'
ORDER BY ordinal_position
"""
_DECLARED = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint"), "INTEGER"),
    "double": "REAL",
    "decimal": DECIMAL,
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "date"), "TEXT"),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), "BLOB"),
    "uuid": UUID_TEXT,
    **dict.fromkeys(("datetime", "timestamp"), MOMENT),
}
_CONSTANT = re.compile(r"-?\d+(\.\d+)?|'([^'\\]|'')*'")


def connected(dsn: str) -> pymysql.Connection[Any]:
    """By `mariadb://USER:PASSWORD@HOST:PORT/DATABASE`, also with `?unix_socket=PATH` or `?ssl_ca=FILE`. Raises OSError,
    ValueError."""
    parts = urlsplit(dsn)
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    database = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in ("mariadb", "mysql") or not database or options.keys() - {"unix_socket", "ssl_ca"}:
        raise ValueError("the DSN is not mariadb://USER:PASSWORD@HOST:PORT/DATABASE")
    try:
        return pymysql.connect(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or _PORT,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=_CONNECT_WITHIN_S,
            **options,
        )
    except pymysql.Error as error:
        raise OSError(_words(error)) from error


@contextmanager
def opened(dsn: str, namespace: str) -> Iterator[Snapshot]:
    """Raises Unreadable."""
    try:
        with closing(connected(dsn)) as connection:
            yield _Snapshot(connection, namespace)
    except (pymysql.Error, OSError, ValueError) as error:
        raise Unreadable(f"MariaDB: {_words(error)}") from error


def _words(error: Exception) -> str:
    return " ".join(str(error.args[-1] if error.args else error).split())


class _Snapshot(Snapshot):
    def __init__(self, connection: pymysql.Connection[Any], namespace: str) -> None:
        self._connection = connection
        self._all("SET SESSION time_zone = '+00:00'")
        ((comment, self.schema, read_only),) = self._all(_PLACE)
        self.place = comment if comment.startswith(_COMMENT) else self.schema
        if read_only:
            raise Unreadable("MariaDB is read_only, as a replica is, which may be behind: name its primary")
        digest = blake2b(self.schema.encode(), digest_size=4).hexdigest()
        self._scope = f"{namespace}.{digest}"
        self._wait_alone()
        self._listed = self._all("XA RECOVER")  # before the snapshot, which does not hold it
        self._all("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def _wait_alone(self) -> None:
        """As at PostgreSQL: until no session of the participant is there."""
        deadline = time.monotonic() + AT_WORK_WITHIN_S
        lock = f"{_PREFIX}{self._scope}"
        while at_work := self._all(_AT_WORK, lock, lock):
            if time.monotonic() > deadline:
                raise Unreadable(f"the participant is still at work there, in session {at_work[0][0]}: stop it")
            time.sleep(_LOOK_AGAIN_S)

    def _all(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, parameters or None)
            return list(cursor.fetchall())

    def _each(self, query: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """One by one, as they come."""
        with self._connection.cursor(SSCursor) as cursor:
            cursor.execute(query, parameters or None)
            yield from cursor

    def prepared(self) -> Iterator[tuple[Branch | None, str, float | None]]:
        """`troth:NAMESPACE.DATABASE:LOG` and the number. The server says neither the database nor the age."""
        for _, length, _, data in self._listed:
            raw = data if isinstance(data, bytes) else str(data).encode()
            name, number = raw[:length].decode(errors="replace"), raw[length:].decode(errors="replace")
            if not name.startswith(_PREFIX):
                continue
            scope, _, log = name.removeprefix(_PREFIX).partition(":")
            is_own = scope == self._scope and number.isascii() and number.isdecimal()
            branch = Branch(scope.partition(".")[0], log, int(number)) if is_own else None
            yield branch, f"{name}:{number}", None

    def committed(self, namespace: str) -> Iterator[tuple[str, int, bytes | None]]:
        query = "SELECT log, number, operations FROM troth_finished WHERE identity = %s ORDER BY position"
        for log, number, operations in self._each(query, namespace):
            yield _text(log), int(number), operations

    def tables(self, names: Collection[str]) -> Iterator[Table]:
        for name, key, triggered, cascades in self._all(_TABLES):
            if name.lower() not in names and f"{self.schema}.{name}".lower() not in names:
                continue
            refused = "it has triggers" if triggered else "its rows follow those of another table" if cascades else ""
            columns = [_column(*row) for row in self._all(_COLUMNS, name)]
            yield Table(name, _quote(name), columns, key.split("\n") if key else [], refused)

    def rows(self, table: Table) -> Iterator[Sequence[SqlValue]]:
        yield from self._each(f"SELECT {', '.join(column.sql for column in table.compared)} FROM {table.sql}")


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


def _quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _column(name: str, data: str, shown: str, default: str | None, extra: str, collation: str, in_key: int) -> Column:
    declared, sql = _DECLARED.get(data, ""), _quote(name)
    if "on update" in extra.lower() or (shown.startswith("bigint") and "unsigned" in shown):
        declared = ""  # it changes by itself; it holds more than SQLite does
    elif in_key and declared == "TEXT" and collation and not collation.endswith("_bin"):
        declared = LOOSE_KEY
    if data == "timestamp":
        sql = f"CONCAT({sql}, '+00:00')"
    elif data in ("decimal", "date", "datetime", "uuid"):
        sql = f"CAST({sql} AS CHAR)"
    made = UNKNOWN_DEFAULT if "auto_increment" in extra else _default(default, declared)
    return Column(name, shown, declared, sql, made)


def _default(default: str | None, declared: str) -> str | None:
    if default is None or default == "NULL":
        return None
    is_plain = declared in ("INTEGER", "REAL", "TEXT") and _CONSTANT.fullmatch(default)
    return default if is_plain else UNKNOWN_DEFAULT
