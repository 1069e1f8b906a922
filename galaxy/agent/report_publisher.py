"""Posts the agent's reports in a separate thread, so that a slow Redis blocks nothing else."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Final, Protocol

from galaxy.agent.inbox import AgentInbox
from galaxy.agent.logic.events import ReportPublished
from galaxy.agent.logic.reports import DueReport
from galaxy.model.messages.agent import AgentReport

_LOG: Final = logging.getLogger(__name__)


class PostReport(Protocol):
    """Posts a report, or returns False because the one before is unread; may block or raise."""

    def __call__(self, role: str, report: AgentReport, *, replaces: bool) -> bool: ...


class ReportPublisher:
    """Posts at most one report per role at a time.

    The logic builds the next one only after ``ReportPublished``.
    """

    def __init__(self, post: PostReport, inbox: AgentInbox) -> None:
        self._post = post
        self._inbox = inbox
        self._queue: queue.SimpleQueue[DueReport | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="agent-publish", daemon=True)
        self._failing = False

    def start(self) -> None:
        self._thread.start()

    def publish(self, due: DueReport) -> None:
        """Queue a report; the event ``ReportPublished`` follows."""
        self._queue.put(due)

    def stop(self, timeout_s: float) -> None:
        """Post what is queued and end; wait for a blocked Redis no longer than ``timeout_s``."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (due := self._queue.get()) is not None:
            self._inbox.put(self._try(due))

    def _try(self, due: DueReport) -> ReportPublished:
        try:
            posted = self._post(due.role, due.report, replaces=due.replaces)
        except Exception as error:  # noqa: BLE001 - whatever the transport raises, the report is resent
            if not self._failing:
                _LOG.warning("event=report.unsent role=%s cause=%r", due.role, error)
            self._failing = True
            return ReportPublished(role=due.role, ok=False)
        if self._failing:
            _LOG.info("event=report.sent role=%s text='the transport works again'", due.role)
        self._failing = False
        return ReportPublished(role=due.role, ok=True, unread=not posted)
