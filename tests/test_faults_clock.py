"""A wall clock that jumps, under real processes (libfaketime): deadlines are monotonic, ids do not expire by a jump,
and the horizon never goes back (DESIGN section 4, rule 11)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.conformance.scripted import LOG, ScriptedParticipant, number
from tests.cluster import COORDINATOR, Cluster, eventually, faketime
from tests.moves import (
    SCHEMA,
    SOON,
    NewCluster,
    attempt,
    balance,
    balances,
    committed,
    doubt,
    flush,
    insert,
    move,
    open_accounts,
    read,
    state,
    submission,
    submit,
    submitting,
    wait_balances,
    wait_ended,
    wait_in_doubt,
    wait_voted,
)
from troth.ids import new_id
from troth.v1 import participant_pb2, types_pb2
from troth.v1.coordinator_pb2 import STATE_COMMITTED
from troth.v1.types_pb2 import Code
from troth.words import Outcome

pytestmark = pytest.mark.needs_faketime

DAY_S = 86400.0
JUMPS = pytest.mark.parametrize("jump", ["+10d", "-10d"])
EXPIRING = {**SOON, "TROTH_COORDINATOR_EXPIRE_INTERVAL": "50ms"}


class Clock:
    """The wall clock of the processes of one cluster."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file = file
        self.env = faketime(library, file)
        self.set("+0")

    def set(self, offset: str) -> None:
        self._file.write_text(offset)


@pytest.fixture
def clock(tmp_path: Path, faketime_library: Path) -> Clock:
    return Clock(tmp_path / "clock", faketime_library)


@pytest.fixture
def with_clock(new_cluster: NewCluster, clock: Clock) -> Callable[..., Cluster]:
    """Makes a cluster whose processes go by that clock."""

    def make(env: dict[str, str] = SOON) -> Cluster:
        return new_cluster(participants=2, schema=SCHEMA, env={**env, **clock.env})

    return make


@contextmanager
def coordinator_with_clock(new_cluster: NewCluster, clock: Clock) -> Iterator[Cluster]:
    """Only the coordinator goes by that clock, and looks for answers to drop all the time."""
    cluster = new_cluster(participants=2, schema=SCHEMA, env=EXPIRING)
    cluster.start("p1", "p2")
    cluster.start(COORDINATOR, env=clock.env)
    cluster.wait_lanes()
    open_accounts(cluster)
    yield cluster


def restart_coordinator(cluster: Cluster, clock: Clock, offset: str) -> None:
    clock.set(offset)
    cluster.kill(COORDINATOR)
    cluster.start(COORDINATOR, env=clock.env)
    cluster.wait_lanes()
    looked_through(cluster)


def test_the_clock_of_the_processes_does_jump(with_clock: Callable[..., Cluster], clock: Clock) -> None:
    """Else the tests below say nothing."""
    with with_clock() as cluster:
        clock.set("+10d")
        cluster.restart("p1")
        serving = cluster.log("p1").splitlines()[-2]
        assert time.strftime("%Y-%m-%d", time.gmtime(time.time() + 10 * DAY_S)) in serving


@JUMPS
def test_a_deadline_comes_when_it_must_and_not_by_a_jump(
    with_clock: Callable[..., Cluster], clock: Clock, jump: str
) -> None:
    """DESIGN section 4: deadlines are monotonic. A jump ahead ends nothing early, a jump back holds nothing up."""
    with with_clock() as cluster:
        open_accounts(cluster)
        cluster.kill("p2")
        patient = submitting(cluster, move(10, id="patient", timeout_s=30))
        short = submitting(cluster, move(20, id="short", timeout_s=0.5))
        clock.set(jump)
        assert short.result().reason.code == Code.CODE_UNREACHABLE
        assert not patient.done()
        clock.set("+0")
        cluster.start("p2")
        assert patient.result().outcome == Outcome.COMMITTED
        wait_balances(cluster, 90, 110)


