"""Placement of the slots that wait for an agent."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.messages.trace import timer_cause
from galaxy.model.resources import Resources
from galaxy.resman.logic.groups.transitions import SlotPlaced
from galaxy.resman.logic.state.state import ResManState
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Ask, PlacementPlan

RECORD_EACH_MAX: Final = 20
"""If more containers of a group than this are placed in one step, only their number is traced."""

BUSY_S: Final = 2.0
"""A slot that waits because agents are busy creating others gets a reason only after this time."""


def place_waiting(state: ResManState, safe_mode: Reason | None) -> bool:
    """Place waiting slots; return whether the step's limit was reached and more can be placed at once.

    Groups that were refused before try only agents that have got more room since; the others try every
    agent. Lower priority numbers go first; within a priority, refused groups go before others.
    """
    if safe_mode is not None:
        _explain_safe_mode(state, safe_mode)
        return False
    freed = state.view.pop_freed()
    most = state.view.most_free(freed) if state.refused_groups else None
    budget = state.config.placements_max
    waiting: list[tuple[int, bool, float, str]] = []
    for group in {**state.refused_groups, **state.groups_to_place}:
        if not state.containers.count("waiting", group):
            state.refused_groups.pop(group, None)
            state.groups_to_place.pop(group, None)
            continue
        anywhere = group in state.groups_to_place
        if anywhere or _might_fit(state, group, most):
            known = state.groups[group]
            waiting.append((known.order.priority, anywhere, known.created_s, group))
    for _, anywhere, _, group in sorted(waiting):
        if budget <= 0:
            return True
        asks = _asks(state, group, budget)
        budget -= sum(len(ask.containers) for ask in asks)
        cut = bool(asks) and budget <= 0
        plan = place(state.view, asks, only=None if anywhere else freed)
        _carry_out(state, group, plan)
        if anywhere and not (cut and not plan.refusals):
            del state.groups_to_place[group]
            if plan.refusals:
                state.refused_groups[group] = None
    return False


def _might_fit(state: ResManState, group: str, most: Resources | None) -> bool:
    """Return False if certainly no freed agent has room for the group. This is a cheap first check."""
    return most is not None and state.shape(group).load.resources.fits(most)


def _asks(state: ResManState, group: str, budget: int) -> list[Ask]:
    """Return the asks of a group: one for each set of agents to avoid."""
    order = state.groups[group].order
    by_avoid: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    taken = 0
    for key in _within_quota(state, group):
        row = state.containers[key]
        if row.retry_s > state.now_s:
            state.retry_timers.start(key, row.retry_s)
            continue
        if taken >= budget:
            break
        taken += 1
        by_avoid.setdefault(row.avoid, []).append((row.slot, key))
    return [
        Ask(
            group=group,
            shape=state.shape(group),
            containers=tuple(key for _, key in sorted(slots)),
            size=order.replicas,
            priority=order.priority,
            avoid=avoid,
        )
        for avoid, slots in sorted(by_avoid.items())
    ]


def _within_quota(state: ResManState, group: str) -> tuple[str, ...]:
    """Return the waiting slots that fit into their owner's quota; set the reason of the others.

    Slots that were placed before keep their claim. Of the others, the lowest slots go first.
    """
    waiting = state.containers.where("waiting", group)
    order = state.groups[group].order
    room = state.quota_usage.room(order)
    if room is None:
        return waiting
    count, reason = room
    new = [key for key in waiting if not state.containers[key].claimed]
    new.sort(key=lambda key: state.containers[key].slot)
    held_back = new[count:]
    for key in held_back:
        row = state.containers[key]
        if row.reason != reason:
            state.write(key, replace(row, reason=reason))
    if held_back:
        state.quota_usage.block(order)
    excluded = set(held_back)
    return tuple(key for key in waiting if key not in excluded)


def _carry_out(state: ResManState, group: str, plan: PlacementPlan) -> None:
    state.cause = timer_cause("placement")
    for placement in plan.placements:
        key, agent = placement.container, placement.agent
        row = state.containers[key]
        state.apply(key, SlotPlaced(incarnation=row.incarnation + 1, agent=agent), charged=True)
        if len(plan.placements) <= RECORD_EACH_MAX:
            state.record("container.placed", key, f"on {agent}, incarnation {row.incarnation + 1}")
    if len(plan.placements) > RECORD_EACH_MAX:
        agents = len({placement.agent for placement in plan.placements})
        state.record("group.placed", group, f"{len(plan.placements)} containers on {agents} agents")
    for refusal in plan.refusals:
        for key in refusal.containers:
            row = state.containers[key]
            busy = refusal.reason.code == "busy" and state.now_s - row.since_s < BUSY_S
            if not busy and row.reason != refusal.reason:
                state.write(key, replace(row, reason=refusal.reason))


def _explain_safe_mode(state: ResManState, safe_mode: Reason) -> None:
    for group in state.groups_to_place:
        for key in state.containers.where("waiting", group):
            row = state.containers[key]
            if row.reason is None and row.state is ContainerState.PENDING:
                state.write(key, replace(row, reason=safe_mode))
