"""The audit of a set of files: opens them, compares them as files, judges every attempt, replays histories."""

from __future__ import annotations

import heapq
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from faults.auditor import databases as at_servers
from faults.auditor import files as at_rest
from faults.auditor import sets
from faults.auditor.case import Case, Logs
from faults.auditor.claims import Coordinator, Entry, Participant, count
from faults.auditor.contradictions import contradictions
from faults.auditor.doubts import doubts
from faults.auditor.files import Damaged, Empty, File, Unreadable
from faults.auditor.findings import Audit, FileReport, Finding
from faults.auditor.rows import check_rows
from troth.words import AttemptId

_ATTEMPT = itemgetter(0, 1)
COORDINATOR = "coordinator"
"""How a coordinator's file is called unless it is told otherwise."""


class Verdict(NamedTuple):
    """One attempt."""

    attempt: AttemptId
    id: str
    """The transaction's, when a log knows it."""
    outcome: str
    """COMMITTED, ABORTED, PENDING (one-phase, not answered), UNKNOWN, or CONTRADICTORY."""
    says: tuple[tuple[str, str], ...]
    """Each file that says something, and what."""


def audit(
    paths: Sequence[Path],
    *,
    databases: Mapping[str, str] | None = None,
    each: Callable[[Verdict], None] | None = None,
) -> Audit:
    """Audits files of Troth at rest: a path is a .db file or a folder of them, of any subset of the processes.
    `databases` has the DSNs of servers that have participants' data, by participant.

    The files are not changed; those that have a write-ahead log are copied to a temporary folder. `each` is called with
    every attempt in order. What cannot be read is in `Audit.unreadable`; nothing is raised for it."""
    result = Audit()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="troth-verify-")))
        logs = _open(result, paths, scratch, stack)
        coordinators = [log for log in logs if isinstance(log, Coordinator)]
        participants = [log for log in logs if isinstance(log, Participant)]
        sets.compare(result, coordinators, participants)
        at_servers.look(result, participants, databases or {}, scratch)
        for case in _cases(Logs(coordinators, participants)):
            outcome = _judge(result, case)
            if each is not None:
                each(Verdict(case.attempt, case.id, outcome, case.says()))
        for log in logs:
            result.files.append(_report(result, log, scratch))
    return result


def _open(result: Audit, paths: Sequence[Path], scratch: Path, stack: ExitStack) -> list[Coordinator | Participant]:
    """All that can be read, each identity once: of two files with the same one, the newer."""
    opened: list[File] = []
    empty: list[Path] = []
    for path in _found(result, paths):
        try:
            file = at_rest.open_file(path, scratch)
        except Empty:
            empty.append(path)
        except Unreadable as error:
            result.unreadable.append(str(error) if str(path) in str(error) else f"{path}: {error}")
        except Damaged as error:
            _damaged(result, path, error)
        else:
            stack.callback(file.connection.close)
            opened.append(file)
    names = Counter(file.path.name for file in opened)
    for file in opened:
        file.label = file.path.name if names[file.path.name] == 1 else str(file.path)
    logs: list[Coordinator | Participant] = []
    for file in sets.distinct(result, opened):
        try:
            logs.append((Coordinator if file.role == "coordinator" else Participant)(file, len(logs)))
        except Damaged as error:
            _damaged(result, file.path, error)
    _emptied(result, empty, logs)
    return logs


def _emptied(result: Audit, empty: Sequence[Path], logs: Sequence[Coordinator | Participant]) -> None:
    """A file in which there is nothing: of a process that was stopped while it made it, unless another file remembers
    that it was worked with (under its path's name, as nothing else is left of it)."""
    coordinators = [log for log in logs if isinstance(log, Coordinator)]
    worked_with = {name for log in coordinators for name in log.known}
    here = {log.file.identity for log in coordinators}
    if any(log.logs and here.isdisjoint(log.logs.values()) for log in logs if isinstance(log, Participant)):
        worked_with.add(COORDINATOR)
    for path in empty:
        if path.stem in worked_with:
            _damaged(result, path, Damaged("it is empty, and others have worked with it"))
        else:
            result.notes.append(f"{path} is empty: its process was stopped while it made it")


def _found(result: Audit, paths: Sequence[Path]) -> list[Path]:
    files = []
    for path in paths:
        try:
            files += at_rest.found([path])
        except Unreadable as error:
            result.unreadable.append(str(error))
    return list(dict.fromkeys(files))


def _damaged(result: Audit, path: Path, error: Damaged) -> None:
    text = f"{path.name} is damaged: {error}; nothing else in it was looked at"
    result.contradict(Finding("damaged", "durability", text, files=(path.name,)))


def _cases(logs: Logs) -> Iterator[Case]:
    """Every attempt that any file knows of, with all claims about it, in order."""
    streams: list[Iterator[Entry]] = [stream for log in logs.coordinators for stream in log.streams()]
    streams += [stream for log in logs.participants for stream in log.streams()]
    for (log, number), entries in groupby(heapq.merge(*streams), key=_ATTEMPT):
        yield Case(logs, AttemptId(log, number), [claim for *_, claim in entries])


def _judge(result: Audit, case: Case) -> str:
    found = contradictions(case)
    for finding in found:
        result.contradict(finding)
    for finding in () if found else doubts(case):
        result.doubt(finding)
    if case.authority is None and case.decision is None:
        result.absent[f"the log {case.attempt.log} of a coordinator"] += 1
    for branch in case.updating:
        if branch.identity not in case.logs.by_identity:
            result.absent[f"the file {branch.identity} of {branch.participant}"] += 1
    outcome = "CONTRADICTORY" if found else case.outcome()
    result.outcomes[outcome] += 1
    return outcome


def _report(result: Audit, log: Coordinator | Participant, scratch: Path) -> FileReport:
    file, connection = log.file, log.file.connection
    if isinstance(log, Coordinator):
        ((total, ended),) = connection.execute("SELECT count(*), count(ended_at) FROM troth_transactions")
        records = f"epoch {log.epoch}; {total} transactions, {total - ended} of them not ended"
        return FileReport(str(file.path), file.role, file.name, file.identity, records, "")
    counts = [f"{count(connection, f'troth_{table}')} {table}" for table in ("prepared", "finished")]
    counts.append(f"{count(connection, 'troth_heuristic')} resolved by hand")
    counts.append(f"{log.history_length} in the history" if log.history_length else "no history")
    if log.copied is not None:
        counts.append(f"at {log.copied}: {log.copied.count()}")
    rows = check_rows(result, log, scratch)
    return FileReport(str(file.path), file.role, file.name, file.identity, ", ".join(counts), rows)
