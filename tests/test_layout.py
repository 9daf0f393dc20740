"""The shape of the code: which room may import which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"troth", "coordinator", "participant", "faults", "bench"}
ALLOWED = {
    "troth": {"troth"},
    "coordinator": {"coordinator", "troth"},
    "participant": {"participant", "troth"},
    "faults": {"faults", "coordinator", "participant", "troth"},
    "bench": {"bench", "faults", "coordinator", "participant", "troth"},
}
"""What both sides share imports no side, and the sides never each other: they meet on the wire only. Fault injection
looks into everything and is looked into by nothing but what measures, which nothing looks into."""

PURE = [
    "coordinator/protocol.py",
    "coordinator/node.py",
    "participant/protocol.py",
    "participant/node.py",
    "participant/locks.py",
]
"""No clock, no network, no disk, no randomness, no await: what a simulator runs unchanged."""
IMPURE = {"asyncio", "time", "random", "secrets", "os", "socket", "sqlite3", "grpc", "threading", "datetime", "uuid"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, those for type checkers only included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.module or ""


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        rooms = {module.split(".")[0] for module in imports(path)} & ROOMS
        assert rooms <= ALLOWED[room], f"{path.relative_to(ROOT)} imports {', '.join(sorted(rooms - ALLOWED[room]))}"


@pytest.mark.parametrize("file", PURE)
def test_protocol_and_nodes_are_pure(file: str) -> None:
    path = ROOT / file
    impure = {module.split(".")[0] for module in imports(path)} & IMPURE
    assert not impure, f"{file} imports {', '.join(sorted(impure))}"
    assert not [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Await)]


FOR_PYTEST = {"faults/conformance/plugin.py", "faults/conformance/resource.py", "faults/conformance/outside.py"}
"""What a user's own tests are made of; nothing else of a room may need pytest."""


def test_no_room_imports_the_tests() -> None:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            of_tests = {module.split(".")[0] for module in imports(path)} & {"tests", "pytest"}
            assert of_tests <= ({"pytest"} if str(path.relative_to(ROOT)) in FOR_PYTEST else set()), path
