"""How one process is, in one shape for coordinator and participants, as `troth status` shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from troth.cli import render
from troth.v1 import coordinator_pb2, participant_pb2


@dataclass
class ProcessStatus:
    """One process, up or down."""

    COLUMNS: ClassVar = ("name", "role", "address", "state", "lane", "in flight", "in doubt", "oldest", "log", "pid")

    name: str
    role: str
    address: str
    up: bool
    serving: bool = False
    lane: str = ""
    """`open`, or why the coordinator has none; empty for the coordinator itself, and while it cannot be asked."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What JSON says of it beyond this."""
    alarms: list[str] = field(default_factory=list)
    error: str = ""
    """Why it is not up."""

    @classmethod
    def down(cls, name: str, role: str, address: str, error: str) -> Self:
        """One that did not answer."""
        return cls(name, role, address, up=False, error=error)

    @classmethod
    def of_coordinator(cls, address: str, found: coordinator_pb2.CoordinatorStatus) -> Self:
        """From its own answer."""
        facts = {
            "pid": found.pid,
            "in_flight": found.in_flight,
            "unresolved": found.unresolved,
            "oldest_s": round(found.oldest_s, 3),
            "log_bytes": found.log_bytes,
            "log": found.log,
            "epoch": found.epoch,
            "committed": found.committed,
            "aborted": found.aborted,
            "refused": found.refused,
            "counters": render.counters_json(found.counters),
        }
        return cls("coordinator", "coordinator", address, True, found.serving, "", facts, list(found.alarms))

    @classmethod
    def of_participant(
        cls, address: str, found: participant_pb2.ParticipantStatus, lane: coordinator_pb2.LaneStatus | None
    ) -> Self:
        """From its own answer, and what the coordinator says of it."""
        facts = {
            "pid": found.pid,
            "in_flight": found.in_flight,
            "in_doubt": found.in_doubt,
            "oldest_s": round(found.oldest_s, 3),
            "log_bytes": found.log_bytes,
            "identity": found.identity,
            "incarnation": found.incarnation,
            "finished": found.finished,
            "counters": render.counters_json(found.counters),
        }
        if lane is not None:
            facts["owed"] = lane.owed
        described = "" if lane is None else "open" if lane.open else lane.error or "closed"
        alarms = list(found.alarms)
        return cls(found.participant, "participant", address, True, found.serving, described, facts, alarms)

    @property
    def well(self) -> bool:
        """It serves, and the coordinator (when it could be asked) has its lane."""
        return self.serving and self.lane in ("", "open")

    @property
    def troubles(self) -> list[str]:
        """What a person should read: why it is down, and its latest alarms."""
        return [*([self.error] if self.error else []), *(f"ALARM: {alarm}" for alarm in self.alarms)]

    @property
    def state(self) -> str:
        """`serving`, `not serving` (it starts or stops), or `down`."""
        return "serving" if self.serving else "not serving" if self.up else "down"

    def json(self) -> dict[str, Any]:
        """One object; what is not known is left out."""
        found: dict[str, Any] = {"name": self.name, "role": self.role, "address": self.address}
        found |= {"up": self.up, "serving": self.serving}
        if self.lane:
            found["lane"] = self.lane
        found |= self.facts
        if self.alarms:
            found["alarms"] = self.alarms
        if self.error:
            found["error"] = self.error
        return found

    def cells(self) -> list[object]:
        """A row of a table, as COLUMNS says."""
        facts = self.facts
        in_doubt = facts.get("in_doubt", "")
        oldest = render.age_text(facts["oldest_s"]) if facts.get("oldest_s") else ""
        log = render.bytes_text(facts["log_bytes"]) if "log_bytes" in facts else ""
        place = [self.name, self.role, self.address, self.state, self.lane]
        return [*place, facts.get("in_flight", ""), in_doubt, oldest, log, facts.get("pid", "")]
