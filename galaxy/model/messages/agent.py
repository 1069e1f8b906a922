"""Agents: inventory, usage, reports and heartbeats."""

from __future__ import annotations

from enum import StrEnum

from msgspec import field

from galaxy.model.base import Struct
from galaxy.model.messages.container import ObservedContainer
from galaxy.model.messages.pod import ObservedPod
from galaxy.model.resources import ResourceFields


class AgentState(StrEnum):
    """``suspect`` and ``dead`` agents missed heartbeats. Containers of dead ones are placed elsewhere."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


class AgentInfo(ResourceFields, frozen=True, kw_only=True):
    """One host's inventory: its resources, and what its kernel lets us enforce."""

    agent: str
    address: str
    """Address under which the ports of its containers are reached."""
    boot: str
    """Id of this start of the agent process; a new one means that it restarted."""
    version: str
    pool: str = "main"
    """``pool`` and ``tags`` are the agent's flags: what ``AgentRecord`` starts with when it joins."""
    tags: tuple[str, ...] = ()
    ports_low: int = 0
    ports_high: int = 0
    """Range that dynamic ports come from, both ends included."""
    containers: int = field(default=1000, name="containers_max")
    """The most containers that it creates. JSON keeps the name that 0.1.0 gave it."""
    mode: str = "full"
    """``full``, or the reduced mode that ``galaxy doctor`` names."""
    enforced: tuple[str, ...] = ()
    """Which of cpu, memory, pids, io, disk, namespaces, seccomp and user are really enforced."""
    kernel: str = ""
    cgroup: str = ""
    """``v1``, ``v2`` or empty."""


class AgentUsage(Struct, frozen=True, kw_only=True):
    """A sample of what is used on a host: millicores, bytes, Unix seconds."""

    at_s: float
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    load1: float = 0.0
    pods: dict[str, tuple[int, int]] = {}
    """By pod on the host: millicores and bytes."""


class Meter(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What one incarnation of a container has used so far; there may be 100,000 in one reading.

    ``cpu_ms`` counts from the container's creation, the next two from when this process of the agent
    first measured it. Peaks are the highest samples of the last few minutes.
    """

    cpu_ms: int = 0
    memory_byte_s: float = 0.0
    measured_s: float = 0.0
    peak_cpu_milli: int = 0
    peak_memory_bytes: int = 0


class MeterSample(Struct, frozen=True, kw_only=True):
    """All meters of one agent by container key, at ``at_s`` of its clock; ``boot`` is the agent's."""

    boot: str
    at_s: float
    meters: dict[str, Meter] = {}


class MetersRead(Struct, frozen=True, kw_only=True):
    """Event from ResMan's own shell: the last meters of every agent."""

    samples: dict[str, MeterSample]


class AgentReport(Struct, frozen=True, kw_only=True):
    """An agent to ResMan (containers) and to AppMaster (pods).

    A ``full`` report names everything that is on the agent: what it omits is not there. Any other
    report names only what changed. ``serial`` grows with every report of one ``boot``, so that a late
    report is recognized. ``epoch`` is the highest epoch of the receiver's
    role whose orders the agent has accepted.
    """

    agent: str
    boot: str
    serial: int
    epoch: int = 0
    full: bool = False
    info: AgentInfo | None = None
    containers: tuple[ObservedContainer, ...] = ()
    pods: tuple[ObservedPod, ...] = ()
    usage: AgentUsage | None = None


class Heartbeat(Struct, frozen=True, kw_only=True):
    """A heartbeat as a leader reads it from Nexus: ``at_s`` is Redis' clock, Unix seconds.

    ``containers`` and ``pods`` are digests: XOR of ``digest_of_container`` over containers that
    are ready and ``digest_of_pod`` over pods (see ``galaxy.model.messages.digest``).
    """

    agent: str
    at_s: float
    boot: str
    containers: int = 0
    pods: int = 0
    wire: int = 1
    """Version of what the agent sends (``galaxy.model.base.WIRE_VERSION``)."""
    trouble: str = ""
    """Why the agent is alive but cannot carry out orders, for people: for example that its disk fails."""
    leaving: bool = False
    """The agent is being stopped on purpose; no heartbeat of this boot follows the last of these."""


class HeartbeatsRead(Struct, frozen=True, kw_only=True):
    """Event from the leader's own shell: all heartbeats that Nexus has, read about once a second."""

    now_s: float
    """Redis' clock at the reading; the age of a heartbeat is ``now_s - at_s``."""
    heartbeats: tuple[Heartbeat, ...]
    unread: frozenset[str] = frozenset()
    """Agents with a report that the leader has not read or not handled. It asks them for nothing."""


class UsageRead(Struct, frozen=True, kw_only=True):
    """Event from AppMaster's own shell: by agent and pod, millicores and bytes as agents last measured them.

    The sample of a dead agent still names pods that have left it.
    """

    agents: dict[str, dict[str, tuple[int, int]]]
