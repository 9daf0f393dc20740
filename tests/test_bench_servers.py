"""`troth bench servers` and its contenders on real servers: short runs that are measured and verified, and what it
skips and says."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack

import pytest
from click.testing import CliRunner, Result

from bench import contender, report
from bench.by_hand import ByHand
from bench.contender import Contender
from bench.databases import PostgreSQLs
from bench.figures import Row
from bench.load import Answer, Load
from bench.on_troth import OnTroth
from bench.run import Subject
from bench.workloads import WORKLOADS, Add, Branch
from faults.servers import Database
from tests.test_bench import SHORT, figures, measured
from troth.cli import main
from troth.words import Outcome

KINDS = ("postgresql", "mariadb")
WITHOUT_SERVERS = {f"TROTH_{kind.upper()}_PATH": "/nowhere" for kind in KINDS}
LOCK_TIMEOUTS = {"postgresql": "SET lock_timeout = '50ms'", "mariadb": "SET innodb_lock_wait_timeout = 0"}
BY_KIND = [pytest.param(kind, marks=getattr(pytest.mark, f"needs_{kind}")) for kind in KINDS]


def servers(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, ["bench", "servers", *SHORT, *arguments], env=env)


# Runs.


@pytest.mark.needs_postgresql
@pytest.mark.needs_mariadb
def test_troth_in_front_of_servers_takes_turns_with_the_same_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PostgreSQLs, "counted_after_s", 0.0)  # so the syncs of Troth's sessions are not told in time
    ran = servers("--json")
    assert ran.exit_code == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    rows = {line["contender"]: line for line in lines if "contender" in line}
    assert list(rows) == ["troth-postgresql", "postgresql", "troth-mariadb", "mariadb", "troth"]
    for row in rows.values():
        assert (row["workload"], row["in_flight"], row["unknown"]) == ("transfer", 4, 0)
        assert row["committed"] > 0
    by_hand, ours = ["client", "server 1", "server 2"], ["client", "coordinator", "p1", "p2", "server 1", "server 2"]
    for kind in KINDS:
        assert list(rows[kind]["cpu_s_per_1000"]) == by_hand
        assert list(rows[f"troth-{kind}"]["cpu_s_per_1000"]) == ours
        assert rows[f"troth-{kind}"]["forced"]["median"] > 0
    ratios = [(line["ratio"], line["of"], line["to"], line["wanted"]) for line in lines if "ratio" in line]
    assert ratios == [
        ("tx_per_s", "troth", "postgresql", None),
        ("tx_per_s", "troth-postgresql", "postgresql", None),
        ("tx_per_s", "troth-mariadb", "mariadb", "at least 1"),
    ]


@pytest.mark.parametrize("kind", BY_KIND)
def test_each_forced_write_of_a_server_is_counted_by_hand(kind: str) -> None:
    row = measured("--contender", kind, "--in-flight", "1")[kind]
    assert row["commits_per_sync"] == pytest.approx(0.5, rel=0.2), "alone, it is forced when prepared and committed"


@pytest.mark.needs_mariadb
@pytest.mark.parametrize("name", ["transfer", "single", "large"])
def test_two_servers_of_mariadb_are_measured_and_verified(name: str) -> None:
    row = measured("--contender", "mariadb", "--workload", name)["mariadb"]
    assert row["committed"] > 0
    servers = {"server 1"} if name == "single" else {"server 1", "server 2"}
    assert set(row["cpu_s_per_1000"]) == {"client", *servers}
    if name == "transfer":
        assert row["messages"]["median"] == 20


@pytest.mark.parametrize("kind", BY_KIND)
def test_what_a_lock_refuses_is_rolled_back_by_hand_and_the_session_goes_on(
    kind: str, request: pytest.FixtureRequest
) -> None:
    database: Database = request.getfixturevalue(f"{kind}_database")
    database.execute("CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)")
    database.execute("INSERT INTO accounts VALUES (1, 5), (2, 5)")
    asyncio.run(_refused(contender.contender(kind), database))
    assert database.prepared() == []
    assert sorted(database.execute("SELECT id, balance FROM accounts")) == [(1, 4), (2, 6)]


async def _refused(kind: type[Contender], database: Database) -> None:
    """One session has an account, which another waits for in vain."""
    assert issubclass(kind, ByHand)
    other = Branch(1, (Add(2, 1), Add(1, 1)))
    async with AsyncExitStack() as stack:
        first, second = [await kind().session(database, stack) for _ in range(2)]
        await second.execute(LOCK_TIMEOUTS[kind.name])
        assert await first.work("one", Branch(1, (Add(1, -1, 0),))) == ""
        assert await second.work("two", other) in {"LockNotAvailable", "lock wait timeout"}
        await second.roll_back("two")
        await second.roll_back("two")  # where nothing is open
        await first.prepare("one")
        await first.commit("one")
        assert await second.work("three", Branch(1, (Add(2, 1, 0),))) == ""
        await second.prepare("three")
        await second.commit("three")
        assert "below min" in await second.work("four", Branch(1, (Add(1, -5, 0),)))
        await second.roll_back("four")


# What is skipped and refused.


def test_servers_that_are_missing_are_named() -> None:
    ran = servers(env=WITHOUT_SERVERS)
    assert ran.exit_code == 0, ran.stderr
    for name, title in zip(KINDS, ("PostgreSQL", "MariaDB"), strict=True):
        for each in (name, f"troth-{name}"):
            assert f"all workloads: {each} was skipped: no {title} server was found" in ran.stdout
    assert "transfer  4          troth " in ran.stdout


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncmy", None)
    assert contender.lacking("troth-mariadb") == "asyncmy is not installed (pip install 'troth[bench]')"


# Pieces.


def rows(name: str, *rates: float) -> list[Row]:
    """At 1 and 16 in flight."""
    return [Row("transfer", level, name, [figures(rate)]) for level, rate in zip((1, 16), rates, strict=True)]


def test_a_ratio_says_what_is_wanted_of_it() -> None:
    found = report.ratios([*rows("troth-postgresql", 50.0, 300.0), *rows("postgresql", 100.0, 150.0)])
    assert [str(each).removeprefix("transfer, ") for each in found] == [
        "1 in flight: tx/s troth-postgresql / postgresql = 0.50 (0.50..0.50)",
        "1 in flight: p50 troth-postgresql / postgresql = 1.00 (1.00..1.00), wanted at most 1.3",
        "16 in flight: tx/s troth-postgresql / postgresql = 2.00 (2.00..2.00), wanted at least 1.5",
        "at its best: tx/s troth-postgresql / postgresql = 2.00 (2.00..2.00)",
    ]


def test_commits_per_sync_are_those_since_it_was_last_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = iter([10.0, 110.0, None])

    async def syncs_a_server(self: OnTroth) -> float | None:
        return next(syncs)

    async def run(self: OnTroth, load: Load) -> None:
        for step in load:
            load.answered(step, Answer(Outcome.COMMITTED))

    async def settled(self: OnTroth) -> None:
        pass

    for instead in (syncs_a_server, run, settled):
        monkeypatch.setattr(OnTroth, instead.__name__, instead)
    monkeypatch.setattr(OnTroth, "dead", lambda self: [])

    async def asked() -> list[float | None]:
        subject = Subject(OnTroth(), WORKLOADS["transfer"], seed=1)
        found = []
        for commits in (5, 50, 5):
            await subject.ran(subject.load(1, 60.0, commits))
            found.append(await subject.commits_per_sync())
        return found

    assert asyncio.run(asked()) == [0.5, 0.5, None]
