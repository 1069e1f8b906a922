"""Changes the limits of running containers, in a thread, because lower memory limits take time to set."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from galaxy.agent.logic.events import ContainerResized
from galaxy.agent.logic.records import HostedContainer
from galaxy.model.base import Struct
from galaxy.model.messages.container import RESIZE_FAILED, RESIZE_IN_USE, Demand, Reason

_LOG: Final = logging.getLogger(__name__)
CLOSE_S: Final = 2.0


class ContainerResizer:
    """Calls ``resize`` for one container after the other, and emits a ``ContainerResized`` for each.

    Of several sizes of one container that wait, only the last is set. The thread runs only while there is
    something to do.
    """

    def __init__(
        self, resize: Callable[[str, int, Demand], tuple[str, ...]], emit: Callable[[Struct], None]
    ) -> None:
        self._resize = resize
        self._emit = emit
        self._lock = threading.Lock()
        self._waiting: dict[str, HostedContainer] = {}
        self._thread: threading.Thread | None = None

    def submit(self, hosted: HostedContainer) -> None:
        """Have the limits of a container set to those of its order."""
        with self._lock:
            self._waiting[hosted.key] = hosted
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="resizer", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Drop what waits, and wait a moment for what is being done."""
        with self._lock:
            self._waiting.clear()
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                hosted = self._waiting.pop(next(iter(self._waiting)))
            reason = self._set_limits(hosted)
            self._emit(
                ContainerResized(
                    container=hosted.container,
                    incarnation=hosted.incarnation,
                    size=hosted.order.size,
                    reason=reason,
                )
            )

    def _set_limits(self, hosted: HostedContainer) -> Reason | None:
        try:
            held = self._resize(hosted.container, hosted.incarnation, hosted.order.demand)
        except OSError as error:
            where = f" at {error.filename}" if error.filename else ""
            message = f"cannot set the limits of {hosted.key}: {error.strerror or error}{where}"
            _LOG.warning("event=container.resize-failed container=%s cause=%r", hosted.key, message)
            return Reason(code=RESIZE_FAILED, message=message)
        if held:
            return Reason(code=RESIZE_IN_USE, message="; ".join(held))
        _LOG.info("event=container.resized container=%s size=%d", hosted.key, hosted.order.size)
        return None
