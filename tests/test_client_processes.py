"""The client library, asyncio and blocking, and reading, against a real cluster."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.cluster import COORDINATOR, Cluster
from tests.submitting import (
    begun,
    cluster_for_module,
    committed,
    go,
    objects,
    refused_with,
    submit,
    submitting,
    troth_here,
    undecided,
    wait_in_doubt,
    wait_locks,
)
from tests.submitting import troth as cli
from troth import Aborted, Client, Outcome, OutcomeUnknown, Refused, Result, Transaction, Unreachable, connect, new_id
from troth.process.addresses import free_ports
from troth.sync import connect as connect_sync
from troth.v1 import coordinator_pb2 as pb
from troth.values import Scalar

SCHEMA = """
CREATE TABLE accounts (name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0)) STRICT;
CREATE TABLE kinds (n INTEGER PRIMARY KEY, t TEXT, r REAL, b BLOB, yes BOOLEAN, void TEXT);
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_for_module(tmp_path_factory, participants=2, schema=SCHEMA) as found:
        yield found


@pytest.fixture
def name(cluster: Cluster) -> str:
    """An account at both participants, with 100 each."""
    name = new_id()
    opened = Transaction().at("p1").insert("accounts", name, {"balance": 100})
    committed(cluster, opened.at("p2").insert("accounts", name, {"balance": 100}))
    return name


def transfer(name: str, id: str | None = None, amount: int = 1) -> Transaction:
    moved = Transaction(id, timeout_s=20).at("p1").add("accounts", name, "balance", -amount)
    return moved.at("p2").add("accounts", name, "balance", amount)


def balances(cluster: Cluster, name: str) -> tuple[int, int]:
    """At p1 and p2, as applied."""
    query = "SELECT balance FROM accounts WHERE name = ?"
    return cluster.rows("p1", query, name)[0][0], cluster.rows("p2", query, name)[0][0]


def with_client(cluster: Cluster, use: Callable[[Client], object]) -> None:
    """Runs the coroutine that `use` makes, with a client."""

    async def main() -> None:
        async with connect(cluster[COORDINATOR].address, timeout_s=10) as client:
            await use(client)  # type: ignore[misc]

    asyncio.run(main())


# asyncio.


def test_rows_come_back_with_the_types_of_their_columns(cluster: Cluster) -> None:
    values: dict[str, Scalar] = {"t": "grün/%2F", "r": -0.5, "b": b"\0\xff", "yes": True, "void": None}

    async def use(client: Client) -> None:
        await client.submit(Transaction().at("p1").insert("kinds", 2**62, values))
        reading = Transaction().at("p2").read("kinds", 1).at("p1").read("kinds", str(2**62))
        result = await client.submit(reading)
        by_participant = {row.participant: row for row in result.rows}
        assert by_participant["p1"].values == {"n": 2**62, **values}
        assert by_participant["p1"]["yes"] is True
        assert by_participant["p1"].key == (2**62,)
        assert (by_participant["p2"].present, by_participant["p2"].position) == (False, 0)
        again = await client.submit(reading)
        assert (again.rows, again.rows_not_kept) == ((), True)
        assert (await client.read("p1", "kinds", 2**62)).values == {"n": 2**62, **values}

    with_client(cluster, use)


def test_a_read_sees_what_the_operations_before_it_do(cluster: Cluster, name: str) -> None:
    """Operations run in the order given, in the branch's own transaction."""
    order = Transaction().at("p1").read("accounts", name).update("accounts", name, {"balance": 5})
    order.read("accounts", name).delete("accounts", name).read("accounts", name).at("p2").read("accounts", name)
    rows = {row.position: row.values and row["balance"] for row in submit(cluster, order).rows}
    assert rows == {0: 100, 2: 5, 4: None, 5: 100}


def test_submit_raises_aborted_and_refused_with_their_reasons(cluster: Cluster, name: str) -> None:
    async def use(client: Client) -> None:
        with pytest.raises(Aborted) as aborted:
            await client.submit(transfer(name, amount=101))
        reason = aborted.value.reason
        assert (reason.participant, reason.table, reason.column) == ("p1", "accounts", "balance")
        assert (reason.required.integer, reason.found.integer, reason.operation) == (0, 100, 0)
        done = transfer(name)
        assert (await client.submit(done, wait_applied=True)).outcome is Outcome.COMMITTED
        with pytest.raises(Refused) as refused:
            await client.submit(transfer(name, done.id, amount=2))
        assert refused.value.id == done.id
        fenced = await client.abort("never heard of " + name)
        assert fenced.outcome is Outcome.ABORTED

    with_client(cluster, use)
    assert balances(cluster, name) == (99, 101)


