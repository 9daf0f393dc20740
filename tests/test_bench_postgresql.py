"""The private PostgreSQL server: it lives, is killed, lives again with what it had, and leaves nothing behind."""

from __future__ import annotations

import os

import pytest

from bench.postgresql import PostgreSQL

pytestmark = pytest.mark.needs_postgresql


def test_a_server_keeps_its_port_and_what_was_prepared_over_kill_and_stop() -> None:
    import psycopg

    with PostgreSQL({"max_prepared_transactions": "5"}) as server:
        folder, dsn = server.folder, server.dsn
        with psycopg.connect(dsn, autocommit=True) as connection:
            for sql in ("CREATE TABLE t (id INT)", "BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'x'"):
                connection.execute(sql)
        assert server.kill() == -9
        assert not server.running
        server.start()
        assert server.dsn == dsn
        with psycopg.connect(dsn, autocommit=True) as connection:
            assert connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall() == [("x",)]
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            assert server.stop() == 0
        pid = server.pid
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
