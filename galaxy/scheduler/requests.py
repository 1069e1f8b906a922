"""What containers ask of an agent, in the numbers that placement counts with."""

from __future__ import annotations

from typing import Final, NamedTuple

from galaxy.model.base import Struct
from galaxy.model.messages.container import Demand, Reason

AMOUNT_MAX: Final = 2**52
"""Largest amount of anything: beyond it, 64-bit sums and exact quotients are not safe."""


class Load(NamedTuple):
    """What one container takes of its agent: millicores, bytes, port numbers.

    ``ports`` are the numbers that are known; ``dynamic`` counts those that the agent has yet
    to choose from its range.
    """

    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    ports: tuple[int, ...] = ()
    dynamic: int = 0


class Shape(Struct, frozen=True, kw_only=True):
    """What each of several equal containers asks, and which agents may take it.

    Ports are the host's, whatever network the container has: it is reached through them.
    ``require`` names limits that an agent must really enforce.
    """

    load: Load
    pools: tuple[str, ...] = ()
    tag: str = ""
    max_per_host: int = 0
    require: tuple[str, ...] = ()


class Ask(Struct, frozen=True, kw_only=True):
    """Equal containers of one group that want a place, in the order of their slots.

    ``size`` is how many the whole group wants; ``avoid`` names agents that are a last resort.
    """

    group: str
    shape: Shape
    containers: tuple[str, ...]
    size: int = 1
    priority: int = 100
    avoid: tuple[str, ...] = ()


class Placement(Struct, frozen=True, kw_only=True, gc=False):
    """One container's agent."""

    container: str
    agent: str


class Refusal(Struct, frozen=True, kw_only=True):
    """Containers that found no place, and why."""

    group: str
    containers: tuple[str, ...]
    reason: Reason


class PlacementPlan(Struct, frozen=True, kw_only=True):
    """What one call of ``place`` decided."""

    placements: tuple[Placement, ...] = ()
    refusals: tuple[Refusal, ...] = ()


def shape_of(demand: Demand, *, require: tuple[str, ...] = ()) -> Shape:
    """Return the shape of a container that is described by ``demand``."""
    static = {port.port for port in demand.ports if port.port}
    return Shape(
        load=Load(
            cpu_milli=bounded(demand.cpu_milli),
            memory_bytes=bounded(demand.memory_bytes),
            disk_bytes=bounded(demand.disk_bytes),
            ports=tuple(sorted(static)),
            dynamic=sum(1 for port in demand.ports if not port.port),
        ),
        pools=tuple(sorted(set(demand.pools))),
        tag=demand.tag,
        max_per_host=bounded(demand.max_per_host),
        require=require,
    )


def bounded(amount: int) -> int:
    """Return ``amount`` between 0 and ``AMOUNT_MAX``: what comes over the wire may be anything."""
    return min(max(int(amount), 0), AMOUNT_MAX)
