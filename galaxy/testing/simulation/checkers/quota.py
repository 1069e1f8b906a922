"""A quota is never exceeded: a user's usage grows only below the ceiling."""

from __future__ import annotations

from galaxy.model.messages.container import ContainerState
from galaxy.model.messages.identity import IdentityOrder
from galaxy.model.resources import NOTHING, Resources
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.table import Table
from galaxy.scheduler.quota import charged
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.leader import LeaderProcess

_PLACED = (ContainerState.ALLOCATING, ContainerState.READY, ContainerState.DESTROYING)


class QuotaChecker:
    """Compares usage from step to step of each leadership of ResMan, summed up independently.

    Lowering a ceiling evicts nothing: containers beyond it keep running, and may be placed again.
    """

    def __init__(self) -> None:
        self._before: dict[str, Resources] = {}
        self._leadership = ("", 0)

    def check(self, resman: LeaderProcess) -> None:
        """Compare the tables of a leading ResMan with those after its previous step.

        Raises:
            Violation: something grew above its ceiling.
        """
        identity: Table[IdentityOrder] | None = resman.table("identity")
        if identity is None:
            return
        taken = _taken(resman.table("containers"), resman.table("groups"))
        before, self._before = self._before, taken
        leadership, self._leadership = self._leadership, (resman.name, resman.epoch)
        if leadership != self._leadership or "all" not in identity:
            return  # A new leadership starts from the usage that the last one left.
        for quota in identity["all"].quotas:
            now, then = taken.get(quota.user, NOTHING), before.get(quota.user, NOTHING)
            for resource, limit in quota.ceiling.limits():
                has, had = getattr(now, resource.field), getattr(then, resource.field)
                if has > max(limit, had):
                    raise Violation(
                        f"{quota.user} has {has} {resource.field}, had {had}; the quota is {limit}"
                    )


def _taken(containers: Table[Container], groups: Table[Group]) -> dict[str, Resources]:
    """Return what each user's slots use or have reserved."""
    taken: dict[str, Resources] = {}
    for key in containers:
        row = containers[key]
        group = groups.get(row.group)
        if group is None or key != row.container or not (row.state in _PLACED or row.claimed):
            continue
        waits = row.state is ContainerState.PENDING
        amount = group.demand_of(group.order.size if waits else row.size).resources.largest(row.resources)
        taken[group.order.user] = taken.get(group.order.user, NOTHING) + charged(amount, group.order.priority)
    return taken
