"""The offline auditor: reads logs and data files at rest and says whether every transaction was atomic.

`audit(paths)` for programs, `troth verify` for people. It shares no code with the engine that wrote the files but the
schema and the words, so that one mistake cannot hide itself: see `tests/test_auditor_layout.py`.

`files.py` opens a file without changing it, `claims.py` reads what it says of each attempt, `case.py` gathers what all
say of one, `contradictions.py` and `doubts.py` judge it, `sets.py` compares the files as files, `rows.py` and
`replay.py` replay a participant's history, `findings.py` is what comes out.
"""

from __future__ import annotations

from faults.auditor.auditing import Verdict, audit
from faults.auditor.findings import Audit, Finding

__all__ = ["Audit", "Finding", "Verdict", "audit"]
