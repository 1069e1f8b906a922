"""What agents report of pods: the event of each report, and what is recorded of it."""

from __future__ import annotations

from typing import Final

import msgspec

from galaxy.appmaster.logic.agent_reports import AgentReports
from galaxy.appmaster.logic.jobs import moves, pods, restarts
from galaxy.appmaster.logic.jobs.transitions import (
    ObservedDeploying,
    ObservedDown,
    ObservedFailed,
    ObservedFinished,
    ObservedStopped,
    ObservedUp,
    PodEvent,
)
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.messages.agent import UsageRead
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import ObservedPod, OomKills, PodState, TaskState, masked
from galaxy.model.stored.job import JobRecord, PodPhase, PodRecord

EVENTS: Final[dict[PodState, type[PodEvent]]] = {
    PodState.PENDING: ObservedDeploying,
    PodState.DEPLOYING: ObservedDeploying,
    PodState.STOPPING: ObservedDeploying,
    PodState.RUNNING: ObservedUp,
    PodState.BACKOFF: ObservedDown,
    PodState.STOPPED: ObservedStopped,
    PodState.FINISHED: ObservedFinished,
    PodState.FAILED: ObservedFailed,
}
"""The event of each reported state, for a pod that was ordered to run."""

EVENTS_STOPPING: Final[dict[PodState, type[PodEvent]]] = {
    reported: EVENTS[reported] for reported in (PodState.STOPPED, PodState.FINISHED, PodState.FAILED)
}
"""The same for a pod that was ordered to stop; in the other states it is still stopping."""


def on_usage(state: AppMasterState, read: UsageRead) -> None:
    """Record what pods use on the agents that they are on; what was measured on earlier agents is ignored."""
    for agent, used_by_pod in read.agents.items():
        for name, used in used_by_pod.items():
            pod = state.pods.get(name)
            if pod is not None and pod.placed and pod.agent == agent:
                state.usage[name] = used


def on_report(state: AppMasterState, agents: AgentReports, agent: str, observed: ObservedPod) -> None:
    """Apply a report of a pod; reports of other incarnations and of earlier orders are ignored."""
    pod = state.pods.get(observed.pod)
    if pod is None or not pod.placed or agent != pod.agent or observed.incarnation != pod.incarnation:
        return
    if observed.memory_bytes:
        state.usage[pod.pod] = (observed.cpu_milli, observed.memory_bytes)
    observed = msgspec.structs.replace(masked(observed), cpu_milli=0, memory_bytes=0)
    old = pod.observed
    if observed == old or (old is not None and observed.generation < old.generation):
        return
    if pod.phase is PodPhase.FINISHED:
        return  # A finished pod never runs again under this order: its last report is kept.
    before = pod
    pod = msgspec.structs.replace(pod, observed=observed)
    if _applies(state.jobs[pod.job], pod, observed):
        pod = msgspec.structs.replace(pod, reason=moves.with_hosts(_worst_reason(observed), pod))
        if pods.should_run(state.jobs[pod.job], pod) and moves.is_failed_by_host(observed):
            pod = pod if pod.is_leaving else moves.after_failure(state, agents, pod)
        event = (EVENTS if pod.ordered_run else EVENTS_STOPPING).get(observed.state)
        if event is not None:  # While it leaves its host, it has not failed for good.
            pod = state.apply_pod_event(pod, ObservedDown if pod.is_leaving else event)
        if old is not None and _restarts(observed) > _restarts(old):
            pod = msgspec.structs.replace(pod, healthy_s=None)
        _record_changes(state, before, pod, observed)
    if pod.phase is PodPhase.FINISHED:
        pod = msgspec.structs.replace(pod, recover=False)
    pod = pods.write(state, pod)
    if pods.is_acked(pod):
        state.timers.cancel(("pod", pod.pod))
        state.order_backoff.reset(pod.pod)


def on_missing(state: AppMasterState, agent: str, pod_id: str) -> None:
    """Resend the order of a pod that a full report of its agent omits although it was reported before.

    If the container itself is gone, ResMan detects and replaces it.
    """
    pod = state.pods.get(pod_id)
    if pod is None or not pod.placed or pod.agent != agent or pod.observed is None:
        return
    if pods.is_over(state.jobs[pod.job], pod):
        return
    total = restarts.total(pod)
    pod = state.apply_pod_event(pod, ObservedDeploying)
    pods.write(state, pod, observed=None, restarts=total)
    pods.send(state, pod)


def _applies(job: JobRecord, pod: PodRecord, observed: ObservedPod) -> bool:
    """Return whether a report is about the ordered program, or says that a batch pod has finished.

    A batch pod that finished before the order reached it still counts as finished.
    """
    finished = job.type.is_batch and observed.state is PodState.FINISHED and observed.generation > 0
    return observed.generation >= pod.report_generation_min or finished


def _restarts(observed: ObservedPod) -> int:
    return sum(task.restarts for task in observed.tasks)


def _worst_reason(observed: ObservedPod) -> Reason | None:
    """Return the reason of a task that failed or waits for a restart, else of any other task."""
    reasons = [
        (task.state not in (TaskState.FAILED, TaskState.BACKOFF), task.name, task.reason)
        for task in observed.tasks
        if task.reason is not None
    ]
    if not reasons:
        return None
    _, name, reason = min(reasons, key=lambda entry: entry[0])
    return msgspec.structs.replace(reason, message=f"task {name}: {reason.message}")


def _oom_text(task: str, new: int, kills: OomKills) -> str:
    named = f": {kills.processes}" if kills.processes else ""
    total = f"; {kills.count} so far" if kills.count > new else ""
    processes = "1 process" if new == 1 else f"{new} processes"
    return f"task {task}: the kernel killed {processes} for memory{named}{total}"


def _record_changes(state: AppMasterState, before: PodRecord, pod: PodRecord, observed: ObservedPod) -> None:
    """Record what a report changed: each exit of a program with its cause, and a new phase or health."""
    old = before.observed
    earlier = {task.name: task for task in old.tasks} if old else {}
    for task in observed.tasks:
        last = earlier.get(task.name)
        if task.last_exit is not None and (last is None or last.last_exit != task.last_exit):
            text = f"task {task.name}: {task.last_exit}"
            if task.restarts:
                text += f"; restarted {task.restarts} times so far"
            state.record_event(pod.job, "pod.exited", pod.pod, text)
        if task.oom_kills is not None:
            before_count = last.oom_kills.count if last is not None and last.oom_kills else 0
            if task.oom_kills.count > before_count:
                text = _oom_text(task.name, task.oom_kills.count - before_count, task.oom_kills)
                state.record_event(pod.job, "pod.oom-killed", pod.pod, text)
    if pod.phase is not before.phase:
        why = pod.reason.message if pod.reason else ""
        state.record_event(pod.job, f"pod.{pod.phase}", pod.pod, why)
    elif pod.ordered_run and observed.healthy != (old is not None and old.healthy):
        kind = "pod.healthy" if observed.healthy else "pod.unhealthy"
        state.record_event(pod.job, kind, pod.pod)
