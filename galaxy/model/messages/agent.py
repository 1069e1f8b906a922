"""Agents: what a machine is and has, and what it reports."""

from __future__ import annotations

from enum import StrEnum

from msgspec import field

from galaxy.model.base import Struct
from galaxy.model.messages.container import ObservedContainer
from galaxy.model.messages.pod import ObservedPod
from galaxy.model.resources import ResourceFields


class AgentState(StrEnum):
    """``alive``, or reports are missed: ``suspect`` waits, ``dead`` is replaced."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


class AgentInfo(ResourceFields, frozen=True, kw_only=True):
    """One machine's inventory: millicores, bytes, and what its kernel lets us enforce."""

    agent: str
    address: str
    """Address under which the ports of its containers are reached."""
    boot: str
    """Id of this life of the agent process; a new one means it restarted."""
    version: str
    pool: str = "main"
    tags: tuple[str, ...] = ()
    ports_low: int = 0
    ports_high: int = 0
    """Range that dynamic ports come from, both ends included."""
    containers: int = field(default=1000, name="containers_max")
    """Most containers that it holds."""
    mode: str = "full"
    """``full``, or the lesser mode that ``galaxy doctor`` names."""
    enforced: tuple[str, ...] = ()
    """Of cpu, memory, pids, io, disk, namespaces, seccomp, user: what is really enforced."""
    kernel: str = ""
    cgroup: str = ""
    """``v1``, ``v2`` or empty."""


class AgentUsage(Struct, frozen=True, kw_only=True):
    """A sample of what is used on a machine: millicores, bytes, Unix seconds."""

    at_s: float
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    load1: float = 0.0
    pods: dict[str, tuple[int, int]] = {}
    """By pod that lives there: millicores and bytes."""


class AgentReport(Struct, frozen=True, kw_only=True):
    """An agent to ResMan (containers) and to AppMaster (pods); see ``full``.

    A full report names everything that is there: what it leaves out is not there. Any other
    names only what changed. ``serial`` grows with every report of one ``boot``, so a late one
    is known; ``epoch`` is the highest epoch of the receiver's role that the agent obeyed.
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
    """Why the agent lives but cannot obey, in words: its disk refuses."""


class HeartbeatsRead(Struct, frozen=True, kw_only=True):
    """Event of a leader's own shell: all heartbeats as Nexus has them, read about once a second."""

    now_s: float
    """Redis' clock at the reading, to compare ``at_s`` with."""
    beats: tuple[Heartbeat, ...]


class UsageRead(Struct, frozen=True, kw_only=True):
    """Event of AppMaster's own shell: millicores and bytes by pod, as agents last measured them."""

    pods: dict[str, tuple[int, int]]
