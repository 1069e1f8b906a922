"""The inventory of the machine that the agent offers, and samples of its usage."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

import galaxy
from galaxy.agent.config import AgentConfig
from galaxy.errors import HostError
from galaxy.model.messages.agent import AgentInfo, AgentUsage
from galaxy.units import GIB, MIB, format_bytes

LOOPBACK = "127.0.0.1"


def inventory(
    config: AgentConfig, *, boot: str, mode: str, enforced: Sequence[str], kernel: str, cgroup: str
) -> AgentInfo:
    """Return what this host offers: cores this process may use, memory and disk minus the reserves.

    Disk is the free space of the state directory plus what containers use there already, so that
    the figure does not change with a restart.

    Raises:
        HostError: the memory reserve leaves nothing to offer.
    """
    memory = psutil.virtual_memory().total
    memory -= _reserve(config.memory_reserve_bytes, memory, 256 * MIB)
    disk = shutil.disk_usage(config.state)
    by_containers = _used_below(config.state / "c")
    offered = disk.free + by_containers - _reserve(config.disk_reserve_bytes, disk.total, GIB)
    if memory <= 0:
        raise HostError(
            "cannot offer any memory: the reserve is as large as the memory", hint="lower --reserve-memory"
        )
    return AgentInfo(
        agent=config.name,
        address=config.address or guess_address(config.redis_host),
        boot=boot,
        version=galaxy.__version__,
        cpu_milli=config.cpu_milli or 1000 * len(os.sched_getaffinity(0)),
        memory_bytes=memory,
        disk_bytes=max(0, offered),
        pool=config.pool,
        tags=config.tags,
        ports_low=config.ports_low,
        ports_high=config.ports_high,
        containers=config.containers_max,
        mode=mode,
        enforced=tuple(enforced),
        kernel=kernel,
        cgroup=cgroup,
    )


def describe(info: AgentInfo) -> str:
    """Return the inventory as fields of a log line."""
    return (
        f"cpu={info.cpu_milli}m memory={format_bytes(info.memory_bytes)!r}"
        f" disk={format_bytes(info.disk_bytes)!r}"
        f" address={info.address} ports={info.ports_low}-{info.ports_high} mode={info.mode}"
    )


def guess_address(redis_host: str) -> str:
    """Return the address from which this host reaches Redis, found by the route; nothing is sent."""
    if redis_host in ("", "localhost"):
        return LOOPBACK
    try:
        family, kind, _, _, peer = socket.getaddrinfo(redis_host, 6379, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(peer)
            address = str(probe.getsockname()[0])
    except OSError:
        return LOOPBACK
    return LOOPBACK if ipaddress.ip_address(address.partition("%")[0]).is_loopback else address


def kernel_boot() -> str:
    """Return an id that changes with every boot of the kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(int(psutil.boot_time()))


class UsageSampler:
    """Samples of the whole machine. CPU is the mean since the last sample."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._last = self._busy()

    def sample(self, pods: dict[str, tuple[int, int]]) -> AgentUsage:
        """Return the current usage of the machine, together with that of ``pods`` (millicores, bytes)."""
        busy_s, at_s = self._busy()
        passed_s = max(at_s - self._last[1], 1e-3)
        cpu_milli = max(0, round(1000 * (busy_s - self._last[0]) / passed_s))
        self._last = busy_s, at_s
        memory = psutil.virtual_memory()
        return AgentUsage(
            at_s=time.time(),
            cpu_milli=cpu_milli,
            memory_bytes=memory.total - memory.available,
            disk_bytes=shutil.disk_usage(self._state).used,
            load1=os.getloadavg()[0],
            pods=pods,
        )

    def _busy(self) -> tuple[float, float]:
        """Return the CPU seconds used since the boot, and the monotonic time."""
        times = psutil.cpu_times()
        waiting = getattr(times, "iowait", 0.0)
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return sum(times) - times.idle - waiting - guest, time.monotonic()


def _reserve(configured: int, total: int, reserve_min: int) -> int:
    """Return the bytes kept for the host: as configured, else 5 %, at least ``reserve_min`` or half."""
    return configured if configured >= 0 else max(total // 20, min(reserve_min, total // 2))


def _used_below(directory: Path) -> int:
    """Return the disk space that the files below a directory occupy, in bytes."""
    used = 0
    for folder, _, names in os.walk(directory, onerror=None):
        for name in names:
            try:
                used += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
    return used
