"""The launcher's pool of warm processes: forked ahead of time, in their namespaces, waiting for a plan.

A launch that finds a warm process only has to create cgroups and volumes. Warm processes are created
when the launcher is idle, for the root of the last plan, and die with the launcher. Until it gets
a plan, a warm process does not belong to any container.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass
from typing import Final

from galaxy.container.launcher import init_process
from galaxy.container.launcher.forker import Forker, receive_cause
from galaxy.container.launcher.warm_process import WAITING, RootPlan, handover_of, run_warm_process
from galaxy.model.base import decode, encode
from galaxy.statemachine.backoff import Retry

SIZE: Final = 2
STABLE_S: Final = 10.0
"""A warm process that waited this long was usable: its death is no sign that creating them fails."""
_RETRY_FIRST_S: Final = 0.1
_RETRY_S_MAX: Final = 10.0
_TRIES_MAX: Final = 10
_CAUSES_MAX: Final = 16


@dataclass(kw_only=True)
class WarmProcess:
    """One warm process: its pid on the host, and the launcher's end of the socket to it."""

    pid: int
    sock: socket.socket
    created_s: float
    """By the monotonic clock."""
    _last_message: bytes = b""

    @property
    def is_waiting(self) -> bool:
        """Return whether it is ready for a plan."""
        self._read()
        return self._last_message == WAITING

    @property
    def cause(self) -> str:
        """Return why it ended; empty if it reported no cause."""
        self._read()
        return "" if self._last_message == WAITING else self._last_message.decode(errors="replace")

    def send_plan(self, root_plan: RootPlan) -> None:
        """Send the first message, with which it mounts volumes and enters its root.

        Raises:
            OSError: it is dead.
        """
        self.sock.send(encode(root_plan))

    def hand_over(self, setup: init_process.InitSetup) -> None:
        """Send the second message, with which it becomes PID 1.

        Raises:
            OSError: it is dead.
        """
        handover, fds = handover_of(setup)
        socket.send_fds(self.sock, [encode(handover)], fds)

    def _read(self) -> None:
        while message := receive_cause(self.sock):
            self._last_message = message


class WarmPool:
    """A few warm processes, all for the same root.

    Processes that die unused are replaced after waits that double. After ``_TRIES_MAX`` failures the pool
    gives up, and tries once more after each launch. A launch that finds no warm process forks for itself.
    """

    def __init__(self, entry: init_process.InitEntry) -> None:
        self._forker = Forker(
            lambda request, sock: run_warm_process(decode(request, RootPlan), sock, entry),
            init_process.undo_signal_handling,
        )
        self._waiting: list[WarmProcess] = []
        self._example: RootPlan | None = None
        self._retry = Retry(first_s=_RETRY_FIRST_S, max_s=_RETRY_S_MAX, tries_max=_TRIES_MAX)
        self._logged: set[str] = set()

    def wait_s(self, now: float) -> float | None:
        """Return in how many seconds to add a process; None if the pool is full or has given up."""
        if self._example is None or len(self._waiting) >= SIZE:
            return None
        return self._retry.wait_s(now)

    def take(self, root_plan: RootPlan) -> WarmProcess | None:
        """Remove and return a process for the root of ``root_plan``; those for another root are killed.

        A process that is still getting ready is returned too, unless the pool has failures to retry after.
        """
        if self._example is None or root_plan.root != self._example.root:
            self.clear()
        self._example = root_plan
        self._retry.allow_one_more()
        found = next((warm for warm in self._waiting if warm.is_waiting), None)
        if found is None and self._waiting and not self._retry.failures:
            found = self._waiting[0]
        if found is not None:
            self._waiting.remove(found)
        return found

    def add(self) -> None:
        """Fork one process, for the root of the last plan; a failure delays the next try."""
        assert self._example is not None, "there is no root to prepare for before the first plan"
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self._on_failure(str(error))
            return
        try:
            pid = self._forker.fork(encode(self._example), theirs)
        except OSError as error:
            ours.close()
            self._on_failure(str(error))
            return
        finally:
            theirs.close()
        self._waiting.append(WarmProcess(pid=pid, sock=ours, created_s=time.monotonic()))

    def on_used(self, warm: WarmProcess) -> None:
        """Reset the back-off: a process has become PID 1 of a container."""
        if warm.is_waiting:
            self._retry.succeeded()
            self._logged.clear()

    def on_init_death(self) -> None:
        """Count as a failure that a PID 1 died without reporting a cause; it may have been a warm process."""
        self._on_failure("a first process died before it was ready")

    def on_unused_death(self, warm: WarmProcess, how: str = "it died before it was used") -> None:
        """Count the death of a process that was never used as a failure.

        If it had waited for ``STABLE_S``, the failures before it no longer count.
        """
        cause = warm.cause or how
        warm.sock.close()
        if time.monotonic() - warm.created_s >= STABLE_S:
            self._retry.succeeded()
        self._on_failure(cause)

    def on_child_exit(self, pid: int, status: int) -> None:
        """Handle the exit of a child, with its exit code or minus its signal, if it is of this pool."""
        self._forker.on_child_exit(pid)
        for warm in [each for each in self._waiting if each.pid == pid]:
            self._waiting.remove(warm)
            how = f"exit code {status}" if status >= 0 else f"killed by signal {-status}"
            self.on_unused_death(warm, how)

    def clear(self) -> None:
        """Kill all processes; the launcher reaps them."""
        for warm in self._waiting:
            warm.sock.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(warm.pid, signal.SIGKILL)  # An unreaped child: its pid cannot have been reused.
        self._waiting.clear()
        self._example = None

    def close(self) -> None:
        """Kill all processes and the forker."""
        self.clear()
        self._forker.close()

    def _on_failure(self, cause: str) -> None:
        self._retry.failed(time.monotonic())
        self._log_once(f"event=warm-process.failed cause={cause!r}")
        if self._retry.given_up:
            self._log_once(f"event=warm-pool.given-up tries={_TRIES_MAX} until='the next launch'")

    def _log_once(self, line: str) -> None:
        """Log a line unless it was logged since a warm process was last used."""
        if line in self._logged:
            return
        if len(self._logged) >= _CAUSES_MAX:
            self._logged.clear()
        self._logged.add(line)
        os.write(2, f"{line}\n".encode())
