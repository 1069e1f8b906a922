"""Agents, loads and asks with defaults, so that tests state only the numbers that matter."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.model.messages.agent import AgentInfo
from galaxy.model.resources import Resources
from galaxy.model.stored.agent import first_record
from galaxy.scheduler.cluster_view import ClusterView
from galaxy.scheduler.requests import Ask, Load, Shape

GIB = 1024**3


def agent(name: str, **changes: object) -> AgentInfo:
    """Return an agent of 4 cores, 8 GiB, 100 GiB and 10 dynamic ports."""
    return replace(
        AgentInfo(
            agent=name,
            address="10.0.0.1",
            boot="b",
            version="1",
            cpu_milli=4000,
            memory_bytes=8 * GIB,
            disk_bytes=100 * GIB,
            ports_low=20000,
            ports_high=20009,
        ),
        **changes,
    )


def view(*agents: AgentInfo, creating_max: int = 1000) -> ClusterView:
    """Return a view of ``agents``, in the order in which they join."""
    built = ClusterView(creating_max=creating_max)
    for one in agents:
        built.join(first_record(one))
    return built


def load(*, ports: tuple[int, ...] = (), dynamic: int = 0, **amounts: int) -> Load:
    """Return half a core, 1 GiB, 1 GiB, one container and no ports, except for the given amounts."""
    asked = Resources(cpu_milli=500, memory_bytes=GIB, disk_bytes=GIB, containers=1)
    return Load(replace(asked, **amounts), ports, dynamic)


def ask(
    group: str = "web",
    count: int = 1,
    *,
    size: int | None = None,
    avoid: tuple[str, ...] = (),
    priority: int = 100,
    of: Load | None = None,
    first: int = 0,
    **shape: object,
) -> Ask:
    """Return an ask for ``count`` containers of ``group``, numbered from ``first``."""
    return Ask(
        group=group,
        shape=Shape(load=of or load(), **shape),
        containers=tuple(f"{group}.{slot}" for slot in range(first, first + count)),
        size=size if size is not None else count,
        avoid=avoid,
        priority=priority,
    )
