"""The servers that have participants' data, as far as a person named them: each is copied and judged with the files."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from faults.auditor.claims import Participant, tables_named
from faults.auditor.files import Unreadable
from faults.auditor.findings import Audit, Finding
from faults.auditor.server import KINDS, Copied, check_kind, copy, shown


def look(result: Audit, logs: Sequence[Participant], databases: Mapping[str, str], scratch: Path) -> None:
    """Sets `copied` of each participant whose server is named, by its DSN, and notes those that are not."""
    outside = {log.file.name: log for log in logs if log.kind}
    for name in databases.keys() - outside.keys():
        there = f"the data of {', '.join(sorted(outside))} are at a server" if outside else "no data are at a server"
        result.unreadable.append(f"--database {name}: of the participants whose files were read, {there}")
    for log in logs:
        if not log.kind:
            continue
        if "place" not in log.file.meta:
            result.notes.append(f"{log.file} has never had its data at {log.kind} open")
            continue
        try:
            if log.file.name in databases:
                log.copied = _copied(log, databases[log.file.name], scratch)
                _note_strays(result, log.copied)
            else:
                _not_looked_at(result, log)
        except Unreadable as error:
            result.unreadable.append(f"the data of {log.file.name}: {error}")


def _copied(log: Participant, dsn: str, scratch: Path) -> Copied:
    meta = log.file.meta
    if log.kind not in KINDS:
        raise Unreadable(f"they are at {log.kind}, which this Troth does not know")
    check_kind(log.kind, dsn)
    if "namespace" not in meta:
        raise Unreadable(f"{log.file} does not say under which name they are known at {log.kind}")
    namespace = str(meta["namespace"])
    try:
        dialect = importlib.import_module(f"faults.auditor.{log.kind}")
    except ModuleNotFoundError as error:
        raise Unreadable(
            f"they are at {log.kind}, and {error.name} is missing: pip install 'troth[{log.kind}]'"
        ) from error
    with dialect.opened(dsn, namespace) as snapshot:
        if snapshot.place != meta["place"]:
            kept, found = shown(str(meta["place"])), shown(snapshot.place)
            raise Unreadable(f"{log.file} goes with those in {log.kind} {kept}, and the DSN names {found}")
        return copy(log.kind, snapshot, namespace, tables_named(log), scratch / f"server-{log.index}.db")


def _not_looked_at(result: Audit, log: Participant) -> None:
    name, place = log.file.name, shown(str(log.file.meta["place"]))
    text = (
        f"the data of {name} are at {log.kind} ({place}), which was not looked at: whether it holds what {log.file} "
        f"says is not known (--database {name}=DSN)"
    )
    result.doubt(Finding("not-looked-at", "durability", text, files=(str(log.file),)))


def _note_strays(result: Audit, copied: Copied) -> None:
    for stray in copied.strays:
        age = "" if stray.age_s is None else f", for {stray.age_s:.0f} s"
        result.note_once(f"{copied} has {stray.name} prepared{age}, which is of another participant file")
