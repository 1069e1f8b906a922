"""Ports of this host: what its sockets use, and what its agents have reserved."""

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


def sockets_seen(proc: Path = Path("/proc/self/net")) -> tuple[frozenset[int], frozenset[int]]:
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


class Reservations:
    """Ports held against the other agents of this host: byte N of one file is locked for port N.

    The locks are the kernel's (fcntl(2), open file description locks): they end with the
    process, and one descriptor holds any number.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """Open the file that all agents share.

        Raises:
            OSError: no directory for it can be written.
        """
        self._held: set[int] = set()
        self._fd = _open_shared(directory)

    def take(self, ports: Iterable[int]) -> tuple[int, ...]:
        """Reserve ports; return those that another agent has, in which case none is taken anew."""
        fresh = [port for port in ports if port not in self._held]
        taken: list[int] = []
        for port in fresh:
            try:
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, port, 1, 0))
                self._held.add(port)
            except OSError:
                taken.append(port)
        if taken:
            self.give(port for port in fresh if port not in taken)
        return tuple(taken)

    def give(self, ports: Iterable[int]) -> None:
        for port in ports:
            if port in self._held:
                self._held.discard(port)
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, 0, port, 1, 0))

    def keep_only(self, ports: frozenset[int]) -> None:
        """Give back everything but ``ports``."""
        self.give(self._held - ports)

    def others(self) -> frozenset[int]:
        """Return the ports that other agents have."""
        return frozenset(self._locked(0, 65536))

    def _locked(self, low: int, high: int) -> set[int]:
        """Ask for a lock in ``low`` to ``high``, and then on both sides of it: it may be any one."""
        found: set[int] = set()
        open_ranges = [(low, high)]
        while open_ranges:
            low, high = open_ranges.pop()
            ask = _FLOCK.pack(fcntl.F_WRLCK, 0, low, high - low, 0)
            kind, _, first, length, _ = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, ask))
            if kind == fcntl.F_UNLCK:
                continue
            end = first + length if length else high
            found.update(range(max(first, low), min(end, high)))
            if first > low:
                open_ranges.append((low, first))
            if end < high:
                open_ranges.append((end, high))
        return found

    def close(self) -> None:
        os.close(self._fd)
        self._held.clear()


def _open_shared(directory: Path | None) -> int:
    """Open the shared file, making it writable for the agents of every user."""
    places = (directory,) if directory else (Path("/run/lock"), Path(tempfile.gettempdir()))
    for place in places:
        path = place / "galaxy.ports"
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            os.fchmod(fd, 0o666)
            return fd
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    own = places[-1] / f"galaxy-{os.geteuid()}.ports"
    return os.open(own, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
