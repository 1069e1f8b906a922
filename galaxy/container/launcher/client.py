"""The agent's connection to its launcher: find the running launcher or start one, send, receive."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Final

from galaxy.container.kernel.environment import clean
from galaxy.container.launcher.protocol import PACKET_BYTES_MAX, FromLauncher, Renew, ToLauncher
from galaxy.errors import BadMessage
from galaxy.model.base import decode, encode

_EXIT_TIMEOUT_S: Final = 30.0
_LOG_BYTES_MAX: Final = 1 << 20
_SOCKET_BUFFER_BYTES: Final = 4 << 20
_BACKLOG: Final = 4
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
"""The only variables that the launcher, and so every AppWorker, inherits; none holds a credential."""


class LauncherClient:
    """One connection to the launcher of a state directory; for use from one thread."""

    def __init__(self, state: Path, *, cgroup_root: str, mode: str, entry: str) -> None:
        self._state = state
        self._arguments = (
            "-m", "galaxy.container.launcher.server", "--state", str(state),
            "--cgroup-root", cgroup_root, "--mode", mode, "--entry", entry,
        )  # fmt: skip
        self._poll = select.epoll()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: deque[bytes] = deque()

    def is_connected(self) -> bool:
        """Return whether there is a connection; ``receive`` notices its end."""
        return self._socket is not None

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to receive or to send on."""
        return self._poll.fileno()

    def connect(self) -> None:
        """Connect to the running launcher, or start one.

        Raises:
            OSError: no launcher could be started.
        """
        path = self._state / "launcher.sock"
        directory = os.open(self._state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The path of a socket is limited to 108 bytes, and the state directory's may be longer.
            short = f"/proc/self/fd/{directory}/{path.name}"
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                sock.connect(short)
            except (FileNotFoundError, ConnectionRefusedError):
                self._start_launcher(path, short)
                sock.connect(short)
        finally:
            os.close(directory)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        self._socket = sock
        self._poll.register(sock, select.EPOLLIN)

    def renewal(self) -> Renew:
        """Return the request that makes a launcher of another release execute this one."""
        return Renew(python=sys.executable, arguments=self._arguments, environment=_environment())

    def send(self, message: ToLauncher) -> None:
        """Queue a message and send as much as the socket accepts; without a connection it is dropped."""
        if self._socket is not None:
            self._outbox.append(encode(message))
            self._flush()

    def receive(self) -> list[FromLauncher]:
        """Return the messages that have arrived, without waiting; notices the end of the connection.

        A message of another release that cannot be decoded is skipped: the messages that every
        release must read change only by new fields.
        """
        self._flush()
        messages: list[FromLauncher] = []
        while self._socket is not None:
            try:
                packet = self._socket.recv(PACKET_BYTES_MAX)
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            if not packet:
                self.disconnect()
                break
            with contextlib.suppress(BadMessage):
                messages.append(decode(packet, FromLauncher))  # type: ignore[arg-type]
        return messages

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is something to receive or to send on; return False after ``timeout_s``."""
        return timeout_s > 0 and bool(self._poll.poll(timeout_s))

    def disconnect(self) -> None:
        """Close the connection; messages that were not sent are dropped."""
        if self._socket is not None:
            self._poll.unregister(self._socket)
            self._socket.close()
            self._socket = None
        self._outbox.clear()

    def await_exit(self) -> None:
        """Reap a launcher that this process has started and that is ending."""
        if self._process is not None:
            self._process.wait(timeout=_EXIT_TIMEOUT_S)
            self._process = None

    def close(self) -> None:
        """Disconnect; the launcher and its containers keep running."""
        self.disconnect()
        self._poll.close()

    def log_tail(self) -> list[str]:
        """Return the last lines of the launcher's log."""
        with contextlib.suppress(OSError):
            return (self._state / "launcher.log").read_text(errors="replace").splitlines()[-3:]
        return []

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            while self._outbox:
                self._socket.send(self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            self._poll.modify(self._socket, select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError:
            return  # ``receive`` sees the end of the connection, after the messages that were sent before.
        self._poll.modify(self._socket, select.EPOLLIN)

    def _start_launcher(self, path: Path, short: str) -> None:
        """Start a launcher on a socket that is bound here: connections queue until the launcher serves it."""
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(short)
            os.chmod(short, 0o600)  # Not by umask, which all threads share.
            listener.listen(_BACKLOG)
            log_path = self._state / "launcher.log"
            with contextlib.suppress(FileNotFoundError):
                if log_path.stat().st_size > _LOG_BYTES_MAX:
                    log_path.rename(self._state / "launcher.log.1")
            self.await_exit()  # Reap the launcher that was lost.
            with open(log_path, "ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, *self._arguments, "--listen", str(listener.fileno())],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(listener.fileno(),),
                    start_new_session=True, cwd="/",
                    env=_environment(),
                )  # fmt: skip


def _environment() -> dict[str, str]:
    return clean({name: os.environ[name] for name in _ENVIRONMENT if name in os.environ})
