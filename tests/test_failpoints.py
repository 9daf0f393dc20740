"""The runtime of failpoints: what may be written, that each action really happens, and that it is off otherwise."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from participant.driver import FAILPOINTS
from participant.events import Apply, Try
from tests.cluster import COORDINATOR, Cluster, Ended, eventually
from tests.moves import (
    SCHEMA,
    SOON,
    NewCluster,
    balances,
    broken,
    move,
    open_accounts,
    submit,
    submitting,
    wait_balances,
)
from troth import failpoints
from troth.failpoints import Action, Failpoints, Rule
from troth.messages import Commit, Prepare
from troth.process import EXIT_LOG_FAILED, EXIT_USAGE
from troth.words import Outcome


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("p1", FAILPOINTS, "")


def arm(text: str) -> None:
    failpoints.arm("p1", FAILPOINTS, text)


def commits(*numbers: int) -> list[Commit]:
    return [Commit(number) for number in numbers]


def received(count: int) -> list[int]:
    """The numbers of so many commits that arrive one by one, as they go on."""

    async def arrive() -> list[int]:
        return [
            message.number
            for number in range(1, count + 1)
            for message in await failpoints.through("before-receive", commits(number))
        ]

    return asyncio.run(arrive())


# The text.


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("p1:commit=kill", "is not WHO:WHAT:WHEN"),
        ("p1:commit:before-receive=kill@0", "is not WHO:WHAT:WHEN"),
        ("p1:commit:before-receive=explode", "there is no action 'explode'; there are kill, stop"),
        ("p1:commit:before-receive=delay", "has seconds in brackets"),
        ("p1:commit:before-receive=drop(1)", "has seconds in brackets"),
        ("p1:comit:before-receive=kill", "has no point comit:before-receive; did you mean commit:before-receive?"),
        ("participant:zzz:qqq=kill", "`troth failpoints` lists them"),
        ("p1:commit:before-receive=error", "error makes no sense there; kill, stop, delay, drop, duplicate, note do"),
        ("p1:apply:after-flush=full", "full makes no sense there"),
        ("p2:commit", "is not WHO:WHAT:WHEN"),
    ],
)
def test_a_text_that_cannot_be_meant_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="(?s).*" + why.replace("(", r"\(").replace("?", r"\?")):
        Failpoints("p1", FAILPOINTS, text)


def test_a_rule_says_when_it_strikes() -> None:
    rule = Rule("p1:commit:before-receive=drop@2x3")
    assert [rule.strikes() for _ in range(6)] == [False, True, True, True, False, False]
    assert [Rule("p1:commit:before-receive=kill").strikes() for _ in range(1)] == [True]


def test_rules_are_for_a_role_or_for_one_process() -> None:
    arm("p2:commit:before-receive=drop, coordinator:commit:before-send=drop")
    assert received(2) == [1, 2]
    arm("participant:commit:before-receive=drop\np1:commit:before-receive=duplicate@2")
    assert received(3) == [2, 2, 3]


def test_every_point_is_named_once_and_can_be_told_to_do_each_of_its_actions() -> None:
    names = list(map(str, FAILPOINTS))
    assert len(set(names)) == len(names)
    for point in FAILPOINTS:
        for action in point.actions:
            Failpoints("p1", FAILPOINTS, f"{point}={action.value}{'(1)' if action is Action.DELAY else ''}")


# Streams.


def test_off_everything_goes_on() -> None:
    messages = commits(1)
    assert asyncio.run(failpoints.through("before-send", messages)) is messages
    asyncio.run(failpoints.call("before-receive", Commit))


def test_a_message_is_lost_or_goes_twice_and_others_keep_their_order() -> None:
    arm("p1:commit:before-receive=drop@2,p1:prepare:before-receive=duplicate")
    prepare = Prepare(4, b"", False, ())
    passed = asyncio.run(failpoints.through("before-receive", [*commits(1, 2, 3), prepare, *commits(5)]))
    assert [message.number for message in passed] == [1, 3, 4, 4, 5]


def test_a_delay_holds_the_stream_and_nothing_else() -> None:
    arm("p1:commit:before-receive=delay(0.2)")

    async def both() -> list[str]:
        order: list[str] = []

        async def stream() -> None:
            await failpoints.through("before-receive", commits(1))
            order.append("stream")

        async def other() -> None:
            order.append("other")

        await asyncio.gather(stream(), other())
        return order

    assert asyncio.run(both()) == ["other", "stream"]


def test_a_call_that_is_lost_is_never_done() -> None:
    arm("p1:peer-asked:before-receive=drop")

    async def lost() -> None:
        from participant.events import PeerAsked

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(failpoints.call("before-receive", PeerAsked), 0.05)
        await failpoints.call("before-receive", PeerAsked)

    asyncio.run(lost())


# Files.


def test_a_file_is_read_anew_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "failpoints"
    arm(f"@{file}")
    assert received(1) == [1]

    def write(text: str) -> None:
        new = tmp_path / "new"
        new.write_text(text)
        new.replace(file)

    write("p1:commit:before-receive=drop\n")
    assert received(2) == [2], "counted anew"
    write("p1:commit:before-receive=nonsense")
    assert received(1) == [1], "what cannot be meant is told in the log, and arms nothing"
    write("p1:commit:before-receive=duplicate")
    assert received(1) == [1, 1]


# The disk.


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.execute("CREATE TABLE t (x)")
    made.execute("BEGIN")
    made.execute("INSERT INTO t VALUES (1)")
    yield made
    made.close()


TRY = Try.__new__(Try, *[None] * len(Try._fields))
APPLY = Apply.__new__(Apply, *[None] * len(Apply._fields))


@pytest.mark.parametrize(("when", "rows"), [("before", 0), ("after", 1)])
def test_a_failed_flush_is_an_error_of_sqlite_with_all_or_nothing_in_the_file(
    connection: sqlite3.Connection, when: str, rows: int
) -> None:
    arm(f"p1:apply:{when}-flush=error")
    with pytest.raises(sqlite3.OperationalError) as failed, failpoints.flush(connection, [TRY, APPLY]):
        connection.execute("COMMIT")
    assert failed.value.sqlite_errorcode == sqlite3.SQLITE_IOERR_FSYNC
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (rows,)


def test_a_full_disk_is_sqlites_own_word(connection: sqlite3.Connection) -> None:
    arm("p1:try:before-flush=full")
    with pytest.raises(sqlite3.OperationalError) as failed, failpoints.flush(connection, [TRY]):
        pytest.fail("the commit must not be reached")
    assert failed.value.sqlite_errorcode == sqlite3.SQLITE_FULL


def test_a_slow_disk_holds_the_flush(connection: sqlite3.Connection) -> None:
    arm("p1:try:before-flush=delay(0.05)")
    began = time.monotonic()
    with failpoints.flush(connection, [TRY, TRY]):
        pass
    assert time.monotonic() - began >= 0.05


# Processes.


def armed(new_cluster: NewCluster, text: str) -> Cluster:
    return new_cluster(2, schema=SCHEMA, env={**SOON, "TROTH_FAILPOINTS": text})


def test_a_bad_text_is_a_configuration_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "troth", "participant", "--name", "p1", "--data", str(tmp_path), "--listen"]
    env = {**os.environ, "TROTH_FAILPOINTS": "p1:commit:before-recieve=kill"}
    ended = subprocess.run([*command, "127.0.0.1:0"], env=env, capture_output=True, text=True, timeout=30)
    assert ended.returncode == EXIT_USAGE
    assert "TROTH_FAILPOINTS" in ended.stderr
    assert "did you mean commit:before-receive?" in ended.stderr
    assert not list(tmp_path.iterdir()), "nothing was opened"


def test_a_process_kills_itself_at_its_point_and_says_so(new_cluster: NewCluster) -> None:
    """Opening the accounts is the first transaction; the second commit kills p1 before it has it."""
    with armed(new_cluster, "p1:commit:before-receive=kill@2") as cluster:
        open_accounts(cluster)
        assert submit(cluster, move()).outcome == Outcome.COMMITTED
        assert cluster["p1"].wait() == -signal.SIGKILL
        assert "point=p1:commit:before-receive" in cluster.log("p1")
        assert "failpoints are set" in cluster.log("p2")
        cluster.start("p1")
        cluster.wait_settled()
        wait_balances(cluster, 70, 130)


def test_a_process_stops_itself_until_somebody_lets_it_go_on(new_cluster: NewCluster) -> None:
    with armed(new_cluster, "p2:voted:before-send=stop@2") as cluster:
        open_accounts(cluster)
        waiting = submitting(cluster, move())
        stat = Path(f"/proc/{cluster['p2'].pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "p2 stopped")
        assert not waiting.done()
        cluster.resume("p2")
        assert waiting.result().outcome == Outcome.COMMITTED


@pytest.mark.parametrize(
    ("rule", "said"), [("error", "disk I/O error"), ("full", "no space left")], ids=["error", "full"]
)
def test_a_disk_that_fails_ends_the_process_and_nobody_is_told(new_cluster: NewCluster, rule: str, said: str) -> None:
    """DESIGN section 4: a failed commit is unknown. Here nothing of the decision is in the file, so it is an abort."""
    with armed(new_cluster, f"coordinator:committed:before-flush={rule}@2") as cluster:
        open_accounts(cluster)
        waiting = submitting(cluster, move(id="order-1"))
        assert cluster[COORDINATOR].wait() == EXIT_LOG_FAILED
        broken(waiting)
        assert said in cluster.log(COORDINATOR)
        cluster.start(COORDINATOR)
        cluster.wait_settled()
        assert balances(cluster) == (100, 100)
        assert submit(cluster, move(id="order-1")).outcome == Outcome.COMMITTED


def test_a_disk_that_fails_at_the_start_ends_it_with_the_same_code(new_cluster: NewCluster) -> None:
    """The epoch is forced before anything is sent or answered."""
    cluster = armed(new_cluster, "coordinator:epoch:before-flush=error")
    with pytest.raises(Ended) as ended:
        cluster.start(COORDINATOR)
    assert ended.value.code == EXIT_LOG_FAILED
    assert "Traceback" not in ended.value.log


def test_a_prepare_that_is_lost_is_not_sent_again_on_its_lane(new_cluster: NewCluster) -> None:
    """Rule 4: without all votes by the deadline the attempt is aborted; the transaction is tried again as a new one."""
    cluster = armed(new_cluster, "coordinator:prepare:before-send=drop@4")
    cluster.env["TROTH_COORDINATOR_VOTE_TIMEOUT"] = "300ms"
    with cluster:
        open_accounts(cluster)
        result = submit(cluster, move())
        assert (result.outcome, result.attempts) == (Outcome.COMMITTED, 2)
        counts = cluster.counters()
        assert counts["p1"].received["prepare"] == 3
        assert counts["p2"].received["prepare"] == 2, "one was lost"
        assert counts[COORDINATOR].sent["prepare"] == 5
        wait_balances(cluster, 70, 130)


def test_a_submission_that_is_lost_was_never_made(new_cluster: NewCluster) -> None:
    with armed(new_cluster, "coordinator:submitted:before-receive=drop@2") as cluster:
        open_accounts(cluster)
        waiting = submitting(cluster, move(id="order-1"), within_s=0.5)
        broken(waiting)
        assert submit(cluster, move(id="order-1")).attempts == 1
        assert submit(cluster, move(id="order-1")).attempts == 0, "answered from the log"
        wait_balances(cluster, 70, 130)
