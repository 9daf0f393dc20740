"""What the auditor says of the files of a cluster of ours, when nothing runs on them any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from faults.auditor import audit
from faults.chaos.databases import Place
from faults.chaos.findings import Finding
from faults.chaos.verify import Check


def audited(paths: Sequence[Path], databases: Mapping[str, Place]) -> tuple[Check, list[str]]:
    """The check, and what is in doubt in the files or could not be read of them. The databases are by participant."""
    found = audit(paths, databases={name: place.dsn for name, place in databases.items()})
    contradictions = [Finding("files", each.sentence) for each in found.contradictions]
    servers = f" and {len(databases)} databases" if databases else ""
    text = f"{len(paths)} files{servers} at rest, by the auditor: what each log proves of every attempt, and the rows"
    doubts = [f"in the files: {each.sentence}" for each in found.in_doubt]
    return Check(text, contradictions), [*doubts, *(f"not audited: {each}" for each in found.unreadable)]
