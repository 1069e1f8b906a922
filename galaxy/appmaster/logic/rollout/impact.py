"""The impact of a new revision on a pod that runs an old one."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from msgspec.structs import replace

from galaxy.model.jobspec.demand import size_changes
from galaxy.model.jobspec.spec import JobSpec, TaskSpec
from galaxy.model.jobspec.task_diff import TaskChange, compare


class Impact(IntEnum):
    """What an update does to the programs of a pod, from least to most.

    ``NONE``: the pod needs no order. ``IN_PLACE``: an order that does not touch the program (health
    check, restart policy, stop command, services). ``RELOAD``: the running program is given new data.
    ``REDEPLOY``: the program is stopped and another one started.
    """

    NONE = 0
    IN_PLACE = 1
    RELOAD = 2
    REDEPLOY = 3


def impact(old: JobSpec, new: JobSpec) -> Impact:
    """Return the impact of moving a pod from ``old`` to ``new``: the largest impact on any task."""
    before = {task.name: task for task in old.pod.tasks}
    if list(before) != [task.name for task in new.pod.tasks]:
        return Impact.REDEPLOY
    most = Impact.IN_PLACE if old.deploy.stop_timeout != new.deploy.stop_timeout else Impact.NONE
    for task in new.pod.tasks:
        most = max(most, _task_impact(before[task.name], task))
    return most


def effects_of(old: JobSpec, new: JobSpec) -> tuple[str, ...]:
    """Return what each change of an update does to running pods: ``field: change: what happens``."""
    effects = [
        f"{change}: in place, or the pod moves if its host lacks room" for change in size_changes(old, new)
    ]
    before = {task.name: task for task in old.pod.tasks}
    for task in new.pod.tasks:
        was = before.get(task.name)
        if was is None:
            continue
        for field in TaskSpec.__struct_fields__:
            change = _change_of(field, was, task)
            if change is not None:
                effects.append(f"pod.tasks.{task.name}.{field}: {_EFFECTS[change]}")
    if old.deploy.replica != new.deploy.replica:
        counts = f"deploy.replica: {old.deploy.replica} -> {new.deploy.replica}"
        what = "new pods start" if new.deploy.replica > old.deploy.replica else "the last pods are removed"
        effects.append(f"{counts}: {what}")
    return tuple(effects)


def _change_of(field: str, old: TaskSpec, new: TaskSpec) -> TaskChange | None:
    """Return what the change of one field requires; None if it has not changed, or resizes the container."""
    if field in _SIZES or getattr(old, field) == getattr(new, field):
        return None
    return compare(old, replace(old, **{field: getattr(new, field)}))


def _task_impact(old: TaskSpec, new: TaskSpec) -> Impact:
    return Impact.NONE if old == new else _IMPACTS[compare(old, new)]


_IMPACTS: Final = {
    TaskChange.NONE: Impact.IN_PLACE,
    TaskChange.RELOAD: Impact.RELOAD,
    TaskChange.REDEPLOY: Impact.REDEPLOY,
}

_EFFECTS: Final = {
    TaskChange.NONE: "in place",
    TaskChange.RELOAD: "the program reloads its data",
    TaskChange.REDEPLOY: "the program restarts in its container",
}
_SIZES: Final = frozenset({"cpu", "memory", "blkio", "pids"})
