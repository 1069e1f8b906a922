"""The processes of a task, and signals to all of them.

With cgroups the kernel lists them. Without cgroups (lesser modes) they are those descendants of AppWorker
that descend from the task's program, share its session, or were started with its
``GALAXY_TASK_ID`` in their environment. A daemon that left its session and cleared its environment
is then killed only when the container ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterable
from typing import Final

from galaxy.container.kernel.processes import process_table, with_descendants
from galaxy.model.messages.worker import TaskCgroup

_PASSES_MAX: Final = 100


def members(cgroup: TaskCgroup, program: int, task_id: str, excluded: Collection[int]) -> set[int]:
    """Return the running processes of a task, except those that descend from ``excluded``.

    ``program`` is the pid of its current program, or of the last one; 0 if there was none.
    """
    if not cgroup.procs_fds:
        return _by_ancestry(program, task_id, excluded)
    pids = pids_of(cgroup)
    if not excluded or not pids:
        return pids
    return pids - with_descendants(excluded, process_table())


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to all ``pids`` (negative: process groups) that exist and may be signalled."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def set_pids_max(cgroup: TaskCgroup, value: int) -> None:
    """Limit the number of a task's processes; 0 stops a fork bomb before it is killed. Best effort."""
    if cgroup.pids_fd >= 0:
        with contextlib.suppress(OSError):
            os.pwrite(cgroup.pids_fd, str(value).encode(), 0)


def pids_max(cgroup: TaskCgroup) -> int:
    """Return the limit on the number of a task's processes; 0 if there is none, or it cannot be read."""
    if cgroup.pids_fd >= 0:
        with contextlib.suppress(OSError, ValueError):
            return int(os.pread(cgroup.pids_fd, 32, 0))
    return 0


def oom_kills(cgroup: TaskCgroup) -> int:
    """Return how many processes of the task the OOM killer has killed so far."""
    if cgroup.oom_fd < 0:
        return 0
    with contextlib.suppress(OSError, ValueError):
        for line in os.pread(cgroup.oom_fd, 4096, 0).splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def kill_descendants() -> None:
    """Send SIGKILL to every descendant of this process, including those that are forked meanwhile.

    All are stopped first, until no new one is found: a stopped process cannot fork, while killing one by
    one lets the others fork replacements.
    """
    stopped: set[int] = set()
    for _ in range(_PASSES_MAX):
        table = process_table()
        running = {pid for pid in with_descendants({os.getpid()}, table) if not table[pid].is_dead}
        found = running - stopped - {os.getpid()}
        if not found:
            break
        signal_all(found, signal.SIGSTOP)
        stopped |= found
    signal_all(stopped, signal.SIGKILL)


def pids_of(cgroup: TaskCgroup) -> set[int]:
    """Return the processes in a task's cgroup, none where there is no cgroup."""
    return _pids_of(cgroup.procs_fds[0]) if cgroup.procs_fds else set()


def _pids_of(fd: int) -> set[int]:
    # cgroup v1 keeps the list of pids for as long as a file is open, so the file is opened again.
    try:
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        again = os.dup(fd)
        os.lseek(again, 0, os.SEEK_SET)
    try:
        data = b"".join(iter(lambda: os.read(again, 65536), b""))
    except OSError:
        return set()  # The cgroup is gone, with every process in it.
    finally:
        os.close(again)
    return {int(line) for line in data.split()} - {0, os.getpid()}


def _by_ancestry(program: int, task_id: str, excluded: Collection[int]) -> set[int]:
    table = process_table()
    own = with_descendants({os.getpid()}, table) - {os.getpid()}
    others = with_descendants(excluded, table) if excluded else set()
    of_program = with_descendants({program}, table) if program else set()
    mark = f"GALAXY_TASK_ID={task_id}".encode()
    return {
        pid
        for pid in own - others
        if pid in table
        and not table[pid].is_dead
        and (pid in of_program or (program and table[pid].session == program) or mark in _environment(pid))
    }


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read(1 << 17).split(b"\0")
    except OSError:
        return []
