"""What the documents say is so: their sessions run, their commands exist, what is drawn in them is current."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import click
import pytest

from tests.cluster import eventually
from troth import cli
from troth.cli import cluster
from troth.v1 import coordinator_pb2, participant_pb2

ROOT = Path(__file__).resolve().parent.parent
README, ARCHITECTURE, CHANGELOG = (ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CHANGELOG"))
DOCUMENTS = (README, ARCHITECTURE, CHANGELOG)
COMMANDS = tuple(cli._COMMANDS)
RUN_WITHIN_S = 90.0


def script(name: str) -> ModuleType:
    """A module of `scripts/`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(document: Path) -> str:
    return document.read_text("utf-8")


# What is drawn.


@pytest.mark.parametrize("document", [README, ARCHITECTURE], ids=lambda path: path.name)
def test_what_is_drawn_is_current(document: Path) -> None:
    assert script("draw").drawn(text_of(document)) == text_of(document), "run scripts/draw"


def test_every_part_that_can_be_drawn_has_a_place() -> None:
    text = "".join(map(text_of, DOCUMENTS))
    assert [name for name in script("draw").PARTS if f"<!-- drawn: {name} -->" not in text] == []


def test_every_call_is_in_the_table_of_calls() -> None:
    text = text_of(ARCHITECTURE)
    services = [
        *coordinator_pb2.DESCRIPTOR.services_by_name.values(),
        *participant_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    calls = [f"`{service.name}.{method.name}`" for service in services for method in service.methods]
    assert calls
    assert [call for call in calls if call not in text] == []


# What is named.


def snippets(document: Path) -> Iterator[str]:
    """Code spans, and the lines of code blocks that are commands."""
    text = text_of(document)
    for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if not block.lstrip().startswith("$") or line.startswith("$ "):
                yield line.removeprefix("$ ")
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_option_that_is_named_exists(document: Path) -> None:
    root = cli.main
    assert isinstance(root, click.Group)
    for snippet in snippets(document):
        for found in re.finditer(r"(?:^|[ /])troth (?P<name>[a-z][a-z-]+)(?P<rest>.*)", snippet):
            command = root.get_command(click.Context(root), found["name"])
            assert command is not None, f"{document.name}: {snippet}"
            command = commanded(command, found["rest"].split())
            known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
            named = set(re.findall(r"(?<=\s)--[a-z][a-z-]+", found["rest"]))
            assert named <= known, f"{document.name}: {snippet}: {', '.join(named - known)}"


def commanded(command: click.Command, words: list[str]) -> click.Command:
    """The command within a group that the words begin with, or that the group takes them for; itself when none."""
    if not isinstance(command, click.Group):
        return command
    context = click.Context(command)
    name, *_ = words if words and not words[0].startswith("-") else ["compare"]
    found = command.get_command(context, name)
    assert found is not None, f"{command.name} has no command {name}"
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"`troth {name}`" in text_of(README)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_is_there(document: Path) -> None:
    rooms = "protos|troth|coordinator|participant|faults|bench|scripts|tests|\\.ci"
    named = set(re.findall(rf"`\.?/?((?:{rooms})/[\w./-]*)", text_of(document)))
    linked = set(re.findall(r"\]\(([\w./-]+)\)", text_of(document)))
    assert [path for path in sorted(named | linked) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_heading_that_is_linked_is_there(document: Path) -> None:
    text = text_of(document)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= anchors


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"(tests/\w+\.py)::(\w+)", text_of(ARCHITECTURE))
    assert named
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text("utf-8")]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_nothing_is_left_to_be_filled_in(document: Path) -> None:
    assert not re.search(r"\b(TODO|TBD|FIXME|XXX|BENCH)\b", text_of(document))


def test_the_changelog_begins_with_what_is_not_released() -> None:
    assert re.findall(r"^## (.*)$", text_of(CHANGELOG), re.MULTILINE)[0] == "Unreleased"


# The README's session.

