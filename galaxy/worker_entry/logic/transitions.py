"""The law of a task's states, as data, and the one function that moves a task along it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from galaxy.model.messages.pod import TaskState
from galaxy.statemachine.transitions import TransitionTable
from galaxy.worker_entry.logic.events import (
    Begun,
    Completed,
    Crashed,
    Emptied,
    GaveUp,
    Halted,
    PackagesPlaced,
    Restarted,
    Resumed,
)
from galaxy.worker_entry.logic.records import Task

TRANSITIONS: Final = TransitionTable({
    (TaskState.PENDING, Begun): TaskState.DEPLOYING,    (TaskState.PENDING, Halted): TaskState.STOPPING,
    (TaskState.PENDING, GaveUp): TaskState.FAILED,
    (TaskState.DEPLOYING, Begun): TaskState.DEPLOYING,  (TaskState.DEPLOYING, Halted): TaskState.STOPPING,
    (TaskState.DEPLOYING, PackagesPlaced): TaskState.RUNNING, (TaskState.DEPLOYING, GaveUp): TaskState.FAILED,
    (TaskState.RUNNING, Begun): TaskState.DEPLOYING,    (TaskState.RUNNING, Halted): TaskState.STOPPING,
    (TaskState.RUNNING, Crashed): TaskState.BACKOFF,    (TaskState.RUNNING, GaveUp): TaskState.FAILED,
    (TaskState.RUNNING, Completed): TaskState.FINISHED,
    (TaskState.BACKOFF, Begun): TaskState.DEPLOYING,    (TaskState.BACKOFF, Halted): TaskState.STOPPING,
    (TaskState.BACKOFF, Restarted): TaskState.RUNNING,
    (TaskState.STOPPING, Halted): TaskState.STOPPING,   (TaskState.STOPPING, Emptied): TaskState.STOPPED,
    (TaskState.STOPPED, Begun): TaskState.DEPLOYING,    (TaskState.STOPPED, Halted): TaskState.STOPPING,
    (TaskState.STOPPED, Resumed): TaskState.DEPLOYING,  (TaskState.STOPPED, GaveUp): TaskState.FAILED,
    (TaskState.FINISHED, Begun): TaskState.DEPLOYING,   (TaskState.FINISHED, Halted): TaskState.STOPPING,
    (TaskState.FAILED, Begun): TaskState.DEPLOYING,     (TaskState.FAILED, Halted): TaskState.STOPPING,
})  # fmt: skip
"""A program that crashes while its successor is being deployed moves nothing: no such pair."""


def move(task: Task, event: type, **changes: Any) -> Task:
    """Return ``task`` after ``event``, with ``changes``; callers only ask for legal pairs."""
    state = TRANSITIONS.next_state(task.state, event)
    assert state is not None, f"{event.__name__} is not legal for a task that is {task.state}"
    return msgspec.structs.replace(task, state=state, **changes)
