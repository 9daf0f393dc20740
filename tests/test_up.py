"""`troth up`: what it starts stays up, ends with it, and is told in `cluster.json`."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from tests.cluster import eventually
from tests.standin import spec
from troth.cli import cluster, up
from troth.cli.supervisor import Child, Spec, State, Supervisor
from troth.process import EXIT_HELD, EXIT_REFUSED, addresses
from troth.process.config import ConfigError


class Up:
    """A running `troth up`, or its stand-in, in a process of its own."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.folder = folder
        self.popen = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "STANDIN_ENDED": str(folder / "ended")},
        )

    def wait_line(self, start: str) -> str:
        """The next line that it prints with this start."""
        assert self.popen.stdout is not None
        seen = []
        for line in self.popen.stdout:
            seen.append(line)
            if line.startswith(start):
                return line.strip()
        raise AssertionError(f"it ended without {start!r}: {seen}")

    def member(self, name: str) -> cluster.Member:
        return next(member for member in cluster.read(self.folder) if member.name == name)

    def pids(self) -> dict[str, int]:
        return {member.name: member.pid for member in cluster.read(self.folder) if member.pid is not None}

    def end(self) -> tuple[int, str, str]:
        """SIGTERM; exit code, and what it still printed."""
        self.popen.terminate()
        out, err = self.popen.communicate(timeout=30)
        return self.popen.returncode, out, err


@contextmanager
def running(folder: Path, command: list[str]) -> Iterator[Up]:
    process = Up(folder, command)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.communicate()


def standin(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.standin", str(folder)]


def troth_up(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "troth", "up", "--data", str(folder), *arguments]


def gone(pid: int) -> bool:
    """Whether the process has ended, reaped by its new parent or not yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# Over stand-ins: supervision alone.


def test_a_killed_child_comes_back_and_cluster_json_follows(tmp_path: Path) -> None:
    with running(tmp_path, standin(tmp_path)) as started:
        assert started.wait_line("ready:") == "ready: coordinator at at-coordinator:1"
        before = started.member("p1")
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        assert started.wait_line("p1: killed") == "p1: killed by SIGKILL; starting again in 0.1 s"
        started.wait_line("p1: serving on")
        after = started.member("p1")
        assert after.pid not in (None, before.pid)
        assert after._replace(pid=None) == before._replace(pid=None)


def test_sigterm_ends_the_coordinator_first_then_the_participants_and_exits_0(tmp_path: Path) -> None:
    with running(tmp_path, standin(tmp_path)) as started:
        started.wait_line("ready:")
        pids = started.pids()
        code, out, err = started.end()
        assert (code, err) == (0, "")
        assert "p1: stopped" in out
        ended = (tmp_path / "ended").read_text().split()
        assert ended[0] == "coordinator"
        assert sorted(ended[1:]) == ["p1", "p2"]
        assert all(gone(pid) for pid in pids.values())
        assert started.pids() == {}


def test_ctrl_c_in_a_terminal_does_the_same(tmp_path: Path) -> None:
    with running(tmp_path, standin(tmp_path)) as started:
        started.wait_line("ready:")
        started.popen.send_signal(signal.SIGINT)
        assert started.popen.wait(30) == 0
        assert len((tmp_path / "ended").read_text().split()) == 3


def test_no_child_survives_a_kill_9_of_up_and_the_next_one_may_start(tmp_path: Path) -> None:
    with running(tmp_path, standin(tmp_path)) as first:
        first.wait_line("ready:")
        pids = first.pids()
        first.popen.kill()
        first.popen.wait()
        eventually(lambda: all(gone(pid) for pid in pids.values()), f"{pids} are gone")
    with running(tmp_path, standin(tmp_path)) as second:
        second.wait_line("ready:")


def test_a_second_up_on_the_same_folder_is_refused_by_the_pid_of_the_first(tmp_path: Path) -> None:
    with running(tmp_path, standin(tmp_path)) as first:
        first.wait_line("ready:")
        with running(tmp_path, standin(tmp_path)) as second:
            _, err = second.popen.communicate(timeout=30)
            assert second.popen.returncode == EXIT_HELD
            assert f"another `troth up` (pid {first.popen.pid}) runs on {tmp_path}" in err
        assert first.popen.poll() is None


class News:
    """What a supervisor told of its children."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.lasting: list[str] = []
        self.wanted: Callable[[Child], bool] = lambda child: False
        self.supervisor: Supervisor | None = None

    def __call__(self, child: Child, lasting: bool) -> None:
        self.said.append(child.said)
        if lasting:
            self.lasting.append(child.said)
        if self.wanted(child) and self.supervisor is not None:
            self.supervisor.stop()


def supervised(folder: Path, specs: list[Spec], until: Callable[[Child], bool], drain_s: float = 10.0) -> News:
    """What is told from the start until a child is as wanted, and until all have stopped then."""
    news = News()
    news.wanted = until

    async def run() -> None:
        news.supervisor = Supervisor(specs, folder, news)
        await news.supervisor.run(drain_s)

    asyncio.run(run())
    return news


def test_pauses_before_starting_again_double(tmp_path: Path) -> None:
    news = supervised(tmp_path, [spec(tmp_path, "p1", "once")], lambda child: child.restarts == 3)
    pauses = [said.rpartition(" in ")[2] for said in news.said if "starting again" in said]
    assert pauses[:3] == ["0.1 s", "0.2 s", "0.4 s"]
    assert news.lasting == []


def test_what_will_not_get_better_is_told_loudly_with_its_last_words_and_tried_rarely(tmp_path: Path) -> None:
    child = spec(tmp_path, "p1", str(EXIT_REFUSED))
    news = supervised(tmp_path, [child], lambda child: child.state is State.DOWN)
    assert news.lasting == ["ended with exit code 73 (troth: p1 cannot run); starting again in 5 s"]
    assert (tmp_path / "p1.log").read_text() == "troth: p1 cannot run\n"


def test_a_child_that_does_not_stop_within_the_bound_is_killed(tmp_path: Path) -> None:
    stubborn = spec(tmp_path, "p1", "stubborn")
    news = supervised(tmp_path, [stubborn], lambda child: child.state is State.SERVING, drain_s=0.1)
    assert news.said[-3:] == ["stopping", "did not stop in time: killed", "stopped"]


def test_a_command_that_cannot_be_run_ends_at_once_and_is_tried_again(tmp_path: Path) -> None:
    missing = spec(tmp_path, "p1")._replace(command=[str(tmp_path / "nowhere")])
    news = supervised(tmp_path, [missing], lambda child: child.state is State.DOWN)
    assert "No such file or directory" in next(said for said in news.said if "starting again" in said)


def test_on_a_terminal_a_table_follows_the_processes(tmp_path: Path) -> None:
    """Nobody listens at the stand-in's address, so what is in doubt there is not known."""
    screen = io.StringIO()
    table = up.LiveTable(Console(file=screen, force_terminal=True, width=100))

    async def run() -> None:
        supervisor = Supervisor(
            [spec(tmp_path, "p1", str(EXIT_REFUSED))], tmp_path, lambda child, lasting: told(child, lasting)
        )

        def told(child: Child, lasting: bool) -> None:
            table.news(child, lasting)
            if child.state is State.DOWN:
                supervisor.stop()

        with table.watching(supervisor.children):
            await supervisor.run(1.0)

    asyncio.run(run())
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen.getvalue())
    assert "p1 CANNOT RUN and will not get better by itself: ended with exit code 73" in shown
    assert re.search(r"p1 +│ participant +│ at-p1:1 +│ +│ stopped", shown)


