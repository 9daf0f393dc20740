"""What a process says to whoever operates it: structlog, set up once, everything on standard error.

A log line tells of transactions by their ids, never by their content: values of operations, rows, passwords and tokens
are hidden here, whatever a caller passes.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from typing import Any, Literal, TextIO, TypeVar

import click
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from troth.process.config import option

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]
F = TypeVar("F", bound=Callable[..., Any])

HIDDEN = "[hidden]"

_SECRET = re.compile(r"passw|pwd|secret|token|credential|authorization|api_?key|dsn", re.IGNORECASE)
"""Keys whose value is never shown."""
_CONTENT = frozenset({"operation", "operations", "value", "values", "row", "rows", "required", "found", "body"})
"""Keys that hold what users keep in their tables."""
_IN_TEXT = re.compile(
    r"(?P<user>://[^\s/:@]*):[^\s/@]+@"
    r"|(?P<key>\b(?:password|passwd|pwd|secret|token|api_?key)\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;&]+)"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}",
    re.IGNORECASE,
)
"""Secrets inside a sentence: a URL with a password, `password=...`, an authorization header."""


def setup(process: str, level: Level = "info", format: Format = "console", stream: TextIO | None = None) -> None:
    """Sends the log of this process, that of the libraries it uses included, to `stream` (standard error).

    `process` is named in every line, as lines of several processes are often read together. Called once, before
    anything is logged; called again, it replaces what was set."""
    stream = stream or sys.stderr

    def name_process(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_process,
        structlog.processors.format_exc_info,  # a plain traceback: the pretty ones print local variables
        hide,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # loggers made before this call must follow it
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(format, stream)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


def _renderer(format: Format, stream: TextIO) -> Processor:
    if format == "json":
        return structlog.processors.JSONRenderer(default=str)
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)


def hide(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replaces what must not be read in a log; keys stay, so that it shows that something was there."""
    return {key: _hidden(key, value) for key, value in event.items()}


def _hidden(key: str, value: object) -> object:
    if key.startswith("_"):  # structlog's own notes to its formatter
        return value
    if key in _CONTENT or _SECRET.search(key):
        return HIDDEN
    if isinstance(value, dict):
        return {str(k): _hidden(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hidden("", item) for item in value]
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if hasattr(value, "DESCRIPTOR"):  # a protobuf message prints its content
        return f"[{type(value).__name__}]"
    return _IN_TEXT.sub(_masked, str(value))


def _masked(match: re.Match[str]) -> str:
    if match["user"] is not None:
        return f"{match['user']}:{HIDDEN}@"
    return (match["key"] or match["scheme"]) + HIDDEN


def options(command: F) -> F:
    """Gives a click command `--log-level` and `--log-format`."""
    level = option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        help="What to write to standard error.",
    )
    format = option(
        "--log-format",
        type=click.Choice(["console", "json"]),
        default="console",
        help="key=value text, or one JSON object a line.",
    )
    return level(format(command))
