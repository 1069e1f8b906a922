"""The impact of a new revision on a pod that runs an old one."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

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


def _task_impact(old: TaskSpec, new: TaskSpec) -> Impact:
    return Impact.NONE if old == new else _IMPACTS[compare(old, new)]


_IMPACTS: Final = {
    TaskChange.NONE: Impact.IN_PLACE,
    TaskChange.RELOAD: Impact.RELOAD,
    TaskChange.REDEPLOY: Impact.REDEPLOY,
}
