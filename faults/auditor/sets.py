"""What files say of each other as files: two of one identity, one that is older than what another has seen of it, one
that is not the one it should be, one id with two outcomes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from faults.auditor.claims import COMMITTED, Coordinator, Participant
from faults.auditor.files import File
from faults.auditor.findings import Audit, Finding
from troth.words import AttemptId


def distinct(audit: Audit, files: Iterable[File]) -> list[File]:
    """One file for each identity: of several, that which knows most, and a contradiction."""
    by_identity: dict[str, list[File]] = {}
    for file in files:
        by_identity.setdefault(file.identity, []).append(file)
    kept = []
    for same in by_identity.values():
        best = max(same, key=lambda file: file.durable)
        kept.append(best)
        for other in same:
            if other is not best:
                text = (
                    f"{other.path} and {best.path} have the same identity {best.identity} ({best.role} {best.name}): "
                    f"one is a copy of the other; only {best.path} was looked at"
                )
                _contradict(audit, "same-identity", "rule 7", text, other, best)
    return kept


def compare(audit: Audit, coordinators: Sequence[Coordinator], participants: Sequence[Participant]) -> None:
    """Everything that is not about one attempt."""
    files = [log.file for log in coordinators] + [log.file for log in participants]
    _older_than_seen(audit, files)
    _swapped(audit, files)
    _foreign(audit, coordinators, participants)
    _renamed(audit, coordinators, participants)
    _marks(audit, coordinators, participants)
    _history_gaps(audit, participants)
    _ids(audit, coordinators)


def _contradict(audit: Audit, kind: str, rule: str, text: str, *files: File) -> None:
    audit.contradict(Finding(kind, rule, text, files=tuple(str(file) for file in files)))


def _older_than_seen(audit: Audit, files: Sequence[File]) -> None:
    by_identity = {file.identity: file for file in files}
    for file in files:
        for identity, number in file.seen.items():
            other = by_identity.get(identity)
            if other is not None and number > other.durable:
                text = (
                    f"{other} is older than what {file} has seen of it (number {number}; it reaches {other.durable}): "
                    "it was put back from a copy, or the files were copied at different moments"
                )
                _contradict(audit, "older-than-seen", "durability", text, other, file)


def _swapped(audit: Audit, files: Sequence[File]) -> None:
    names = {file.name for file in files}
    for file in files:
        stem = file.path.stem
        if stem != file.name and stem in names:
            _contradict(
                audit, "swapped", "durability", f"{file} is the log of {file.role} {file.name}, not of {stem}", file
            )


def _foreign(audit: Audit, coordinators: Sequence[Coordinator], participants: Sequence[Participant]) -> None:
    """A participant's file in the place of the one that the coordinator knows, and that never worked for it."""
    here = {identity for log in participants for identity in log.file.identities}
    logs = {identity for log in coordinators for identity in log.file.identities}
    for coordinator in coordinators:
        for participant in participants:
            known = coordinator.known.get(participant.file.name)
            stranger = participant.logs and logs.isdisjoint(participant.logs.values())
            if known is not None and known not in here and stranger:
                text = (
                    f"{participant.file} is not the file that {coordinator.file} knows as {participant.file.name} "
                    f"({known}): it is {participant.file.identity}, and has worked for another coordinator only"
                )
                _contradict(audit, "foreign", "rule 7", text, participant.file, coordinator.file)


def _renamed(audit: Audit, coordinators: Sequence[Coordinator], participants: Sequence[Participant]) -> None:
    """A lane opens only when both sides call the participant alike, and a file never changes its name."""
    files = {log.file.identity: log.file for log in participants}
    for coordinator in coordinators:
        for name, identity in coordinator.known.items():
            file = files.get(identity)
            if file is not None and file.name != name:
                text = f"{file} says that it is {file.name}, and {coordinator.file} knows the same file as {name}"
                _contradict(audit, "renamed", "durability", text, file, coordinator.file)


def _marks(audit: Audit, coordinators: Sequence[Coordinator], participants: Sequence[Participant]) -> None:
    for coordinator in coordinators:
        own = coordinator.file.identity
        for participant in participants:
            low, _ = participant.marks.get(own, (0, frozenset()))
            epoch = AttemptId(own, low).epoch
            if epoch > coordinator.epoch:
                text = (
                    f"the mark in {participant.file} is of epoch {epoch}, and {coordinator.file} has reached "
                    f"{coordinator.epoch}: it is an older copy"
                )
                _contradict(audit, "not-issued", "rule 7", text, coordinator.file, participant.file)


def _history_gaps(audit: Audit, participants: Sequence[Participant]) -> None:
    """Entries are numbered from 1 and never removed."""
    for log in participants:
        (last,) = log.file.connection.execute("SELECT coalesce(max(position), 0) FROM troth_history").fetchone()
        missing = last - log.history_length
        if missing:
            text = f"the history in {log.file} ends at {last} and has {log.history_length} entries: {missing} are gone"
            _contradict(audit, "history-gap", "durability", text, log.file)


def _ids(audit: Audit, coordinators: Sequence[Coordinator]) -> None:
    """An id has one outcome in a log, and commits at most once in all. A row of a log and of a restored copy is one."""
    streams = [_ids_of(n, log) for n, log in enumerate(coordinators)]
    for id, rows in groupby(heapq.merge(*streams), key=itemgetter(0)):
        found = list(rows)
        if len(found) < 2:
            continue
        families = [log.file.identities[0] for log in coordinators]
        committed = {(families[n], number) for _, number, state, n in found if state == COMMITTED}
        if len(committed) > 1 or len({n for *_, n in found}) < len(found):
            files = [coordinators[n].file for *_, n in found]
            where = ", ".join(f"attempt {row[1]} in {file}" for row, file in zip(found, files, strict=True))
            text = f"the id {id!r} has more than one outcome: {where}"
            audit.contradict(Finding("id-twice", "rule 11", text, id=id, files=tuple(map(str, files))))


def _ids_of(n: int, log: Coordinator) -> Iterator[tuple[str, int, int, int]]:
    for id, number, state in log.ids():
        yield id, number, state, n
