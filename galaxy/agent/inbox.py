"""The agent's inbox: events and calls from other threads for the agent's loop. Adding never blocks."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from galaxy.model.base import Struct

ORDERS_MAX: Final = 4096


class AgentInbox:
    """Events and calls in order of arrival. ``fileno`` is readable while there are any.

    Orders are bounded, because leaders resend them. Other events are not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: deque[Struct] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._waiting_since_s: float | None = None
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False
        self.dropped = 0

    def fileno(self) -> int:
        return self._eventfd

    def put_order(self, order: Struct) -> bool:
        """Add a leader's order, or drop it and return False when too many events wait."""
        with self._lock:
            if len(self._events) >= ORDERS_MAX or self._closed:
                self.dropped += 1
                return False
            self._events.append(order)
            self._wake()
        return True

    def put(self, event: Struct) -> None:
        """Add an event that would not be repeated."""
        with self._lock:
            self._events.append(event)
            self._wake()

    def call(self, call: Callable[[], None]) -> None:
        """Have ``call`` made in the loop's thread."""
        with self._lock:
            self._calls.append(call)
            self._wake()

    def take(self) -> tuple[list[Struct], list[Callable[[], None]]]:
        """Remove and return everything."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._eventfd)
            events, calls = list(self._events), list(self._calls)
            self._events.clear()
            self._calls.clear()
            self._waiting_since_s = None
        return events, calls

    def oldest_s(self) -> float:
        """Return for how many seconds the oldest item has waited; a high value means a stuck loop."""
        since_s = self._waiting_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def close(self) -> None:
        with self._lock:
            self._closed = True
            os.close(self._eventfd)

    def _wake(self) -> None:
        if self._waiting_since_s is None:
            self._waiting_since_s = time.monotonic()
        if not self._closed:
            os.eventfd_write(self._eventfd, 1)
