"""What an audit finds: sentences for people with the facts beside them, and the whole of it as text and as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

LISTED_MAX = 1_000
"""Findings of one sort that are kept and shown; more are counted."""

EXIT_CLEAN, EXIT_CONTRADICTION, EXIT_UNREADABLE, EXIT_IN_DOUBT = 0, 1, 2, 5


class Finding(NamedTuple):
    """One thing found. `kind` is a word for programs; `rule` is the rule of ARCHITECTURE.md that it is about."""

    kind: str
    rule: str
    sentence: str
    attempt: str = ""
    id: str = ""
    """The transaction's, when a log knows it."""
    files: tuple[str, ...] = ()

    def line(self) -> str:
        return f"{self.rule}: {self.sentence}"

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value}


class FileReport(NamedTuple):
    """One file that was read."""

    path: str
    role: str
    name: str
    identity: str
    records: str
    """What is in it, for people."""
    rows: str
    """What was found of a participant's rows: how many agree with its history, or that they were not checked."""


class Audit:
    """What was found. Contradictions first of all: each is a proof that something was lost, changed or done twice."""

    def __init__(self) -> None:
        self.files: list[FileReport] = []
        self.contradictions: list[Finding] = []
        """At most LISTED_MAX; `counts` has all."""
        self.in_doubt: list[Finding] = []
        """Branches and transactions whose outcome these files do not settle, at most LISTED_MAX."""
        self.unreadable: list[str] = []
        """Paths that could not be read, one sentence each."""
        self.notes: list[str] = []
        """What was not looked at, and what a person should know."""
        self.outcomes: Counter[str] = Counter()
        """Attempts by outcome."""
        self.counts: Counter[str] = Counter()
        """Findings by kind."""

    def contradict(self, finding: Finding) -> None:
        self._keep(self.contradictions, finding)

    def doubt(self, finding: Finding) -> None:
        self._keep(self.in_doubt, finding)

    def _keep(self, listed: list[Finding], finding: Finding) -> None:
        self.counts[finding.kind] += 1
        if len(listed) < LISTED_MAX:
            listed.append(finding)

    @property
    def exit_code(self) -> int:
        """0 clean, 1 a contradiction, 2 something could not be read, 5 nothing but doubt."""
        if self.contradictions:
            return EXIT_CONTRADICTION
        if self.unreadable:
            return EXIT_UNREADABLE
        return EXIT_IN_DOUBT if self.in_doubt else EXIT_CLEAN

    def as_json(self) -> dict[str, Any]:
        """Plain data, all of it."""
        return {
            "files": [file._asdict() for file in self.files],
            "outcomes": dict(self.outcomes),
            "counts": dict(self.counts),
            "contradictions": [finding.as_json() for finding in self.contradictions],
            "in_doubt": [finding.as_json() for finding in self.in_doubt],
            "unreadable": self.unreadable,
            "notes": self.notes,
            "exit_code": self.exit_code,
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        for file in self.files:
            yield f"{file.path}: {file.role} {file.name}, identity {file.identity}"
            yield f"  {file.records}"
            if file.rows:
                yield f"  rows: {file.rows}"
        for sentence in self.unreadable:
            yield f"not read: {sentence}"
        for note in self.notes:
            yield f"note: {note}"
        yield from _listed("CONTRADICTION", self.contradictions)
        yield from _listed("in doubt", self.in_doubt)
        total = sum(self.outcomes.values())
        parts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        yield f"{total} attempts{': ' if parts else ''}{parts}"
        yield self._verdict()

    def _verdict(self) -> str:
        match self.exit_code:
            case 0:
                return "nothing contradicts, nothing is in doubt"
            case 5:
                return f"nothing contradicts; {_more(self.in_doubt, 'in doubt')}"
            case 2:
                return f"nothing contradicts in what could be read; {len(self.unreadable)} could not"
            case _:
                return f"{_more(self.contradictions, 'contradictions')}, {_more(self.in_doubt, 'in doubt')}"


def _listed(label: str, findings: list[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{label}: {finding.line()}"
    if len(findings) == LISTED_MAX:
        yield f"{label}: (the first {LISTED_MAX} are listed)"


def _more(findings: list[Finding], what: str) -> str:
    return f"{len(findings)}{' or more' if len(findings) == LISTED_MAX else ''} {what}"
