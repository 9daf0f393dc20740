"""What a run has to say: as one page of text and as data. The page for a browser is in `page.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from faults.chaos.findings import Finding
from faults.chaos.run import Applied, Plan, Run
from faults.chaos.schedule import Kind
from faults.chaos.verify import Check
from faults.chaos.watch import Sample

EXIT_CLEAN, EXIT_LOST, EXIT_IN_DOUBT = 0, 1, 5
FINDINGS_SHOWN = 20
SAME_SEED = (
    "The same seed gives the same faults and the same transactions; what real processes make of them differs each time."
)
VERDICTS = {
    EXIT_CLEAN: "nothing was lost, and nothing is in doubt",
    EXIT_LOST: "SOMETHING IS WRONG: lost, torn or contradictory",
    EXIT_IN_DOUBT: "nothing was found lost, but not everything has ended or could be checked",
}


@dataclass(frozen=True)
class Report:
    """A run that is over."""

    plan: Plan
    participants: Sequence[str]
    loaded_s: float
    settled_after_s: float | None
    outcomes: Mapping[str, int]
    """First answers by outcome."""
    used_again: Mapping[str, int]
    reasons: Mapping[str, int]
    in_the_end: Mapping[str, int]
    """Outcomes after asking again."""
    applied: Sequence[Applied]
    not_applied: Mapping[Kind, str]
    longest_in_doubt_s: float
    checks: Sequence[Check]
    left: Sequence[str]
    """Why not everything had ended, and what could not be checked."""
    samples: Sequence[Sample]

    @classmethod
    def of(cls, run: Run, not_applied: Mapping[Kind, str], files: Check | None, doubts: Sequence[str]) -> Report:
        """Of a run whose rows were checked. `files` is what the auditor found, and `doubts` what it is not sure of;
        None when there were no files to look at."""
        tally = run.load.tally
        return cls(
            plan=run.plan,
            participants=run.load.bank.participants,
            loaded_s=round(run.loaded_s, 2),
            settled_after_s=None if run.settled_after_s is None else round(run.settled_after_s, 2),
            outcomes={name: tally[name] for name in ("COMMITTED", "ABORTED", "REFUSED", "UNKNOWN")},
            used_again={name: tally[name] for name in ("sent again", "other content")},
            reasons=dict(run.load.reasons.most_common()),
            in_the_end=Counter(outcome.name for outcome in run.load.outcomes.values()),
            applied=sorted(run.applied, key=lambda each: each.began_s),
            not_applied=not_applied,
            longest_in_doubt_s=round(run.longest_in_doubt_s, 2),
            checks=[*run.checks, *([files] if files else [])],
            left=[*run.left, *_untried(tally), *(f"not checked: {each}" for each in run.not_read), *doubts],
            samples=run.samples,
        )

    @property
    def findings(self) -> list[Finding]:
        """Everything that must never be."""
        return [finding for check in self.checks for finding in check.findings]

    @property
    def exit_code(self) -> int:
        """0 clean, 1 something lost, torn or contradictory, 5 something in doubt or not checked only."""
        return EXIT_LOST if self.findings else EXIT_IN_DOUBT if self.left else EXIT_CLEAN

    @property
    def committed_per_s(self) -> float:
        """Over the whole load, faults included."""
        return self.outcomes["COMMITTED"] / self.loaded_s if self.loaded_s else 0.0

    def hits(self) -> dict[Kind, int]:
        """How often each kind of fault hit something, those asked for and never applied included."""
        counts = Counter(each.fault.kind for each in self.applied if each.hit)
        return {kind: counts[kind] for kind in Kind if kind in self.plan.kinds and kind not in self.not_applied}

    # As text.

    def lines(self) -> list[str]:
        """One page."""
        return [
            f"troth chaos, seed {self.plan.seed}: {VERDICTS[self.exit_code]}",
            "",
            *self._load_lines(),
            "",
            "faults, and how often each hit",
            *(f"  {count:5}  {kind.value}" for kind, count in self.hits().items()),
            *(f"      -  {kind.value}: not applied: {why}" for kind, why in self.not_applied.items()),
            "",
            "checks",
            *(f"  {'ok    ' if not check.findings else 'FAILED'} {check.text}" for check in self.checks),
            *_listed("found", [f"{finding.kind}: {finding.text}" for finding in self.findings]),
            *_listed("left", list(self.left)),
        ]

    def _load_lines(self) -> list[str]:
        first, final = (
            ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()) if count)
            for counts in (self.outcomes, self.in_the_end)
        )
        reasons = ", ".join(f"{count:,} {name}" for name, count in list(self.reasons.items())[:6])
        settled = "did not end" if self.settled_after_s is None else f"{self.settled_after_s:.1f} s"
        people = f"{self.plan.in_flight} in flight, {len(self.participants)} participants"
        same, other = (f"{self.used_again[name]:,}" for name in ("sent again", "other content"))
        return [
            f"  load           {self.loaded_s:.0f} s, {people}",
            f"  first answers  {first}",
            f"  in the end     {final}",
            f"  throughput     {self.committed_per_s:,.0f} committed/s on average, faults included",
            f"  aborted for    {reasons or 'nothing'}",
            f"  ids used again {same} with the same content, {other} with other",
            f"  in doubt       {self.longest_in_doubt_s:.1f} s at the longest",
            f"  settled        {settled} after the load",
        ]

    # As data.

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "verdict": VERDICTS[self.exit_code],
            "exit_code": self.exit_code,
            "seed": self.plan.seed,
            "in_flight": self.plan.in_flight,
            "participants": list(self.participants),
            "load_s": self.loaded_s,
            "settled_after_s": self.settled_after_s,
            "first_answers": dict(self.outcomes),
            "used_again": dict(self.used_again),
            "aborted_for": dict(self.reasons),
            "in_the_end": dict(self.in_the_end),
            "committed_per_s": round(self.committed_per_s, 1),
            "longest_in_doubt_s": self.longest_in_doubt_s,
            "faults_by_kind": {kind.value: count for kind, count in self.hits().items()},
            "not_applied": {kind.value: why for kind, why in self.not_applied.items()},
            "faults": [_fault_json(each) for each in self.applied],
            "checks": [{"what": check.text, "found": len(check.findings)} for check in self.checks],
            "findings": [finding._asdict() for finding in self.findings],
            "left": list(self.left),
            "samples": [sample._asdict() for sample in self.samples],
        }


def _untried(tally: Mapping[str, int]) -> list[str]:
    """Checks that looked at nothing have shown nothing."""
    return (
        [] if tally["COMMITTED"] else ["no transaction was committed while the load ran: nothing was put to the test"]
    )


def _listed(heading: str, found: Sequence[str]) -> list[str]:
    if not found:
        return []
    more = [f"  and {len(found) - FINDINGS_SHOWN:,} more"] if len(found) > FINDINGS_SHOWN else []
    return ["", f"{heading} ({len(found):,})", *(f"  {text}" for text in found[:FINDINGS_SHOWN]), *more]


def _fault_json(each: Applied) -> dict[str, Any]:
    return {
        "kind": each.fault.kind.value,
        "what": str(each.fault),
        "targets": list(each.fault.targets),
        "began_s": each.began_s,
        "ended_s": each.ended_s,
        "hit": each.hit,
    }
