"""Named points at which a process can be told to fail. Off, and then nearly free, unless TROTH_FAILPOINTS is set.

    p2:voted:before-send=kill                 p2 dies before its first vote leaves
    coordinator:commit:before-send=drop@2x3   the second, third and fourth commit are lost
    participant:apply:before-flush=delay(0.5) every participant is slow once
    @/run/failpoints                          the rules in that file, read anew whenever it changes

A rule is WHO:WHAT:WHEN=ACTION[(SECONDS)][@NTH][xTIMES]; rules are separated by commas or lines. WHO is a role, or the
name of one process, so that one text can serve a whole cluster: what is for others is only looked at for its form.
WHAT and WHEN are those of `troth failpoints`. A rule strikes at the NTH time that its point is reached in this life of
the process (the first), TIMES times in a row (once).

What strikes is logged before it happens. Points are at what leaves and enters the process and at what becomes durable;
the nodes have none, as they do nothing by themselves. Not here: a slow or cut network between processes, and faults of
single system calls; a proxy and strace do those from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import enum
import functools
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

log = structlog.get_logger(__name__)

M = TypeVar("M")


class Action(enum.Enum):
    """What a rule does."""

    KILL = "kill"
    """SIGKILL to itself: nothing more is done, said or written."""
    STOP = "stop"
    """SIGSTOP to itself: there, and silent, until somebody sends SIGCONT."""
    DELAY = "delay"
    """Waits so many seconds. At a message all that follows it on its stream waits too, and the rest of the process goes
    on; at a flush the disk is slow."""
    DROP = "drop"
    """The message is lost; a single call is never answered."""
    DUPLICATE = "duplicate"
    """The message goes twice."""
    ERROR = "error"
    """The commit fails as by an fdatasync that gives EIO: before the flush nothing of it is in the file, after it all
    is, which are the two things that a new process may find then."""
    FULL = "full"
    """The disk is full: SQLite itself is not given another page, and says SQLITE_FULL."""
    NOTE = "note"
    """Nothing but the line in the log."""


_ANY = (Action.KILL, Action.STOP, Action.DELAY)
_CALL = {"before": (*_ANY, Action.DROP, Action.NOTE)}
_HELLO = {**_CALL, "after": (*_ANY, Action.NOTE)}
_MESSAGE = {"before": (*_ANY, Action.DROP, Action.DUPLICATE, Action.NOTE), "after": (*_ANY, Action.NOTE)}
_FLUSH = {
    "before": (*_ANY, Action.ERROR, Action.FULL, Action.NOTE),
    "after": (*_ANY, Action.ERROR, Action.NOTE),
}

_CARRY = {"before": (*_ANY, Action.NOTE), "after": (*_ANY, Action.NOTE)}

_COPIES = {Action.DROP: 0, Action.DUPLICATE: 2}


class Point(NamedTuple):
    """One point: who reaches it, what it is about, and when."""

    role: str
    of: type | str
    """The class of the message, record or event."""
    when: str
    actions: tuple[Action, ...]
    """Those that make sense here."""

    @property
    def what(self) -> str:
        return what(self.of)

    def __str__(self) -> str:
        return f"{self.role}:{self.what}:{self.when}"


@functools.cache
def what(of: type | str) -> str:
    """A class as rules name it: `OnePhaseEnded` is `one-phase-ended`."""
    return of if isinstance(of, str) else re.sub(r"(?<=[a-z])(?=[A-Z])", "-", of.__name__).lower()


def points(
    role: str,
    *,
    greets: Iterable[type] = (),
    greeted: Iterable[type] = (),
    sends: Iterable[type] = (),
    receives: Iterable[type] = (),
    writes: Iterable[type | str] = (),
    carries: Iterable[type] = (),
    asks: Iterable[type] = (),
    answers: Iterable[type] = (),
    serves: Iterable[type] = (),
) -> tuple[Point, ...]:
    """All points of a role, from the messages and records that its driver handles. The first two are the hellos
    that it sends and gets: a lane whose hello is lost stays silent. `carries` are jobs that a resource outside the file
    has a part in: before and after that. The last three are of single calls: what it asks others, the answers to that,
    and what it is asked."""
    table: Sequence[tuple[Iterable[type | str], str, Mapping[str, tuple[Action, ...]]]] = (
        (greets, "send", _HELLO),
        (greeted, "receive", _CALL),
        (sends, "send", _MESSAGE),
        (receives, "receive", _MESSAGE),
        (writes, "flush", _FLUSH),
        (carries, "carry", _CARRY),
        (asks, "send", _CALL),
        (answers, "receive", _CALL),
        (serves, "receive", _CALL),
        (serves, "reply", _CALL),
    )
    return tuple(
        Point(role, of, f"{side}-{step}", actions)
        for kinds, step, sides in table
        for of in kinds
        for side, actions in sides.items()
    )


class Rule:
    """One rule, and how often its point was reached."""

    _FORM = re.compile(
        r"(?P<who>[^:=\s]+):(?P<what>[a-z-]+):(?P<when>[a-z-]+)=(?P<action>[a-z]+)"
        r"(?:\((?P<seconds>\d+(?:\.\d+)?)\))?(?:@(?P<nth>[1-9]\d*))?(?:x(?P<times>[1-9]\d*))?"
    )

    def __init__(self, text: str) -> None:
        """Raises ValueError, naming what is wrong in `text`."""
        found = self._FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not WHO:WHAT:WHEN=ACTION[(SECONDS)][@NTH][xTIMES]")
        actions = [action.value for action in Action]
        if found["action"] not in actions:
            raise ValueError(f"{text!r}: there is no action {found['action']!r}; there are {', '.join(actions)}")
        self.text = text
        self.who, self.what, self.when = found["who"], found["what"], found["when"]
        self.action = Action(found["action"])
        if (self.action is Action.DELAY) != (found["seconds"] is not None):
            raise ValueError(f"{text!r}: delay, and nothing else, has seconds in brackets, as in delay(0.5)")
        self.seconds = float(found["seconds"] or 0)
        self._first = int(found["nth"] or 1)
        self._last = self._first + int(found["times"] or 1) - 1
        self._reached = 0

    def strikes(self) -> bool:
        """Whether it is its turn; called each time that the point is reached."""
        self._reached += 1
        return self._first <= self._reached <= self._last


class Failpoints:
    """The rules of one process. Any thread may ask."""

    def __init__(self, name: str, catalogue: Sequence[Point], text: str) -> None:
        """`name` is the process's own. Raises ValueError for a text that cannot be meant."""
        self._role, self._name = catalogue[0].role, name
        self._actions = {(point.what, point.when): point.actions for point in catalogue}
        self._file = Path(text[1:]) if text.startswith("@") else None
        self._stamp: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._rules: dict[tuple[str, str], list[Rule]] = {}
        if self._file is None:
            self._rules = self._parsed(text)
        else:
            self._look()

    def struck(self, of: type | str, when: str) -> Rule | None:
        """Counts that a point was reached. Gives the rule that strikes, logged, and done as far as it is a signal."""
        with self._lock:
            self._look_again()
            striking = [rule for rule in self._rules.get((what(of), when), ()) if rule.strikes()]
        if not striking:
            return None
        rule = striking[0]
        log.warning("failpoint", point=f"{self._name}:{rule.what}:{rule.when}", action=rule.action.value)
        if rule.action is Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        elif rule.action is Action.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        return rule

    def _look_again(self) -> None:
        try:
            self._look()
        except ValueError as error:
            log.error("these failpoints cannot be meant, so there are none", why=str(error))

    def _look(self) -> None:
        """Reads the file when it is another one than last time; without a file there are no rules."""
        if self._file is None:
            return
        try:
            found = self._file.stat()
            stamp = (found.st_ino, found.st_mtime_ns)
            text = self._file.read_text() if stamp != self._stamp else ""
        except FileNotFoundError:
            stamp, text = (0, 0), ""
        if stamp != self._stamp:
            self._stamp, self._rules = stamp, {}
            self._rules = self._parsed(text)

    def _parsed(self, text: str) -> dict[tuple[str, str], list[Rule]]:
        rules: dict[tuple[str, str], list[Rule]] = {}
        for each in re.split(r"[,\s]+", text.strip()):
            if each and (rule := Rule(each)).who in (self._role, self._name):
                self._check(rule)
                rules.setdefault((rule.what, rule.when), []).append(rule)
        return rules

    def _check(self, rule: Rule) -> None:
        point = (rule.what, rule.when)
        if point not in self._actions:
            names = [f"{what}:{when}" for what, when in self._actions]
            near = difflib.get_close_matches(":".join(point), names, n=1)
            hint = f"did you mean {near[0]}?" if near else "`troth failpoints` lists them"
            raise ValueError(f"{rule.text!r}: a {self._role} has no point {':'.join(point)}; {hint}")
        if rule.action not in self._actions[point]:
            can = ", ".join(action.value for action in self._actions[point])
            raise ValueError(f"{rule.text!r}: {rule.action.value} makes no sense there; {can} do")


