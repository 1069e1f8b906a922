"""The network namespace of a container: the host's, or a private one with a loopback interface only."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

from galaxy.container.kernel import syscalls
from galaxy.model.messages.container import Demand

_PRIVATE: Final = "private"

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_IFREQ: Final = "16sh14x"  # struct ifreq: name, flags.


def is_private(demand: Demand) -> bool:
    """Return whether a container gets its own network namespace."""
    return demand.network == _PRIVATE


def clone_flags(*, private: bool) -> int:
    """Return the CLONE_NEW* flag to unshare: none for a container on the host's network."""
    return syscalls.CLONE_NEWNET if private else 0


def configure() -> None:
    """Set up the new private network namespace that the caller is in: loopback becomes usable.

    The caller must mount ``/sys`` after this: sysfs shows the interfaces of the namespace that it is
    mounted in.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack(_IFREQ, b"lo", 0))
        flags = struct.unpack(_IFREQ, answer)[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack(_IFREQ, b"lo", flags | _IFF_UP))
