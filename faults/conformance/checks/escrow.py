"""Increments: adds to one number go side by side while every bound holds whatever the others do (DESIGN section 3)."""

from __future__ import annotations

from faults.conformance.check import Needs, NotChecked, check, require
from faults.conformance.target import Target
from faults.conformance.texts import vote_text
from troth.messages import Voted
from troth.v1.types_pb2 import Code, Operation
from troth.values import INTEGER_MAX
from troth.words import Vote


@check("locks", "Adds to one number do not wait for each other, and all count.", Needs.TABLE)
def adds_go_together(t: Target) -> None:
    row = t.row()
    first = t.yes(row.add(10))
    second = _beside(t, row.add(-30))
    t.commit(second)
    t.commit(first)
    require(t.number_in(row) == 80, "100 + 10 - 30 = 80", t.number_in(row))


def _beside(t: Target, add: Operation) -> int:
    """An add that gets its YES while another one is pending; its number."""
    number = t.prepare(add).number
    t.settled()
    voted = t.lane.inbox.there(Voted, number)
    if voted is None:
        raise NotChecked("it lets adds wait for each other, which is allowed")
    require(voted.vote is Vote.YES, "the vote YES", vote_text(voted))
    return number


@check(
    "locks",
    "An add waits when pending ones could break its bound, and is decided when they end.",
    Needs.TABLE,
)
def a_bound_counts_what_is_pending(t: Target) -> None:
    for commits, expected in ((True, Vote.NO), (False, Vote.YES)):
        row = t.row()
        first = t.yes(row.add(-60, low=0))
        second = t.prepare(row.add(-60, low=0)).number
        if not t.waits(second, "the second add to wait: only one of them fits"):
            continue
        if commits:
            t.commit(first)
        else:
            t.abort(first)
        voted = t.vote(second)
        require(voted.vote is expected, f"the vote {expected.name} once the first has ended", vote_text(voted))


@check("locks", "An add that was aborted counts no more, while others are pending.", Needs.TABLE)
def an_aborted_add_counts_no_more(t: Target) -> None:
    row = t.row()
    first = t.yes(row.add(-60, low=0))
    second = _beside(t, row.add(-10))
    t.abort(first)
    third = t.yes(row.add(-80, low=0))
    t.commit(second)
    t.commit(third)
    require(t.number_in(row) == 10, "100 - 10 - 80 = 10", t.number_in(row))


@check("locks", "A pending add's own bound counts for those that come later.", Needs.TABLE)
def the_bounds_of_others_count(t: Target) -> None:
    row = t.row()
    first = t.yes(row.add(10, high=110))
    second = t.prepare(row.add(5)).number
    t.not_yes(second, "no YES: with it, 100 + 5 + 10 would break the bound 110 of the pending add")
    t.commit(first)


@check("locks", "An add that no outcome of the pending ones could allow is NO, not waited for.", Needs.TABLE)
def a_hopeless_add_is_no(t: Target) -> None:
    row = t.row()
    first = t.yes(row.add(-10))
    voted = t.votes_no(t.prepare(row.add(-1_000, low=0)).number)
    require(voted.reason and voted.reason.code, "a reason", vote_text(voted))
    t.commit(first)


@check("locks", "The adds of one branch count each for itself: a bound holds in between, too.", Needs.TABLE)
def adds_of_one_branch_are_not_summed(t: Target) -> None:
    row = t.row()
    t.votes_no(t.prepare(row.add(100, high=150), row.add(-100)).number, "NO: 200 breaks 150 on the way")


@check("locks", "They count each for itself for those that come later, too.", Needs.TABLE)
def pending_adds_are_not_summed(t: Target) -> None:
    row = t.row()
    first = t.yes(row.add(-100, low=0), row.add(100))
    second = t.prepare(row.add(-50, low=0)).number
    t.not_yes(second, "no YES: after it, the pending branch would pass through -50")
    t.commit(first)
    t.abort(second)
    require(t.number_in(row) == 100, "100", t.number_in(row))


@check("locks", "A check and an add on one row exclude other adds.", Needs.TABLE)
def a_check_and_an_add_are_exclusive(t: Target) -> None:
    row = t.row()
    first = t.yes(row.at_least(100), row.add(10))
    second = t.prepare(row.add(-50)).number
    t.not_yes(second, "no YES: the first has checked the number")
    t.commit(first)


@check("locks", "64 bits are a bound of every add.", Needs.TABLE)
def sixty_four_bits_are_a_bound(t: Target) -> None:
    row = t.row()
    large = t.prepare(row.update(INTEGER_MAX - 5)).number
    voted = t.vote(large)
    if voted.vote is Vote.NO and voted.reason is not None and voted.reason.code == Code.CODE_WRONG_TYPE:
        raise NotChecked(f"column {row.column} does not hold 64 bits")
    require(voted.vote is Vote.YES, "the vote YES", vote_text(voted))
    t.commit(large)
    first = t.yes(row.add(3))
    t.not_yes(t.prepare(row.add(3)).number, "no YES: both together leave 64 bits")
    t.commit(first)
    t.votes_no(t.prepare(row.add(10)).number)
    require(t.number_in(row) == INTEGER_MAX - 2, f"{INTEGER_MAX - 2}", t.number_in(row))


@check("locks", "Pending adds hold their bounds again after a kill -9.", Needs.TABLE | Needs.RESTART)
def bounds_are_taken_again(t: Target) -> None:
    row = t.row()
    first = t.yes(row.add(-60, low=0))
    t.kill()
    t.not_yes(t.prepare(row.add(-60, low=0)).number, "no YES: only one of them fits")
    t.commit(first)
    require(t.number_in(row) == 40, "40", t.number_in(row))
