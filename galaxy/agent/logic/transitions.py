"""The transition table of a container's phases on its host."""

from __future__ import annotations

from typing import Final

from galaxy.agent.logic.events import (
    ContainerDestroyed,
    ContainerEnded,
    ContainerLaunched,
    ContainerLaunchFailed,
    LaunchRejected,
    PortsUnavailable,
    ReleaseRequested,
    Unblocked,
)
from galaxy.agent.logic.records import HostedPhase
from galaxy.statemachine.transitions import TransitionTable

TRANSITIONS: Final[TransitionTable[HostedPhase]] = TransitionTable(
    {
        (HostedPhase.WAITING, Unblocked): HostedPhase.LAUNCHING,
        (HostedPhase.WAITING, LaunchRejected): HostedPhase.ENDED,
        (HostedPhase.WAITING, ReleaseRequested): HostedPhase.GONE,
        (HostedPhase.LAUNCHING, ContainerLaunched): HostedPhase.READY,
        (HostedPhase.LAUNCHING, ContainerLaunchFailed): HostedPhase.ENDED,
        (HostedPhase.LAUNCHING, ContainerEnded): HostedPhase.ENDED,
        (HostedPhase.LAUNCHING, ContainerDestroyed): HostedPhase.ENDED,
        (HostedPhase.LAUNCHING, PortsUnavailable): HostedPhase.WAITING,
        (HostedPhase.LAUNCHING, ReleaseRequested): HostedPhase.DESTROYING,
        (HostedPhase.READY, ContainerEnded): HostedPhase.ENDED,
        (HostedPhase.READY, ContainerDestroyed): HostedPhase.ENDED,
        (HostedPhase.READY, ReleaseRequested): HostedPhase.DESTROYING,
        (HostedPhase.ENDED, ContainerDestroyed): HostedPhase.ENDED,
        (HostedPhase.ENDED, ReleaseRequested): HostedPhase.DESTROYING,
        (HostedPhase.DESTROYING, ContainerLaunched): HostedPhase.DESTROYING,
        (HostedPhase.DESTROYING, ContainerLaunchFailed): HostedPhase.DESTROYING,
        (HostedPhase.DESTROYING, ContainerEnded): HostedPhase.DESTROYING,
        (HostedPhase.DESTROYING, ContainerDestroyed): HostedPhase.GONE,
    }
)
"""Every valid pair. Any other event is stale and changes nothing."""
