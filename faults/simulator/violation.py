"""What every check raises."""

from __future__ import annotations


class Violation(Exception):
    """A rule was broken; one sentence that names it and what was found."""


def require(holds: object, text: str) -> None:
    """Raises Violation unless it holds; for checks whose text costs nothing to make."""
    if not holds:
        raise Violation(text)
