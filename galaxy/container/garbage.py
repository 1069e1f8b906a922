"""Slow removal off the critical path: directories are renamed away, and a low-priority child deletes them."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final

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


def start_deleting(garbage: str) -> int:
    """Fork a child that deletes everything in ``garbage`` and exits; return its pid to be waited for."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.nice(_NICE)
            delete_within(garbage)
            code = 0
        finally:
            os._exit(code)
    return pid


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
