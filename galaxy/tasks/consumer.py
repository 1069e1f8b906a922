"""Celery's consumer, except that it is back soon after Redis is."""

from __future__ import annotations

import logging
from typing import Any, Final

from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer

RETRY_MIN_S: Final = 0.2
RETRY_STEP_S: Final = 0.6
RETRY_MAX_S: Final = 5.0
"""Celery waits up to half a minute; a leader's queue shall not."""

log = logging.getLogger(__name__)


class Consumer(CeleryConsumer):
    """Tries to connect for ever, every few seconds."""

    def ensure_connected(self, conn: Any) -> Any:
        def note(error: Exception, interval_s: float) -> None:
            log.warning("event=broker.waiting again_s=%.1f cause=%r", interval_s, str(error))

        return conn.ensure_connection(
            note,
            None,
            interval_start=RETRY_MIN_S,
            interval_step=RETRY_STEP_S,
            interval_max=RETRY_MAX_S,
            callback=state.maybe_shutdown,
        )
