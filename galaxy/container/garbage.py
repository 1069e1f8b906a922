"""Slow removal off the critical path: directories are renamed away, and a low-priority child deletes them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from typing import Final, NoReturn

from galaxy.container import kernel

_ROUND: Final = b"R"
_NICE: Final = 10


def discard(directory: str, garbage: str) -> None:
    """Move ``directory`` out of sight at once; one that is not there is fine."""
    os.makedirs(garbage, mode=0o700, exist_ok=True)
    target = f"{garbage}/{os.path.basename(directory)}.{os.urandom(4).hex()}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, target)


def has_garbage(garbage: str) -> bool:
    try:
        with os.scandir(garbage) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False


class Janitor:
    """A child that deletes what is in ``garbage`` whenever it is told to.

    It stays: to fork one for each time would have the launcher's memory copied, page by page, on the
    way of the next launch.
    """

    def __init__(self, garbage: str) -> None:
        self._garbage = garbage
        self._sock: socket.socket | None = None
        self.busy = False

    def fileno(self) -> int:
        """Return what is readable when a round is done, or the child is gone; -1 before the first."""
        return -1 if self._sock is None else self._sock.fileno()

    def start(self) -> None:
        """Begin a round; ``done`` ends it.

        Raises:
            OSError: no process could be made.
        """
        if self._sock is None:
            self._fork()
        assert self._sock is not None
        try:
            self._sock.send(_ROUND, socket.MSG_NOSIGNAL)
        except OSError:
            self.close()
            raise
        self.busy = True

    def done(self) -> bool:
        """Take in that a round is done; return False if the child is gone instead."""
        self.busy = False
        try:
            return self._sock is not None and bool(self._sock.recv(1))
        except OSError:
            return False

    def close(self) -> None:
        """Let the child go; it ends with its round."""
        self.busy = False
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _fork(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            if os.fork() == 0:
                _clean(self._garbage, theirs)
        self._sock = ours


def _clean(garbage: str, sock: socket.socket) -> NoReturn:
    """Be the janitor, until nobody is at the other end."""
    try:
        signal.set_wakeup_fd(-1)
        kernel.set_process_name("galaxy-janitor")
        kernel.close_all_but((0, 1, 2, sock.fileno()))
        os.nice(_NICE)
        while sock.recv(1):
            delete_within(garbage)
            sock.send(_ROUND, socket.MSG_NOSIGNAL)
    finally:
        os._exit(0)


def delete_within(directory: str) -> None:
    """Delete what is in ``directory``, never following a link; what resists stays for the next time."""
    try:
        with os.scandir(directory) as entries:
            children = list(entries)
    except OSError:
        return
    for entry in children:
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                delete_within(entry.path)
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)
