"""Facts about processes from /proc: whether one runs, since when, its parent and descendants.

Used by the launcher, by PID 1 of every container and by the command line, so this module imports nothing
but the standard library. Source: proc_pid_stat(5).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

_STAT_BYTES_MAX: Final = 4096
_FILE_BYTES_MAX: Final = 1 << 20


class ProcessStat(NamedTuple):
    """The fields of /proc/PID/stat that Galaxy uses."""

    pid: int
    parent: int
    session: int
    start_ticks: int
    """Clock ticks since boot. With the pid it identifies a process; pids alone are reused."""
    is_dead: bool
    """It is a zombie: only its exit status is left."""


def read_stat(pid: int) -> ProcessStat | None:
    """Return the facts of one process; None when it is gone."""
    try:
        data = _read(f"/proc/{pid}/stat", _STAT_BYTES_MAX)
        # The command name is in brackets and may contain anything, brackets too. The manual counts fields
        # from 1; the state, the first one after the name, is field 3.
        fields = data.rpartition(b")")[2].split()
        return ProcessStat(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0] in (b"Z", b"X"))
    except (OSError, IndexError, ValueError):
        return None


def process_table() -> dict[int, ProcessStat]:
    """Return the facts of every process in /proc."""
    stats = (read_stat(pid) for pid in _pids())
    return {stat.pid: stat for stat in stats if stat is not None}


def with_descendants(roots: Collection[int], table: Mapping[int, ProcessStat]) -> set[int]:
    """Return ``roots`` and every pid in ``table`` that descends from one of them."""
    known = set(roots)
    for pid in table:
        path = []
        while pid not in known and pid in table and pid not in path:
            path.append(pid)
            pid = table[pid].parent
        if pid in known:
            known.update(path)
    return known


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when it is gone or a zombie."""
    stat = read_stat(pid)
    return 0 if stat is None or stat.is_dead else stat.start_ticks


def parent(pid: int) -> int:
    """Return the pid of a process' parent; 0 when the process is gone."""
    stat = read_stat(pid)
    return 0 if stat is None else stat.parent


def descendants(pid: int) -> list[int]:
    """Return the running processes below ``pid``, sorted."""
    table = process_table()
    return sorted(each for each in with_descendants({pid}, table) - {pid} if not table[each].is_dead)


def cpu_ticks(pid: int) -> int:
    """Return the CPU time of a process and of its reaped children, in clock ticks; 0 when it is gone."""
    try:
        fields = _read(f"/proc/{pid}/stat", _STAT_BYTES_MAX).rpartition(b")")[2].split()
        return sum(int(field) for field in fields[11:15])
    except (OSError, ValueError):
        return 0


def memory_bytes(pid: int) -> int:
    """Return a process' memory: its proportional share (PSS), or its resident set if that cannot be read.

    0 when it is gone.
    """
    for path, name in ((f"/proc/{pid}/smaps_rollup", b"Pss:"), (f"/proc/{pid}/status", b"VmRSS:")):
        try:
            for line in _read(path).splitlines():
                if line.startswith(name):
                    return int(line.split()[1]) * 1024
        except (OSError, ValueError, IndexError):
            continue
    return 0


def boot_id() -> str:
    """Return the id of this boot of the kernel."""
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()


def with_environment(prefix: str) -> list[int]:
    """Return the running processes with an environment entry that starts with ``prefix``.

    Only those whose environment this process may read; never this process itself.
    """
    start = prefix.encode()
    found = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        try:
            entries = _read(f"/proc/{pid}/environ").split(b"\0")
        except OSError:
            continue
        if any(entry.startswith(start) for entry in entries) and start_ticks(pid):
            found.append(pid)
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _read(path: str, limit: int = _FILE_BYTES_MAX) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)
