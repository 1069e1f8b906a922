"""Quota is never exceeded: what a user's slots take grows under his ceiling only."""

from __future__ import annotations

from galaxy.model.messages.container import ContainerState
from galaxy.model.messages.quota import QuotaOrder
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.table import Table
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.leader import LeaderProcess

_PLACED = (ContainerState.ALLOCATING, ContainerState.READY, ContainerState.DESTROYING)


class Quotas:
    """Watches each leadership of ResMan from step to step, by its tables and a sum of our own.

    A ceiling that is lowered evicts nothing: what is over it may stay, and may be placed anew.
    """

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, int]] = {}
        self._leadership = ("", 0)

    def check(self, resman: LeaderProcess) -> None:
        """Compare the present tables of a ResMan that leads with those of its last step.

        Raises:
            Violation: something grew above its ceiling.
        """
        quotas: Table[QuotaOrder] | None = resman.table("quotas")
        if quotas is None:
            return
        taken = _taken(resman.table("containers"), resman.table("groups"))
        before, self._before = self._before, taken
        leadership, self._leadership = self._leadership, (resman.name, resman.epoch)
        if leadership != self._leadership or "all" not in quotas:
            return  # What another one left is where this one began.
        for quota in quotas["all"].quotas:
            now, then = taken.get(quota.user, (0, 0)), before.get(quota.user, (0, 0))
            limits = quota.ceiling.containers, quota.ceiling.cpu_milli
            for what, limit, had, has in zip(("containers", "millicores"), limits, then, now, strict=True):
                if limit is not None and has > max(limit, had):
                    raise Violation(f"{quota.user} has {has} {what}, had {had}; {limit} are his quota")


def _taken(containers: Table[Container], groups: Table[Group]) -> dict[str, tuple[int, int]]:
    """Return containers and millicores that each user's slots take, or wait to take again."""
    taken: dict[str, tuple[int, int]] = {}
    for key in containers:
        row = containers[key]
        group = groups.get(row.group)
        if group is None or key != row.container or not (row.state in _PLACED or row.claimed):
            continue
        count, cpu = taken.get(group.order.user, (0, 0))
        taken[group.order.user] = count + 1, cpu + group.order.demand.cpu_milli
    return taken
