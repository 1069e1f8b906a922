"""Memory: a ceiling at which the kernel kills, or a soft amount that is protected; never swap."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import ClassVar

from galaxy.container.cgroup import v1
from galaxy.container.cgroup.files import Files, field
from galaxy.container.limits import ContainerLimits, TaskLimits
from galaxy.units import format_bytes


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

    def resize(self, path: str, limits: ContainerLimits) -> list[str]:
        """Change the ceilings and protected amounts. The kernel refuses a ceiling below what is in use."""
        held: list[str] = []
        for each, name, hard_bytes, soft_bytes in _in_order(path, limits, v1.memory_limit_bytes(path)):
            if held and each == path:
                break  # A task that keeps its limit needs the container's.
            with_swap = self._swap and self._files.has(f"{each}/memory.memsw.limit_in_bytes")
            try:
                v1.set_memory_limit(each, hard_bytes or -1, with_swap=with_swap)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                held.append(_held(name, self.used_bytes(each), hard_bytes))
                continue
            v1.set_memory_soft_limit(each, soft_bytes or -1)
        return held

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

    def resize(self, path: str, limits: ContainerLimits) -> list[str]:
        """Change the ceilings and protected amounts, but lower no ceiling below what is in use.

        The kernel kills processes to reach a lower ``memory.max``, but not to reach ``memory.high``. So
        that is lowered first, and ``memory.max`` only if the memory was freed.
        """
        held: list[str] = []
        before = _limit_of(self._files.read(f"{path}/memory.max"))
        for each, name, hard_bytes, soft_bytes in _in_order(path, limits, before):
            if held and each == path:
                break  # A task that keeps its limit needs the container's.
            now = _limit_of(self._files.read(f"{each}/memory.max"))
            if hard_bytes and hard_bytes < now and not self._has_freed(each, hard_bytes):
                held.append(_held(name, self.used_bytes(each), hard_bytes))
                continue
            self._files.write(f"{each}/memory.max", hard_bytes or "max")
            self._files.write(f"{each}/memory.low", soft_bytes)
        return held

    def _has_freed(self, path: str, limit_bytes: int) -> bool:
        """Have the kernel free memory above a limit without a kill; return whether it could."""
        if not self._files.has(f"{path}/memory.high"):
            return int(self._files.read(f"{path}/memory.current")) <= limit_bytes
        try:
            self._files.write(f"{path}/memory.high", limit_bytes)
            return int(self._files.read(f"{path}/memory.current")) <= limit_bytes
        finally:
            self._files.write(f"{path}/memory.high", "max")

    def _limit(self, path: str, hard_bytes: int, soft_bytes: int) -> None:
        if hard_bytes:
            self._files.write(f"{path}/memory.max", hard_bytes)
        if soft_bytes:
            self._files.write(f"{path}/memory.low", soft_bytes)
        if self._files.has(f"{path}/memory.swap.max"):
            self._files.write(f"{path}/memory.swap.max", 0)


def _in_order(path: str, limits: ContainerLimits, before_bytes: int) -> Iterator[tuple[str, str, int, int]]:
    """Yield path, name, ceiling and protected amount of a container and its tasks in the order to set them.

    The container's ceiling, which is ``before_bytes`` now, is never below the sum that its tasks may use.
    """
    own = (path, "the container", limits.memory_hard_bytes, limits.memory_soft_bytes)
    raised = not limits.memory_hard_bytes or limits.memory_hard_bytes >= before_bytes
    if raised:
        yield own
    for task in limits.tasks:
        yield f"{path}/{task.name}", f"task {task.name}", task.memory_hard_bytes, task.memory_soft_bytes
    if not raised:
        yield own


def _held(name: str, used_bytes: int, limit_bytes: int) -> str:
    used, limit = format_bytes(used_bytes), format_bytes(limit_bytes)
    return f"{name} uses {used}, more than its new memory limit of {limit}; it keeps the limit that it has"


def _limit_of(text: str) -> int:
    """Return the number in ``memory.max``; a very large one without a limit."""
    return int(text) if text.strip().isdigit() else 1 << 63
