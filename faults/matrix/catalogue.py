"""The failpoints there are, described from the code's own classes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from coordinator import driver as coordinator
from coordinator.log import EPOCH
from participant import driver as participant
from troth.failpoints import Point
from troth.v1.participant_pb2 import CoordinatorHello, ParticipantHello

POINTS: tuple[Point, ...] = (*coordinator.FAILPOINTS, *participant.FAILPOINTS)

_WHEN: Mapping[str, str] = {
    "before-send": "about to be sent",
    "after-send": "sent",
    "before-receive": "arrived, and not looked at",
    "after-receive": "taken up, what follows from it queued",
    "before-carry": "about to be carried out by the server that holds the data",
    "after-carry": "carried out there, and not written down here",
    "before-flush": "written, its commit not begun",
    "after-flush": "durable, and nobody told",
    "before-reply": "its answer known, and not sent",
}

_NO_DOCSTRING: Mapping[type | str, str] = {
    CoordinatorHello: "A lane opens: who the coordinator is and what it has seen.",
    ParticipantHello: "The answer to a coordinator's hello, with the questions of branches in doubt.",
    EPOCH: "The epoch of this incarnation, before anything is sent or answered.",
}
"""What comes from no class of ours."""


def described(point: Point) -> str:
    """One line: where the process is, and what the message, record or event is."""
    return f"{_WHEN[point.when]}: {about(point.of)}"


def about(of: type | str) -> str:
    """The first sentence of a class's docstring."""
    text = _NO_DOCSTRING.get(of) or inspect.getdoc(of) or ""
    return " ".join(text.split()).split(". ")[0].rstrip(".")
