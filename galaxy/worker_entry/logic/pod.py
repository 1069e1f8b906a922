"""The pod: what an order means for each task, and ``step``, the only entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from galaxy.model.jobspec.spec import UNLIMITED, TaskSpec
from galaxy.model.jobspec.task_diff import TaskChange, compare
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import PodOrder, TaskState
from galaxy.worker_entry.logic import health
from galaxy.worker_entry.logic import task as tasks
from galaxy.worker_entry.logic.effects import Effect, EndContainer
from galaxy.worker_entry.logic.events import Event, GaveUp, OrderReceived, QuitRequested, Ticked
from galaxy.worker_entry.logic.records import AfterStop, ReloadPhase, SupervisedPod, SupervisedTask
from galaxy.worker_entry.logic.task import TaskStep
from galaxy.worker_entry.logic.transitions import move

PodStep = tuple[SupervisedPod, tuple[Effect, ...]]
"""A pod after an event, and the effects to carry out."""


def step(pod: SupervisedPod, event: Event, now_s: float) -> PodStep:
    """Return the pod after ``event`` and the effects to carry out now. ``now_s`` is monotonic."""
    match event:
        case OrderReceived():
            pod, effects = apply_order(pod, event.order, now_s)
        case QuitRequested():
            pod, effects = _quit(pod, event.stop_timeout_s, now_s)
        case Ticked():
            pod, effects = _each(pod, lambda task, order: tasks.tick(task, order, now_s))
        case _:
            name = event.task
            pod, effects = _each(
                pod,
                lambda task, order: (
                    tasks.apply(task, event, order, now_s) if task.name == name else (task, ())
                ),
            )
    if any(task.removed for task in pod.tasks):
        pod = replace(pod, tasks=tuple(task for task in pod.tasks if not task.removed))
    if pod.quitting and not pod.ended and not any(_busy(task) for task in pod.tasks):
        return replace(pod, ended=True), (*effects, EndContainer())
    return pod, effects


def wake_s(pod: SupervisedPod) -> float | None:
    """Return when the pod needs a ``Ticked`` even if nothing else happens."""
    times = [time for task in pod.tasks if (time := tasks.due(task)) is not None]
    return min(times, default=None)


def apply_order(pod: SupervisedPod, order: PodOrder, now_s: float) -> PodStep:
    """Bring the pod to ``order``. A generation that is not newer than the last one changes nothing."""
    if pod.quitting or (pod.order is not None and order.generation <= pod.order.generation):
        return pod, ()
    before = {task.name: task for task in pod.tasks}
    ordered = {spec.name for spec in order.tasks}
    new_revision = pod.order is not None and order.revision != pod.order.revision
    result: list[SupervisedTask] = []
    effects: list[Effect] = []
    for spec in order.tasks:
        old = before.get(spec.name)
        if order.run and old is None and spec.name not in pod.known:
            result.append(_unknown(SupervisedTask(spec=spec), pod.known))
            continue
        refused = _limits_refused(spec, pod.ceilings) if order.run else None
        if refused is not None:
            task, more = _refuse(old or SupervisedTask(spec=spec), spec, refused, order, now_s)
        else:
            task, more = _order_task(
                old or SupervisedTask(spec=spec), spec, order, now_s, retry_failed=new_revision
            )
        result.append(task)
        effects += more
    for name, task in before.items():
        if name not in ordered:
            task, more = tasks.stop(task, AfterStop.REMOVE, order.stop_timeout, now_s)
            result.append(task)
            effects += more
    return replace(pod, order=order, tasks=tuple(result)), tuple(effects)


def _order_task(
    task: SupervisedTask, spec: TaskSpec, order: PodOrder, now_s: float, *, retry_failed: bool
) -> TaskStep:
    change = compare(task.spec, spec)
    redeploy = change is TaskChange.REDEPLOY or order.redeploy
    if not order.run:
        return _stop_as_ordered(replace(task, spec=spec), order, now_s)
    if order.redeploy:
        task = replace(task, placed_unreliable=task.placed_unreliable or bool(task.placed))
    old_check = health.check_of(task.spec, batch=order.batch)
    new_check = health.check_of(spec, batch=order.batch)
    task = replace(task, spec=spec)
    if redeploy:
        task = replace(task, restarts=0, oom_kills=None)
    match task.state:
        case TaskState.PENDING | TaskState.STOPPED:
            return tasks.begin(task, order, now_s)
        case TaskState.FINISHED:
            return tasks.begin(task, order, now_s) if redeploy else (task, ())
        case TaskState.FAILED:
            return tasks.begin(task, order, now_s) if redeploy or retry_failed else (task, ())
        case TaskState.STOPPING:
            staged = task.after_stop is AfterStop.PLACE and not redeploy and change is TaskChange.NONE
            return replace(task, after_stop=AfterStop.PLACE if staged else AfterStop.DEPLOY), ()
        case TaskState.DEPLOYING:
            restart = redeploy or change is TaskChange.RELOAD
            return tasks.begin(task, order, now_s) if restart else (task, ())
        case TaskState.BACKOFF:
            return tasks.begin(task, order, now_s) if redeploy else (task, ())
        case TaskState.RUNNING:
            if redeploy:
                return tasks.begin(task, order, now_s)
            if old_check != new_check:
                task = replace(task, health=health.with_new_check(task.health, new_check, now_s))
            task = replace(task, running_spec=spec)
            if change is TaskChange.RELOAD or (retry_failed and task.reload is ReloadPhase.FAILED):
                return tasks.begin_reload(task)
            return task, ()


def _stop_as_ordered(task: SupervisedTask, order: PodOrder, now_s: float) -> TaskStep:
    """Stop a task. A finished batch task stays finished."""
    if task.state is TaskState.FINISHED and order.batch:
        return task, ()
    if task.state is TaskState.STOPPED:
        return task, ()
    return tasks.stop(task, AfterStop.STAY_STOPPED, order.stop_timeout, now_s)


def _unknown(task: SupervisedTask, known: tuple[str, ...]) -> SupervisedTask:
    names = ", ".join(known) or "none"
    message = (
        f"the container was created without this task (it has: {names}); remove the job and run it again"
    )
    return move(task, GaveUp, reason=Reason(code="unknown-task", message=message))


def _limits_refused(spec: TaskSpec, ceilings: Mapping[str, int]) -> Reason | None:
    """Return why the task cannot have the resource limits that it sets; None if it can."""
    above: dict[str, int] = {}
    asked: list[str] = []
    for name, limit in sorted(spec.ulimits.items()):
        hard, ceiling = limit.hard, ceilings.get(name, UNLIMITED)
        if ceiling != UNLIMITED and (hard == UNLIMITED or hard > ceiling):
            above[name] = ceiling
            asked.append(f"{name} {'unlimited' if hard == UNLIMITED else hard} (at most {ceiling})")
    if not above:
        return None
    message = f"its host cannot give ulimits {', '.join(asked)}; lower it, or raise the limit of the agent"
    return Reason(code="ulimit", message=message, counts=above)


def _refuse(task: SupervisedTask, spec: TaskSpec, reason: Reason, order: PodOrder, now_s: float) -> TaskStep:
    """Fail the task for ``reason``; a running program is stopped first."""
    task = replace(task, spec=spec, reason=reason)
    if task.state in (TaskState.PENDING, TaskState.STOPPED):
        return move(task, GaveUp), ()
    if task.state is TaskState.FAILED:
        return task, ()
    return tasks.stop(task, AfterStop.FAIL, order.stop_timeout, now_s)


def _quit(pod: SupervisedPod, stop_timeout_s: float, now_s: float) -> PodStep:
    pod = replace(pod, quitting=True)
    result: list[SupervisedTask] = []
    effects: list[Effect] = []
    for task in pod.tasks:
        if _busy(task):
            task, more = tasks.stop(task, AfterStop.STAY_STOPPED, stop_timeout_s, now_s)
            effects += more
        result.append(task)
    return replace(pod, tasks=tuple(result)), tuple(effects)


def _busy(task: SupervisedTask) -> bool:
    at_rest = (TaskState.PENDING, TaskState.STOPPED, TaskState.FINISHED, TaskState.FAILED)
    return task.running_spec is not None or task.has_leftovers or task.state not in at_rest


def _each(pod: SupervisedPod, act: Callable[[SupervisedTask, PodOrder], TaskStep]) -> PodStep:
    """Apply ``act`` to every task; nothing happens before the first order."""
    if pod.order is None:
        return pod, ()
    result: list[SupervisedTask] = []
    effects: list[Effect] = []
    for task in pod.tasks:
        after, more = act(task, pod.order)
        result.append(after)
        effects += more
    return replace(pod, tasks=tuple(result)), tuple(effects)
