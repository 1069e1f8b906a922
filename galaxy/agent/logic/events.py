"""Events that the agent's shell reports to its logic, and the internal ones of a container's phases."""

from __future__ import annotations

from collections.abc import Sequence

from galaxy.ids import container_key
from galaxy.model.base import Struct
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import ObservedPod


class ContainerLaunched(Struct, frozen=True, kw_only=True):
    """PID 1 runs; ``pid`` is its pid on the host."""

    container: str
    incarnation: int
    pid: int


class ContainerLaunchFailed(Struct, frozen=True, kw_only=True):
    """The launcher could not create the container."""

    container: str
    incarnation: int
    reason: Reason


class ContainerEnded(Struct, frozen=True, kw_only=True):
    """PID 1 ended, by itself or because it was asked to quit."""

    container: str
    incarnation: int
    reason: Reason


class ContainerDestroyed(Struct, frozen=True, kw_only=True):
    """Nothing of the container is left on the host."""

    container: str
    incarnation: int


class ContainerResized(Struct, frozen=True, kw_only=True):
    """The limits of ``size`` are in force or, if there is a ``reason``, not all of them."""

    container: str
    incarnation: int
    size: int
    reason: Reason | None = None


class PortsUnavailable(Struct, frozen=True, kw_only=True):
    """Another process of this host took some of the chosen ports first; nothing was launched."""

    container: str
    incarnation: int
    ports: tuple[int, ...]


class PortsScanned(Struct, frozen=True, kw_only=True):
    """The ports of this host's sockets and those reserved by other agents of this host.

    A fixed port must not be in ``listening``. A chosen port must be in neither set.
    """

    listening: frozenset[int]
    used: frozenset[int]


class RunningContainer(Struct, frozen=True, kw_only=True):
    """A container that the launcher reports as running."""

    container: str
    incarnation: int
    pid: int


class HostInspected(Struct, frozen=True, kw_only=True):
    """All containers that run here, read after a start or after the launcher was lost.

    ``rebooted``: the kernel was booted since the agent last ran.
    """

    running: tuple[RunningContainer, ...]
    rebooted: bool = False


class WorkerConnected(Struct, frozen=True, kw_only=True):
    """The connection to a container's AppWorker is open."""

    container: str
    incarnation: int


class WorkerLost(Struct, frozen=True, kw_only=True):
    """The connection to a container's AppWorker is closed."""

    container: str
    incarnation: int


class WorkerReported(Struct, frozen=True, kw_only=True):
    """An AppWorker reported the state of its pod."""

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
    """Redis' clock read just now, Unix seconds."""

    redis_s: float


class ReportPublished(Struct, frozen=True, kw_only=True):
    """The pending report to ``role`` was posted, or could not be.

    ``ok`` is False if Redis could not be reached; ``unread`` is True if nothing was posted because the
    leader has not read the report before.
    """

    role: str
    ok: bool
    unread: bool = False


class ShutdownRequested(Struct, frozen=True, kw_only=True):
    """The agent ends and must leave no container; it accepts no new ones from now on."""

    grace_s: float


ContainerEvent = (
    ContainerLaunched | ContainerLaunchFailed | ContainerEnded | ContainerDestroyed | PortsUnavailable
)


def compact(events: Sequence[Struct]) -> list[Struct]:
    """Drop superseded events, so that events waiting for the disk stay bounded.

    Of each AppWorker's reports only the last is kept; port scans are repeated anyway.
    """
    last: dict[str, int] = {}
    for index, event in enumerate(events):
        if isinstance(event, WorkerReported):
            last[container_key(event.container, event.incarnation)] = index
    return [
        event
        for index, event in enumerate(events)
        if not isinstance(event, PortsScanned)
        and not (
            isinstance(event, WorkerReported)
            and last[container_key(event.container, event.incarnation)] != index
        )
    ]


# Internal events: the logic raises them itself. See ``transitions.TRANSITIONS``.


class Unblocked(Struct, frozen=True, kw_only=True):
    """A waiting container is no longer blocked, and its ports are chosen."""


class LaunchRejected(Struct, frozen=True, kw_only=True):
    """A waiting container cannot be launched on this host."""


class ReleaseRequested(Struct, frozen=True, kw_only=True):
    """ResMan, a later incarnation, or the end of the agent requires that the container is removed."""
