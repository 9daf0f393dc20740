"""What a participant can be told. Times are seconds; each field has a flag, a TOML key and an environment name."""

from __future__ import annotations

from dataclasses import dataclass

LOOK_INTERVAL_MAX_S = 10.0
"""Between two looks nothing is asked on the session by which a MariaDB knows the one process that works for a file."""


@dataclass(frozen=True)
class ParticipantSettings:
    """Limits and times of the participant's node."""

    lock_timeout_s: float = 5.0
    """A lock wait past this is a retryable NO."""
    inquiry_after_s: float = 1.0
    """A prepared branch that has heard nothing for so long asks the coordinator."""
    inquiry_max_s: float = 1.0
    """The longest pause between two inquiries of one branch."""
    ask_peers_after_s: float = 2.0
    """When the coordinator has not answered for so long, the other updating participants are asked too."""
    forget_interval_s: float = 1.0
    """How often remembered attempts below the mark are dropped from the file."""
    connections: int = 16
    """At most so many connections to a server that holds the data, for branches at work; ends have their own."""
    look_interval_s: float = 5.0
    """How often a participant whose data are at a server looks there for branches that somebody else has ended; at most
    10s."""

    def __post_init__(self) -> None:
        if self.look_interval_s > LOOK_INTERVAL_MAX_S:
            raise ValueError(f"look_interval is at most {LOOK_INTERVAL_MAX_S:g}s, not {self.look_interval_s:g}s")
