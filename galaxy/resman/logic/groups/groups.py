"""Orders for container groups: which slots shall be, and which no more."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.ids import pod_id
from galaxy.model.messages.container import ContainerState, GroupOrder
from galaxy.model.stored.container import Container, Group
from galaxy.resman.logic.groups.transitions import SlotReleased, SlotRequested
from galaxy.resman.logic.state.container_index import PLACED, counts
from galaxy.resman.logic.state.state import ResManState


def obey(books: ResManState, order: GroupOrder) -> None:
    """Take in an order; stale or repeated, it changes nothing. It is answered in any case.

    A changed demand is for containers yet to come, and only as to where they may go, while
    any container of the group has a place.
    """
    seen = order.seen if order.seen_epoch == books.epoch else 0
    books.answer[order.group] = min(seen, books.answer.get(order.group, seen))
    group = books.groups.get(order.group)
    if group is None:
        ended = books.ended.get(order.group)
        stale = ended is not None and (order.epoch, order.serial) <= (ended.epoch, ended.serial)
        if order.remove or stale:
            if not stale:
                books.end(order.group, order.epoch, order.serial)
            return
        books.ended.drop(order.group)
        group = Group(group=order.group, order=order, created_s=books.now_s)
    elif (order.epoch, order.serial) <= (group.order.epoch, group.order.serial):
        if order.group in books.stuck:
            books.fresh[order.group] = None  # Look everywhere again, and say anew why not.
        return
    forgiven = order.starts > group.order.starts
    kept = _kept(books, group.order, order)
    _recharge(books, group.order, kept)
    books.groups.put(order.group, replace(group, order=kept))
    books.shapes.pop(order.group, None)
    _reconcile(books, books.groups[order.group].order)
    if forgiven:
        _forgive(books, order.group)
    books.ending[order.group] = None


def finish(books: ResManState) -> None:
    """End the removed groups of which nothing is left, and forget those that ended long ago."""
    for key in books.ending:
        group = books.groups.get(key)
        if group is None or not group.order.remove or books.containers.count("live", key):
            continue
        for row in books.containers.where("group", key):
            books.containers.drop(row)
        books.groups.drop(key)
        for derived in (books.shapes, books.fresh, books.stuck, books.changed):
            derived.pop(key, None)
        books.forget_told(key)
        books.charges.forget(key)
        books.end(key, group.order.epoch, group.order.serial)
        books.answer[key] = 0
        books.tell("group.removed", key)
    books.ending.clear()
    books.trim_ended()


def _kept(books: ResManState, old: GroupOrder, new: GroupOrder) -> GroupOrder:
    demand = new.demand
    if demand != old.demand and _any_placed(books, new.group):
        demand = replace(old.demand, pools=demand.pools, tag=demand.tag, max_per_host=demand.max_per_host)
    return replace(new, demand=demand, replicas=min(max(0, new.replicas), books.config.replicas_max))


def _recharge(books: ResManState, old: GroupOrder, new: GroupOrder) -> None:
    """Count the group's slots as ``new`` asks; what waits for a place asks its quota anew."""
    if (old.user, old.demand) == (new.user, new.demand):
        return
    for key in books.containers.where("live", new.group):
        row = books.containers[key]
        if row.claimed and row.state is ContainerState.PENDING:
            books.write(key, replace(row, claimed=False))
    count = sum(counts(key, books.containers[key]) for key in books.containers.where("live", new.group))
    books.charge(old, -count)
    books.charge(new, count)


def _any_placed(books: ResManState, group: str) -> bool:
    rows = books.containers.where("live", group)
    return any(books.containers[key].state in PLACED for key in rows)


def _reconcile(books: ResManState, order: GroupOrder) -> None:
    """Bring the slots' rows in line with the order: the highest slots go first."""
    wanted = set() if order.remove else set(range(order.replicas)).difference(order.release)
    for key in books.containers.where("live", order.group):
        row = books.containers[key]
        if key == row.container and row.slot not in wanted:
            books.happen(key, SlotReleased(incarnation=row.incarnation))
    for slot in sorted(wanted):
        key = pod_id(order.group, slot)
        old = books.containers.get(key)
        if old is None:
            books.write(key, _new(books, order.group, slot))
        elif old.state in (ContainerState.DESTROYING, ContainerState.GONE):
            if old.state is ContainerState.DESTROYING:
                books.split(key)
            books.happen(key, SlotRequested(incarnation=old.incarnation))
    books.fresh[order.group] = None


def _forgive(books: ResManState, group: str) -> None:
    """Let what waits after failures be placed at once: its owner has asked for it anew."""
    for key in books.containers.where("waiting", group):
        row = books.containers[key]
        books.write(key, replace(row, failures=0, retry_s=0.0, avoid=()))
        books.later.stop(key)


def _new(books: ResManState, group: str, slot: int) -> Container:
    return Container(
        container=pod_id(group, slot),
        group=group,
        slot=slot,
        incarnation=0,
        state=ContainerState.PENDING,
        since_s=books.now_s,
    )
