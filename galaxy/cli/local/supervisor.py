"""Keep processes running: start them, hear when they are ready, restart what dies, end them all."""

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

from galaxy.cli.local.child import Child, truncate_log
from galaxy.errors import HostError
from galaxy.model.base import Struct
from galaxy.units import format_duration

FALSE_STARTS_MAX: Final = 3
"""A process that dies so often before it is ever ready cannot run here."""
HOUSEKEEPING_S: Final = 5.0
_CREDENTIALS: Final = struct.Struct("iII")


class PartChanged(Struct, frozen=True, kw_only=True):
    """Something to show: ``part`` is now ``state`` (starting, ready, died, stopping, gone)."""

    part: str
    state: str
    detail: str = ""
    took_s: float = 0.0


class Stopped(Exception):
    """A signal or the lifeline said to end."""


class Supervisor:
    """One thread, one selector: ends of children (pidfds), their READY=1, signals, a lifeline.

    ``tell`` hears every change; ``changed`` is called when pids did, so that they can be
    written down. A readable or closed ``lifeline`` file descriptor ends everything, as
    SIGTERM, SIGINT and SIGHUP do. ``logs`` are further files to keep bounded.
    """

    def __init__(
        self,
        report: Callable[[PartChanged], None],
        *,
        changed: Callable[[], None],
        lifeline: int = -1,
        logs: Iterable[Path] = (),
    ) -> None:
        self.children: dict[str, Child] = {}
        self._logs = set(logs)
        self._report = report
        self._changed = changed
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._housekeeping_s = time.monotonic() + HOUSEKEEPING_S
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.notify_address = f"@galaxy-up-{os.getpid()}-{secrets.token_hex(8)}"
        self._notify.bind("\0" + self.notify_address[1:])
        self._selector.register(self._notify, selectors.EVENT_READ, self._hear)
        self._wake, self._signalled = socket.socketpair()
        for end in (self._wake, self._signalled):
            end.setblocking(False)
        self._selector.register(self._signalled, selectors.EVENT_READ, self._signal)
        self._lifeline = lifeline
        if lifeline >= 0:
            self._selector.register(lifeline, selectors.EVENT_READ, self._cut)

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        self._selector.close()
        for end in (self._notify, self._wake, self._signalled):
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
        """Wait until all of ``names`` have said that they are ready.

        Raises:
            HostError: one cannot be started, or is not ready in time.
            Stopped: somebody asked for the end meanwhile.
        """
        deadline = time.monotonic() + timeout_s
        wanted = list(names)
        while waiting := [name for name in wanted if not self.children[name].ready]:
            left = deadline - time.monotonic()
            if left <= 0:
                late = [self.children[name] for name in waiting]
                raise not_ready_in_time(late, timeout_s)
            self._turn(left)
            for name in waiting:
                child = self.children[name]
                if child.restarts >= FALSE_STARTS_MAX and not child.ready:
                    raise _not_ready([child], f"ended {child.restarts} times before it was ready")

    def alive_during(self, name: str, pause_s: float) -> bool:
        """Wait ``pause_s`` for the end of a child: False as soon as it ended.

        Raises:
            Stopped: somebody asked for the end meanwhile.
        """
        deadline = time.monotonic() + pause_s
        while (left := deadline - time.monotonic()) > 0:
            self._turn(left)
            if not self.children[name].pid:
                return False
        return True

    def mark_ready(self, name: str, detail: str = "") -> None:
        """Note that a process that does not say so itself is ready."""
        child = self.children[name]
        if not child.ready:
            child.ready = True
            took_s = time.monotonic() - child.started_s
            self._report(PartChanged(part=name, state="ready", detail=detail, took_s=took_s))

    def watch(self) -> None:
        """Keep everything running until somebody asks for the end."""
        with contextlib.suppress(Stopped):
            while True:
                self._turn(HOUSEKEEPING_S)

    def stop(self, names: Iterable[str], *, grace_s: float) -> None:
        """End children and wait for it: SIGTERM, and SIGKILL after ``grace_s``."""
        self._stopping = True
        wanted = [child for name in names if (child := self.children.pop(name, None)) and child.pid]
        for child in wanted:
            self._report(PartChanged(part=child.name, state="stopping"))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for child in wanted:
            if not _ends(child.pidfd, deadline - time.monotonic()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
                _ends(child.pidfd, 10.0)
            self._forget(child)
            child.ended(time.monotonic())
            self._report(PartChanged(part=child.name, state="gone"))
        self._changed()

    def _turn(self, timeout_s: float) -> None:
        """Handle what there is, waiting for it until the next thing that is due."""
        if self._stopping:
            raise Stopped
        now_s = time.monotonic()
        due = [child.restart_s for child in self.children.values() if child.restart_s is not None]
        until = min([now_s + timeout_s, self._housekeeping_s, *due])
        for key, _ in self._selector.select(max(0.0, until - now_s)):
            key.data()
        now_s = time.monotonic()
        for child in list(self.children.values()):
            if child.restart_s is not None and child.restart_s <= now_s:
                self._launch(child)
        if now_s >= self._housekeeping_s:
            self._housekeeping_s = now_s + HOUSEKEEPING_S
            for log in {child.log for child in self.children.values()} | self._logs:
                truncate_log(log)
        if self._stopping:
            raise Stopped

    def _launch(self, child: Child) -> None:
        try:
            child.start(time.monotonic())
        except OSError as error:
            raise HostError(f"cannot start {child.name}: {child.argv[0]}: {error.strerror}") from error
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._died(child))
        self._changed()

    def _died(self, child: Child) -> None:
        self._forget(child)
        how = child.ended(time.monotonic())
        pause_s = (child.restart_s or 0.0) - time.monotonic()
        detail = f"{how}; starts again in {pause_s:.1f} s; see {child.log}"
        self._report(PartChanged(part=child.name, state="died", detail=detail))
        self._changed()

    def _forget(self, child: Child) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.pidfd)

    def _hear(self) -> None:
        """Take READY=1 from our own children; the kernel says whose it is."""
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

    def _signal(self) -> None:
        numbers = self._signalled.recv(64)
        if any(n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) for n in numbers):
            self._stopping = True

    def _cut(self) -> None:
        self._selector.unregister(self._lifeline)
        self._stopping = True


def _ends(pidfd: int, timeout_s: float) -> bool:
    """Wait for a process to end; True when it did. Its parent still reaps it."""
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        return bool(selector.select(max(0.0, timeout_s)))


def not_ready_in_time(children: list[Child], timeout_s: float) -> HostError:
    """Say which parts were not ready in the time that they have, and what each said last."""
    hint = "galaxy up --timeout TIME waits longer, if this host is slow"
    return _not_ready(children, f"not ready in {format_duration(timeout_s)}", hint=hint)


def _not_ready(children: list[Child], why: str, hint: str = "galaxy doctor") -> HostError:
    """Say which parts did not come up, why, and what each said last."""
    names = ", ".join(child.name for child in children)
    several = len(children) > 1
    details = [
        f"{child.name}: {line}" if several else line
        for child in children
        for line in (*child.log_tail(), f"log: {child.log}")
    ]
    return HostError(f"{names} {'do' if several else 'does'} not come up: {why}", details=details, hint=hint)
