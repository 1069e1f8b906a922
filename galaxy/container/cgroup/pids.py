"""Pids: how many processes and threads a cgroup may have; the files are the same on v1 and v2."""

from __future__ import annotations

from typing import ClassVar

from galaxy.container.cgroup.files import Files
from galaxy.container.limits import ContainerLimits, TaskLimits


class Pids:
    """``pids.max`` (kernel: admin-guide/cgroup-v1/pids.rst)."""

    hierarchy: ClassVar[str] = "pids"
    per_task: ClassVar[bool] = True

    def __init__(self, files: Files) -> None:
        self._files = files

    def prepare_root(self, path: str) -> None:
        """All containers together have no limit."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        self._files.write(f"{path}/pids.max", limits.pids_max)

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        self._files.write(f"{path}/pids.max", limits.pids_max)
