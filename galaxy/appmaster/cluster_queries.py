"""Views of agents and of the cluster, made from stored rows; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from galaxy.errors import BadMessage
from galaxy.ids import HOST
from galaxy.model.api.views import AgentView, ClusterStatusView, LeaderView
from galaxy.model.base import Struct, check_wire
from galaxy.model.messages.agent import AgentUsage, Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.resources import NOTHING, Resources
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.job import JobRecord, PodRecord

REFUSED_MAX: Final = 20
REFUSED_RECENT_S: Final = 60.0
_PLACED = (ContainerState.ALLOCATING, ContainerState.READY, ContainerState.DESTROYING)


class AgentLoad(Struct, frozen=True, kw_only=True):
    """What the containers of one agent ask for together, and their names."""

    assigned: Resources = NOTHING
    containers: tuple[str, ...] = ()


def agent_loads(containers: Iterable[Container], groups: Mapping[str, Group]) -> dict[str, AgentLoad]:
    """Return the load of each agent that has containers, will get one, or must still destroy one."""
    asked: dict[str, Resources] = {}
    sums: dict[str, Counter[Resources]] = {}
    names: dict[str, set[str]] = {}
    for row in containers:
        if not row.agent or row.state not in _PLACED:
            continue
        amounts = row.resources
        group = groups.get(row.group)
        if amounts == NOTHING and group is not None:
            if row.group not in asked:
                asked[row.group] = group.order.demand.resources
            amounts = asked[row.group]
        sums.setdefault(row.agent, Counter())[amounts] += 1
        names.setdefault(row.agent, set()).add(row.container)
    return {
        agent: AgentLoad(
            assigned=sum((amounts * times for amounts, times in counts.items()), start=NOTHING),
            containers=tuple(sorted(names[agent])),
        )
        for agent, counts in sums.items()
    }


def agent_views(
    agents: Iterable[AgentRecord],
    load: Mapping[str, AgentLoad],
    usages: Mapping[str, AgentUsage],
    heartbeats: Mapping[str, Heartbeat],
) -> tuple[AgentView, ...]:
    """Return agents by name; ``beat_s`` is 0 when no heartbeat is kept any more.

    Pool and tags are ResMan's, not those that the agent was started with.
    """
    views = []
    for record in sorted(agents, key=lambda record: record.agent):
        known = load.get(record.agent, AgentLoad())
        heartbeat = heartbeats.get(record.agent)
        views.append(
            AgentView(
                agent=record.agent,
                state=record.state,
                info=replace(record.info, pool=record.pool, tags=record.tags),
                assigned=known.assigned,
                cpu_assigned_milli=known.assigned.cpu_milli,
                memory_assigned_bytes=known.assigned.memory_bytes,
                disk_assigned_bytes=known.assigned.disk_bytes,
                containers=known.containers,
                usage=_without_pods(usages.get(record.agent)),
                beat_s=heartbeat.at_s if heartbeat else 0.0,
                trouble=heartbeat.trouble if heartbeat else "",
            )
        )
    return tuple(views)


def refused_agents(seen: HeartbeatsRead, known: Collection[str] = ()) -> tuple[Reason, ...]:
    """Return the agents whose heartbeats our release refuses, the most recent first.

    An agent's login can send heartbeats under any name. So agents that are ``known`` to ResMan come first,
    and the others are counted beyond a limit: false names cannot hide a real agent.
    """
    refused: list[str] = []
    more = unnamed = 0
    for heartbeat in sorted(
        seen.heartbeats,
        key=lambda heartbeat: (heartbeat.agent not in known, -heartbeat.at_s, heartbeat.agent),
    ):
        if seen.now_s - heartbeat.at_s > REFUSED_RECENT_S:
            continue
        try:
            check_wire(heartbeat.wire)
        except BadMessage as error:
            if not HOST.fullmatch(heartbeat.agent):
                unnamed += 1
            elif len(refused) == REFUSED_MAX:
                more += 1
            else:
                refused.append(f"{heartbeat.agent}: {error.message}; {error.hint}")
    if more:
        refused.append(f"{more} more that are not listed")
    if unnamed:
        refused.append(f"{unnamed} under names that no host can have; who has an agent's login?")
    return tuple(Reason(code="agent-refused", message=message) for message in refused)


def cluster_status_view(
    *,
    leaders: Iterable[LeaderView],
    agents: Iterable[AgentView],
    refused: tuple[Reason, ...],
    jobs: Iterable[JobRecord],
    pods: Iterable[PodRecord],
    safe_mode: Reason | None,
    version: str,
) -> ClusterStatusView:
    """Return the status of the cluster: counts by state, and totals over agents that are not dead."""
    every = list(agents)
    alive = [agent for agent in every if agent.state != "dead"]
    total = sum((agent.info.resources for agent in alive), start=NOTHING)
    assigned = sum((agent.assigned for agent in alive), start=NOTHING)
    return ClusterStatusView(
        leaders=tuple(leaders),
        agents=dict(Counter(str(agent.state) for agent in every)),
        jobs=dict(Counter(str(job.state) for job in jobs)),
        pods=dict(Counter(str(pod.phase) for pod in pods)),
        total=total,
        assigned=assigned,
        cpu_total_milli=total.cpu_milli,
        cpu_assigned_milli=assigned.cpu_milli,
        memory_total_bytes=total.memory_bytes,
        memory_assigned_bytes=assigned.memory_bytes,
        disk_total_bytes=total.disk_bytes,
        disk_assigned_bytes=assigned.disk_bytes,
        safe_mode=safe_mode,
        refused=refused,
        version=version,
    )


def _without_pods(usage: AgentUsage | None) -> AgentUsage | None:
    """Leave out the usage of single pods, which views of jobs show."""
    return None if usage is None else replace(usage, pods={})
