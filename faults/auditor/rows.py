"""Replays a participant's history into a scratch database and compares what comes out with the rows of its tables.

What can be known: a table is empty when its file is made, so with a history from the file's first day every row must
come from it. Otherwise a row is known from its first insert on, and one that was there before is known in those columns
that were set since; `add` says nothing then. Rows that no entry touches are not covered, and are counted.

SQLite's own arithmetic and type affinity are used on both sides; nothing of the engine is.

At a server other programs write too, and statements (`sql`) cannot be replayed. So its tables count as not empty at
first, a row that differs is in doubt and contradicts nothing, and what a statement may have changed is not judged.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from google.protobuf.message import DecodeError

from faults.auditor.claims import Participant, unrecorded
from faults.auditor.findings import Audit, Finding
from faults.auditor.replay import Counted, Impossible, Replay
from troth.v1.types_pb2 import Operations
from troth.words import AttemptId


def check_rows(audit: Audit, log: Participant, scratch: Path) -> str:
    """Findings go to the audit; returns what was looked at, for people."""
    if log.history_from is None:
        kept = f" now; {log.history_length} entries are of an earlier life" if log.history_length else ""
        return f"not checked: no history is kept{kept} (--history)"
    if log.kind and log.copied is None:
        return f"not checked: they are at {log.kind}, which was not looked at (--database {log.file.name}=DSN)"
    path, copied = scratch / f"rows-{log.index}.db", log.copied
    if copied is None:
        made = Replay(path, log.file.uri, whole=log.history_from == 0)
    else:
        made = Replay(path, copied.uri, whole=False, schema=copied.schema)
    with closing(made) as replay:
        try:
            _replay(audit, log, replay)
        except DecodeError as error:
            text = f"an entry of the history in {log.file} cannot be read: {error}"
            audit.contradict(Finding("damaged-record", "durability", text, files=(str(log.file),)))
            return "not checked: the history is damaged"
        return _compare(audit, log, replay)


def _replay(audit: Audit, log: Participant, replay: Replay) -> None:
    rows = log.file.connection.execute(
        "SELECT position, log, number, operations FROM troth_history WHERE position >= ? ORDER BY position",
        (log.history_from,),
    )
    for position, of, number, operations in rows:
        attempt = AttemptId(log.logs[of], number)
        _apply(audit, log, replay, attempt, operations, f"as entry {position} of its history")
    for attempt, operations in unrecorded(log):
        _apply(audit, log, replay, attempt, operations, "by its server, behind its history")


def _apply(audit: Audit, log: Participant, replay: Replay, attempt: AttemptId, operations: bytes, where: str) -> None:
    for operation in Operations.FromString(operations).operations:
        try:
            replay.apply(operation)
        except Impossible as error:
            text = f"{attempt} was applied at {log.file} {where}, where {error}"
            _found(audit, log, Finding("history-impossible", "rows", text, str(attempt), files=(str(log.file),)))


def _found(audit: Audit, log: Participant, finding: Finding) -> None:
    if log.copied is None:
        audit.contradict(finding)
    else:
        text = f"{finding.sentence} (it was changed there by another program, or lost)"
        audit.doubt(finding._replace(sentence=text))


def _compare(audit: Audit, log: Participant, replay: Replay) -> str:
    wrong, unjudged, counted = 0, 0, Counted(0, 0, 0)
    for table in replay.tables:
        if table in replay.touched:
            unjudged += replay.rows(table)
            continue
        for row in replay.wrong(table):
            _found(audit, log, Finding(row.kind, "rows", f"{log.file}: {row.sentence}", files=(str(log.file),)))
            wrong += 1
        counted = Counted(*map(sum, zip(counted, replay.count(table), strict=True)))
    start = "from its first day" if log.history_from == 0 else f"from entry {log.history_from}"
    parts = [
        (counted.known, "known by it"),
        (counted.partly, "there before and known in the columns set since"),
        (counted.uncovered, "touched by none of it and not checked"),
        (unjudged, "not judged, in tables that a statement (sql) may have changed"),
        (replay.skipped, "operations left out, of no table here"),
    ]
    found = ", ".join(f"{number} {what}" for number, what in parts if number) or "none"
    if log.copied is not None and log.copied.left_out:
        found = f"{found}; not compared: {', '.join(log.copied.left_out)}"
    verdict = f"{wrong} DIFFER" if wrong else "all agree"
    return f"{verdict} with the history, kept {start}: {found}"
