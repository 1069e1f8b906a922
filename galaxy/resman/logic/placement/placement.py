"""Slots that wait for a place, and how they get one."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.model.messages.container import ContainerState, Reason
from galaxy.resman.logic.groups.transitions import SlotPlaced
from galaxy.resman.logic.state.state import ResManState
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Ask, Load, PlacementPlan

TELL_EACH_MAX = 20
"""Placements of one group in one step that are each told; of more, only how many."""

BUSY_S = 2.0
"""Waiting for less than this, because agents are busy making others, needs no explanation."""


def place_waiting(books: ResManState, safe: Reason | None) -> bool:
    """Place what waits; return whether more waits for the next step only because of its size.

    Groups that found no room (``stuck``) try again only where something has become free since;
    the others (``fresh``) look everywhere. More important groups go first, the stuck before
    the fresh.
    """
    if safe is not None:
        _explain_safe(books, safe)
        return False
    freed = books.view.take_freed()
    most = books.view.most_free(freed) if books.stuck else None
    budget = books.config.placements_max
    waiting: list[tuple[int, bool, float, str]] = []
    for group in {**books.stuck, **books.fresh}:
        if not books.containers.count("waiting", group):
            books.stuck.pop(group, None)
            books.fresh.pop(group, None)
            continue
        fresh = group in books.fresh
        if fresh or _might_fit(books, group, most):
            known = books.groups[group]
            waiting.append((known.order.priority, fresh, known.created_s, group))
    for _, fresh, _, group in sorted(waiting):
        if budget <= 0:
            return True
        asks = _asks(books, group, budget)
        budget -= sum(len(ask.containers) for ask in asks)
        cut = bool(asks) and budget <= 0
        plan = place(books.view, asks, only=None if fresh else freed)
        _carry_out(books, group, plan)
        if fresh and not (cut and not plan.refusals):
            del books.fresh[group]
            if plan.refusals:
                books.stuck[group] = None
    return False


def _might_fit(books: ResManState, group: str, most: Load | None) -> bool:
    """Return whether some freed agent may have room: cheap, and never wrongly no."""
    load = books.shape(group).load
    return (
        most is not None
        and most.cpu_milli >= load.cpu_milli
        and most.memory_bytes >= load.memory_bytes
        and most.disk_bytes >= load.disk_bytes
    )


def _asks(books: ResManState, group: str, budget: int) -> list[Ask]:
    """Return what a group asks now: one ask for each set of agents to avoid."""
    order = books.groups[group].order
    by_avoid: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    taken = 0
    for key in _within_quota(books, group):
        row = books.containers[key]
        if row.retry_s > books.now_s:
            books.later.start(key, row.retry_s)
            continue
        if taken >= budget:
            break
        taken += 1
        by_avoid.setdefault(row.avoid, []).append((row.slot, key))
    return [
        Ask(
            group=group,
            shape=books.shape(group),
            containers=tuple(key for _, key in sorted(slots)),
            size=order.replicas,
            priority=order.priority,
            avoid=avoid,
        )
        for avoid, slots in sorted(by_avoid.items())
    ]


def _within_quota(books: ResManState, group: str) -> tuple[str, ...]:
    """Return the waiting slots that their owner's quota lets in; the others are told why not.

    Slots that were placed before keep their claim; of the others the lowest go first.
    """
    waiting = books.containers.where("waiting", group)
    order = books.groups[group].order
    allowed = books.charges.room(order)
    if allowed is None:
        return waiting
    fits, reason = allowed
    new = [key for key in waiting if not books.containers[key].claimed]
    new.sort(key=lambda key: books.containers[key].slot)
    for key in new[fits:]:
        row = books.containers[key]
        if row.reason != reason:
            books.write(key, replace(row, reason=reason))
    if new[fits:]:
        books.charges.hold(order)
    held = set(new[fits:])
    return tuple(key for key in waiting if key not in held)


def _carry_out(books: ResManState, group: str, plan: PlacementPlan) -> None:
    for placement in plan.placements:
        key, agent = placement.container, placement.agent
        row = books.containers[key]
        books.happen(key, SlotPlaced(incarnation=row.incarnation + 1, agent=agent), charged=True)
        if len(plan.placements) <= TELL_EACH_MAX:
            books.tell("container.placed", key, f"on {agent}, incarnation {row.incarnation + 1}")
    if len(plan.placements) > TELL_EACH_MAX:
        agents = len({placement.agent for placement in plan.placements})
        books.tell("group.placed", group, f"{len(plan.placements)} containers on {agents} agents")
    for refusal in plan.refusals:
        for key in refusal.containers:
            row = books.containers[key]
            busy = refusal.reason.code == "busy" and books.now_s - row.since_s < BUSY_S
            if not busy and row.reason != refusal.reason:
                books.write(key, replace(row, reason=refusal.reason))


def _explain_safe(books: ResManState, safe: Reason) -> None:
    for group in books.fresh:
        for key in books.containers.where("waiting", group):
            row = books.containers[key]
            if row.reason is None and row.state is ContainerState.PENDING:
                books.write(key, replace(row, reason=safe))
