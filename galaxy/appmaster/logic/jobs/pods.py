"""One pod: records its containers, reconciles it with its desired state, and sends its orders."""

from __future__ import annotations

from typing import Any

import msgspec

from galaxy.appmaster.logic.jobs import endpoints, resizes, restarts
from galaxy.appmaster.logic.jobs.transitions import (
    ContainerLost,
    DrainBegan,
    DrainCancelled,
    RunOrdered,
    StopOrdered,
)
from galaxy.appmaster.logic.rollout.impact import Impact, impact
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.messages.pod import PodOrder, PodState
from galaxy.model.messages.trace import agent_cause
from galaxy.model.stored.job import DesiredState, JobRecord, PodPhase, PodRecord


def should_run(job: JobRecord, pod: PodRecord) -> bool:
    """Return whether ``pod`` is to run where it is: its owner wants it, and it is not leaving its agent."""
    return job.desired is DesiredState.RUN and pod.index < job.replica and not pod.is_evacuating


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


# ---- containers


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
        return write(state, pod, placed=False, leave=None)
    if not is_being_removed(job, pod):
        why = f": {reason.message}" if reason and reason.message else ""
        text = f"its container on {pod.agent} is gone{why}"
        state.record_event(pod.job, "pod.lost", pod.pod, text, cause=agent_cause(pod.agent))
    total = restarts.total(pod)
    pod = state.apply_pod_event(pod, ContainerLost)
    pod = write(state, pod, placed=False, observed=None, restarts=total, reason=reason, leave=None)
    return write(state, pod, size=0, resize=None)


# ---- desired state


def reconcile(state: AppMasterState, job: JobRecord, pod: PodRecord, *, may_order: bool = False) -> None:
    """Take the next step towards the desired state of ``pod``: drain it, order it, or do nothing.

    Without ``may_order``, a pod that needs an order waits for its turn (``state.await_order``).
    """
    if not pod.placed or is_over(job, pod):
        return
    run = should_run(job, pod)
    if pod.ordered_incarnation != pod.incarnation:
        if is_being_removed(job, pod) or pod.is_evacuating:
            return
        if not may_order:
            state.await_order(pod)
        else:
            _order(state, pod, run=run, revision=pod.target, replaces_program=True)
        return
    if run and resizes.wants_to_move(state, job, pod):
        if _is_drained(state, job, pod):
            leave(state, state.pods[pod.pod], "its new size")
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
        if not resizes.may_update(state, pod):
            return  # ResMan reports the new size, or why it has to wait.
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


def leave(state: AppMasterState, pod: PodRecord, why: str) -> PodRecord:
    """Give up the incarnation that ``pod`` has, for one on another agent."""
    state.record_event(pod.job, "pod.leaves", pod.pod, f"leaves {pod.agent}: no room for {why}")
    state.touch(pod.job)
    return write(state, pod, leaves=pod.incarnation)


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
