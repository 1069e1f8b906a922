"""A quota is never exceeded: what a user's jobs ask for, and what is placed, grow only below the ceiling."""

from __future__ import annotations

from collections.abc import Iterable

from galaxy.model.jobspec.demand import demand_of
from galaxy.model.messages.container import ContainerState
from galaxy.model.messages.identity import IdentityOrder
from galaxy.model.resources import NOTHING, Resources
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.job import DesiredState, JobRecord, RevisionRecord
from galaxy.model.stored.quota import Quota
from galaxy.model.stored.table import Table
from galaxy.scheduler.quota import charged, counts_in
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.leader import LeaderProcess

_PLACED = (ContainerState.ALLOCATING, ContainerState.READY, ContainerState.DESTROYING)

Taken = dict[tuple[str, tuple[str, ...]], Resources]
"""Amounts by user and by the pools that the job names."""


class QuotaChecker:
    """Compares usage from step to step of each leadership of one role, summed up independently.

    Lowering a ceiling evicts nothing: what is beyond it keeps running, and may be placed again.
    """

    def __init__(self) -> None:
        self._before: Taken = {}
        self._leadership = ("", 0)

    def check_placed(self, resman: LeaderProcess) -> None:
        """Compare the containers of a leading ResMan with those after its previous step.

        Raises:
            Violation: something grew above its ceiling.
        """
        identity: Table[IdentityOrder] | None = resman.table("identity")
        if identity is not None:
            quotas = identity["all"].quotas if "all" in identity else ()
            self._compare(resman, quotas, _placed(resman.table("containers"), resman.table("groups")))

    def check_wanted(self, appmaster: LeaderProcess) -> None:
        """Compare what the jobs of a leading AppMaster ask for with that after its previous step.

        Raises:
            Violation: a change was accepted although it grows above a ceiling.
        """
        quotas: Table[Quota] | None = appmaster.table("quotas")
        if quotas is not None:
            wanted = _wanted(appmaster.table("jobs"), appmaster.table("revisions"))
            self._compare(appmaster, quotas.values(), wanted)

    def _compare(self, leader: LeaderProcess, quotas: Iterable[Quota], taken: Taken) -> None:
        before, self._before = self._before, taken
        leadership, self._leadership = self._leadership, (leader.name, leader.epoch)
        if leadership != self._leadership:
            return  # A new leadership starts from the usage that the last one left.
        for quota in quotas:
            now, then = _sum(quota, taken), _sum(quota, before)
            for resource, limit in quota.ceiling.limits():
                has, had = getattr(now, resource.field), getattr(then, resource.field)
                if has > max(limit, had):
                    raise Violation(
                        f"{leader.role}: {quota.user} has {has} {resource.field} in pool {quota.pool}, "
                        f"had {had}; the quota is {limit}"
                    )


def _sum(quota: Quota, taken: Taken) -> Resources:
    return sum(
        (
            amount
            for (user, pools), amount in taken.items()
            if user == quota.user and counts_in(quota.pool, pools)
        ),
        start=NOTHING,
    )


def _placed(containers: Table[Container], groups: Table[Group]) -> Taken:
    """Return what each user's slots use or have reserved."""
    taken: Taken = {}
    for key in containers:
        row = containers[key]
        group = groups.get(row.group)
        if group is None or key != row.container or not (row.state in _PLACED or row.claimed):
            continue
        order, waits = group.order, row.state is ContainerState.PENDING
        amount = group.demand_of(order.size if waits else row.size).resources.largest(row.resources)
        of = order.user, order.demand.pools
        taken[of] = taken.get(of, NOTHING) + charged(amount, order.priority)
    return taken


def _wanted(jobs: Table[JobRecord], revisions: Table[RevisionRecord]) -> Taken:
    """Return what each user's jobs ask for: every pod that has, or will have, a container."""
    wanted: Taken = {}
    for job in jobs.values():
        if job.desired is DesiredState.REMOVE or job.state.is_over:
            continue
        spec = revisions[f"{job.job}@{job.revision}"].spec
        count = len(set(range(job.replica)).difference(job.group_release))
        each = charged(demand_of(spec).resources, spec.type.priority)
        of = job.user, spec.deploy.pools
        wanted[of] = wanted.get(of, NOTHING) + each * count
    return wanted
