"""One connection to one AppWorker: packets and open files over its Unix socket."""

from __future__ import annotations

import array
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from galaxy.errors import BadMessage
from galaxy.model.base import decode, encode
from galaxy.model.messages.worker import PACKET_BYTES_MAX, FromWorker, ToWorker

_LOG: Final = logging.getLogger(__name__)
QUEUE_MAX: Final = 256
"""Packets waiting for a slow AppWorker; beyond it the connection starts afresh."""
FILES_MAX: Final = 4
PATH_BYTES_MAX: Final = 107
_ROOM: Final = socket.CMSG_SPACE(FILES_MAX * array.array("i").itemsize)


class WorkerConnectionBroken(Exception):
    """The connection is of no use any more; the text says why."""


class WorkerConnection:
    """A connected socket. Not for threads. ``buffer`` may be shared by all links of a thread."""

    def __init__(self, path: Path, buffer: bytearray) -> None:
        """Connect, without waiting.

        Raises:
            OSError: nobody listens there (yet), or too many wait before us.
        """
        self._buffer = buffer
        self._queue: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._socket.setblocking(False)
            _connect(self._socket, path)
        except BaseException:
            self._socket.close()
            raise
        self.malformed = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def blocked(self) -> bool:
        """Whether packets wait until the socket takes more."""
        return bool(self._queue)

    def send(self, packet: ToWorker, files: tuple[int, ...] = ()) -> None:
        """Send or queue; ``files`` are ours to close from now on.

        Raises:
            LinkBroken: the other side is gone, or so slow that it had better start afresh.
        """
        data = encode(packet)
        if len(data) > PACKET_BYTES_MAX:
            # Refused when the job was submitted; here for a submitter that did not ask.
            _LOG.error("event=packet.too-long kind=%s bytes=%d", type(packet).__name__, len(data))
            _close(files)
            return
        self._queue.append((data, files))
        if len(self._queue) > QUEUE_MAX:
            raise WorkerConnectionBroken(f"{len(self._queue)} packets wait for it")
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it.

        Raises:
            LinkBroken: the other side is gone.
        """
        while self._queue:
            data, files = self._queue[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
            try:
                self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError as error:
                raise WorkerConnectionBroken(error.strerror or str(error)) from error
            self._queue.popleft()
            _close(files)

    def receive(self) -> tuple[FromWorker, list[int]] | None:
        """Return the next packet and its files, the caller's to close; None: there is none now.

        A packet that makes no sense is counted and passed over.

        Raises:
            LinkBroken: the other side closed, or sends nothing that makes sense.
        """
        while True:
            try:
                size, ancillary, flags, _ = self._socket.recvmsg_into(
                    [self._buffer], _ROOM, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            except OSError as error:
                raise WorkerConnectionBroken(error.strerror or str(error)) from error
            files = _files(ancillary)
            if size == 0:
                _close(files)
                raise WorkerConnectionBroken("it closed the connection")
            try:
                if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                    raise BadMessage("packet too long, or with too many files")
                packet: FromWorker = decode(bytes(self._buffer[:size]), FromWorker)  # type: ignore[arg-type]
            except BadMessage as error:
                _close(files)
                self.malformed += 1
                if self.malformed > QUEUE_MAX:
                    raise WorkerConnectionBroken(
                        f"{self.malformed} packets made no sense: {error.message}"
                    ) from error
                continue
            return packet, files

    def close(self) -> None:
        while self._queue:
            _close(self._queue.popleft()[1])
        self._socket.close()


def _connect(own: socket.socket, path: Path) -> None:
    """Connect; a path too long for the kernel goes by way of its directory's descriptor."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        own.connect(str(path))
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        own.connect(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


def _files(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    files = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            files.frombytes(data[: len(data) - len(data) % files.itemsize])
    return files.tolist()


def _close(files: Iterable[int]) -> None:
    for fd in files:
        with contextlib.suppress(OSError):
            os.close(fd)
