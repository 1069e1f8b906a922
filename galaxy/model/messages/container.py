"""Containers as ResMan and Agents speak of them: demand, orders, what is found, outcomes."""

from __future__ import annotations

from enum import StrEnum

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.identity import IdentityAck, IdentityOrder
from galaxy.model.resources import NOTHING, RESOURCES, Resources


class TaskDemand(Struct, frozen=True, kw_only=True):
    """Limits of one task's cgroup: millicores, bytes, a count of processes, an io weight."""

    name: str
    cpu_milli: int
    memory_bytes: int
    cpu_excess: bool = False
    memory_excess: bool = False
    pids_max: int = 512
    io_weight: int = 500


class VolumeDemand(Struct, frozen=True, kw_only=True):
    """A volume of ``size_bytes`` seen at ``path``; tmpfs is charged as memory."""

    path: str
    size_bytes: int
    medium: Medium = Medium.DISK
    readonly: bool = False
    exclusive: bool = False


class PortDemand(Struct, frozen=True, kw_only=True):
    """A port that a task listens on; 0 lets the agent choose. ``name`` is unique over the pod."""

    name: str
    port: int = 0


class Demand(Struct, frozen=True, kw_only=True):
    """What one container asks of a machine, and where it may live."""

    tasks: tuple[TaskDemand, ...]
    workspace: VolumeDemand
    volumes: tuple[VolumeDemand, ...] = ()
    ports: tuple[PortDemand, ...] = ()
    pools: tuple[str, ...] = ()
    tag: str = ""
    max_per_host: int = 0
    network: str = "host"

    @property
    def resources(self) -> Resources:
        """What one container takes: its tasks' amounts, its volumes by medium, and one container."""
        volumes = (self.workspace, *self.volumes)
        return Resources(
            **{
                row.field: row.per_container
                + sum(getattr(task, row.field, 0) for task in self.tasks)
                + sum(volume.size_bytes for volume in volumes if volume.medium in row.media)
                for row in RESOURCES
            }
        )


class GroupOrder(Struct, frozen=True, kw_only=True):
    """AppMaster to ResMan: there shall be ``replicas`` equal containers; 0 and ``remove`` ends it.

    ``epoch`` is AppMaster's and ``serial`` counts its orders for this group: an order that is
    not newer than the last one obeyed changes nothing, and is answered all the same.
    """

    group: str
    epoch: int
    serial: int
    replicas: int
    demand: Demand
    priority: int = 100
    batch: bool = False
    remove: bool = False
    release: tuple[int, ...] = ()
    """Slots below ``replicas`` that are done for good and keep no container (finished pods)."""
    starts: int = 0
    """How often the job's owner asked to start it: when it grows, earlier failures are forgiven."""
    seen_epoch: int = 0
    seen: int = 0
    """The last ``GroupStatus`` up to which AppMaster has missed none, by ResMan's epoch and version:
    while it is still the last one, the answer need not list the slots. 0 asks for all of them."""
    user: str = ""
    """Whose quota it counts against."""


class ContainerState(StrEnum):
    """Where a slot is in its life, as ResMan sees it."""

    PENDING = "pending"
    ALLOCATING = "allocating"
    READY = "ready"
    DESTROYING = "destroying"
    GONE = "gone"


class Reason(Struct, frozen=True, kw_only=True):
    """Why something is not as wanted: a stable word, a sentence, and numbers by name."""

    code: str
    message: str = ""
    counts: dict[str, int] = {}
    """For a placement: agents per cause, e.g. ``{"cpu": 12, "pool": 3}``."""
    nearest: tuple[str, ...] = ()
    """Names of the agents that came nearest, each with what it lacks."""


class SlotStatus(Struct, frozen=True, kw_only=True):
    """ResMan to AppMaster: where one container slot stands."""

    container: str
    incarnation: int
    state: ContainerState
    agent: str = ""
    address: str = ""
    ports: dict[str, int] = {}
    reason: Reason | None = None


class GroupStatus(Struct, frozen=True, kw_only=True):
    """ResMan to AppMaster: the slots of one group that changed, or all of them (``full``).

    ``serial`` is that of the last ``GroupOrder`` obeyed, which acknowledges it. ``known`` is
    False when ResMan has no such group, so a removal has come to its end. ``version`` grows with
    every change that is told in one epoch; ``since`` is the version that this one follows on.
    Who has ``since`` has ``version`` after it; the same twice says that nothing has changed.
    """

    group: str
    epoch: int
    serial: int
    slots: tuple[SlotStatus, ...] = ()
    full: bool = False
    known: bool = True
    since: int = 0
    version: int = 0


class GroupOrders(Struct, frozen=True, kw_only=True):
    """Everything that one tick of AppMaster has for ResMan; ``identity`` is applied first."""

    orders: tuple[GroupOrder, ...]
    identity: IdentityOrder | None = None


class GroupStatuses(Struct, frozen=True, kw_only=True):
    """Everything that one tick of ResMan has for AppMaster."""

    statuses: tuple[GroupStatus, ...]
    identity: IdentityAck | None = None


class CreateContainer(Struct, frozen=True, kw_only=True):
    """ResMan to an agent: hold this container. The same (container, incarnation) twice is once."""

    container: str
    incarnation: int
    demand: Demand
    priority: int = 100


class DestroyContainer(Struct, frozen=True, kw_only=True):
    """ResMan to an agent: end this container, and every earlier life of it."""

    container: str
    incarnation: int


class ContainerOrders(Struct, frozen=True, kw_only=True):
    """Everything that one tick of ResMan has for one agent."""

    agent: str
    epoch: int
    until_s: float
    """Redis' clock, Unix seconds, at which ``create`` and ``destroy`` expire: the agent may be declared
    dead from then on. Orders that are still needed are sent again. An agent refuses orders with 0."""
    create: tuple[CreateContainer, ...] = ()
    destroy: tuple[DestroyContainer, ...] = ()
    report: bool = False
    """Ask for a full ``AgentReport``."""


class ObservedContainerState(StrEnum):
    """A container as its agent sees it."""

    MAKING = "making"
    READY = "ready"
    ENDED = "ended"
    """PID 1 died by itself, or the container could not be made; ``reason`` says why."""
    DESTROYING = "destroying"
    GONE = "gone"


class ObservedContainer(Struct, frozen=True, kw_only=True):
    """A container on an agent; ``resources`` are what it asks for."""

    container: str
    incarnation: int
    state: ObservedContainerState
    ports: dict[str, int] = {}
    reason: Reason | None = None
    resources: Resources = NOTHING
