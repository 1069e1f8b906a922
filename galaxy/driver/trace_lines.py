"""Log lines of trace events: one log record for many, because a step of a burst traces hundreds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from galaxy.model.messages.trace import TraceEvent

LINES_MAX: Final = 100
"""Events in one log record."""


class TraceLines:
    """The message of a log record: one line for each event. ``galaxy.tasks.log`` heads each line."""

    __slots__ = ("lines",)

    def __init__(self, events: Sequence[TraceEvent]) -> None:
        self.lines = [
            f"event={one.kind} subject={one.subject} text={one.text!r} id={one.id} cause={one.cause or '-'}"
            for one in events
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def log_trace(log: logging.Logger, events: Sequence[TraceEvent]) -> None:
    """Log ``events``, of level info."""
    if log.isEnabledFor(logging.INFO):
        for first in range(0, len(events), LINES_MAX):
            log.info(TraceLines(events[first : first + LINES_MAX]))
