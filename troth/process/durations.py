"""Durations as people write them on a command line: `200ms`, `5s`, `1.5h`, `7d`. Inside, a duration is seconds."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import click

EXPECTED = "a number with ms, s, m, h or d, as in 200ms, 5s or 7d"

UNITS_S = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
"""Seconds in one of each unit, ascending; decimal, so that 9ms is 0.009 and not a little more."""

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)([a-z]+)", re.ASCII)


def parse(text: str) -> float:
    """The seconds that `text` says.

    A number without a unit is refused: the reader of a command line cannot know which one was meant. Raises ValueError
    with what was expected, also for zero and for what no float can hold."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None or match[2] not in UNITS_S:
        raise ValueError(f"{text!r} is not a duration: expected {EXPECTED}")
    return positive(float(Decimal(match[1]) * UNITS_S[match[2]]), text)


def positive(seconds: float, found: object) -> float:
    """`seconds` again, when it is a finite time above zero; ValueError, naming what was `found`, when it is not."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{found!r} is not a duration: expected more than 0")
    return seconds


def show(seconds: float) -> str:
    """`seconds` in the largest unit of which it is at least one and takes three decimals at most; `parse` undoes it."""
    exact = Decimal(str(seconds))
    for unit, length_s in reversed(UNITS_S.items()):
        number = exact / length_s
        if number >= 1 and number == round(number, 3):
            return f"{number.normalize():f}{unit}"
    return f"{exact.normalize():f}s"


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in later click
    """A click parameter that is written as a duration and arrives as seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Text is parsed; a number is taken as seconds, as a configuration file writes it."""
        try:
            return parse(value) if isinstance(value, str) else positive(float(value), value)  # type: ignore[arg-type]
        except ValueError as error:
            self.fail(str(error), param, ctx)
