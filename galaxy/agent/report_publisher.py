"""Publish the agent's reports in a separate thread, so that a slow Redis blocks nothing else."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from galaxy.agent.inbox import AgentInbox
from galaxy.agent.logic.events import ReportPublished
from galaxy.model.step import Send

_LOG: Final = logging.getLogger(__name__)


class ReportPublisher:
    """Publishes at most one report per role at a time.

    The logic builds the next one only after ``ReportPublished``.
    """

    def __init__(self, publish: Callable[[Send], None], inbox: AgentInbox) -> None:
        self._publish = publish
        self._inbox = inbox
        self._queue: queue.SimpleQueue[tuple[str, Send] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="agent-publish", daemon=True)
        self._failing = False

    def start(self) -> None:
        self._thread.start()

    def publish(self, role: str, send: Send) -> None:
        """Queue a report; the event ``ReportPublished`` follows."""
        self._queue.put((role, send))

    def stop(self, timeout_s: float) -> None:
        """Publish what is queued and end; wait for a blocked Redis no longer than ``timeout_s``."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            role, send = item
            self._inbox.put(ReportPublished(role=role, ok=self._try(send)))

    def _try(self, send: Send) -> bool:
        try:
            self._publish(send)
        except Exception as error:  # noqa: BLE001 - whatever the transport raises, the report is resent
            if not self._failing:
                _LOG.warning("event=report.unsent queue=%s cause=%r", send.queue, error)
            self._failing = True
            return False
        if self._failing:
            _LOG.info("event=report.sent queue=%s text='the transport works again'", send.queue)
        self._failing = False
        return True
