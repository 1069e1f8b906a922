"""A log that does not say the same again and again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

REPEAT_AFTER_S: Final = 300.0


class RepeatedLineFilter(logging.Filter):
    """Passes a line that says the same as the last one only every ``REPEAT_AFTER_S``.

    Flower tries once a second to hear events of a Redis that takes no writes, and says so each time.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._last = ""
        self._at_s = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to write ``record``."""
        text, now_s = record.getMessage(), self._now_s()
        if text == self._last and now_s - self._at_s < REPEAT_AFTER_S:
            return False
        self._last, self._at_s = text, now_s
        return True
