"""Measure what a container uses, from its cgroups and its directory."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from galaxy.container.cgroup.tree import CgroupTree, Usage
from galaxy.container.fs.volumes import plain_path, plain_used_bytes
from galaxy.container.kernel import processes
from galaxy.container.launcher.directory import INIT_RECORD, PLAN_NAME
from galaxy.container.launcher.plan import LaunchPlan
from galaxy.container.launcher.protocol import InitRecord
from galaxy.container.record_file import load_record
from galaxy.ids import container_key
from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import Medium

_PLAIN_ENTRIES_MAX: Final = 20_000
_TABLE_S: Final = 0.5
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class ContainerUsage(Struct, frozen=True, kw_only=True):
    """What one container uses: CPU time and OOM kills since its creation, the rest now."""

    cpu_ns: int = 0
    memory_bytes: int = 0
    pids: int = 0
    oom_kills: int = 0
    disk_bytes: int = 0


class UsageMeter:
    """Measures the containers of one agent. It changes nothing, so any thread may use it."""

    def __init__(self, directory: Path, cgroups: CgroupTree | None) -> None:
        """``directory`` has one directory for each container. Without ``cgroups`` processes are measured."""
        self._directory = directory
        self._cgroups = cgroups
        self._table: dict[int, processes.ProcessStat] = {}
        self._table_s = float("-inf")
        """The processes of the host, shared by the containers that are measured together."""

    def measure(self, container: str, incarnation: int) -> ContainerUsage:
        """Measure one container now. A value is 0 if this mode cannot measure it or the container is gone."""
        key = container_key(container, incarnation)
        usage = Usage()
        with contextlib.suppress(OSError):
            if self._cgroups is not None:
                usage = self._cgroups.usage(key)
            else:
                usage = self._usage_of_processes(self._directory / key)
        return ContainerUsage(
            cpu_ns=usage.cpu_ns,
            memory_bytes=usage.memory_bytes,
            pids=usage.pids,
            oom_kills=usage.oom_kills,
            disk_bytes=self._disk_bytes(self._directory / key),
        )

    def cpu_ns(self, container: str, incarnation: int) -> int | None:
        """Return the CPU time of one container since its creation; None if it is gone, or without cgroups.

        It takes no longer than reading one file.
        """
        if self._cgroups is None:
            return None
        try:
            return self._cgroups.cpu_ns(container_key(container, incarnation))
        except OSError:
            return None

    def _usage_of_processes(self, directory: Path) -> Usage:
        """Add up the processes of a container without cgroups: those that descend from its AppWorker.

        CPU time includes that of processes that have ended and were reaped inside.
        """
        init = load_record(str(directory / INIT_RECORD), InitRecord)
        if init is None or processes.start_ticks(init.pid) != init.start_ticks:
            return Usage()
        now_s = time.monotonic()
        if now_s - self._table_s > _TABLE_S:
            self._table, self._table_s = processes.process_table(), now_s
        pids = sorted(processes.with_descendants({init.pid}, self._table))
        return Usage(
            cpu_ns=sum(processes.cpu_ticks(pid) for pid in pids) * 1_000_000_000 // _TICKS_PER_S,
            memory_bytes=sum(processes.memory_bytes(pid) for pid in pids),
            pids=len(pids),
        )

    def _disk_bytes(self, directory: Path) -> int:
        """Add up the contents of a container's disk volumes.

        Volumes of enforced size are measured by their file system, plain directories by counting their files.
        """
        plan = load_record(str(directory / PLAN_NAME), LaunchPlan)
        init = load_record(str(directory / INIT_RECORD), InitRecord)
        if plan is None:
            return 0
        runs = init is not None and processes.start_ticks(init.pid) == init.start_ticks
        total = 0
        for index, volume in enumerate(plan.volumes):
            plain = plain_path(str(directory), index)
            if os.path.isdir(plain):
                total += plain_used_bytes(plain, _PLAIN_ENTRIES_MAX)
            elif init is not None and runs and volume.medium is not Medium.TMPFS:
                with contextlib.suppress(OSError):
                    stat = os.statvfs(f"/proc/{init.pid}/root{volume.path}")
                    total += (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        return total
