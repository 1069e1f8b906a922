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
    """Set the CPU weight, and the ceiling per period of 100 ms: 0 leaves it as it is, -1 means no limit.

    Raises:
        OSError: the kernel refuses a value.
    """
    controller = CpuController(Node(path))
    controller.shares = shares
    if quota_us:
        controller.cfs_quota_us = quota_us


def cpu_quota_us(path: str) -> int:
    """Return the ceiling per period; -1 means no limit."""
    quota = CpuController(Node(path)).cfs_quota_us
    return -1 if quota is None else int(quota)


def memory_limit_bytes(path: str) -> int:
    """Return the memory ceiling; a very large number means no limit."""
    return int(MemoryController(Node(path)).limit_in_bytes)


def set_memory_limit(path: str, limit_bytes: int, *, with_swap: bool) -> None:
    """Change the memory ceiling of a cgroup with processes; -1 means no limit.

    ``with_swap`` changes the limit of memory and swap together, which must never be the lower one.

    Raises:
        OSError: EBUSY, more is in use than the kernel can free; the limit is as before.
    """
    controller = MemoryController(Node(path))
    raised = limit_bytes < 0 or limit_bytes >= memory_limit_bytes(path)
    if with_swap and raised:
        controller.memsw_limit_in_bytes = limit_bytes
    controller.limit_in_bytes = limit_bytes
    if with_swap and not raised:
        controller.memsw_limit_in_bytes = limit_bytes


def set_memory_soft_limit(path: str, limit_bytes: int) -> None:
    """Change the protected amount; -1 means none."""
    MemoryController(Node(path)).soft_limit_in_bytes = limit_bytes


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
