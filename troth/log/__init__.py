"""The durable log that both sides stand on: one SQLite file, one writer thread, one process (DESIGN section 4).

`file.py` opens and guards the file, `writer.py` commits what is queued in groups, `checkpoint.py` keeps the
write-ahead log short aside of the commits, `restore.py` gives a copied-back file a new identity, `holders.py` names the
process that is in the way. What the records mean only `coordinator/log.py` and `participant/log.py` know.
"""

from __future__ import annotations

from troth.log.file import FORMAT, LogFailed, LogFile, LogHeld, LogRefused, Role, run_script
from troth.log.restore import Restored, restore
from troth.log.writer import AT_ONCE_S, LAZY_S, LogWriter

__all__ = [
    "AT_ONCE_S",
    "FORMAT",
    "LAZY_S",
    "LogFailed",
    "LogFile",
    "LogHeld",
    "LogRefused",
    "LogWriter",
    "Restored",
    "Role",
    "restore",
    "run_script",
]
