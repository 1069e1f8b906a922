"""CPU: a ceiling where excess is not allowed, a weight everywhere."""

from __future__ import annotations

import os
from typing import ClassVar, Final

from cgroupspy.controllers import CpuController
from cgroupspy.nodes import Node

from galaxy.container.cgroup.files import Files
from galaxy.container.launcher.plan import ContainerLimits, TaskLimits

PERIOD_US: Final = 100_000
QUOTA_US_MIN: Final = 1_000


def quota_us(milli: int) -> int:
    """Return the CPU time per period that ``milli`` millicores are; the kernel's least is 1 ms."""
    return max(QUOTA_US_MIN, milli * PERIOD_US // 1000)


def shares(milli: int) -> int:
    """Return v1 shares: 1024 for a core, 2 at least, 262144 at most."""
    return min(262_144, max(2, milli * 1024 // 1000))


def weight(milli: int) -> int:
    """Return a v2 weight: 100 for a core, 1 at least, 10000 at most."""
    return min(10_000, max(1, milli // 10))


class CpuV1:
    """``cpu.shares`` and ``cpu.cfs_quota_us`` (kernel: scheduler/sched-bwc.rst)."""

    hierarchy: ClassVar[str] = "cpu"
    per_task: ClassVar[bool] = True

    def prepare_root(self, path: str) -> None:
        """Weigh all containers together as the cores they may use, against the host's own processes."""
        CpuController(Node(path)).shares = shares(1000 * (os.cpu_count() or 1))

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._limit(path, limits.cpu_milli, hard=limits.cpu_hard)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._limit(path, limits.cpu_milli, hard=limits.cpu_hard)

    def _limit(self, path: str, milli: int, *, hard: bool) -> None:
        controller = CpuController(Node(path))
        controller.shares = shares(milli)
        if hard:
            controller.cfs_quota_us = quota_us(milli)  # The period is 100 ms from birth.


class CpuV2:
    """``cpu.weight`` and ``cpu.max`` (kernel: admin-guide/cgroup-v2.rst)."""

    hierarchy: ClassVar[str] = "cpu"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files) -> None:
        self._files = files

    def prepare_root(self, path: str) -> None:
        """Weigh all containers together as the cores they may use, against the host's own slices."""
        self._files.write(f"{path}/cpu.weight", weight(1000 * (os.cpu_count() or 1)))

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._limit(path, limits.cpu_milli, hard=limits.cpu_hard)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._limit(path, limits.cpu_milli, hard=limits.cpu_hard)

    def _limit(self, path: str, milli: int, *, hard: bool) -> None:
        self._files.write(f"{path}/cpu.weight", weight(milli))
        if hard:
            self._files.write(f"{path}/cpu.max", f"{quota_us(milli)} {PERIOD_US}")
