"""The transactions that the matrix runs, and which points each of them reaches.

The first four are the ways of a transaction. The others bring about, by a first fault that is always the same, what a
transaction meets only when something has gone wrong, so that a second fault can strike there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from troth.operations import Transaction
from troth.words import Outcome

PARTICIPANTS = ("p1", "p2", "p3")
FIRST, LAST = PARTICIPANTS[0], PARTICIPANTS[-1]

SCHEMA = """
CREATE TABLE accounts (name VARCHAR(20) NOT NULL PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE latest (name VARCHAR(20) NOT NULL PRIMARY KEY, id VARCHAR(200) NOT NULL);
"""

BY = {"p1": -1, "p2": 0, "p3": 1}
"""What a committed transaction adds to the one account of each participant that it updates."""

TIMEOUT_S = 20.0
"""A transaction's own: far longer than any fault of the matrix lasts, so that all of them are tried again."""


def _moved(id: str, *participants: str) -> Transaction:
    """An increment, whose sum tells how often it was applied, and a row that every transaction locks exclusively, so
    that a lock which is left behind is in the way of the next one."""
    moved = Transaction(id, timeout_s=TIMEOUT_S)
    for name in participants:
        moved.at(name).add("accounts", "all", "balance", BY[name]).upsert("latest", "one", {"id": id})
    return moved


def _commit(id: str) -> Transaction:
    return _moved(id, *PARTICIPANTS)


def _abort(id: str) -> Transaction:
    """The last participant's NO comes from its trial, after all else was fit to commit."""
    return _moved(id, *PARTICIPANTS).check("accounts", "all", "balance", equals=-1_000_000)


def _mix(id: str) -> Transaction:
    return _moved(id, "p1", "p2").at("p3").read("accounts", "all")


def _alone(id: str) -> Transaction:
    return _moved(id, "p1")


class Case(NamedTuple):
    """One kind of transaction. What it reaches is written WHAT:STEP (`prepare:send` is the points before and after)."""

    name: str
    about: str
    transaction: Callable[[str], Transaction] | None
    """None: nothing is submitted, the id is fenced (`troth abort`)."""
    outcome: Outcome
    updating: tuple[str, ...]
    """Participants that apply it when it commits."""
    coordinator: Mapping[str, int]
    """What the coordinator reaches, and how often; a message once for each participant concerned."""
    first: tuple[str, ...]
    """What p1 reaches."""
    last: tuple[str, ...] = ()
    """What p3 reaches."""
    provoked: tuple[str, ...] = ()
    """The rules of the first fault."""
    down: bool = False
    """The coordinator, killed by the first fault, stays dead until the second one has struck."""
    by_hand: bool = False
    """A person resolves the branch of p1 before the coordinator starts again."""
    apart: bool = False
    """The fault at p1 and that at p3 exclude each other: one follows from what the other cuts off."""


_CARRIED: Mapping[str, str] = {
    "voted:send": "try:carry",
    **{f"{job}:flush": f"{job}:carry" for job in ("run-alone", "apply", "undo", "resolve")},
}
"""What comes before a step where the data are at a server."""


def carried(steps: Iterable[str]) -> tuple[str, ...]:
    """What a participant reaches whose data are at a server, from what one with a file does."""
    return *steps, *(_CARRIED[step] for step in steps if step in _CARRIED)


_PREPARED = ("prepare:receive", "try:flush", "voted:send")
_APPLIED = ("commit:receive", "apply:flush", "acknowledged:send")

CASES: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case(
            "commit",
            "three participants update and commit",
            _commit,
            Outcome.COMMITTED,
            PARTICIPANTS,
            {
                "submitted:receive": 1,
                "prepare:send": 3,
                "voted:receive": 3,
                "committed:flush": 1,
                "submitted:reply": 1,
                "commit:send": 3,
                "acknowledged:receive": 3,
                "ended:flush": 1,
                "mark:send": 3,
                "expired:flush": 1,
            },
            (*_PREPARED, *_APPLIED, "mark:receive", "forget:flush"),
            (*_PREPARED, *_APPLIED, "mark:receive", "forget:flush"),
        ),
        Case(
            "abort",
            "the last participant votes NO after the others have voted YES",
            _abort,
            Outcome.ABORTED,
            (),
            {
                "submitted:receive": 1,
                "prepare:send": 3,
                "voted:receive": 3,
                "abort:send": 2,
                "aborted:flush": 1,
                "submitted:reply": 1,
            },
            (*_PREPARED, "abort:receive", "undo:flush"),
            ("prepare:receive", "voted:send"),
            # Not at its vote: a cell that strikes there takes the place of the rule, and the NO would outrun the votes.
            provoked=("p3:prepare:before-receive=delay(0.15)",),
        ),
        Case(
            "mix",
            "two participants update, the last one only reads",
            _mix,
            Outcome.COMMITTED,
            ("p1", "p2"),
            {
                "submitted:receive": 1,
                "prepare:send": 3,
                "voted:receive": 3,
                "committed:flush": 1,
                "submitted:reply": 1,
                "commit:send": 2,
                "release:send": 1,
                "acknowledged:receive": 2,
                "ended:flush": 1,
            },
            (*_PREPARED, *_APPLIED),
            ("prepare:receive", "voted:send", "release:receive"),
        ),
        Case(
            "alone",
            "one participant, which decides (one-phase)",
            _alone,
            Outcome.COMMITTED,
            ("p1",),
            {
                "submitted:receive": 1,
                "claimed:flush": 1,
                "one-phase:send": 1,
                "one-phase-ended:receive": 1,
                "settled:flush": 1,
                "submitted:reply": 1,
            },
            ("one-phase:receive", "run-alone:flush", "one-phase-ended:send"),
        ),
        Case(
            "asking",
            "every commit is lost once, so participants ask on their lanes",
            _commit,
            Outcome.COMMITTED,
            PARTICIPANTS,
            {"question:receive": 3, "answered:send": 3},
            ("question:send", "answered:receive"),
            ("question:send", "answered:receive"),
            provoked=("coordinator:commit:before-send=dropx3",),
        ),
        Case(
            "again",
            "the one-phase request is lost: the coordinator asks, drops the attempt and tries again",
            _alone,
            Outcome.COMMITTED,
            ("p1",),
            {"question:send": 1, "answered:receive": 1, "dropped:flush": 1},
            ("question:receive", "answered:send"),
            provoked=("p1:one-phase:before-receive=drop",),
        ),
        Case(
            "calling",
            "the coordinator dies decided, and starts with its lanes late: participants ask it by single calls",
            _commit,
            Outcome.COMMITTED,
            PARTICIPANTS,
            {"asked:receive": 3, "asked:reply": 3},
            ("ask-coordinator:send", "coordinator-answered:receive"),
            ("ask-coordinator:send", "coordinator-answered:receive"),
            provoked=(
                "coordinator:committed:after-flush=kill",
                "coordinator:coordinator-hello:before-send=delay(1.5)x9",
                # Else the first that hears the outcome from the coordinator tells the others.
                "participant:ask-peer:before-send=dropx999",
            ),
        ),
        Case(
            "silence",
            "the coordinator is dead, and all are prepared: they ask each other, and nobody may say",
            _commit,
            Outcome.COMMITTED,
            PARTICIPANTS,
            {},
            ("ask-peer:send", "peer-answered:receive", "peer-asked:receive", "peer-asked:reply"),
            ("ask-peer:send", "peer-answered:receive", "peer-asked:receive", "peer-asked:reply"),
            provoked=("coordinator:committed:after-flush=kill",),
            down=True,
        ),
        Case(
            "refusal",
            "the coordinator dies before the last participant has voted: that one refuses for a peer",
            _commit,
            Outcome.COMMITTED,
            PARTICIPANTS,
            {},
            ("peer-answered:receive", "undo:flush"),
            ("peer-asked:receive", "undo:flush", "peer-asked:reply"),
            provoked=("p3:prepare:before-receive=drop", "coordinator:voted:after-receive=kill"),
            down=True,
            apart=True,
        ),
        Case(
            "recovery",
            "the coordinator dies decided, and starts again owing the commit",
            _commit,
            Outcome.COMMITTED,
            PARTICIPANTS,
            {"epoch:flush": 1, "coordinator-hello:send": 3, "participant-hello:receive": 3},
            ("coordinator-hello:receive", "participant-hello:send"),
            ("coordinator-hello:receive", "participant-hello:send"),
            provoked=("coordinator:committed:after-flush=kill",),
        ),
        Case(
            "by-hand",
            "the coordinator dies decided, and a person resolves the first participant's branch and clears the record",
            _commit,
            Outcome.COMMITTED,
            PARTICIPANTS,
            {"heuristic:flush": 1, "resolve-asked:receive": 1, "cleared:flush": 1, "resolve-asked:reply": 1},
            ("resolve-asked:receive", "resolve:flush", "resolve-asked:reply", "learn:flush"),
            provoked=("coordinator:committed:after-flush=kill",),
            down=True,
            by_hand=True,
        ),
        Case(
            "fence",
            "an id that never ran is aborted on request",
            None,
            Outcome.ABORTED,
            (),
            {"abort-asked:receive": 1, "abort-asked:reply": 1},
            (),
        ),
    )
}

NOT_REACHED: Mapping[str, str] = {
    "coordinator:known": "only when a coordinator first meets a file",
    "participant:contradict": "only when somebody has ended a branch at the server otherwise than its coordinator did",
    "participant:note": "only when a participant first meets a coordinator, or its address changes",
    "participant:received": "the steps of a branch as single calls, which only people and tests make",
}
"""Points, by ROLE:WHAT, that no case reaches, and why."""
