"""CPU: a weight for every cgroup, and a ceiling where a task may not exceed its share."""

from __future__ import annotations

import os
from typing import ClassVar, Final

from galaxy.container.cgroup import v1
from galaxy.container.cgroup.files import Files
from galaxy.container.limits import ContainerLimits, TaskLimits

PERIOD_US: Final = 100_000
QUOTA_US_MIN: Final = 1_000


def quota_us(milli: int) -> int:
    """Return the CPU time per period that ``milli`` millicores are; the kernel's minimum is 1 ms."""
    return max(QUOTA_US_MIN, milli * PERIOD_US // 1000)


def shares(milli: int) -> int:
    """Return v1 shares: 1024 for a core, from 2 to 262144."""
    return min(262_144, max(2, milli * 1024 // 1000))


def weight(milli: int) -> int:
    """Return a v2 weight: 100 for a core, from 1 to 10000."""
    return min(10_000, max(1, milli // 10))


class CpuV1:
    """``cpu.shares`` and ``cpu.cfs_quota_us`` (kernel: scheduler/sched-bwc.rst)."""

    hierarchy: ClassVar[str] = "cpu"
    per_task: ClassVar[bool] = True

    def prepare_root(self, path: str) -> None:
        """Give all containers together the weight of the host's cores, against its other processes."""
        v1.set_cpu(path, shares=shares(1000 * (os.cpu_count() or 1)))

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._limit(path, limits.cpu_milli, hard=limits.cpu_hard)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._limit(path, limits.cpu_milli, hard=limits.cpu_hard)

    def _limit(self, path: str, milli: int, *, hard: bool) -> None:
        # A new cgroup has a period of 100 ms, which is PERIOD_US.
        v1.set_cpu(path, shares=shares(milli), quota_us=quota_us(milli) if hard else 0)

    def resize(self, path: str, limits: ContainerLimits) -> list[str]:
        """Change shares and quotas; the kernel refuses a task's quota above its container's."""
        own, before = quota_us(limits.cpu_milli) if limits.cpu_hard else -1, v1.cpu_quota_us(path)
        targets = [(f"{path}/{task.name}", task.cpu_milli, task.cpu_hard) for task in limits.tasks]
        container = (path, limits.cpu_milli, limits.cpu_hard)
        raised = own < 0 or 0 < before <= own
        for each, milli, hard in [container, *targets] if raised else [*targets, container]:
            v1.set_cpu(each, shares=shares(milli), quota_us=quota_us(milli) if hard else -1)
        return []


class CpuV2:
    """``cpu.weight`` and ``cpu.max`` (kernel: admin-guide/cgroup-v2.rst)."""

    hierarchy: ClassVar[str] = "cpu"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files) -> None:
        self._files = files

    def prepare_root(self, path: str) -> None:
        """Give all containers together the weight of the host's cores, against its other slices."""
        self._files.write(f"{path}/cpu.weight", weight(1000 * (os.cpu_count() or 1)))

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._limit(path, limits.cpu_milli, hard=limits.cpu_hard)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._limit(path, limits.cpu_milli, hard=limits.cpu_hard)

    def _limit(self, path: str, milli: int, *, hard: bool) -> None:
        self._files.write(f"{path}/cpu.weight", weight(milli))
        if hard:
            self._files.write(f"{path}/cpu.max", f"{quota_us(milli)} {PERIOD_US}")

    def resize(self, path: str, limits: ContainerLimits) -> list[str]:
        """Change weights and ceilings; the lowest ceiling above a task applies, so any order is right."""
        targets = [(f"{path}/{task.name}", task.cpu_milli, task.cpu_hard) for task in limits.tasks]
        for each, milli, hard in [(path, limits.cpu_milli, limits.cpu_hard), *targets]:
            self._limit(each, milli, hard=hard)
            if not hard:
                self._files.write(f"{each}/cpu.max", f"max {PERIOD_US}")
        return []
