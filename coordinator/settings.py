"""What a coordinator can be told. Times are seconds; each field has a flag, a TOML key and an environment name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CoordinatorSettings:
    """Limits and times of the coordinator's node."""

    timeout_s: float = 30.0
    """Until a transaction without a timeout of its own is given up."""
    timeout_max_s: float = 3600.0
    """The longest timeout that a client may ask for; a longer one is REFUSED."""
    vote_timeout_s: float = 10.0
    """Until an attempt without all votes is aborted (and tried again while the transaction's deadline allows)."""
    retry_first_s: float = 0.05
    """Pause before the second attempt; doubled for each further one."""
    retry_max_s: float = 1.0
    """The longest pause between attempts, and between repeats of an owed commit (rule 5)."""
    mark_interval_s: float = 0.1
    """How often the low-water mark is worked out anew and sent."""
    mark_age_s: float = 1.0
    """An open attempt older than this is listed beside the mark rather than holding it back."""
    answers_kept_s: float = 7 * 86400.0
    """How long a client's id is answered for (rule 11)."""
    answers_max: int = 20_000_000
    """How many ended outcomes are kept at most; above it the horizon moves forward."""
    expire_interval_s: float = 60.0
    """How often ended outcomes are looked through for what may be dropped."""
    in_flight_max: int = 2_000
    """Submissions open at once; one more is REFUSED as overloaded."""
    operations_max: int = 1_000
    """Operations in one transaction."""
    transaction_bytes_max: int = 3 * 1024 * 1024
    """Bytes of one transaction's operations; below the 4 MiB that a gRPC message may have."""
    id_bytes_max: int = 200
    """Bytes of a client's id."""
    finished_kept: int = 1_000
    """Transactions lately finished whose steps are kept in memory for `show` and `list`."""
