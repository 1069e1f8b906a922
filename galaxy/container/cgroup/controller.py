"""What every controller can do, whatever its version."""

from __future__ import annotations

from typing import ClassVar, Protocol

from galaxy.container.launcher.plan import ContainerLimits, TaskLimits


class Controller(Protocol):
    """Writes its part of the limits into cgroups that are there already.

    ``hierarchy`` names the v1 tree that it lives in; on v2 all live in one. With ``per_task``
    each task has a cgroup of its own there, else a container has one.
    """

    hierarchy: ClassVar[str]
    per_task: ClassVar[bool]

    def prepare_root(self, path: str) -> None:
        """Set what holds for all containers together, once, before the first is made."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        """Set the limits of a whole container."""

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        """Set the limits of one task inside it."""
