"""What separates two specs of a task: nothing that matters, new data, or a new program."""

from __future__ import annotations

from enum import StrEnum

from galaxy.model.jobspec.spec import TaskSpec


class TaskChange(StrEnum):
    """``none`` is taken over without touching the program (health, restart, stop, services)."""

    NONE = "none"
    RELOAD = "reload"
    REDEPLOY = "redeploy"


def between(old: TaskSpec, new: TaskSpec) -> TaskChange:
    """Return what has to be done to a task of ``old`` to make it one of ``new``.

    New versions of data packages are reloaded where ``new`` says how; data that appears or
    vanishes altogether is a new deployment. Limits and ports are the container's: they are not
    looked at. AppWorker acts by this, and AppMaster drains and counts by it.
    """
    if (old.start, old.package, old.env) != (new.start, new.package, new.env):
        return TaskChange.REDEPLOY
    before = old.data.packages if old.data else ()
    after = new.data.packages if new.data else ()
    if before == after:
        return TaskChange.NONE
    if new.data and new.data.reload and before:
        return TaskChange.RELOAD
    return TaskChange.REDEPLOY
