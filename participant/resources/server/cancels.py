"""Cancels that are lost: both drivers connect by `asyncio.wait_for`, which before Python 3.12 swallows one that comes
as what it waits for is done, refused for instance. Whoever tries until it is connected would then never end."""

from __future__ import annotations

import asyncio


def was_cancelled() -> bool:
    """Whether the present task was told to end, heard or not."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
