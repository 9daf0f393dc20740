"""The lock table and escrow: who goes with whom, who waits for whom, and what adds may be pending together."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
from hypothesis import given

from participant.escrow import Escrow, Verdict
from participant.locks import LockTable
from participant.resources import INTEGER_MAX, INTEGER_MIN, Add, Lock, Mode


def shared(name: str) -> Lock:
    return Lock(("row", "t", name), Mode.SHARED)


def exclusive(name: str) -> Lock:
    return Lock(("row", "t", name), Mode.EXCLUSIVE)


def add(by: int, low: int = INTEGER_MIN, high: int = INTEGER_MAX, column: str = "v") -> Add:
    return Add(column, by, low, high, 0)


def increment(name: str, *adds: Add) -> Lock:
    return Lock(("row", "t", name), Mode.INCREMENT, adds)


def test_shared_goes_with_shared_and_nothing_else() -> None:
    table = LockTable()
    assert table.request(1, [shared("x")]).ready == [1]
    assert table.request(2, [shared("x")]).ready == [2]
    assert table.request(3, [exclusive("x")]).ready == []
    assert table.request(4, [shared("x")]).ready == [], "nobody overtakes"
    assert table.release(1, applied=False).ready == []
    assert table.release(2, applied=False).ready == [3]
    assert table.release(3, applied=True).ready == [4]


def test_all_locks_in_one_step_no_deadlock() -> None:
    table = LockTable()
    assert table.request(1, [exclusive("x")]).ready == [1]
    assert table.request(2, [exclusive("y"), exclusive("x")]).ready == []
    assert table.request(3, [exclusive("y")]).ready == []
    assert table.blockers(3) == [(("row", "t", "y"), [2])], "2 holds y while it waits for x"
    assert table.release(1, applied=True).ready == [2]
    assert table.release(2, applied=True).ready == [3]
    table.release(3, applied=True)
    assert not list(table.listing())


def test_the_first_add_loads_the_value_and_others_join_it() -> None:
    table = LockTable()
    name = ("row", "t", "x")
    assert table.request(1, [increment("x", add(-4, 0))]).ready == [1]
    assert table.request(2, [increment("x", add(-4, 0))]).ready == [], "the value is not known yet"
    assert table.request(3, [increment("x", add(-4, 0))]).ready == []
    assert table.learn(1, {(name, "v"): 10}).ready == [2], "10 - 4 - 4 keeps 0; a third could not be sure"
    assert table.release(1, applied=False).ready == [3]


def test_an_add_that_nothing_pending_could_allow_is_hopeless() -> None:
    table = LockTable()
    name = ("row", "t", "x")
    table.request(1, [increment("x", add(5))])
    table.learn(1, {(name, "v"): 1})
    changes = table.request(2, [shared("y"), increment("x", add(-7, 0))])
    assert [owner for owner, _ in changes.hopeless] == [2]
    assert changes.hopeless[0][1].base == 1
    assert 2 not in table
    assert table.request(3, [increment("x", add(-6, 0))]).ready == [], "1 + 5 - 6 may be: it waits"
    assert table.release(1, applied=True).ready == [3]


def test_rule_another_adders_bound_counts_too() -> None:
    """A pending `max` of one branch forbids the unbounded add of another."""
    table = LockTable()
    table.request(1, [increment("x", add(1, high=11))])
    table.learn(1, {(("row", "t", "x"), "v"): 10})
    assert table.request(2, [increment("x", add(5))]).ready == []
    assert table.release(1, applied=True).ready == [2]


def test_a_withdrawn_waiter_lets_others_pass() -> None:
    table = LockTable()
    table.request(1, [shared("x")])
    table.request(2, [exclusive("x")])
    table.request(3, [shared("x")])
    assert table.release(2, applied=False).ready == [3]


def test_a_prepared_branch_takes_its_locks_again() -> None:
    table = LockTable()
    name = ("row", "t", "x")
    for owner in (1, 2):
        table.hold(owner, [increment("x", add(-4, 0))], {(name, "v"): 10})
    assert table.request(3, [increment("x", add(-4, 0))]).ready == []
    assert table.release(1, applied=False).ready == [3]


ADDS = st.lists(
    st.builds(
        lambda by, low, high: add(by, low, high),
        st.integers(-5, 5),
        st.one_of(st.just(INTEGER_MIN), st.integers(-6, 4)),
        st.one_of(st.just(INTEGER_MAX), st.integers(4, 14)),
    ),
    min_size=1,
    max_size=3,
)


@given(base=st.integers(0, 8), branches=st.lists(ADDS, min_size=1, max_size=4))
def test_escrow_admits_only_what_every_outcome_keeps(base: int, branches: list[list[Add]]) -> None:
    """Every subset of the admitted branches, in every order, keeps every bound; a hopeless one fails in all of them."""
    escrow = Escrow(base)
    admitted: list[list[Add]] = []
    for owner, adds in enumerate(branches):
        if not admitted and not fits(base, [adds]):
            continue  # the first one is judged by its trial
        verdict = escrow.judge(adds)
        if verdict is Verdict.ADMIT:
            escrow.join(owner, adds)
            admitted.append(adds)
        elif verdict is Verdict.HOPELESS:
            for subset in subsets(admitted):
                assert not fits(base, [*subset, adds])
    for subset in subsets(admitted):
        for order in itertools.permutations(subset):
            assert fits(base, list(order))


def subsets(branches: list[list[Add]]) -> list[tuple[list[Add], ...]]:
    return [chosen for n in range(len(branches) + 1) for chosen in itertools.combinations(branches, n)]


def fits(value: int, branches: list[list[Add]]) -> bool:
    for adds in branches:
        for each in adds:
            value += each.by
            if not each.low <= value <= each.high:
                return False
    return True
