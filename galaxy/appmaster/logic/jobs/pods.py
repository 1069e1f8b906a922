"""One pod: what its reports mean, what it shall be, and the orders that make it so."""

from __future__ import annotations

from typing import Any

import msgspec

from galaxy.appmaster.logic.jobs import endpoints
from galaxy.appmaster.logic.jobs.transitions import (
    ContainerLost,
    DrainBegan,
    DrainCancelled,
    ObservedDeploying,
    ObservedDown,
    ObservedFailed,
    ObservedFinished,
    ObservedStopped,
    ObservedUp,
    PodEvent,
    RunOrdered,
    StopOrdered,
)
from galaxy.appmaster.logic.rollout.impact import Impact, impact
from galaxy.appmaster.logic.state import AppMasterState, is_batch
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import ObservedPod, PodOrder, PodState, TaskState
from galaxy.model.stored.job import DesiredState, JobRecord, PodPhase, PodRecord

SEEN: dict[PodState, type[PodEvent]] = {
    PodState.PENDING: ObservedDeploying,
    PodState.DEPLOYING: ObservedDeploying,
    PodState.STOPPING: ObservedDeploying,
    PodState.RUNNING: ObservedUp,
    PodState.BACKOFF: ObservedDown,
    PodState.STOPPED: ObservedStopped,
    PodState.FINISHED: ObservedFinished,
    PodState.FAILED: ObservedFailed,
}
"""What a report means for a pod that shall run."""

SEEN_AT_REST: dict[PodState, type[PodEvent]] = {
    state: SEEN[state] for state in (PodState.STOPPED, PodState.FINISHED, PodState.FAILED)
}
"""What a report means for a pod that shall not run: anything else is still on its way down."""


def should_run(job: JobRecord, pod: PodRecord) -> bool:
    """Whether ``pod`` shall run, as its owner wishes."""
    return job.desired is DesiredState.RUN and pod.index < job.replica


def is_leaving(job: JobRecord, pod: PodRecord) -> bool:
    """Whether ``pod`` shall be no more."""
    return job.desired is DesiredState.REMOVE or pod.index >= job.replica


def is_over(job: JobRecord, pod: PodRecord) -> bool:
    """Whether ``pod`` has come to its end for good: finished, or a batch pod that failed."""
    return not pod.recover and (
        pod.phase is PodPhase.FINISHED or (pod.phase is PodPhase.FAILED and is_batch(job.type))
    )


def is_acked(pod: PodRecord) -> bool:
    """Whether the last order was obeyed where the pod lives now."""
    return (
        pod.observed is not None
        and pod.ordered_incarnation == pod.incarnation
        and pod.observed.generation >= pod.generation
    )


