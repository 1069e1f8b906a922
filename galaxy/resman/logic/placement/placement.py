"""Placement of the slots that wait for an agent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from galaxy.ids import job_name
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.messages.trace import timer_cause
from galaxy.resman.logic.groups.transitions import SlotPlaced
from galaxy.resman.logic.placement.preemption import (
    end_reservation,
    end_reservations,
    make_room,
    with_preemption,
)
from galaxy.resman.logic.state.group_index import FOLLOWS, NAMED, REPELS
from galaxy.resman.logic.state.state import ResManState
from galaxy.scheduler.constraints import feasible
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Ask, JobGroups, PlacementPlan

RECORD_EACH_MAX: Final = 20
"""If more containers of a group than this are placed in one step, only their number is traced."""

SHARE_MIN: Final = 16
"""Slots that one group may place in one turn, however many groups wait."""

BUSY_S: Final = 2.0
"""A slot that waits because agents are busy creating others gets a reason only after this time."""


def place_waiting(state: ResManState, safe_mode: Reason | None) -> bool:
    """Place waiting slots; return whether the step's limit was reached and more can be placed at once.

    Groups that were refused before try only agents that have got more room since; the others try every
    agent. Lower priority numbers go first; within a priority, refused groups go before others. The
    others take turns: each gets an equal share of the step, so that a small group does not wait for
    large ones.
    """
    if safe_mode is not None:
        _explain_safe_mode(state, safe_mode)
        return False
    state.explained_safe_mode = None
    end_reservations(state)
    refusals: list[tuple[Ask, Reason]] = []
    freed = state.view.pop_freed()
    budget = state.config.placements_max
    refused = _refused(state, freed)
    for priority in sorted({*refused, *state.groups_to_place.priorities()}):
        for _, group in sorted(refused.get(priority, ())):
            budget -= _place_refused(state, group, budget, freed)
        budget = _place_in_turn(state, priority, budget, refusals)
    limited = make_room(state, [*refusals, *_without_room(state)])
    return limited or (budget <= 0 and len(state.groups_to_place) > 0)


def _refused(state: ResManState, freed: set[int]) -> dict[int, list[tuple[float, str]]]:
    """Return the refused groups that may fit on the ``freed`` agents: by priority, time and name."""
    found: dict[int, list[tuple[float, str]]] = {}
    most = state.view.most_free(freed) if state.refused_groups and freed else None
    if most is None:
        return found
    for group in list(state.refused_groups):
        if not state.containers.count("waiting", group):
            del state.refused_groups[group]
        elif group not in state.groups_to_place and state.shape(group).load.resources.fits(most):
            known = state.groups[group]
            found.setdefault(known.order.priority, []).append((known.created_s, group))
    return found


def _place_refused(state: ResManState, group: str, budget: int, freed: set[int]) -> int:
    """Place slots of a refused group on ``freed`` agents; return how many were tried.

    Slots beyond the budget are tried on every agent in the next step, which does not know ``freed``.
    """
    asks = _asks(state, group, budget) if budget > 0 else []
    tried = sum(len(ask.containers) for ask in asks)
    _carry_out(state, group, place(state.view, asks, only=freed))
    if tried >= budget:
        state.want_place(group)
    return tried


def _place_in_turn(state: ResManState, priority: int, budget: int, refusals: list[tuple[Ask, Reason]]) -> int:
    """Place slots of the groups of one priority in turn; return what is left of the budget.

    ``refusals`` gets what found no room, and why.
    """
    queue = state.groups_to_place
    while budget > 0 and (groups := queue.first(priority, budget)):
        share = max(SHARE_MIN, budget // len(groups))
        for group in groups:
            if budget <= 0:
                break
            asks = _asks(state, group, min(share, budget))
            tried = sum(len(ask.containers) for ask in asks)
            plan = place(state.view, asks)
            _carry_out(state, group, plan)
            if plan.refusals:
                state.refused_groups[group] = None
                refusals += _refused_asks(asks, plan)
            else:
                state.refused_groups.pop(group, None)
            if tried >= min(share, budget) and not plan.refusals:
                queue.move_back(group)
            else:
                queue.drop(group)
            budget -= tried
    return budget


def _without_room(state: ResManState) -> Iterator[tuple[Ask, Reason]]:
    """Yield the asks for which the last step did not look for room; those that fit now are placed."""
    groups, state.groups_without_room = state.groups_without_room, {}
    for group in groups:
        if group not in state.refused_groups or group in state.groups_to_place:
            continue
        for ask in _asks(state, group, state.config.preemptions_per_step_max):
            if feasible(state.view, ask, state.view.eligible(ask.shape)).any():
                state.want_place(group)
                break
            reason = state.containers[ask.containers[0]].reason
            yield ask, reason or Reason(code="no-room")


def _refused_asks(asks: list[Ask], plan: PlacementPlan) -> list[tuple[Ask, Reason]]:
    """Return those parts of ``asks`` that were refused, each with its reason."""
    ask_of = {container: ask for ask in asks for container in ask.containers}
    return [
        (replace(ask_of[refusal.containers[0]], containers=refusal.containers), refusal.reason)
        for refusal in plan.refusals
    ]


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
    near, apart = _related(state, group)
    return [
        Ask(
            group=group,
            shape=state.shape(group),
            containers=tuple(key for _, key in sorted(slots)),
            size=order.replicas,
            priority=order.priority,
            avoid=avoid,
            near=near,
            apart=apart,
        )
        for avoid, slots in sorted(by_avoid.items())
    ]


def _related(state: ResManState, group: str) -> tuple[tuple[JobGroups, ...], tuple[JobGroups, ...]]:
    """Return the jobs whose hosts a group needs, and those whose hosts it may not have.

    Anti-affinity holds in both directions: a job also stays apart from those that name it.
    """
    order = state.groups[group].order
    user, wanted = order.user, order.demand.constraints
    near = tuple(JobGroups(name, state.groups.where(NAMED, (user, name))) for name in wanted.affinity)
    apart = [JobGroups(name, state.groups.where(NAMED, (user, name))) for name in wanted.anti_affinity]
    apart += [
        JobGroups(job_name(other), (other,), entry=job_name(group))
        for other in state.groups.where(REPELS, (user, job_name(group)))
        if other != group
    ]
    return near, tuple(apart)


def _within_quota(state: ResManState, group: str) -> Iterable[str]:
    """Return the waiting slots that fit into their owner's quota; set the reason of the others.

    Slots that were placed before keep their claim. Of the others, the lowest slots go first.
    """
    order = state.groups[group].order
    room = state.quota_usage.room(order)
    if room is None or room[0] >= state.containers.count("waiting", group):
        return state.containers.each("waiting", group)
    waiting = state.containers.where("waiting", group)
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
        size = state.groups[group].order.size
        placed = SlotPlaced(incarnation=row.incarnation + 1, agent=agent, size=size)
        state.apply(key, placed, charged=True)
        if len(plan.placements) <= RECORD_EACH_MAX:
            state.record("container.placed", key, f"on {agent}, incarnation {row.incarnation + 1}")
    if len(plan.placements) > RECORD_EACH_MAX:
        agents = len({placement.agent for placement in plan.placements})
        state.record("group.placed", group, f"{len(plan.placements)} containers on {agents} agents")
    for agent in sorted({placement.agent for placement in plan.placements} & state.reservations.keys()):
        if state.reservations[agent].group == group:
            end_reservation(state, agent)
    if plan.placements:
        name = (state.groups[group].order.user, job_name(group))
        for follower in state.groups.each(FOLLOWS, name):
            if follower in state.refused_groups:
                state.want_place(follower)
    for refusal in plan.refusals:
        for key in refusal.containers:
            row = state.containers[key]
            busy = refusal.reason.code == "busy" and state.now_s - row.since_s < BUSY_S
            reason = with_preemption(refusal.reason, row.reason)
            if not busy and row.reason != reason:
                state.write(key, replace(row, reason=reason))


def _explain_safe_mode(state: ResManState, safe_mode: Reason) -> None:
    """Set the reason of the slots that wait for the end of safe mode: all at first, then those of a step."""
    if state.explained_safe_mode == safe_mode:
        keys = [key for slots in state.outbox.changed_slots.values() for key in slots]
    else:
        keys = [key for group in state.groups_to_place for key in state.containers.where("waiting", group)]
        state.explained_safe_mode = safe_mode
    for key in keys:
        row = state.containers.get(key)
        if row is not None and row.reason is None and row.state is ContainerState.PENDING:
            state.write(key, replace(row, reason=safe_mode))
