"""Preemption: which less important containers leave one agent, so that a more important one fits there.

Victims are strictly less important. An agent whose most important victim is the least important comes
first, then the one with the fewest victims, then the one that loses least; ties go to the lower name.
Nothing is chosen where the container still would not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from math import comb
from typing import Final, NamedTuple

import numpy as np

from galaxy.model.base import Struct
from galaxy.model.resources import RESOURCES
from galaxy.scheduler.causes import shortage
from galaxy.scheduler.cluster_view import ASKED_AT, ClusterView, PlacementStatus
from galaxy.scheduler.eligible import Ints
from galaxy.scheduler.requests import Ask, Load

ROWS_MAX: Final = 16
"""Agents that are searched, those that lack least first."""
ROWS_ENOUGH: Final = 6
"""After so many agents, one victim is good enough, whatever the others have."""
SETS_MAX: Final = 2_000
"""Sets of victims of one size that are tried on one agent; beyond it, a good set is taken, not the best."""


_FIXED: Final = tuple(row.per_container for row in RESOURCES)


class Holder(NamedTuple):
    """A container on an agent; ``leaving`` means that it is being destroyed already."""

    key: str
    group: str
    priority: int
    load: Load
    leaving: bool = False


class Cost(NamedTuple):
    """What a preemption costs; the lowest is chosen."""

    importance: int
    """Minus the priority number of the most important victim."""
    victims: int
    share: float
    """Sum of the victims' amounts, as shares of the agent's."""


class Preemption(Struct, frozen=True, kw_only=True):
    """The agent on which a container fits once ``victims`` are gone; none if those that leave are enough."""

    agent: str
    victims: tuple[str, ...]


def preempt(
    view: ClusterView,
    ask: Ask,
    most_free: Sequence[Ints],
    holders_of: Callable[[str], Sequence[Holder]],
) -> Preemption | None:
    """Return the cheapest preemption for one container of ``ask``, which fits nowhere now.

    None means that no preemption helps.

    ``most_free`` is what would be free without all less important containers, as ``free_without`` returns it.
    ``holders_of`` returns every container on an agent.
    """
    rows = _candidates(view, ask, most_free)
    best: tuple[Cost, str, tuple[str, ...]] | None = None
    for number, row in enumerate(rows.tolist()):
        if best is not None and number >= ROWS_ENOUGH and best[0].victims <= 1:
            break
        name = view.names[row]
        found = cheapest_victims(view, ask, row, holders_of(name))
        if found is not None and (best is None or (found[0], name) < best[:2]):
            best = found[0], name, found[1]
    return None if best is None else Preemption(agent=best[1], victims=best[2])


def reservable(
    view: ClusterView,
    ask: Ask,
    most_free: Sequence[Ints],
    holders_of: Callable[[str], Sequence[Holder]],
    ends: Callable[[Holder], bool],
) -> str:
    """Return the agent that lacks least for ``ask`` and has room once the containers that end are gone.

    ``most_free`` is what is free then. Empty if there is no such agent.
    """
    for row in _candidates(view, ask, most_free).tolist():
        name: str = view.names[row]
        leaving = [holder for holder in holders_of(name) if holder.leaving or ends(holder)]
        if fits_without(view, ask, row, leaving):
            return name
    return ""


def free_without(view: ClusterView, groups: Iterable[tuple[str, Load]]) -> list[Ints]:
    """Return what would be free on each agent if the containers of ``groups`` were gone, by resource."""
    rows: list[int] = []
    times: list[int] = []
    lengths: list[int] = []
    amounts: list[tuple[int, ...]] = []
    for group, load in groups:
        counts = view.group_rows.get(group)
        if counts:
            rows += counts
            times += counts.values()
            lengths.append(len(counts))
            amounts.append(load.resources.values())
    free = [column[: len(view)].copy() for column in view.free]
    if rows:
        at, count = np.array(rows, np.int64), np.array(times, np.int64)
        for column, each in zip(free, np.array(amounts, np.int64).T, strict=True):
            np.add.at(column, at, count * np.repeat(each, lengths))
    return free


def cheapest_victims(
    view: ClusterView, ask: Ask, row: int, holders: Sequence[Holder]
) -> tuple[Cost, tuple[str, ...]] | None:
    """Return the cheapest set of victims on one agent, and its cost; None if no set is enough."""
    leaving = [holder for holder in holders if holder.leaving]
    near = {group for job in ask.near for group in job.groups}
    others = [
        holder
        for holder in holders
        if holder.priority > ask.priority and not holder.leaving and holder.group not in near
    ]
    others.sort(key=lambda holder: (-_share(view, row, holder), holder.key))
    if fits_without(view, ask, row, leaving):
        return Cost(-(1 << 30), 0, 0.0), ()
    for priority in sorted({holder.priority for holder in others}, reverse=True):
        pool = [holder for holder in others if holder.priority >= priority]
        if fits_without(view, ask, row, leaving + pool):
            chosen = _fewest(view, ask, row, leaving, pool)
            share = sum(_share(view, row, holder) for holder in chosen)
            return Cost(-priority, len(chosen), round(share, 9)), tuple(sorted(one.key for one in chosen))
    return None


def fits_without(view: ClusterView, ask: Ask, row: int, removed: Sequence[Holder]) -> bool:
    """Return whether one container of ``ask`` fits on an eligible, open agent without ``removed``."""
    shape, load = ask.shape, ask.shape.load
    amounts = load.resources.values()
    given = [holder.load.resources.values() for holder in removed]
    for at, wanted in enumerate(amounts):
        free = int(view.free[at][row])
        for each in given:
            free += each[at]
        if free < max(wanted, _FIXED[at]):
            return False
    if view.creating[row] >= (1 if view.flaky[row] else view.creating_max):
        return False
    gone: dict[str, int] = {}
    for holder in removed:
        gone[holder.group] = gone.get(holder.group, 0) + 1

    def held(group: str) -> int:
        return view.group_rows.get(group, {}).get(row, 0) - gone.get(group, 0)

    if shape.max_per_host and held(ask.group) >= shape.max_per_host:
        return False
    if any(held(group) > 0 for job in ask.apart for group in job.groups):
        return False
    if not all(any(held(group) > 0 for group in job.groups) for job in ask.near):
        return False
    return _ports_fit(view, load, row, removed)


def _ports_fit(view: ClusterView, load: Load, row: int, removed: Sequence[Holder]) -> bool:
    unbound: dict[int, int] = {}
    for holder in removed:
        for port in holder.load.ports:
            unbound[port] = unbound.get(port, 0) + 1
    if any(view.port_rows.get(port, {}).get(row, 0) > unbound.get(port, 0) for port in load.ports):
        return False
    needed = load.dynamic + sum(view.in_range(row, port) for port in load.ports)
    free = int(view.ports[row]) + sum(holder.load.dynamic for holder in removed)
    for port, times in unbound.items():
        free += view.in_range(row, port) and times >= view.port_rows.get(port, {}).get(row, 0)
    return needed <= 0 or free >= needed


def _candidates(view: ClusterView, ask: Ask, most_free: Sequence[Ints]) -> Ints:
    """Return the agents with enough, if ``most_free`` were free; those that lack least first."""
    amounts = ask.shape.load.resources.values()
    eligible = view.eligible(ask.shape)
    rows = eligible.rows[eligible.take(view.status) == PlacementStatus.OPEN]
    kept = [
        row for row, (group, level) in view.reserved.items() if group == ask.group or level <= ask.priority
    ]
    rows = rows[~np.isin(rows, kept)]
    for at in ASKED_AT:
        rows = rows[most_free[at][rows] >= amounts[at]]
    nearest: Ints = rows[np.argsort(shortage(view, ask, rows), kind="stable")[:ROWS_MAX]]
    return nearest


def _fewest(
    view: ClusterView, ask: Ask, row: int, leaving: list[Holder], pool: list[Holder]
) -> Sequence[Holder]:
    """Return the smallest set of ``pool`` without which ``ask`` fits; of these, the one that loses least."""
    kept = list(pool)
    for holder in sorted(pool, key=lambda one: (one.priority, -_share(view, row, one), one.key)):
        without = [one for one in kept if one is not holder]
        if fits_without(view, ask, row, leaving + without):
            kept = without
    for count in range(1, len(kept) + 1):
        if comb(len(pool), count) > SETS_MAX:
            break
        fitting = [
            chosen
            for chosen in combinations(pool, count)
            if fits_without(view, ask, row, [*leaving, *chosen])
        ]
        if fitting:
            return min(
                fitting,
                key=lambda chosen: (
                    round(sum(_share(view, row, one) for one in chosen), 9),
                    sorted(one.key for one in chosen),
                ),
            )
    return kept


def _share(view: ClusterView, row: int, holder: Holder) -> float:
    """Return the sum of a container's amounts, each as a share of what its agent has."""
    info = view.records[row].info
    amounts = holder.load.resources.values()
    total = 0.0
    for at in ASKED_AT:
        total += amounts[at] / max(1, getattr(info, RESOURCES[at].field))
    return total
