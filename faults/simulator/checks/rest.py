"""What must hold once everything has healed, read from all files that ever were and from what clients heard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import coordinator.events as ce
from faults.simulator.checks.serial import serializable
from faults.simulator.disks import VoteDisk
from faults.simulator.model import Rows
from faults.simulator.scenario import COORDINATOR
from faults.simulator.violation import Violation, require
from troth.words import Outcome

if TYPE_CHECKING:
    from faults.simulator.world import World


def judge(world: World) -> None:
    """Agreement, at most once, liveness, conservation, serializability, nothing left over. Raises Violation."""
    left = leftover(world)
    require(left is None, f"liveness: {left}")
    committed = outcomes(world)
    _agreement(world, committed)
    _ids(world, committed)
    _clients(world)
    _files(world)
    if not world.torn_by_hand():
        _conserved(world)
        serializable(world, committed | _readers(world))


def outcomes(world: World) -> set[int]:
    """The attempts that committed: so in the log, or applied somewhere otherwise than by a person's word."""
    durable = world.decision_disk.ledger.outcomes.items()
    committed = {key for key, outcome in durable if isinstance(key, int) and outcome is Outcome.COMMITTED}
    for disk in world.every_file():
        committed.update(n for n in disk.ledger.applied if n not in disk.ledger.heuristics)
    return committed


def leftover(world: World) -> str | None:
    """What has not ended: a transaction, a lock, a record that only waits to be forgotten. None when all has."""
    coordinator = world.coordinator
    if coordinator is None or len(world.participants) < len(world.names):
        return "somebody is down"
    if coordinator.submissions:
        return f"submissions are open: {sorted(coordinator.submissions)[:5]}"
    if coordinator.attempts:
        left = {number: attempt.state.value for number, attempt in list(coordinator.attempts.items())[:5]}
        return f"attempts are open: {left}"
    if coordinator._parked or coordinator._questions or coordinator._flushes:
        return "the coordinator waits for something"
    ledger = world.decision_disk.ledger
    if ledger.owed or ledger.claims:
        return f"the log owes {sorted(ledger.owed)[:5]} and has claimed {sorted(ledger.claims)[:5]}"
    for name in world.names:
        found = _leftover_at(world, name)
        if found:
            return f"{name}: {found}"
    return None


def _leftover_at(world: World, name: str) -> str | None:
    node, disk = world.participants[name], world.vote_disks[name]
    if disk.ledger.prepared:
        return f"in doubt about {sorted(disk.ledger.prepared)[:5]}"
    if node.lock_table._lines:
        return f"locks are held: {list(node.lock_table.listing())[:3]}"
    for log in node.logs.values():
        states = {branch.state.value for branch in log.branches.values()}
        if states - {"learned"}:
            return f"branches below the mark are remembered as {sorted(states)}"
    for number, kept in disk.ledger.heuristics.items():
        if kept.known is None:
            return f"the true outcome of {number}, resolved by hand, is not known"
    if disk.queue or node._flushes or world.at_server(name):
        return "something is queued"
    finished = disk.file.connection.execute("SELECT count(*) FROM troth_finished").fetchone()[0]
    if finished:
        return f"{finished} outcomes are kept below the mark"
    if disk.server is not None and (disk.server.prepared or disk.server.committed):
        held = len(disk.server.prepared), len(disk.server.committed)
        return f"its server has {held[0]} branches prepared, and remembers {held[1]} as committed"
    return None


def _agreement(world: World, committed: set[int]) -> None:
    """An attempt is applied at all the files that it was sent to, or at none; a person's word is known to be one."""
    watch = world.watch
    for number in committed:
        for name in sorted(watch.updating(number)):
            ledger = watch.sent_to[number, name].ledger
            if not (ledger.ended(number) or watch.by_hand(number)):
                raise Violation(f"agreement: attempt {number} committed and is not applied at {name}")
    recorded = world.decision_disk.ledger.recorded
    for disk in world.every_file():
        ledger, name = disk.ledger, disk.file.name
        require(not ledger.prepared, f"{disk.identity} is still in doubt about {sorted(ledger.prepared)}")
        for number in ledger.applied:
            sent = name in watch.updating(number) and watch.sent_to[number, name] is disk
            require(sent, f"validity: {number} is applied by {disk.identity}, to which it was never sent")
            by_hand = number in ledger.heuristics or watch.by_hand(number)
            require(number in committed or by_hand, f"agreement: {number} is applied at {name} and did not commit")
        for number, kept in ledger.heuristics.items():
            true = Outcome.COMMITTED if number in committed else Outcome.ABORTED
            if kept.known is not true:
                raise Violation(f"rule 12: {number} is {true.name}, and {name} knows {kept.known}")
            if true is Outcome.COMMITTED and (number, name) not in recorded:
                raise Violation(f"rule 12: {number} was resolved by hand at {name}, and the coordinator has no record")


