"""How much of the quotas each user's containers use, and how many more containers fit."""

from __future__ import annotations

from typing import Final

from galaxy.model.messages.container import GroupOrder, Reason
from galaxy.model.messages.identity import IdentityOrder
from galaxy.model.resources import NOTHING, Resource, Resources
from galaxy.model.stored.quota import Quota
from galaxy.scheduler.quota import ceiling_name, charged, counts_in

QUOTA: Final = "quota"
"""Code of the reason of a slot that waits for its owner's quota."""


class QuotaUsage:
    """Sums over the slots that count, by user and by the pools that their groups name.

    A slot counts from its first placement until it is gone; see ``container_index.counts``. A group with
    slots that wait for quota is blocked; it is placed again when the quota may have room.
    """

    def __init__(self, quotas: IdentityOrder | None) -> None:
        self._used: dict[str, dict[tuple[str, ...], Resources]] = {}
        self._each: dict[str, tuple[GroupOrder, Resources]] = {}
        self._blocked: dict[str, dict[str, None]] = {}
        self._quotas: dict[str, list[Quota]] = {}
        self.set_quotas(quotas)

    def set_quotas(self, quotas: IdentityOrder | None) -> tuple[str, ...]:
        """Replace all ceilings; return the groups to place again."""
        self._quotas = {}
        for quota in quotas.quotas if quotas else ():
            self._quotas.setdefault(quota.user, []).append(quota)
        groups = tuple(group for blocked in self._blocked.values() for group in blocked)
        self._blocked = {}
        return groups

    def charge(self, order: GroupOrder, amount: Resources) -> tuple[str, ...]:
        """Count ``amount`` more of a group; if any of it is negative, return the groups to place again."""
        used = self._used.setdefault(order.user, {})
        pools = order.demand.pools
        used[pools] = used.get(pools, NOTHING) + amount
        if not used[pools].containers:
            del used[pools]
            if not used:
                del self._used[order.user]
        return tuple(self._blocked.pop(order.user, ())) if min(amount.values()) < 0 else ()

    def used(self, user: str, pool: str) -> Resources:
        """Return what counts against a quota of ``user`` on ``pool``."""
        total = NOTHING
        for pools, amount in self._used.get(user, {}).items():
            if counts_in(pool, pools):
                total += amount
        return total

    def room(self, order: GroupOrder) -> tuple[int, Reason] | None:
        """Return how many more slots of a group fit, and what limits them; None means no limit."""
        tightest: tuple[int, Quota, Resource] | None = None
        each = self.each(order)
        for quota in self._quotas.get(order.user, ()):
            if counts_in(quota.pool, order.demand.pools):
                fits = quota.ceiling.room(self.used(quota.user, quota.pool), each)
                if fits is not None and (tightest is None or fits[0] < tightest[0]):
                    tightest = fits[0], quota, fits[1]
        if tightest is None:
            return None
        return tightest[0], _why(tightest[1], tightest[2], each)

    def refusal(self, order: GroupOrder, grown: Resources) -> Reason | None:
        """Return why a container of the group may not take ``grown`` more; None if it may."""
        for quota in self._quotas.get(order.user, ()):
            if not counts_in(quota.pool, order.demand.pools):
                continue
            used = self.used(quota.user, quota.pool)
            for resource in quota.ceiling.exceeded(used, used + grown):
                return _why(quota, resource, self.each(order))
        return None

    def block(self, order: GroupOrder) -> None:
        """Record that slots of a group wait for quota."""
        self._blocked.setdefault(order.user, {})[order.group] = None

    def remove_group(self, group: str) -> None:
        """Drop the cached amounts of a group that is gone."""
        self._each.pop(group, None)

    def each(self, order: GroupOrder) -> Resources:
        """Return what each container of the group counts, if it has the size that the order asks for."""
        known = self._each.get(order.group)
        if known is None or known[0].demand is not order.demand:
            known = self._each[order.group] = order, charged(order.demand.resources.bounded(), order.priority)
        return known[1]


def _why(quota: Quota, resource: Resource, each: Resources) -> Reason:
    limit, asks = getattr(quota.ceiling, resource.field), getattr(each, resource.field)
    name, show = ceiling_name(quota, resource), resource.show
    message = f"{name} is used up: {show(asks)} each, {show(limit)} in all"
    return Reason(code=QUOTA, message=message, counts={"asks": asks, "ceiling": limit})
