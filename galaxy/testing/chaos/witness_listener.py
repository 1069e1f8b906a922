"""The thread that receives the witnesses' messages."""

from __future__ import annotations

import secrets
import socket
import struct
import threading
import time
from typing import Final

from galaxy.testing.chaos.witness_log import WitnessLog, parse

MESSAGE_BYTES_MAX: Final = 1024
_CREDENTIALS: Final = struct.Struct("iII")


class WitnessListener:
    """Receives messages at ``address`` (an abstract Unix socket) and records them in ``log``.

    A thread writes ``log``. Hold ``lock`` to read it or to change it.
    """

    def __init__(self) -> None:
        self.address = f"galaxy-chaos-{secrets.token_hex(6)}"
        self.log = WitnessLog()
        self.lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + self.address)
        self._closing = False
        self._thread = threading.Thread(target=self._listen, name="chaos-listener", daemon=True)
        self._thread.start()

    def violations(self) -> list[str]:
        """Return a copy of the log's violations."""
        with self.lock:
            return list(self.log.violations)

    def allow_restart(self, job: str) -> None:
        """Expect one more restart of the programs of ``job``."""
        with self.lock:
            self.log.allow_restart(job)

    def close(self) -> None:
        """Stop the thread and close the socket."""
        self._closing = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", "\0" + self.address)
        self._thread.join(5.0)
        self._socket.close()

    def _listen(self) -> None:
        while not self._closing:
            data, ancillary, _, _ = self._socket.recvmsg(
                MESSAGE_BYTES_MAX, socket.CMSG_SPACE(_CREDENTIALS.size)
            )
            pid = next(
                (_CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0] for _, _, content in ancillary), 0
            )
            message = parse(data, pid)
            if message is not None:
                with self.lock:
                    self.log.record(message, time.monotonic())
