"""Wanted against found: what an agent's report says about what should be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from galaxy.model.messages.container import ObservedContainer


class Difference(NamedTuple):
    """``known``: found and on the books here. ``strange``: found, and not. ``missing``: the reverse."""

    known: tuple[tuple[str, ObservedContainer], ...]
    strange: tuple[ObservedContainer, ...]
    missing: tuple[str, ...]


def difference(
    booked: Mapping[tuple[str, int], str], found: Iterable[ObservedContainer], *, full: bool
) -> Difference:
    """Compare lives booked on an agent, (container, incarnation) to key, with those it found.

    Only a full report can show that something is missing.
    """
    known, strange, seen = [], [], set()
    for one in found:
        key = booked.get((one.container, one.incarnation))
        if key is None:
            strange.append(one)
        else:
            known.append((key, one))
            seen.add(key)
    missing = tuple(key for key in booked.values() if key not in seen) if full else ()
    return Difference(tuple(known), tuple(strange), missing)
