"""Orders for container groups: which slots are requested, and which are released."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.ids import pod_id
from galaxy.model.messages.container import ContainerState, GroupOrder, SlotMove
from galaxy.model.resources import NOTHING
from galaxy.model.stored.container import Container, Group
from galaxy.resman.logic.groups import resize
from galaxy.resman.logic.groups.transitions import (
    AVOID_MAX,
    SlotMoved,
    SlotPlaced,
    SlotReleased,
    SlotRequested,
)
from galaxy.resman.logic.state.container_index import PLACED
from galaxy.resman.logic.state.state import ResManState


def apply_order(state: ResManState, order: GroupOrder) -> None:
    """Apply an order. A stale or repeated one changes nothing; every order is answered.

    A changed demand with the same size number, while any container has a place, changes only the placement
    rules (pools, tag, maximum per host, constraints) of containers that are placed from then on. With
    another number, containers are resized as well, except those that the order says to keep.
    """
    group, key = state.groups.get(order.group), (order.epoch, order.serial)
    status_requests = state.outbox.status_requests
    seen = order.seen if order.seen_epoch == state.epoch else 0
    status_requests[order.group] = min(seen, status_requests.get(order.group, seen))
    if group is None:
        ended = state.ended.get(order.group)
        stale = ended is not None and key <= (ended.epoch, ended.serial)
        if order.remove or stale:
            if not stale:
                state.ended_groups.add(order.group, order.epoch, order.serial, state.now_s)
            return
        state.ended.drop(order.group)
        group = Group(group=order.group, order=order, created_s=state.now_s)
    elif key <= (group.order.epoch, group.order.serial):
        if order.group in state.refused_groups:
            state.want_place(order.group)  # Try every agent again, and renew the explanation.
        resize.apply(state, order.group)  # There may be room now.
        return
    started_again = order.starts > group.order.starts
    kept = _kept(state, group.order, order)
    if kept.size != group.order.size:
        resize.release_reservations(state, order.group)
    changed = replace(group, order=kept, sizes=resize.sizes_of(state, group, kept))
    _recharge(state, group, changed)
    state.groups.put(order.group, changed)
    state.shapes.pop(order.group, None)
    _reconcile(state, kept)
    for move in order.moves:
        _move(state, order.group, move)
    resize.apply(state, order.group)
    if started_again:
        _reset_failures(state, order.group)
    state.groups_to_check[order.group] = None


def remove_ended(state: ResManState) -> None:
    """Drop removed groups that have no container left, and trim the table of ended groups."""
    for key in state.groups_to_check:
        group = state.groups.get(key)
        if group is None or not group.order.remove or state.containers.count("not_gone", key):
            continue
        for row in state.containers.where("group", key):
            state.containers.drop(row)
        state.groups.drop(key)
        state.shapes.pop(key, None)
        state.groups_to_place.drop(key)
        state.refused_groups.pop(key, None)
        state.outbox.changed_slots.pop(key, None)
        state.versions.drop(key)
        state.quota_usage.remove_group(key)
        order = group.order
        state.ended_groups.add(key, order.epoch, order.serial, state.now_s, order.user)
        state.outbox.status_requests[key] = 0
        state.record("group.removed", key)
    state.groups_to_check.clear()
    state.ended_groups.trim(state.now_s)


def _kept(state: ResManState, old: GroupOrder, new: GroupOrder) -> GroupOrder:
    """Return the order to store: bounded, and with the old amounts while any container has a place."""
    demand = new.demand
    if demand != old.demand and new.size == old.size and _any_placed(state, new.group):
        demand = replace(
            old.demand,
            pools=demand.pools,
            tag=demand.tag,
            max_per_host=demand.max_per_host,
            constraints=demand.constraints,
        )
    replicas = min(max(0, new.replicas), state.config.replicas_max)
    return replace(new, demand=demand, replicas=replicas, moves=())


def _recharge(state: ResManState, old: Group, new: Group) -> None:
    """Charge the group's slots to the owner and with the demand of ``new``.

    A slot that waits for its next place loses its claim, so that the quota is checked again.
    """
    if (old.order.user, old.order.demand) == (new.order.user, new.order.demand):
        return
    for key in state.containers.where("not_gone", new.group):
        row = state.containers[key]
        if row.claimed and row.state is ContainerState.PENDING:
            state.write(key, replace(row, claimed=False))
    rows = [(key, state.containers[key]) for key in state.containers.where("not_gone", new.group)]
    before = sum((state.quota_amount(old, key, row) for key, row in rows), NOTHING)
    state.charge(old.order, NOTHING - before)
    state.charge(new.order, sum((state.quota_amount(new, key, row) for key, row in rows), NOTHING))


def _any_placed(state: ResManState, group: str) -> bool:
    keys = state.containers.where("not_gone", group)
    return any(state.containers[key].state in PLACED for key in keys)


def _reconcile(state: ResManState, order: GroupOrder) -> None:
    """Release the slots that the order does not have, and request the slots that it has."""
    desired = set() if order.remove else set(range(order.replicas)).difference(order.release)
    for key in state.containers.where("not_gone", order.group):
        row = state.containers[key]
        if key == row.container and row.slot not in desired:
            state.apply(key, SlotReleased(incarnation=row.incarnation))
    for slot in sorted(desired):
        key = pod_id(order.group, slot)
        old = state.containers.get(key)
        if old is None:
            state.write(key, _new_slot(state, order.group, slot))
        elif old.state in (ContainerState.DESTROYING, ContainerState.GONE):
            if old.state is ContainerState.DESTROYING:
                state.detach_incarnation(key)
            state.apply(key, SlotRequested(incarnation=old.incarnation))
    state.want_place(order.group)


def _move(state: ResManState, group: str, move: SlotMove) -> None:
    """Give a slot another place, unless it has left that incarnation already."""
    key = pod_id(group, move.slot)
    row = state.containers.get(key)
    if (
        row is None
        or row.incarnation != move.incarnation
        or row.state
        not in (
            ContainerState.ALLOCATING,
            ContainerState.READY,
        )
    ):
        return
    why = f": {move.reason.message}" if move.reason else ""
    state.record("container.moved", key, f"leaves {row.agent}{why}")
    kept_on = row.leave.to if row.leave is not None else ""
    state.detach_incarnation(key)
    state.apply(
        key,
        SlotMoved(incarnation=row.incarnation, avoid=move.avoid[-AVOID_MAX:], reason=move.reason),
    )
    if not state.containers[key].claimed:
        return  # Its next place has another size, so that the quota is checked first.
    if kept_on in state.agents and kept_on not in move.avoid and state.view.is_open(kept_on):
        size = state.groups[group].order.size
        state.apply(key, SlotPlaced(incarnation=row.incarnation + 1, agent=kept_on, size=size))
        state.record("container.placed", key, f"on {kept_on}, incarnation {row.incarnation + 1}")


def _reset_failures(state: ResManState, group: str) -> None:
    """Let slots that wait after failures be placed at once: the job's owner has started it again."""
    for key in state.containers.where("waiting", group):
        row = state.containers[key]
        state.write(key, replace(row, failures=0, retry_s=0.0, avoid=()))
        state.retry_timers.stop(key)


def _new_slot(state: ResManState, group: str, slot: int) -> Container:
    return Container(
        container=pod_id(group, slot),
        group=group,
        slot=slot,
        incarnation=0,
        state=ContainerState.PENDING,
        since_s=state.now_s,
    )
