"""Which hierarchies and controllers of a host limit containers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from galaxy.container.cgroup.controller import Controller
from galaxy.container.cgroup.cpu import CpuV1, CpuV2
from galaxy.container.cgroup.detect import Hierarchies
from galaxy.container.cgroup.devices import DevicesV1, DevicesV2
from galaxy.container.cgroup.files import Files
from galaxy.container.cgroup.io import BlkioV1, IoV2
from galaxy.container.cgroup.memory import MemoryV1, MemoryV2
from galaxy.container.cgroup.pids import Pids

UNIFIED: Final = "unified"
"""Name of the v2 tree, beside the names of v1 hierarchies."""


def mounts_of(hierarchies: Hierarchies) -> dict[str, str]:
    """Return the mount points of the hierarchies in which containers get cgroups, by name."""
    if hierarchies.version == "v2":
        return {UNIFIED: hierarchies.v2}
    useful: Sequence[str] = ("cpu", "cpuacct", "memory", "pids", "devices", "blkio")
    mounts = {name: hierarchies.v1[name] for name in useful if name in hierarchies.v1}
    if hierarchies.v2 and os.path.exists(os.path.join(hierarchies.v2, "cgroup.procs")):
        return {UNIFIED: hierarchies.v2, **mounts}
    if "freezer" in hierarchies.v1:
        mounts["freezer"] = hierarchies.v1["freezer"]
    return mounts


def controllers_of(hierarchies: Hierarchies, mounts: Mapping[str, str], files: Files) -> list[Controller]:
    """Return the controllers of the version that is used. ``mounts`` are those of ``mounts_of``."""
    if hierarchies.version == "v2":
        chosen: list[Controller] = [CpuV2(files), MemoryV2(files), Pids(files), DevicesV2(files)]
        return chosen + [IoV2(files)] * ("io" in hierarchies.v2_controllers)
    chosen = [CpuV1(), MemoryV1(files, swap=_host_has_swap()), Pids(files)]
    if "devices" in mounts:
        chosen.append(DevicesV1())
    if "blkio" in mounts:
        chosen.append(BlkioV1(files, "blkio.bfq.weight"))
    return chosen


def can_limit(controller: Controller, root: str, files: Files) -> bool:
    """Return whether the kernel has the files of ``controller``; ``root`` is its prepared root cgroup.

    The file of an io weight exists only where the kernel has an io scheduler with weights.
    """
    if not isinstance(controller, BlkioV1 | IoV2):
        return True
    names = ("blkio.bfq.weight",) if isinstance(controller, BlkioV1) else ("io.weight", "io.bfq.weight")
    return any(files.has(f"{root}/{name}") for name in names)


def _host_has_swap() -> bool:
    with open("/proc/swaps") as file:
        return len(file.readlines()) > 1
