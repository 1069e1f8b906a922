"""The SDK: ``from galaxy.client import Galaxy``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from galaxy.client.sdk import Galaxy

__all__ = ["Galaxy"]


def __getattr__(name: str) -> Any:
    # The Redis client is slow to import, and contexts and job files do not need it.
    if name == "Galaxy":
        from galaxy.client.sdk import Galaxy

        return Galaxy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
