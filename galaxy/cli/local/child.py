"""One child process of a local cluster: started, and restarted with back-off."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from galaxy.client.cluster_file import ProcessRef
from galaxy.container.kernel.environment import clean
from galaxy.statemachine.backoff import Backoff

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_S_MAX: Final = 30.0
BACKOFF_READY_S_MAX: Final = 2.0
"""Limit for a process that had been ready: it was probably ended from outside, not by a fault."""
STEADY_S: Final = 10.0
"""A process that ran for longer has its back-off reset."""
LOG_BYTES_MAX: Final = 8 * 1024 * 1024
"""A log of this size is copied to ``.1``, over the previous copy, and truncated."""


@dataclass
class Child:
    """A process to keep running. ``log`` takes its output; times are of the monotonic clock."""

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    notifies: bool = True
    """Whether it sends READY=1 (sd_notify); Redis and Valkey do not."""
    umask: int = 0o022
    """Its file mode creation mask, whatever that of the caller is."""

    pid: int = 0
    pidfd: int = -1
    ready: bool = False
    restarts: int = 0
    started_s: float = 0.0
    restart_s: float | None = None
    """When to start it again; None while it runs."""
    _backoff: Backoff = field(init=False, default_factory=lambda: Backoff(BACKOFF_FIRST_S, BACKOFF_S_MAX))
    ref: ProcessRef | None = None
    _popen: subprocess.Popen[bytes] | None = None

    def start(self, now_s: float) -> None:
        """Start it in its own session, so that Ctrl-C on the terminal does not reach it.

        Raises:
            OSError: the program cannot be started.
        """
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                env={**clean(os.environ), **self.env},
                cwd="/",
                start_new_session=True,
                umask=self.umask,
            )
        finally:
            os.close(handle)
        self.pid = self._popen.pid
        self.pidfd = os.pidfd_open(self.pid)
        self.ref = ProcessRef.of(self.name, self.pid)
        self.ready = False
        self.started_s = now_s
        self.restart_s = None

    def on_exit(self, now_s: float) -> str:
        """Reap it and schedule its restart; return how it ended, for people."""
        assert self._popen is not None
        status = self._popen.wait()
        os.close(self.pidfd)
        delay_s_max = BACKOFF_READY_S_MAX if self.ready else BACKOFF_S_MAX
        self.pid, self.pidfd, self.ref, self.ready = 0, -1, None, False
        if now_s - self.started_s > STEADY_S:
            self._backoff.reset()
        self.restart_s = now_s + self._backoff.next_s(at_most_s=delay_s_max)
        self.restarts += 1
        return f"killed by signal {-status}" if status < 0 else f"exit code {status}"

    def log_tail(self, lines: int = 5) -> tuple[str, ...]:
        """Return the last lines of its log, without blank ones."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                text = file.read().decode(errors="replace")
        except OSError:
            return ()
        return tuple(line for line in text.splitlines() if line.strip())[-lines:]


def rotate_log(path: Path, bytes_max: int = LOG_BYTES_MAX) -> bool:
    """Copy a log that has reached ``bytes_max`` to ``.1`` and truncate it; return whether it did.

    The writers have the file open for appending, so they continue at its new start. A line
    that is written between the copy and the truncation is lost.
    """
    try:
        if path.stat().st_size < bytes_max:
            return False
        kept = path.with_name(path.name + ".1")
        with path.open("rb") as old, open(kept, "wb", opener=_private) as copy:
            os.sendfile(copy.fileno(), old.fileno(), 0, 2 * bytes_max)
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
