"""What must hold of a `World` that has healed: read from all files that ever were, and from what clients heard.

Nothing here looks at lock tables or protocol states to find out what is true; those are only checked to be empty.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from tests.memory import LOG, Memory, VoteDisk
from tests.world import World
from troth.words import AttemptId, Outcome


def judge(world: World) -> None:
    """Agreement, validity, stability, at most once, serializability, nothing left over."""
    committed = _outcomes(world)
    _agreement(world, committed)
    _ids(world, committed)
    _data(world)
    _left_over(world)
    if not any(file.heuristics for files in world.files.values() for file in files):
        _serializable(world, committed)


def _numbers(file: VoteDisk) -> list[int]:
    return [attempt.number for attempt in file.applied]


def _outcomes(world: World) -> set[int]:
    """The attempts that committed: applied somewhere otherwise than by a person's word, or so in the log."""
    durable = world.decision_disk.outcomes.items()
    committed = {key for key, outcome in durable if isinstance(key, int) and outcome is Outcome.COMMITTED}
    for files in world.files.values():
        for file in files:
            committed |= {a.number for a in file.applied if a not in file.heuristics}
    return committed


def _agreement(world: World, committed: set[int]) -> None:
    """An attempt is applied at all the files that it was sent to, or at none; a person's word is known to be one."""
    for number in committed:
        for name in world.updating(number):
            here = AttemptId(LOG, number) in world.file_of(number, name).applied
            excused = AttemptId(LOG, number) in world.file_of(number, name).heuristics or world.by_hand(number)
            assert here or excused, f"attempt {number} is torn: not applied at {name}"
    for name, files in world.files.items():
        for file in files:
            assert len(file.applied) == len(set(file.applied)), f"{file.identity} applied an attempt twice"
            assert not file.prepared, f"{file.identity} is still in doubt about {list(file.prepared)}"
            for number in _numbers(file):
                assert name in world.updating(number), f"attempt {number} was never sent to {name}"
                assert world.sent_to[number, name] == file.identity, f"{number} applied by a file it was not meant for"
            for attempt, kept in file.heuristics.items():
                true = Outcome.COMMITTED if attempt.number in committed else Outcome.ABORTED
                assert kept.known is true, f"{name}: {attempt} is {true.name}, known here as {kept.known}"
                if true is Outcome.COMMITTED:
                    recorded = {(h.number, h.participant) for h in world.decision_disk.heuristics}
                    assert (attempt.number, name) in recorded | world.cleared, f"{attempt} at {name} is not recorded"


def _ids(world: World, committed: set[int]) -> None:
    """Rule 11: an id commits at most once, and what clients heard is so."""
    by_id: dict[str, int] = {}
    for number in sorted(committed & world.ids.keys()):
        id = world.ids[number]
        assert id not in by_id, f"{id} committed twice: {by_id[id]} and {number}"
        by_id[id] = number
    ids = world.ids | world.decision_disk.claimed
    by_hand = {id for number, id in ids.items() if world.by_hand(number)}
    for id, outcomes in world.told.items():
        if id not in by_hand and outcomes == {Outcome.ABORTED}:
            assert id not in by_id, f"{id}: told ABORTED, and it committed"
    for client, asked in world.clients.items():
        if asked.life == world.lives["coordinator"]:
            assert client in world.replies, f"client {client} was never answered: {asked.kind} {asked.id}"


def _data(world: World) -> None:
    """Each file holds what replaying its commits in the order applied gives."""
    for name, files in world.files.items():
        for file in files:
            replay = Memory(dict(file.initial))
            for attempt in file.applied:
                replay.commit(attempt, replay.plan(world.sent[attempt.number][name].operations))
            assert replay.data == file.data, f"{file.identity} holds {file.data}, its commits give {replay.data}"


def _left_over(world: World) -> None:
    """Nothing waits, nothing is locked, nothing grows."""
    coordinator = world.coordinator
    assert coordinator is not None
    left = {number: attempt.state.value for number, attempt in coordinator.attempts.items()}
    assert not left, f"attempts left: {left}"
    assert not coordinator.submissions, f"submissions left: {coordinator.submissions}"
    assert not [*coordinator._parked, *coordinator._questions, *coordinator._flushes]
    assert len(coordinator._due) < 10, f"timers left: {coordinator._due}"
    opened = [entry for entry in world.decision_disk.entries.values() if entry.ended_at is None]
    assert not opened, f"open in the log: {opened}"
    for name, node in world.participants.items():
        assert not list(node.lock_table.listing()), f"{name} still holds locks"
        assert not [*node.lock_table._lines, *node._flushes, *node._due], f"{name} has something left"
        for log in node.logs.values():
            states = {branch.state.value for branch in log.branches.values()}
            assert states <= {"learned"}, f"{name} remembers below the mark: {states}"
    for name, file in world.vote_disks.items():
        assert not file.finished, f"{name} keeps {file.finished} below the mark"


def _serializable(world: World, committed: set[int]) -> None:
    """Some serial order of the committed attempts gives what they read and wrote: no cycle among "before"."""
    committed = committed | _readers(world)
    before: dict[int, set[int]] = {number: set() for number in committed}
    for name, files in world.files.items():
        for file in files:
            _order(world, name, file, committed, before)
    try:
        TopologicalSorter(before).prepare()
    except CycleError as cycle:
        raise AssertionError(f"not serializable: {cycle.args[1]}") from cycle


def _readers(world: World) -> set[int]:
    """All-read-only attempts that a client heard COMMITTED of: the last one of its id."""
    heard = {r.id for r in world.replies.values() if getattr(r, "outcome", None) is Outcome.COMMITTED}
    last = {id: number for number, id in sorted(world.ids.items())}
    return {last[id] for id in heard if id in last and not world.updating(last[id])}


def _order(world: World, name: str, file: VoteDisk, committed: set[int], before: dict[int, set[int]]) -> None:
    writes: dict[str, list[tuple[int, int, str]]] = {}
    for index, number in enumerate(_numbers(file)):
        plan = Memory({}).plan(world.sent[number][name].operations)
        for kind, key, *_ in plan.work:
            if kind in ("add", "upsert"):
                writes.setdefault(key, []).append((index, number, kind))
    for written in writes.values():
        for i, (_, earlier, kind) in enumerate(written):
            for _, later, other in written[i + 1 :]:
                if earlier != later and (kind, other) != ("add", "add"):
                    before[later].add(earlier)
    for number in committed:
        if name not in world.sent.get(number, {}) or world.sent_to[number, name] != file.identity:
            continue
        position = file.tried.get(AttemptId(LOG, number))
        if position is None:
            continue
        for kind, key, *_ in Memory({}).plan(world.sent[number][name].operations).work:
            for index, writer, _ in writes.get(key, ()) if kind in ("read", "check") else ():
                if writer != number:
                    first, then = (writer, number) if index < position else (number, writer)
                    before[then].add(first)
