"""What a pod reports to its agent: ``ObservedPod``, derived from its tasks."""

from __future__ import annotations

from typing import Final

from galaxy.model.messages.pod import ObservedPod, ObservedTask, PodState, TaskState
from galaxy.worker_entry.logic.records import ReloadPhase, SupervisedPod, SupervisedTask

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
"""A pod has the first of these states that one of its tasks has; FINISHED only if all have it."""


def observe(
    pod: SupervisedPod, *, pod_id: str, incarnation: int, pid: int, ports: dict[str, int]
) -> ObservedPod:
    """Return the report of ``pod``. The agent adds usage, and ``pid`` where only it knows it."""
    return ObservedPod(
        pod=pod_id,
        incarnation=incarnation,
        generation=pod.order.generation if pod.order else 0,
        state=state_of(pod),
        healthy=_healthy(pod),
        tasks=tuple(_observe_task(task) for task in pod.tasks),
        pid=pid,
        ports=ports,
    )


def state_of(pod: SupervisedPod) -> PodState:
    """Return the pod's state, which is that of its worst task (``WORST_FIRST``)."""
    if pod.order is None:
        return PodState.PENDING
    present = {task.state for task in pod.tasks}
    for state in WORST_FIRST:
        if state in present:
            return PodState(state.value)
    return PodState.STOPPED if not pod.order.run else PodState.PENDING


def verdict_of(task: SupervisedTask) -> bool | None:
    """Return a task's health; it is unhealthy until new data has been loaded."""
    if task.state is not TaskState.RUNNING:
        return None
    return False if task.reload is not ReloadPhase.NONE else task.health.verdict


def _healthy(pod: SupervisedPod) -> bool:
    up = [task for task in pod.tasks if task.state is TaskState.RUNNING]
    others_done = all(task in up or task.state is TaskState.FINISHED for task in pod.tasks)
    return bool(up) and others_done and all(verdict_of(task) is True for task in up)


def _observe_task(task: SupervisedTask) -> ObservedTask:
    package = (task.running_spec or task.spec).package
    return ObservedTask(
        name=task.name,
        state=task.state,
        restarts=task.restarts,
        healthy=verdict_of(task),
        started_s=task.started_s if task.running_spec else None,
        last_exit=task.last_exit,
        reason=task.reason,
        version=package.version if package else "",
        oom_kills=task.oom_kills,
    )
