"""What a container is made from: the plan that an agent hands over, and the limits that follow from it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from galaxy.errors import UsageError
from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.container import Demand, VolumeDemand
from galaxy.model.messages.worker import EXECS_MAX
from galaxy.units import MIB

FULL: Final = "full"
USERNS: Final = "userns"
PROCESS: Final = "process"

INIT_MEMORY_BYTES: Final = 32 * MIB
"""What PID 1 may use beside its tasks: its own few MiB, and buffers while it unpacks."""
INIT_CPU_MILLI: Final = 100
INIT_PIDS: Final = 1 + EXECS_MAX + 31
"""PID 1, the keepers of commands, and children on their way to a task's cgroup."""

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

_DOTS: Final = (".", "..")
_NAME_BYTES_MAX: Final = 255
_NO_NAME: Final = re.compile(r"[/\x00-\x1f\x7f-\x9f]")
"""Control characters too: the kernel makes no cgroup with a newline in its name."""
_KEY_BYTES_MAX: Final = 200
_PATH_BYTES_MAX: Final = 1024
"""Of 4096 that a path may have, most is for where the volume lies on the host."""
_AMOUNT_MAX: Final = 1 << 53


class LaunchPlan(Struct, frozen=True, kw_only=True):
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
    """-1: programs run as PID 1 itself does (lesser modes only)."""
    directory: str = ""
    log_directory: str = ""
    cgroup_root: str = "galaxy"
    mode: str = FULL
    system_dirs: tuple[str, ...] = ()
    """More of the host's directories that programs see, read-only."""

    @property
    def key(self) -> str:
        return container_key(self.container, self.incarnation)

    @property
    def volumes(self) -> tuple[VolumeDemand, ...]:
        """The workspace and all other volumes, outer before inner."""
        everything = (self.demand.workspace, *self.demand.volumes)
        return tuple(sorted(everything, key=lambda volume: (volume.path.count("/"), volume.path)))


class TaskLimits(Struct, frozen=True, kw_only=True):
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


class ContainerLimits(Struct, frozen=True, kw_only=True):
    """Limits of a container's cgroup, and of the task cgroups inside it."""

    cpu_milli: int
    cpu_hard: bool
    memory_hard_bytes: int
    memory_soft_bytes: int
    pids_max: int
    io_weight: int
    tasks: tuple[TaskLimits, ...]


def container_key(container: str, incarnation: int) -> str:
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


def is_key(container: str, incarnation: int) -> bool:
    """Return whether one life's directory and cgroup can be called so; some room is for endings."""
    key = container_key(container, incarnation)
    return bool(container) and incarnation >= 0 and _is_name(key) and len(os.fsencode(key)) <= _KEY_BYTES_MAX


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
            two tasks share a name, or one is called like PID 1's own cgroup; or a name or an
            amount is none that a kernel takes.
    """
    problems = [*_path_problems(plan), *_name_problems(plan), *_amount_problems(plan)]
    if problems:
        raise UsageError(f"cannot make container {plan.key[:80]}", details=sorted(set(problems)))


def _path_problems(plan: LaunchPlan) -> Iterator[str]:
    paths = [volume.path for volume in plan.volumes]
    for path in paths:
        if not path.startswith("/") or os.path.normpath(path) != path:
            yield f"volume path {path[:80]!r} is not an absolute path in its shortest form"
        elif path in _KEPT or path.startswith(("/proc/", "/sys/", "/dev/")):
            yield f"volume path {path} belongs to the system"
        elif len(os.fsencode(path)) > _PATH_BYTES_MAX or not all(map(_is_name, path[1:].split("/"))):
            yield f"volume path {path[:80]!r} is none that a file can have"
        elif paths.count(path) > 1:
            yield f"volume path {path} is there more than once"


def _name_problems(plan: LaunchPlan) -> Iterator[str]:
    if plan.mode == FULL and (plan.run_uid < 0 or plan.run_gid < 0):
        yield "nobody is named to run its programs, and PID 1 is root"
    names = ["init", *(task.name for task in plan.demand.tasks)]
    for name in set(names):
        if names.count(name) > 1:
            yield f"task name {name[:80]!r} is not its own"
        if not _is_name(name):
            yield f"task name {name[:80]!r} is not a name"
    if not is_key(plan.container, plan.incarnation):
        yield f"container id {plan.container[:80]!r} cannot be a directory's name"
    for name in plan.ports:
        if "\0" in name or "=" in name:
            yield f"port name {name[:80]!r} is not a name"


def _amount_problems(plan: LaunchPlan) -> Iterator[str]:
    for volume in plan.volumes:
        if not 0 < volume.size_bytes <= _AMOUNT_MAX:
            yield f"volume {volume.path[:80]!r} has an impossible size"
    for task in plan.demand.tasks:
        amounts = (task.cpu_milli, task.memory_bytes, task.pids_max, task.io_weight)
        if min(amounts) < 0 or max(amounts) > _AMOUNT_MAX:
            yield f"task {task.name[:80]!r} has an impossible limit"
    if not all(0 < port < 65536 for port in plan.ports.values()):
        yield "a port is not between 1 and 65535"


def _is_name(name: str) -> bool:
    return 0 < len(os.fsencode(name)) <= _NAME_BYTES_MAX and not _NO_NAME.search(name) and name not in _DOTS


def hostname_of(container: str) -> str:
    """Return the host name inside a container: letters, digits and hyphens, 63 at most."""
    name = "".join(char if char.isalnum() and char.isascii() else "-" for char in container)
    return name[:63].strip("-") or "container"
