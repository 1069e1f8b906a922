"""Effects that the agent's logic requests from its shell. They are carried out after the commit."""

from __future__ import annotations

from galaxy.agent.logic.records import HostedContainer
from galaxy.agent.logic.reports import DueReport
from galaxy.model.base import Struct
from galaxy.model.messages.pod import PodOrder


class LaunchContainer(Struct, frozen=True, kw_only=True):
    """Launch a container. Answered by a ``ContainerEvent``."""

    hosted: HostedContainer


class ResizeContainer(Struct, frozen=True, kw_only=True):
    """Set the limits of a running container to those of its order. Answered by ``ContainerResized``."""

    hosted: HostedContainer


class RemoveContainer(Struct, frozen=True, kw_only=True):
    """Kill a container and remove everything of it. Answered by ``ContainerDestroyed``."""

    container: str
    incarnation: int


class ConnectWorker(Struct, frozen=True, kw_only=True):
    """Keep a connection to this container's AppWorker open until ``DisconnectWorker``."""

    container: str
    incarnation: int


class DisconnectWorker(Struct, frozen=True, kw_only=True):
    """Close the connection to this container's AppWorker."""

    container: str
    incarnation: int


class DeliverOrder(Struct, frozen=True, kw_only=True):
    """Send an order to this container's AppWorker."""

    container: str
    incarnation: int
    order: PodOrder


class QuitWorker(Struct, frozen=True, kw_only=True):
    """Ask an AppWorker to stop its programs within ``stop_timeout`` seconds and to exit."""

    container: str
    incarnation: int
    stop_timeout: float


class WriteLog(Struct, frozen=True, kw_only=True):
    """Write a line to the agent's log."""

    event: str
    subject: str
    text: str = ""


Effect = (
    LaunchContainer
    | ResizeContainer
    | RemoveContainer
    | ConnectWorker
    | DisconnectWorker
    | DeliverOrder
    | QuitWorker
    | WriteLog
)


class DueReports(Struct, frozen=True, kw_only=True):
    """Reports to post now, at most one for each role.

    ``wake_s`` is when to ask again, in seconds of the clock of ``now_s``.
    """

    reports: tuple[DueReport, ...] = ()
    wake_s: float | None = None
