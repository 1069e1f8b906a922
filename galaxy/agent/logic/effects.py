"""Effects that the agent's logic asks of its shell, after the commit."""

from __future__ import annotations

from galaxy.agent.logic.records import HostedContainer
from galaxy.model.base import Struct
from galaxy.model.messages.pod import PodOrder
from galaxy.model.step import Send


class LaunchContainer(Struct, frozen=True, kw_only=True):
    hosted: HostedContainer


class RemoveContainer(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int


class ConnectWorker(Struct, frozen=True, kw_only=True):
    """Keep a connection to this container's AppWorker."""

    container: str
    incarnation: int


class DisconnectWorker(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int


class DeliverOrder(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int
    order: PodOrder


class QuitWorker(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int
    stop_timeout: float


class WriteLog(Struct, frozen=True, kw_only=True):
    """A line for the agent's log."""

    event: str
    subject: str
    text: str = ""


class PublishReports(Struct, frozen=True, kw_only=True):
    """Reports to publish now, and when (seconds, same clock as ``now_s``) to ask again."""

    sends: tuple[tuple[str, Send], ...] = ()
    wake_s: float | None = None


Effect = (
    LaunchContainer
    | RemoveContainer
    | ConnectWorker
    | DisconnectWorker
    | DeliverOrder
    | QuitWorker
    | WriteLog
)
