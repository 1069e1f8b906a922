"""A logging filter that suppresses repeated lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

REPEAT_AFTER_S: Final = 300.0


class RepeatedLineFilter(logging.Filter):
    """Passes a line that equals the one before it only once per ``REPEAT_AFTER_S``.

    While Redis refuses writes, Flower retries its event subscription every second, and logs the
    same error each time.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._last = ""
        self._at_s = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write ``record``."""
        text, now_s = record.getMessage(), self._now_s()
        if text == self._last and now_s - self._at_s < REPEAT_AFTER_S:
            return False
        self._last, self._at_s = text, now_s
        return True
