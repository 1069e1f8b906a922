"""The launcher: a small process in its own session, the parent of every container's PID 1.

Run as ``python -m galaxy.container.launcher.server --state DIR --cgroup-root NAME --mode MODE
--entry MODULE:FUNCTION``.

It has one thread and one event loop: requests of at most one agent (the newest connection wins), exits of
children, and reports of new PID 1s. It outlives its agent, and containers outlive it: a new launcher adopts
them by the records in their directories. An agent of another release makes the launcher execute that
release's program. The process stays the same, so it remains the parent of every PID 1.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections import deque
from typing import Final

from galaxy.container.fs.garbage import GarbageCleaner
from galaxy.container.fs.prepared_roots import PreparedRoots
from galaxy.container.kernel import inherited, prctl
from galaxy.container.kernel.uid_ranges import try_lock
from galaxy.container.launcher.containers import ContainerTable
from galaxy.container.launcher.init_process import InitEntry
from galaxy.container.launcher.log import log
from galaxy.container.launcher.plan import FULL
from galaxy.container.launcher.protocol import (
    PACKET_BYTES_MAX,
    Destroy,
    FromLauncher,
    Launch,
    Renew,
    Stop,
    StopRefused,
    ToLauncher,
)
from galaxy.errors import BadMessage
from galaxy.model.base import decode, encode

_OUTBOX_MAX: Final = 20_000
_REQUESTS_PER_TURN: Final = 4
_SOCKET_BUFFER_BYTES: Final = 4 << 20
_IDLE_S: Final = 0.02
"""After this long without an event the launcher counts as idle and prepares warm processes."""
_NICE: Final = -10
"""Containers must start and end even on a busy host. What runs in them has nice value 0 again."""
_ALREADY_RUNNING: Final = 75
_FAULT_PAUSE_S: Final = 0.02
_FAULT_CHARS_MAX: Final = 2000


class Launcher:
    """The event loop and the connection to the agent; ``ContainerTable`` has the containers."""

    def __init__(self, state: str, listener: socket.socket, containers: ContainerTable) -> None:
        self._state = state
        self._listener = listener
        self._containers = containers
        self._agent: socket.socket | None = None
        self._outbox: deque[bytes] = deque()
        self._poll = select.epoll()
        self._cleaner = GarbageCleaner(f"{state}/garbage")
        self._is_stopping = False
        self._renewal: Renew | None = None
        containers.report = self._send
        containers.watch = self._watch
        containers.unwatch = self._unwatch

    def run(self) -> None:
        """Serve until ``Stop`` was received and no container and no garbage is left."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(wake_read, select.EPOLLIN)
        self._containers.adopt()
        self._reap()
        while True:
            self._clean_garbage()
            if self._is_stopping and not self._containers.count and not self._cleaner.busy:
                break
            if self._renewal is not None and not self._containers.is_creating:
                self._renew(self._renewal)
            timeout_s, is_idle_work = self._timeout(time.monotonic())
            ready = self._poll.poll(-1 if timeout_s is None else timeout_s)
            if not ready and is_idle_work:
                self._containers.prepare()
            for fd, events in ready:
                try:
                    self._dispatch(fd, events, wake_read)
                except Exception:  # noqa: BLE001  (this process is the parent of every PID 1)
                    log(f"event=launcher.fault cause={traceback.format_exc()[-_FAULT_CHARS_MAX:]!r}")
                    time.sleep(_FAULT_PAUSE_S)
            self._containers.retry(time.monotonic())
        self._close()

    def _dispatch(self, fd: int, events: int, wake_read: int) -> None:
        """Handle what has made one descriptor ready."""
        if fd == wake_read:
            _drain(wake_read)
            self._reap()
        elif fd == self._listener.fileno():
            self._accept()
        elif fd == self._cleaner.fileno():
            self._on_cleaner_readable()
        elif self._agent is not None and fd == self._agent.fileno():
            self._serve(events)
        else:
            self._containers.on_readable(fd)

    def _timeout(self, now: float) -> tuple[float | None, bool]:
        """Return how long to wait for events (None: forever), and whether to prepare if none comes."""
        due = (self._containers.next_deadline_s(now), self._cleaner.wait_s(now))
        timeout_s = min((each for each in due if each is not None), default=None)
        work_s = None if self._is_stopping else self._containers.idle_work_s(now)
        if work_s is None:
            return timeout_s, False
        if work_s > 0:
            return work_s if timeout_s is None else min(timeout_s, work_s), False
        return min(timeout_s or _IDLE_S, _IDLE_S), True

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            try:
                self._containers.on_child_exit(pid, os.waitstatus_to_exitcode(status))
            except Exception:  # noqa: BLE001  (the other children are reaped)
                log(f"event=launcher.fault cause={traceback.format_exc()[-_FAULT_CHARS_MAX:]!r}")

    def _close(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._state}/launcher.sock")
        self._containers.close()
        self._cleaner.close()
        self._disconnect()

    # ---- requests

    def _accept(self) -> None:
        try:
            agent, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # Without a free descriptor the agent keeps waiting, and the socket readable.
            log(f"event=launcher.not-accepted cause={error.strerror!r}")
            time.sleep(_FAULT_PAUSE_S)
            return
        if _peer_uid(agent) not in (0, os.geteuid()):
            agent.close()
            return
        self._disconnect()
        agent.setblocking(False)
        agent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        self._agent = agent
        self._poll.register(agent, select.EPOLLIN)
        for message in self._containers.snapshot():
            self._send(message)

    def _serve(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            # Only a few requests per turn, so that exits and reports are handled in between.
            for _ in range(_REQUESTS_PER_TURN):
                if self._agent is None:
                    return
                try:
                    packet = self._agent.recv(PACKET_BYTES_MAX)
                except BlockingIOError:
                    return
                except OSError:
                    packet = b""
                if not packet:
                    self._disconnect()
                    return
                self._handle(packet)

    def _handle(self, packet: bytes) -> None:
        try:
            message: ToLauncher = decode(packet, ToLauncher)  # type: ignore[arg-type]
        except BadMessage as error:
            log(f"event=launcher.bad-message cause={error.message!r}")
            return
        if isinstance(message, Launch):
            self._containers.launch(message.plan)
        elif isinstance(message, Destroy):
            self._containers.destroy(message.container, message.incarnation)
        elif isinstance(message, Stop):
            if self._containers.count:
                self._send(StopRefused(containers=self._containers.count))
            else:
                self._is_stopping = True
        elif isinstance(message, Renew):
            self._renewal = message

    def _renew(self, renewal: Renew) -> None:
        """Execute another release's launcher in this process; returns only if that fails."""
        self._renewal = None
        self._containers.release()
        handle = self._listener.fileno()
        os.set_inheritable(handle, True)
        argv = [renewal.python, *renewal.arguments, "--listen", str(handle)]
        log(f"event=launcher.renewed python={renewal.python!r}")
        try:
            os.execve(renewal.python, argv, renewal.environment)  # noqa: S606
        except OSError as error:
            os.set_inheritable(handle, False)
            log(f"event=launcher.not-renewed cause={error.strerror!r}")
            self._disconnect()  # The agent reconnects, and sees that the release is the same.

    # ---- answers

    def _send(self, message: FromLauncher) -> None:
        """Send a message, or queue it until the agent reads.

        An agent that does not read is disconnected; the snapshot after its next connection replaces what
        it missed.
        """
        if self._agent is None:
            return
        self._outbox.append(encode(message))
        if len(self._outbox) > _OUTBOX_MAX:
            self._disconnect()
            return
        self._flush()

    def _flush(self) -> None:
        if self._agent is None:
            return
        try:
            while self._outbox:
                self._agent.send(self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            self._poll.modify(self._agent, select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError:
            self._disconnect()
            return
        self._poll.modify(self._agent, select.EPOLLIN)

    def _disconnect(self) -> None:
        if self._agent is not None:
            self._poll.unregister(self._agent)
            self._agent.close()
            self._agent = None
            self._outbox.clear()

    def _watch(self, fd: int) -> None:
        self._poll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        self._poll.unregister(fd)

    # ---- garbage

    def _clean_garbage(self) -> None:
        # Garbage that is added during a round is requested after it: the round's result does not cover it.
        if self._containers.has_garbage and not self._cleaner.busy:
            self._containers.has_garbage = False
            self._cleaner.request()
        if self._cleaner.wait_s(time.monotonic()) != 0.0:
            return
        before = self._cleaner.fileno()
        try:
            self._cleaner.start()
        except OSError:
            self._close_cleaner()  # The next round, when it is due, starts another child.
            return
        if self._cleaner.fileno() != before:
            try:
                self._watch(self._cleaner.fileno())
            except OSError as error:
                self._cleaner.failed(str(error))
                self._close_cleaner()

    def _on_cleaner_readable(self) -> None:
        if not self._cleaner.finish():
            self._close_cleaner()

    def _close_cleaner(self) -> None:
        if self._cleaner.fileno() >= 0:
            with contextlib.suppress(OSError):  # It is not registered if registering it failed.
                self._unwatch(self._cleaner.fileno())
        self._cleaner.close()


def main(arguments: list[str] | None = None) -> int:
    """Run a launcher; ``--listen FD`` is a listening socket that the starting process has bound."""
    parser = argparse.ArgumentParser(prog="galaxy.container.launcher.server")
    parser.add_argument("--state", required=True)
    parser.add_argument("--cgroup-root", default="galaxy")
    parser.add_argument("--mode", default=FULL)
    parser.add_argument("--entry", default="galaxy.worker_entry.main:run")
    parser.add_argument("--listen", type=int, required=True)
    options = parser.parse_args(arguments)
    state = os.path.abspath(options.state)
    listener = socket.socket(fileno=options.listen)
    os.set_inheritable(options.listen, False)
    lock = os.open(f"{state}/launcher.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    if not try_lock(lock):
        return _ALREADY_RUNNING
    inherited.reset(nice=_NICE)
    prctl.set_process_name("galaxy-launcher")
    prctl.become_subreaper()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    roots = None
    if options.mode == FULL:
        roots = PreparedRoots(f"{state}/t")
        roots.open()
    entry = load_entry(options.entry)
    containers = ContainerTable(
        state, mode=options.mode, cgroup_root=options.cgroup_root, roots=roots, entry=entry
    )
    launcher = Launcher(state, listener, containers)
    if entry.warm_up is not None:
        entry.warm_up()
    gc.collect()
    gc.freeze()  # AppWorkers share these objects: a collection in them must not write to their pages.
    launcher.run()
    return 0


def load_entry(name: str) -> InitEntry:
    """Import ``MODULE:FUNCTION``, and the module's ``warm_up`` and ``run_prefork`` if it has them."""
    module_name, _, function = name.partition(":")
    module = importlib.import_module(module_name)
    return InitEntry(
        run=getattr(module, function),
        warm_up=getattr(module, "warm_up", None),
        run_prefork=getattr(module, "run_prefork", None),
    )


def _peer_uid(sock: socket.socket) -> int:
    """Return the user at the other end of a Unix socket (unix(7), struct ucred)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    _, uid, _ = struct.unpack("iII", credentials)
    return int(uid)


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(fd, 4096):
            pass


if __name__ == "__main__":
    sys.exit(main())
