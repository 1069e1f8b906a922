"""Tell whoever started this process that it is ready (sd_notify(3)'s protocol)."""

from __future__ import annotations

import contextlib
import os
import socket


def ready(status: str = "") -> None:
    """Say READY=1 to the datagram socket that NOTIFY_SOCKET names; nothing without one.

    ``galaxy up`` and systemd (``Type=notify``) listen. ``status`` is one line for people.
    Saying it again is harmless; nobody listening any more is no error.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "READY=1" + (f"\nSTATUS={status}" if status else "")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), address)
