"""What can hold the data here."""

from __future__ import annotations

import importlib

from faults.servers import KINDS, ServerMissing

RESOURCES = ("sqlite", *KINDS)


def there() -> list[str]:
    """All whose servers and drivers are installed."""
    return [name for name in RESOURCES if why_not(name) is None]


def why_not(name: str) -> str | None:
    """Why one cannot be had here."""
    if name not in RESOURCES:
        return f"there is no such resource; there are {', '.join(RESOURCES)}"
    try:
        importlib.import_module(f"participant.resources.{name}")
        if name in KINDS:
            KINDS[name].find()
    except (ModuleNotFoundError, ServerMissing) as error:
        return str(error)
    return None


def servers(names: list[str]) -> list[str]:
    """Those of them that are servers."""
    return [name for name in names if name in KINDS]
