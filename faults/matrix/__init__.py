"""The crash-point matrix: every failpoint with every fault that makes sense there, on real processes and real files.

`catalogue.py` says what points there are, `cases.py` what is run, `cells.py` which crossings mean something. `arena.py`
runs one cell in a cluster, and `judge.py` says what did not hold; `run.py` runs many side by side, `report.py` shows
how they ended. A cell is run on files alone, or at database servers, which are then killed as well.
"""

from __future__ import annotations

from faults.matrix.arena import Arena, Result
from faults.matrix.cells import Cell, cells
from faults.matrix.run import Runner

__all__ = ["Arena", "Cell", "Result", "Runner", "cells"]
