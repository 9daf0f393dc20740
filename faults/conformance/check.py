"""What a check is, and what it finds. The checks themselves are in `checks/`, one module for each subject."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from faults.conformance.target import Target


class Result(enum.Enum):
    """What a check found."""

    HOLDS = "holds"
    VIOLATED = "violated"
    NOT_CHECKED = "not checked"


class Needs(enum.Flag):
    """What a check needs beside a lane."""

    NOTHING = 0
    RESTART = enum.auto()
    TABLE = enum.auto()
    REFUSED = enum.auto()
    CONSTRAINTS = enum.auto()


WITHOUT = {
    Needs.RESTART: "nobody said how to kill it and start it again (--start, --restart)",
    Needs.TABLE: "it needs a table with an integer column (--table)",
    Needs.REFUSED: "no operation was given that the data refuse (--refused)",
    Needs.CONSTRAINTS: "the tables of --print-schema are not there",
}
"""Why a check was not made, by what was missing."""


class Violated(Exception):
    """The participant broke the rule."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(f"expected {expected}; seen: {seen}")
        self.expected = expected
        self.seen = seen


class NotChecked(Exception):
    """The participant does not offer what the check is about, and says so."""


class Check(NamedTuple):
    """One thing that a participant must do."""

    name: str
    rule: str
    """As ARCHITECTURE numbers it: "rule 8", "locks", "durability"."""
    requires: str
    """What is required, one sentence."""
    needs: Needs
    run: Callable[[Target], None]


class Finding(NamedTuple):
    """What came of one check."""

    check: Check
    result: Result
    expected: str = ""
    seen: str = ""
    """What was seen instead; of a check that was not made, why."""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        found = {
            "check": self.check.name,
            "rule": self.check.rule,
            "requires": self.check.requires,
            "result": self.result.value,
        }
        if self.result is Result.VIOLATED:
            found |= {"expected": self.expected, "seen": self.seen}
        elif self.result is Result.NOT_CHECKED:
            found["why"] = self.seen
        return found


CHECKS: list[Check] = []
"""All of them, in the order in which they are run."""


def check(
    rule: str, requires: str, needs: Needs = Needs.NOTHING
) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    """Makes a function a check; its name with dashes is the check's."""

    def register(run: Callable[[Target], None]) -> Callable[[Target], None]:
        CHECKS.append(Check(run.__name__.replace("_", "-"), rule, requires, needs, run))
        return run

    return register


def violated(expected: str, seen: object) -> NoReturn:
    raise Violated(expected, str(seen))


def require(holds: object, expected: str, seen: object) -> None:
    """Raises Violated unless it holds."""
    if not holds:
        violated(expected, seen)
