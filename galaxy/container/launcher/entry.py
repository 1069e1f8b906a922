"""What a launcher knows about one container: its phase, its PID 1, and what its directory records."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from galaxy.container.launcher.protocol import Ended
from galaxy.ids import container_key
from galaxy.statemachine.backoff import Backoff

_RETRY_S: Final = 0.005
_RETRY_S_MAX: Final = 1.0


class EntryPhase(Enum):
    """The phase of a container in its launcher."""

    CREATING = "creating"
    RUNNING = "running"
    ENDED = "ended"
    KILLING = "killing"
    REMOVING = "removing"


@dataclass(kw_only=True)
class ContainerEntry:
    """One container of a launcher; a descriptor is -1 when it is closed."""

    container: str
    incarnation: int
    mode: str
    phase: EntryPhase
    pid: int = 0
    start_ticks: int = 0
    pidfd: int = -1
    status_fd: int = -1
    """Pipe on which the new PID 1 reports that it is ready, or why it failed."""
    is_child: bool = True
    """The launcher is PID 1's parent. Otherwise PID 1 was adopted, and its exit status cannot be read."""
    ended: Ended | None = None
    failed: bool = False
    """It never ran, so its removal is reported only if it was requested."""
    destroy_requested: bool = False
    deadline: float = 0.0
    """When to act again, by the monotonic clock; 0.0 means never."""
    backoff: Backoff = field(default_factory=lambda: Backoff(_RETRY_S, _RETRY_S_MAX))

    @property
    def key(self) -> str:
        return container_key(self.container, self.incarnation)

    def send_signal(self, number: int) -> None:
        """Send a signal to PID 1, if it still exists."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close_pidfd(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def retry_after(self, now: float) -> None:
        """Set the next deadline; the wait doubles each time, from 5 ms to 1 s."""
        self.deadline = now + self.backoff.next_s()
