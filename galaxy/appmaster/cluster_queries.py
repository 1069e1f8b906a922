"""The view of the cluster, made from stored rows; pure."""

from __future__ import annotations

from collections.abc import Iterable

from galaxy.model.api.views import ClusterStatusView, LeaderView
from galaxy.model.messages.container import Reason
from galaxy.model.stored.cluster import AgentSums, JobSums


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
        closed=agents.closed,
        version=version,
    )
