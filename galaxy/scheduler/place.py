"""Placement: filter, score, choose, for many equal containers at once.

A container goes where its group has fewest replicas, so that one host takes few of them away;
among those, where it leaves the least free of the resource that is least used, so that
agents fill up evenly in cpu and memory and whole agents stay free for large asks. An empty
agent counts as if it held a tenth of the group already: opening it has to be worth it.
Agents that failed lately, and those in ``avoid``, are a last resort. Ties go to the lower name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, cast

import numpy as np

from galaxy.scheduler.cluster_view import Bools, ClusterView, Eligible, Floats, Ints
from galaxy.scheduler.explain import explain
from galaxy.scheduler.requests import Ask, Placement, PlacementPlan, Refusal

LAST_RESORT: Final = 1_000_000
"""Replicas that an agent to avoid counts as holding."""

OPEN_SHARE: Final = 10
"""An empty agent is opened for a group when the used ones hold a tenth of it each."""


def place(view: ClusterView, asks: Iterable[Ask], *, only: Collection[int] | None = None) -> PlacementPlan:
    """Find an agent for each container, most important asks first, and charge it to ``view``.

    With ``only``, just those rows are looked at, and nothing is explained: for asks that were
    refused before, when nothing but these rows has got more room since.
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
            view.hold_many(ask.containers[: len(rows)], rows, ask.group, ask.shape.load)
            placements += [
                Placement(container=container, agent=names[row])
                for container, row in zip(ask.containers, rows.tolist(), strict=False)
            ]
        if len(rows) < len(ask.containers) and only is None:
            left = ask.containers[len(rows) :]
            refusals.append(Refusal(group=ask.group, containers=left, reason=explain(view, ask)))
    return PlacementPlan(placements=tuple(placements), refusals=tuple(refusals))


def fits(view: ClusterView, ask: Ask, eligible: Eligible) -> Bools:
    """Return which of ``eligible`` have room for one more container of ``ask``."""
    load = ask.shape.load
    view.settle()
    ok = eligible.take(view.room) > 0
    ok &= eligible.take(view.cpu) >= load.cpu_milli
    ok &= eligible.take(view.memory) >= load.memory_bytes
    ok &= eligible.take(view.disk) >= load.disk_bytes
    if load.dynamic or load.ports:
        ok &= eligible.take(view.ports) >= _ports_wanted(view, ask, eligible)
    for port in load.ports:
        taken = view.port_rows.get(port)
        if taken:
            ok &= ~eligible.among(taken, len(view))
    if ask.shape.max_per_host:
        held = view.group_rows.get(ask.group, {})
        full = [row for row, count in held.items() if count >= ask.shape.max_per_host]
        if full:
            ok &= ~eligible.among(full, len(view))
    return ok


def _ports_wanted(view: ClusterView, ask: Ask, eligible: Eligible) -> Ints | int:
    """Count what an agent's range loses to one container: static ports may lie in it too."""
    load = ask.shape.load
    if not load.ports:
        return load.dynamic
    low, high = eligible.take(view.ports_low), eligible.take(view.ports_high)
    wanted = np.full(len(eligible.rows), load.dynamic, np.int64)
    for port in load.ports:
        wanted += (low <= port) & (high >= port)
    # An agent without a range, or with one that is overdrawn, still takes a port outside it.
    wanted[wanted == 0] = np.iinfo(np.int64).min
    return wanted


def _choose(view: ClusterView, ask: Ask, eligible: Eligible) -> Ints:
    """Return a row for each of the first containers of ``ask``; fewer when room runs out."""
    at = np.flatnonzero(fits(view, ask, eligible))
    if not len(at):
        return np.zeros(0, np.int64)
    rows = eligible.rows[at]
    level = _levels(view, ask, eligible, rows, at)
    left = _left_free(view, ask, rows)
    wanted = len(ask.containers)
    if wanted == 1:
        best = int(np.argmin(level + left))
        return rows[best : best + 1]
    key = level + left
    if wanted <= len(rows):
        first = _lowest(key, wanted)
        if np.floor(key[first[-1]]) == np.floor(key[first[0]]):
            return rows[first]
    return rows[_pour(level, left, _capacity(view, ask, eligible, rows, at), wanted)]


def _levels(view: ClusterView, ask: Ask, eligible: Eligible, rows: Ints, at: Ints) -> Floats:
    """Return how many replicas of the group each agent holds, or counts as holding."""
    level = np.zeros(len(rows))
    counts = view.group_rows.get(ask.group)
    if counts:
        level = eligible.counts(counts, len(view))[at].astype(np.float64)
    if ask.size >= OPEN_SHARE:
        level += (view.held[rows] == 0) * (ask.size // OPEN_SHARE)
    if view.flaky_any:
        level += view.flaky[rows] * float(LAST_RESORT)
    if ask.avoid:
        avoid = [row for name in ask.avoid if (row := view.row(name)) >= 0]
        level += eligible.among(avoid, len(view))[at] * float(LAST_RESORT)
    return level


def _left_free(view: ClusterView, ask: Ask, rows: Ints) -> Floats:
    """Return the share of an agent's cpu or memory, whichever is more, that would stay free."""
    load = ask.shape.load
    cpu = (view.cpu[rows] - load.cpu_milli) * view.cpu_share[rows]
    memory = (view.memory[rows] - load.memory_bytes) * view.memory_share[rows]
    return cast(Floats, np.maximum(cpu, memory)) * 0.999


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
    for column, each in (
        (view.cpu, load.cpu_milli),
        (view.memory, load.memory_bytes),
        (view.disk, load.disk_bytes),
        (view.ports, load.dynamic),
    ):
        if each:
            capacity = np.minimum(capacity, column[rows] // each)
    if ask.shape.max_per_host:
        counts = eligible.counts(view.group_rows.get(ask.group, {}), len(view))[at]
        capacity = np.minimum(capacity, ask.shape.max_per_host - counts)
    return capacity


def _pour(level: Floats, left: Floats, capacity: Ints, wanted: int) -> Ints:
    """Return positions, lowest level first, as water fills a vessel; each up to its capacity."""
    base = level.astype(np.int64)
    wanted = min(wanted, int(capacity.sum()))
    low, high = int(base.min()), int((base + capacity).max())
    while low < high:  # The lowest level at which as many fit as are wanted.
        middle = (low + high) // 2
        if int(np.clip(middle - base, 0, capacity).sum()) >= wanted:
            high = middle
        else:
            low = middle + 1
    times = np.clip(high - 1 - base, 0, capacity)
    last = np.flatnonzero((base <= high - 1) & (base + capacity > high - 1))
    times[last[_lowest(left[last], wanted - int(times.sum()))]] += 1
    positions = np.repeat(np.arange(len(base)), times)
    copy = np.arange(len(positions)) - np.repeat(np.cumsum(times) - times, times)
    order = np.lexsort((positions, left[positions], base[positions] + copy))
    return positions[order]
