"""Suggestions for a name that is not known: the known names nearest to it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

CUTOFF: Final = 0.6
"""Least similarity of a suggestion, from 0.0 to 1.0, as ``difflib`` measures it."""
CUTOFF_SHORT: Final = 0.5
"""The same for names as short as those of hosts: ``h3`` is half of ``h1``."""


def nearest(text: str, known: Iterable[str]) -> str:
    """Return the name of ``known`` that is most similar to ``text``, or the empty string."""
    return next(iter(near_misses(text, known, count=1)), "")


def near_misses(text: str, known: Iterable[str], *, count: int = 3, cutoff: float = CUTOFF) -> list[str]:
    """Return up to ``count`` names of ``known`` that are similar to ``text``, most similar first.

    Upper and lower case make no difference.
    """
    folded = {name.lower(): name for name in sorted(set(known), reverse=True)}
    close = difflib.get_close_matches(text.lower(), sorted(folded), n=count, cutoff=cutoff)
    return [folded[name] for name in close]


def did_you_mean(text: str, known: Iterable[str], *, cutoff: float = CUTOFF) -> list[str]:
    """Return a line for ``details`` of an error that suggests near misses, or no line."""
    close = near_misses(text, known, cutoff=cutoff)
    return [f"did you mean {' or '.join(close)}?"] if close else []
