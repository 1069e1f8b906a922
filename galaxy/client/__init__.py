"""The SDK: ``from galaxy.client import Galaxy``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from galaxy.client.sdk import Galaxy

__all__ = ["Galaxy"]


def __getattr__(name: str) -> Any:
    # Connecting takes a Redis client, which is slow to import; contexts and job files do without.
    if name == "Galaxy":
        from galaxy.client.sdk import Galaxy

        return Galaxy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
