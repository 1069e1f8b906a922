"""Devices: only the harmless ones, on version 1; on version 2 the private ``/dev`` alone stands guard."""

from __future__ import annotations

from typing import ClassVar, Final

from cgroupspy.contenttypes import DeviceAccess
from cgroupspy.controllers import DevicesController
from cgroupspy.nodes import Node

from galaxy.container.plan import ContainerLimits, TaskLimits

_ALLOWED: Final = (
    (1, 3), (1, 5), (1, 7), (1, 8), (1, 9),  # null zero full random urandom
    (5, 0), (5, 2), (136, None),  # tty ptmx pts/*
)  # fmt: skip


class DevicesV1:
    """``devices.deny`` and ``devices.allow`` (kernel: admin-guide/cgroup-v1/devices.rst)."""

    hierarchy: ClassVar[str] = "devices"
    per_task: ClassVar[bool] = False

    def prepare_root(self, path: str) -> None:
        """Allow the harmless devices alone; every cgroup made below inherits this."""
        controller = DevicesController(Node(path))
        with open(f"{path}/devices.list") as listed:
            # Denying everything is EINVAL while containers live below, and was done when they were made.
            if listed.read().startswith("a "):
                controller.deny = DeviceAccess()
        for major, minor in _ALLOWED:
            controller.allow = DeviceAccess("c", major, minor, "rw")

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        """A container's devices are those of the root."""

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        """A task's devices are those of its container."""
