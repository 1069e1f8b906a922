"""Views of agents, made from stored rows; for the leaders that list them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from galaxy.model.api.views import AgentView
from galaxy.model.messages.agent import AgentUsage, Heartbeat
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.cluster import AgentLoad


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
                labels=record.labels,
                cordon=record.cordon,
                drain=record.drain,
            )
        )
    return tuple(views)


def _without_pods(usage: AgentUsage | None) -> AgentUsage | None:
    """Leave out the usage of single pods, which views of jobs show."""
    return None if usage is None else replace(usage, pods={})
