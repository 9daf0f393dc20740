"""A YES is always applicable: what a trial alone cannot see is locked (DESIGN section 3)."""

from __future__ import annotations

import random
import secrets

from faults.conformance.check import Needs, check, require
from faults.conformance.target import Target
from faults.conformance.texts import vote_text
from faults.conformance.work import BOUNDED, CHILD, PARENT, UNIQUE, Row
from troth import operations as op
from troth.messages import Acknowledged, Voted
from troth.v1.types_pb2 import Operation
from troth.words import Vote

BRANCHES = 40


@check("locks", "UNIQUE: two branches with one value do not both get YES.", Needs.CONSTRAINTS)
def a_unique_value_is_locked(t: Target) -> None:
    mark = secrets.token_hex(8)
    first = t.yes(op.insert(UNIQUE, t.table.key(UNIQUE), {"mark": mark}))
    second = t.prepare(op.insert(UNIQUE, t.table.key(UNIQUE), {"mark": mark})).number
    t.not_yes(second, "no YES for the value of a pending insert")
    t.commit(first)
    voted = t.lane.inbox.there(Voted, second) or t.vote(second)
    require(voted.vote is Vote.NO, "NO, for the value is there now", vote_text(voted))


@check("locks", "UNIQUE: other values, and NULL, do not wait for each other.", Needs.CONSTRAINTS)
def other_unique_values_are_free(t: Target) -> None:
    marks = (secrets.token_hex(8), secrets.token_hex(8), None, None)
    for number in [t.yes(op.insert(UNIQUE, t.table.key(UNIQUE), {"mark": mark})) for mark in marks]:
        t.commit(number)


@check("locks", "CHECK: two adds that only together break it do not both get YES.", Needs.CONSTRAINTS)
def a_check_is_a_bound(t: Target) -> None:
    row = Row(BOUNDED, t.table.key(BOUNDED), "n")
    t.apply(row.insert(100))
    first = t.yes(row.add(-60))
    t.not_yes(t.prepare(row.add(-60)).number, "no YES: both together break CHECK (n >= 0)")
    t.commit(first)
    require(t.number_in(row) == 40, "40", t.number_in(row))


@check("locks", "Foreign keys: a parent that a pending branch refers to is not deleted.", Needs.CONSTRAINTS)
def a_parent_is_locked_by_its_child(t: Target) -> None:
    parent = t.table.key(PARENT)
    t.apply(op.insert(PARENT, parent))
    child = t.yes(op.insert(CHILD, t.table.key(CHILD), {"parent": parent}))
    t.not_yes(t.prepare(op.delete(PARENT, parent)).number, "no YES for deleting the parent")
    t.commit(child)


@check("locks", "Foreign keys: a child does not refer to a parent whose delete is pending.", Needs.CONSTRAINTS)
def a_child_waits_for_its_parents_delete(t: Target) -> None:
    parent = t.table.key(PARENT)
    t.apply(op.insert(PARENT, parent))
    delete = t.yes(op.delete(PARENT, parent))
    child = op.insert(CHILD, t.table.key(CHILD), {"parent": parent})
    t.not_yes(t.prepare(child).number, "no YES for a child of a row that is being deleted")
    t.commit(delete)


@check("locks", "A missing parent, a broken CHECK and a NULL that may not be get NO.", Needs.CONSTRAINTS)
def what_a_constraint_forbids_is_no(t: Target) -> None:
    bad = (
        op.insert(CHILD, t.table.key(CHILD), {"parent": t.table.key(PARENT)}),
        op.insert(BOUNDED, t.table.key(BOUNDED), {"n": -1}),
        op.insert(BOUNDED, t.table.key(BOUNDED), {"n": None}),
    )
    for operation in bad:
        voted = t.votes_no(t.prepare(operation).number)
        require(voted.reason and voted.reason.code, "a reason", vote_text(voted))


@check("locks", "Whatever gets YES side by side can be committed, in any order.", Needs.CONSTRAINTS)
def every_yes_is_applicable(t: Target) -> None:
    seed = secrets.randbelow(2**32)
    chance = random.Random(seed)
    row = Row(BOUNDED, t.table.key(BOUNDED), "n")
    t.apply(row.insert(50))
    branches = _random_branches(t, row, chance)
    open_ = {prepare.number: i for i, prepare in enumerate(t.prepare_each(*(each for each, _, _ in branches)))}
    committed = []
    while open_:
        votes = [t.next_vote(), *t.lane.inbox.take_all(Voted)]
        yes = [voted.number for voted in votes if voted.vote is Vote.YES]
        chance.shuffle(yes)
        t.decide(*yes)
        for number in yes:
            t.take(Acknowledged, number, f"an acknowledgement of each YES (seed {seed})")
        ended = [(voted, open_.pop(voted.number)) for voted in votes]
        committed += [branches[i] for voted, i in ended if voted.vote is Vote.YES]
    total = 50 + sum(by for _, by, _ in committed)
    require(t.number_in(row) == total, f"{total} (seed {seed})", t.number_in(row))
    marks = [mark for _, _, mark in committed if mark]
    require(len(marks) == len(set(marks)), f"each unique value once (seed {seed})", sorted(marks))


def _random_branches(t: Target, row: Row, chance: random.Random) -> list[tuple[Operation, int, str]]:
    """Adds that press on a bound, and inserts of few values; with what each adds, and the value it inserts."""
    run = secrets.token_hex(8)
    branches = []
    for _ in range(BRANCHES):
        if chance.random() < 0.7:
            by = chance.randint(-30, 20)
            branches.append((row.add(by), by, ""))
        else:
            mark = f"{run}-{chance.randrange(6)}"
            branches.append((op.insert(UNIQUE, t.table.key(UNIQUE), {"mark": mark}), 0, mark))
    return branches
