"""Health checks by tcp and http: a non-blocking connection to a port of the task.

The address is 127.0.0.1, so a program has to listen there or on every address.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from galaxy.model.jobspec.spec import HealthSpec
from galaxy.worker_entry.event_loop import READ, WRITE, EventLoop

ADDRESS: Final = "127.0.0.1"
_HEAD_BYTES_MAX: Final = 4096


class NetworkProbe:
    """One health check. ``answer(ok, detail)`` is called once, within the check's timeout."""

    def __init__(
        self, loop: EventLoop, check: HealthSpec, port: int, answer: Callable[[bool, str], None]
    ) -> None:
        """Connect.

        Raises:
            OSError: there is no free descriptor.
        """
        self._loop = loop
        self._check = check
        self._port = port
        self._answer: Callable[[bool, str], None] | None = answer
        self._head = b""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._timer = loop.after(
            check.timeout, lambda: self._done(False, f"no answer in {check.timeout:g} s")
        )
        self._socket.setblocking(False)
        code = self._socket.connect_ex((ADDRESS, port))
        if code in (0, errno.EINPROGRESS):
            loop.add(self._socket.fileno(), WRITE, self._on_connected)
        else:
            self._done(False, f"port {port}: {os.strerror(code)}")

    def cancel(self) -> None:
        """Abandon the check; ``answer`` is not called any more."""
        self._answer = None
        self._done(False, "")

    def _on_connected(self, _events: int) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._done(False, f"port {self._port}: {os.strerror(code)}")
        elif self._check.type == "tcp":
            self._done(True, "")
        else:
            try:
                self._socket.send(_request(self._check.path, self._port))
            except OSError as error:
                self._done(False, f"port {self._port}: {error}")
                return
            self._loop.remove(self._socket.fileno())
            self._loop.add(self._socket.fileno(), READ, self._on_readable)

    def _on_readable(self, _events: int) -> None:
        try:
            data = self._socket.recv(_HEAD_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._done(False, f"port {self._port}: {error}")
            return
        self._head += data
        if b"\n" in self._head or not data or len(self._head) >= _HEAD_BYTES_MAX:
            self._done(*_verdict(self._head))

    def _done(self, ok: bool, detail: str) -> None:
        self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(ok, detail)


def _request(path: str, port: int) -> bytes:
    """Return an HTTP request; characters that are not valid in a request line are percent-encoded."""
    safe = "".join(
        char if "!" <= char <= "~" else "".join(f"%{byte:02X}" for byte in char.encode()) for char in path
    )
    slash = "" if safe.startswith("/") else "/"
    return (
        f"GET {slash}{safe} HTTP/1.1\r\nHost: {ADDRESS}:{port}\r\n"
        "User-Agent: galaxy-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    ).encode()


def _verdict(head: bytes) -> tuple[bool, str]:
    fields = head.split(b"\r\n", 1)[0].split(None, 2)
    if len(fields) < 2 or not fields[0].startswith(b"HTTP/") or not fields[1].isdigit():
        return False, "the answer is not HTTP"
    status = int(fields[1])
    return 200 <= status < 400, f"HTTP status {status}"