def _ids(world: World, committed: set[int]) -> None:
    """Rule 11: an id commits at most once, and what clients heard is so."""
    watch = world.watch
    by_id: dict[str, int] = {}
    for number in sorted(committed & watch.ids.keys()):
        id = watch.ids[number]
        require(id not in by_id, f"rule 11: {id} committed twice: {by_id.get(id)} and {number}")
        by_id[id] = number
    for id, heard in sorted(watch.told.items()):
        if heard == {Outcome.ABORTED} and id in by_id and not any(map(watch.by_hand, watch.attempts_of(id))):
            raise Violation(f"rule 11: {id} was told ABORTED, and {by_id[id]} committed")


def _clients(world: World) -> None:
    """Everybody whose coordinator lived on was answered, and what was refused left nothing behind."""
    wanted: dict[str, set[tuple[tuple[str, bytes], ...]]] = {}
    for client, asked in world.clients.items():
        if asked.life == world.lives[COORDINATOR]:
            require(client in world.replies, f"liveness: client {client} was never answered: {asked.kind} {asked.id}")
        if asked.kind == "submit" and client not in world.watch.refused:
            reply = world.replies.get(client)
            id = reply.id if isinstance(reply, ce.Result) else asked.id
            wanted.setdefault(id, set()).add(tuple(sorted((p.participant, p.operations) for p in asked.parts)))
    for number, sent in world.watch.sent.items():
        id = world.watch.ids[number]
        content = tuple(sorted((name, message.operations) for name, message in sent.items()))
        known = id not in wanted or content in wanted[id]
        require(known, f"rule 10: {id} ran as {number} with what every client of it heard REFUSED of")


def _files(world: World) -> None:
    """Each file, or its server, holds what its commits give in the order applied, and also in the order of the file's
    history, which misses none; and its log says the same as was seen of it."""
    for disk in world.every_file():
        ledger = disk.ledger
        require(disk.history() == ledger.history, f"{disk.identity} has another history than was flushed")
        missing = set(ledger.applied) ^ set(ledger.history)
        require(not missing, f"{disk.identity} and its history do not have the same commits: {sorted(missing)[:5]}")
        for order in {tuple(ledger.applied), tuple(ledger.history)}:
            _replays(disk, order)


def _replays(disk: VoteDisk, order: Iterable[int]) -> None:
    replay, found = disk.initial.copy(), disk.rows()
    for number in order:
        try:
            replay.run(disk.ledger.works[number])
        except Violation as broken:
            raise Violation(f"{disk.identity}: {number} as applied: {broken}") from broken
    require(replay.rows == found.rows, f"{disk.identity} holds {_different(found, replay)} than its commits give")


def _different(found: Rows, replay: Rows) -> str:
    slots = [
        slot for slot in sorted({*found.rows, *replay.rows}, key=str) if found.rows.get(slot) != replay.rows.get(slot)
    ]
    return f"other rows at {slots[:3]}: {found.rows.get(slots[0])}, not {replay.rows.get(slots[0])}" if slots else ""


def _conserved(world: World) -> None:
    """Accounts are only ever moved between."""
    found = sum(_on_accounts(disk.rows()) for disk in world.every_file())
    expected = _on_accounts(world.initial) * len(world.every_file())
    require(found == expected, f"conservation: the accounts hold {found} in all, and held {expected}")


def _on_accounts(rows: Rows) -> int:
    return sum(row["v"] or 0 for (table, _), row in rows.rows.items() if table == "accounts")


def _readers(world: World) -> set[int]:
    """All-read-only attempts that a client heard COMMITTED of: the last one of its id."""
    found = set()
    for reply in world.replies.values():
        if isinstance(reply, ce.Result) and reply.outcome is Outcome.COMMITTED:
            numbers = world.watch.numbers.get(reply.id, ())
            if numbers and not world.watch.updating(numbers[-1]):
                found.add(numbers[-1])
    return found
