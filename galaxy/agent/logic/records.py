"""Records that the agent's logic keeps on disk."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from galaxy.ids import container_key
from galaxy.model.base import Struct
from galaxy.model.messages.container import CreateContainer, ObservedContainerState, Reason
from galaxy.model.messages.pod import ObservedPod
from galaxy.model.resources import NOTHING, Resources


class HostedPhase(StrEnum):
    """The phase of one incarnation of a container on this host."""

    WAITING = "waiting"
    """Accepted; an earlier incarnation or a port in use still blocks the launch."""
    LAUNCHING = "launching"
    READY = "ready"
    ENDED = "ended"
    """PID 1 ended by itself, or the launch failed."""
    DESTROYING = "destroying"
    GONE = "gone"


OBSERVED_STATES: Final[dict[HostedPhase, ObservedContainerState]] = {
    HostedPhase.WAITING: ObservedContainerState.CREATING,
    HostedPhase.LAUNCHING: ObservedContainerState.CREATING,
    HostedPhase.READY: ObservedContainerState.READY,
    HostedPhase.ENDED: ObservedContainerState.ENDED,
    HostedPhase.DESTROYING: ObservedContainerState.DESTROYING,
    HostedPhase.GONE: ObservedContainerState.GONE,
}
"""How each phase is reported."""


class HostedContainer(Struct, frozen=True, kw_only=True):
    """One incarnation of a container on this host.

    ``clean`` means that nothing of it is left on the host. ``uid`` is the uid and gid of its
    programs; no other container has it while anything of this one remains. It is 0 before the
    launch, and on hosts without separate uids for containers.
    """

    container: str
    incarnation: int
    order: CreateContainer
    phase: HostedPhase = HostedPhase.WAITING
    ports: dict[str, int] = {}
    uid: int = 0
    reason: Reason | None = None
    clean: bool = False
    sized: int = 0
    """Number of the size (``order.size``) whose limits are all in force; -1 if that is not known."""
    resize: Reason | None = None
    """Why the limits of ``order`` are not in force."""
    resources: Resources = NOTHING
    """While its limits change: the larger amounts of the sizes that it may have."""

    @property
    def key(self) -> str:
        return container_key(self.container, self.incarnation)


class DestroyedContainer(Struct, frozen=True, kw_only=True):
    """Every incarnation of ``container`` up to ``incarnation`` is destroyed and never launched again."""

    container: str
    incarnation: int
    serial: int
    """Grows with every record; the lowest are dropped first."""


class FinishedPod(Struct, frozen=True, kw_only=True):
    """A batch pod that finished; it never runs here again."""

    pod: ObservedPod
    serial: int


class AcceptedEpoch(Struct, frozen=True, kw_only=True):
    """The highest epoch of ``role`` whose orders were obeyed."""

    role: str
    epoch: int
