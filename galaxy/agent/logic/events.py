"""Events that the shell reports to the agent's logic."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import ObservedPod


class ContainerLaunched(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int
    pid: int


class ContainerLaunchFailed(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int
    reason: Reason


class ContainerEnded(Struct, frozen=True, kw_only=True):
    """PID 1 died, by itself or because it was asked to quit."""

    container: str
    incarnation: int
    reason: Reason


class ContainerDestroyed(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int


class PortsUnavailable(Struct, frozen=True, kw_only=True):
    """Somebody else on this host was quicker; nothing was launched."""

    container: str
    incarnation: int
    ports: tuple[int, ...]


class PortsScanned(Struct, frozen=True, kw_only=True):
    """Ports of this host's sockets, and those that other agents of this host reserved.

    A fixed port must not be in ``listening``; a chosen one is in neither.
    """

    listening: frozenset[int]
    used: frozenset[int]


class RunningContainer(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int
    pid: int


class HostInspected(Struct, frozen=True, kw_only=True):
    """Everything that really lives here: after a start, or after the launcher was lost."""

    running: tuple[RunningContainer, ...]
    rebooted: bool = False


class WorkerConnected(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int


class WorkerLost(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int


class WorkerReported(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int
    pod: ObservedPod


class UsageMeasured(Struct, frozen=True, kw_only=True):
    """A sample of one container: millicores, bytes."""

    container: str
    incarnation: int
    cpu_milli: int
    memory_bytes: int


class RedisClockRead(Struct, frozen=True, kw_only=True):
    """What Redis' clock showed just now, Unix seconds."""

    redis_s: float


class ReportPublished(Struct, frozen=True, kw_only=True):
    """The last report to ``role`` left, or (``ok`` False) did not."""

    role: str
    ok: bool


class ShutdownRequested(Struct, frozen=True, kw_only=True):
    """The agent ends and nothing shall remain; nothing new is accepted from now on."""

    grace_s: float


ContainerEvent = (
    ContainerLaunched | ContainerLaunchFailed | ContainerEnded | ContainerDestroyed | PortsUnavailable
)


class Unblocked(Struct, frozen=True, kw_only=True):
    """Nothing is in the way of a waiting life any more, and its ports are chosen."""


class LaunchRejected(Struct, frozen=True, kw_only=True):
    """A waiting life can not be made on this host."""


class ReleaseRequested(Struct, frozen=True, kw_only=True):
    """ResMan, a later life, or the end of the agent wants it gone."""
