"""Devices: a few harmless ones may be opened, none may be created. On v2 an eBPF program enforces it."""

from __future__ import annotations

from typing import ClassVar, Final

from galaxy.container.cgroup import v1
from galaxy.container.cgroup.bpf import device_program
from galaxy.container.cgroup.files import Files
from galaxy.container.limits import ContainerLimits, TaskLimits

_ALLOWED: Final = (
    (1, 3), (1, 5), (1, 7), (1, 8), (1, 9),  # null zero full random urandom
    (5, 0), (5, 2), (136, None),  # tty ptmx pts/*
)  # fmt: skip
"""Character devices by major and minor number; None means every minor number."""


class DevicesV1:
    """``devices.deny`` and ``devices.allow`` (kernel: admin-guide/cgroup-v1/devices.rst)."""

    hierarchy: ClassVar[str] = "devices"
    per_task: ClassVar[bool] = False
    refused: ClassVar[str] = ""

    def prepare_root(self, path: str) -> None:
        """Allow only the harmless devices; every cgroup created below inherits this."""
        v1.deny_all_devices(path)
        for major, minor in _ALLOWED:
            v1.allow_character_device(path, major, minor)

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        """A container inherits the devices of the root."""

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        """A task inherits the devices of its container."""


class DevicesV2:
    """A BPF_CGROUP_DEVICE program on the root (kernel: admin-guide/cgroup-v2.rst, Device controller).

    If the kernel refuses the program, ``refused`` says why. The private ``/dev``, ``nodev`` mounts and
    the missing CAP_MKNOD are then the only protection.
    """

    hierarchy: ClassVar[str] = "devices"
    per_task: ClassVar[bool] = False

    def __init__(self, files: Files) -> None:
        self._files = files
        self.refused = ""

    def prepare_root(self, path: str) -> None:
        """Allow only the harmless devices, in every cgroup below."""
        try:
            self._files.guard_devices(path, device_program(_ALLOWED))
        except OSError as error:
            self.refused = str(error)

    def limit_container(self, path: str, limits: ContainerLimits) -> None:
        """A container inherits the devices of the root."""

    def limit_task(self, path: str, limits: TaskLimits) -> None:
        """A task inherits the devices of its container."""
