"""Container groups and containers: what AppMaster, ResMan and agents send each other about them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.identity import IdentityAck, IdentityOrder
from galaxy.model.messages.liveness import LivenessTerms
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
    """A volume of ``size_bytes`` at ``path``; the resource whose ``media`` has its medium is charged.

    Unlike those of ``VolumeSpec``, the fields have no limits: every value decodes, so a host refuses an
    impossible container with a reason. A limit here would drop the whole message instead.
    """

    path: str
    size_bytes: int
    medium: Medium = Medium.DISK
    readonly: bool = False
    exclusive: bool = False


class PortDemand(Struct, frozen=True, kw_only=True):
    """A port that a task listens on; 0 lets the agent choose. ``name`` is unique over the pod."""

    name: str
    port: int = 0


class Constraints(Struct, frozen=True, kw_only=True):
    """Which agents are needed or preferred, beyond pools and tag.

    A mark is a tag, or ``label=value``, with ``|`` between values of which one is enough. ``spread`` is a
    label; ``affinity`` and ``anti_affinity`` are names of jobs of the same owner.
    """

    require: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    spread: str = ""
    affinity: tuple[str, ...] = ()
    anti_affinity: tuple[str, ...] = ()


class Demand(Struct, frozen=True, kw_only=True):
    """What one container needs of an agent, and which agents are allowed."""

    tasks: tuple[TaskDemand, ...]
    workspace: VolumeDemand
    volumes: tuple[VolumeDemand, ...] = ()
    ports: tuple[PortDemand, ...] = ()
    pools: tuple[str, ...] = ()
    tag: str = ""
    max_per_host: int = 0
    constraints: Constraints = Constraints()
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


class Reason(Struct, frozen=True, kw_only=True):
    """Why something is not as desired: a stable code, a message, and numbers by name."""

    code: str
    message: str = ""
    counts: dict[str, int] = {}
    """For a placement, the number of agents by what they lack: ``{"cpu": 12, "pool": 3}``."""
    nearest: tuple[str, ...] = ()
    """For a placement, the agents that lack least, each with what it lacks."""
    hosts: dict[str, tuple[str, ...]] = {}
    """For a placement, the first agents of each of ``counts``, by name."""
    changes: tuple[str, ...] = ()
    """For a placement, the smallest changes with which one more container fits; each is enough."""


class Leave(Struct, frozen=True, kw_only=True):
    """Why a slot is to leave its agent, and where to: the agent is drained, or in the wrong pool.

    ResMan keeps room for it on agent ``to``. While ``to`` is empty, ``blocked`` says why there is none.
    ``evict``: it leaves without regard for its job's pace, and even without room elsewhere.
    """

    reason: Reason
    to: str = ""
    blocked: Reason | None = None
    evict: bool = False

    @property
    def may_go(self) -> bool:
        """Whether the slot may leave now, as far as ResMan is concerned."""
        return bool(self.to) or self.evict


HOST_FAILED: Final = "host-failed"
"""Code of a reason: the cause is the host, so another host may succeed."""

RESIZE_MOVES: Final = "resize-moves"
"""Code of a reason: the host has no room for the new size of a container, and another host has."""
RESIZE_HELD: Final = "resize-held"
"""Code of a reason: no host, or no quota, has room for the new size; the container keeps the old one."""
RESIZE_IN_USE: Final = "resize-in-use"
"""Code of a reason: a program uses more memory than its new limit allows; the limit stays as it was."""
RESIZE_FAILED: Final = "resize-failed"
"""Code of a reason: the host could not set the new limits."""
RESIZE_CODES: Final = (RESIZE_MOVES, RESIZE_HELD, RESIZE_IN_USE, RESIZE_FAILED)


PREEMPTED: Final = "preempted"
"""Code of a reason: the container made room for a more important one."""


class SlotMove(Struct, frozen=True, kw_only=True):
    """Replace one incarnation of a slot by one on another agent, if there is any outside ``avoid``."""

    slot: int
    incarnation: int
    avoid: tuple[str, ...]
    reason: Reason | None = None


class GroupOrder(Struct, frozen=True, kw_only=True):
    """AppMaster to ResMan: the group has ``replicas`` equal containers or, with ``remove``, is removed.

    ``epoch`` is AppMaster's and ``serial`` counts its orders for this group: an order that is
    not newer than the last one applied changes nothing, but is answered as well.
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
    """Slots below ``replicas`` that need no container any more, because their pods have ended."""
    starts: int = 0
    """How often the owner started the job. When it grows, slots that wait after failures wait no longer."""
    seen_epoch: int = 0
    seen: int = 0
    """``GroupStatus`` version, in ResMan's ``seen_epoch``, up to which AppMaster has missed none. If it is
    still the latest, the answer does not list the slots. 0 asks for all of them."""
    user: str = ""
    """Owner: the user whose quota it counts against."""
    size: int = 0
    """Number of ``demand``: it grows with each change of the amounts. See ``CreateContainer.size``."""
    keep: tuple[tuple[int, int], ...] = ()
    """Ranges of slots, first to last, that keep the size which their containers have for now."""
    moves: tuple[SlotMove, ...] = ()
    """Incarnations to leave, because their agents failed them. Any other incarnation stays."""


