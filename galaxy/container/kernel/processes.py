"""Facts about processes from /proc: whether one runs, since when, its parent and descendants."""

from __future__ import annotations

import os
from typing import Final

_STAT_BYTES_MAX: Final = 4096
_FILE_BYTES_MAX: Final = 1 << 20

# Indexes after the command name in /proc/PID/stat; proc_pid_stat(5) counts from 1, the name being 2.
_STATE: Final = 0
_PARENT: Final = 1
_START_TICKS: Final = 19
_DEAD: Final = ("Z", "X")


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when it is gone or a zombie.

    A pid together with its start time identifies a process; a pid alone is reused.
    """
    fields = _stat(pid)
    return int(fields[_START_TICKS]) if fields and fields[_STATE] not in _DEAD else 0


def parent(pid: int) -> int:
    """Return the pid of a process' parent; 0 when the process is gone."""
    fields = _stat(pid)
    return int(fields[_PARENT]) if fields else 0


def boot_id() -> str:
    """Return the id of this boot of the kernel."""
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()


def descendants(pid: int) -> list[int]:
    """Return the running processes below ``pid``, from one walk over /proc."""
    children: dict[int, list[int]] = {}
    for other in _pids():
        fields = _stat(other)
        if fields and fields[_STATE] not in _DEAD:
            children.setdefault(int(fields[_PARENT]), []).append(other)
    found: list[int] = []
    generation = [pid]
    while generation:
        generation = [child for each in generation for child in children.get(each, ())]
        found += generation
    return found


def with_environment(prefix: str) -> list[int]:
    """Return the running processes with an environment entry that starts with ``prefix``.

    Only those whose environment this process may read; never this process itself.
    """
    wanted = prefix.encode()
    found = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        try:
            entries = _read(f"/proc/{pid}/environ").split(b"\0")
        except OSError:
            continue
        if any(entry.startswith(wanted) for entry in entries) and start_ticks(pid):
            found.append(pid)
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _stat(pid: int) -> list[str]:
    try:
        text = _read(f"/proc/{pid}/stat", _STAT_BYTES_MAX).decode(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # The command name may contain anything, brackets too.


def _read(path: str, limit: int = _FILE_BYTES_MAX) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)
