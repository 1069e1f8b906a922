"""Disk traffic: a weight against the neighbours', where the kernel's io scheduler has one."""

from __future__ import annotations

from typing import ClassVar

from galaxy.container.cgroup.files import Files
from galaxy.container.launcher.plan import ContainerLimits, TaskLimits


class BlkioV1:
    """``blkio.bfq.weight`` or ``blkio.weight`` (kernel: block/bfq-iosched.rst)."""

    hierarchy: ClassVar[str] = "blkio"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files, weight_file: str) -> None:
        self._files = files
        self._file = weight_file

    def prepare_root(self, path: str) -> None:
        """Nothing holds for all containers together."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._files.write(f"{path}/{self._file}", _clamp(limits.io_weight, 1000))

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._files.write(f"{path}/{self._file}", _clamp(limits.io_weight, 1000))


class IoV2:
    """``io.bfq.weight`` or ``io.weight`` (kernel: admin-guide/cgroup-v2.rst)."""

    hierarchy: ClassVar[str] = "io"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files) -> None:
        self._files = files

    def prepare_root(self, path: str) -> None:
        """Nothing holds for all containers together."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._limit(path, limits.io_weight)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._limit(path, limits.io_weight)

    def _limit(self, path: str, weight: int) -> None:
        for name in ("io.weight", "io.bfq.weight"):
            if self._files.has(f"{path}/{name}"):
                self._files.write(f"{path}/{name}", f"default {_clamp(weight, 1000)}")


def _clamp(weight: int, highest: int) -> int:
    return min(highest, max(1, weight))
