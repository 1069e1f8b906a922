"""What a pod looks like from outside: ``ObservedPod``, derived from its tasks."""

from __future__ import annotations

from typing import Final

from galaxy.model.messages.pod import ObservedPod, ObservedTask, PodState, TaskState
from galaxy.worker_entry.logic.records import Pod, Reload, Task

WORST_FIRST: Final = (
    TaskState.FAILED,
    TaskState.BACKOFF,
    TaskState.STOPPING,
    TaskState.DEPLOYING,
    TaskState.PENDING,
    TaskState.RUNNING,
    TaskState.STOPPED,
    TaskState.FINISHED,
)
"""A pod is in the state of its task that comes first here; all finished is finished."""


def found(pod: Pod, *, pod_id: str, incarnation: int, pid: int, ports: dict[str, int]) -> ObservedPod:
    """Return the report of ``pod``; the agent adds usage, and the pid where it alone knows it."""
    return ObservedPod(
        pod=pod_id,
        incarnation=incarnation,
        generation=pod.order.generation if pod.order else 0,
        state=state_of(pod),
        healthy=_healthy(pod),
        tasks=tuple(_task(task) for task in pod.tasks),
        pid=pid,
        ports=ports,
    )


def state_of(pod: Pod) -> PodState:
    """Return the pod's state: its worst task's."""
    if pod.order is None:
        return PodState.PENDING
    present = {task.state for task in pod.tasks}
    for state in WORST_FIRST:
        if state in present:
            return PodState(state.value)
    return PodState.STOPPED if not pod.order.run else PodState.PENDING


def _healthy(pod: Pod) -> bool:
    up = [task for task in pod.tasks if task.state is TaskState.RUNNING]
    others_done = all(task in up or task.state is TaskState.FINISHED for task in pod.tasks)
    return bool(up) and others_done and all(verdict_of(task) is True for task in up)


def verdict_of(task: Task) -> bool | None:
    """Return a task's health; new data that is not yet loaded makes it unhealthy."""
    if task.state is not TaskState.RUNNING:
        return None
    return False if task.reload is not Reload.NONE else task.health.verdict


def _task(task: Task) -> ObservedTask:
    package = (task.live or task.spec).package
    return ObservedTask(
        name=task.name,
        state=task.state,
        restarts=task.restarts,
        healthy=verdict_of(task),
        started_s=task.started_s if task.live else None,
        last_exit=task.last_exit,
        reason=task.reason,
        version=package.version if package else "",
    )
