"""Memory: a ceiling at which the kernel kills, or a soft amount that is protected; never swap."""

from __future__ import annotations

import os
from typing import ClassVar

from galaxy.container.cgroup import v1
from galaxy.container.cgroup.files import Files, field
from galaxy.container.limits import ContainerLimits, TaskLimits


class MemoryV1:
    """``memory.limit_in_bytes``, ``memory.soft_limit_in_bytes`` (kernel: cgroup-v1/memory.rst)."""

    hierarchy: ClassVar[str] = "memory"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files, *, swap: bool) -> None:
        self._files = files
        self._swap = swap

    def prepare_root(self, path: str) -> None:
        """All containers together have no memory limit."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._limit(path, limits.memory_hard_bytes, limits.memory_soft_bytes)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._limit(path, limits.memory_hard_bytes, limits.memory_soft_bytes)

    def used_bytes(self, path: str) -> int:
        """Return the memory in use, without page cache that could be dropped at once."""
        return v1.memory_bytes(path)

    def oom_file(self, path: str) -> str:
        """Return the file that counts OOM kills in a line ``oom_kill N``."""
        return f"{path}/memory.oom_control"

    def oom_event(self, path: str, oom_fd: int) -> int:
        """Return an eventfd that is notified of OOM in the cgroup whose open ``oom_file`` is ``oom_fd``."""
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._files.write(f"{path}/cgroup.event_control", f"{event} {oom_fd}")
        except OSError:  # Kernels without it notice kills a moment later.
            os.close(event)
            return -1
        return event

    def _limit(self, path: str, hard_bytes: int, soft_bytes: int) -> None:
        v1.set_memory(path, hard_bytes=hard_bytes, soft_bytes=soft_bytes)
        if self._swap:
            has_memsw = self._files.has(f"{path}/memory.memsw.limit_in_bytes")
            v1.set_no_swap(path, memsw_bytes=hard_bytes if has_memsw else 0)


class MemoryV2:
    """``memory.max``, ``memory.low``, ``memory.swap.max`` (kernel: admin-guide/cgroup-v2.rst)."""

    hierarchy: ClassVar[str] = "memory"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files) -> None:
        self._files = files

    def prepare_root(self, path: str) -> None:
        """All containers together have no memory limit."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._limit(path, limits.memory_hard_bytes, limits.memory_soft_bytes)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._limit(path, limits.memory_hard_bytes, limits.memory_soft_bytes)

    def used_bytes(self, path: str) -> int:
        """Return the memory in use, without page cache that could be dropped at once."""
        usage = int(self._files.read(f"{path}/memory.current"))
        return max(0, usage - field(self._files.read(f"{path}/memory.stat"), "inactive_file"))

    def oom_file(self, path: str) -> str:
        """Return the file that counts OOM kills in a line ``oom_kill N``."""
        return f"{path}/memory.events.local"

    def oom_event(self, _path: str, _oom_fd: int) -> int:
        """Return -1: the open ``oom_file`` itself can be polled."""
        return -1

    def _limit(self, path: str, hard_bytes: int, soft_bytes: int) -> None:
        if hard_bytes:
            self._files.write(f"{path}/memory.max", hard_bytes)
        if soft_bytes:
            self._files.write(f"{path}/memory.low", soft_bytes)
        if self._files.has(f"{path}/memory.swap.max"):
            self._files.write(f"{path}/memory.swap.max", 0)
