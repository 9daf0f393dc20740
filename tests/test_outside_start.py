"""A participant whose data are at a server, refused at its start: one line, and the exit code that says which it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from troth.process import EXIT_REFUSED, EXIT_UNAVAILABLE

pytest.importorskip("psycopg")


def started(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code, and what it said."""
    command = [sys.executable, "-m", "troth", "participant", "--name", "p1", "--data", str(folder / "p1.db")]
    ran = subprocess.run([*command, "--listen", "127.0.0.1:0", *arguments], capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stderr


def test_a_server_that_is_not_there_is_told_and_may_pass(tmp_path: Path) -> None:
    code, said = started(tmp_path, "--resource", "postgresql", "--dsn", "postgresql://nobody@127.0.0.1:1/nowhere")
    assert code == EXIT_UNAVAILABLE, said
    assert "PostgreSQL does not take us in" in said
    assert "Traceback" not in said


def test_the_file_of_another_kind_of_participant_is_told(tmp_path: Path) -> None:
    started(tmp_path, "--resource", "postgresql", "--dsn", "postgresql://nobody@127.0.0.1:1/nowhere")
    code, said = started(tmp_path)
    assert code == EXIT_REFUSED, said
    assert "is the vote log of a participant with --resource postgresql, not sqlite" in said
