"""Releases whose files and messages this one refuses, because it cannot read them."""

from __future__ import annotations

from typing import Final

RELEASE_OF_FORMAT: Final = {1: "0.1.0", 2: "0.2.0"}
"""Release by the format of its messages, of a cluster's folder and of an agent's database."""


def release_of(format_: int) -> str:
    """Return the name of the release that wrote a format lower than our own."""
    return RELEASE_OF_FORMAT.get(format_, "an earlier release")