@JUMPS
def test_a_lock_is_waited_for_by_the_monotonic_clock(
    with_clock: Callable[..., Cluster], clock: Clock, jump: str
) -> None:
    env = {**SOON, "TROTH_PARTICIPANT_LOCK_TIMEOUT": "300ms"}
    cluster = with_clock(env)
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        held = submitting(cluster, move(timeout_s=30))
        prepare = p2.take_prepare()
        wait_in_doubt(cluster, "p1")
        reader = participant_pb2.PrepareRequest(
            attempt=attempt(LOG, number(1)), operations=types_pb2.Operations(operations=[read("alice")])
        )
        waiting = cluster.branches("p1").Prepare.future(reader, timeout=20)
        clock.set(jump)
        voted = waiting.result()
        assert (voted.vote, voted.reason.code) == (types_pb2.VOTE_NO, Code.CODE_LOCK_TIMEOUT)
        assert doubt(cluster, "p1")[0].age_s < DAY_S
        assert not held.done()
        p2.vote(prepare)
        assert held.result().outcome == Outcome.COMMITTED
        p2.acknowledge_commits()
        eventually(lambda: balance(cluster, "p1", "alice") == 70)


@JUMPS
def test_what_is_prepared_ends_right_in_a_life_under_another_clock(
    with_clock: Callable[..., Cluster], clock: Clock, jump: str
) -> None:
    """Inquiries, repeats and marks go by the monotonic clock of each life."""
    cluster = with_clock()
    with ScriptedParticipant("p2", cluster["p2"].address) as p2:
        cluster.start(COORDINATOR, "p1")
        cluster.wait_lanes()
        committed(cluster, submission({"p1": [insert("alice", 100)]}))
        waiting = submitting(cluster, move(id="order-1", timeout_s=30))
        prepare = p2.take_prepare()
        wait_voted(cluster, "p1")
        cluster.kill("p1")
        p2.vote(prepare)
        assert waiting.result().outcome == Outcome.COMMITTED
        cluster.kill(COORDINATOR)
        clock.set(jump)
        cluster.start(COORDINATOR, "p1")
        p2.acknowledge_commits()
        wait_ended(cluster)
        assert balance(cluster, "p1", "alice") == 70


def test_ids_do_not_expire_by_a_jump_while_it_runs(new_cluster: NewCluster, clock: Clock) -> None:
    """Rule 11: the coordinator's wall time runs with the monotonic clock, so a clock that is set drops no answer."""
    with coordinator_with_clock(new_cluster, clock) as cluster:
        ids = [new_id(), "order-1"]
        for id in ids:
            committed(cluster, move(10, id=id, wait_applied=True))
        for offset in ("+10d", "-10d"):
            clock.set(offset)
            looked_through(cluster)
            for id in ids:
                assert state(cluster, id) == STATE_COMMITTED
                assert submit(cluster, move(10, id=id)).outcome == Outcome.COMMITTED
            assert submit(cluster, move(0, id=new_id())).outcome == Outcome.COMMITTED, "a new id runs"
        assert balances(cluster) == (80, 120)


def test_the_horizon_never_goes_back(new_cluster: NewCluster, clock: Clock) -> None:
    """Rule 11: after a life ten days ahead, ids of the time between are refused as expired and never run, for their
    answers may have been dropped then."""
    with coordinator_with_clock(new_cluster, clock) as cluster:
        id = new_id()
        committed(cluster, move(10, id=id, wait_applied=True))
        looked_through(cluster)
        before = horizon(cluster)
        assert abs(before - (time.time() - 7 * DAY_S)) < DAY_S
        restart_coordinator(cluster, clock, "+10d")
        ahead = horizon(cluster)
        assert abs(ahead - (time.time() + 3 * DAY_S)) < DAY_S
        for offset in ("-10d", "+0"):
            restart_coordinator(cluster, clock, offset)
            assert ahead <= horizon(cluster) < ahead + DAY_S
            for expired in (id, new_id()):
                result = submit(cluster, move(10, id=expired))
                assert (result.outcome, result.reason.code) == (Outcome.REFUSED, Code.CODE_ID_EXPIRED)
        assert submit(cluster, move(10, id="an id without a time")).outcome == Outcome.COMMITTED
        wait_balances(cluster, 80, 120)


def looked_through(cluster: Cluster) -> None:
    """Until the coordinator has looked for answers to drop twice more: its log has grown by no transaction."""
    for _ in range(2):
        flush(cluster, COORDINATOR)
        wait_flushes(cluster, cluster.counters(COORDINATOR)[COORDINATOR].flushes + 1)


def wait_flushes(cluster: Cluster, count: int) -> None:
    eventually(lambda: cluster.counters(COORDINATOR)[COORDINATOR].flushes >= count)


def horizon(cluster: Cluster) -> float:
    ((value,),) = cluster.rows(COORDINATOR, "SELECT value FROM troth_meta WHERE key = 'horizon'")
    return float(value)
