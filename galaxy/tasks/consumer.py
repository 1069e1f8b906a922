"""Celery's consumer with shorter reconnection pauses, and without message bodies in the log."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, Final

from celery import signals
from celery.exceptions import NotRegistered
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer

RETRY_S_MIN: Final = 0.2
RETRY_STEP_S: Final = 0.6
RETRY_S_MAX: Final = 5.0
"""Celery waits up to half a minute, which is too long for a leader's queue."""

log = logging.getLogger(__name__)


class Consumer(CeleryConsumer):
    """Reconnects every few seconds, without limit; never logs the body of a message."""

    def on_unknown_task(self, _: Any, message: Any, exc: Exception) -> None:
        """Reject and answer the message. Celery would log a traceback and the whole body."""
        headers = message.headers if isinstance(message.headers, dict) else {}
        task_id, name = headers.get("id"), str(headers.get("task"))
        message.reject_log_error(log, self.connection_errors)
        if isinstance(task_id, str):
            request = SimpleNamespace(reply_to=message.properties.get("reply_to"))
            self.app.backend.store_result(task_id, NotRegistered(name), "FAILURE", request=request)
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Count and drop the message. Celery would log a traceback and the whole body."""
        headers = message.headers if isinstance(message.headers, dict) else {}
        why = f"{type(exc).__name__}: {exc}"
        self.app.galaxy_dropped.count("malformed", task=headers.get("task"), id=headers.get("id"), why=why)
        message.ack_log_error(log, self.connection_errors)

    def ensure_connected(self, conn: Any) -> Any:
        def note(error: Exception, interval_s: float) -> None:
            log.warning("event=broker.waiting again_s=%.1f cause=%r", interval_s, str(error))

        return conn.ensure_connection(
            note,
            None,
            interval_start=RETRY_S_MIN,
            interval_step=RETRY_STEP_S,
            interval_max=RETRY_S_MAX,
            callback=state.maybe_shutdown,
        )
