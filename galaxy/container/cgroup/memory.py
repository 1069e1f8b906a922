"""Memory: a ceiling that kills, or a soft amount that is protected; never swap."""

from __future__ import annotations

from typing import ClassVar

from cgroupspy.controllers import MemoryController
from cgroupspy.nodes import Node

from galaxy.container.cgroup.files import Files, field
from galaxy.container.launcher.plan import ContainerLimits, TaskLimits


class MemoryV1:
    """``memory.limit_in_bytes``, ``memory.soft_limit_in_bytes`` (kernel: cgroup-v1/memory.rst)."""

    hierarchy: ClassVar[str] = "memory"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files, *, swap: bool) -> None:
        self._files = files
        self._swap = swap

    def prepare_root(self, path: str) -> None:
        """Nothing holds for all containers together."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._limit(path, limits.memory_hard_bytes, limits.memory_soft_bytes)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._limit(path, limits.memory_hard_bytes, limits.memory_soft_bytes)

    def _limit(self, path: str, hard: int, soft: int) -> None:
        controller = MemoryController(Node(path))
        if hard:
            controller.limit_in_bytes = hard
        if soft:
            controller.soft_limit_in_bytes = soft
        if self._swap:
            controller.swappiness = 0
            if hard and self._files.has(f"{path}/memory.memsw.limit_in_bytes"):
                controller.memsw_limit_in_bytes = hard

    def used_bytes(self, path: str) -> int:
        """Return what is in use, without page cache that could be dropped at once."""
        usage = int(self._files.read(f"{path}/memory.usage_in_bytes"))
        return max(0, usage - field(self._files.read(f"{path}/memory.stat"), "total_inactive_file"))

    def oom_file(self, path: str) -> str:
        return f"{path}/memory.oom_control"


class MemoryV2:
    """``memory.max``, ``memory.low``, ``memory.swap.max`` (kernel: admin-guide/cgroup-v2.rst)."""

    hierarchy: ClassVar[str] = "memory"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files) -> None:
        self._files = files

    def prepare_root(self, path: str) -> None:
        """Nothing holds for all containers together."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._limit(path, limits.memory_hard_bytes, limits.memory_soft_bytes)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._limit(path, limits.memory_hard_bytes, limits.memory_soft_bytes)

    def _limit(self, path: str, hard: int, soft: int) -> None:
        if hard:
            self._files.write(f"{path}/memory.max", hard)
        if soft:
            self._files.write(f"{path}/memory.low", soft)
        if self._files.has(f"{path}/memory.swap.max"):
            self._files.write(f"{path}/memory.swap.max", 0)

    def used_bytes(self, path: str) -> int:
        """Return what is in use, without page cache that could be dropped at once."""
        usage = int(self._files.read(f"{path}/memory.current"))
        return max(0, usage - field(self._files.read(f"{path}/memory.stat"), "inactive_file"))

    def oom_file(self, path: str) -> str:
        return f"{path}/memory.events.local"