VARYING = [
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+Z", "TIME"),
    (r"troth:[0-9a-f]{16}:\d+:\d+", "ATTEMPT"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\d+(\.\d+)? (ms|s|B|KiB|MiB|committed/s)(?=\b|$)", r"N \2"),
    (r"\bpid \d+", "pid N"),
    (r"(serving .*) \d+$", r"\1 PID"),
    (r" +", " "),
]
"""What differs from run to run."""


def shape(output: str) -> list[str]:
    """The lines without what differs from run to run, their order included: processes run side by side."""
    for pattern, same in VARYING:
        output = re.sub(pattern, same, output, flags=re.MULTILINE)
    return sorted(line.strip() for line in output.splitlines())


def blocks(name: str) -> list[str]:
    """The code blocks of the README that are marked as part of the session."""
    found = re.findall(rf"<!-- session: {name} -->\n```\w+\n(.*?)^```", text_of(README), re.DOTALL | re.MULTILINE)
    assert found, name
    return found


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output that is shown for it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        match = re.fullmatch(r"(?P<command>.*\n(?:> .*\n)*)(?P<output>(?:.*\n)*)", part)
        assert match is not None, part
        yield re.sub(r"^> ", "", match["command"], flags=re.MULTILINE), match["output"]


def environment(coordinator: str | None = None) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **({"TROTH_COORDINATOR": coordinator} if coordinator else {})}


@contextmanager
def session(folder: Path) -> Iterator[tuple[str, str]]:
    """Runs the README's `troth up`, on free ports; where its coordinator is, and what it printed until it was ready."""
    (folder / "scripts").symlink_to(ROOT / "scripts")
    [(command, _)] = commands(blocks("up")[0])
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command.strip()} --port 0"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("ready:"):
                break
        assert printed[-1].startswith("ready:"), printed
        yield printed[-1].split()[-1], "".join(printed)
    finally:
        process.terminate()
        process.communicate(timeout=RUN_WITHIN_S)


def run(command: list[str], folder: Path, coordinator: str) -> str:
    """What a command prints, errors included."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(coordinator),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_WITHIN_S,
    )
    return done.stdout


def test_the_sessions_of_the_readme_run_and_print_what_it_shows(tmp_path: Path) -> None:
    with session(tmp_path) as (coordinator, printed):
        [(_, shown)] = commands(blocks("up")[0])
        assert shape(printed) == shape(shown)
        for block in blocks("commands"):
            for command, shown in commands(block):
                assert shape(run(["bash", "-c", command], tmp_path, coordinator)) == shape(shown), command
        [program] = blocks("python")
        [shown] = re.findall(r"^```python.*?^```\n\n```text\n(.*?)^```", text_of(README), re.DOTALL | re.MULTILINE)
        program = program.replace("127.0.0.1:7400", coordinator)
        assert run([sys.executable, "-W", "error", "-c", program], tmp_path, coordinator) == shown


def test_a_backup_of_the_whole_folder_is_restored_as_the_readme_says(tmp_path: Path) -> None:
    copy, back = re.findall(
        r"^```sh\n((?:cp -a troth-data|rm -rf troth-data).*?)^```", text_of(README), re.DOTALL | re.MULTILINE
    )
    with session(tmp_path) as (coordinator, _):
        run(["troth", "submit", "scripts/demo-data/opening.jsonl"], tmp_path, coordinator)
    run(["bash", "-ec", copy], tmp_path, coordinator)
    (tmp_path / "scripts").unlink()
    with session(tmp_path) as (coordinator, _):
        moved = ["-o", "p1: add accounts/alice balance -1", "-o", "p3: add accounts/shop balance 1"]
        assert run(["troth", "submit", "--id", "later", *moved], tmp_path, coordinator) == "COMMITTED later\n"
    assert "would run again" in run(["bash", "-ec", back], tmp_path, coordinator)
    (tmp_path / "scripts").unlink()
    with session(tmp_path) as (coordinator, _):
        assert "balance=400000" in run(["troth", "read", "p1", "accounts/alice"], tmp_path, coordinator)
        assert run(["troth", "submit", "--id", "later", *moved], tmp_path, coordinator) == "COMMITTED later\n"


# The demo.


def demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "scripts/demo.py"), "--data", str(folder), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def alive(folder: Path) -> list[int]:
    """The processes that run on a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if f"{folder}".encode() in line and path.parent.name != str(os.getpid()):
            found.append(int(path.parent.name))
    return found


