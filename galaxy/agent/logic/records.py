"""What the agent's logic stores on disk."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from galaxy.model.base import Struct
from galaxy.model.messages.container import CreateContainer, ObservedContainerState, Reason
from galaxy.model.messages.pod import ObservedPod


class HostedPhase(StrEnum):
    """Where one life of a container stands on this host."""

    WAITING = "waiting"
    """Accepted; an earlier life or a port is still in the way."""
    LAUNCHING = "launching"
    READY = "ready"
    ENDED = "ended"
    DESTROYING = "destroying"
    GONE = "gone"


OBSERVED_STATES: Final[dict[HostedPhase, ObservedContainerState]] = {
    HostedPhase.WAITING: ObservedContainerState.MAKING,
    HostedPhase.LAUNCHING: ObservedContainerState.MAKING,
    HostedPhase.READY: ObservedContainerState.READY,
    HostedPhase.ENDED: ObservedContainerState.ENDED,
    HostedPhase.DESTROYING: ObservedContainerState.DESTROYING,
    HostedPhase.GONE: ObservedContainerState.GONE,
}


def container_key(container: str, incarnation: int) -> str:
    """Return the key of one life of a container; its directories are called the same."""
    return f"{container}_{incarnation}"


class HostedContainer(Struct, frozen=True, kw_only=True):
    """One life of a container on this host. ``clean``: its remains are already removed.

    ``uid`` is the kernel user (and group) of its programs, nobody else's while anything of it
    remains; 0 before it is launched, and where containers have none of their own.
    """

    container: str
    incarnation: int
    order: CreateContainer
    phase: HostedPhase = HostedPhase.WAITING
    ports: dict[str, int] = {}
    uid: int = 0
    reason: Reason | None = None
    clean: bool = False

    @property
    def key(self) -> str:
        return container_key(self.container, self.incarnation)


class DestroyedContainer(Struct, frozen=True, kw_only=True):
    """Every life of ``container`` up to ``incarnation`` is destroyed for good."""

    container: str
    incarnation: int
    serial: int
    """Grows; the lowest are forgotten first."""


class FinishedPod(Struct, frozen=True, kw_only=True):
    """A batch pod that is done: it is never run here again."""

    pod: ObservedPod
    serial: int


class AcceptedEpoch(Struct, frozen=True, kw_only=True):
    """The highest epoch of one role that was obeyed."""

    role: str
    epoch: int
