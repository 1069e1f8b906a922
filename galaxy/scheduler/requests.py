"""The input of placement, asks, and its output, placements and refusals."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.messages.container import Constraints, Demand, Reason
from galaxy.model.resources import Resources, bounded


class Load(Struct, frozen=True, gc=False):
    """What one container takes of its agent: amounts and port numbers.

    There may be a million, so the garbage collector does not track them.
    ``ports`` are the known numbers; ``dynamic`` counts the ports that the agent has yet to choose from
    its range.
    """

    resources: Resources
    ports: tuple[int, ...] = ()
    dynamic: int = 0


class Shape(Struct, frozen=True, kw_only=True):
    """What each of several equal containers takes, and which agents are allowed for it.

    Ports are always ports of the host, because the container is reached through them.
    ``require`` names limits that an agent must really enforce.
    """

    load: Load
    pools: tuple[str, ...] = ()
    tag: str = ""
    max_per_host: int = 0
    require: tuple[str, ...] = ()
    constraints: Constraints = Constraints()


class JobGroups(Struct, frozen=True):
    """The groups of one owner's jobs with one name; there is none before the job is run."""

    job: str
    groups: tuple[str, ...] = ()
    entry: str = ""
    """The name in the other job's ``anti_affinity`` that keeps these apart; empty if the asking job does."""


class Ask(Struct, frozen=True, kw_only=True):
    """Equal containers of one group that need an agent, in the order of their slots.

    ``size`` is the number of containers of the whole group; agents in ``avoid`` are used last.
    """

    group: str
    shape: Shape
    containers: tuple[str, ...]
    size: int = 1
    priority: int = 100
    avoid: tuple[str, ...] = ()
    near: tuple[JobGroups, ...] = ()
    """An agent needs a container of each of these jobs."""
    apart: tuple[JobGroups, ...] = ()
    """An agent may not have a container of any of these jobs."""


class Placement(Struct, frozen=True, gc=False):
    """One container's agent."""

    container: str
    agent: str


class Refusal(Struct, frozen=True, kw_only=True):
    """Containers of a group that no agent has room for, and the reason."""

    group: str
    containers: tuple[str, ...]
    reason: Reason


class PlacementPlan(Struct, frozen=True, kw_only=True):
    """What one call of ``place`` decided."""

    placements: tuple[Placement, ...] = ()
    refusals: tuple[Refusal, ...] = ()


def shape_of(demand: Demand, *, require: tuple[str, ...] = ()) -> Shape:
    """Return the shape of a container with ``demand``."""
    static = {port.port for port in demand.ports if port.port}
    return Shape(
        load=Load(
            resources=demand.resources.bounded(),
            ports=tuple(sorted(static)),
            dynamic=sum(1 for port in demand.ports if not port.port),
        ),
        pools=tuple(sorted(set(demand.pools))),
        tag=demand.tag,
        max_per_host=bounded(demand.max_per_host),
        require=require,
        constraints=demand.constraints,
    )
