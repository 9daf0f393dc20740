"""A YES is always applicable: constraints that two branches with different keys would break only at their apply.

Each was reproduced with row locks alone: both branches tried, both said YES, and the later apply failed. Here the first
is prepared and undecided (the other participant is silent) while the second one asks. No false YES: one commits, the
other waits and is then aborted with the right reason, or is aborted at once; nobody's process ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.cluster import Cluster
from tests.submitting import (
    cluster_for_module,
    committed,
    refused_with,
    submit,
    submitting,
    undecided,
    wait_locks,
)
from troth import operations as op
from troth.operations import Transaction
from troth.v1.coordinator_pb2 import AbortRequest
from troth.v1.types_pb2 import Operation
from troth.words import Outcome

SCHEMA = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, nick TEXT, city TEXT, UNIQUE (nick, city)
) STRICT;
CREATE TABLE accounts (
    name TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0 AND balance <= 1000)
) STRICT;
CREATE TABLE pairs (name TEXT PRIMARY KEY NOT NULL, a INTEGER NOT NULL, b INTEGER NOT NULL, CHECK (a + b >= 0)) STRICT;
CREATE TABLE orders (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL REFERENCES users (id)) STRICT;
CREATE TABLE ticks (id INTEGER PRIMARY KEY) STRICT;
"""

_numbers = itertools.count(1000)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_for_module(tmp_path_factory, participants=2, schema=SCHEMA) as found:
        pids = {name: process.pid for name, process in found.processes.items()}
        yield found
        assert {name: found.status(name).pid for name in pids} == pids, "a process ended and was started again"
        assert {name: counters.alarms for name, counters in found.counters().items()} == dict.fromkeys(pids, 0)


@pytest.fixture
def n() -> int:
    """The first of ten numbers that no other test uses."""
    return next(_numbers) * 10


def at_both(*operations: Operation) -> Transaction:
    """The operations at p1, and something at p2 so that p2 has a vote too."""
    transaction = Transaction()
    for operation in operations:
        transaction.append("p1", operation)
    return transaction.append("p2", op.insert("ticks", next(_numbers)))


def user(id: int, email: object, **values: object) -> Operation:
    return op.insert("users", id, {"email": str(email), **values})  # type: ignore[dict-item]


class Clash(NamedTuple):
    """Two branches that cannot both be applied."""

    there: list[Operation]
    """Committed before."""
    first: Operation
    second: Operation
    code: str
    """What the second one hears when the first has committed."""


def clashes(n: int) -> dict[str, Clash]:
    a, b = n, n + 1
    return {
        "UNIQUE, two inserts": Clash([], user(a, n), user(b, n), "unique"),
        "UNIQUE, insert and update": Clash(
            [user(b, f"{n}-b")], user(a, n), op.update("users", b, {"email": str(n)}), "unique"
        ),
        "UNIQUE, update and upsert": Clash(
            [user(a, f"{n}-a")],
            op.update("users", a, {"email": str(n)}),
            op.upsert("users", b, {"email": str(n)}),
            "unique",
        ),
        "UNIQUE of two columns": Clash(
            [], user(a, f"{n}-a", nick=str(n), city="x"), user(b, f"{n}-b", nick=str(n), city="x"), "unique"
        ),
        "UNIQUE of two columns, one of them not named": Clash(
            [user(b, f"{n}-b", nick=str(n), city="y")],
            user(a, f"{n}-a", nick=str(n), city="x"),
            op.update("users", b, {"city": "x"}),
            "unique",
        ),
        "CHECK, two adds below it": Clash(
            [op.insert("accounts", f"{n}", {"balance": 100})],
            op.add("accounts", f"{n}", "balance", -60),
            op.add("accounts", f"{n}", "balance", -60),
            "below_min",
        ),
        "CHECK, two adds above it": Clash(
            [op.insert("accounts", f"{n}", {"balance": 900})],
            op.add("accounts", f"{n}", "balance", 60),
            op.add("accounts", f"{n}", "balance", 60),
            "above_max",
        ),
        "CHECK of two columns, an add to each": Clash(
            [op.insert("pairs", f"{n}", {"a": 0, "b": 1})],
            op.add("pairs", f"{n}", "a", -1),
            op.add("pairs", f"{n}", "b", -1),
            "constraint",
        ),
        "a foreign key, its parent is deleted": Clash(
            [user(a, n)], op.delete("users", a), op.insert("orders", b, {"owner": a}), "foreign_key"
        ),
        "a foreign key, its parent is deleted after the child was set": Clash(
            [user(a, n), user(b, f"{n}-b"), op.insert("orders", n, {"owner": b})],
            op.update("orders", n, {"owner": a}),
            op.delete("users", a),
            "foreign_key",
        ),
        "a foreign key, a child is inserted and its parent deleted": Clash(
            [user(a, n)], op.insert("orders", a, {"owner": a}), op.delete("users", a), "foreign_key"
        ),
    }


