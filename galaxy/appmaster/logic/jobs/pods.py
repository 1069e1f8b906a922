"""One pod: applies its reports, reconciles it with its desired state, and sends its orders."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from galaxy.appmaster.logic.agent_reports import AgentReports
from galaxy.appmaster.logic.jobs import endpoints, moves, restarts
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
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.messages.pod import ObservedPod, OomKills, PodOrder, PodState, TaskState, masked
from galaxy.model.messages.trace import agent_cause
from galaxy.model.stored.job import DesiredState, JobRecord, PodPhase, PodRecord

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


def should_run(job: JobRecord, pod: PodRecord) -> bool:
    """Return whether the owner wants ``pod`` to run."""
    return job.desired is DesiredState.RUN and pod.index < job.replica


def is_being_removed(job: JobRecord, pod: PodRecord) -> bool:
    """Return whether ``pod`` is to be dropped, together with its container."""
    return job.desired is DesiredState.REMOVE or pod.index >= job.replica


def is_over(job: JobRecord, pod: PodRecord) -> bool:
    """Return whether ``pod`` has ended for good: it finished, or it failed and belongs to a batch job.

    It runs again only when its owner recovers it, or starts or updates the service.
    """
    failed = pod.phase is PodPhase.FAILED and job.type.is_batch
    return not pod.recover and (pod.phase is PodPhase.FINISHED or failed)


def never_runs_again(job: JobRecord, pod: PodRecord) -> bool:
    """Return whether ``pod`` is over and not even an update runs it again: it belongs to a batch job."""
    return job.type.is_batch and is_over(job, pod)


def is_acked(pod: PodRecord) -> bool:
    """Return whether the current incarnation has reported the generation of the last order."""
    return (
        pod.observed is not None
        and pod.ordered_incarnation == pod.incarnation
        and pod.observed.generation >= pod.generation
    )


def is_down(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Return whether no program of ``pod`` runs any more, or stopping it is overdue."""
    if not pod.placed or pod.ordered_incarnation != pod.incarnation:
        return True
    if pod.phase in (PodPhase.STOPPED, PodPhase.FINISHED):
        return True
    if pod.phase is PodPhase.FAILED:
        return is_over(job, pod)
    if pod.phase is not PodPhase.STOPPING:
        return False
    stop_timeout_s = state.spec(job.job, job.revision).deploy.stop_timeout
    overdue_s = pod.since_s + stop_timeout_s + state.config.stop_grace_s
    if overdue_s > state.now_s:
        state.timers.set_if_sooner(("job", job.job), overdue_s)
    return overdue_s <= state.now_s


def is_crash_looping(state: AppMasterState, pod: PodRecord) -> bool:
    """Return whether programs of ``pod`` restart again and again on its revision.

    It ends once the pod has been healthy for ``steady_s`` without a break; a timer reconciles the job then.
    """
    if not (pod.placed and pod.ordered_run and is_acked(pod)) or pod.phase is PodPhase.FINISHED:
        return False
    if restarts.since_order(pod) < state.config.stall_restarts:
        return False
    if pod.healthy_s is None:
        return True
    steady_s = pod.healthy_s + state.config.steady_s
    if steady_s > state.now_s:
        state.timers.set_if_sooner(("job", pod.job), steady_s)
    return steady_s > state.now_s


def write(state: AppMasterState, pod: PodRecord, **changes: Any) -> PodRecord:
    """Store ``pod`` with ``changes``; update the fields that depend on others, and its endpoints."""
    pod = msgspec.structs.replace(pod, **changes) if changes else pod
    observed = pod.observed
    up = (
        observed is not None
        and pod.placed
        and pod.ordered_run
        and pod.phase in (PodPhase.RUNNING, PodPhase.DRAINING)
        and observed.state is PodState.RUNNING
        and observed.healthy
    )
    healthy_s = (state.now_s if pod.healthy_s is None else pod.healthy_s) if up and is_acked(pod) else None
    drain_s = pod.drain_s if pod.phase is PodPhase.DRAINING else None
    failed_on = () if healthy_s is not None else pod.failed_on
    derived = (up, healthy_s, drain_s, failed_on)
    if derived != (pod.up, pod.healthy_s, pod.drain_s, pod.failed_on):
        pod = msgspec.structs.replace(pod, up=up, healthy_s=healthy_s, drain_s=drain_s, failed_on=failed_on)
    state.put_pod(pod)
    endpoints.refresh(state, pod)
    return pod


# ---- observed state


