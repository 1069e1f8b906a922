"""Machines: agents, drains, pools, tags, labels and safe mode; for operators. ResMan answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from galaxy.client import arguments
from galaxy.client.methods.asking import Asking
from galaxy.model.api.audit import AuditList
from galaxy.model.api.drains import (
    DrainAgents,
    DrainList,
    DrainPlan,
    OnlineAgents,
    PlanDrain,
    ShowDrains,
    check_deadline,
)
from galaxy.model.api.machines import (
    LABELS_MAX,
    AddAgent,
    AgentsView,
    CordonAgents,
    CreatePool,
    LabelAgents,
    ListMachineAudit,
    ListPools,
    ListTags,
    MovePool,
    PoolView,
    RemoveAgents,
    RemovePool,
    TagAgents,
    TagView,
    UncordonAgents,
    UntagAgents,
    check_hosts,
    check_labels,
    check_marks,
    check_reason,
)
from galaxy.model.api.safemode import EnterSafeMode, LeaveSafeMode, SafeModeView, ShowSafeMode


class MachineMethods(Asking):
    """Machines: agents, drains, pools, tags, labels and safe mode; for operators.

    ResMan answers, so all of them work while no AppMaster runs. A change of several hosts is made on all
    of them or on none.
    """

    def cordon(self, hosts: Sequence[str], *, reason: str = "", key: str = "") -> AgentsView:
        """Place nothing new on ``hosts``; what runs there goes on.

        Raises:
            NotFound: one of them is not known.
        """
        return self._ask(CordonAgents(agents=_hosts(hosts), reason=check_reason(reason)), key)

    def uncordon(self, hosts: Sequence[str], *, key: str = "") -> AgentsView:
        """Place containers on ``hosts`` again.

        Raises:
            NotFound: one of them is not known. Conflict: one is drained; ``online`` opens it.
        """
        return self._ask(UncordonAgents(agents=_hosts(hosts)), key)

    def add_agent(
        self,
        host: str,
        *,
        pool: str = "",
        tags: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        key: str = "",
    ) -> AgentsView:
        """Register a host before its agent joins, with the pool, tags and labels that it is to have.

        Raises:
            Conflict: it has joined already. NotFound: there is no such pool.
        """
        (agent,) = check_hosts([host])
        asked = AddAgent(
            agent=agent,
            pool=check_marks("pool", [pool])[0] if pool else "",
            tags=_marks("tag", tags),
            labels=check_labels(dict(labels or {})),
        )
        return self._ask(asked, key)

    def remove_agents(self, hosts: Sequence[str], *, force: bool = False, key: str = "") -> AgentsView:
        """Forget hosts that do not return, and registrations.

        ``force``: also hosts that are alive or hold containers, which are placed elsewhere. An agent that
        still runs joins again.

        Raises:
            NotFound: one of them is not known. Conflict: one is not gone, and ``force`` is not set.
        """
        return self._ask(RemoveAgents(agents=_hosts(hosts), force=force), key)

    def label_agents(
        self,
        hosts: Sequence[str],
        labels: Mapping[str, str] | None = None,
        *,
        remove: Sequence[str] = (),
        key: str = "",
    ) -> AgentsView:
        """Set ``labels`` of hosts, and remove those with the keys ``remove``.

        Raises:
            NotFound: a host is not known. UsageError: one would have too many labels.
        """
        asked = LabelAgents(
            agents=_hosts(hosts),
            labels=check_labels(dict(labels or {})),
            remove=check_marks("label", arguments.names(remove, "remove"), LABELS_MAX),
        )
        return self._ask(asked, key)

    def drain(
        self,
        hosts: Sequence[str],
        *,
        deadline_s: float = 0.0,
        force: bool = False,
        offline: bool = False,
        reason: str = "",
        key: str = "",
    ) -> AgentsView:
        """Have every container leave ``hosts``, and place nothing new there; returns at once.

        The pods of each job leave at the job's own pace. What is left after ``deadline_s`` seconds (0: no
        deadline), or at once with ``force``, is evicted. ``offline``: the hosts are out of service.
        ``drains`` says what is left.

        Raises:
            NotFound: one of them is not known.
        """
        asked = DrainAgents(
            agents=_hosts(hosts),
            deadline_s=check_deadline(deadline_s),
            force=force,
            offline=offline,
            reason=check_reason(reason),
        )
        return self._ask(asked, key)

    def online(self, hosts: Sequence[str], *, key: str = "") -> AgentsView:
        """End the drain of ``hosts``; containers are placed there again, unless they are cordoned as well.

        Raises:
            NotFound: one of them is not known. Conflict: none is drained, and one is cordoned.
        """
        return self._ask(OnlineAgents(agents=_hosts(hosts)), key)

    def drains(self, hosts: Sequence[str]) -> DrainList:
        """Return what is left on ``hosts``, and where it is to go.

        Raises:
            NotFound: one of them is not known.
        """
        return self._ask(ShowDrains(agents=_hosts(hosts)))

    def plan_drain(self, hosts: Sequence[str], *, evict: bool = False) -> DrainPlan:
        """Return where each container on ``hosts`` would go, and which jobs would be short; change nothing.

        ``evict``: what would happen at the deadline, when pods of batch jobs have to leave as well.
        """
        return self._ask(PlanDrain(agents=_hosts(hosts), evict=evict))

    def pools(self) -> list[PoolView]:
        """List the pools, by name."""
        return self._all(ListPools(), lambda page: page.pools)

    def create_pool(self, pool: str, *, key: str = "") -> PoolView:
        """Create an empty pool.

        Raises:
            Conflict: it exists.
        """
        return self._ask(CreatePool(pool=check_marks("pool", [pool])[0]), key)

    def remove_pool(self, pool: str, *, key: str = "") -> PoolView:
        """Remove a pool.

        Raises:
            NotFound: there is no such pool. Conflict: hosts are in it.
        """
        return self._ask(RemovePool(pool=check_marks("pool", [pool])[0]), key)

    def move_pool(self, hosts: Sequence[str], pool: str, *, key: str = "") -> AgentsView:
        """Move hosts to a pool.

        Raises:
            NotFound: there is no such pool, or a host is not known.
        """
        return self._ask(MovePool(agents=_hosts(hosts), pool=check_marks("pool", [pool])[0]), key)

    def tag_agents(self, tags: Sequence[str], hosts: Sequence[str], *, key: str = "") -> AgentsView:
        """Give tags to hosts.

        Raises:
            NotFound: a host is not known. UsageError: one would have too many tags.
        """
        return self._ask(TagAgents(tags=_marks("tag", tags), agents=_hosts(hosts)), key)

    def untag_agents(self, tags: Sequence[str], hosts: Sequence[str], *, key: str = "") -> AgentsView:
        """Take tags from hosts.

        Raises:
            NotFound: a host is not known.
        """
        return self._ask(UntagAgents(tags=_marks("tag", tags), agents=_hosts(hosts)), key)

    def tags(self) -> list[TagView]:
        """List the tags with their hosts, by name."""
        return self._all(ListTags(), lambda page: page.tags)

    def safe_mode(self) -> SafeModeView:
        """Return whether ResMan is in safe mode, since when and why."""
        return self._ask(ShowSafeMode())

    def enter_safe_mode(self, *, reason: str = "", key: str = "") -> SafeModeView:
        """Enter safe mode, which stays until ``leave_safe_mode``, whatever happens to ResMan."""
        return self._ask(EnterSafeMode(reason=check_reason(reason)), key)

    def leave_safe_mode(self, *, key: str = "") -> SafeModeView:
        """Leave safe mode. Hosts that vanished together count as lost from then on.

        Raises:
            Conflict: it is off, or ResMan has just begun to lead.
        """
        return self._ask(LeaveSafeMode(), key)

    def machine_audit(
        self,
        *,
        after: int = 0,
        before: int = 0,
        limit: int = 100,
        user: str = "",
        operation: str = "",
        target: str = "",
        since_s: float = 0.0,
    ) -> AuditList:
        """Return audit records of what operators asked ResMan; arguments are those of ``audit``."""
        return self._ask(
            ListMachineAudit(
                after=after,
                before=before,
                limit=limit,
                user=user,
                operation=operation,
                target=target,
                since_s=since_s,
            )
        )


def _hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    return check_hosts(arguments.names(hosts, "hosts"))


def _marks(what: str, names: Sequence[str]) -> tuple[str, ...]:
    return check_marks(what, arguments.names(names, f"{what}s"))
