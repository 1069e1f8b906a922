"""The demand of a job's containers, and which changes of a job need new containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from galaxy.model.jobspec.spec import (
    CpuSpec,
    JobSpec,
    MemorySpec,
    NetworkSpec,
    PortSpec,
    TaskSpec,
    VolumeSpec,
)
from galaxy.model.messages.container import Constraints, Demand, PortDemand, TaskDemand, VolumeDemand
from galaxy.units import format_bytes, format_cpu

T = TypeVar("T")

CONSTRAINTS: Final = Constraints.__struct_fields__
"""Fields of ``DeploySpec`` that are passed on as ``Constraints``."""


def demand_of(spec: JobSpec) -> Demand:
    """Return the demand of each container of ``spec``: millicores and bytes, task by task."""
    tasks = spec.pod.tasks
    return Demand(
        tasks=tuple(_task_demand(task) for task in tasks),
        workspace=_volume_demand(spec.pod.workspace),
        volumes=tuple(_volume_demand(volume) for volume in spec.pod.volumes),
        ports=tuple(PortDemand(name=port.name, port=port.port) for task in tasks for port in task.ports),
        pools=spec.deploy.pools,
        tag=spec.deploy.tag,
        max_per_host=spec.deploy.max_per_host,
        constraints=Constraints(**{name: getattr(spec.deploy, name) for name in CONSTRAINTS}),
        network="private" if any(task.network.mode == "private" for task in tasks) else "host",
    )


def container_changes(old: JobSpec, new: JobSpec) -> tuple[str, ...]:
    """Return every change that needs a new container: ``field: old -> new``."""
    changes: list[str] = []
    _compare(changes, "type", old.type, new.type)
    _compare(changes, "deploy.max_per_host", old.deploy.max_per_host, new.deploy.max_per_host)
    _compare(changes, "deploy.pools", old.deploy.pools, new.deploy.pools, _comma_list)
    _compare(changes, "deploy.tag", old.deploy.tag, new.deploy.tag, lambda tag: tag or "none")
    for name in CONSTRAINTS:
        before, after = getattr(old.deploy, name), getattr(new.deploy, name)
        _compare(changes, f"deploy.{name}", before, after, _words)
    _compare(changes, "pod.workspace", old.pod.workspace, new.pod.workspace, _volume)
    _compare(changes, "pod.volumes", old.pod.volumes, new.pod.volumes, _volumes)
    old_tasks = {task.name: task for task in old.pod.tasks}
    new_tasks = {task.name: task for task in new.pod.tasks}
    _compare(changes, "pod.tasks", tuple(old_tasks), tuple(new_tasks), _comma_list)
    for name in old_tasks:
        if name in new_tasks:
            _compare_tasks(changes, f"pod.tasks.{name}", old_tasks[name], new_tasks[name])
    return tuple(changes)


def size_changes(old: JobSpec, new: JobSpec) -> tuple[str, ...]:
    """Return every change that resizes the containers, which then go on to run: ``field: old -> new``."""
    changes: list[str] = []
    new_tasks = {task.name: task for task in new.pod.tasks}
    for before in old.pod.tasks:
        after = new_tasks.get(before.name)
        if after is None:
            continue
        where = f"pod.tasks.{before.name}"
        _compare(changes, f"{where}.cpu", before.cpu, after.cpu, _cpu)
        _compare(changes, f"{where}.memory", before.memory, after.memory, _memory)
        _compare(changes, f"{where}.blkio.weight", before.blkio.weight, after.blkio.weight)
        _compare(changes, f"{where}.pids", before.pids, after.pids)
    return tuple(changes)


def _compare_tasks(changes: list[str], where: str, old: TaskSpec, new: TaskSpec) -> None:
    _compare(changes, f"{where}.network", old.network, new.network, _network)
    _compare(changes, f"{where}.ports", old.ports, new.ports, _ports)


def _compare(changes: list[str], field: str, old: T, new: T, show: Callable[[T], str] = str) -> None:
    if old == new:
        return
    before, after = show(old), show(new)
    if before == after:  # Rounding makes them look equal: show them exactly.
        before, after = str(old), str(new)
    changes.append(f"{field}: {before} -> {after}")


def _task_demand(task: TaskSpec) -> TaskDemand:
    return TaskDemand(
        name=task.name,
        cpu_milli=task.cpu.millicores,
        memory_bytes=task.memory.size,
        cpu_excess=task.cpu.excess,
        memory_excess=task.memory.excess,
        pids_max=task.pids,
        io_weight=task.blkio.weight,
    )


def _volume_demand(volume: VolumeSpec) -> VolumeDemand:
    return VolumeDemand(
        path=volume.path,
        size_bytes=volume.size,
        medium=volume.medium,
        readonly=volume.readonly,
        exclusive=volume.exclusive,
    )


def _cpu(cpu: CpuSpec) -> str:
    return format_cpu(cpu.millicores) + (" excess" if cpu.excess else "")


def _memory(memory: MemorySpec) -> str:
    return format_bytes(memory.size) + (" excess" if memory.excess else "")


def _network(network: NetworkSpec) -> str:
    return f"{network.mode}, receive {network.recv_bps} bit/s, send {network.send_bps} bit/s"


def _ports(ports: tuple[PortSpec, ...]) -> str:
    return _comma_list(tuple(f"{port.name}={port.port or 'dynamic'}" for port in ports))


def _volumes(volumes: tuple[VolumeSpec, ...]) -> str:
    return _comma_list(tuple(_volume(volume) for volume in volumes))


def _volume(volume: VolumeSpec) -> str:
    marks = (("readonly", volume.readonly), ("exclusive", volume.exclusive))
    texts = [volume.path, format_bytes(volume.size), volume.medium, *(mark for mark, on in marks if on)]
    return " ".join(texts)


def _words(value: str | tuple[str, ...]) -> str:
    return _comma_list((value,) if isinstance(value, str) and value else tuple(value))


def _comma_list(texts: tuple[str, ...]) -> str:
    return ", ".join(texts) or "none"
