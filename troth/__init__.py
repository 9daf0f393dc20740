"""All-or-nothing transactions across services and databases: the public face for applications.

    async with troth.connect("127.0.0.1:7400") as client:
        transfer = troth.Transaction().at("p1").add("accounts", "alice", "balance", -100, min=0)
        transfer.at("p2").add("accounts", "bob", "balance", 100)
        await client.submit(transfer)

`troth.sync.connect` is the same without await. The names are loaded when they are first used, so that the coordinator
and the participants, which share this package's words, do not load a client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from troth.client import Client, connect
    from troth.client.participants import ParticipantClient, connect_participant
    from troth.client.results import Result, Row
    from troth.errors import (
        Aborted,
        BadInput,
        Contradiction,
        OutcomeUnknown,
        Refused,
        ServerError,
        TrothError,
        Unreachable,
    )
    from troth.ids import new_id
    from troth.operations import Transaction
    from troth.words import Outcome

__all__ = [
    "Aborted",
    "BadInput",
    "Client",
    "Contradiction",
    "Outcome",
    "OutcomeUnknown",
    "ParticipantClient",
    "Refused",
    "Result",
    "Row",
    "ServerError",
    "Transaction",
    "TrothError",
    "Unreachable",
    "connect",
    "connect_participant",
    "new_id",
]

_HOMES = {
    "troth.client": ("Client", "connect"),
    "troth.errors": (
        "Aborted",
        "BadInput",
        "Contradiction",
        "OutcomeUnknown",
        "Refused",
        "ServerError",
        "TrothError",
        "Unreachable",
    ),
    "troth.ids": ("new_id",),
    "troth.operations": ("Transaction",),
    "troth.client.participants": ("ParticipantClient", "connect_participant"),
    "troth.client.results": ("Result", "Row"),
    "troth.words": ("Outcome",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = found  # So that it is looked up once.
    return found
