"""Cgroup v1 files that cgroupspy knows: CPU shares and quota, memory limits, device rules, usage.

This is the only module that imports cgroupspy. The controllers of ``cpu``, ``memory`` and ``devices`` use
it; pids, blkio and everything on v2 are written through ``files``, because cgroupspy 0.2.3 has no pids
controller, writes a wrong name for blkio, and on v2 only creates directories. Its ``Tree`` is not used:
it walks every cgroup of the host, and fails when one is removed meanwhile.
"""

from __future__ import annotations

from cgroupspy.contenttypes import DeviceAccess
from cgroupspy.controllers import CpuAcctController, CpuController, DevicesController, MemoryController
from cgroupspy.nodes import Node


def set_cpu(path: str, *, shares: int, quota_us: int = 0) -> None:
    """Set the CPU weight, and the ceiling per period of 100 ms unless ``quota_us`` is 0.

    Raises:
        OSError: the kernel refuses a value.
    """
    controller = CpuController(Node(path))
    controller.shares = shares
    if quota_us:
        controller.cfs_quota_us = quota_us


def set_memory(path: str, *, hard_bytes: int, soft_bytes: int) -> None:
    """Set the memory ceiling and the protected amount; 0 leaves either unlimited.

    Raises:
        OSError: the kernel refuses a value.
    """
    controller = MemoryController(Node(path))
    if hard_bytes:
        controller.limit_in_bytes = hard_bytes
    if soft_bytes:
        controller.soft_limit_in_bytes = soft_bytes


def set_no_swap(path: str, *, memsw_bytes: int = 0) -> None:
    """Keep a cgroup out of swap; ``memsw_bytes``, unless 0, limits memory and swap together."""
    controller = MemoryController(Node(path))
    controller.swappiness = 0
    if memsw_bytes:
        controller.memsw_limit_in_bytes = memsw_bytes


def deny_all_devices(path: str) -> None:
    """Deny every device, unless that was done before: it is EINVAL while child cgroups exist."""
    controller = DevicesController(Node(path))
    with open(f"{path}/devices.list") as rules:
        if rules.read().startswith("a "):
            controller.deny = DeviceAccess()


def allow_character_device(path: str, major: int, minor: int | None) -> None:
    """Allow reading and writing (not mknod) of one character device; None means every minor number."""
    DevicesController(Node(path)).allow = DeviceAccess("c", major, minor, "rw")


def cpu_ns(path: str) -> int:
    """Return the CPU time used by a cgroup since its creation, in nanoseconds."""
    return int(CpuAcctController(Node(path)).usage)


def memory_bytes(path: str) -> int:
    """Return the memory in use, without page cache that could be dropped at once."""
    controller = MemoryController(Node(path))
    droppable = controller.stat.get("total_inactive_file", 0)
    return max(0, int(controller.usage_in_bytes) - int(droppable))
