"""What a container is made from: the plan that an agent hands over, and the limits that follow from it."""

from __future__ import annotations

import os
from typing import Final

from galaxy.errors import UsageError
from galaxy.model.base import Noun
from galaxy.model.container import Demand, VolumeDemand
from galaxy.model.spec import Medium
from galaxy.units import MIB

FULL: Final = "full"
USERNS: Final = "userns"
PROCESS: Final = "process"

INIT_MEMORY_BYTES: Final = 32 * MIB
"""What PID 1 may use beside its tasks: its own few MiB, and buffers while it unpacks."""
INIT_CPU_MILLI: Final = 100
INIT_PIDS: Final = 32

_KEPT: Final = (
    "/",
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/sbin",
    "/sys",
    "/usr",
)
"""Paths that are the container's own and cannot be volumes."""


class LaunchPlan(Noun, frozen=True, kw_only=True):
    """One life of a container, complete.

    ``directory`` holds its socket and volumes on the host, ``log_directory`` its logs; empty
    means the places below the agent's state directory that ``Runtime`` gives them.
    """

    container: str
    incarnation: int
    host: str
    """Name of the agent."""
    demand: Demand
    ports: dict[str, int] = {}
    run_uid: int = -1
    run_gid: int = -1
    """-1: programs run as PID 1 itself does (lesser modes)."""
    directory: str = ""
    log_directory: str = ""
    cgroup_root: str = "galaxy"
    mode: str = FULL
    system_dirs: tuple[str, ...] = ()
    """More of the host's directories that programs see, read-only."""

    @property
    def key(self) -> str:
        return life_key(self.container, self.incarnation)

    @property
    def volumes(self) -> tuple[VolumeDemand, ...]:
        """The workspace and all other volumes, outer before inner."""
        everything = (self.demand.workspace, *self.demand.volumes)
        return tuple(sorted(everything, key=lambda volume: (volume.path.count("/"), volume.path)))


class TaskLimits(Noun, frozen=True, kw_only=True):
    """Limits of one task's cgroup: millicores, bytes, counts; 0 is no limit.

    ``cpu_milli`` is a weight always and a ceiling (``cpu_hard``) unless excess is allowed;
    ``memory_hard_bytes`` is a ceiling, ``memory_soft_bytes`` what is protected.
    """

    name: str
    cpu_milli: int
    cpu_hard: bool
    memory_hard_bytes: int
    memory_soft_bytes: int
    pids_max: int
    io_weight: int


class ContainerLimits(Noun, frozen=True, kw_only=True):
    """Limits of a container's cgroup, and of the task cgroups inside it."""

    cpu_milli: int
    cpu_hard: bool
    memory_hard_bytes: int
    memory_soft_bytes: int
    pids_max: int
    io_weight: int
    tasks: tuple[TaskLimits, ...]


def life_key(container: str, incarnation: int) -> str:
    """Return the name of one life's directory and cgroup."""
    return f"{container}_{incarnation}"


def split_key(key: str) -> tuple[str, int]:
    """Return the container and incarnation that a directory or cgroup name stands for.

    Raises:
        ValueError: ``key`` is not such a name.
    """
    container, separator, incarnation = key.rpartition("_")
    if not separator or not container or not incarnation.isdecimal():
        raise ValueError(f"{key!r} is not the name of a container's life")
    return container, int(incarnation)


def limits_of(demand: Demand) -> ContainerLimits:
    """Derive every cgroup limit from ``demand``.

    Pages of a tmpfs volume are charged to whichever task touches them first, so each task may
    use all tmpfs volumes beside its own memory; the container as a whole may use them once.
    The container's limit is the sum of its tasks', its tmpfs volumes and what PID 1 needs.
    """
    tmpfs = sum(v.size_bytes for v in (demand.workspace, *demand.volumes) if v.medium is Medium.TMPFS)
    tasks = tuple(
        TaskLimits(
            name=task.name,
            cpu_milli=task.cpu_milli,
            cpu_hard=not task.cpu_excess,
            memory_hard_bytes=0 if task.memory_excess else task.memory_bytes + tmpfs,
            memory_soft_bytes=task.memory_bytes if task.memory_excess else 0,
            pids_max=task.pids_max,
            io_weight=task.io_weight,
        )
        for task in demand.tasks
    )
    memory = sum(task.memory_bytes for task in demand.tasks) + tmpfs + INIT_MEMORY_BYTES
    hard = all(task.memory_hard_bytes for task in tasks)
    return ContainerLimits(
        cpu_milli=sum(task.cpu_milli for task in tasks) + INIT_CPU_MILLI,
        cpu_hard=all(task.cpu_hard for task in tasks),
        memory_hard_bytes=memory if hard else 0,
        memory_soft_bytes=0 if hard else memory,
        pids_max=sum(task.pids_max for task in tasks) + INIT_PIDS,
        io_weight=max((task.io_weight for task in tasks), default=0),
        tasks=tasks,
    )


def check_plan(plan: LaunchPlan) -> None:
    """Refuse a plan that cannot be made on any host.

    Raises:
        UsageError: a volume's path is not absolute and normal, is the system's, or is there twice;
            or two tasks share a name, or one is called like PID 1's own cgroup.
    """
    problems = []
    paths = [volume.path for volume in plan.volumes]
    for path in paths:
        if not path.startswith("/") or os.path.normpath(path) != path:
            problems.append(f"volume path {path!r} is not an absolute path in its shortest form")
        elif path in _KEPT or path.startswith(("/proc/", "/sys/", "/dev/")):
            problems.append(f"volume path {path} belongs to the system")
        elif paths.count(path) > 1:
            problems.append(f"volume path {path} is there more than once")
    names = ["init", *(task.name for task in plan.demand.tasks)]
    problems += [f"task name {name!r} is not its own" for name in set(names) if names.count(name) > 1]
    problems += [
        f"task name {name!r} is not a name" for name in names if "/" in name or name in ("", ".", "..")
    ]
    if "/" in plan.container or not plan.container:
        problems.append(f"container id {plan.container!r} cannot be a directory's name")
    if problems:
        raise UsageError(f"cannot make container {plan.key}", details=sorted(set(problems)))


def hostname_of(container: str) -> str:
    """Return the host name inside a container: letters, digits and hyphens, 63 at most."""
    name = "".join(char if char.isalnum() and char.isascii() else "-" for char in container)
    return name[:63].strip("-") or "container"
