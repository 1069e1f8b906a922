"""Tells the process that started this one that this one is ready (the protocol of sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket


def ready(status: str = "") -> None:
    """Send READY=1 to the datagram socket that NOTIFY_SOCKET names; do nothing without one.

    ``galaxy up`` and systemd (``Type=notify``) listen. ``status`` is one line for people. A repeated
    call is harmless, and a missing listener is not an error.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "READY=1" + (f"\nSTATUS={status}" if status else "")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), address)
