"""What a run found, as Markdown to read and as data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from faults.matrix.arena import Result
from faults.matrix.cases import CASES, Case
from faults.matrix.cells import FAULTS, VICTIMS, Fault, Outage, left_out
from troth.failpoints import Action

_LEGEND = """\
Each cell is a transaction on real processes with a fault at a named point. After it has healed: what the client heard
is true and the same id says it again, the outcome is the same everywhere, data and logs hold it once, no lock is left,
nothing is in doubt, nothing is prepared at a server, which remembers what the files do, and nothing raised an alarm.
In the end the auditor reads all files.

1: the first participant, or the coordinator's first message of that kind. L: the last one. 2: two at once (both
participants, the coordinator's first two messages, or the coordinator and the first participant). A letter is a cell
that held, `!` before it one that did not, a dot none that means anything.

"""

_ACTIONS: list[Fault] = [action for action in (*Action, *Outage) if any(action in tried for tried in FAULTS.values())]


def as_json(result: Result) -> dict[str, Any]:
    """One cell, as plain data."""
    cell = result.cell
    return {
        "cell": cell.key,
        "case": cell.case.name,
        "point": str(cell.point),
        "action": cell.action.value,
        "victim": cell.victim,
        "at_servers": cell.at_servers,
        "good": result.good,
        "problems": list(result.problems),
        "told": result.told,
        "seconds": round(result.seconds, 3),
    }


def summary(command: str, results: Sequence[Result], chosen: int, seconds: float) -> str:
    """One line."""
    bad = sum(not result.good for result in results)
    not_run = f", {chosen - len(results)} for which there was no time" if chosen > len(results) else ""
    return f"{command}: {len(results)} cells in {seconds:.0f} s, {bad} failed{not_run}"


def markdown(summed: str, results: Sequence[Result], at_rest: Sequence[str]) -> str:
    """The whole report; `at_rest` is what the auditor found in the files afterwards."""
    parts = (_head(summed), _failed(results), _at_rest(at_rest), _tables(results), _left_out())
    return "".join(f"{line}\n" for part in parts for line in part)


def _head(summed: str) -> Iterator[str]:
    yield "# The crash-point matrix"
    yield ""
    yield f"{summed}."
    yield ""
    yield from _LEGEND.splitlines()


def _failed(results: Iterable[Result]) -> Iterator[str]:
    failed = [result for result in results if not result.good]
    if failed:
        yield "## Failed"
        yield ""
        for result in failed:
            yield f"- `{result.cell.key}`"
            yield from (f"  - {' '.join(problem.split())}" for problem in result.problems)
        yield ""


def _at_rest(sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield "## Found in the files at rest"
        yield ""
        yield from (f"- {sentence}" for sentence in sentences)
        yield ""


def _tables(results: Iterable[Result]) -> Iterator[str]:
    found: dict[tuple[bool, str], list[Result]] = defaultdict(list)
    for result in results:
        found[result.cell.at_servers, result.cell.case.name].append(result)
    for at_servers in (False, True):
        for case in CASES.values():
            if (at_servers, case.name) in found:
                yield from _table(case, at_servers, found[at_servers, case.name])


def _table(case: Case, at_servers: bool, results: Sequence[Result]) -> Iterator[str]:
    yield f"## {case.name}{' at servers' if at_servers else ''}: {case.about}"
    yield ""
    yield "| point | " + " | ".join(action.value for action in _ACTIONS) + " |"
    yield "| --- |" + " --- |" * len(_ACTIONS)
    marks: dict[str, dict[Fault, dict[str, bool]]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        marks[str(result.cell.point)][result.cell.action][result.cell.victim] = result.good
    for point, by_action in marks.items():
        yield f"| {point} | " + " | ".join(_marks(by_action.get(action, {})) for action in _ACTIONS) + " |"
    yield ""


def _marks(by_victim: dict[str, bool]) -> str:
    letters = dict(zip(VICTIMS, "1L2", strict=True))
    return " ".join(f"{'' if by_victim[v] else '!'}{letters[v]}" for v in VICTIMS if v in by_victim) or "."


def _left_out() -> Iterator[str]:
    yield "## Points without a cell"
    yield ""
    yield from (f"- {point}: {why}" for point, why in left_out().items())
