"""Replays a participant's history into a scratch database and compares what comes out with the rows of its tables.

What can be known: a table is empty when its file is made, so with a history from the file's first day every row must
come from it. Otherwise a row is known from its first insert on, and one that was there before is known in those columns
that were set since; `add` says nothing then. Rows that no entry touches are not covered, and are counted.

SQLite's own arithmetic and type affinity are used on both sides; nothing of the engine is.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from google.protobuf.message import DecodeError

from faults.auditor.claims import Participant
from faults.auditor.findings import Audit, Finding
from faults.auditor.replay import Counted, Impossible, Replay
from troth.v1.types_pb2 import Operations
from troth.words import AttemptId


def check_rows(audit: Audit, log: Participant, scratch: Path) -> str:
    """Findings go to the audit; returns what was looked at, for people."""
    if log.history_from is None:
        kept = f" now; {log.history_length} entries are of an earlier life" if log.history_length else ""
        return f"not checked: no history is kept{kept} (--history)"
    with closing(Replay(scratch / f"rows-{log.index}.db", log.file.uri, whole=log.history_from == 0)) as replay:
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
        for operation in Operations.FromString(operations).operations:
            try:
                replay.apply(operation)
            except Impossible as error:
                attempt = AttemptId(log.logs[of], number)
                text = f"{attempt} was applied at {log.file} as entry {position} of its history, where {error}"
                audit.contradict(Finding("history-impossible", "rows", text, str(attempt), files=(str(log.file),)))


def _compare(audit: Audit, log: Participant, replay: Replay) -> str:
    wrong, counted = 0, Counted(0, 0, 0)
    for table in replay.tables:
        for row in replay.wrong(table):
            audit.contradict(Finding(row.kind, "rows", f"{log.file}: {row.sentence}", files=(str(log.file),)))
            wrong += 1
        counted = Counted(*map(sum, zip(counted, replay.count(table), strict=True)))
    start = "from its first day" if replay.whole else f"from entry {log.history_from}"
    parts = [
        (counted.known, "known by it"),
        (counted.partly, "there before and known in the columns set since"),
        (counted.uncovered, "touched by none of it and not checked"),
        (replay.skipped, "operations left out, of no table here"),
    ]
    found = ", ".join(f"{number} {what}" for number, what in parts if number) or "none"
    verdict = f"{wrong} DIFFER" if wrong else "all agree"
    return f"{verdict} with the history, kept {start}: {found}"
