"""Participants whose data are at a database server, on real processes: the participant dies, the server dies, people
end branches by hand. In the end the participant's file, the server and the coordinator say the same, or it is told.

p1 keeps its data in its file, p2 has them at the server.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from faults.auditor import audit
from faults.servers import Database
from tests.cluster import COORDINATOR, Cluster, Ended, eventually
from tests.moves import (
    SOON,
    NewCluster,
    add,
    alarms,
    balances,
    committed,
    doubt,
    insert,
    move,
    open_accounts,
    state,
    submission,
    submit,
    submitting,
    unresolved,
    wait_balances,
    wait_ended,
    wait_in_doubt,
)
from tests.submitting import objects, troth
from tests.test_up import running, troth_up
from troth.process import EXIT_REFUSED, EXIT_UNAVAILABLE, addresses
from troth.v1.coordinator_pb2 import STATE_COMMITTING
from troth.v1.types_pb2 import Code
from troth.words import Outcome

SCHEMA = """
CREATE TABLE accounts (name VARCHAR(40) NOT NULL PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0));
"""


class Kind(NamedTuple):
    """A kind of server: how a person ends a branch there."""

    commit: str
    rollback: str
    bound: bool = False
    """Whether a prepared branch is its session's, and nobody else's, as long as that is there."""


KINDS = {
    "postgresql": Kind("COMMIT PREPARED {}", "ROLLBACK PREPARED {}"),
    "mariadb": Kind("XA COMMIT {}", "XA ROLLBACK {}", bound=True),
}


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, f"needs_{name}")) for name in KINDS])
def new_database(request: pytest.FixtureRequest) -> Callable[[], Database]:
    """Makes databases with the tables, at a server of each kind in turn."""
    make: Callable[[], Database] = request.getfixturevalue(f"{request.param}_databases")

    def made() -> Database:
        database = make()
        database.execute(SCHEMA)
        return database

    return made


@pytest.fixture
def shop(new_database: Callable[[], Database]) -> Database:
    """What p2 guards."""
    return new_database()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The failpoints of all processes; empty."""
    return tmp_path / "failpoints"


@pytest.fixture
def cluster(new_cluster: NewCluster, shop: Database, rules: Path) -> Iterator[Cluster]:
    """Alice has 100 at p1, bob 100 at p2."""
    env = {
        **SOON,
        "TROTH_FAILPOINTS": f"@{rules}",
        "TROTH_PARTICIPANT_LOOK_INTERVAL": "100ms",
        "TROTH_PARTICIPANT_LOCK_TIMEOUT": "500ms",
    }
    with new_cluster(participants=2, schema=SCHEMA, history=True, databases={"p2": shop}, env=env) as found:
        open_accounts(found)
        yield found
        if not shop.server.running:
            shop.server.start()


def vote_log(cluster: Cluster) -> dict[str, int]:
    """How many rows the tables of p2's vote log have."""
    tables = ("prepared", "heuristic", "history")
    return {table: cluster.rows("p2", f"SELECT count(*) FROM troth_{table}")[0][0] for table in tables}


def check_whole(cluster: Cluster, shop: Database, *, branches: int) -> None:
    """Nothing is left, and the history of p2 has so many branches beside the one that opened its account."""
    wait_ended(cluster)
    assert shop.prepared() == []
    assert vote_log(cluster) == {"prepared": 0, "heuristic": 0, "history": 1 + branches}
    assert cluster.rows("p2", "SELECT 1 FROM troth_history WHERE length(operations) = 0") == []
    assert [counters.alarms for counters in cluster.counters().values()] == [0, 0, 0]
    cluster.stop(*cluster.processes)
    found = audit([cluster.folder], databases={"p2": shop.dsn})
    assert [each.line() for each in (*found.contradictions, *found.in_doubt)] == []
    assert found.unreadable == []


# The participant dies.


