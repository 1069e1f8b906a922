"""The pod as a whole: what an order means for each task, and the one entry ``step``."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.jobspec.task_diff import TaskChange, between
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import PodOrder, TaskState
from galaxy.worker_entry.logic import health
from galaxy.worker_entry.logic import task as tasks
from galaxy.worker_entry.logic.effects import Effect, EndContainer
from galaxy.worker_entry.logic.events import Event, GaveUp, Ordered, QuitAsked, Ticked
from galaxy.worker_entry.logic.records import Pod, Reload, Task, Then
from galaxy.worker_entry.logic.task import Moved, but
from galaxy.worker_entry.logic.transitions import move


def step(pod: Pod, event: Event, now_s: float) -> tuple[Pod, tuple[Effect, ...]]:
    """Return the pod after ``event`` and what is owed now; ``pod`` is never touched."""
    match event:
        case Ordered():
            pod, effects = obey(pod, event.order, now_s)
        case QuitAsked():
            pod, effects = _quit(pod, event.stop_timeout_s, now_s)
        case Ticked():
            pod, effects = _each(pod, lambda task, order: tasks.tick(task, order, now_s))
        case _:
            name = event.task
            pod, effects = _each(
                pod,
                lambda task, order: (
                    tasks.take(task, event, order, now_s) if task.name == name else (task, ())
                ),
            )
    if any(task.gone for task in pod.tasks):
        pod = msgspec.structs.replace(pod, tasks=tuple(task for task in pod.tasks if not task.gone))
    if pod.quitting and not pod.ended and not any(_busy(task) for task in pod.tasks):
        return msgspec.structs.replace(pod, ended=True), (*effects, EndContainer())
    return pod, effects


def wake_s(pod: Pod) -> float | None:
    """Return when the pod wants a ``Ticked`` even if nothing else happens."""
    times = [time for task in pod.tasks if (time := tasks.due(task)) is not None]
    return min(times, default=None)


def obey(pod: Pod, order: PodOrder, now_s: float) -> tuple[Pod, tuple[Effect, ...]]:
    """Bring the pod to ``order``: a generation already obeyed, or an older one, changes nothing."""
    if pod.quitting or (pod.order is not None and order.generation <= pod.order.generation):
        return pod, ()
    before = {task.name: task for task in pod.tasks}
    wanted = {spec.name for spec in order.tasks}
    new_revision = pod.order is not None and order.revision != pod.order.revision
    result: list[Task] = []
    effects: list[Effect] = []
    for spec in order.tasks:
        old = before.get(spec.name)
        task, owed = _order_task(old or Task(spec=spec), spec, order, now_s, retry=new_revision)
        if order.run and old is None and spec.name not in pod.known:
            task, owed = _unknown(Task(spec=spec), pod.known), ()
        result.append(task)
        effects += owed
    for name, task in before.items():
        if name not in wanted:
            task, owed = tasks.halt(task, Then.LEAVE, order.stop_timeout, now_s)
            result.append(task)
            effects += owed
    return msgspec.structs.replace(pod, order=order, tasks=tuple(result)), tuple(effects)


def _order_task(task: Task, spec: TaskSpec, order: PodOrder, now_s: float, *, retry: bool) -> Moved:
    change = between(task.spec, spec)
    anew = change is TaskChange.REDEPLOY or order.redeploy
    if not order.run:
        return _rest(but(task, spec=spec), order, now_s)
    if order.redeploy:
        task = but(task, stale=task.stale or bool(task.placed))
    checks = health.check_of(task.spec, order.batch), health.check_of(spec, order.batch)
    task = but(task, spec=spec, restarts=0 if anew else task.restarts)
    match task.state:
        case TaskState.PENDING | TaskState.STOPPED:
            return tasks.begin(task, order, now_s)
        case TaskState.FINISHED:
            return tasks.begin(task, order, now_s) if anew else (task, ())
        case TaskState.FAILED:
            return tasks.begin(task, order, now_s) if anew or retry else (task, ())
        case TaskState.STOPPING:
            replacing = task.then is Then.PLACE and not anew and change is TaskChange.NONE
            return but(task, then=Then.PLACE if replacing else Then.DEPLOY), ()
        case TaskState.DEPLOYING:
            return tasks.begin(task, order, now_s) if anew or change is TaskChange.RELOAD else (task, ())
        case TaskState.BACKOFF:
            return tasks.begin(task, order, now_s) if anew else (task, ())
        case TaskState.RUNNING:
            if anew:
                return tasks.begin(task, order, now_s)
            if checks[0] != checks[1]:
                task = but(task, health=health.changed(task.health, checks[1], now_s))
            task = but(task, live=spec)
            if change is TaskChange.RELOAD or (retry and task.reload is Reload.FAILED):
                return tasks.begin_reload(task)
            return task, ()


def _rest(task: Task, order: PodOrder, now_s: float) -> Moved:
    """Stop a task, as ordered. What a batch program has done stays done."""
    if task.state is TaskState.FINISHED and order.batch:
        return task, ()
    if task.state is TaskState.STOPPED:
        return task, ()
    return tasks.halt(task, Then.REST, order.stop_timeout, now_s)


def _unknown(task: Task, known: tuple[str, ...]) -> Task:
    room = ", ".join(known) or "none"
    message = f"the container was made without a task of this name (it has: {room}); run the job anew"
    return move(task, GaveUp, reason=Reason(code="unknown-task", message=message))


def _quit(pod: Pod, stop_timeout_s: float, now_s: float) -> tuple[Pod, tuple[Effect, ...]]:
    pod = msgspec.structs.replace(pod, quitting=True)
    result: list[Task] = []
    effects: list[Effect] = []
    for task in pod.tasks:
        if _busy(task):
            task, owed = tasks.halt(task, Then.REST, stop_timeout_s, now_s)
            effects += owed
        result.append(task)
    return msgspec.structs.replace(pod, tasks=tuple(result)), tuple(effects)


def _busy(task: Task) -> bool:
    at_rest = (TaskState.PENDING, TaskState.STOPPED, TaskState.FINISHED, TaskState.FAILED)
    return task.live is not None or task.residue or task.state not in at_rest


def _each(pod: Pod, act: Callable[[Task, PodOrder], Moved]) -> tuple[Pod, tuple[Effect, ...]]:
    if pod.order is None:
        return pod, ()
    result: list[Task] = []
    effects: list[Effect] = []
    for task in pod.tasks:
        moved, owed = act(task, pod.order)
        result.append(moved)
        effects += owed
    return msgspec.structs.replace(pod, tasks=tuple(result)), tuple(effects)
