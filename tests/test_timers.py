"""A node's timers: in order, asked for once, and no more kept than what may matter."""

from __future__ import annotations

from troth.timers import KEPT, Timers


def test_what_is_due_comes_in_order_also_what_is_set_meanwhile() -> None:
    timers: Timers[str, int] = Timers(lambda at, what, key: True)
    timers.set(2.0, "a", 1)
    timers.set(1.0, "b", 2)
    timers.set(9.0, "c", 3)
    found = []
    for at, what, key in timers.due(5.0):
        found.append((at, what, key))
        if what == "b":
            timers.set(1.5, "d", 4)
    assert found == [(1.0, "b", 2), (1.5, "d", 4), (2.0, "a", 1)]
    assert list(timers) == [(9.0, "c", 3)]


def test_a_wake_up_is_asked_for_once_and_again_when_its_time_has_come_or_something_is_earlier() -> None:
    timers: Timers[str, int] = Timers(lambda at, what, key: True)
    assert timers.wake() is None
    timers.set(3.0, "a", 1)
    assert [timers.wake(), timers.wake()] == [3.0, None]
    timers.set(4.0, "a", 1)
    assert timers.wake() is None
    timers.set(2.0, "a", 1)
    assert [timers.wake(), timers.wake()] == [2.0, None]
    assert len(list(timers.due(2.5))) == 1
    assert [timers.wake(), timers.wake()] == [3.0, None]


def test_what_no_longer_counts_is_dropped_before_there_is_much_of_it_and_the_rest_kept() -> None:
    open_ = set(range(0, 20 * KEPT, KEPT // 4))
    timers: Timers[str, int] = Timers(lambda at, what, key: key in open_)
    most = 0
    for number in range(20 * KEPT):
        timers.set(1e6 - number, "a", number)
        most = max(most, len(list(timers))) if number % 97 == 0 else most
    assert most <= KEPT + 97
    assert [key for *_, key in timers.due(1e6) if key in open_] == sorted(open_, reverse=True)
