"""Suggestions for a name that is not known: the known names nearest to it."""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Collection, Iterable
from typing import Final

CUTOFF: Final = 0.6
"""Least similarity of a suggestion, from 0.0 to 1.0, as ``difflib`` measures it."""
CUTOFF_SHORT: Final = 0.5
"""The same for names as short as those of hosts: ``h3`` is half of ``h1``."""

COMPARED_MAX: Final = 500
"""Names that are compared with the text; a comparison takes some 30 us. Of more, the most alike."""


def nearest(text: str, known: Iterable[str]) -> str:
    """Return the name of ``known`` that is most similar to ``text``, or the empty string."""
    return next(iter(near_misses(text, known, count=1)), "")


def near_misses(text: str, known: Iterable[str], *, count: int = 3, cutoff: float = CUTOFF) -> list[str]:
    """Return up to ``count`` names of ``known`` that are similar to ``text``, most similar first.

    Upper and lower case make no difference. The cost is bounded, also for names of a whole cluster.
    """
    folded = {name.lower(): name for name in sorted(set(known), reverse=True)}
    text = text.lower()
    close = difflib.get_close_matches(text, _to_compare(text, folded), n=count, cutoff=cutoff)
    return [folded[name] for name in close]


def _to_compare(text: str, names: Collection[str]) -> list[str]:
    """Return ``names``, sorted; of too many, those with a half of ``text``: a slip leaves the other."""
    if len(names) <= COMPARED_MAX:
        return sorted(names)
    head, tail = text[: len(text) // 2], text[len(text) // 2 :]
    alike = sorted(name for name in names if name.startswith(head) or name.endswith(tail))
    start = max(bisect.bisect(alike, text) - COMPARED_MAX // 2, 0)
    return alike[start : start + COMPARED_MAX]


def did_you_mean(text: str, known: Iterable[str], *, cutoff: float = CUTOFF) -> list[str]:
    """Return a line for ``details`` of an error that suggests near misses, or no line."""
    close = near_misses(text, known, cutoff=cutoff)
    return [f"did you mean {' or '.join(close)}?"] if close else []
