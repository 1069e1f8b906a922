"""The launcher: a small process in a session of its own, parent of every container's first process.

Run as ``python -m galaxy.container.launcher.server --state DIR --cgroup-root NAME --mode MODE
--entry MODULE:FUNCTION``.

One thread and one loop: requests from at most one agent (the newest wins), children that end, births
that report. It outlives its agent, and containers outlive it: a new launcher finds them again by what
their directories say. An agent of another release has it become that release's launcher (execve): the
same process, and so still the parent of every container's first process.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from typing import Final

from galaxy.container.fs.garbage import Janitor
from galaxy.container.fs.prepared_roots import Views
from galaxy.container.kernel import prctl
from galaxy.container.kernel.uid_ranges import hold
from galaxy.container.launcher.containers import ContainerTable
from galaxy.container.launcher.init_process import InitEntry
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

_BACKLOG: Final = 4
_OUTBOX_MAX: Final = 20_000
_REQUESTS_A_TURN: Final = 4
_SOCKET_BUFFER: Final = 4 << 20
_IDLE_S: Final = 0.02
"""Nothing asked for so long: time to prepare for what will be."""
_NICE: Final = -10
"""On a busy host containers must still come and go; what runs in them is back at 0."""
_ALREADY_THERE: Final = 75


class Launcher:
    """The loop; what it knows of containers is in ``Lives``."""

    def __init__(self, state: str, listener: socket.socket, lives: ContainerTable) -> None:
        self._state = state
        self._listener = listener
        self._lives = lives
        self._agent: socket.socket | None = None
        self._outbox: deque[bytes] = deque()
        self._poll = select.epoll()
        self._janitor = Janitor(f"{state}/garbage")
        self._stopping = False
        self._renewal: Renew | None = None
        lives.tell = self._tell
        lives.watch = self._watch
        lives.unwatch = self._unwatch

    def run(self) -> None:
        """Serve until told to stop with nothing left."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(wake_read, select.EPOLLIN)
        self._lives.adopt()
        self._reap()
        while True:
            self._sweep()
            if self._stopping and not self._lives.count and not self._janitor.busy:
                break
            if self._renewal is not None and not self._lives.being_made:
                self._renew(self._renewal)
            timeout, idle = self._timeout(time.monotonic())
            woken = self._poll.poll(-1 if timeout is None else timeout)
            if not woken and idle:
                self._lives.prepare()
            for fd, events in woken:
                if fd == wake_read:
                    self._drain(wake_read)
                    self._reap()
                elif fd == self._listener.fileno():
                    self._accept()
                elif fd == self._janitor.fileno():
                    self._swept()
                elif self._agent is not None and fd == self._agent.fileno():
                    self._serve(events)
                else:
                    self._lives.woken(fd)
            self._lives.retry(time.monotonic())
        self._say_goodbye()

    def _timeout(self, now: float) -> tuple[float | None, bool]:
        """Return how long to wait for whatever comes, None for ever, and whether there is idle work then."""
        due = (self._lives.next_deadline(now), self._janitor.wait_s(now))
        timeout = min((one for one in due if one is not None), default=None)
        work = None if self._stopping else self._lives.idle_work_s(now)
        if work is None:
            return timeout, False
        if work > 0:
            return work if timeout is None else min(timeout, work), False
        return min(timeout or _IDLE_S, _IDLE_S), True

    def _accept(self) -> None:
        try:
            agent, _ = self._listener.accept()
        except OSError:
            return
        _, uid, _ = _peer(agent)
        if uid not in (0, os.geteuid()):
            agent.close()
            return
        self._hang_up()
        agent.setblocking(False)
        agent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        self._agent = agent
        self._poll.register(agent, select.EPOLLIN)
        for message in self._lives.snapshot():
            self._tell(message)

    def _serve(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            # A few at a time, so that births and deaths are heard in between.
            for _ in range(_REQUESTS_A_TURN):
                if self._agent is None:
                    return
                try:
                    packet = self._agent.recv(PACKET_BYTES_MAX)
                except BlockingIOError:
                    return
                except OSError:
                    packet = b""
                if not packet:
                    self._hang_up()
                    return
                self._obey(packet)

    def _obey(self, packet: bytes) -> None:
        try:
            message: ToLauncher = decode(packet, ToLauncher)  # type: ignore[arg-type]
        except BadMessage as error:
            _log(f"event=launcher.bad-message cause={error.message!r}")
            return
        if isinstance(message, Launch):
            self._lives.launch(message.plan)
        elif isinstance(message, Destroy):
            self._lives.destroy(message.container, message.incarnation)
        elif isinstance(message, Stop):
            if self._lives.count:
                self._tell(StopRefused(containers=self._lives.count))
            else:
                self._stopping = True
        elif isinstance(message, Renew):
            self._renewal = message

    def _renew(self, wanted: Renew) -> None:
        """Become another release's launcher; does not return, unless that cannot be started."""
        self._renewal = None
        self._lives.let_go()
        handle = self._listener.fileno()
        os.set_inheritable(handle, True)
        words = [wanted.python, *wanted.arguments, "--listen", str(handle)]
        _log(f"event=launcher.renewed python={wanted.python!r}")
        try:
            os.execve(wanted.python, words, wanted.environment)  # noqa: S606
        except OSError as error:
            os.set_inheritable(handle, False)
            _log(f"event=launcher.not-renewed cause={error.strerror!r}")
            self._hang_up()  # The agent hears from its next connection who we still are.

    def _tell(self, message: FromLauncher) -> None:
        """Send, or keep until the agent reads; one that never reads is dropped, and asks again."""
        if self._agent is None:
            return
        self._outbox.append(encode(message))
        if len(self._outbox) > _OUTBOX_MAX:
            self._hang_up()
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
            self._hang_up()
            return
        self._poll.modify(self._agent, select.EPOLLIN)

    def _hang_up(self) -> None:
        if self._agent is not None:
            self._poll.unregister(self._agent)
            self._agent.close()
            self._agent = None
            self._outbox.clear()

    def _watch(self, fd: int) -> None:
        self._poll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        self._poll.unregister(fd)

    def _drain(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(fd, 4096):
                pass

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._lives.reaped(pid, os.waitstatus_to_exitcode(status))

    def _sweep(self) -> None:
        if self._lives.littered and not self._janitor.busy:  # Else a round under way would answer for it.
            self._lives.littered = False
            self._janitor.litter()
        if self._janitor.wait_s(time.monotonic()) != 0.0:
            return
        before = self._janitor.fileno()
        try:
            self._janitor.start()
        except OSError:
            self._dismiss_janitor()  # A new one tries again, when it is time.
            return
        if self._janitor.fileno() != before:
            try:
                self._watch(self._janitor.fileno())
            except OSError as error:
                self._janitor.failed(str(error))
                self._dismiss_janitor()

    def _swept(self) -> None:
        if not self._janitor.done():
            self._dismiss_janitor()

    def _dismiss_janitor(self) -> None:
        if self._janitor.fileno() >= 0:
            with contextlib.suppress(OSError):  # It was not watched yet.
                self._unwatch(self._janitor.fileno())
        self._janitor.close()

    def _say_goodbye(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._state}/launcher.sock")
        self._lives.close()
        self._janitor.close()
        self._hang_up()


def main(arguments: list[str] | None = None) -> int:
    """Start a launcher; with ``--listen FD`` it serves a socket that its starter has bound already."""
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
    if not hold(lock):
        return _ALREADY_THERE
    _raise_file_limit()
    prctl.set_process_name("galaxy-launcher")
    prctl.become_subreaper()
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    views = None
    if options.mode == FULL:
        views = Views(f"{state}/t")
        views.open()
    entry = _load(options.entry)
    lives = ContainerTable(
        state, mode=options.mode, cgroup_root=options.cgroup_root, views=views, entry=entry
    )
    launcher = Launcher(state, listener, lives)
    if entry.warm_up is not None:
        entry.warm_up()
    gc.collect()
    gc.freeze()  # What is here now is shared by every AppWorker: collections in them leave it alone.
    launcher.run()
    return 0


def _load(entry: str) -> InitEntry:
    """Import ``MODULE:FUNCTION``, and what is beside it of ``InitEntry``."""
    name, _, function = entry.partition(":")
    module = importlib.import_module(name)
    return InitEntry(
        run=getattr(module, function),
        warm_up=getattr(module, "warm_up", None),
        perform=getattr(module, "perform", None),
    )


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _peer(sock: socket.socket) -> tuple[int, int, int]:
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return (
        int.from_bytes(data[0:4], sys.byteorder),
        int.from_bytes(data[4:8], sys.byteorder),
        int.from_bytes(data[8:12], sys.byteorder),
    )


def _log(line: str) -> None:
    os.write(2, f"{line}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
