"""Which ids are surely new (`coordinator/recent.py`): never one that was seen."""

from __future__ import annotations

import random

import pytest

from coordinator import recent
from coordinator.recent import Recent


def id_at(ms: int, tail: int = 0) -> str:
    text = f"{ms:012x}"
    return f"{text[:8]}-{text[8:]}-7000-8000-{tail:012x}"


def test_an_id_is_new_once() -> None:
    ids = Recent("")
    assert ids.open(id_at(5))
    assert not ids.open(id_at(5))
    assert ids.open(id_at(4)), "older than another one, and never seen"


def test_what_the_log_may_hold_is_never_new() -> None:
    ids = Recent(id_at(5, 7))
    assert not ids.open(id_at(5, 7))
    assert not ids.open(id_at(5, 6))
    assert not ids.open(id_at(4))
    assert ids.open(id_at(5, 8))


@pytest.mark.parametrize("id", ["order-1", "", id_at(0xABC).upper(), id_at(9) + "0", id_at(9).replace("-7", "-4")])
def test_an_id_without_a_time_is_never_new(id: str) -> None:
    assert not Recent("").open(id)


def test_whatever_comes_and_goes_no_id_is_new_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "KEPT", 4)
    chance = random.Random(1)
    ids, seen, new = Recent(""), set(), 0
    for n in range(5_000):
        id = id_at(n + chance.randrange(-20, 3) if n > 20 else n, chance.randrange(3))
        if ids.open(id):
            assert id not in seen
            new += 1
        seen.add(id)
    assert new > 500