# Ports and the file.


def test_the_cluster_file_has_the_format_that_others_read(tmp_path: Path) -> None:
    members = [
        cluster.Member("coordinator", "coordinator", "127.0.0.1:7400", 17, "/data/x.db"),
        cluster.Member("p1", "participant", "127.0.0.1:7401", None, "/data/x.db"),
    ]
    cluster.write(tmp_path, members)
    common = {"data": "/data/x.db"}
    assert json.loads((tmp_path / "cluster.json").read_text()) == {
        "coordinator": "127.0.0.1:7400",
        "processes": [
            {**common, "name": "coordinator", "role": "coordinator", "address": "127.0.0.1:7400", "pid": 17},
            {**common, "name": "p1", "role": "participant", "address": "127.0.0.1:7401", "pid": None},
        ],
    }
    assert cluster.read(tmp_path) == members
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]


def remember(folder: Path, ports: list[int]) -> None:
    names = ["coordinator", *(f"p{n}" for n in range(1, len(ports)))]
    roles: list[cluster.Role] = ["coordinator", *(["participant"] * (len(ports) - 1))]  # type: ignore[list-item]
    at = zip(names, roles, ports, strict=True)
    cluster.write(folder, [cluster.Member(name, role, f"127.0.0.1:{port}", None, "x") for name, role, port in at])


def test_ports_follow_on_from_the_coordinator(tmp_path: Path) -> None:
    [first, *_] = ports = addresses.free_ports(4)
    assert up.choose_ports(tmp_path, 3, first) == ports