class ContainerState(StrEnum):
    """The state of a slot in ResMan; see ``galaxy.resman.logic.groups.transitions``."""

    PENDING = "pending"
    ALLOCATING = "allocating"
    READY = "ready"
    DESTROYING = "destroying"
    GONE = "gone"


class SlotStatus(Struct, frozen=True, kw_only=True):
    """ResMan to AppMaster: the state and place of one container slot."""

    container: str
    incarnation: int
    state: ContainerState
    agent: str = ""
    address: str = ""
    ports: dict[str, int] = {}
    reason: Reason | None = None
    leave: Leave | None = None
    size: int = 0
    """Number of the size that the agent enforces; see ``GroupOrder.size``."""
    resize: Reason | None = None
    """Why the container does not have the ordered size yet; ``code`` is one of ``RESIZE_CODES``."""


class GroupStatus(Struct, frozen=True, kw_only=True):
    """ResMan to AppMaster: the slots of one group that changed, or all of them (``full``).

    ``serial`` is that of the last ``GroupOrder`` applied, which acknowledges it. ``known`` is
    False when ResMan has no such group, so a removal is complete. ``version`` grows with every
    change that is sent in one epoch. A receiver that has version ``since`` has ``version`` after
    this message; if they are equal, nothing has changed.
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
    liveness: LivenessTerms | None = None
    """What the expiry of all orders after this message follows; see ``LivenessTerms``."""


class GroupStatuses(Struct, frozen=True, kw_only=True):
    """Everything that one tick of ResMan has for AppMaster."""

    statuses: tuple[GroupStatus, ...]
    identity: IdentityAck | None = None
    liveness: LivenessTerms | None = None


class CreateContainer(Struct, frozen=True, kw_only=True):
    """ResMan to an agent: create this container, unless it exists already.

    If it exists with a lower ``size``, its limits become those of ``demand`` without a restart. Orders
    with a lower size than the last one change nothing.
    """

    container: str
    incarnation: int
    demand: Demand
    priority: int = 100
    size: int = 0


class DestroyContainer(Struct, frozen=True, kw_only=True):
    """ResMan to an agent: destroy this container and every earlier incarnation of it."""

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
    """The state of a container on its agent."""

    CREATING = "creating"
    READY = "ready"
    ENDED = "ended"
    """PID 1 ended without an order, or the container could not be created; ``reason`` says why."""
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
    size: int = 0
    """Number of the size whose limits are all in force."""
    resize: Reason | None = None
    """Why the limits of the last order are not in force."""