_active: Failpoints | None = None


def arm(name: str, catalogue: Sequence[Point], text: str) -> None:
    """Sets the failpoints of this process, once, before it does anything; an empty text sets none. Raises
    ValueError."""
    global _active
    _active = Failpoints(name, catalogue, text) if text else None
    if text:
        log.warning("failpoints are set: this process fails when it is told to", rules=text)


# The points themselves.


async def through(when: str, messages: Sequence[M]) -> Sequence[M]:
    """Messages at one point of a stream: those that go on, in order."""
    active = _active
    if active is None:
        return messages
    passed: list[M] = []
    for message in messages:
        passed += [message] * await _copies(active, type(message), when)
    return passed


async def call(when: str, of: type) -> None:
    """A single call, or a hello, at one point; does not return when it is lost."""
    active = _active
    if active is not None and not await _copies(active, of, when):
        await asyncio.get_running_loop().create_future()


async def _copies(active: Failpoints, of: type, when: str) -> int:
    rule = active.struck(of, when)
    if rule is None:
        return 1
    await asyncio.sleep(rule.seconds)
    return _COPIES.get(rule.action, 1)


@contextlib.contextmanager
def flush(connection: sqlite3.Connection, records: Iterable[object]) -> Iterator[None]:
    """Around the commit that makes `records` durable; a str stands for itself. Raises sqlite3.OperationalError when
    the disk is told to fail."""
    active = _active
    if active is None:
        yield
        return
    kinds = list(dict.fromkeys(each if isinstance(each, str) else type(each) for each in records))
    for kind in kinds:
        _obey_disk(active.struck(kind, "before-flush"), connection)
    yield
    for kind in kinds:
        _obey_disk(active.struck(kind, "after-flush"), connection)


def _obey_disk(rule: Rule | None, connection: sqlite3.Connection) -> None:
    if rule is None:
        return
    time.sleep(rule.seconds)
    if rule.action is Action.ERROR:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"
        raise error
    if rule.action is Action.FULL:
        connection.execute("PRAGMA max_page_count = 1")  # as low as it goes: what the file has now
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("CREATE TABLE troth_no_room AS SELECT zeroblob(?)", ((free + 2) * page,))
        raise AssertionError("SQLite found room in a file that may not grow")
