"""Keep processes running: start them, wait until they are ready, restart what ends, stop them all."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from galaxy.cli.local.child import Child, rotate_log
from galaxy.cli.local.stop_signals import STOP_SIGNALS, StopSignals
from galaxy.errors import HostError
from galaxy.model.base import Struct
from galaxy.units import format_duration

FALSE_STARTS_MAX: Final = 3
"""A process that ends this often before it is ever ready cannot run on this host."""
HOUSEKEEPING_S: Final = 5.0
_CREDENTIALS: Final = struct.Struct("iII")


class PartChanged(Struct, frozen=True, kw_only=True):
    """A part of the cluster changed its ``state``: starting, ready, died, stopping or gone."""

    part: str
    state: str
    detail: str = ""
    took_s: float = 0.0


class Stopped(Exception):
    """A stop was requested by a signal or through the lifeline."""


class Supervisor:
    """Supervises children in one thread with one selector.

    The selector watches exits of children (pidfds), their READY=1 messages, signals and the
    lifeline. ``report`` is called with every change. ``pids_changed`` is called whenever the set
    of pids changed, so that it can be written to disk. Supervision stops when the ``lifeline``
    file descriptor becomes readable or is closed, and on SIGTERM, SIGINT and SIGHUP. ``logs``
    are more log files to rotate.
    """

    def __init__(
        self,
        report: Callable[[PartChanged], None],
        *,
        pids_changed: Callable[[], None],
        lifeline: int = -1,
        logs: Iterable[Path] = (),
    ) -> None:
        self.children: dict[str, Child] = {}
        self._logs = set(logs)
        self._report = report
        self._pids_changed = pids_changed
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self.stopped_by = ""
        """Who asked for the stop: a signal and its sender, or the end of the command at the terminal."""
        self._housekeeping_s = time.monotonic() + HOUSEKEEPING_S
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.notify_address = f"@galaxy-up-{os.getpid()}-{secrets.token_hex(8)}"
        self._notify.bind("\0" + self.notify_address[1:])
        self._selector.register(self._notify, selectors.EVENT_READ, self._on_notify)
        self._wakeup, self._signalled = socket.socketpair()
        for end in (self._wakeup, self._signalled):
            end.setblocking(False)
        self._selector.register(self._signalled, selectors.EVENT_READ, self._on_signal)
        self._stop_signals = StopSignals()
        self._selector.register(self._stop_signals.fd, selectors.EVENT_READ, self._on_stop_signal)
        self._lifeline = lifeline
        if lifeline >= 0:
            self._selector.register(lifeline, selectors.EVENT_READ, self._on_lifeline)

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._stop_signals.block()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_signals.unblock()
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._stop_signals.close()
        for end in (self._notify, self._wakeup, self._signalled):
            end.close()

    def start(self, child: Child) -> None:
        """Start ``child`` and keep it running from now on.

        Raises:
            HostError: its program cannot be started.
        """
        self.children[child.name] = child
        if child.notifies:
            child.env = {**child.env, "NOTIFY_SOCKET": self.notify_address}
        self._report(PartChanged(part=child.name, state="starting"))
        self._launch(child)

    def await_ready(self, names: Iterable[str], *, timeout_s: float) -> None:
        """Wait until all children called ``names`` are ready.

        Raises:
            HostError: one cannot be started, or is not ready in time.
            Stopped: a stop was requested meanwhile.
        """
        deadline = time.monotonic() + timeout_s
        all_names = list(names)
        while waiting := [name for name in all_names if not self.children[name].ready]:
            left = deadline - time.monotonic()
            if left <= 0:
                raise not_ready_in_time([self.children[name] for name in waiting], timeout_s)
            self._run_once(left)
            for name in waiting:
                child = self.children[name]
                if child.restarts >= FALSE_STARTS_MAX and not child.ready:
                    raise _not_ready([child], f"ended {child.restarts} times before it was ready")

    def runs_for(self, name: str, period_s: float) -> bool:
        """Wait ``period_s``; return False as soon as the child ends.

        Raises:
            Stopped: a stop was requested meanwhile.
        """
        deadline = time.monotonic() + period_s
        while (left := deadline - time.monotonic()) > 0:
            self._run_once(left)
            if not self.children[name].pid:
                return False
        return True

    def mark_ready(self, name: str, detail: str = "") -> None:
        """Record that a child is ready."""
        child = self.children[name]
        if not child.ready:
            child.ready = True
            took_s = time.monotonic() - child.started_s
            self._report(PartChanged(part=name, state="ready", detail=detail, took_s=took_s))

    def watch(self) -> None:
        """Keep all children running until a stop is requested."""
        with contextlib.suppress(Stopped):
            while True:
                self._run_once(HOUSEKEEPING_S)

    def stop(self, names: Iterable[str], *, grace_s: float) -> None:
        """Stop children and wait until they have ended: SIGTERM, then SIGKILL after ``grace_s``."""
        self._stopping = True
        self._stop_signals.unblock()  # What is started from now on must not inherit blocked signals.
        stopping = [child for name in names if (child := self.children.pop(name, None)) and child.pid]
        for child in stopping:
            self._report(PartChanged(part=child.name, state="stopping"))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for child in stopping:
            if not _await_exit(child.pidfd, deadline - time.monotonic()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
                _await_exit(child.pidfd, 10.0)
            self._unwatch(child)
            child.on_exit(time.monotonic())
            self._report(PartChanged(part=child.name, state="gone"))
        self._pids_changed()

    def _run_once(self, timeout_s: float) -> None:
        """Handle what is ready, waiting at most ``timeout_s`` or until the next restart is due."""
        if self._stopping:
            raise Stopped
        now_s = time.monotonic()
        due = [child.restart_s for child in self.children.values() if child.restart_s is not None]
        until_s = min([now_s + timeout_s, self._housekeeping_s, *due])
        for key, _ in self._selector.select(max(0.0, until_s - now_s)):
            key.data()
        now_s = time.monotonic()
        for child in list(self.children.values()):
            if child.restart_s is not None and child.restart_s <= now_s:
                self._launch(child)
        if now_s >= self._housekeeping_s:
            self._housekeeping_s = now_s + HOUSEKEEPING_S
            for log in {child.log for child in self.children.values()} | self._logs:
                rotate_log(log)
        if self._stopping:
            raise Stopped

    def _launch(self, child: Child) -> None:
        try:
            with self._stop_signals.unblocked():
                child.start(time.monotonic())
        except OSError as error:
            raise HostError(f"cannot start {child.name}: {child.argv[0]}: {error.strerror}") from error
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._on_exit(child))
        self._pids_changed()

    def _on_exit(self, child: Child) -> None:
        self._unwatch(child)
        how = child.on_exit(time.monotonic())
        pause_s = (child.restart_s or 0.0) - time.monotonic()
        detail = f"{how}; starts again in {pause_s:.1f} s; see {child.log}"
        self._report(PartChanged(part=child.name, state="died", detail=detail))
        self._pids_changed()

    def _unwatch(self, child: Child) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.pidfd)

    def _on_notify(self) -> None:
        """Accept READY=1 from our own children only; the kernel attaches the sender's pid."""
        data, ancillary, _, _ = self._notify.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        pids = [
            _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0]
            for level, kind, content in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        ]
        child = next((c for c in self.children.values() if pids and c.pid == pids[0]), None)
        lines = data.decode(errors="replace").splitlines()
        if child is not None and "READY=1" in lines:
            status = next((line[7:] for line in lines if line.startswith("STATUS=")), "")
            self.mark_ready(child.name, status)

    def _on_signal(self) -> None:
        numbers = [number for number in self._signalled.recv(64) if number in STOP_SIGNALS]
        if numbers:
            self._stop_because(f"{signal.Signals(numbers[0]).name} from an unknown process")

    def _on_stop_signal(self) -> None:
        if cause := self._stop_signals.read():
            self._stop_because(cause)

    def _on_lifeline(self) -> None:
        self._selector.unregister(self._lifeline)
        self._stop_because("the end of the command at the terminal")

    def _stop_because(self, cause: str) -> None:
        self._stopping = True
        self.stopped_by = self.stopped_by or cause


def not_ready_in_time(children: list[Child], timeout_s: float) -> HostError:
    """Return the error for children that were not ready within ``timeout_s``, with their last log lines."""
    hint = "if this host is slow, galaxy up --timeout TIME waits longer"
    return _not_ready(children, f"not ready in {format_duration(timeout_s)}", hint=hint)


def _not_ready(children: list[Child], cause: str, hint: str = "galaxy doctor") -> HostError:
    names = ", ".join(child.name for child in children)
    several = len(children) > 1
    details = [
        f"{child.name}: {line}" if several else line
        for child in children
        for line in (*child.log_tail(), f"log: {child.log}")
    ]
    return HostError(
        f"{names} {'do' if several else 'does'} not come up: {cause}", details=details, hint=hint
    )


def _await_exit(pidfd: int, timeout_s: float) -> bool:
    """Wait until a process ends; return whether it did. It is not reaped here."""
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        return bool(selector.select(max(0.0, timeout_s)))
