"""Containers change their size on their agents, where these have room.

A row takes the larger of its old and new amounts until its agent reports the new limits, so the sizes on
an agent never exceed what it has, whatever is lost or late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace

from galaxy.model.messages.container import (
    RESIZE_HELD,
    RESIZE_MOVES,
    ContainerState,
    GroupOrder,
    Reason,
)
from galaxy.model.resources import RESOURCES, Resource, Resources
from galaxy.model.stored.container import Container, Group, GroupSize
from galaxy.resman.logic.state.state import ResManState
from galaxy.scheduler.changes import CHANGES_MAX, rounded_down
from galaxy.scheduler.constraints import feasible
from galaxy.scheduler.explain import NEAREST, explain
from galaxy.scheduler.quota import charged
from galaxy.scheduler.requests import Ask

SIZES_MAX: Final = 16
"""Earlier sizes that a group keeps although none of its containers has them any more."""


def sizes_of(state: ResManState, group: Group, order: GroupOrder) -> tuple[GroupSize, ...]:
    """Return the earlier sizes of a group that gets a new order: those in use, and a few more.

    An agent that was away may still have a container of a size that no row has.
    """
    if order.size == group.order.size:
        return group.sizes
    sizes = (*group.sizes, GroupSize(size=group.order.size, demand=group.order.demand))
    if len(sizes) <= SIZES_MAX:
        return sizes
    used = {state.containers[key].size for key in state.containers.where("group", group.group)}
    oldest = len(sizes) - SIZES_MAX
    return tuple(row for at, row in enumerate(sizes) if at >= oldest or row.size in used)


def release_reservations(state: ResManState, group: str) -> None:
    """Keep no room any more for containers that leave their agents: they need another amount of it."""
    for key in state.containers.where("not_gone", group):
        row = state.containers[key]
        if row.leave is not None and row.leave.to:
            state.write(key, replace(row, leave=replace(row.leave, to="")))


def apply(state: ResManState, group: str) -> None:
    """Resize the containers of a group that do not have the size of its order, unless they keep theirs."""
    known = state.groups[group]
    if known.sizes:
        for key in state.containers.where("not_gone", group):
            _resize(state, known, key)


def _resize(state: ResManState, group: Group, key: str) -> None:
    row, order = state.containers[key], group.order
    if key != row.container or row.state not in (ContainerState.ALLOCATING, ContainerState.READY):
        return
    if row.size == order.size:
        return
    if _is_kept(order.keep, row.slot):
        state.write(key, replace(row, resize=None) if row.size == row.sized else row)
        return
    before = state.load_of(key, row).resources
    grown = before.largest(order.demand.resources.bounded())
    refusal = _refusal(state, group, row, grown - before)
    if refusal is not None:
        if row.size != row.sized:
            return  # It is still on its way to an earlier size.
        if row.resize is None or row.resize.code != refusal.code:
            state.record("container.resize-waits", key, f"on {row.agent}: {refusal.message}")
        state.write(key, replace(row, resize=refusal))
        return
    state.record("container.resizes", key, f"on {row.agent}, size {row.size} to {order.size}")
    state.write(key, replace(row, size=order.size, resources=grown, resize=None))


def _is_kept(keep: Sequence[tuple[int, int]], slot: int) -> bool:
    return any(first <= slot <= last for first, last in keep)


def _refusal(state: ResManState, group: Group, row: Container, more: Resources) -> Reason | None:
    """Return why a container cannot take ``more`` where it is; None if it can."""
    order, view = group.order, state.view
    quota = state.quota_usage.refusal(order, charged(more, order.priority))
    if quota is not None:
        return replace(quota, code=RESIZE_HELD)
    at = view.row(row.agent)
    if at < 0:
        return None
    lacks = {
        resource: asked - max(0, int(column[at]))
        for resource, column, asked in zip(RESOURCES, view.free, more.values(), strict=True)
        if asked > max(0, int(column[at]))
    }
    if not lacks:
        return None
    amounts = ", ".join(f"{resource.name} {resource.show(lack)}" for resource, lack in lacks.items())
    here = f"{row.agent} lacks {amounts} to resize it in place"
    ask = Ask(
        group=group.group,
        shape=state.shape(group.group),
        containers=(row.container,),
        size=order.replicas,
        priority=order.priority,
    )
    eligible = view.eligible(ask.shape)
    if bool(np.any(feasible(view, ask, eligible) & (eligible.rows != at))):
        return Reason(code=RESIZE_MOVES, message=f"{here}; it moves to another agent")
    return _held(row.agent, here, lacks, order.demand.resources.bounded(), explain(view, ask))


def _held(
    agent: str, here: str, lacks: Mapping[Resource, int], asked: Resources, elsewhere: Reason
) -> Reason:
    """Return why a container keeps its size on ``agent``, which lacks ``lacks`` in place.

    ``elsewhere`` says why no agent has room for one more container of ``asked``. What it says of ``agent``
    does not count the room that the container has there already, so it is replaced.
    """
    changes = [text for text in elsewhere.changes if not text.endswith(f"({agent} has room then)")]
    smaller = {
        resource: rounded_down(resource, getattr(asked, resource.field) - lack)
        for resource, lack in lacks.items()
    }
    if all(amount > 0 for amount in smaller.values()):
        texts = [
            f"{row.name} {row.show(amount)} instead of {row.show(getattr(asked, row.field))}"
            for row, amount in smaller.items()
        ]
        changes.insert(0, f"{', '.join(texts)} ({agent} has room then)")
    in_place = ", ".join(f"{resource.show(lack)} {resource.name}" for resource, lack in lacks.items())
    nearest = [text for text in elsewhere.nearest if text.partition(" ")[0] != agent]
    return replace(
        elsewhere,
        code=RESIZE_HELD,
        message=f"{here}, and it keeps its size: {elsewhere.message}",
        nearest=(f"{agent} lacks {in_place} in place", *nearest)[:NEAREST],
        changes=tuple(changes[:CHANGES_MAX]),
    )
