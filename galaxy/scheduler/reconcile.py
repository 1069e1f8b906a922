"""Desired against observed: how an agent's report differs from the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from galaxy.model.messages.container import ObservedContainer


class Difference(NamedTuple):
    """``known``: observed and expected. ``unknown``: only observed. ``missing``: only expected."""

    known: tuple[tuple[str, ObservedContainer], ...]
    unknown: tuple[ObservedContainer, ...]
    missing: tuple[str, ...]


def difference(
    expected: Mapping[tuple[str, int], str], observed: Iterable[ObservedContainer], *, full: bool
) -> Difference:
    """Compare what is expected on an agent, (container, incarnation) to key, with what it reports.

    Only a full report can show that something is missing.
    """
    known, unknown, seen = [], [], set()
    for one in observed:
        key = expected.get((one.container, one.incarnation))
        if key is None:
            unknown.append(one)
        else:
            known.append((key, one))
            seen.add(key)
    missing = tuple(key for key in expected.values() if key not in seen) if full else ()
    return Difference(tuple(known), tuple(unknown), missing)
