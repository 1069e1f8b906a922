"""Views of agents and of the cluster, made from stored rows; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from galaxy.model.api.views import AgentView, ClusterStatusView, LeaderView
from galaxy.model.messages.agent import AgentUsage, Heartbeat
from galaxy.model.messages.container import Reason
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.cluster import AgentLoad, AgentSums, JobSums


def agent_views(
    agents: Iterable[AgentRecord],
    loads: Mapping[str, AgentLoad],
    usages: Mapping[str, AgentUsage],
    heartbeats: Mapping[str, Heartbeat],
) -> tuple[AgentView, ...]:
    """Return agents by name; ``beat_s`` is 0 when no heartbeat is kept any more.

    Pool and tags are ResMan's, not those that the agent was started with.
    """
    views = []
    for record in sorted(agents, key=lambda record: record.agent):
        load = loads.get(record.agent) or AgentLoad(agent=record.agent)
        heartbeat = heartbeats.get(record.agent)
        views.append(
            AgentView(
                agent=record.agent,
                state=record.state,
                info=replace(record.info, pool=record.pool, tags=record.tags),
                assigned=load.assigned,
                cpu_assigned_milli=load.assigned.cpu_milli,
                memory_assigned_bytes=load.assigned.memory_bytes,
                disk_assigned_bytes=load.assigned.disk_bytes,
                containers=load.containers,
                usage=_without_pods(usages.get(record.agent)),
                beat_s=heartbeat.at_s if heartbeat else 0.0,
                trouble=heartbeat.trouble if heartbeat else "",
            )
        )
    return tuple(views)


def cluster_status_view(
    *,
    leaders: Iterable[LeaderView],
    agents: AgentSums,
    jobs: JobSums,
    safe_mode: Reason | None,
    version: str,
) -> ClusterStatusView:
    """Return the status of the cluster: counts by state, and totals over agents that are not dead."""
    total, assigned = agents.total, agents.assigned
    return ClusterStatusView(
        leaders=tuple(leaders),
        agents=agents.agents,
        jobs=jobs.jobs,
        pods=jobs.pods,
        packages=jobs.packages,
        packages_bytes=jobs.packages_bytes,
        packages_bytes_max=jobs.packages_bytes_max,
        total=total,
        assigned=assigned,
        cpu_total_milli=total.cpu_milli,
        cpu_assigned_milli=assigned.cpu_milli,
        memory_total_bytes=total.memory_bytes,
        memory_assigned_bytes=assigned.memory_bytes,
        disk_total_bytes=total.disk_bytes,
        disk_assigned_bytes=assigned.disk_bytes,
        safe_mode=safe_mode,
        refused=agents.refused,
        left=agents.left,
        version=version,
    )


def _without_pods(usage: AgentUsage | None) -> AgentUsage | None:
    """Leave out the usage of single pods, which views of jobs show."""
    return None if usage is None else replace(usage, pods={})
