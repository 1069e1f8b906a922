"""The inbox of a leader's loop: bounded and thread-safe; a new event wakes the loop."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any


class LeaderInbox:
    """A bounded queue of events. When it is full, events are counted and dropped; their senders resend them.

    ``put_latest`` keeps only the newest event of a kind, and puts it before the others. It is for
    readings of current state, which replace older ones.
    """

    def __init__(self, events_max: int) -> None:
        self.events_max = events_max
        self.dropped = 0
        self._events: deque[Any] = deque()
        self._latest: dict[str, Any] = {}
        self._woken = False
        self._ready = threading.Condition()

    def __len__(self) -> int:
        return len(self._events) + len(self._latest)

    def put(self, event: Any) -> bool:
        """Append ``event``, or return False when the queue is full."""
        with self._ready:
            if len(self._events) >= self.events_max:
                self.dropped += 1
                return False
            self._events.append(event)
            self._ready.notify()
            return True

    def put_latest(self, kind: str, event: Any) -> None:
        """Replace the last event of ``kind`` that was not taken yet."""
        with self._ready:
            self._latest[kind] = event
            self._ready.notify()

    def wake(self) -> None:
        """Make the current or the next ``take`` return."""
        with self._ready:
            self._woken = True
            self._ready.notify()

    def take(self, timeout_s: float) -> list[Any]:
        """Remove and return all events, waiting up to ``timeout_s`` for the first one or for ``wake``."""
        end_s = time.monotonic() + timeout_s
        with self._ready:
            while not (self._events or self._latest or self._woken):
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    break
                self._ready.wait(left_s)
            self._woken = False
            events = [*self._latest.values(), *self._events]
            self._latest.clear()
            self._events.clear()
            return events

    def clear(self) -> None:
        """Drop all events."""
        with self._ready:
            self._latest.clear()
            self._events.clear()
