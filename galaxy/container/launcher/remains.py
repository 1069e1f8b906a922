"""What is to be removed of a container: its processes, its cgroups and its directory."""

from __future__ import annotations

import contextlib
import signal

from galaxy.container.cgroup.tree import CgroupTree
from galaxy.container.fs import garbage
from galaxy.container.launcher import process_group
from galaxy.container.launcher.directory import owner_of
from galaxy.container.launcher.entry import ContainerEntry
from galaxy.container.launcher.plan import PROCESS


class Remains:
    """Finds, kills and removes what containers of one launcher have. ``cgroups`` may be None."""

    def __init__(self, state: str, cgroups: CgroupTree | None) -> None:
        self._state = state
        self._cgroups = cgroups

    def directory(self, key: str) -> str:
        """Return the directory of a container, which need not exist."""
        return f"{self._state}/c/{key}"

    def exist(self, key: str) -> bool:
        """Return whether a container has a directory or a cgroup."""
        if owner_of(self.directory(key)) is not None:
            return True
        return self._cgroups is not None and self._cgroups.has(key)

    def had_oom_kills(self, key: str) -> bool:
        """Return whether the kernel has killed a process of a container for memory, as far as is known."""
        with contextlib.suppress(OSError):
            return self._cgroups is not None and self._cgroups.oom_kills(key) > 0
        return False

    def kill(self, entry: ContainerEntry) -> None:
        """Kill every process of a container once."""
        if entry.mode == PROCESS:
            entry.send_signal(signal.SIGSTOP)  # Otherwise PID 1 would restart the programs.
            process_group.kill_descendants(entry.pid)
        if self._cgroups is not None:
            with contextlib.suppress(OSError):
                self._cgroups.kill(entry.key)
        entry.send_signal(signal.SIGKILL)

    def remove(self, entry: ContainerEntry) -> bool:
        """Remove what is left of a container whose PID 1 has ended; return False to be called again."""
        if entry.mode == PROCESS and process_group.kill_strays(self.directory(entry.key)):
            return False
        if self._cgroups is not None:
            with contextlib.suppress(OSError):
                if self._cgroups.pids(entry.key):
                    self._cgroups.kill(entry.key)
            if not self._cgroups.remove(entry.key):
                return False  # The kernel has not removed the last process yet.
        try:
            if owner_of(self.directory(entry.key)) is not None:
                garbage.discard(self.directory(entry.key), f"{self._state}/garbage")
        except OSError:
            return False  # A full disk may refuse even a rename. Deleting other garbage makes room.
        return True
