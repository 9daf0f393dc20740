"""The private database servers: they live, are killed, live again with what they had, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from faults.cluster import eventually
from faults.servers import Database, MariaDB, PostgreSQL, Server, ServerError, ServerMissing
from troth.process import addresses

ROOT = Path(__file__).resolve().parent.parent
BOTH = [
    pytest.param(PostgreSQL, marks=pytest.mark.needs_postgresql),
    pytest.param(MariaDB, marks=pytest.mark.needs_mariadb),
]
PREPARE: dict[type[Server], list[str]] = {
    PostgreSQL: ["BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'x'"],
    MariaDB: ["XA START 'x'", "INSERT INTO t VALUES (1)", "XA END 'x'", "XA PREPARE 'x'"],
}
PREPARED: dict[type[Server], str] = {PostgreSQL: "SELECT gid FROM pg_prepared_xacts", MariaDB: "XA RECOVER"}
COMMIT: dict[type[Server], str] = {PostgreSQL: "COMMIT PREPARED 'x'", MariaDB: "XA COMMIT 'x'"}
FORCED: dict[type[Server], tuple[str, object]] = {
    PostgreSQL: ("SHOW fsync", "on"),
    MariaDB: ("SELECT @@innodb_flush_log_at_trx_commit", 1),
}


def prepare(database: Database) -> None:
    """An insert into a new table `t`, prepared by a connection that is then gone."""
    database.execute("CREATE TABLE t (id INT)")
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        for sql in PREPARE[type(database.server)]:
            cursor.execute(sql)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Lives.


@pytest.mark.parametrize("kind", BOTH)
def test_a_server_keeps_its_port_and_what_was_prepared_over_kill_and_stop(kind: type[Server]) -> None:
    with kind() as server:
        database, dsn = server.create("shop"), server.dsn
        assert database.dsn == f"{dsn.removesuffix(server.database)}shop"
        prepare(database)
        assert server.kill() == -9
        assert not server.running
        server.start()
        assert server.dsn == dsn
        assert len(server.execute(PREPARED[kind])) == 1
        assert database.execute("SELECT id FROM t") == []
        sql, value = FORCED[kind]
        assert server.execute(sql)[0][-1] == value
        assert server.stop() == 0
        server.start()
        database.execute(COMMIT[kind])
        assert database.execute("SELECT id FROM t") == [(1,)]
        pid = server.pid
    assert not server.folder.exists()
    assert not alive(pid)


@pytest.mark.parametrize("kind", BOTH)
def test_a_kill_ends_what_its_clients_are_at(kind: type[Server]) -> None:
    """Else the next start would have to wait for them: here longer than a kill may take."""
    long = {
        PostgreSQL: "SELECT count(*) FROM generate_series(1, 1000000000)",
        MariaDB: "SELECT benchmark(1000000000, sha1('x'))",
    }
    at_work = {
        PostgreSQL: "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%generate_series(%' AND pid <> pg_backend_pid()",
        MariaDB: "SELECT 1 FROM information_schema.processlist WHERE info LIKE '%sha1(%' AND id <> CONNECTION_ID()",
    }
    with kind() as server:
        lost: list[Exception] = []

        def work() -> None:
            try:
                server.execute(long[kind])
            except Exception as error:
                lost.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        eventually(lambda: server.execute(at_work[kind]))
        server.kill()
        worker.join()
        assert lost
        server.start()


@pytest.mark.parametrize("kind", BOTH)
def test_a_server_that_died_by_itself_starts_again(kind: type[Server]) -> None:
    with kind() as server:
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.running)
        server.start()
        assert server.execute("SELECT 1") == [(1,)]


@pytest.mark.needs_postgresql
def test_settings_reach_postgresql() -> None:
    with PostgreSQL({"max_prepared_transactions": "0", "lock_timeout": "70ms"}) as server:
        assert server.execute("SHOW max_prepared_transactions") == [("0",)]
        assert server.execute("SHOW lock_timeout") == [("70ms",)]


@pytest.mark.needs_mariadb
def test_settings_reach_mariadb() -> None:
    with MariaDB({"innodb_lock_wait_timeout": "3"}) as server:
        assert server.execute("SELECT @@innodb_lock_wait_timeout") == [(3,)]


@pytest.mark.parametrize("kind", BOTH)
def test_a_server_that_does_not_start_shows_its_log_and_leaves_nothing(kind: type[Server]) -> None:
    server = kind({"no_such_setting": "1"})
    with pytest.raises(ServerError, match="no_such_setting"), server:
        pass
    assert not server.folder.exists()


@pytest.mark.parametrize("kind", BOTH)
def test_another_port_is_taken_when_the_first_is_not_free(kind: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    [free] = addresses.free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ports = iter([[listener.getsockname()[1]], [free]])
        monkeypatch.setattr(addresses, "free_ports", lambda count: next(ports))
        with kind() as server:
            assert server.port == free


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.skipif(sys.platform != "linux", reason="the leash is Linux's")
def test_a_server_does_not_outlive_who_started_it(kind: type[Server]) -> None:
    code = (
        "import time; from faults import servers\n"
        f"with servers.{kind.__name__}() as server:\n"
        "    print(server.pid, server.folder, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        owner.kill()
    eventually(lambda: not alive(int(pid)), "the server is gone")
    shutil.rmtree(folder)


# Databases.


def test_what_is_prepared_in_a_database_of_postgresql_goes_with_it(postgresql: PostgreSQL) -> None:
    dropping_takes_all_along(postgresql)


def test_what_is_prepared_in_a_database_of_mariadb_goes_with_it(mariadb: MariaDB) -> None:
    dropping_takes_all_along(mariadb)


def dropping_takes_all_along(server: Server) -> None:
    database = server.create("dropped")
    prepare(database)
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO t VALUES (2)")
        database.drop()
    assert server.execute(PREPARED[type(server)]) == []
    server.create("dropped").drop()


def test_a_test_has_databases_of_its_own_also_after_a_kill(
    postgresql_database: Database, mariadb_database: Database
) -> None:
    for database in (postgresql_database, mariadb_database):
        prepare(database)
        database.server.kill()


# What is missing.


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
def test_what_is_missing_says_what_to_install(
    kind: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(kind.variable(), str(tmp_path))
    with pytest.raises(ServerMissing) as missing:
        kind()
    maker, program = kind.programs
    assert str(missing.value) == (
        f"no {kind.title} server was found: {maker} and {program} are not both in {tmp_path} "
        f"(Debian: apt install {kind.package}; {kind.variable()} names folders elsewhere)"
    )
    monkeypatch.delenv(kind.variable())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kind, "folders", str(tmp_path))
    with pytest.raises(ServerMissing, match="are not both in the PATH"):
        kind.find()


@pytest.mark.needs_postgresql
def test_the_newest_version_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version in ("9.6", "9", "15", "18"):
        folder = tmp_path / version / "bin"
        folder.mkdir(parents=True)
        for program in PostgreSQL.programs:
            (folder / program).touch(0o755 if version != "18" else 0o644)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(PostgreSQL, "folders", str(tmp_path / "*/bin"))
    assert PostgreSQL.find() == tuple(str(tmp_path / "15/bin" / program) for program in PostgreSQL.programs)


@pytest.mark.parametrize(("required", "outcome"), [("0", "1 skipped"), ("1", "1 error")])
def test_a_missing_server_skips_a_test_and_fails_it_where_servers_are_required(
    required: str, outcome: str, tmp_path: Path
) -> None:
    env = {**os.environ, "TROTH_CI": "0", "TROTH_REQUIRE_SERVERS": required, MariaDB.variable(): str(tmp_path)}
    test = f"{Path(__file__)}::test_what_is_prepared_in_a_database_of_mariadb_goes_with_it"
    ran = subprocess.run([sys.executable, "-m", "pytest", test], env=env, cwd=ROOT, capture_output=True, text=True)
    assert outcome in ran.stdout
    assert "MariaDB's server or PyMySQL is missing (Debian: apt install mariadb-server" in ran.stdout
