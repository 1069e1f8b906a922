"""Reports on their way to Redis: in a thread of its own, so that a slow one holds up nothing."""

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
    """Publishes one report of each role at a time: the logic makes the next when told of the last."""

    def __init__(self, publish: Callable[[Send], None], inbox: AgentInbox) -> None:
        self._publish = publish
        self._inbox = inbox
        self._queue: queue.SimpleQueue[tuple[str, Send] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="agent-publish", daemon=True)
        self._failing = False

    def start(self) -> None:
        self._thread.start()

    def publish(self, role: str, send: Send) -> None:
        """Take a report; ``ReportPublished`` says later whether it left."""
        self._queue.put((role, send))

    def stop(self, timeout_s: float) -> None:
        """Publish what was taken, and end; a hanging Redis is not waited for longer than this."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (taken := self._queue.get()) is not None:
            role, send = taken
            self._inbox.put(ReportPublished(role=role, ok=self._try(send)))

    def _try(self, send: Send) -> bool:
        try:
            self._publish(send)
        except Exception as error:  # noqa: BLE001 - whatever the transport raises, it is said again
            if not self._failing:
                _LOG.warning("event=report.unsent queue=%s cause=%r", send.queue, error)
            self._failing = True
            return False
        if self._failing:
            _LOG.info("event=report.sent queue=%s text='the transport works again'", send.queue)
        self._failing = False
        return True
