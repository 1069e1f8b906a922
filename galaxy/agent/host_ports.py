"""Ports of this host: those that its sockets use, and those that its agents have reserved."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

_ROW = re.compile(rb"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) \S+ ([0-9A-F]{2})", re.MULTILINE)
_LISTEN = b"0A"
_FLOCK = struct.Struct("hhqqi4x")
"""``struct flock`` of 64-bit Linux: type, whence, start, length, pid."""


def scan_sockets(proc: Path = Path("/proc/self/net")) -> tuple[frozenset[int], frozenset[int]]:
    """Return the ports that TCP listens on or UDP is bound to, and every port in any use.

    Source: proc(5), /proc/net/tcp; state 0A is LISTEN.
    """
    listening: set[int] = set()
    used: set[int] = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        try:
            text = (proc / name).read_bytes()
        except OSError:
            continue
        for port, state in _ROW.findall(text):
            used.add(int(port, 16))
            if state == _LISTEN or name.startswith("udp"):
                listening.add(int(port, 16))
    return frozenset(listening), frozenset(used)


class PortReservations:
    """Ports reserved against the other agents of this host: byte N of a shared file is locked for port N.

    The locks are open file description locks (fcntl(2)): the kernel drops them when the process
    ends, and one descriptor holds any number of them.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """Open the file that all agents share.

        Raises:
            OSError: no directory for it can be written.
        """
        self._reserved: set[int] = set()
        self._fd = _open_shared(directory)

    def reserve(self, ports: Iterable[int]) -> tuple[int, ...]:
        """Reserve all of ``ports``, or none of them and return those that another agent has."""
        new = [port for port in ports if port not in self._reserved]
        unavailable: list[int] = []
        for port in new:
            try:
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, port, 1, 0))
                self._reserved.add(port)
            except OSError:
                unavailable.append(port)
        if unavailable:
            self.release(port for port in new if port not in unavailable)
        return tuple(unavailable)

    def release(self, ports: Iterable[int]) -> None:
        for port in ports:
            if port in self._reserved:
                self._reserved.discard(port)
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, 0, port, 1, 0))

    def keep_only(self, ports: frozenset[int]) -> None:
        """Release everything but ``ports``."""
        self.release(self._reserved - ports)

    def of_others(self) -> frozenset[int]:
        """Return the ports that other agents have reserved."""
        return frozenset(self._locked(0, 65536))

    def close(self) -> None:
        os.close(self._fd)
        self._reserved.clear()

    def _locked(self, low: int, high: int) -> set[int]:
        """Return the bytes from ``low`` to before ``high`` that others lock.

        F_OFD_GETLK returns any one conflicting lock of a range, so the ranges on both sides of it
        are queried next.
        """
        found: set[int] = set()
        open_ranges = [(low, high)]
        while open_ranges:
            low, high = open_ranges.pop()
            query = _FLOCK.pack(fcntl.F_WRLCK, 0, low, high - low, 0)
            kind, _, first, length, _ = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, query))
            if kind == fcntl.F_UNLCK:
                continue
            end = first + length if length else high
            found.update(range(max(first, low), min(end, high)))
            if first > low:
                open_ranges.append((low, first))
            if end < high:
                open_ranges.append((end, high))
        return found


def _open_shared(directory: Path | None) -> int:
    """Open the shared file; create it writable for the agents of every user."""
    directories = (directory,) if directory else (Path("/run/lock"), Path(tempfile.gettempdir()))
    for parent in directories:
        path = parent / "galaxy.ports"
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            os.fchmod(fd, 0o666)
            return fd
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    own = directories[-1] / f"galaxy-{os.geteuid()}.ports"
    return os.open(own, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