def test_a_lost_connection_is_unknown_and_the_same_transaction_again_has_the_same_outcome(
    cluster: Cluster, name: str
) -> None:
    """Rule 10. The client is the same one all the while: it connects again by itself."""
    moved = transfer(name)

    async def use(client: Client) -> None:
        cluster.pause("p2")
        under_way = asyncio.create_task(client.submit(moved))
        await asyncio.to_thread(wait_in_doubt, cluster, "p1")
        cluster.kill(COORDINATOR)
        with pytest.raises(OutcomeUnknown) as unknown:
            await under_way
        assert (unknown.value.id, unknown.value.sent) == (moved.id, True)
        cluster.start(COORDINATOR)
        cluster.resume("p2")
        result = await client.submit(moved, wait_applied=True)
        assert (result.outcome, result.id, result.applied) == (Outcome.COMMITTED, moved.id, True)
        assert (await client.submit(moved)).outcome is Outcome.COMMITTED
        found = await client.wait(moved.id, applied=True)
        assert found.state == pb.STATE_COMMITTED

    with_client(cluster, use)
    assert balances(cluster, name) == (99, 101)


def test_ask_again_rides_over_a_restart(cluster: Cluster, name: str) -> None:
    async def use(client: Client) -> None:
        cluster.pause("p2")
        under_way = asyncio.create_task(client.submit(transfer(name), wait_applied=True, ask_again_s=20))
        await asyncio.to_thread(wait_in_doubt, cluster, "p1")
        cluster.kill(COORDINATOR)
        cluster.resume("p2")
        cluster.start(COORDINATOR)
        assert (await under_way).outcome is Outcome.COMMITTED

    with_client(cluster, use)
    assert balances(cluster, name) == (99, 101)


def test_submit_many_answers_each_once_through_a_crash_and_money_is_kept(cluster: Cluster) -> None:
    names = [new_id() for _ in range(20)]
    opened = Transaction()
    for name in names:
        opened.at("p1").insert("accounts", name, {"balance": 30}).at("p2").insert("accounts", name, {"balance": 30})
    committed(cluster, opened)
    dice = random.Random(17)
    moves = {}
    for _ in range(400):
        moved = transfer(dice.choice(names), amount=dice.randint(1, 5))
        moves[moved.id] = moved
    outcomes: dict[str, Result] = {}

    async def use(client: Client) -> None:
        async for result in client.submit_many(moves.values(), in_flight=50, wait_applied=True, ask_again_s=30):
            assert result.id not in outcomes
            outcomes[result.id] = result
            if len(outcomes) == 100:
                cluster.kill(COORDINATOR)
                cluster.start(COORDINATOR)

    with_client(cluster, use)
    assert outcomes.keys() == moves.keys()
    counts = Counter(refused_with(result) for result in outcomes.values())
    assert counts.keys() <= {("COMMITTED", ""), ("ABORTED", "below_min")}, counts
    spent: Counter[str] = Counter()
    for id, moved in moves.items():
        if outcomes[id].outcome is Outcome.COMMITTED:
            operation = moved.operations[1][1]
            spent[operation.key[0].text] += operation.add.by.integer
    cluster.wait_settled()
    for name in names:
        assert balances(cluster, name) == (30 - spent[name], 30 + spent[name])


def test_submit_many_raises_nothing_per_item(cluster: Cluster, name: str) -> None:
    huge = Transaction().at("p1").insert("accounts", "x" * (5 << 20), {"balance": 1})
    bad = {
        "REFUSED unknown_participant": Transaction().at("p9").read("accounts", name),
        "REFUSED too_large": huge,
        "REFUSED bad_request": Transaction(),
        "ABORTED no_such_table": Transaction().at("p1").read("nothing", 1),
        "COMMITTED ": transfer(name),
    }

    async def use(client: Client) -> None:
        found = {result.id: result async for result in client.submit_many(bad.values())}
        for what, transaction in bad.items():
            assert " ".join(refused_with(found[transaction.id])) == what

    with_client(cluster, use)


async def next_of(found: AsyncIterator[pb.Transaction]) -> pb.Transaction:
    return await anext(found)


def test_watch_and_list_and_status(cluster: Cluster, name: str) -> None:
    async def use(client: Client) -> None:
        watching = aiter(client.watch())
        first: asyncio.Task[pb.Transaction] = asyncio.create_task(next_of(watching))
        sent = set()
        while not first.done():
            sent.add((await client.submit(transfer(name), wait_applied=True)).id)
        assert (await first).id in sent
        assert (await client.list(1))[0].id in sent
        assert (await client.status()).serving
        assert await client.unresolved() == []

    with_client(cluster, use)


def test_an_address_where_nobody_listens_is_unreachable() -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"

    async def main() -> None:
        async with connect(address, wait_s=0.2):
            pass

    with pytest.raises(Unreachable, match=address):
        asyncio.run(main())


# Blocking.


