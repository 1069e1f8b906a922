"""Facts about processes, and small files that keep facts: who lives, since when, how it ended."""

from __future__ import annotations

import contextlib
import os
from typing import Final, TypeVar

from galaxy.errors import BadMessage
from galaxy.model.base import Struct, decode, encode

T = TypeVar("T", bound=Struct)

_STAT_MAX: Final = 4096
_FILE_MAX: Final = 1 << 20


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when it is gone or a zombie."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in ("Z", "X") else 0


def parent(pid: int) -> int:
    """Return a process' parent; 0 when it is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def boot_id() -> str:
    """Return the id of this boot of the kernel."""
    return _read("/proc/sys/kernel/random/boot_id").strip()


def descendants(pid: int) -> list[int]:
    """Return the living processes below ``pid``, by walking the process table."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            fields = _stat(int(name))
            if fields and fields[0] not in ("Z", "X"):
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    wave = [pid]
    while wave:
        wave = [child for parent in wave for child in children.get(parent, ())]
        found += wave
    return found


def with_environment(prefix: str) -> list[int]:
    """Return the living processes that we may look at and that have an environment entry with this prefix."""
    wanted = prefix.encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                entries = _read(f"/proc/{name}/environ").encode().split(b"\0")
            except OSError:
                continue
            if any(entry.startswith(wanted) for entry in entries) and start_ticks(int(name)):
                found.append(int(name))
    return found


def keep(path: str, noun: Struct) -> None:
    """Write ``noun`` whole or not at all; it outlives processes, not a crash of the machine.

    Raises:
        OSError: the disk is full or failing; what was there before still is.
    """
    draft = f"{path}.new"
    fd = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(encode(noun))
        while left:  # A full disk takes a part first, without a complaint.
            left = left[os.write(fd, left) :]
        os.rename(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    finally:
        os.close(fd)


def recall(path: str, kind: type[T]) -> T | None:
    """Read what ``keep`` wrote; None when it is not there or is not a ``kind``."""
    try:
        return decode(_read(path), kind)
    except (OSError, BadMessage):
        return None


def _stat(pid: int) -> list[str]:
    try:
        text = _read(f"/proc/{pid}/stat", _STAT_MAX)
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # The name may hold anything, brackets too.


def _read(path: str, limit: int = _FILE_MAX) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit).decode(errors="replace")
    finally:
        os.close(fd)
