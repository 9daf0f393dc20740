"""`troth chaos`: two workloads under real faults on real processes, then a check of every row.

It speaks only the public services, so it runs against any coordinators and participants; faults that need a start of
ours (links through a proxy, a disk that fails) are applied to a cluster that it started itself.
"""

from __future__ import annotations

import os

# Before gRPC is loaded, which looks once: its own words about lost connections would spoil the picture.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
