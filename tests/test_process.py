"""How a process takes its options, ends, and says why."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from coordinator import cli as coordinator_cli
from coordinator.driver import OwedToUnknown
from coordinator.settings import CoordinatorSettings
from participant import cli as participant_cli
from participant.settings import ParticipantSettings
from troth import process
from troth.log import LogFailed, LogHeld, LogRefused
from troth.process import Place, addresses
from troth.process.config import ConfigError


def place(folder: Path, **changes: Any) -> Place:
    given = {"data": folder, "name": "p1", "listen": "127.0.0.1:0", "advertise": None, "insecure": False}
    return process.place(**{**given, **changes})


# Where a process lives.


def test_a_folder_as_data_means_the_file_of_that_name_in_it(tmp_path: Path) -> None:
    assert place(tmp_path).data == tmp_path / "p1.db"
    assert place(tmp_path, data=tmp_path / "other.db").data == tmp_path / "other.db"


def test_a_missing_folder_is_refused_rather_than_made(tmp_path: Path) -> None:
    """A disk that is not mounted must not become a new, empty log."""
    with pytest.raises(ConfigError, match="there is no folder"):
        place(tmp_path, data=tmp_path / "mnt" / "p1.db")


def test_beyond_loopback_insecure_is_needed_and_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say --insecure"):
        place(tmp_path, listen="0.0.0.0:0", advertise="p1.example.org:7401")
    assert place(tmp_path, listen="0.0.0.0:0", advertise="p1.example.org:7401", insecure=True).listen == "0.0.0.0:0"


def test_an_address_that_nobody_can_dial_needs_advertise(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--advertise"):
        place(tmp_path, listen="0.0.0.0:0", insecure=True)


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    [port] = addresses.free_ports(1)
    listen = f"127.0.0.1:{port}"
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(ConfigError, match=f"{listen}: Address already in use"),
    ):
        place(tmp_path, listen=listen)


@pytest.mark.parametrize("name", ["", " ", "a/b", "a=b", "a\nb"])
def test_a_name_that_cannot_be_written_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a name"):
        place(tmp_path, name=name)


# How it ends.


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Signal handlers as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LogHeld(Path("p1.db"), 17), 75),
        (LogRefused("p1.db has another identity"), 73),
        (LogFailed("p1.db: no space left"), 70),
        (OwedToUnknown("p9 is owed 3 commits"), 76),
    ],
)
def test_each_foreseen_error_has_its_exit_code_and_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    async def failing(ready: process.Ready) -> None:
        raise error

    assert process.serve(failing, coordinator_cli.EXITS) == code
    assert capsys.readouterr().err == f"troth: {error}\n"


def test_an_error_that_is_not_foreseen_is_exit_1_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(ready: process.Ready) -> None:
        raise ZeroDivisionError("by nothing")

    def logged(message: str) -> None:
        events.append(message)

    events: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.log, "exception", logged)
        assert process.serve(failing) == process.EXIT_BROKEN
    assert events == ["stopped by an error that is not foreseen"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_driver_drain_and_is_exit_0(
    capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    drained = []

    async def serving(ready: process.Ready) -> None:
        ready("127.0.0.1:7401")
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            drained.append(True)
            raise

    assert process.serve(serving) == 0
    assert drained == [True]
    assert "serving on 127.0.0.1:7401\n" in capsys.readouterr().out


# The commands.


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, dict[str, Any]]]:
    """Runs a command over a driver that only says what it was given."""

    def run(command: click.Command, *arguments: str) -> tuple[Result, dict[str, Any]]:
        given: dict[str, Any] = {}

        async def serve(**kwargs: Any) -> None:
            given.update(kwargs)

        monkeypatch.setattr("coordinator.driver.serve", serve)
        monkeypatch.setattr("participant.driver.serve", serve)
        monkeypatch.setattr("troth.process.logging.setup", lambda *_: None)
        return CliRunner().invoke(command, arguments), given

    return run


def test_the_coordinator_gets_its_place_participants_and_settings(run: Any, tmp_path: Path) -> None:
    arguments = ["--data", str(tmp_path), "--listen", "127.0.0.1:0", "--vote-timeout", "5s"]
    result, given = run(coordinator_cli.command, *arguments, "--participant", "p1=127.0.0.1:1")
    assert result.exit_code == 0, result.output
    assert callable(given.pop("ready"))
    assert given == {
        "data": tmp_path / "coordinator.db",
        "name": "coordinator",
        "listen": "127.0.0.1:0",
        "advertise": None,
        "participants": {"p1": "127.0.0.1:1"},
        "settings": CoordinatorSettings(vote_timeout_s=5.0),
    }


def test_the_participant_gets_its_place_and_settings_from_a_file(run: Any, tmp_path: Path) -> None:
    (tmp_path / "bank.sql").write_text("")
    (tmp_path / "p1.toml").write_text(
        'name = "p1"\ndata = "."\nlisten = "127.0.0.1:0"\nschema = "bank.sql"\nhistory = true\nlock_timeout_s = 2\n'
    )
    result, given = run(participant_cli.command, "--config", str(tmp_path / "p1.toml"))
    assert result.exit_code == 0, result.output
    assert callable(given.pop("ready"))
    assert given == {
        "data": tmp_path / "p1.db",
        "name": "p1",
        "listen": "127.0.0.1:0",
        "advertise": None,
        "schema": tmp_path / "bank.sql",
        "adopt": False,
        "history": True,
        "settings": ParticipantSettings(lock_timeout_s=2.0),
        "resource": None,
    }


@pytest.mark.parametrize(
    ("participants", "message"),
    [
        (["p1=127.0.0.1:1", "p1=127.0.0.1:2"], "'p1' is named twice"),
        (["p1=127.0.0.1:1", "p2=127.0.0.1:1"], "where another one is named already"),
        (["127.0.0.1:1"], "names no participant"),
        (["p1=here"], "p1: 'here' is not an address"),
    ],
)
def test_participants_that_cannot_be_told_apart_are_refused(
    run: Any, tmp_path: Path, participants: list[str], message: str
) -> None:
    named = [argument for participant in participants for argument in ("--participant", participant)]
    result, _ = run(coordinator_cli.command, "--data", str(tmp_path), "--listen", "127.0.0.1:0", *named)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("command", [coordinator_cli.command, participant_cli.command])
def test_every_command_has_help_with_examples(run: Any, command: click.Command) -> None:
    result, _ = run(command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