def test_a_branch_that_is_prepared_at_the_server_and_not_in_the_file_is_rolled_back(
    cluster: Cluster, shop: Database, rules: Path
) -> None:
    rules.write_text("p2:try:after-carry=kill")
    moving = submitting(cluster, move(id="order-1", timeout_s=20))
    assert cluster["p2"].wait() == -signal.SIGKILL
    (orphan,) = shop.prepared()
    assert vote_log(cluster)["prepared"] == 0
    cluster.start("p2", env={"TROTH_FAILPOINTS": ""})
    eventually(lambda: orphan not in shop.prepared(), "the orphan is gone")
    assert moving.result().outcome == Outcome.COMMITTED, "as a new attempt"
    wait_balances(cluster, 70, 130)
    check_whole(cluster, shop, branches=1)


def test_a_commit_at_the_server_that_is_not_in_the_file_is_found_and_acknowledged(
    cluster: Cluster, shop: Database, rules: Path
) -> None:
    rules.write_text("p2:apply:after-carry=kill")
    committed(cluster, move(id="order-1"))
    assert cluster["p2"].wait() == -signal.SIGKILL
    assert (shop.prepared(), vote_log(cluster)["prepared"]) == ([], 1)
    cluster.start("p2", env={"TROTH_FAILPOINTS": ""})
    check_whole(cluster, shop, branches=1)
    assert balances(cluster) == (70, 130)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_one_phase_commit_is_once_and_whole(cluster: Cluster, shop: Database, rules: Path, when: str) -> None:
    """Rule 13: from before the server was asked it is tried again; from after it, it is found with its operations."""
    rules.write_text(f"p2:run-alone:{when}-carry=kill")
    paying = submitting(cluster, submission({"p2": [add("bob", 30)]}, id="order-1", timeout_s=20))
    assert cluster["p2"].wait() == -signal.SIGKILL
    assert balances(cluster) == (100, 100 if when == "before" else 130)
    cluster.start("p2", env={"TROTH_FAILPOINTS": ""})
    assert paying.result().outcome == Outcome.COMMITTED
    assert balances(cluster) == (100, 130)
    check_whole(cluster, shop, branches=1)


# The server dies.


def test_what_is_prepared_outlives_the_server(cluster: Cluster, shop: Database, rules: Path) -> None:
    rules.write_text("p2:apply:before-carry=stop")
    committed(cluster, move(id="order-1"))
    eventually(lambda: "failpoint" in cluster.log("p2"), "p2 is about to commit")
    shop.server.kill()
    shop.server.start()
    assert len(shop.prepared()) == 1
    rules.write_text("")
    cluster.resume("p2")
    wait_balances(cluster, 70, 130)
    check_whole(cluster, shop, branches=1)


def test_with_the_server_away_branches_are_denied_for_now_and_others_go_on(cluster: Cluster, shop: Database) -> None:
    shop.server.kill()
    result = submit(cluster, move(timeout_s=1.0))
    assert (result.outcome, result.reason.code) == (Outcome.ABORTED, Code.CODE_UNREACHABLE)
    assert result.reason.retryable
    assert (result.reason.participant, shop.server.title in result.reason.message) == ("p2", True)
    committed(cluster, submission({"p1": [insert("carol", 1)]}))
    moving = submitting(cluster, move(id="order-1", timeout_s=20))
    eventually(lambda: cluster.status(COORDINATOR).in_flight == 1, "it is tried again and again")
    shop.server.start()
    assert moving.result().outcome == Outcome.COMMITTED
    wait_balances(cluster, 70, 130)
    assert cluster["p2"].running
    check_whole(cluster, shop, branches=1)


def test_a_commit_waits_for_its_server_and_others_go_on(cluster: Cluster, shop: Database, rules: Path) -> None:
    rules.write_text("p2:apply:before-carry=stop")
    committed(cluster, move(id="order-1"))
    eventually(lambda: "failpoint" in cluster.log("p2"), "p2 is about to commit")
    rules.write_text("")
    shop.server.kill()
    cluster.resume("p2")
    eventually(lambda: "is asked again and again" in cluster.log("p2"), "it is warned of")
    committed(cluster, submission({"p1": [add("alice", -1)]}))
    assert cluster.status(COORDINATOR).unresolved == 1
    assert state(cluster, "order-1") == STATE_COMMITTING
    shop.server.start()
    wait_balances(cluster, 69, 130)
    check_whole(cluster, shop, branches=1)


