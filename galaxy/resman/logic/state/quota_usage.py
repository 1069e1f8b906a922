"""What each user's containers take of his quota, and how many more it allows."""

from __future__ import annotations

from typing import Final

from galaxy.model.messages.container import GroupOrder, Reason
from galaxy.model.messages.identity import IdentityOrder
from galaxy.model.stored.quota import Amount, Quota
from galaxy.scheduler.quota import NOTHING, amount_of, counts_in, plus, room, shown, whose

QUOTA: Final = "quota"
"""Code of the reason of a slot that waits for its owner's quota."""


class Charges:
    """Sums over the slots that count, by user and by the pools that their groups name.

    A slot counts from its first placement until it is gone; see ``ResManState.counts``. Groups with
    slots that a quota holds back are remembered, to be looked at when it has room again.
    """

    def __init__(self, quotas: IdentityOrder | None) -> None:
        self._used: dict[str, dict[tuple[str, ...], Amount]] = {}
        self._each: dict[str, tuple[GroupOrder, Amount]] = {}
        self._held: dict[str, dict[str, None]] = {}
        self._quotas: dict[str, list[Quota]] = {}
        self.set(quotas)

    def set(self, quotas: IdentityOrder | None) -> tuple[str, ...]:
        """Count by other ceilings from now on; return the groups to look at again."""
        self._quotas = {}
        for quota in quotas.quotas if quotas else ():
            self._quotas.setdefault(quota.user, []).append(quota)
        groups = tuple(group for held in self._held.values() for group in held)
        self._held = {}
        return groups

    def charge(self, order: GroupOrder, times: int) -> tuple[str, ...]:
        """Count ``times`` more slots of a group; fewer return the groups to look at again."""
        used = self._used.setdefault(order.user, {})
        pools = order.demand.pools
        used[pools] = plus(used.get(pools, NOTHING), self._amount(order), times)
        if not used[pools].containers:
            del used[pools]
            if not used:
                del self._used[order.user]
        return tuple(self._held.pop(order.user, ())) if times < 0 else ()

    def used(self, user: str, pool: str) -> Amount:
        """Return what counts against a quota of ``user`` on ``pool``."""
        sums = self._used.get(user, {})
        whole = NOTHING
        for pools, amount in sums.items():
            if counts_in(pool, pools):
                whole = plus(whole, amount)
        return whole

    def room(self, order: GroupOrder) -> tuple[int, Reason] | None:
        """Return how many more slots of a group fit, and what holds back more; None is no limit."""
        tightest: tuple[int, Quota, str] | None = None
        each = self._amount(order)
        for quota in self._quotas.get(order.user, ()):
            if counts_in(quota.pool, order.demand.pools):
                fits = room(quota.ceiling, self.used(quota.user, quota.pool), each)
                if fits is not None and (tightest is None or fits[0] < tightest[0]):
                    tightest = fits[0], quota, fits[1]
        if tightest is None:
            return None
        return tightest[0], _why(tightest[1], tightest[2], each)

    def hold(self, order: GroupOrder) -> None:
        """Remember that slots of a group wait for quota."""
        self._held.setdefault(order.user, {})[order.group] = None

    def forget(self, group: str) -> None:
        self._each.pop(group, None)

    def _amount(self, order: GroupOrder) -> Amount:
        known = self._each.get(order.group)
        if known is None or known[0].demand is not order.demand:
            known = self._each[order.group] = order, amount_of(order.demand)
        return known[1]


def _why(quota: Quota, field: str, each: Amount) -> Reason:
    limit, asks = getattr(quota.ceiling, field), getattr(each, field)
    message = f"{whose(quota, field)} is used up: {shown(field, asks)} each, {shown(field, limit)} in all"
    return Reason(code=QUOTA, message=message, counts={"asks": asks, "ceiling": limit})
