"""The difference between two specs of a task: none, new data, or a new program.

AppWorker acts on it; AppMaster decides by it which pods to drain.
"""

from __future__ import annotations

from enum import StrEnum

from galaxy.model.jobspec.spec import TaskSpec


class TaskChange(StrEnum):
    """What a new spec requires of a running task, from least to most.

    ``none`` covers health, restart, stop and services: they apply without touching the program.
    """

    NONE = "none"
    RELOAD = "reload"
    REDEPLOY = "redeploy"


def compare(old: TaskSpec, new: TaskSpec) -> TaskChange:
    """Return what must be done to a running task of spec ``old`` to make it one of spec ``new``.

    A new version of a data package is reloaded if ``new`` has a reload command. Data that is
    added to a task without any, or removed altogether, is a redeployment. Limits and ports belong
    to the container and are ignored here.
    """
    if (old.start, old.package, old.env, old.ulimits) != (new.start, new.package, new.env, new.ulimits):
        return TaskChange.REDEPLOY
    before = old.data.packages if old.data else ()
    after = new.data.packages if new.data else ()
    if before == after:
        return TaskChange.NONE
    if new.data and new.data.reload and before:
        return TaskChange.RELOAD
    return TaskChange.REDEPLOY