def test_a_participant_whose_server_is_away_stops_when_it_is_told_to(
    cluster: Cluster, shop: Database, rules: Path
) -> None:
    rules.write_text("p2:apply:before-carry=stop")
    committed(cluster, move(id="order-1"))
    eventually(lambda: "failpoint" in cluster.log("p2"), "p2 is about to commit")
    rules.write_text("")
    shop.server.kill()
    cluster.resume("p2")
    eventually(lambda: "is asked again and again" in cluster.log("p2"), "it waits for the server")
    assert cluster.stop("p2") == [0]
    shop.server.start()
    cluster.start("p2")
    wait_balances(cluster, 70, 130)
    check_whole(cluster, shop, branches=1)


def test_a_server_that_is_away_at_the_start_is_said(cluster: Cluster, shop: Database) -> None:
    cluster.kill("p2")
    shop.server.kill()
    with pytest.raises(Ended) as ended:
        cluster.start("p2")
    assert ended.value.code == EXIT_UNAVAILABLE
    assert f"{shop.server.title} " in ended.value.log.splitlines()[-1]
    assert "Traceback" not in ended.value.log
    shop.server.start()
    cluster.start("p2")
    committed(cluster, move(id="order-1"))
    check_whole(cluster, shop, branches=1)


def test_troth_up_tries_again_until_the_server_is_there(tmp_path: Path, shop: Database) -> None:
    data = tmp_path / "up"
    shop.server.kill()
    where = ("--participant", "p1=sqlite", "--participant", f"p2={shop.server.name}:{shop.dsn}", "--port", "0")
    try:
        with running(data, troth_up(data, *where)) as up:
            assert "starting again in" in up.wait_line(f"p2: ended with exit code {EXIT_UNAVAILABLE}")
            shop.server.start()
            up.wait_line("p2: serving on")
            code, _, _ = up.end()
            assert code == 0
    finally:
        if not shop.server.running:
            shop.server.start()


# People.


def decided(cluster: Cluster, rules: Path) -> None:
    """order-1 is decided COMMITTED, its coordinator is dead, and p2 is prepared."""
    rules.write_text("coordinator:committed:after-flush=kill")
    broken = submitting(cluster, move(id="order-1"))
    assert cluster[COORDINATOR].wait() == -signal.SIGKILL
    assert broken.exception() is not None
    rules.write_text("")
    wait_in_doubt(cluster, "p2")


def end_by_hand(shop: Database, outcome: Outcome) -> None:
    """Ends the one branch that is prepared; where a session has it, after a crash of the server."""
    kind = KINDS[shop.server.name]
    if kind.bound:
        shop.server.kill()
        shop.server.start()
    (name,) = shop.prepared()
    shop.execute((kind.commit if outcome is Outcome.COMMITTED else kind.rollback).format(name))


def kept_by_hand(cluster: Cluster) -> list[str]:
    """The participants that acknowledged a heuristic outcome, as the coordinator keeps it."""
    return [each.participant for each in unresolved(cluster) if each.kind == "heuristic"]


def torn(cluster: Cluster) -> bool:
    """Whether p2 says so."""
    return any("was resolved by hand as ABORTED here and is COMMITTED: torn" in each for each in alarms(cluster, "p2"))


