"""What a new revision does to a pod that runs an old one."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from galaxy.model.jobspec.spec import JobSpec, TaskSpec
from galaxy.model.jobspec.task_diff import TaskChange, compare


class Impact(IntEnum):
    """How deep a change goes; the deeper one counts.

    ``NONE``: nothing that a pod knows of. ``QUIET``: taken over without touching the program
    (health check, restart, stop command, services). ``RELOAD``: new data is brought to the
    running program. ``REDEPLOY``: the program is stopped and another one started.
    """

    NONE = 0
    QUIET = 1
    RELOAD = 2
    REDEPLOY = 3


def impact(old: JobSpec, new: JobSpec) -> Impact:
    """Return what bringing a pod from ``old`` to ``new`` does to its programs."""
    before = {task.name: task for task in old.pod.tasks}
    if list(before) != [task.name for task in new.pod.tasks]:
        return Impact.REDEPLOY
    deepest = Impact.QUIET if old.deploy.stop_timeout != new.deploy.stop_timeout else Impact.NONE
    for task in new.pod.tasks:
        deepest = max(deepest, _task_impact(before[task.name], task))
    return deepest


def _task_impact(old: TaskSpec, new: TaskSpec) -> Impact:
    if old == new:
        return Impact.NONE
    return _DEPTHS[compare(old, new)]


_DEPTHS: Final = {
    TaskChange.NONE: Impact.QUIET,
    TaskChange.RELOAD: Impact.RELOAD,
    TaskChange.REDEPLOY: Impact.REDEPLOY,
}
