"""The cgroup limits of a container and of its tasks, derived from what the container demands."""

from __future__ import annotations

from typing import Final

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.container import Demand
from galaxy.model.messages.worker import EXECS_MAX
from galaxy.units import MIB

INIT_MEMORY_BYTES: Final = 32 * MIB
"""Memory of PID 1 beside its tasks: its own few MiB, and buffers while it unpacks packages."""
INIT_CPU_MILLI: Final = 100
INIT_PIDS: Final = 1 + EXECS_MAX + 31
"""PID 1, one supervising process for each exec, and children on their way into a task's cgroup."""
COMMAND_PIDS: Final = 6
"""Supervising processes of a task's commands (check, reload, stop), and of those that are being killed."""


class TaskLimits(Struct, frozen=True, kw_only=True):
    """Limits of one task's cgroup: millicores, bytes, counts; 0 means no limit.

    ``cpu_milli`` is always a weight, and also a ceiling if ``cpu_hard``. ``memory_hard_bytes`` is a
    ceiling; ``memory_soft_bytes`` is protected from reclaim.
    """

    name: str
    cpu_milli: int
    cpu_hard: bool
    memory_hard_bytes: int
    memory_soft_bytes: int
    pids_max: int
    io_weight: int


class ContainerLimits(Struct, frozen=True, kw_only=True):
    """Limits of a container's cgroup, and of the task cgroups inside it; see ``TaskLimits``."""

    cpu_milli: int
    cpu_hard: bool
    memory_hard_bytes: int
    memory_soft_bytes: int
    pids_max: int
    io_weight: int
    tasks: tuple[TaskLimits, ...]


def limits_of(demand: Demand) -> ContainerLimits:
    """Derive every cgroup limit from ``demand``.

    Pages of a tmpfs volume are charged to the task that touches them first. The limit of each task
    therefore includes all tmpfs volumes. The limit of the container includes them once: it is the
    sum of its tasks' memory, its tmpfs volumes and what PID 1 needs.
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
        pids_max=sum(task.pids_max + COMMAND_PIDS for task in tasks) + INIT_PIDS,
        io_weight=max((task.io_weight for task in tasks), default=0),
        tasks=tasks,
    )