def on_report(state: AppMasterState, agents: AgentReports, agent: str, observed: ObservedPod) -> None:
    """Apply a report of a pod; reports of other incarnations and of earlier orders are ignored."""
    pod = state.pods.get(observed.pod)
    if pod is None or not pod.placed or agent != pod.agent or observed.incarnation != pod.incarnation:
        return
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
        if should_run(state.jobs[pod.job], pod) and moves.is_failed_by_host(observed):
            pod = pod if pod.is_leaving else moves.after_failure(state, agents, pod)
        event = (EVENTS if pod.ordered_run else EVENTS_STOPPING).get(observed.state)
        if event is not None:  # While it leaves its host, it has not failed for good.
            pod = state.apply_pod_event(pod, ObservedDown if pod.is_leaving else event)
        if old is not None and _restarts(observed) > _restarts(old):
            pod = msgspec.structs.replace(pod, healthy_s=None)
        _record_changes(state, before, pod, observed)
    if pod.phase is PodPhase.FINISHED:
        pod = msgspec.structs.replace(pod, recover=False)
    pod = write(state, pod)
    if is_acked(pod):
        state.timers.cancel(("pod", pod.pod))
        state.order_backoff.reset(pod.pod)


def on_missing(state: AppMasterState, agent: str, pod_id: str) -> None:
    """Resend the order of a pod that a full report of its agent omits although it was reported before.

    If the container itself is gone, ResMan detects and replaces it.
    """
    pod = state.pods.get(pod_id)
    if pod is None or not pod.placed or pod.agent != agent or pod.observed is None:
        return
    if is_over(state.jobs[pod.job], pod):
        return
    total = restarts.total(pod)
    pod = state.apply_pod_event(pod, ObservedDeploying)
    write(state, pod, observed=None, restarts=total)
    send(state, pod)


def on_placed(state: AppMasterState, pod: PodRecord, agent: str, incarnation: int, **facts: Any) -> PodRecord:
    """Record that a new container for ``pod`` exists or is being created."""
    pod = on_lost(state, pod)
    state.record_event(pod.job, "pod.placed", pod.pod, f"on {agent}, incarnation {incarnation}")
    return write(
        state, pod, placed=True, agent=agent, incarnation=incarnation, healthy_s=None, reason=None, **facts
    )


def on_lost(state: AppMasterState, pod: PodRecord, reason: Reason | None = None) -> PodRecord:
    """Record that the container of ``pod`` is gone. ``agent`` stays, because the logs are there."""
    if not pod.placed:
        return pod
    state.timers.cancel(("pod", pod.pod))
    state.order_backoff.reset(pod.pod)
    state.usage.pop(pod.pod, None)
    job = state.jobs[pod.job]
    if is_over(job, pod):
        return write(state, pod, placed=False)
    if not is_being_removed(job, pod):
        why = f": {reason.message}" if reason and reason.message else ""
        text = f"its container on {pod.agent} is gone{why}"
        state.record_event(pod.job, "pod.lost", pod.pod, text, cause=agent_cause(pod.agent))
    total = restarts.total(pod)
    pod = state.apply_pod_event(pod, ContainerLost)
    return write(state, pod, placed=False, observed=None, restarts=total, reason=reason)


# ---- desired state


def reconcile(state: AppMasterState, job: JobRecord, pod: PodRecord, *, may_order: bool = False) -> None:
    """Take the next step towards the desired state of ``pod``: drain it, order it, or do nothing.

    Without ``may_order``, a pod that needs an order waits for its turn (``state.await_order``).
    """
    if not pod.placed or is_over(job, pod):
        return
    run = should_run(job, pod)
    if pod.ordered_incarnation != pod.incarnation:
        if is_being_removed(job, pod):
            return
        if not may_order:
            state.await_order(pod)
        else:
            _order(state, pod, run=run, revision=pod.target, replaces_program=True)
        return
    if pod.phase is PodPhase.PENDING:
        # Its container was considered lost and still exists. Resending its order makes it report.
        pod = write(state, state.apply_pod_event(pod, RunOrdered if pod.ordered_run else StopOrdered))
        send(state, pod)
    if run == pod.ordered_run and not (run and (pod.recover or pod.target != pod.revision)):
        if pod.phase is PodPhase.DRAINING:
            write(state, state.apply_pod_event(pod, DrainCancelled))
        return
    change = Impact.REDEPLOY
    if run and pod.ordered_run and not pod.recover:
        old, new = state.resolved_spec(pod.job, pod.revision), state.resolved_spec(pod.job, pod.target)
        change = impact(old, new)
    if change is Impact.NONE and pod.phase is not PodPhase.FAILED:  # An order makes a failed pod try again.
        write(state, pod, revision=pod.target, restarts_before=restarts.total(pod))
    elif not may_order:
        state.await_order(pod)
    elif change is not Impact.REDEPLOY:
        _order(state, pod, run=True, revision=pod.target, replaces_program=False)
    elif _is_drained(state, job, pod):
        revision = pod.target if run else pod.revision
        redeploy = run and pod.recover
        _order(state, pod, run=run, revision=revision, replaces_program=True, redeploy=redeploy)


