"""Transaction ids that carry their time: UUIDv7 (RFC 9562, section 5.7) as lowercase text.

Such an id is judged by its time alone when the coordinator asks whether its outcome may have been dropped (rule 11),
and ids made one after the other sort in that order, which keeps the decision log's index cheap.
"""

from __future__ import annotations

import functools
import re
import secrets
import time

_UUID7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_id() -> str:
    """A new UUIDv7 by the wall clock, with the fraction of the millisecond in `rand_a` (section 6.2, method 3)."""
    ms, rest_ns = divmod(time.time_ns(), 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000
    number = ms << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@functools.lru_cache(maxsize=4_096)  # an id is asked about some three times while it is open
def time_of(id: str) -> float | None:
    """Wall-clock seconds since 1970 that a well-formed lowercase UUIDv7 carries; None for any other id."""
    found = _UUID7.fullmatch(id)
    return int(found[1] + found[2], 16) / 1000 if found else None
