"""Devices: only the harmless ones, and none is made; on version 2 an eBPF program says so."""

from __future__ import annotations

from typing import ClassVar, Final

from cgroupspy.contenttypes import DeviceAccess
from cgroupspy.controllers import DevicesController
from cgroupspy.nodes import Node

from galaxy.container.cgroup.bpf import device_program
from galaxy.container.cgroup.files import Files
from galaxy.container.launcher.plan import ContainerLimits, TaskLimits

_ALLOWED: Final = (
    (1, 3), (1, 5), (1, 7), (1, 8), (1, 9),  # null zero full random urandom
    (5, 0), (5, 2), (136, None),  # tty ptmx pts/*
)  # fmt: skip


class DevicesV1:
    """``devices.deny`` and ``devices.allow`` (kernel: admin-guide/cgroup-v1/devices.rst)."""

    hierarchy: ClassVar[str] = "devices"
    per_task: ClassVar[bool] = False
    refused: ClassVar[str] = ""

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


class DevicesV2:
    """A BPF_CGROUP_DEVICE program on the root (kernel: admin-guide/cgroup-v2.rst, Device controller).

    Where the kernel or the agent's rights have no place for it, ``refused`` says why; the private
    ``/dev``, ``nodev`` mounts and the missing CAP_MKNOD then stand alone.
    """

    hierarchy: ClassVar[str] = "devices"
    per_task: ClassVar[bool] = False

    def __init__(self, files: Files) -> None:
        self._files = files
        self.refused = ""

    def prepare_root(self, path: str) -> None:
        """Allow the harmless devices alone, in every cgroup below."""
        try:
            self._files.guard_devices(path, device_program(_ALLOWED))
        except OSError as error:
            self.refused = str(error)

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        """A container's devices are those of the root."""

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        """A task's devices are those of its container."""
