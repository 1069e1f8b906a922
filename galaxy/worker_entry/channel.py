"""The socket that the agent connects to: packets in, packets out, descriptors beside them.

One agent at a time, the newest wins. Reports are not queued but made when there is room to
send, so that a slow agent gets the latest and memory stays bounded. A packet that makes no
sense is counted, logged and dropped.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from galaxy.errors import BadMessage
from galaxy.model.base import encode
from galaxy.model.messages.container import Reason
from galaxy.model.messages.worker import (
    PACKET_BYTES_MAX,
    Exec,
    ExecStarted,
    FromWorker,
    Report,
    ToWorker,
    WorkerLog,
)
from galaxy.worker_entry.event_loop import READ, WRITE, Loop

QUEUE_MAX: Final = 256
"""Packets waiting for a slow agent; beyond it the connection is given up, the next one starts afresh."""
_PACKETS: Final[msgspec.json.Decoder[ToWorker]] = msgspec.json.Decoder(ToWorker)
"""Made before the fork: making it takes longer than all else from ``run`` to exec together."""
_FILES_MAX: Final = 4
_PACKETS_AT_ONCE: Final = 16
_LOST_FILES: Final = f"its files were lost: AppWorker has no descriptor left, or they are over {_FILES_MAX}"


class AgentChannel:
    """The server side of one container's socket."""

    def __init__(
        self,
        loop: Loop,
        listen_fd: int,
        *,
        received: Callable[[ToWorker, list[int]], None],
        connected: Callable[[], None],
        lost: Callable[[], None],
        report: Callable[[], Report],
    ) -> None:
        self._loop = loop
        self._received = received
        self._connected = connected
        self._lost = lost
        self._report = report
        self._report_due = False
        self._queue: deque[tuple[bytes, int]] = deque()
        self._agent: socket.socket | None = None
        self.malformed = 0
        self._listening = socket.socket(fileno=listen_fd)
        self._listening.setblocking(False)
        loop.add(listen_fd, READ, lambda _events: self._accept())

    def send(self, packet: FromWorker, fd: int = -1) -> None:
        """Queue a packet; ``fd`` rides along and is closed here. Without an agent it is dropped."""
        if self._agent is None:
            if fd >= 0:
                os.close(fd)
            return
        self._queue.append((encode(packet), fd))
        if len(self._queue) > QUEUE_MAX:
            self._drop()
            return
        self._flush()

    def send_report(self) -> None:
        """See to it that the agent gets the pod's state as it is when there is room to send."""
        self._report_due = self._agent is not None
        self._flush()

    def log(self, code: str, message: str) -> None:
        """Tell the agent's log; dropped first when the agent is slow."""
        if len(self._queue) < QUEUE_MAX // 2:
            self.send(WorkerLog(reason=Reason(code=code, message=message)))

    def _accept(self) -> None:
        try:
            agent, _ = self._listening.accept()
        except OSError:
            return
        self._drop()
        agent.setblocking(False)
        self._agent = agent
        self._loop.add(agent.fileno(), READ, self._ready)
        self._report_due = True
        self._flush()
        self._connected()

    def _drop(self) -> None:
        if self._agent is None:
            return
        self._loop.remove(self._agent.fileno())
        self._agent.close()
        self._agent = None
        self._report_due = False
        while self._queue:
            fd = self._queue.popleft()[1]
            if fd >= 0:
                os.close(fd)
        self._lost()

    def _ready(self, events: int) -> None:
        agent = self._agent
        for _ in range(_PACKETS_AT_ONCE):
            if agent is None or agent is not self._agent or not self._read(agent):
                break
        if events & WRITE:
            self._flush()

    def _read(self, agent: socket.socket) -> bool:
        room = socket.CMSG_SPACE(_FILES_MAX * array.array("i").itemsize)
        try:
            data, ancillary, flags, _ = agent.recvmsg(PACKET_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError:
            self._drop()
            return False
        files = _files(ancillary)
        if not data:
            _close(files)
            self._drop()
            return False
        try:
            if flags & socket.MSG_TRUNC:
                raise BadMessage(f"packet over {PACKET_BYTES_MAX} bytes")
            packet = _PACKETS.decode(data)
            if flags & socket.MSG_CTRUNC:
                self._answer_lost_files(packet)
                raise BadMessage(_LOST_FILES)
        except (BadMessage, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _close(files)
            self.malformed += 1
            self.log("bad-packet", f"dropped a packet, number {self.malformed}: {str(error)[:500]}")
            return True
        self._received(packet, files)
        return True

    def _answer_lost_files(self, packet: ToWorker) -> None:
        """Tell whoever asked for a command that it cannot be: he would wait for ever."""
        if isinstance(packet, Exec):
            self.send(ExecStarted(request=packet.request, error=f"cannot run it: {_LOST_FILES}"))

    def _flush(self) -> None:
        while self._agent is not None and (self._queue or self._report_due):
            # Reports go last: they show the state after everything that was said before.
            data, fd = self._queue[0] if self._queue else (encode(self._report()), -1)
            files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
            try:
                self._agent.sendmsg([data], files)
            except BlockingIOError:
                self._loop.change(self._agent.fileno(), READ | WRITE)
                return
            except OSError:
                self._drop()
                return
            if self._queue:
                self._queue.popleft()
                if fd >= 0:
                    os.close(fd)
            else:
                self._report_due = False
        if self._agent is not None:
            self._loop.change(self._agent.fileno(), READ)


def _files(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    files = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            files.frombytes(data[: len(data) - len(data) % files.itemsize])
    return files.tolist()


def _close(files: list[int]) -> None:
    for fd in files:
        with contextlib.suppress(OSError):
            os.close(fd)
