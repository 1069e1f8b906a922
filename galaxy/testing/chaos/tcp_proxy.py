"""A TCP proxy in front of Redis that can be cut like a network: bytes stop, connections stay open."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Final, Literal

Direction = Literal["both", "out"]
CHUNK_BYTES: Final = 64 * 1024
BUFFER_BYTES_MAX: Final = 4 * 1024 * 1024
"""Limit on the bytes held back in one direction. Beyond it the TCP window stops the sender."""


class _Pipe:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, target: socket.socket, outward: bool) -> None:
        self.source = source
        self.target = target
        self.outward = outward
        self.buffer = bytearray()
        self.ended = False


class TcpProxy:
    """Relays connections from its port (``port``) to ``target`` (host, port), in one thread.

    While it is cut, bytes are buffered and arrive after ``restore``, like packets that are sent
    again. New connections are accepted and stay silent. Direction ``out`` cuts only what is sent to
    the target.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._cut: Direction | None = None
        self._next_cut: Direction = "both"
        self._cut_at = b""
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._pipes: dict[socket.socket, _Pipe] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="chaos-proxy", daemon=True)
        self._thread.start()

    def cut(self, direction: Direction = "both", *, at: bytes = b"") -> None:
        """Hold back what is sent from now on, or from the first outward message that contains ``at``."""
        self._next_cut, self._cut_at = direction, at
        if not at:
            self._cut = direction
        self._waker.send(b"!")

    def restore(self) -> None:
        """Deliver what was held back, and relay everything from now on."""
        self._cut, self._cut_at = None, b""
        self._waker.send(b"!")

    def close(self) -> None:
        """Close all connections and stop the thread."""
        self._closing = True
        self._waker.send(b"!")
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(64)
                elif (pipe := self._pipes.get(key.fileobj)) is not None:  # type: ignore[call-overload]
                    self._read(pipe)
            for pipe in list(self._pipes.values()):
                self._write(pipe)
        for one in [*self._pipes, self._listener, self._waker, self._woken]:
            one.close()
        self._selector.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            near, _ = self._listener.accept()
            try:
                far = socket.create_connection(self._target, timeout=1.0)
            except OSError:
                near.close()
                return
            for source, target, outward in ((near, far, True), (far, near, False)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                source.settimeout(5.0)
                self._pipes[source] = _Pipe(source, target, outward)
                self._selector.register(source, selectors.EVENT_READ)

    def _is_cut(self, pipe: _Pipe) -> bool:
        return self._cut == "both" or (self._cut == "out" and pipe.outward)

    def _read(self, pipe: _Pipe) -> None:
        try:
            data = pipe.source.recv(CHUNK_BYTES)
        except OSError:
            data = b""
        pipe.buffer += data
        if pipe.outward and self._cut_at and self._cut_at in data:
            self._cut, self._cut_at = self._next_cut, b""
        pipe.ended = not data
        if pipe.ended or len(pipe.buffer) > BUFFER_BYTES_MAX:
            self._selector.unregister(pipe.source)

    def _write(self, pipe: _Pipe) -> None:
        if self._is_cut(pipe):
            return
        full = len(pipe.buffer) > BUFFER_BYTES_MAX
        try:
            if pipe.buffer:
                pipe.target.sendall(pipe.buffer)
                pipe.buffer.clear()
        except OSError:
            pipe.ended = True
        if pipe.ended:
            self._drop(pipe)
        elif full:
            self._selector.register(pipe.source, selectors.EVENT_READ)

    def _drop(self, pipe: _Pipe) -> None:
        """Close both directions: one end has closed, and everything that it sent has been delivered."""
        for one in (pipe.source, pipe.target):
            if self._pipes.pop(one, None) is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(one)
                one.close()
