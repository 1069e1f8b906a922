"""How often programs of a pod were restarted: in all, and on its current revision.

An AppWorker counts the restarts of a task from 0 whenever an order replaces its program. The record of a
pod adds what was counted before, so that the total never decreases, and remembers what the total was when
its revision changed.
"""

from __future__ import annotations

from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.jobspec.task_diff import TaskChange, compare
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import ObservedTask
from galaxy.model.stored.job import PodPhase, PodRecord
from galaxy.units import counted


def total(pod: PodRecord) -> int:
    """Return the restarts of all programs of ``pod``, on all of its revisions and containers."""
    return pod.restarts + _reported(pod)


def on_revision(pod: PodRecord) -> int:
    """Return the restarts since ``pod`` was moved to its current revision."""
    return max(total(pod) - pod.restarts_before, 0)


def since_order(pod: PodRecord) -> int:
    """Return the restarts on the current revision since an order last replaced a program of ``pod``."""
    return min(on_revision(pod), _reported(pod))


def kept_total(pod: PodRecord, old: JobSpec, new: JobSpec, *, redeploy: bool) -> int:
    """Return the value of ``PodRecord.restarts`` for an order that replaces programs.

    It contains the restarts of those tasks of ``old`` that the order makes start again, because their
    AppWorker counts from 0.
    """
    before = {task.name: task for task in old.pod.tasks}
    again = {
        task.name
        for task in new.pod.tasks
        if redeploy or task.name not in before or compare(before[task.name], task) is TaskChange.REDEPLOY
    }
    return pod.restarts + sum(task.restarts for task in _tasks(pod) if task.name in again)


def trouble(pod: PodRecord) -> Reason | None:
    """Return why ``pod`` is not up: its own reason, or how a program last ended that was restarted."""
    if pod.reason is not None or pod.up or not pod.ordered_run or pod.phase is PodPhase.FINISHED:
        return pod.reason
    return last_restart(pod)


def last_restart(pod: PodRecord) -> Reason | None:
    """Return how a program of ``pod`` last ended that was restarted, and how often; None without restarts."""
    count = since_order(pod)
    ended = [task for task in _tasks(pod) if task.restarts and task.last_exit is not None]
    if not count or not ended:
        return None
    last = max(ended, key=lambda task: task.last_exit.at_s if task.last_exit else 0.0)
    message = f"task {last.name}: {last.last_exit}; restarted {counted(count, 'time')}"
    return Reason(code="restarted", message=message)


def _reported(pod: PodRecord) -> int:
    return sum(task.restarts for task in _tasks(pod))


def _tasks(pod: PodRecord) -> tuple[ObservedTask, ...]:
    """Return the last report of tasks, unless an order has replaced these programs since."""
    if pod.observed is None or pod.observed.generation < pod.restarts_generation_min:
        return ()
    return pod.observed.tasks
