"""What other threads have for the agent's loop: bounded where it is said again, never blocking."""

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
    """Events and calls, in order of arrival; ``fileno`` is readable while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: deque[Struct] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._since_s: float | None = None
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False
        self.dropped = 0

    def fileno(self) -> int:
        return self._bell

    def order(self, event: Struct) -> bool:
        """Add a leader's order; drop it when too many wait, for leaders say everything again."""
        with self._lock:
            if len(self._events) >= ORDERS_MAX or self._closed:
                self.dropped += 1
                return False
            self._add(event)
        return True

    def put(self, event: Struct) -> None:
        """Add an event that nobody would repeat."""
        with self._lock:
            self._add(event)

    def call(self, call: Callable[[], None]) -> None:
        """Have ``call`` made in the loop's thread."""
        with self._lock:
            self._calls.append(call)
            self._ring()

    def wake(self) -> None:
        with self._lock:
            self._ring()

    def take(self) -> tuple[list[Struct], list[Callable[[], None]]]:
        """Return everything, and be silent until there is more."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
            events, calls = list(self._events), list(self._calls)
            self._events.clear()
            self._calls.clear()
            self._since_s = None
        return events, calls

    def oldest_s(self) -> float:
        """Return for how many seconds something has been waiting; the loop is stuck if it is long."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def close(self) -> None:
        with self._lock:
            self._closed = True
            os.close(self._bell)

    def _add(self, event: Struct) -> None:
        self._events.append(event)
        self._ring()

    def _ring(self) -> None:
        if self._since_s is None:
            self._since_s = time.monotonic()
        if not self._closed:
            os.eventfd_write(self._bell, 1)