def test_ports_and_the_number_of_participants_are_remembered(tmp_path: Path) -> None:
    ports = addresses.free_ports(4)
    remember(tmp_path, ports[:3])
    assert [each.name for each in up.choose_participants(tmp_path, None, ())] == ["p1", "p2"]
    assert up.choose_ports(tmp_path, 2, None) == ports[:3]
    assert up.choose_ports(tmp_path, 2, 0) == ports[:3]
    assert up.choose_ports(tmp_path, 3, None) == ports
    assert up.choose_ports(tmp_path, 1, ports[0]) == ports[:2]


def test_a_taken_port_is_refused_by_number(tmp_path: Path) -> None:
    ports = addresses.free_ports(3)
    taken = f"port {ports[1]} is taken by another process"
    with socket.create_server(("127.0.0.1", ports[1])), pytest.raises(ConfigError, match=taken):
        up.choose_ports(tmp_path, 2, ports[0])


def test_a_cluster_file_that_cannot_be_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    with pytest.raises(ConfigError, match="remove it to go on"):
        up.choose_participants(tmp_path, None, ())


def test_participants_are_three_or_so_many_or_those_named(tmp_path: Path) -> None:
    assert [each.name for each in up.choose_participants(tmp_path, None, ())] == ["p1", "p2", "p3"]
    assert [each.name for each in up.choose_participants(tmp_path, 1, ())] == ["p1"]
    stock, money = up.choose_participants(tmp_path, None, ("stock=sqlite", "money=postgresql:host=db password=a:b=c"))
    assert stock == up.Wanted("stock")
    assert money == up.Wanted("money", "postgresql", "host=db password=a:b=c", ["--resource", "postgresql"])


@pytest.mark.parametrize("named", ["p1", "p1=", "=sqlite", "p1=sqlite:x", "p1=postgresql", "p1=postgresql:"])
def test_a_participant_that_cannot_be_read_is_refused_with_the_form(tmp_path: Path, named: str) -> None:
    with pytest.raises(ConfigError, match=r"it is NAME=sqlite or NAME=KIND:DSN"):
        up.choose_participants(tmp_path, None, (named,))


def test_participants_are_counted_or_named_and_each_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        up.choose_participants(tmp_path, 2, ("p1=sqlite",))
    with pytest.raises(ConfigError, match="p1 is given twice"):
        up.choose_participants(tmp_path, None, ("p1=sqlite", "p2=sqlite", "p1=mariadb:x"))


def test_a_dsn_reaches_its_process_and_no_list_of_processes(tmp_path: Path) -> None:
    wanted = up.choose_participants(tmp_path, None, ("p1=sqlite", "p2=postgresql:password=secret"))
    specs = up.specs(tmp_path, [7400, 7401, 7402], wanted, [], [])
    assert not any("secret" in argument for spec in specs for argument in spec.command)
    assert [dict(spec.env) for spec in specs] == [{}, {}, {"TROTH_PARTICIPANT_DSN": "password=secret"}]
    assert specs[2].command[-2:] == ["--resource", "postgresql"]


def test_settings_and_place_reach_every_process(tmp_path: Path) -> None:
    coordinator, p1 = up.specs(tmp_path, [7400, 7401], [up.Wanted("p1")], ["--vote-timeout", "5s"], ["--history"])
    assert (
        coordinator.command[1:]
        == (
            f"-m troth coordinator --name coordinator --data {tmp_path}/coordinator.db --listen 127.0.0.1:7400 "
            "--participant=p1=127.0.0.1:7401 --vote-timeout 5s"
        ).split()
    )
    assert (
        p1.command[1:]
        == (f"-m troth participant --name p1 --data {tmp_path}/p1.db --listen 127.0.0.1:7401 --history").split()
    )


# The real thing.


def test_real_processes_serve_come_back_after_kill_9_and_stop_on_sigterm(tmp_path: Path) -> None:
    with running(tmp_path, troth_up(tmp_path, "--participants", "2", "--port", "0")) as started:
        ready = started.wait_line("ready:")
        assert re.fullmatch(r"ready: coordinator at 127\.0\.0\.1:\d+", ready)
        assert [member.name for member in cluster.read(tmp_path)] == ["coordinator", "p1", "p2"]
        for name in ("p1", "coordinator"):
            os.kill(started.pids()[name], signal.SIGKILL)
            started.wait_line(f"{name}: killed by SIGKILL")
            assert started.wait_line(f"{name}: serving on").endswith(started.member(name).address)
        with running(tmp_path, troth_up(tmp_path)) as second:
            assert second.popen.wait(30) == EXIT_HELD
        pids = started.pids()
        assert len(pids) == 3
        code, _, err = started.end()
        assert (code, err) == (0, "")
        assert all(gone(pid) for pid in pids.values())
