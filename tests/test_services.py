"""`scripts/services`: it says where the servers are, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from faults.servers import MariaDB, PostgreSQL

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def services(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """As `scripts/services` runs it."""
    command = [sys.executable, "-m", "faults.servers", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as running:
        try:
            yield running
        finally:
            running.terminate()


@pytest.mark.needs_postgresql
@pytest.mark.needs_mariadb
def test_services_run_until_a_signal_and_leave_nothing() -> None:
    import psycopg
    import pymysql

    with services("--json") as running:
        assert running.stdout is not None
        found = [json.loads(running.stdout.readline()) for _ in range(2)]
        assert [line["server"] for line in found] == ["postgresql", "mariadb"]
        with psycopg.connect(found[0]["dsn"]) as connection:
            assert connection.execute("SHOW max_prepared_transactions").fetchone() == ("100",)
        where = urlsplit(found[1]["dsn"])
        assert where.hostname is not None
        assert where.username is not None
        database = where.path.removeprefix("/")
        with pymysql.connect(
            host=where.hostname, port=where.port or 0, user=where.username, database=database
        ) as mysql:
            mysql.cursor().execute("SELECT 1")
        running.terminate()
        assert running.communicate() == ("", "")
    assert running.returncode == 0
    for line in found:
        assert not Path(line["folder"]).exists()
        assert not Path(f"/proc/{line['pid']}").exists()


@pytest.mark.needs_mariadb
def test_services_end_when_a_server_dies() -> None:
    with services("mariadb") as running:
        assert running.stdout is not None
        name, dsn = running.stdout.readline().split()
        assert name == "mariadb:"
        assert dsn.startswith("mariadb://root@127.0.0.1:")
        assert running.stdout.readline() == "Ctrl-C stops them and removes their data\n"
        [pid] = map(int, Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split())
        os.kill(pid, signal.SIGKILL)
        _, said = running.communicate()
    assert running.returncode == 1
    assert said.startswith("Error: MariaDB ended; its log:")


def test_services_name_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind in (PostgreSQL, MariaDB):
        monkeypatch.setenv(kind.variable(), str(tmp_path))
    with services("postgresql") as named, services() as any_of_them:
        for running in (named, any_of_them):
            said, error = running.communicate()
            assert said == ""
            assert running.returncode == 1
            assert error.startswith("Error: no PostgreSQL server was found")
    assert "apt install mariadb-server" in error


@pytest.mark.needs_mariadb
def test_services_leave_out_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PostgreSQL.variable(), str(tmp_path))
    with services() as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("mariadb: ")
        running.terminate()
        _, error = running.communicate()
    assert error.startswith("left out: no PostgreSQL server was found")
