"""What the auditor says of the files of a cluster of ours, when nothing runs on them any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from faults.auditor import audit
from faults.chaos.findings import Finding
from faults.chaos.verify import Check


def audited(paths: Sequence[Path]) -> tuple[Check, list[str]]:
    """The check, and what is in doubt in the files or could not be read of them."""
    found = audit(paths)
    contradictions = [Finding("files", each.sentence) for each in found.contradictions]
    text = f"{len(paths)} files at rest, by the auditor: what each log proves of every attempt, and the rows"
    doubts = [f"in the files: {each.sentence}" for each in found.in_doubt]
    return Check(text, contradictions), [*doubts, *(f"not audited: {each}" for each in found.unreadable)]
