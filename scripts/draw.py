"""Draws the parts of the documents that the code itself knows: protocol pictures and tables, messages, calls, commands,
settings, reasons. A drawn part stands between `<!-- drawn: NAME -->` and `<!-- end: NAME -->`; all else is left alone.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import click

import coordinator.protocol
import participant.protocol
from coordinator.settings import CoordinatorSettings
from participant.settings import ParticipantSettings
from troth import cli, messages
from troth.driving import wire
from troth.process import config
from troth.process.durations import show

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "ARCHITECTURE.md")
_PART = re.compile(r"(<!-- drawn: (?P<name>[\w-]+) -->\n).*?(<!-- end: (?P=name) -->)", re.DOTALL)

LEAVES_AFTER = {
    messages.Prepare: "nothing",
    messages.OnePhase: "the submitted record is durable, when the client chose the id",
    messages.Commit: "the decision is durable",
    messages.Abort: "nothing: abort is presumed",
    messages.Release: "the decision is durable, when one is written",
    messages.Mark: "nothing",
    messages.Question: "nothing",
    messages.Answered: "what it says is durable; ABORTED of a coordinator and PENDING need no record",
    messages.Voted: "YES: the prepared record is durable; READ_ONLY: all queued before it is; NO: nothing",
    messages.OnePhaseEnded: "COMMITTED: the apply is durable; ABORTED: nothing",
    messages.Acknowledged: "the apply, or the true outcome of a branch resolved by hand, is durable",
}
"""What must be on its sender's disk before a message goes out; a message that is missing here cannot be drawn."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


# The protocols.


def member_docs(module: ModuleType, name: str) -> dict[str, str]:
    """The docstring literal below each member of an enum; as Python keeps none, read from source."""
    body = ast.parse(inspect.getsource(getattr(module, name))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for member, below in zip(body.body, body.body[1:], strict=False):
        match member, below:
            case ast.Assign(targets=[ast.Name(id=found)]), ast.Expr(value=ast.Constant(value=str(text))):
                docs[found] = inspect.cleandoc(text)
    return docs


def moves(module: ModuleType) -> Iterator[tuple[Any, Any, Any, Any]]:
    """(state, input, action, next state), state by state in the order of the table."""
    order = list(dict.fromkeys(state for state, _ in module.TABLE))
    items = sorted(module.TABLE.items(), key=lambda item: order.index(item[0][0]))
    for (state, given), (action, then) in items:
        yield state, given, action, then


def picture(module: ModuleType) -> str:
    """A state diagram of every move that leaves its state."""
    lines = ["```mermaid", "stateDiagram-v2"]
    first = next(iter(module.State))
    lines.append(f"    [*] --> {first.name}")
    for (state, then), group in _grouped(moves(module), lambda move: (move[0], move[3])):
        if state is not then:
            lines.append(f"    {state.name} --> {then.name}: {' / '.join(given.value for _, given, _, _ in group)}")
    return "\n".join([*lines, "```", ""])


def protocol_table(module: ModuleType) -> str:
    """Every legal pair. Inputs that do the same in a state share a line."""
    docs = member_docs(module, "State")
    rows = []
    for state, group in groupby(moves(module), lambda move: move[0]):
        named = f"**{state.name}**<br>{docs[state.name]}"
        for (action, then), same in _grouped(group, lambda move: (move[2], move[3])):
            inputs = ", ".join(given.value for _, given, _, _ in same)
            rows.append([named, inputs, action.value, "" if then is state else then.name])
            named = ""
    return table(["state", "input", "what is done", "next state"], rows)


def _grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    """By key, in the order in which keys come first."""
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


# Messages and calls.


def message_table() -> str:
    to_participant, to_coordinator = (
        typing.get_args(union) for union in (messages.ToParticipant, messages.ToCoordinator)
    )
    rows = []
    for kind in dict.fromkeys([*to_participant, *to_coordinator]):
        way = "either way" if kind in to_participant and kind in to_coordinator else None
        way = way or ("to participant" if kind in to_participant else "to coordinator")
        meaning = " ".join((kind.__doc__ or "").split())
        counted = f"`{wire.KINDS[kind]}`" if kind in wire.KINDS else ""
        rows.append([f"`{kind.__name__}`", way, meaning, LEAVES_AFTER[kind], counted])
    return table(["message", "way", "what it says", "leaves only after", "counted as"], rows)


_COMMENTED = re.compile(r"(?P<comment>(?:^ *//.*\n)+)^ *(?P<kind>service|rpc) (?P<name>\w+)", re.MULTILINE)


def call_table() -> str:
    rows = []
    service = ""
    for path in sorted((ROOT / "protos/troth/v1").glob("*.proto")):
        for found in _COMMENTED.finditer(path.read_text("utf-8")):
            comment = " ".join(line.strip().removeprefix("//").strip() for line in found["comment"].splitlines())
            if found["kind"] == "service":
                service = found["name"]
            else:
                rows.append([f"`{service}.{found['name']}`", path.name, comment])
    return table(["call", "in", "what it does"], rows)


# For users.


def command_table() -> str:
    """As `troth --help` has them, which loads none of them."""
    return table(["command", "what it does"], ([f"`troth {name}`", each.help] for name, each in cli._COMMANDS.items()))


def settings_table(settings: type[Any]) -> Callable[[], str]:
    def draw() -> str:
        docs = config.field_docs(settings)
        rows = []
        for field in dataclasses.fields(settings):
            duration = field.name.endswith("_s")
            flag = "--" + (field.name.removesuffix("_s") if duration else field.name).replace("_", "-")
            default = show(field.default) if duration else f"{field.default:_}"  # type: ignore[arg-type]
            rows.append([f"`{flag}`", f"`{field.name}`", default, " ".join(docs[field.name].split())])
        return table(["flag", "TOML key", "default", "meaning"], rows)

    return draw


PARTS: dict[str, Callable[[], str]] = {
    "coordinator-picture": lambda: picture(coordinator.protocol),
    "coordinator-protocol": lambda: protocol_table(coordinator.protocol),
    "participant-picture": lambda: picture(participant.protocol),
    "participant-protocol": lambda: protocol_table(participant.protocol),
    "messages": message_table,
    "calls": call_table,
    "commands": command_table,
    "coordinator-settings": settings_table(CoordinatorSettings),
    "participant-settings": settings_table(ParticipantSettings),
}


def drawn(text: str) -> str:
    """The document with every drawn part as the code has it now. Raises KeyError for a part that is not known."""
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found['name']]()}\n{found[3]}", text)


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Compare, and fail on a difference.")
def main(check: bool) -> None:
    stale = False
    placed: set[str] = set()
    for name in DOCUMENTS:
        path = ROOT / name
        text = path.read_text("utf-8")
        placed.update(found["name"] for found in _PART.finditer(text))
        new = drawn(text)
        if check:
            difference = list(difflib.unified_diff(text.splitlines(), new.splitlines(), name, "as drawn", lineterm=""))
            stale |= bool(difference)
            click.echo("\n".join(difference), nl=bool(difference))
        else:
            path.write_text(new, "utf-8")
    if missing := PARTS.keys() - placed:
        sys.exit(f"no document has a place for {', '.join(sorted(missing))}")
    if stale:
        sys.exit("documents are not current: run scripts/draw")


if __name__ == "__main__":
    main()
