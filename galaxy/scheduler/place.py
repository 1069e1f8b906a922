"""Placement: filter, score, choose, for many equal containers at once.

A container goes to the agent with the fewest replicas of its group, so that one lost host takes few
of them. Among those, it goes where it strands least: where the free shares of cpu and memory drift
apart least, and where little is left free, so that empty agents stay free for large containers. An
empty agent counts as if it had a tenth of the group already, so it is used only when the others have
at least as many. Agents with the preferred marks come first as long as they have room. Agents that
failed recently, and those in ``avoid``, are used last. With ``spread``, the domain with the fewest
replicas comes before all this, except for the agents that are used last. Ties go to the lower name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import reduce
from typing import Final

import numpy as np

from galaxy.scheduler.cluster_view import ASKED_AT, PACKED_AT, ClusterView
from galaxy.scheduler.constraints import feasible
from galaxy.scheduler.eligible import Eligible, Floats, Ints
from galaxy.scheduler.explain import explain
from galaxy.scheduler.requests import Ask, Placement, PlacementPlan, Refusal

FILL_WEIGHT: Final = 0.25
"""Weight of the largest free share that is left, relative to the growth of the imbalance between shares."""

PREFERRED: Final = 10_000
"""For each preferred mark that an agent lacks, it counts as having this many replicas of the group."""

LAST_RESORT: Final = 1_000_000
"""An agent to avoid counts as having this many replicas of the group."""

OPEN_SHARE: Final = 10
"""An empty agent counts as having 1/10 of the group."""


def place(view: ClusterView, asks: Iterable[Ask], *, only: Collection[int] | None = None) -> PlacementPlan:
    """Find an agent for each container, most important asks first, and charge it to ``view``.

    ``only`` restricts the choice to these rows, and refusals are not explained. It is for asks that
    were refused before, when only these rows may have more room since.
    """
    placements: list[Placement] = []
    refusals: list[Refusal] = []
    names = view.names
    for ask in sorted(asks, key=lambda ask: ask.priority):
        eligible = view.eligible(ask.shape)
        if only is not None:
            eligible = eligible.only(only, len(view))
        rows = _choose(view, ask, eligible)
        if len(rows):
            view.charge_new(ask.containers[: len(rows)], rows, ask.group, ask.shape.load)
            agents = map(names.__getitem__, rows.tolist())
            placements += map(Placement, ask.containers, agents)
        if len(rows) < len(ask.containers) and only is None:
            left = ask.containers[len(rows) :]
            refusals.append(Refusal(group=ask.group, containers=left, reason=explain(view, ask)))
    return PlacementPlan(placements=tuple(placements), refusals=tuple(refusals))


def _choose(view: ClusterView, ask: Ask, eligible: Eligible) -> Ints:
    """Return a row for each container of ``ask``, or fewer when room runs out."""
    at = np.flatnonzero(feasible(view, ask, eligible))
    if not len(at):
        return np.zeros(0, np.int64)
    rows = eligible.rows[at]
    level = _levels(view, ask, eligible, rows, at)
    left = _tightness(view, ask, rows)
    count = len(ask.containers)
    if ask.shape.constraints.spread:
        return rows[
            _over_domains(view, ask, rows, level, left, lambda: _capacity(view, ask, eligible, rows, at))
        ]
    if count == 1:
        best = int(np.argmin(level + left))
        return rows[best : best + 1]
    first = _on_one_level(level, left, count)
    if first is None:
        first = _spread(level, left, _capacity(view, ask, eligible, rows, at), count)
    return rows[first]


def _on_one_level(level: Floats, left: Floats, count: int) -> Ints | None:
    """Return the ``count`` best positions if all of them have the same level, so that each gets one."""
    if count > len(level):
        return None
    key = level + left
    first = _lowest(key, count)
    return first if np.floor(key[first[-1]]) == np.floor(key[first[0]]) else None


def _levels(view: ClusterView, ask: Ask, eligible: Eligible, rows: Ints, at: Ints) -> Floats:
    """Return how many replicas of the group each agent has, or counts as having; see the module."""
    level = np.zeros(len(rows))
    counts = view.group_rows.get(ask.group)
    if counts:
        level = eligible.counts(counts, len(view))[at].astype(np.float64)
    if ask.size >= OPEN_SHARE:
        level += (view.placed[rows] == 0) * (ask.size // OPEN_SHARE)
    for mark in ask.shape.constraints.prefer:
        level += ~view.marked(mark)[rows] * float(PREFERRED)
    if view.flaky_any:
        level += view.flaky[rows] * float(LAST_RESORT)
    if ask.avoid:
        avoid = [row for name in ask.avoid if (row := view.row(name)) >= 0]
        level += eligible.among(avoid, len(view))[at] * float(LAST_RESORT)
    return level


def _tightness(view: ClusterView, ask: Ask, rows: Ints) -> Floats:
    """Return how badly ``ask`` fits each row, from 0 (best) to below 1: it orders agents within one level.

    Two terms, of the free shares of the packed resources. The growth of their imbalance: what is free
    of one resource and not of another cannot be used by anybody. And a quarter of the largest of them,
    so that agents with little room left are filled first.
    """
    amounts = ask.shape.load.resources.values()
    before: list[Floats] = []
    after: list[Floats] = []
    for at, share in zip(PACKED_AT, view.shares, strict=True):
        shares = share[rows]
        free = view.free[at][rows] * shares
        before.append(free)
        after.append(free - amounts[at] * shares)
    if not after:
        return np.zeros(len(rows))
    most, least = reduce(np.maximum, after), reduce(np.minimum, after)
    worse = (1 + FILL_WEIGHT) * most
    worse -= least
    worse -= reduce(np.maximum, before)
    worse += reduce(np.minimum, before)
    worse += 1.0
    worse *= 1 / (2.001 + FILL_WEIGHT)
    return worse


def _lowest(key: Floats, count: int) -> Ints:
    """Return the positions of the ``count`` lowest of ``key`` in order; ties by position."""
    if count < len(key):
        edge = np.partition(key, count - 1)[count - 1]
        below = np.flatnonzero(key < edge)
        equal = np.flatnonzero(key == edge)[: count - len(below)]
        chosen = np.sort(np.concatenate((below, equal)))
    else:
        chosen = np.arange(len(key))
    return chosen[np.argsort(key[chosen], kind="stable")]


def _capacity(view: ClusterView, ask: Ask, eligible: Eligible, rows: Ints, at: Ints) -> Ints:
    """Return how many containers of ``ask`` fit on each row; each fits at least one."""
    load = ask.shape.load
    if load.ports:
        return np.ones(len(rows), np.int64)
    capacity = np.minimum(view.room[rows], len(ask.containers))
    amounts = load.resources.values()
    for resource in ASKED_AT:
        if amounts[resource]:
            capacity = np.minimum(capacity, view.free[resource][rows] // amounts[resource])
    if load.dynamic:
        capacity = np.minimum(capacity, view.ports[rows] // load.dynamic)
    if ask.shape.max_per_host:
        counts = eligible.counts(view.group_rows.get(ask.group, {}), len(view))[at]
        capacity = np.minimum(capacity, ask.shape.max_per_host - counts)
    return capacity


def _over_domains(
    view: ClusterView,
    ask: Ask,
    rows: Ints,
    level: Floats,
    left: Floats,
    capacity_of: Callable[[], Ints],
) -> Ints:
    """Return a position for each container of ``ask``: the group's counts in all domains rise evenly.

    A domain has the agents with one value of the label ``spread``. Agents of last resort come after all
    others, whatever their domain.
    """
    codes, names = view.domains(ask.shape.constraints.spread)
    counts = view.group_rows.get(ask.group, {})
    held = codes[np.fromiter(counts, np.int64, len(counts))]
    times = np.fromiter(counts.values(), np.int64, len(counts))
    have = np.bincount(held, weights=times, minlength=len(names)).astype(np.int64)
    codes = codes[rows]
    if len(ask.containers) == 1:
        key = (level >= LAST_RESORT) * float(len(view) * LAST_RESORT) + have[codes]
        at = np.flatnonzero(key == key.min())
        at = at[codes[at] == codes[at].min()]
        best = int(np.argmin(level[at] + left[at]))
        return np.array([at[best]], np.int64)
    order = np.arange(len(names)) / (len(names) + 1)
    if not view.flaky_any and not ask.avoid:
        few = _one_each(level, left, codes, have, order, len(ask.containers))
        if few is not None:
            return few
    capacity = capacity_of()
    chosen: list[Ints] = []
    needed = len(ask.containers)
    for tier in (level < LAST_RESORT, level >= LAST_RESORT):
        room = np.where(tier, capacity, 0)
        in_domain = np.bincount(codes, weights=room, minlength=len(names)).astype(np.int64)
        turns = _spread(have.astype(np.float64), order, in_domain, needed)
        positions = np.zeros(len(turns), np.int64)
        for domain in np.unique(turns).tolist():
            at = np.flatnonzero((codes == domain) & (room > 0))
            mine = np.flatnonzero(turns == domain)
            positions[mine] = at[_spread(level[at], left[at], room[at], len(mine))]
        have += np.bincount(turns, minlength=len(names))
        chosen.append(positions)
        needed -= len(positions)
    return np.concatenate(chosen)


def _one_each(level: Floats, left: Floats, codes: Ints, have: Ints, order: Floats, count: int) -> Ints | None:
    """Do what ``_over_domains`` does if every agent gets one container at most and no domain is exhausted."""
    agents = np.bincount(codes, minlength=len(have))
    turns = _spread(have.astype(np.float64), order, np.where(agents, count, 0), count)
    quotas = np.bincount(turns, minlength=len(have))
    if (quotas > agents).any():
        return None
    positions = np.zeros(count, np.int64)
    for domain in np.flatnonzero(quotas).tolist():
        at = np.flatnonzero(codes == domain)
        best = _on_one_level(level[at], left[at], int(quotas[domain]))
        if best is None:
            return None
        positions[turns == domain] = at[best]
    return positions


def _spread(level: Floats, left: Floats, capacity: Ints, count: int) -> Ints:
    """Return ``count`` positions, lowest level first, so that levels rise evenly up to capacity."""
    base = level.astype(np.int64)
    count = min(count, int(capacity.sum()))
    low, high = int(base.min()), int((base + capacity).max())
    while low < high:  # Find the lowest level up to which `count` containers fit.
        middle = (low + high) // 2
        if int(np.clip(middle - base, 0, capacity).sum()) >= count:
            high = middle
        else:
            low = middle + 1
    times = np.clip(high - 1 - base, 0, capacity)
    last = np.flatnonzero((base <= high - 1) & (base + capacity > high - 1))
    times[last[_lowest(left[last], count - int(times.sum()))]] += 1
    positions = np.repeat(np.arange(len(base)), times)
    copy = np.arange(len(positions)) - np.repeat(np.cumsum(times) - times, times)
    order = np.lexsort((positions, left[positions], base[positions] + copy))
    return positions[order]
