"""What an audit finds: sentences for people with the facts beside them, and the whole of it as text and as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

KEPT_MAX = 1_000
"""Findings that are kept of contradictions, and of doubts; more are only counted."""

SHOWN_MAX = 20
"""Findings that the text for people lists."""

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
        """At most KEPT_MAX."""
        self.in_doubt: list[Finding] = []
        """Branches and transactions whose outcome these files do not settle, at most KEPT_MAX."""
        self.counts: dict[str, Counter[str]] = {"contradictions": Counter(), "in_doubt": Counter()}
        """All findings by kind."""
        self.unreadable: list[str] = []
        """Paths that could not be read, one sentence each."""
        self.notes: list[str] = []
        """What was not looked at, and what a person should know."""
        self.absent: Counter[str] = Counter()
        """Logs that would have had a say and are not among the files, with the attempts that they would be asked of."""
        self.outcomes: Counter[str] = Counter()
        """Attempts by outcome."""

    def note_once(self, note: str) -> None:
        """For what several looks find, as at a server of several participants."""
        if note not in self.notes:
            self.notes.append(note)

    def contradict(self, finding: Finding) -> None:
        self._keep(self.contradictions, "contradictions", finding)

    def doubt(self, finding: Finding) -> None:
        self._keep(self.in_doubt, "in_doubt", finding)

    def _keep(self, kept: list[Finding], sort: str, finding: Finding) -> None:
        self.counts[sort][finding.kind] += 1
        if len(kept) < KEPT_MAX:
            kept.append(finding)

    @property
    def exit_code(self) -> int:
        """0 clean, 1 a contradiction, 2 something could not be read, 5 nothing but doubt (also for a server that was
        not named: what it holds is not known)."""
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
            "counts": {sort: dict(counted) for sort, counted in self.counts.items()},
            "contradictions": [finding.as_json() for finding in self.contradictions],
            "in_doubt": [finding.as_json() for finding in self.in_doubt],
            "unreadable": self.unreadable,
            "notes": self.notes,
            "absent": dict(self.absent),
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
        for absent, attempts in self.absent.items():
            yield f"not here: {absent}, which would have a say in {attempts} attempts"
        yield from self._listed("CONTRADICTION", self.contradictions, "contradictions")
        yield from self._listed("in doubt", self.in_doubt, "in_doubt")
        total = sum(self.outcomes.values())
        parts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        yield f"{total} attempts{': ' if parts else ''}{parts}"
        yield self._verdict()

    def _listed(self, label: str, findings: list[Finding], sort: str) -> Iterator[str]:
        for finding in findings[:SHOWN_MAX]:
            yield f"{label}: {finding.line()}"
        more = self.counts[sort].total() - SHOWN_MAX
        if more > 0:
            kinds = ", ".join(f"{number} {kind}" for kind, number in self.counts[sort].most_common())
            yield f"{label}: and {more} more, of all: {kinds}"

    def _verdict(self) -> str:
        contradictions, in_doubt = (self.counts[sort].total() for sort in ("contradictions", "in_doubt"))
        unreadable = f"; {len(self.unreadable)} of the files could not be read" if self.unreadable else ""
        noun = "CONTRADICTION" if contradictions == 1 else "CONTRADICTIONS"
        wrong = f"{contradictions} {noun}" if contradictions else "nothing contradicts"
        open_ = f"{in_doubt} in doubt" if in_doubt else "nothing is in doubt"
        return f"{wrong}, {open_}{unreadable}"
