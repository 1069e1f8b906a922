"""The inbox of a leader's loop: bounded and thread-safe; a new event wakes the loop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from msgspec.structs import replace

from galaxy.model.messages.agent import AgentReport, HeartbeatsRead

EVENTS_PER_TICK: Final = 1000
"""The most requests and messages of the other leader that one tick handles."""
ROWS_PER_TICK: Final = 500
"""One tick takes no further report once its reports name this many containers and pods together.

So a burst of reports delays a request by one such tick at most, which takes less than a tenth of a second.
"""


class LeaderInbox:
    """Events in three lanes: readings of current state, then requests and the other leader, then reports.

    A reading replaces the last one of its kind. The second lane holds ``events_max``; when it is full,
    events are counted and dropped, and their senders resend them.
    """

    def __init__(self, events_max: int) -> None:
        self.events_max = events_max
        self.dropped = 0
        self._latest: dict[str, Any] = {}
        self._events: deque[Any] = deque()
        self._reports: deque[AgentReport] = deque()
        self._rows = 0
        """Containers and pods in ``_reports``, and one more for each report."""
        self._woken = False
        self._ready = threading.Condition()

    def __len__(self) -> int:
        return len(self._latest) + len(self._events) + len(self._reports)

    def put(self, event: Any) -> bool:
        """Append a request or message, or return False when their lane is full."""
        with self._ready:
            if len(self._events) >= self.events_max:
                self.dropped += 1
                return False
            self._events.append(event)
            self._ready.notify_all()
            return True

    def put_latest(self, kind: str, event: Any) -> None:
        """Replace the last event of ``kind`` that was not taken yet."""
        with self._ready:
            self._latest[kind] = event
            self._ready.notify_all()

    def put_reports(self, reports: Iterable[AgentReport]) -> None:
        """Append reports. Call it only after ``await_room``, which bounds their lane."""
        with self._ready:
            for report in reports:
                self._reports.append(report)
                self._rows += _rows(report)
            self._ready.notify_all()

    def has_room(self) -> bool:
        """Return whether the reports that wait here are fewer than one tick handles."""
        return self._rows < ROWS_PER_TICK

    def await_room(self, timeout_s: float) -> bool:
        """Return ``has_room()`` as soon as it is true, or after ``timeout_s``."""
        with self._ready:
            return self._ready.wait_for(self.has_room, timeout_s)

    def wake(self) -> None:
        """Make the current or the next ``take`` return."""
        with self._ready:
            self._woken = True
            self._ready.notify_all()

    def take(self, timeout_s: float) -> list[Any]:
        """Remove and return the events of one tick: readings, then requests and messages, then reports.

        Waits up to ``timeout_s`` for the first event or for ``wake``.
        """
        end_s = time.monotonic() + timeout_s
        with self._ready:
            while not (self._latest or self._events or self._reports or self._woken):
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    break
                self._ready.wait(left_s)
            self._woken = False
            events = [self._with_unread(event) for event in self._latest.values()]
            self._latest.clear()
            events += [self._events.popleft() for _ in range(min(len(self._events), EVENTS_PER_TICK))]
            events += self._take_reports()
            return events

    def clear(self) -> None:
        """Drop all events."""
        with self._ready:
            self._latest.clear()
            self._events.clear()
            self._reports.clear()
            self._rows = 0

    def _with_unread(self, event: Any) -> Any:
        """Add the agents whose reports wait here to those with unread reports: readings are handled first."""
        if not isinstance(event, HeartbeatsRead) or not self._reports:
            return event
        here = (report.agent for report in self._reports)
        return replace(event, unread=event.unread.union(here))

    def _take_reports(self) -> list[AgentReport]:
        taken: list[AgentReport] = []
        rows = 0
        while self._reports and rows < ROWS_PER_TICK:
            report = self._reports.popleft()
            rows += _rows(report)
            taken.append(report)
        self._rows -= rows
        if taken:
            self._ready.notify_all()
        return taken


def _rows(report: AgentReport) -> int:
    return 1 + len(report.containers) + len(report.pods)