def test_the_demo_holds_and_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = demo(folder, "--transactions", "4000", "--seed", "7")
    output, _ = process.communicate(timeout=RUN_WITHIN_S)
    assert process.returncode == 0, output
    assert "Everything held" in output
    assert [name for name in ("p2", "coordinator") if not re.search(rf"kill -9 \d+ +\({name}\)", output)] == []
    assert re.search(r"UNKNOWN +[\d,]+ +0\n", output) or "UNKNOWN" not in output
    assert "\x1b" not in output
    assert not re.search(r" $", output, re.MULTILINE)
    assert alive(folder) == []
    assert [member.pid for member in cluster.read(folder)] == [None] * 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "run"
    process = demo(folder)
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(r"kill -9 \d", line):
            break
    assert alive(folder)
    process.send_signal(number)
    output, _ = process.communicate(timeout=RUN_WITHIN_S)
    assert process.returncode == 130, output
    eventually(lambda: not alive(folder), "nothing runs")


def test_the_demo_touches_no_folder_of_anybody_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    process = demo(tmp_path)
    output, _ = process.communicate(timeout=RUN_WITHIN_S)
    assert process.returncode == 1
    assert "not of an earlier demo" in output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    made: Callable[[Path], Path] = script("demo").fresh
    return made


def test_the_demo_replaces_what_it_made(tmp_path: Path, fresh: Callable[[Path], Path]) -> None:
    folder = fresh(tmp_path / "run")
    (folder / "log").mkdir()
    for name in ("p1.db", "p1.db-wal", "coordinator.db.lock", "log/p2.log", "transactions.jsonl", "cluster.json"):
        (folder / name).write_text("of the first demo")
    fresh(folder)
    assert {path.name for path in folder.iterdir()} == {"made-by-scripts-demo", "mixed", "up.pid"}


@pytest.mark.parametrize("mine", ["notes.txt", "log/notes.txt", "p4.db", "backup/p1.db"])
def test_the_demo_removes_nothing_when_anything_else_is_there(
    tmp_path: Path, fresh: Callable[[Path], Path], mine: str
) -> None:
    folder = fresh(tmp_path / "run")
    for name in ("p1.db", mine):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("kept")
    with pytest.raises(click.ClickException, match="is not of a demo"):
        fresh(folder)
    assert (folder / "p1.db").read_text() == (folder / mine).read_text() == "kept"


def test_the_demo_removes_no_copy_and_nothing_of_the_same_names(tmp_path: Path, fresh: Callable[[Path], Path]) -> None:
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(fresh(tmp_path / "run"), copy)
    other.mkdir()
    (other / "transactions.jsonl").write_text("of somebody")
    for folder in (copy, other):
        with pytest.raises(click.ClickException, match="not of an earlier demo"):
            fresh(folder)
    assert (copy / "made-by-scripts-demo").exists()
    assert (other / "transactions.jsonl").read_text() == "of somebody"


@pytest.fixture
def shop() -> ModuleType:
    return script("shop")


def made(shop: ModuleType, seed: int) -> list[dict[str, object]]:
    opened = shop.opening(ROOT / "scripts/demo-data/opening.jsonl")
    return list(shop.transactions(opened, 4000, seed))


def test_the_demos_transactions_follow_from_the_seed(shop: ModuleType) -> None:
    assert made(shop, 3) == made(shop, 3)
    assert made(shop, 3) != made(shop, 4)


def test_the_demos_transactions_touch_two_or_three_participants(shop: ModuleType) -> None:
    for line in made(shop, 3):
        assert len(shop.branches([line])) in (2, 3)


def test_the_demos_mistakes_have_the_ids_of_others_and_other_content(shop: ModuleType) -> None:
    lines = made(shop, 3)
    by_id = {line["id"]: line for line in lines}
    wrong = shop.mistakes(lines)
    assert wrong
    assert all(line["id"] in by_id and line != by_id[line["id"]] for line in wrong)
    assert len(by_id) == len(lines)
