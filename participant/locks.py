"""The lock table: shared, exclusive and increment locks on names, all of a branch asked for in one step.

First come, first served per name: nobody overtakes. A branch is ready when it stands at the head of every line it is
in, together with those its modes go with. So every wait points at a branch that arrived earlier, and with one
coordinator, whose lanes keep order, no deadlock can form (DESIGN section 3, "Locks"). No clock here: the node gives
up waits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from participant.escrow import Escrow, Verdict
from participant.resources import Add, Lock, LockName, Mode

Owner = Hashable


class Hopeless(NamedTuple):
    """An increment that no outcome of the pending ones could allow: the branch is a NO."""

    name: LockName
    add: Add
    base: int


class Changes(NamedTuple):
    """What a call set free: branches that now hold all their locks, and branches that never will (already taken
    out)."""

    ready: Sequence[Owner]
    hopeless: Sequence[tuple[Owner, Hopeless]]


NOTHING = Changes([], [])
"""What most calls change for others."""


class Line:
    """Those who hold one name and those who wait for it. Invariant: `holders` are pairwise compatible; the first of
    `waiting` is not compatible with them (or the line would have moved)."""

    __slots__ = ("columns", "holders", "mode", "waiting")

    def __init__(self) -> None:
        self.mode = Mode.SHARED
        self.holders: dict[Owner, Lock] = {}
        self.waiting: dict[Owner, Lock] = {}
        self.columns: dict[str, Escrow] = {}

    def judge(self, lock: Lock) -> Verdict:
        """Whether the lock goes with all present holders."""
        if not self.holders:
            return Verdict.ADMIT
        if lock.mode is not self.mode or lock.mode is Mode.EXCLUSIVE:
            return Verdict.WAIT
        if lock.mode is Mode.SHARED:
            return Verdict.ADMIT
        worst = Verdict.ADMIT
        for column, adds in by_column(lock):
            verdict = self.columns[column].judge(adds) if column in self.columns else Verdict.ADMIT
            if verdict is Verdict.HOPELESS:
                return verdict
            if verdict is Verdict.WAIT:
                worst = verdict
        return worst

    def hold(self, owner: Owner, lock: Lock) -> None:
        self.mode = lock.mode
        self.holders[owner] = lock
        if lock.mode is not Mode.INCREMENT:
            self.columns.clear()
            return
        for column, adds in by_column(lock):
            escrow = self.columns.get(column)
            if escrow is None:
                escrow = self.columns[column] = Escrow()
            escrow.join(owner, adds)

    def leave(self, owner: Owner, applied: bool) -> None:
        lock = self.holders.pop(owner, None)
        if lock is None:
            del self.waiting[owner]
            return
        for column, _ in by_column(lock):
            escrow = self.columns[column]
            escrow.leave(owner, applied)
            # Kept while others wait and the value is known, so that they need not wait for a trial each.
            if not escrow.pending and (escrow.base is None or not self.waiting):
                del self.columns[column]

    def why_hopeless(self, lock: Lock) -> Hopeless:
        for column, adds in by_column(lock):
            escrow = self.columns.get(column)
            if escrow is not None and escrow.base is not None and (add := escrow.hopeless(adds)) is not None:
                return Hopeless(lock.name, add, escrow.base)
        raise AssertionError(f"no add of {lock} is hopeless")


class LockTable:
    """All lines, and for each branch the locks it asked for."""

    def __init__(self) -> None:
        self._lines: dict[LockName, Line] = {}
        self._locks: dict[Owner, tuple[Lock, ...]] = {}
        self._missing: dict[Owner, int] = {}

    def __contains__(self, owner: Owner) -> bool:
        return owner in self._locks

    def __iter__(self) -> Iterator[Owner]:
        """Whoever holds locks or waits for them, in the order of arrival."""
        return iter(self._locks)

    def request(self, owner: Owner, locks: Sequence[Lock]) -> Changes:
        """Puts the branch into all its lines at once; it is in `ready` when it holds them all already."""
        assert owner not in self._locks, f"{owner} asks twice"
        self._locks[owner] = tuple(locks)
        missing = 0
        lines = self._lines
        for lock in locks:
            line = lines.get(lock.name)
            if line is None:
                line = lines[lock.name] = Line()
                line.hold(owner, lock)
                continue
            verdict = Verdict.WAIT if line.waiting else line.judge(lock)
            if verdict is Verdict.HOPELESS:
                why = line.why_hopeless(lock)
                # Not in the remaining lines yet: leave only those already joined.
                changes = self._leave(owner, locks[: list(locks).index(lock)], applied=False)
                return Changes(changes.ready, [*changes.hopeless, (owner, why)])
            if verdict is Verdict.ADMIT:
                line.hold(owner, lock)
            else:
                line.waiting[owner] = lock
                missing += 1
        if missing:
            self._missing[owner] = missing
            return NOTHING
        return Changes([owner], [])

    def hold(self, owner: Owner, locks: Sequence[Lock], values: Mapping[tuple[LockName, str], int]) -> None:
        """Takes the locks of a prepared branch again at start; they were held together before, so they go together."""
        self._locks[owner] = tuple(locks)
        for lock in locks:
            line = self._lines.setdefault(lock.name, Line())
            if line.holders and (lock.mode is not line.mode or lock.mode is Mode.EXCLUSIVE):
                raise ValueError(f"prepared branches hold {lock.name} in modes that exclude each other")
            line.hold(owner, lock)
        self._set_bases(values)

    def learn(self, owner: Owner, values: Mapping[tuple[LockName, str], int]) -> Changes:
        """The trial of a branch read the values under its increment locks: others may now join it."""
        self._set_bases(values)
        return self._advance([name for name, _ in values if self._lines[name].waiting])

    def release(self, owner: Owner, applied: bool) -> Changes:
        """Takes the branch out of every line, held or waited for. `applied` says that its adds are in the values."""
        return self._leave(owner, self._locks[owner], applied)

    def waits(self, owner: Owner) -> bool:
        return owner in self._missing

    def locks(self, owner: Owner) -> tuple[Lock, ...]:
        return self._locks.get(owner, ())

    def waiters(self, owner: Owner) -> list[Owner]:
        """Branches that stand behind this one in a line, in the order of its locks."""
        behind: dict[Owner, None] = {}
        for lock in self._locks.get(owner, ()):
            behind.update(dict.fromkeys(self._lines[lock.name].waiting))
        behind.pop(owner, None)
        return list(behind)

    def blockers(self, owner: Owner) -> list[tuple[LockName, list[Owner]]]:
        """For each name that the branch waits for, those who hold it."""
        lines = ((lock.name, self._lines[lock.name]) for lock in self._locks.get(owner, ()))
        return [(name, list(line.holders)) for name, line in lines if owner in line.waiting]

    def listing(self) -> Iterator[tuple[LockName, Mode, bool, Owner]]:
        """Every lock: name, mode, whether it is held, by whom."""
        for name, line in self._lines.items():
            for owner, lock in line.holders.items():
                yield name, lock.mode, True, owner
            for owner, lock in line.waiting.items():
                yield name, lock.mode, False, owner

    def _set_bases(self, values: Mapping[tuple[LockName, str], int]) -> None:
        for (name, column), value in values.items():
            escrow = self._lines[name].columns.get(column)
            if escrow is not None and escrow.base is None:
                escrow.base = value

    def _leave(self, owner: Owner, locks: Sequence[Lock], applied: bool) -> Changes:
        del self._locks[owner]
        self._missing.pop(owner, None)
        names = []
        for lock in locks:
            line = self._lines[lock.name]
            line.leave(owner, applied)
            if line.waiting:
                names.append(lock.name)
            elif not line.holders:
                del self._lines[lock.name]
        return self._advance(names)

    def _advance(self, names: list[LockName]) -> Changes:
        """Moves these lines as far as they go; a hopeless branch leaves all its lines, which then move too."""
        if not names:
            return NOTHING
        ready: list[Owner] = []
        hopeless: list[tuple[Owner, Hopeless]] = []
        while names:
            name = names.pop(0)
            line = self._lines.get(name)
            if line is None:
                continue
            names += self._advance_line(line, ready, hopeless)
            if not line.holders and not line.waiting:
                del self._lines[name]
        return Changes(ready, hopeless)

    def _advance_line(self, line: Line, ready: list[Owner], hopeless: list[tuple[Owner, Hopeless]]) -> list[LockName]:
        moved: list[LockName] = []
        while line.waiting:
            owner, lock = next(iter(line.waiting.items()))
            verdict = line.judge(lock)
            if verdict is Verdict.WAIT:
                break
            if verdict is Verdict.HOPELESS:
                hopeless.append((owner, line.why_hopeless(lock)))
                locks = self._locks.pop(owner)
                self._missing.pop(owner)
                for each in locks:
                    self._lines[each.name].leave(owner, applied=False)
                moved += [each.name for each in locks]
                continue
            del line.waiting[owner]
            line.hold(owner, lock)
            self._missing[owner] -= 1
            if not self._missing[owner]:
                del self._missing[owner]
                ready.append(owner)
        return moved


def by_column(lock: Lock) -> Iterable[tuple[str, tuple[Add, ...]]]:
    """The adds of an increment lock by column, each in the order given; nothing for other modes."""
    if len(lock.adds) == 1:
        return ((lock.adds[0].column, lock.adds),)
    columns: dict[str, tuple[Add, ...]] = {}
    for add in lock.adds:
        columns[add.column] = (*columns.get(add.column, ()), add)
    return columns.items()
