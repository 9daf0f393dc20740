"""What all tests share: the tools found, tests that need them, and what a failure shows."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from faults.servers import KINDS, Database, MariaDB, PostgreSQL, Server, ServerMissing
from tests.cluster import Cluster
from tests.small_disk import may_mount
from troth.process import addresses

STRICT = os.environ.get("TROTH_CI") == "1"
"""Nothing may be skipped: a skip is a failure."""
SERVERS_REQUIRED = os.environ.get("TROTH_REQUIRE_SERVERS") == "1"
"""A test that needs a database server fails where there is none."""

_WORKERS_PER_CPU = 2
"""Much of a test is waiting."""
_WORKERS_MAX = 8
"""Each may have a PostgreSQL and a MariaDB."""
_LOG_LINES_SHOWN = 60
_CLUSTERS = pytest.StashKey[list[Cluster]]()


@cache
def has_strace() -> bool:
    """Whether strace is there and may trace (containers often forbid it)."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode == 0


@cache
def libfaketime() -> Path | None:
    """The library for programs with threads."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


def has_compiler() -> bool:
    return any(map(shutil.which, ("cc", "gcc", "clang")))


@cache
def has_server(kind: type[Server], driver: str) -> bool:
    """Whether a database server and the driver for it are there."""
    try:
        kind.find()
    except ServerMissing:
        return False
    return importlib.util.find_spec(driver) is not None


NEEDS: dict[str, tuple[str, Callable[[], object], str]] = {
    "needs_strace": ("strace", has_strace, "strace is missing or may not trace (Debian: apt install strace)"),
    "needs_faketime": ("libfaketime", libfaketime, "libfaketime is missing (Debian: apt install faketime)"),
    "needs_cc": ("C compiler", has_compiler, "no C compiler was found (Debian: apt install gcc libc6-dev)"),
    "needs_postgresql": (
        "PostgreSQL",
        partial(has_server, PostgreSQL, "psycopg"),
        "PostgreSQL's server or psycopg is missing (Debian: apt install postgresql; pip install 'troth[postgresql]')",
    ),
    "needs_mariadb": (
        "MariaDB",
        partial(has_server, MariaDB, "pymysql"),
        "MariaDB's server or PyMySQL is missing (Debian: apt install mariadb-server; pip install 'troth[mariadb]')",
    ),
    "needs_mount": ("small disks", may_mount, "may not mount a tmpfs: needs root, and a container that allows it"),
}
"""Markers: the tool, whether it is there, and what to say when not. The fixtures `postgresql` and `mariadb` stand for
theirs."""
SERVERS = {"needs_postgresql", "needs_mariadb"}
RIGHTS = {"needs_mount"}
"""What no package brings and a container may forbid: with TROTH_CI=1, too, their tests are skipped then."""


_IN_CI = {False: "; with TROTH_CI=1 it fails instead", True: ""}


def pytest_configure(config: pytest.Config) -> None:
    for marker, (tool, _, _) in NEEDS.items():
        config.addinivalue_line("markers", f"{marker}: skipped without {tool}{_IN_CI[marker in RIGHTS]}")
    # A shell starts what is in the background so, and with it all its children.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if worker := getattr(config, "workerinput", None):
        ports = addresses.port_range()
        number, of = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
        own = ports[len(ports) * number // of : len(ports) * (number + 1) // of]
        os.environ[addresses.FREE_PORTS] = f"{own[0]}-{own[-1]}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For `-n auto`, as `scripts/test` has it. Single tests are not worth the start of a worker."""
    if any("::" in argument for argument in config.args):
        return 0
    return min(_WORKERS_PER_CPU * (os.cpu_count() or 1), _WORKERS_MAX)


def pytest_report_header() -> str:
    tools = ", ".join(f"{tool} {'yes' if found() else 'no'}" for tool, found, _ in NEEDS.values())
    return f"tools: {tools}{'; nothing may be skipped' if STRICT else ''}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (_, found, reason) in NEEDS.items():
        if needs(item, marker) and not found():
            if SERVERS_REQUIRED and marker in SERVERS:
                pytest.fail(f"TROTH_REQUIRE_SERVERS=1, and {reason}", pytrace=False)
            pytest.skip(reason)


def needs(item: pytest.Item, marker: str) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return item.get_closest_marker(marker) is not None or marker.removeprefix("needs_") in fixtures


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    allowed = hasattr(report, "wasxfail") or any(map(item.get_closest_marker, RIGHTS))
    if STRICT and report.skipped and not allowed:
        report.outcome = "failed"
        report.longrepr = f"skipped, and TROTH_CI=1 allows no skips: {report.longrepr}"
    if report.failed:
        for cluster in item.stash.get(_CLUSTERS, []):
            for name, log in cluster.logs().items():
                report.sections.append((f"log of {name}", "\n".join(log.splitlines()[-_LOG_LINES_SHOWN:])))
    return report  # type: ignore[no-any-return]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            terminalreporter.line(f"{name}: {value}")
    seed = config.getoption("randomly_seed", default=None)
    for report in terminalreporter.stats.get("failed", []):
        terminalreporter.line(f"replay: scripts/test --randomly-seed={seed} {report.nodeid}")


@pytest.fixture
def new_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters below the test's folder; the arguments are those of `Cluster` after the folder. They are to be
    entered by the test; their logs are shown when it fails."""
    made: list[Cluster] = request.node.stash.setdefault(_CLUSTERS, [])

    def make(*args: Any, **kwargs: Any) -> Cluster:
        made.append(Cluster(tmp_path / f"cluster{len(made)}", *args, **kwargs))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def faketime_library() -> Path:
    """For `cluster.faketime`; the test is marked `needs_faketime`."""
    library = libfaketime()
    assert library is not None
    return library


_DATABASES = count(1)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One server for all tests. A test may kill it and start it again; what it prepares it does in its own database."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """As `postgresql`."""
    with MariaDB() as server:
        yield server


@pytest.fixture
def postgresql_databases(postgresql: PostgreSQL) -> Iterator[Callable[[], Database]]:
    """Makes new ones for the test, dropped after it with what is prepared there."""
    yield from _databases(postgresql)


@pytest.fixture
def postgresql_database(postgresql_databases: Callable[[], Database]) -> Database:
    """One of these."""
    return postgresql_databases()


@pytest.fixture
def mariadb_databases(mariadb: MariaDB) -> Iterator[Callable[[], Database]]:
    """As `postgresql_databases`; what is prepared in other databases goes with them."""
    yield from _databases(mariadb)


@pytest.fixture
def mariadb_database(mariadb_databases: Callable[[], Database]) -> Database:
    """As `postgresql_database`."""
    return mariadb_databases()


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, f"needs_{name}")) for name in KINDS])
def server_database(request: pytest.FixtureRequest) -> Database:
    """One at a server of each kind in turn."""
    made: Database = request.getfixturevalue(f"{request.param}_database")
    return made


def _databases(server: Server) -> Iterator[Callable[[], Database]]:
    made: list[Database] = []

    def make() -> Database:
        made.append(server.create(f"test_{next(_DATABASES)}"))
        return made[-1]

    try:
        yield make
    finally:
        if made and not server.running:
            server.start()
        for database in made:
            database.drop()
