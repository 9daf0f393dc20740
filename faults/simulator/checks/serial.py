"""Serializability: some serial order of the committed attempts gives what each of them saw and what is there now.

The checker knows of each file only when each branch was tried and applied, which is the history of what it saw and
wrote, and what each branch does to which row. From that it draws "must come before" (write-read, write-write and
read-write, in the way of Adya's version graphs), looks for a cycle, and runs the transactions one after the other in an
order that the graph allows: every check and bound must hold again, every read see the same, and the end be what is in
the files. Locks are nowhere in it.

Adds commute, so two of them are ordered only when one was applied before the other was tried: then its bounds were
judged with that value.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import coordinator.events as ce
from faults.simulator.disks import VoteDisk
from faults.simulator.model import LOOKS, Seen, number_in, touched
from faults.simulator.violation import Violation, require
from troth.v1 import types_pb2
from troth.values import from_value
from troth.words import Outcome

if TYPE_CHECKING:
    from faults.simulator.world import World

NEVER = 1 << 60
"""The position of a branch that applies nothing."""


class Access(NamedTuple):
    """What one attempt did to one row of one file."""

    number: int
    how: str
    """look, add or write."""
    seen_at: int
    """How many attempts were applied to the file when it was tried."""
    done_at: int
    """Its position among those applied; NEVER when it changes nothing."""


def serializable(world: World, committed: set[int]) -> None:
    """Raises Violation, naming the cycle or the first attempt that serial execution would have run otherwise."""
    before: dict[int, set[int]] = {number: set() for number in committed}
    for disk in world.every_file():
        for accesses in _accesses(world, disk, committed).values():
            _order(accesses, before)
    order = _sorted(before)
    _replay(world, order)


def _accesses(world: World, disk: VoteDisk, committed: set[int]) -> dict[Any, list[Access]]:
    """By row, and by value of a unique column: that one branch frees it and the next one takes it orders them too."""
    ledger, found = disk.ledger, dict[Any, list[Access]]()
    rows = disk.initial.copy()
    freed: dict[int, set[Any]] = {}
    for number in ledger.applied:
        before = {slot: row.get("u") for slot, row in rows.rows.items()}
        rows.run(ledger.works[number])
        slots = {op.slot for op in ledger.works[number] if op.table == "items" and op.kind not in LOOKS}
        values = {before.get(slot) for slot in slots} | {rows.rows.get(slot, {}).get("u") for slot in slots}
        freed[number] = {("unique", value) for value in values if value is not None}
    for number in sorted(committed & ledger.tried.keys()):
        if world.watch.sent_to.get((number, disk.file.name)) is not disk:
            continue
        accessed = touched(ledger.works[number]) | dict.fromkeys(freed.get(number, ()), "write")
        done_at = ledger.applied.get(number, NEVER)
        for slot, how in accessed.items():
            found.setdefault(slot, []).append(Access(number, how, ledger.tried[number], done_at))
    return found


def _order(accesses: list[Access], before: dict[int, set[int]]) -> None:
    """Who saw a change comes after it, who did not comes before it; of two changes the one applied first, unless both
    are adds and neither saw the other."""
    changes = sorted((access for access in accesses if access.how != "look"), key=lambda access: access.done_at)
    for change in changes:
        for other in accesses:
            if other.number == change.number:
                continue
            if other.how == "look":
                first = change if change.done_at < other.seen_at else other
            elif (change.how, other.how) == ("add", "add"):
                if change.done_at >= other.seen_at:
                    continue
                first = change
            else:
                first = change if change.done_at < other.done_at else other
            if first is change:
                before[other.number].add(change.number)
            else:
                before[change.number].add(other.number)


def _sorted(before: dict[int, set[int]]) -> list[int]:
    """An order that the graph allows; the same one each time. Raises Violation with a cycle."""
    after: dict[int, list[int]] = {number: [] for number in before}
    missing = {}
    for number, earlier in before.items():
        missing[number] = len(earlier)
        for each in earlier:
            after[each].append(number)
    ready = [number for number, count in missing.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        number = heapq.heappop(ready)
        order.append(number)
        for each in after[number]:
            missing[each] -= 1
            if not missing[each]:
                heapq.heappush(ready, each)
    if len(order) < len(before):
        cycle = _cycle(before, {number for number, count in missing.items() if count})
        raise Violation(
            f"serializability: each of {cycle} must come before the next one, and the last before the first"
        )
    return order


def _cycle(before: dict[int, set[int]], left: set[int]) -> list[int]:
    number = min(left)
    path: list[int] = []
    while number not in path:
        path.append(number)
        number = min(before[number] & left)
    return path[path.index(number) :][::-1]


def _replay(world: World, order: Iterable[int]) -> None:
    """Runs everything one after the other, and compares what was seen and what is there."""
    watch, rows = world.watch, {disk.identity: disk.initial.copy() for disk in world.every_file()}
    told = _told(world)
    for number in order:
        seen: dict[str, list[Seen]] = {}
        for name in sorted(watch.sent[number]):
            disk = watch.sent_to[number, name]
            try:
                seen[name] = rows[disk.identity].run(disk.ledger.works[number])
            except Violation as broken:
                raise Violation(f"serializability: {number} at {name}: {broken}") from broken
            found = _rows(disk.ledger.rows.get(number, b""))
            if found != seen[name]:
                raise Violation(
                    f"serializability: {number} read {found} at {name}; serial execution gives {seen[name]}"
                )
        _check_told(number, told.get(number, ()), seen)
    for disk in world.every_file():
        same = rows[disk.identity].rows == disk.rows().rows
        require(same, f"serializability: {disk.identity} holds other rows than serial execution gives")


def _told(world: World) -> dict[int, list[bytes]]:
    """The rows that clients heard, by the attempt that committed."""
    found: dict[int, list[bytes]] = {}
    for reply in world.replies.values():
        if isinstance(reply, ce.Result) and reply.outcome is Outcome.COMMITTED and reply.rows:
            numbers = [n for n in world.watch.numbers.get(reply.id, ()) if world.watch.committed(n)]
            number = numbers[-1] if numbers else world.watch.numbers[reply.id][-1]
            found.setdefault(number, []).append(reply.rows)
    return found


def _check_told(number: int, told: Iterable[bytes], seen: dict[str, list[Seen]]) -> None:
    expected = sorted((each for rows in seen.values() for each in rows), key=str)
    for rows in told:
        heard = sorted(_rows(rows), key=str)
        require(heard == expected, f"serializability: a client heard {heard} of {number}; serial execution: {expected}")


def _rows(encoded: bytes) -> list[Seen]:
    return [
        (
            row.table,
            from_value(row.key[0]),  # type: ignore[misc]
            _columns(row) if row.present else None,
        )
        for row in (types_pb2.Rows.FromString(encoded).rows if encoded else ())
    ]


def _columns(row: types_pb2.Row) -> tuple[tuple[str, Any], ...]:
    columns = ((column.name, number_in(from_value(column.value))) for column in row.values if column.name != "k")
    return tuple(sorted(columns))
