"""What was found wrong: one sentence each, with the word for its kind."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """Something that a transaction coordinator must never do."""

    kind: str
    text: str
