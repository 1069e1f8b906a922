"""Ports of this host: ranges that one agent of ``galaxy up`` claims, and single free ports."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from galaxy.errors import HostError

PORTS_LOW: Final = 20000
PORTS_EACH: Final = 500
RANGES_MAX: Final = 24
"""Dynamic ports are 20000-31999, below Linux' ephemeral range, 500 for each agent."""


class PortClaim:
    """A range of ports, ``low`` to ``high`` inclusive, that no other agent of ``galaxy up`` here uses.

    The claim is a bound abstract Unix socket. Its name belongs to the same network namespace
    as the ports, and the kernel releases it when the process ends.
    """

    def __init__(self, low: int) -> None:
        self.low = low
        self.high = low + PORTS_EACH - 1
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(f"\0galaxy-ports-{low}")
        except OSError:
            self._socket.close()
            raise

    def release(self) -> None:
        """Give the range back."""
        self._socket.close()


def claim_ports(preferred: int) -> PortClaim:
    """Claim a free range: the one that begins at ``preferred`` if possible, else the next free one.

    A ``preferred`` that begins no range selects the first candidate by its remainder.

    Raises:
        HostError: every range is claimed.
    """
    lows = [PORTS_LOW + i * PORTS_EACH for i in range(RANGES_MAX)]
    start = lows.index(preferred) if preferred in lows else preferred % RANGES_MAX
    for low in lows[start:] + lows[:start]:
        with contextlib.suppress(OSError):
            return PortClaim(low)
    raise HostError(
        f"all {RANGES_MAX} port ranges of this host are taken by other clusters",
        hint="galaxy down --dir one of them",
    )


def free_port(first: int, count: int = 100, address: str = "127.0.0.1") -> int:
    """Return the first port, starting at ``first``, on which nothing listens.

    Raises:
        HostError: none of ``count`` ports is free.
    """
    for port in range(first, first + count):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            return port
    raise HostError(f"no free port from {first} to {first + count - 1} on {address}")
