"""Agents and the cluster as people see them, from stored rows; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from galaxy.errors import BadMessage
from galaxy.ids import HOST
from galaxy.model.api.views import AgentView, ClusterStatusView, LeaderView
from galaxy.model.base import Struct, check_wire
from galaxy.model.messages.agent import AgentUsage, Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.job import JobRecord, PodRecord

REFUSED_MAX: Final = 20
REFUSED_FRESH_S: Final = 60.0
_HELD = (ContainerState.ALLOCATING, ContainerState.READY, ContainerState.DESTROYING)


class PlacedLoad(Struct, frozen=True, kw_only=True):
    """What the containers of one agent ask together: millicores and bytes."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    containers: tuple[str, ...] = ()


def loads(containers: Iterable[Container], groups: Mapping[str, Group]) -> dict[str, PlacedLoad]:
    """Return the load of each agent that holds a container, or is about to, or is not yet rid of it."""
    sums: dict[str, list[int]] = {}
    names: dict[str, list[str]] = {}
    for row in containers:
        if not row.agent or row.state not in _HELD:
            continue
        group = groups.get(row.group)
        own = row.cpu_milli or row.memory_bytes or row.disk_bytes
        ask = row if own or group is None else group.order.demand
        agent = sums.setdefault(row.agent, [0, 0, 0])
        agent[0] += ask.cpu_milli
        agent[1] += ask.memory_bytes
        agent[2] += ask.disk_bytes
        names.setdefault(row.agent, []).append(row.container)
    return {
        agent: PlacedLoad(
            cpu_milli=cpu, memory_bytes=memory, disk_bytes=disk, containers=tuple(sorted(set(names[agent])))
        )
        for agent, (cpu, memory, disk) in sums.items()
    }


def agent_views(
    agents: Iterable[AgentRecord],
    load: Mapping[str, PlacedLoad],
    usages: Mapping[str, AgentUsage],
    beats: Mapping[str, Heartbeat],
) -> tuple[AgentView, ...]:
    """Return agents by name; ``beat_s`` is 0 when no heartbeat is kept any more."""
    views = []
    for record in sorted(agents, key=lambda row: row.agent):
        held = load.get(record.agent, PlacedLoad())
        beat = beats.get(record.agent)
        views.append(
            AgentView(
                agent=record.agent,
                state=record.state,
                info=record.info,
                cpu_assigned_milli=held.cpu_milli,
                memory_assigned_bytes=held.memory_bytes,
                disk_assigned_bytes=held.disk_bytes,
                containers=held.containers,
                usage=_of_the_machine(usages.get(record.agent)),
                beat_s=beat.at_s if beat else 0.0,
                trouble=beat.trouble if beat else "",
            )
        )
    return tuple(views)


def refused_agents(seen: HeartbeatsRead, known: Collection[str] = ()) -> tuple[Reason, ...]:
    """Return which agents beat and are refused by leaders of our release, the last heard of first.

    Whoever may beat may do so under any name. So agents that are ``known`` to ResMan come before all
    others, and what is not listed is counted: a crowd hides nobody.
    """
    refused: list[str] = []
    more = unnamed = 0
    for beat in sorted(seen.beats, key=lambda beat: (beat.agent not in known, -beat.at_s, beat.agent)):
        if seen.now_s - beat.at_s > REFUSED_FRESH_S:
            continue
        try:
            check_wire(beat.wire)
        except BadMessage as error:
            if not HOST.fullmatch(beat.agent):
                unnamed += 1
            elif len(refused) == REFUSED_MAX:
                more += 1
            else:
                refused.append(f"{beat.agent}: {error.message}; {error.hint}")
    if more:
        refused.append(f"{more} more that are not listed")
    if unnamed:
        refused.append(f"{unnamed} under names that no host can have; who has an agent's login?")
    return tuple(Reason(code="agent-refused", message=message) for message in refused)


def cluster_view(
    *,
    leaders: Iterable[LeaderView],
    agents: Iterable[AgentView],
    refused: tuple[Reason, ...],
    jobs: Iterable[JobRecord],
    pods: Iterable[PodRecord],
    safe_mode: Reason | None,
    version: str,
) -> ClusterStatusView:
    """Return counts by state, and totals over agents that are not dead."""
    every = list(agents)
    living = [agent for agent in every if agent.state != "dead"]
    return ClusterStatusView(
        leaders=tuple(leaders),
        agents=dict(Counter(str(agent.state) for agent in every)),
        jobs=dict(Counter(str(job.state) for job in jobs)),
        pods=dict(Counter(str(pod.phase) for pod in pods)),
        cpu_total_milli=sum(agent.info.cpu_milli for agent in living),
        cpu_assigned_milli=sum(agent.cpu_assigned_milli for agent in living),
        memory_total_bytes=sum(agent.info.memory_bytes for agent in living),
        memory_assigned_bytes=sum(agent.memory_assigned_bytes for agent in living),
        disk_total_bytes=sum(agent.info.disk_bytes for agent in living),
        disk_assigned_bytes=sum(agent.disk_assigned_bytes for agent in living),
        safe_mode=safe_mode,
        refused=refused,
        version=version,
    )


def _of_the_machine(usage: AgentUsage | None) -> AgentUsage | None:
    """Leave out what single pods use: their jobs show it."""
    return None if usage is None else msgspec.structs.replace(usage, pods={})
