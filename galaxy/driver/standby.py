"""The thread of a standby that keeps its tables warm."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from galaxy.driver.warm_tables import WarmTables
from galaxy.errors import GalaxyError
from galaxy.statemachine.backoff import Backoff

T = TypeVar("T")

WAIT_S: Final = 30.0
"""Longest wait for the next commit in one read."""
PAUSE_S: Final = 0.1
"""Pause after each read, so that a busy leader costs its standbys few reads of many rows each."""
RETRY_MIN_S: Final = 0.5
RETRY_MAX_S: Final = 10.0
ROWS_TO_FREEZE: Final = 10_000
"""Rows read before they are excluded from garbage collection."""

log = logging.getLogger(__name__)


class Standby:
    """Follows the change feed in a thread between ``follow`` and ``stop``.

    After ``stop`` has returned, the tables belong to the caller until it calls ``follow`` again.
    """

    def __init__(self, warm: WarmTables) -> None:
        self.warm = warm
        self._lock = threading.Lock()
        self._stopping: threading.Event | None = None
        self._rows = 0
        """Rows that were read and are not excluded from garbage collection."""

    def follow(self) -> None:
        """Start to follow, unless it has been started; the tables are loaded first if necessary."""
        if self._stopping is not None:
            return
        self._stopping = threading.Event()
        threading.Thread(
            target=self._run, args=(self._stopping,), name=f"{self.warm.role}-standby", daemon=True
        ).start()

    def stop(self) -> None:
        """Stop following. A read that is in progress ends later, and changes nothing."""
        if self._stopping is not None:
            self._stopping.set()
            self._stopping = None
            with self._lock:  # Wait until the tables are not being changed.
                pass

    def _run(self, stopping: threading.Event) -> None:
        retry = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        try:
            if self.warm.position is None:
                self._change(stopping, self.warm.clear)
            while not stopping.is_set():
                try:
                    self._step(stopping)
                    retry.reset()
                    pause_s = PAUSE_S
                except GalaxyError as error:
                    log.warning("event=standby.waiting role=%s cause=%r", self.warm.role, str(error))
                    pause_s = retry.next_s()
                except Exception:
                    log.exception("event=standby.failed role=%s", self.warm.role)
                    pause_s = retry.next_s()
                stopping.wait(pause_s)
        except _Stopped:
            return

    def _step(self, stopping: threading.Event) -> None:
        """Read once, and apply what was read."""
        loads = self.warm.position is None

        def check() -> None:
            if stopping.is_set():
                raise _Stopped
            _freeze()

        read = self.warm.read(WAIT_S, check)
        self._rows += self._change(stopping, lambda: self.warm.apply(read))
        if loads and self.warm.position is not None:
            log.info("event=standby.loaded role=%s rows=%d", self.warm.role, self._rows)
        if loads or self._rows >= ROWS_TO_FREEZE:
            self._rows = 0
            _freeze()

    def _change(self, stopping: threading.Event, change: Callable[[], T]) -> T:
        """Return what ``change`` returns; raise ``_Stopped`` if ``stop`` was called."""
        with self._lock:
            if stopping.is_set():
                raise _Stopped
            return change()


class _Stopped(BaseException):
    """Ends the thread. Not an ``Exception``, so that nothing on the way handles it."""


def _freeze() -> None:
    """Collect garbage, then exclude all objects that are left from garbage collection.

    A standby of a large cluster holds about a million objects, which are freed by reference counting.
    Visiting all of them takes a second, and happens again and again while rows change. The objects that
    are excluded already are not visited here either.
    """
    gc.collect()
    gc.freeze()