def send(state: AppMasterState, pod: PodRecord) -> None:
    """Send the current order of ``pod`` in this step, and resend it until it is acknowledged."""
    if pod.placed and pod.ordered_incarnation == pod.incarnation:
        state.outbox.pod_orders.setdefault(pod.agent, {})[pod.pod] = None
        wait_s = state.order_backoff.next_s(pod.pod)
        if pod.slot is ContainerState.ALLOCATING:
            wait_s = max(wait_s, state.config.resend_creating_s)
        state.timers.set_if_sooner(("pod", pod.pod), state.now_s + wait_s)


def on_created(state: AppMasterState, pod: PodRecord) -> None:
    """Expect the acknowledgement of the order of ``pod``, whose container exists now."""
    if pod.ordered_incarnation == pod.incarnation and not is_acked(pod):
        state.order_backoff.reset(pod.pod)
        wait_s = state.order_backoff.next_s(pod.pod)
        state.timers.set_if_sooner(("pod", pod.pod), state.now_s + wait_s)


def build_order(state: AppMasterState, pod: PodRecord) -> PodOrder:
    """Build the order from the pod's record. Equal generations always give equal orders."""
    spec = state.resolved_spec(pod.job, pod.revision)
    return PodOrder(
        pod=pod.pod,
        incarnation=pod.incarnation,
        generation=pod.generation,
        job=pod.job,
        index=pod.index,
        revision=pod.revision,
        run=pod.ordered_run,
        tasks=spec.pod.tasks,
        stop_timeout=spec.deploy.stop_timeout,
        batch=spec.type.is_batch,
        redeploy=pod.redeploy,
    )


def _is_drained(state: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Return whether ``pod`` may be stopped now; while clients may use it, drain it first."""
    if pod.phase is PodPhase.DRAINING:
        due_s = pod.drain_s or 0.0
    elif endpoints.is_published(state, pod):
        due_s = state.now_s + state.spec(job.job, job.revision).deploy.drain
        pod = state.apply_pod_event(pod, DrainBegan)
        if due_s > state.now_s:
            write(state, pod, drain_s=due_s)
    else:
        return True
    if due_s > state.now_s:
        state.timers.set_if_sooner(("job", job.job), due_s)
    return due_s <= state.now_s


def _order(
    state: AppMasterState,
    pod: PodRecord,
    *,
    run: bool,
    revision: int,
    replaces_program: bool,
    redeploy: bool = False,
) -> PodRecord:
    """Store and send the next order.

    If the order ``replaces_program``, later reports about the current program are ignored.
    """
    generation = pod.generation + 1
    total = restarts.total(pod)
    before = pod.restarts_before if revision == pod.revision else total
    same_incarnation = pod.ordered_incarnation == pod.incarnation
    new_program = redeploy or revision != pod.revision
    if run and replaces_program and same_incarnation and pod.revision and new_program:
        old, new = state.resolved_spec(pod.job, pod.revision), state.resolved_spec(pod.job, revision)
        kept = restarts.kept_total(pod, old, new, redeploy=redeploy)
        pod = msgspec.structs.replace(pod, restarts=kept, restarts_generation_min=generation)
    if replaces_program:
        pod = state.apply_pod_event(pod, RunOrdered if run else StopOrdered)
    state.timers.cancel(("pod", pod.pod))
    state.order_backoff.reset(pod.pod)
    pod = write(
        state,
        pod,
        ordered_run=run,
        revision=revision,
        redeploy=redeploy,
        recover=False if run else pod.recover,
        generation=generation,
        ordered_incarnation=pod.incarnation,
        report_generation_min=generation if replaces_program else pod.report_generation_min,
        restarts_before=before,
        reason=None if replaces_program else pod.reason,
        failed_on=() if same_incarnation and new_program else pod.failed_on,
    )
    send(state, pod)
    return pod


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
