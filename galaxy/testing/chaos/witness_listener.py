"""Listens to the witnesses, all the time, in a thread of its own."""

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
    """The ledger and who writes it. Take ``lock`` to read or to allow."""

    def __init__(self) -> None:
        self.address = f"galaxy-chaos-{secrets.token_hex(6)}"
        self.ledger = WitnessLog()
        self.lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + self.address)
        self._over = False
        self._thread = threading.Thread(target=self._listen, name="chaos-watch", daemon=True)
        self._thread.start()

    def wrong(self) -> list[str]:
        """Return what must never have happened and did."""
        with self.lock:
            return list(self.ledger.wrong)

    def allow(self, job: str) -> None:
        """Expect that programs of ``job`` begin anew once more."""
        with self.lock:
            self.ledger.allow(job)

    def close(self) -> None:
        self._over = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", "\0" + self.address)
        self._thread.join(5.0)
        self._socket.close()

    def _listen(self) -> None:
        while not self._over:
            data, ancillary, _, _ = self._socket.recvmsg(
                MESSAGE_BYTES_MAX, socket.CMSG_SPACE(_CREDENTIALS.size)
            )
            pid = next(
                (_CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0] for _, _, content in ancillary), 0
            )
            said = parse(data, pid)
            if said is not None:
                with self.lock:
                    self.ledger.hear(said, time.monotonic())
