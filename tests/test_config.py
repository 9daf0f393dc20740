"""Settings: four sources, one order, and a file that is refused by key and line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from coordinator.settings import CoordinatorSettings
from participant.settings import ParticipantSettings
from troth.process import config
from troth.process.addresses import AddressType, NamedAddressType


@dataclass(frozen=True)
class Settings:
    """Some settings."""

    vote_timeout_s: float = 10.0
    """Until an attempt is aborted."""
    in_flight_max: int = 100
    """Submissions open
    at once."""

    def __post_init__(self) -> None:
        if self.in_flight_max == 13:
            raise ValueError("in_flight_max: 13 brings bad luck")


@click.command(context_settings={"auto_envvar_prefix": "TROTH_TEST"})
@config.file_option
@config.option("--listen", type=AddressType(), default="127.0.0.1:7400")
@config.option("--data", type=click.Path(path_type=Path))
@config.option("--insecure", is_flag=True)
@config.option("--participant", "participants", type=NamedAddressType(), multiple=True)
@config.settings_options(Settings)
def command(
    listen: str, data: Path, insecure: bool, participants: tuple[tuple[str, str], ...], **settings: Any
) -> None:
    filled = config.fill(Settings, settings)
    click.echo(f"{filled.vote_timeout_s} {filled.in_flight_max} {listen} {data} {insecure} {dict(participants)}")


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(command, arguments, env=env)


@pytest.fixture
def refusal(tmp_path: Path) -> Any:
    """The message with which a file of this content is refused."""

    def refuse(content: str) -> str:
        path = tmp_path / "troth.toml"
        path.write_text(content)
        result = run("--config", str(path))
        assert result.exit_code == 2, result.output
        return result.output.replace(str(path), "troth.toml").strip()

    return refuse


def test_without_anything_the_defaults_hold() -> None:
    assert run().output == "10.0 100 127.0.0.1:7400 None False {}\n"


def test_a_file_sets_every_option_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "troth.toml"
    path.write_text(
        'listen = "[::1]:7"\ndata = "here/log.db"\ninsecure = true\nvote_timeout_s = 2\nin_flight_max = 7\n'
        '[participants]\np1 = "127.0.0.1:7401"\np2 = "127.0.0.1:7402"\n'
    )
    where = tmp_path / "here/log.db"
    named = {"p1": "127.0.0.1:7401", "p2": "127.0.0.1:7402"}
    assert run("--config", str(path)).output == f"2.0 7 [::1]:7 {where} True {named}\n"


def test_the_environment_wins_over_the_file_and_a_flag_over_both(tmp_path: Path) -> None:
    path = tmp_path / "troth.toml"
    path.write_text("vote_timeout_s = 2\n")
    env = {"TROTH_TEST_CONFIG": str(path), "TROTH_TEST_PARTICIPANTS": "p1=127.0.0.1:1 p2=127.0.0.1:2"}
    assert run(env=env).output.startswith("2.0 100 ")
    assert run(env=env).output.endswith("{'p1': '127.0.0.1:1', 'p2': '127.0.0.1:2'}\n")
    env["TROTH_TEST_VOTE_TIMEOUT"] = "300ms"
    assert run(env=env).output.startswith("0.3 100 ")
    assert run("--vote-timeout", "4s", env=env).output.startswith("4.0 100 ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\nvote_timout_s = 3\n", "troth.toml:2: unknown key 'vote_timout_s'; did you mean 'vote_timeout_s'?"),
        ("vote_timeout = 3\n", "troth.toml:1: unknown key 'vote_timeout'; did you mean 'vote_timeout_s'?"),
        ("[particpants]\n", "troth.toml:1: unknown key 'particpants'; did you mean 'participants'?"),
        (
            'vote_timeout_s = "5s"\n',
            "troth.toml:1: vote_timeout_s: expected seconds as a number, found the string '5s'",
        ),
        (
            "vote_timeout_s = true\n",
            "troth.toml:1: vote_timeout_s: expected seconds as a number, found the boolean true",
        ),
        ("vote_timeout_s = 0\n", "troth.toml:1: vote_timeout_s: 0 is not a duration: expected more than 0"),
        ("vote_timeout_s = -1.5\n", "troth.toml:1: vote_timeout_s: -1.5 is not a duration: expected more than 0"),
        ("vote_timeout_s = nan\n", "troth.toml:1: vote_timeout_s: nan is not a duration: expected more than 0"),
        ("in_flight_max = 1.5\n", "troth.toml:1: in_flight_max: expected a whole number, found the number 1.5"),
        ("in_flight_max = 0\n", "troth.toml:1: in_flight_max: 0 is not in the range x>=1."),
        ("insecure = 1\n", "troth.toml:1: insecure: expected true or false, found the number 1"),
        ("listen = 7400\n", 'troth.toml:1: listen: expected an address, as in "127.0.0.1:7400", found the number 7400'),
        ("listen = 'here'\n", "troth.toml:1: listen: 'here' is not an address: expected HOST:PORT"),
        ("data = []\n", "troth.toml:1: data: expected a string, found a list"),
        ('participants = ["p1"]\n', 'expected a table, as in p1 = "127.0.0.1:7401", found a list'),
        ("[participants]\np1 = 7401\n", "troth.toml:1: participants.p1: expected a string, found the number 7401"),
        ("[participants]\np1 = 'x'\n", "troth.toml:1: participants: p1: 'x' is not an address"),
        ("vote_timeout_s == 3\n", "troth.toml: not TOML: Invalid value (at line 1, column 17)"),
        ("in_flight_max = 1\nin_flight_max = 1\n", "troth.toml: not TOML: Cannot overwrite a value"),
    ],
)
def test_a_file_is_refused_by_line_key_and_what_was_expected(refusal: Any, content: str, message: str) -> None:
    assert message in refusal(content)


def test_an_unknown_key_that_is_near_to_none_lists_those_that_are_known(refusal: Any) -> None:
    assert "known are data, in_flight_max, insecure, listen, participants, vote_timeout_s" in refusal("x = 1\n")


def test_a_wrong_value_in_the_environment_is_refused_by_its_name() -> None:
    refused = run(env={"TROTH_TEST_VOTE_TIMEOUT": "5"})
    assert refused.exit_code == 2
    assert "TROTH_TEST_VOTE_TIMEOUT" in refused.output
    assert "'5' is not a duration" in refused.output


def test_a_misspelt_name_in_the_environment_is_told_and_foreign_ones_are_left_alone() -> None:
    ctx = click.Context(command, auto_envvar_prefix="TROTH_TEST")
    foreign = {"TROTH_TEST_PORT": "tcp://10.0.0.1", "TROTH_TEST_SERVICE_HOST": "", "TROTH_TEST": "", "HOME": "/"}
    right = {"TROTH_TEST_VOTE_TIMEOUT": "1s", "TROTH_TEST_CONFIG": "x"}
    environment = {**foreign, **right, "TROTH_TEST_VOTE_TIMEOUT_S": "1", "TROTH_TEST_IN_FLIGT_MAX": "1"}
    assert config.misspelt(ctx, environment) == [
        ("TROTH_TEST_IN_FLIGT_MAX", "TROTH_TEST_IN_FLIGHT_MAX"),
        ("TROTH_TEST_VOTE_TIMEOUT_S", "TROTH_TEST_VOTE_TIMEOUT"),
    ]


def test_what_the_settings_refuse_themselves_is_bad_configuration_too() -> None:
    refused = run("--in-flight-max", "13")
    assert refused.exit_code == 2
    assert "13 brings bad luck" in refused.output


def test_help_tells_the_docstring_the_default_and_the_environment_name() -> None:
    text = " ".join(run("--help").output.split())
    assert "--vote-timeout DURATION Until an attempt is aborted." in text
    assert "[env var: TROTH_TEST_VOTE_TIMEOUT; default: 10s]" in text
    assert "Submissions open at once." in text


@pytest.mark.parametrize("settings", [CoordinatorSettings, ParticipantSettings])
def test_every_setting_of_a_process_has_help_and_its_default_as_option(settings: type[Any]) -> None:
    assert config.field_docs(settings).keys() == {field.name for field in dataclasses.fields(settings)}

    @click.command()
    @config.settings_options(settings)
    def filling(**params: Any) -> None:
        assert config.fill(settings, params) == settings()

    assert CliRunner().invoke(filling, catch_exceptions=False).exit_code == 0