@pytest.mark.parametrize("outcome", [Outcome.COMMITTED, Outcome.ABORTED])
def test_a_branch_that_a_person_ends_at_the_server_is_found_told_and_cleared(
    cluster: Cluster, shop: Database, rules: Path, outcome: Outcome
) -> None:
    """Rule 12. The coordinator has decided COMMITTED."""
    decided(cluster, rules)
    end_by_hand(shop, outcome)
    eventually(lambda: [branch.heuristic for branch in doubt(cluster, "p2")] == [outcome.value], "p2 has seen it")
    (alarm,) = alarms(cluster, "p2")
    assert f"was ended as {outcome.name} at the server, not by p2" in alarm
    (listed,) = objects(troth(cluster, "in-doubt", "--participant-address", cluster["p2"].address, "--json").stdout)
    assert (listed["participant"], listed["heuristic"]) == ("p2", outcome.name)
    cluster.kill("p2")
    cluster.start("p2", COORDINATOR)
    eventually(lambda: kept_by_hand(cluster) == ["p2"], "the acknowledgement is recorded")
    wait_balances(cluster, 70, 130 if outcome is Outcome.COMMITTED else 100)
    assert torn(cluster) == (outcome is Outcome.ABORTED)
    cleared = troth(cluster, "clear", "order-1", "--participant", "p2", "--reason", "paid by hand", "--yes")
    assert cleared.returncode == 0, cleared.stderr
    assert kept_by_hand(cluster) == []
    committed(cluster, move(id="order-2"))
    wait_ended(cluster)
    assert shop.prepared() == []


@pytest.mark.parametrize("fault", ["", "p2:contradict:before-flush=kill", "p2:contradict:after-flush=kill"])
def test_a_branch_that_is_rolled_back_behind_its_commit_is_torn_and_kept(
    cluster: Cluster, shop: Database, rules: Path, fault: str
) -> None:
    """p2 has no time to look: it learns of it when it is to commit."""
    rules.write_text("p2:apply:before-carry=stop")
    committed(cluster, move(id="order-1"))
    eventually(lambda: "failpoint" in cluster.log("p2"), "p2 is about to commit")
    end_by_hand(shop, Outcome.ABORTED)
    rules.write_text(fault)
    cluster.resume("p2")
    if fault:
        assert cluster["p2"].wait() == -signal.SIGKILL
        rules.write_text("")
        cluster.start("p2")
    eventually(lambda: kept_by_hand(cluster) == ["p2"], "the acknowledgement is recorded")
    assert vote_log(cluster) == {"prepared": 0, "heuristic": 1, "history": 1}
    assert balances(cluster) == (70, 100)
    assert torn(cluster)
    assert alarms(cluster, COORDINATOR)[-1].endswith("is COMMITTED and p2 was resolved by hand as ABORTED")
    cluster.kill("p2")
    cluster.start("p2")
    assert torn(cluster), "it is said at each start again"
    cluster.stop(*cluster.processes)
    verified = troth(cluster, "verify", str(cluster.folder))
    assert verified.returncode == 1
    assert "ABORTED: torn by hand" in verified.stdout


# Files and databases that do not go together.


def refused(cluster: Cluster, code: int = EXIT_REFUSED) -> str:
    """What p2 says when it does not start."""
    with pytest.raises(Ended) as ended:
        cluster.start("p2")
    assert ended.value.code == code
    assert "Traceback" not in ended.value.log
    return ended.value.log.splitlines()[-1]


def told_to_use(cluster: Cluster, resource: str, *dsn: str) -> None:
    """Changes what p2 is started with."""
    command = cluster["p2"].command
    at = command.index("--resource")
    command[at:] = ["--resource", resource, *dsn]


def test_a_file_goes_with_one_database(cluster: Cluster, shop: Database, new_database: Callable[[], Database]) -> None:
    cluster.stop("p2")
    ((place,),) = cluster.rows("p2", "SELECT value FROM troth_meta WHERE key = 'place'")
    other = new_database()
    told_to_use(cluster, shop.server.name, "--dsn", other.dsn)
    said = refused(cluster)
    assert f"goes with the data in {place}; it was started with those in" in said
    told_to_use(cluster, shop.server.name, "--dsn", shop.dsn)
    cluster.start("p2")
    committed(cluster, move(id="order-1"))


def test_a_file_goes_with_one_kind_of_resource(cluster: Cluster, shop: Database) -> None:
    cluster.stop("p1", "p2")
    at_server, mine = cluster["p2"].data, cluster["p1"].data
    command = list(cluster["p2"].command)
    told_to_use(cluster, "sqlite")
    assert f"a participant with --resource {shop.server.name}, not sqlite" in refused(cluster)
    cluster["p2"].command = [str(mine) if part == str(at_server) else part for part in command]
    cluster["p2"].command[cluster["p2"].command.index("p2")] = "p1"
    assert f"a participant with --resource sqlite, not {shop.server.name}" in refused(cluster)