@pytest.mark.parametrize("one_phase", [False, True])
@pytest.mark.parametrize("case", clashes(0))
def test_of_two_branches_that_clash_one_commits_and_the_other_hears_why(
    cluster: Cluster, n: int, case: str, one_phase: bool
) -> None:
    """The second one waits for the first: its lock is on what the constraint depends on."""
    clash = clashes(n)[case]
    if clash.there:
        committed(cluster, at_both(*clash.there))
    second = Transaction().append("p1", clash.second) if one_phase else at_both(clash.second)
    with undecided(cluster, at_both(clash.first)) as first:
        waiting = submitting(cluster, second)
        wait_locks(cluster, "p1", waiting=1)
        assert not waiting.done
    assert first.result().outcome is Outcome.COMMITTED
    assert refused_with(waiting.result()) == ("ABORTED", clash.code)


@pytest.mark.parametrize("case", clashes(0))
def test_when_the_first_is_aborted_the_second_one_commits(cluster: Cluster, n: int, case: str) -> None:
    clash = clashes(n)[case]
    if clash.there:
        committed(cluster, at_both(*clash.there))
    first = at_both(clash.first)
    with undecided(cluster, first) as under_way:
        waiting = submitting(cluster, at_both(clash.second))
        wait_locks(cluster, "p1", waiting=1)
        cluster.commands.Abort(AbortRequest(id=first.id), timeout=10)
        wait_locks(cluster, "p1", waiting=0)
    assert refused_with(under_way.result()) == ("ABORTED", "aborted_by_request")
    assert waiting.result().outcome is Outcome.COMMITTED


def test_values_that_an_unapplied_delete_frees_are_not_free(cluster: Cluster, n: int) -> None:
    """NO at once, never a false YES: the delete may still be aborted."""
    committed(cluster, at_both(user(n, n)))
    with undecided(cluster, at_both(op.delete("users", n))) as first:
        assert refused_with(submit(cluster, Transaction().append("p1", user(n + 1, n)))) == ("ABORTED", "unique")
    assert first.result().outcome is Outcome.COMMITTED
    committed(cluster, at_both(user(n + 1, n)))


def test_adds_that_keep_every_bound_in_the_worst_case_are_prepared_side_by_side(cluster: Cluster, n: int) -> None:
    """Escrow: increments are compatible, as far as the bounds allow."""
    name = str(n)
    committed(cluster, at_both(op.insert("accounts", name, {"balance": 100})))
    with undecided(cluster, at_both(op.add("accounts", name, "balance", -60))) as first:
        committed(cluster, Transaction().at("p1").add("accounts", name, "balance", -40))
        hopeless = submit(cluster, Transaction().at("p1").add("accounts", name, "balance", -61))
        assert refused_with(hopeless) == ("ABORTED", "below_min")
    assert first.result().outcome is Outcome.COMMITTED
    assert cluster.rows("p1", "SELECT balance FROM accounts WHERE name = ?", name) == [(0,)]


@pytest.mark.parametrize(
    ("values", "code"),
    [({"email": None}, "not_null"), ({"nick": "x"}, "not_null")],
    ids=["NULL is given", "the column is left out"],
)
def test_not_null_is_no_at_the_vote(cluster: Cluster, n: int, values: dict[str, str | None], code: str) -> None:
    for alone in (True, False):
        bad = op.insert("users", n, values)
        result = submit(cluster, Transaction().append("p1", bad) if alone else at_both(bad))
        assert refused_with(result) == ("ABORTED", code)
        assert result.reason is not None
        assert (result.reason.table, result.reason.column) == ("users", "email")


def test_a_crowd_after_the_same_values_leaves_one_winner_each_and_both_participants_agree(
    cluster: Cluster, n: int
) -> None:
    """Different keys everywhere, the same values at both participants, all at once."""
    values, keys = range(5), itertools.count(n * 1000)
    crowd = []
    for _ in range(12):
        for value in values:
            one = user(next(keys), f"{n}-{value}")
            crowd.append((value, submitting(cluster, Transaction().append("p1", one).append("p2", one))))
    results = [(value, each.result()) for value, each in crowd]
    won = sorted(value for value, result in results if result.outcome is Outcome.COMMITTED)
    assert won == list(values)
    others = {refused_with(result) for _, result in results if result.outcome is not Outcome.COMMITTED}
    assert others == {("ABORTED", "unique")}
    rows = [cluster.rows(at, "SELECT id, email FROM users WHERE id >= ? ORDER BY id", n * 1000) for at in ("p1", "p2")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == len(values)
