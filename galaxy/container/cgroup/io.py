"""Disk I/O: a weight relative to other cgroups, where the kernel's io scheduler supports one."""

from __future__ import annotations

from typing import ClassVar, Final

from galaxy.container.cgroup.files import Files
from galaxy.container.limits import ContainerLimits, TaskLimits

_WEIGHT_MAX: Final = 1000


class BlkioV1:
    """``blkio.bfq.weight`` (kernel: block/bfq-iosched.rst)."""

    hierarchy: ClassVar[str] = "blkio"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files, weight_file: str) -> None:
        self._files = files
        self._file = weight_file

    def prepare_root(self, path: str) -> None:
        """All containers together keep the default weight."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._files.write(f"{path}/{self._file}", _clamp(limits.io_weight))

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._files.write(f"{path}/{self._file}", _clamp(limits.io_weight))


class IoV2:
    """``io.weight`` and ``io.bfq.weight`` (kernel: admin-guide/cgroup-v2.rst)."""

    hierarchy: ClassVar[str] = "io"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files) -> None:
        self._files = files

    def prepare_root(self, path: str) -> None:
        """All containers together keep the default weight."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._limit(path, limits.io_weight)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._limit(path, limits.io_weight)

    def _limit(self, path: str, weight: int) -> None:
        for name in ("io.weight", "io.bfq.weight"):
            if self._files.has(f"{path}/{name}"):
                self._files.write(f"{path}/{name}", f"default {_clamp(weight)}")


def _clamp(weight: int) -> int:
    return min(_WEIGHT_MAX, max(1, weight))
