"""The socket that the agent connects to: packets in both directions, with file descriptors.

AppWorker serves one agent at a time, the newest. Reports are not queued but built when there is
room to send, so that a slow agent gets the latest one and memory stays bounded. A malformed packet
is counted, logged and dropped.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
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
    PackageAnswer,
    Report,
    ToWorker,
    WorkerLog,
)
from galaxy.worker_entry.event_loop import READ, WRITE, EventLoop

QUEUE_MAX: Final = 256
"""Packets waiting for a slow agent; beyond it the connection is closed."""
ACCEPT_RETRY_S: Final = 0.5
_PACKETS: Final[msgspec.json.Decoder[ToWorker]] = msgspec.json.Decoder(ToWorker)
"""Built at import, before the fork: building it takes longer than everything else from ``run`` to exec."""
_FILES_MAX: Final = 4
_PACKETS_AT_ONCE: Final = 16
_LOST_FILES: Final = (
    f"its files were lost: AppWorker has no descriptor left, or there are more than {_FILES_MAX}"
)


class AgentChannel:
    """The server side of one container's socket."""

    def __init__(
        self,
        loop: EventLoop,
        listen_fd: int,
        *,
        on_packet: Callable[[ToWorker, list[int]], None],
        on_connected: Callable[[], None],
        on_lost: Callable[[], None],
        report: Callable[[], Report],
    ) -> None:
        """``on_packet`` closes the files of a packet; ``report`` returns the pod's current state."""
        self._loop = loop
        self._on_packet = on_packet
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._report = report
        self._report_due = False
        self._queue: deque[tuple[bytes, int]] = deque()
        self._agent: socket.socket | None = None
        self.malformed = 0
        self._listening = socket.socket(fileno=listen_fd)
        self._listening.setblocking(False)
        self._listen()

    def send(self, packet: FromWorker, fd: int = -1) -> None:
        """Queue a packet, with a file unless ``fd`` is -1; the file is closed here.

        Without an agent the packet is dropped.
        """
        if self._agent is None:
            if fd >= 0:
                os.close(fd)
            return
        self._queue.append((encode(packet), fd))
        if len(self._queue) > QUEUE_MAX:
            self._disconnect()
            return
        self._flush()

    def send_report(self) -> None:
        """Send a report as soon as there is room, with the pod's state at that time."""
        self._report_due = self._agent is not None
        self._flush()

    def log(self, code: str, message: str) -> None:
        """Write a line to the agent's log; when the agent is slow, these are dropped first."""
        if len(self._queue) < QUEUE_MAX // 2:
            text = message.encode(errors="replace").decode()
            self.send(WorkerLog(reason=Reason(code=code, message=text)))

    def _listen(self) -> None:
        self._loop.add(self._listening.fileno(), READ, lambda _events: self._accept())

    def _accept(self) -> None:
        try:
            agent, _ = self._listening.accept()
        except BlockingIOError:
            return
        except OSError:
            # Without a free descriptor the agent keeps waiting and the socket readable: pause.
            self._loop.remove(self._listening.fileno())
            self._loop.after(ACCEPT_RETRY_S, self._listen)
            return
        self._disconnect()
        agent.setblocking(False)
        self._agent = agent
        self._loop.add(agent.fileno(), READ, self._on_ready)
        self._report_due = True
        self._flush()
        self._on_connected()

    def _disconnect(self) -> None:
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
        self._on_lost()

    def _on_ready(self, events: int) -> None:
        agent = self._agent
        for _ in range(_PACKETS_AT_ONCE):
            if agent is None or agent is not self._agent or not self._read(agent):
                break
        if events & WRITE:
            self._flush()

    def _read(self, agent: socket.socket) -> bool:
        """Read one packet; return False if there was none."""
        ancillary_bytes = socket.CMSG_SPACE(_FILES_MAX * array.array("i").itemsize)
        try:
            data, ancillary, flags, _ = agent.recvmsg(
                PACKET_BYTES_MAX, ancillary_bytes, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError:
            self._disconnect()
            return False
        files = _files(ancillary)
        if not data:
            close_all(files)
            self._disconnect()
            return False
        try:
            if flags & socket.MSG_TRUNC:
                raise BadMessage(f"packet over {PACKET_BYTES_MAX} bytes")
            packet = _PACKETS.decode(data)
            if flags & socket.MSG_CTRUNC:
                self._answer_lost_files(packet)
                raise BadMessage(_LOST_FILES)
        except (BadMessage, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            close_all(files)
            self.malformed += 1
            self.log("bad-packet", f"dropped a packet, number {self.malformed}: {str(error)[:500]}")
            return True
        self._on_packet(packet, files)
        return True

    def _answer_lost_files(self, packet: ToWorker) -> None:
        """Refuse an exec, or fail a package, whose files were lost; something waits for both."""
        if isinstance(packet, Exec):
            self.send(ExecStarted(request=packet.request, error=f"cannot run it: {_LOST_FILES}"))
        elif isinstance(packet, PackageAnswer):
            self._on_packet(msgspec.structs.replace(packet, error=packet.error or _LOST_FILES), [])

    def _flush(self) -> None:
        while self._agent is not None and (self._queue or self._report_due):
            # The report goes last: it then shows the state after every queued packet.
            data, fd = self._queue[0] if self._queue else (encode(self._report()), -1)
            files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
            try:
                self._agent.sendmsg([data], files)
            except BlockingIOError:
                self._loop.change(self._agent.fileno(), READ | WRITE)
                return
            except OSError:
                self._disconnect()
                return
            if self._queue:
                self._queue.popleft()
                if fd >= 0:
                    os.close(fd)
            else:
                self._report_due = False
        if self._agent is not None:
            self._loop.change(self._agent.fileno(), READ)


def close_all(files: Iterable[int]) -> None:
    """Close file descriptors."""
    for fd in files:
        with contextlib.suppress(OSError):
            os.close(fd)


def _files(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    files = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            files.frombytes(data[: len(data) - len(data) % files.itemsize])
    return files.tolist()
