"""The interface of a cgroup controller, on v1 and v2."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

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


@runtime_checkable
class OrderedController(Controller, Protocol):
    """A controller whose limits cannot be changed one after the other in any order while processes run.

    The limits of all others are set again when a container is resized.
    """

    def resize(self, path: str, limits: ContainerLimits) -> list[str]:
        """Change the limits of a running container, and of its tasks below ``path``; idempotent.

        The container's limit is raised before those of its tasks, and lowered after them. Returns which
        limits stay as they were, and why.
        """