def is_down(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Whether nothing of ``pod`` runs any more, or it has been stopping for too long."""
    if not pod.placed or pod.ordered_incarnation != pod.incarnation:
        return True
    if pod.phase in (PodPhase.STOPPED, PodPhase.FINISHED):
        return True
    if pod.phase is PodPhase.FAILED:
        return is_over(job, pod)
    if pod.phase is not PodPhase.STOPPING:
        return False
    overdue_s = pod.since_s + _stop_timeout(state, job) + state.config.stop_grace_s
    if overdue_s > state.now_s:
        state.timers.at(("job", job.job), overdue_s)
    return overdue_s <= state.now_s


def write(state: AppMasterState, pod: PodRecord, **changes: Any) -> PodRecord:
    """Store ``pod`` with ``changes``, and with everything that follows from them."""
    pod = msgspec.structs.replace(pod, **changes) if changes else pod
    observed = pod.observed
    up = (
        observed is not None
        and pod.placed
        and pod.run
        and pod.phase in (PodPhase.RUNNING, PodPhase.DRAINING)
        and observed.state is PodState.RUNNING
        and observed.healthy
    )
    healthy_s = (state.now_s if pod.healthy_s is None else pod.healthy_s) if up and is_acked(pod) else None
    drain_s = pod.drain_s if pod.phase is PodPhase.DRAINING else None
    pod = msgspec.structs.replace(pod, up=up, healthy_s=healthy_s, drain_s=drain_s)
    state.put_pod(pod)
    endpoints.refresh(state, pod)
    return pod


# ---- what is observed


def on_report(state: AppMasterState, agent: str, observed: ObservedPod) -> None:
    """Take in what an agent reports of a pod; echoes of other lives and earlier orders are stale."""
    pod = state.pods.get(observed.pod)
    if pod is None or not pod.placed or agent != pod.agent or observed.incarnation != pod.incarnation:
        return
    state.usage[pod.pod] = (observed.cpu_milli, observed.memory_bytes)
    observed = msgspec.structs.replace(observed, cpu_milli=0, memory_bytes=0)
    job = state.jobs[pod.job]
    old = pod.observed
    if observed == old or (old is not None and observed.generation < old.generation):
        return
    if pod.phase is PodPhase.FINISHED:
        return  # For good: what is known of its end is kept.
    before = pod
    pod = msgspec.structs.replace(pod, observed=observed)
    finished = is_batch(job.type) and observed.state is PodState.FINISHED and observed.generation > 0
    if observed.generation >= pod.cut or finished:
        event = (SEEN if pod.run else SEEN_AT_REST).get(observed.state)
        if event is not None:
            pod = state.apply_pod_event(pod, event)
        pod = msgspec.structs.replace(pod, reason=_reason(observed))
        if old is not None and _restarts(observed) > _restarts(old):
            pod = msgspec.structs.replace(pod, healthy_s=None)
        _tell(state, before, pod, old, observed)
    if pod.phase is PodPhase.FAILED and before.phase is not PodPhase.FAILED:
        failed_on = (*(name for name in pod.failed_on if name != agent), agent)
        pod = msgspec.structs.replace(pod, failed_on=failed_on[-state.config.failed_on_max :])
    if pod.phase is PodPhase.FINISHED:
        pod = msgspec.structs.replace(pod, recover=False)
    pod = write(state, pod)
    if is_acked(pod):
        state.timers.cancel(("pod", pod.pod))
        state.order_backoff.reset(pod.pod)


def on_missing(state: AppMasterState, agent: str, pod_id: str) -> None:
    """An agent's full report leaves out a pod that it had: ask for it anew; ResMan heals the place."""
    pod = state.pods.get(pod_id)
    if pod is None or not pod.placed or pod.agent != agent or pod.observed is None:
        return
    if is_over(state.jobs[pod.job], pod):
        return
    carried = pod.restarts + _restarts(pod.observed)
    pod = state.apply_pod_event(pod, ObservedDeploying)
    write(state, pod, observed=None, restarts=carried)
    send(state, pod)


def on_placed(state: AppMasterState, pod: PodRecord, agent: str, incarnation: int, **facts: Any) -> PodRecord:
    """A container for ``pod`` is there or on its way: another life of it begins."""
    pod = on_lost(state, pod)
    state.record_event(pod.job, "pod.placed", pod.pod, f"on {agent}, incarnation {incarnation}")
    return write(
        state, pod, placed=True, agent=agent, incarnation=incarnation, healthy_s=None, reason=None, **facts
    )


def on_lost(state: AppMasterState, pod: PodRecord, reason: Reason | None = None) -> PodRecord:
    """The container of ``pod``, if it had one, is gone; its agent is remembered for the logs."""
    if not pod.placed:
        return pod
    state.timers.cancel(("pod", pod.pod))
    state.order_backoff.reset(pod.pod)
    state.usage.pop(pod.pod, None)
    job = state.jobs[pod.job]
    if is_over(job, pod):
        return write(state, pod, placed=False)
    carried = pod.restarts + (_restarts(pod.observed) if pod.observed else 0)
    if not is_leaving(job, pod):
        told = f": {reason.message}" if reason and reason.message else ""
        state.record_event(pod.job, "pod.lost", pod.pod, f"its container on {pod.agent} is gone{told}")
    pod = state.apply_pod_event(pod, ContainerLost)
    return write(state, pod, placed=False, observed=None, restarts=carried, reason=reason)


# ---- what is wanted


def reconcile(state: AppMasterState, job: JobRecord, pod: PodRecord) -> None:
    """Bring ``pod`` closer to what it shall be: drain, order, or nothing."""
    if not pod.placed or is_over(job, pod):
        return
    run = should_run(job, pod)
    if pod.ordered_incarnation != pod.incarnation:
        if not is_leaving(job, pod):
            _order(state, pod, run=run, revision=pod.target, deep=True, redeploy=False)
        return
    if pod.phase is PodPhase.PENDING:
        # Its container was thought lost and is there after all: ask how it is by the order it had.
        pod = write(state, state.apply_pod_event(pod, RunOrdered if pod.run else StopOrdered))
        send(state, pod)
    if run == pod.run and not (run and (pod.recover or pod.target != pod.revision)):
        if pod.phase is PodPhase.DRAINING:
            write(state, state.apply_pod_event(pod, DrainCancelled))
        return
    depth = Impact.REDEPLOY
    if run and pod.run and not pod.recover:
        depth = impact(state.resolved_spec(pod.job, pod.revision), state.resolved_spec(pod.job, pod.target))
    if depth is Impact.NONE:
        write(state, pod, revision=pod.target)
    elif depth is Impact.REDEPLOY:
        if not _drained(state, job, pod):
            return
        revision = pod.target if run else pod.revision
        _order(state, pod, run=run, revision=revision, deep=True, redeploy=run and pod.recover)
    else:
        _order(state, pod, run=True, revision=pod.target, deep=False, redeploy=False)


def send(state: AppMasterState, pod: PodRecord) -> None:
    """Owe ``pod``'s present order to its agent, again and again until it is acknowledged."""
    if pod.placed and pod.ordered_incarnation == pod.incarnation:
        state.pod_orders.setdefault(pod.agent, {})[pod.pod] = None
        state.timers.at(("pod", pod.pod), state.now_s + state.order_backoff.next_s(pod.pod))


def build_order(state: AppMasterState, pod: PodRecord) -> PodOrder:
    """Return the order that the record stands for; the same generation is always the same order."""
    spec = state.resolved_spec(pod.job, pod.revision)
    return PodOrder(
        pod=pod.pod,
        incarnation=pod.incarnation,
        generation=pod.generation,
        job=pod.job,
        index=pod.index,
        revision=pod.revision,
        run=pod.run,
        tasks=spec.pod.tasks,
        stop_timeout=spec.deploy.stop_timeout,
        batch=is_batch(spec.type),
        redeploy=pod.redeploy,
    )


def _drained(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Whether ``pod`` may be taken down now; its endpoints are withdrawn first, for a while."""
    if pod.phase is PodPhase.DRAINING:
        due_s = pod.drain_s or 0.0
    elif endpoints.published(state, pod):
        due_s = state.now_s + state.spec(job.job, job.revision).deploy.drain
        pod = state.apply_pod_event(pod, DrainBegan)
        if due_s > state.now_s:
            write(state, pod, drain_s=due_s)
    else:
        return True
    if due_s > state.now_s:
        state.timers.at(("job", job.job), due_s)
    return due_s <= state.now_s


def _order(
    state: AppMasterState, pod: PodRecord, *, run: bool, revision: int, deep: bool, redeploy: bool
) -> PodRecord:
    """Make and owe the next order; a ``deep`` one takes the present program down."""
    generation = pod.generation + 1
    fresh = pod.ordered_incarnation != pod.incarnation
    restarts = pod.restarts
    if run and pod.observed and not fresh and pod.revision and (redeploy or revision != pod.revision):
        restarts += _restarts(pod.observed) if deep else 0  # AppWorker counts a new program's from 0.
    if deep:
        pod = state.apply_pod_event(pod, RunOrdered if run else StopOrdered)
    state.timers.cancel(("pod", pod.pod))
    state.order_backoff.reset(pod.pod)
    pod = write(
        state,
        pod,
        run=run,
        revision=revision,
        redeploy=redeploy,
        recover=False if run else pod.recover,
        generation=generation,
        ordered_incarnation=pod.incarnation,
        cut=generation if deep else pod.cut,
        restarts=restarts,
        reason=None if deep else pod.reason,
    )
    send(state, pod)
    return pod


def _stop_timeout(state: AppMasterState, job: JobRecord) -> float:
    return state.spec(job.job, job.revision).deploy.stop_timeout


def _restarts(observed: ObservedPod) -> int:
    return sum(task.restarts for task in observed.tasks)


def restarts_of(pod: PodRecord) -> int:
    """Return how often programs of ``pod`` were restarted, over all its orders."""
    return pod.restarts + (_restarts(pod.observed) if pod.observed else 0)


def _reason(observed: ObservedPod) -> Reason | None:
    """Return the reason of the task that is worst off."""
    worst_first = (TaskState.FAILED, TaskState.BACKOFF)
    reasons = [
        (task.state not in worst_first, task.name, task.reason)
        for task in observed.tasks
        if task.reason is not None
    ]
    if not reasons:
        return None
    _, name, reason = min(reasons, key=lambda entry: entry[0])
    return msgspec.structs.replace(reason, message=f"task {name}: {reason.message}")


def _tell(
    state: AppMasterState, before: PodRecord, pod: PodRecord, old: ObservedPod | None, observed: ObservedPod
) -> None:
    """Tell what a report changed: each restart with its cause, and each new phase."""
    earlier = {task.name: task for task in old.tasks} if old else {}
    for task in observed.tasks:
        last = earlier.get(task.name)
        if task.last_exit is not None and (last is None or last.last_exit != task.last_exit):
            text = f"task {task.name}: {task.last_exit}"
            if task.restarts:
                text += f"; restarted {task.restarts} times so far"
            state.record_event(pod.job, "pod.exited", pod.pod, text)
    if pod.phase is not before.phase:
        state.record_event(pod.job, f"pod.{pod.phase}", pod.pod, pod.reason.message if pod.reason else "")
    elif pod.run and observed.healthy != (old is not None and old.healthy):
        state.record_event(pod.job, "pod.healthy" if observed.healthy else "pod.unhealthy", pod.pod)