def test_a_vote_log_from_an_older_copy_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.stop("p2")
    shutil.copy(cluster["p2"].data, tmp_path / "copy")
    cluster.start("p2")
    committed(cluster, move(id="order-1", wait_applied=True))
    put_back(cluster, tmp_path / "copy")
    cluster["p2"].launch((), cluster.env)
    assert cluster["p2"].wait() == EXIT_REFUSED
    assert "it was restored from an older copy. Use `troth restore`" in cluster.log("p2").splitlines()[-1]


def put_back(cluster: Cluster, copy: Path) -> None:
    """An older copy in the place of p2's file."""
    cluster.stop("p2")
    for path in cluster.folder.glob("p2.db*"):
        path.unlink()
    shutil.copy(copy, cluster["p2"].data)


def test_a_database_from_an_older_copy_is_refused(cluster: Cluster, shop: Database, tmp_path: Path) -> None:
    data, copy = shop.server.folder / "data", tmp_path / "data"
    shop.server.stop()
    subprocess.run(["cp", "-a", str(data), str(copy)], check=True)
    shop.server.start()
    committed(cluster, move(id="order-1", timeout_s=20, wait_applied=True))
    cluster.kill("p2")
    shop.server.stop()
    shutil.rmtree(data)
    subprocess.run(["cp", "-a", str(copy), str(data)], check=True)
    shop.server.start()
    assert "the server does not: its data were restored from an older copy" in refused(cluster)


@pytest.mark.parametrize("copied", ["before", "after"], ids=["copied before the vote", "copied after it"])
def test_what_was_prepared_under_the_old_identity_of_a_restored_file_is_ended(
    cluster: Cluster, shop: Database, rules: Path, tmp_path: Path, copied: str
) -> None:
    if copied == "before":
        cluster.stop("p2")
        shutil.copy(cluster["p2"].data, tmp_path / "copy")
        cluster.start("p2")
        cluster.wait_lanes()
    decided(cluster, rules)
    cluster.stop("p2")
    if copied == "before":
        put_back(cluster, tmp_path / "copy")
    restored = troth(cluster, "restore", str(cluster["p2"].data))
    assert restored.returncode == 0, restored.stderr
    assert len(shop.prepared()) == 1
    cluster.start("p2", COORDINATOR)
    wait_balances(cluster, 70, 130)
    eventually(lambda: shop.prepared() == [], "the branch is ended")
    cluster.wait_settled()
    (alarm,) = eventually(lambda: alarms(cluster, COORDINATOR), "the coordinator sees another file")
    assert "bring it back or settle them with `troth resolve`" in alarm
    settled = troth(
        cluster, "resolve", "order-1", "commit", "--participant", "p2", "--gone", "--reason", "restored", "--yes"
    )
    assert settled.returncode == 0, settled.stderr
    committed(cluster, move(id="order-2"))


def test_of_two_participants_with_copies_of_one_file_only_one_works(
    cluster: Cluster, shop: Database, tmp_path: Path
) -> None:
    (tmp_path / "twin").mkdir()
    cluster.stop("p2")
    shutil.copy(cluster["p2"].data, tmp_path / "twin" / "p2.db")
    cluster.start("p2")
    command = list(cluster["p2"].command)
    for flag, value in (
        ("--data", str(tmp_path / "twin" / "p2.db")),
        ("--listen", f"127.0.0.1:{addresses.free_ports(1)[0]}"),
    ):
        command[command.index(flag) + 1] = value
    twin = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert twin.returncode == EXIT_UNAVAILABLE, twin.stderr
    assert "holds the lock of this participant file" in twin.stderr.splitlines()[-1]
    assert "from 127.0.0.1" in twin.stderr.splitlines()[-1]
    committed(cluster, move(id="order-1", wait_applied=True))
    check_whole(cluster, shop, branches=1)