def test_the_blocking_client_is_the_same_without_await(cluster: Cluster, name: str) -> None:
    moved = transfer(name)
    with connect_sync(cluster[COORDINATOR].address, wait_s=1) as client:
        assert client.submit(moved, wait_applied=True).outcome is Outcome.COMMITTED
        cluster.kill(COORDINATOR)
        with pytest.raises(OutcomeUnknown):
            client.submit(moved)
        cluster.start(COORDINATOR)
        assert client.submit(moved, wait_applied=True).outcome is Outcome.COMMITTED
        with pytest.raises(Refused):
            client.submit(transfer(name, moved.id, amount=9))
        with pytest.raises(Aborted):
            client.submit(transfer("nobody"))
        assert client.read("p2", "accounts", name)["balance"] == 101
        many = [transfer(name) for _ in range(20)]
        assert {result.outcome for result in client.submit_many(many, wait_applied=True)} == {Outcome.COMMITTED}
        assert client.get(many[0].id).state == pb.STATE_COMMITTED
    assert balances(cluster, name) == (79, 121)


# Reading.


def test_a_read_only_transaction_writes_nothing_anywhere(cluster: Cluster, name: str) -> None:
    """READ_ONLY from everybody and an id of the coordinator's: no record."""
    before = {at: (counters.forced, counters.lazy) for at, counters in cluster.counters().items()}
    reading = Transaction().at("p1").read("accounts", name).at("p2").check("accounts", name, "balance", equals=100)
    result = submit(cluster, reading, assigned=True)
    assert (result.outcome, result.rows[0]["balance"]) == (Outcome.COMMITTED, 100)
    assert {at: (counters.forced, counters.lazy) for at, counters in cluster.counters().items()} == before


def test_read_waits_for_a_locked_row_and_no_wait_does_not(cluster: Cluster, name: str) -> None:
    row = f"accounts/{name}"
    waiting = begun(cluster, "read", "p1", row)
    with undecided(cluster, transfer(name)) as under_way:
        past = troth_here(cluster, "read", "p1", row, "--no-wait", "--json")
        assert (past.returncode, objects(past.stdout)[0]["values"]["balance"]) == (0, 100)
        given_up = troth_here(cluster, "read", "p1", row, "--timeout", "200ms")
        assert given_up.returncode == 3
        assert "is ABORTED" in given_up.stderr
        go(waiting)
        wait_locks(cluster, "p1", waiting=1)
        assert waiting.poll() is None
    assert under_way.result().outcome is Outcome.COMMITTED
    said, _ = waiting.communicate(timeout=20)
    assert (waiting.returncode, said) == (0, f"p1 {row} name={name} balance=99\n")


def test_readers_share_a_row_and_a_writer_waits_for_them(cluster: Cluster, name: str) -> None:
    """Rule 9: a READ_ONLY voter keeps its shared locks until it is told."""
    reading = Transaction().at("p1").read("accounts", name).at("p2").add("accounts", name, "balance", 1)
    with undecided(cluster, reading) as under_way:
        assert submit(cluster, Transaction().at("p1").read("accounts", name)).rows[0]["balance"] == 100
        writing = submitting(cluster, Transaction().at("p1").update("accounts", name, {"balance": 5}))
        wait_locks(cluster, "p1", waiting=1)
        assert not writing.done
    result = under_way.result()
    assert (result.outcome, result.rows[0]["balance"]) == (Outcome.COMMITTED, 100)
    assert writing.result().outcome is Outcome.COMMITTED


def test_a_transaction_that_reads_both_never_sees_half_of_another(cluster: Cluster, name: str) -> None:
    moving = [submitting(cluster, transfer(name)) for _ in range(60)]
    sums = []
    while not all(each.done for each in moving):
        reading = Transaction().at("p1").read("accounts", name).at("p2").read("accounts", name)
        sums.append(sum(int(row["balance"] or 0) for row in submit(cluster, reading).rows))
    assert set(sums) <= {200}
    assert {each.result().outcome for each in moving} == {Outcome.COMMITTED}
    assert balances(cluster, name) == (40, 160)


READS = {
    # Arguments; exit code with the row's lock, and without it.
    "absent": (("p1", "accounts/nobody"), 1, 1),
    "unknown table": (("p1", "nothing/1"), 3, 2),
    "wrong key": (("p1", "kinds/x"), 3, 2),
    "unknown participant": (("p9", "accounts/x"), 3, 2),
    "not a row": (("p1", "accounts"), 2, 2),
}


@pytest.mark.parametrize("what", READS)
def test_read_exits_by_what_it_found(cluster: Cluster, what: str) -> None:
    arguments, waiting, at_once = READS[what]
    assert cli(cluster, "read", *arguments).returncode == waiting
    assert cli(cluster, "read", *arguments, "--no-wait").returncode == at_once
