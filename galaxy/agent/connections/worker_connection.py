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
"""Packets waiting for a slow AppWorker; beyond it the connection is closed and opened again."""
FILES_MAX: Final = 4
PATH_BYTES_MAX: Final = 107
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(FILES_MAX * array.array("i").itemsize)


class WorkerConnectionBroken(Exception):
    """The connection can no longer be used; the text says why."""


class PacketTooLong(Exception):
    """The packet is longer than the other side reads; the text gives the numbers."""


class WorkerConnection:
    """A connected socket. Not thread-safe. Connections of one thread may share ``buffer``."""

    def __init__(self, path: Path, buffer: bytearray) -> None:
        """Connect without waiting.

        Raises:
            OSError: no AppWorker listens there (yet), or its backlog is full.
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
        """Whether packets wait until the socket accepts more."""
        return bool(self._queue)

    def send(self, packet: ToWorker, files: tuple[int, ...] = ()) -> None:
        """Send or queue a packet. ``files`` are closed here.

        Raises:
            WorkerConnectionBroken: the other side is gone, or too slow.
            PacketTooLong: nothing was sent.
        """
        data = encode(packet)
        if len(data) > PACKET_BYTES_MAX:
            # Jobs and commands that need such a packet are refused when they come; this covers others.
            _LOG.error("event=packet.too-long kind=%s bytes=%d", type(packet).__name__, len(data))
            close_all(files)
            raise PacketTooLong(f"its packet has {len(data):,} bytes; {PACKET_BYTES_MAX:,} are allowed")
        self._queue.append((data, files))
        if len(self._queue) > QUEUE_MAX:
            raise WorkerConnectionBroken(f"{len(self._queue)} packets wait for it")
        self.flush()

    def flush(self) -> None:
        """Send queued packets as far as the socket accepts them.

        Raises:
            WorkerConnectionBroken: the other side is gone.
        """
        while self._queue:
            data, files = self._queue[0]
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
            try:
                self._socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError as error:
                raise WorkerConnectionBroken(error.strerror or str(error)) from error
            self._queue.popleft()
            close_all(files)

    def receive(self) -> tuple[FromWorker, list[int]] | None:
        """Return the next packet and its files, which the caller closes; None if there is none now.

        A malformed packet is counted and skipped.

        Raises:
            WorkerConnectionBroken: the other side closed, or sent too many malformed packets.
        """
        while True:
            try:
                size, ancillary, flags, _ = self._socket.recvmsg_into(
                    [self._buffer], _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            except OSError as error:
                raise WorkerConnectionBroken(error.strerror or str(error)) from error
            files = _files(ancillary)
            if size == 0:
                close_all(files)
                raise WorkerConnectionBroken("it closed the connection")
            try:
                if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                    raise BadMessage("packet too long, or with too many files")
                packet: FromWorker = decode(bytes(self._buffer[:size]), FromWorker)  # type: ignore[arg-type]
            except BadMessage as error:
                close_all(files)
                self.malformed += 1
                if self.malformed > QUEUE_MAX:
                    raise WorkerConnectionBroken(
                        f"it sent {self.malformed} malformed packets: {error.message}"
                    ) from error
                continue
            return packet, files

    def close(self) -> None:
        while self._queue:
            close_all(self._queue.popleft()[1])
        self._socket.close()


def close_all(files: Iterable[int]) -> None:
    """Close file descriptors."""
    for fd in files:
        with contextlib.suppress(OSError):
            os.close(fd)


def _connect(own: socket.socket, path: Path) -> None:
    """Connect; a path too long for sockaddr_un is reached through a descriptor of its directory."""
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
