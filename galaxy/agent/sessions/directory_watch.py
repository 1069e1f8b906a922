"""Waiting for changes in a directory by inotify(7)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
from pathlib import Path
from typing import Final

_IN_MODIFY: Final = 0x2
_IN_MOVED_TO: Final = 0x80
_IN_CREATE: Final = 0x100
_IN_DELETE_SELF: Final = 0x400
_IN_NONBLOCK: Final = os.O_NONBLOCK
_IN_CLOEXEC: Final = os.O_CLOEXEC


class DirectoryWatch:
    """Wakes when a file in a directory is written, created or renamed."""

    def __init__(self, directory: Path) -> None:
        """Begin to watch.

        Raises:
            OSError: the host's inotify instances or watches are used up, or there is no such directory.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        mask = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO | _IN_DELETE_SELF
        if libc.inotify_add_watch(self._fd, os.fsencode(directory), ctypes.c_uint32(mask)) < 0:
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, f"inotify_add_watch {directory}: {os.strerror(number)}")

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as something changed since the last call, False after ``timeout_s``."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(int(timeout_s * 1000)):
            return False
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._fd, 4096)) >= 4096 - struct.calcsize("iIII") - 256:
                continue
        return True

    def close(self) -> None:
        os.close(self._fd)
