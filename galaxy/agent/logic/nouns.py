"""What the agent's logic remembers, is told, and asks of the shell around it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from galaxy.lifecycle.law import Law
from galaxy.model.base import Noun
from galaxy.model.container import CreateContainer, FoundState, Reason
from galaxy.model.pod import PodFound, PodOrder
from galaxy.model.step import Send


class Phase(StrEnum):
    """Where one life of a container stands on this host."""

    WAITING = "waiting"
    """Accepted; an earlier life or a port is still in the way."""
    LAUNCHING = "launching"
    READY = "ready"
    ENDED = "ended"
    DESTROYING = "destroying"
    GONE = "gone"


FOUND: Final[dict[Phase, FoundState]] = {
    Phase.WAITING: FoundState.MAKING,
    Phase.LAUNCHING: FoundState.MAKING,
    Phase.READY: FoundState.READY,
    Phase.ENDED: FoundState.ENDED,
    Phase.DESTROYING: FoundState.DESTROYING,
    Phase.GONE: FoundState.GONE,
}


def life(container: str, incarnation: int) -> str:
    """Return the key of one life of a container; its directories are called the same."""
    return f"{container}_{incarnation}"


# ---- what is remembered, on disk


class Held(Noun, frozen=True, kw_only=True):
    """One life of a container on this host. ``clean``: its remains are already removed.

    ``uid`` is the kernel user (and group) of its programs, nobody else's while anything of it
    remains; 0 before it is launched, and where containers have none of their own.
    """

    container: str
    incarnation: int
    order: CreateContainer
    phase: Phase = Phase.WAITING
    ports: dict[str, int] = {}
    uid: int = 0
    reason: Reason | None = None
    clean: bool = False

    @property
    def key(self) -> str:
        return life(self.container, self.incarnation)


class Tombstone(Noun, frozen=True, kw_only=True):
    """Every life of ``container`` up to ``incarnation`` is destroyed for good."""

    container: str
    incarnation: int
    serial: int
    """Grows; the lowest are forgotten first."""


class Finished(Noun, frozen=True, kw_only=True):
    """A batch pod that is done: it is never run here again."""

    pod: PodFound
    serial: int


class EpochSeen(Noun, frozen=True, kw_only=True):
    """The highest epoch of one role that was obeyed."""

    role: str
    epoch: int


# ---- what happened


class ContainerLaunched(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int
    pid: int


class ContainerLaunchFailed(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int
    reason: Reason


class ContainerEnded(Noun, frozen=True, kw_only=True):
    """PID 1 died, by itself or because it was asked to quit."""

    container: str
    incarnation: int
    reason: Reason


class ContainerDestroyed(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int


class PortsTaken(Noun, frozen=True, kw_only=True):
    """Somebody else on this host was quicker; nothing was launched."""

    container: str
    incarnation: int
    ports: tuple[int, ...]


class PortsSeen(Noun, frozen=True, kw_only=True):
    """Ports of this host's sockets, and those that other agents of this host reserved.

    A fixed port must not be in ``listening``; a chosen one is in neither.
    """

    listening: frozenset[int]
    used: frozenset[int]


class LifeSeen(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int
    pid: int


class HostSeen(Noun, frozen=True, kw_only=True):
    """Everything that really lives here: after a start, or after the launcher was lost."""

    living: tuple[LifeSeen, ...]
    rebooted: bool = False


class WorkerConnected(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int


class WorkerLost(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int


class WorkerReported(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int
    pod: PodFound


class UsageSeen(Noun, frozen=True, kw_only=True):
    """A sample of one container: millicores, bytes."""

    container: str
    incarnation: int
    cpu_milli: int
    memory_bytes: int


class ClockSeen(Noun, frozen=True, kw_only=True):
    """What Redis' clock showed just now, Unix seconds."""

    redis_s: float


class ReportPublished(Noun, frozen=True, kw_only=True):
    """The last report to ``role`` left, or (``ok`` False) did not."""

    role: str
    ok: bool


class EverythingUnwanted(Noun, frozen=True, kw_only=True):
    """The agent ends and nothing shall remain; nothing new is accepted from now on."""

    grace_s: float


# ---- what is asked of the shell, after the commit


class Launch(Noun, frozen=True, kw_only=True):
    held: Held


class Destroy(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int


class Connect(Noun, frozen=True, kw_only=True):
    """Keep a connection to this container's AppWorker."""

    container: str
    incarnation: int


class Disconnect(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int


class Deliver(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int
    order: PodOrder


class QuitWorker(Noun, frozen=True, kw_only=True):
    container: str
    incarnation: int
    stop_timeout: float


class Note(Noun, frozen=True, kw_only=True):
    """A line for the agent's log."""

    event: str
    subject: str
    text: str = ""


class Flush(Noun, frozen=True, kw_only=True):
    """Reports to publish now, and when (seconds, same clock as ``now_s``) to ask again."""

    sends: tuple[tuple[str, Send], ...] = ()
    wake_s: float | None = None


Effect = Launch | Destroy | Connect | Disconnect | Deliver | QuitWorker | Note
Happening = ContainerLaunched | ContainerLaunchFailed | ContainerEnded | ContainerDestroyed | PortsTaken


class Cleared(Noun, frozen=True, kw_only=True):
    """Nothing is in the way of a waiting life any more, and its ports are chosen."""


class Hindered(Noun, frozen=True, kw_only=True):
    """A waiting life can not be made on this host."""


class Unwanted(Noun, frozen=True, kw_only=True):
    """ResMan, a later life, or the end of the agent wants it gone."""


LAW: Final[Law[Phase]] = Law(
    {
        (Phase.WAITING, Cleared): Phase.LAUNCHING,
        (Phase.WAITING, Hindered): Phase.ENDED,
        (Phase.WAITING, Unwanted): Phase.GONE,
        (Phase.LAUNCHING, ContainerLaunched): Phase.READY,
        (Phase.LAUNCHING, ContainerLaunchFailed): Phase.ENDED,
        (Phase.LAUNCHING, ContainerEnded): Phase.ENDED,
        (Phase.LAUNCHING, ContainerDestroyed): Phase.ENDED,
        (Phase.LAUNCHING, PortsTaken): Phase.WAITING,
        (Phase.LAUNCHING, Unwanted): Phase.DESTROYING,
        (Phase.READY, ContainerEnded): Phase.ENDED,
        (Phase.READY, ContainerDestroyed): Phase.ENDED,
        (Phase.READY, Unwanted): Phase.DESTROYING,
        (Phase.ENDED, ContainerDestroyed): Phase.ENDED,
        (Phase.ENDED, Unwanted): Phase.DESTROYING,
        (Phase.DESTROYING, ContainerLaunched): Phase.DESTROYING,
        (Phase.DESTROYING, ContainerLaunchFailed): Phase.DESTROYING,
        (Phase.DESTROYING, ContainerEnded): Phase.DESTROYING,
        (Phase.DESTROYING, ContainerDestroyed): Phase.GONE,
    }
)
"""What may follow what. A pair that is not here is an echo and changes nothing."""
