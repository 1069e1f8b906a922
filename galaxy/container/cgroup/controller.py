"""The interface of a cgroup controller, on v1 and v2."""

from __future__ import annotations

from typing import ClassVar, Protocol

from galaxy.container.limits import ContainerLimits, TaskLimits


class Controller(Protocol):
    """Writes one controller's part of the limits into cgroups that exist already.

    ``hierarchy`` names its v1 hierarchy; on v2 all controllers share one. With ``per_task``
    each task has its own cgroup in that hierarchy, otherwise there is one for each container.
    """

    hierarchy: ClassVar[str]
    per_task: ClassVar[bool]

    def prepare_root(self, path: str) -> None:
        """Set what applies to all containers together; called once, before the first is created."""

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        """Set the limits of a whole container."""

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        """Set the limits of one task in a container."""
