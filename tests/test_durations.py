"""Durations as people write them."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from troth.process import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("200ms", 0.2), ("5s", 5.0), ("1.5m", 90.0), ("2h", 7200.0), ("7d", 604_800.0), (" 5s ", 5.0)],
)
def test_every_unit_is_read_as_seconds(text: str, seconds: float) -> None:
    assert durations.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["5", "5.0", "", "s", "5 s", "-5s", "5S", "5sec", "1e3s", "1h30m", "٥s", "nan s", ".5s"]
)
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number with ms, s, m, h or d"):
        durations.parse(text)


@pytest.mark.parametrize("text", ["0s", "0.0ms", "9" * 400 + "d"])
def test_zero_and_what_no_float_holds_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected more than 0"):
        durations.parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.05, "50ms"), (1.0, "1s"), (90.0, "1.5m"), (3600.0, "1h"), (7 * 86400.0, "7d")]
)
def test_a_duration_is_shown_in_its_largest_unit(seconds: float, text: str) -> None:
    assert durations.show(seconds) == text


@given(st.integers(1, 10**9).map(lambda ms: ms / 1000))
def test_what_is_shown_reads_back_as_the_same(seconds: float) -> None:
    assert durations.parse(durations.show(seconds)) == seconds


def test_a_flag_takes_a_duration_and_a_refusal_names_the_flag() -> None:
    @click.command()
    @click.option("--wait", type=durations.Duration())
    def command(wait: float) -> None:
        click.echo(wait)

    assert CliRunner().invoke(command, ["--wait", "200ms"]).output == "0.2\n"
    refused = CliRunner().invoke(command, ["--wait", "5"])
    assert refused.exit_code == 2
    assert "--wait" in refused.output
    assert "'5' is not a duration" in refused.output
