"""The log tells of transactions, never of their content and never a secret."""

from __future__ import annotations

import io
import json
import logging as stdlib
from collections.abc import Iterator

import pytest
import structlog

from troth.process import logging
from troth.v1 import types_pb2


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the log goes; afterwards everything is as it was."""
    root = stdlib.getLogger()
    handlers, level = root.handlers, root.level
    yield io.StringIO()
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_json_is_one_object_a_line_naming_process_level_and_time(stream: io.StringIO) -> None:
    logging.setup("p1", format="json", stream=stream)
    structlog.get_logger("x").info("lane opened", lane=1)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "lane opened", "lane": 1, "process": "p1", "level": "info"}


def test_console_is_key_value_text_without_colours_when_piped(stream: io.StringIO) -> None:
    logging.setup("p1", stream=stream)
    structlog.get_logger("x").warning("slow", seconds=2)
    assert "[warning  ] slow" in stream.getvalue()
    assert "seconds=2" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_libraries_log_in_the_same_form(stream: io.StringIO) -> None:
    logging.setup("p1", format="json", stream=stream)
    stdlib.getLogger("grpc").error("cannot bind %s", "here")
    assert json.loads(stream.getvalue())["event"] == "cannot bind here"


def test_what_is_below_the_level_is_left_out(stream: io.StringIO) -> None:
    logging.setup("p1", level="warning", stream=stream)
    structlog.get_logger("x").info("nothing")
    stdlib.getLogger("asyncio").info("nothing")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("format", ["console", "json"])
@pytest.mark.parametrize(
    "fields",
    [
        {"password": "hunter2"},
        {"auth_token": "hunter2"},
        {"metadata": {"Authorization": "hunter2"}},
        {"url": "postgresql://bob:hunter2@db/bank"},
        {"command": ["psql", "password='hunter2'"]},
        {"header": "Bearer hunter2hunter2"},
        {"values": {"balance": "hunter2"}},
        {"row": ("alice", "hunter2")},
        {"sent": b"hunter2"},
        {"sent": types_pb2.Value(text="hunter2")},
        {"error": ValueError("token: hunter2")},
    ],
)
def test_no_secret_and_no_content_is_ever_logged(
    stream: io.StringIO, format: logging.Format, fields: dict[str, object]
) -> None:
    logging.setup("p1", format=format, stream=stream)
    structlog.get_logger("x").info("something", **fields)
    stdlib.getLogger("y").info("dsn was password=hunter2")
    assert "hunter2" not in stream.getvalue()
    assert all(key in stream.getvalue() for key in fields)


def test_a_traceback_shows_no_local_variables(stream: io.StringIO) -> None:
    logging.setup("p1", stream=stream)
    balance_of_alice = 4711
    try:
        raise RuntimeError(f"after {type(balance_of_alice).__name__}")
    except RuntimeError:
        structlog.get_logger("x").exception("failed")
    assert "RuntimeError: after int" in stream.getvalue()
    assert "4711" not in stream.getvalue().replace("balance_of_alice = 4711", "")
