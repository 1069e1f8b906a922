"""The transition table of a task's states, and the function that applies it."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from galaxy.model.messages.pod import TaskState
from galaxy.statemachine.transitions import TransitionTable
from galaxy.worker_entry.logic.events import (
    Completed,
    Crashed,
    DeployBegan,
    DeployResumed,
    GaveUp,
    PackagesPlaced,
    Restarted,
    StopBegan,
    TaskEmptied,
)
from galaxy.worker_entry.logic.records import SupervisedTask

TRANSITIONS: Final = TransitionTable(
    {
        (TaskState.PENDING, DeployBegan): TaskState.DEPLOYING,
        (TaskState.PENDING, StopBegan): TaskState.STOPPING,
        (TaskState.PENDING, GaveUp): TaskState.FAILED,
        (TaskState.DEPLOYING, DeployBegan): TaskState.DEPLOYING,
        (TaskState.DEPLOYING, StopBegan): TaskState.STOPPING,
        (TaskState.DEPLOYING, PackagesPlaced): TaskState.RUNNING,
        (TaskState.DEPLOYING, GaveUp): TaskState.FAILED,
        (TaskState.RUNNING, DeployBegan): TaskState.DEPLOYING,
        (TaskState.RUNNING, StopBegan): TaskState.STOPPING,
        (TaskState.RUNNING, Crashed): TaskState.BACKOFF,
        (TaskState.RUNNING, GaveUp): TaskState.FAILED,
        (TaskState.RUNNING, Completed): TaskState.FINISHED,
        (TaskState.BACKOFF, DeployBegan): TaskState.DEPLOYING,
        (TaskState.BACKOFF, StopBegan): TaskState.STOPPING,
        (TaskState.BACKOFF, Restarted): TaskState.RUNNING,
        (TaskState.STOPPING, StopBegan): TaskState.STOPPING,
        (TaskState.STOPPING, TaskEmptied): TaskState.STOPPED,
        (TaskState.STOPPED, DeployBegan): TaskState.DEPLOYING,
        (TaskState.STOPPED, StopBegan): TaskState.STOPPING,
        (TaskState.STOPPED, DeployResumed): TaskState.DEPLOYING,
        (TaskState.STOPPED, GaveUp): TaskState.FAILED,
        (TaskState.FINISHED, DeployBegan): TaskState.DEPLOYING,
        (TaskState.FINISHED, StopBegan): TaskState.STOPPING,
        (TaskState.FAILED, DeployBegan): TaskState.DEPLOYING,
        (TaskState.FAILED, StopBegan): TaskState.STOPPING,
    }
)
"""Every valid pair.

``Crashed`` has no entry for DEPLOYING: when a program crashes while its successor is being
deployed, the task's state does not change.
"""


def move(task: SupervisedTask, event: type, **changes: Any) -> SupervisedTask:
    """Return ``task`` with ``changes`` and in the state after ``event``. The pair must be valid."""
    state = TRANSITIONS.next_state(task.state, event)
    assert state is not None, f"{event.__name__} is not valid for a task that is {task.state}"
    return replace(task, state=state, **changes)
