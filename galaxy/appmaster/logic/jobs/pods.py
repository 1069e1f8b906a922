"""One pod: what its reports mean, what it shall be, and the orders that make it so."""

from __future__ import annotations

from typing import Any

import msgspec

from galaxy.appmaster.logic.jobs import endpoints
from galaxy.appmaster.logic.jobs.transitions import (
    ContainerLost,
    DrainBegan,
    DrainCancelled,
    PodEvent,
    RunOrdered,
    SeenDeploying,
    SeenDown,
    SeenFailed,
    SeenFinished,
    SeenStopped,
    SeenUp,
    StopOrdered,
)
from galaxy.appmaster.logic.rollout.impact import Impact, impact
from galaxy.appmaster.logic.state import AppMasterState, is_batch
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import ObservedPod, PodOrder, PodState, TaskState
from galaxy.model.stored.job import DesiredState, JobRecord, PodPhase, PodRecord

SEEN: dict[PodState, type[PodEvent]] = {
    PodState.PENDING: SeenDeploying,
    PodState.DEPLOYING: SeenDeploying,
    PodState.STOPPING: SeenDeploying,
    PodState.RUNNING: SeenUp,
    PodState.BACKOFF: SeenDown,
    PodState.STOPPED: SeenStopped,
    PodState.FINISHED: SeenFinished,
    PodState.FAILED: SeenFailed,
}
"""What a report means for a pod that shall run."""

SEEN_AT_REST: dict[PodState, type[PodEvent]] = {
    state: SEEN[state] for state in (PodState.STOPPED, PodState.FINISHED, PodState.FAILED)
}
"""What a report means for a pod that shall not run: anything else is still on its way down."""


def wants_run(job: JobRecord, pod: PodRecord) -> bool:
    """Whether ``pod`` shall run, as its owner wishes."""
    return job.wish is DesiredState.RUN and pod.index < job.replica


def leaves(job: JobRecord, pod: PodRecord) -> bool:
    """Whether ``pod`` shall be no more."""
    return job.wish is DesiredState.REMOVE or pod.index >= job.replica


def ended(job: JobRecord, pod: PodRecord) -> bool:
    """Whether ``pod`` has come to its end for good: finished, or a batch pod that failed."""
    return not pod.recover and (
        pod.phase is PodPhase.FINISHED or (pod.phase is PodPhase.FAILED and is_batch(job.type))
    )


def acked(pod: PodRecord) -> bool:
    """Whether the last order was obeyed where the pod lives now."""
    return (
        pod.found is not None
        and pod.ordered_incarnation == pod.incarnation
        and pod.found.generation >= pod.generation
    )


def quiet(ledger: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Whether nothing of ``pod`` runs any more, or it has been stopping for too long."""
    if not pod.placed or pod.ordered_incarnation != pod.incarnation:
        return True
    if pod.phase in (PodPhase.STOPPED, PodPhase.FINISHED):
        return True
    if pod.phase is PodPhase.FAILED:
        return ended(job, pod)
    if pod.phase is not PodPhase.STOPPING:
        return False
    overdue_s = pod.since_s + _stop_timeout(ledger, job) + ledger.config.stop_grace_s
    if overdue_s > ledger.now_s:
        ledger.timers.at(overdue_s, "job", job.job)
    return overdue_s <= ledger.now_s


def write(ledger: AppMasterState, pod: PodRecord, **changes: Any) -> PodRecord:
    """Store ``pod`` with ``changes``, and with everything that follows from them."""
    pod = msgspec.structs.replace(pod, **changes) if changes else pod
    found = pod.found
    up = (
        found is not None
        and pod.placed
        and pod.run
        and pod.phase in (PodPhase.RUNNING, PodPhase.DRAINING)
        and found.state is PodState.RUNNING
        and found.healthy
    )
    healthy_s = (ledger.now_s if pod.healthy_s is None else pod.healthy_s) if up and acked(pod) else None
    drain_s = pod.drain_s if pod.phase is PodPhase.DRAINING else None
    pod = msgspec.structs.replace(pod, up=up, healthy_s=healthy_s, drain_s=drain_s)
    ledger.put_pod(pod)
    endpoints.refresh(ledger, pod)
    return pod


# ---- what is found


def observe(ledger: AppMasterState, agent: str, found: ObservedPod) -> None:
    """Take in what an agent reports of a pod; echoes of other lives and earlier orders are stale."""
    pod = ledger.pods.get(found.pod)
    if pod is None or not pod.placed or agent != pod.agent or found.incarnation != pod.incarnation:
        return
    ledger.usage[pod.pod] = (found.cpu_milli, found.memory_bytes)
    found = msgspec.structs.replace(found, cpu_milli=0, memory_bytes=0)
    job = ledger.jobs[pod.job]
    old = pod.found
    if found == old or (old is not None and found.generation < old.generation):
        return
    if pod.phase is PodPhase.FINISHED:
        return  # For good: what is known of its end is kept.
    before = pod
    pod = msgspec.structs.replace(pod, found=found)
    finished = is_batch(job.type) and found.state is PodState.FINISHED and found.generation > 0
    if found.generation >= pod.cut or finished:
        event = (SEEN if pod.run else SEEN_AT_REST).get(found.state)
        if event is not None:
            pod = ledger.pod_event(pod, event)
        pod = msgspec.structs.replace(pod, reason=_reason(found))
        if old is not None and _restarts(found) > _restarts(old):
            pod = msgspec.structs.replace(pod, healthy_s=None)
        _tell(ledger, before, pod, old, found)
    if pod.phase is PodPhase.FAILED and before.phase is not PodPhase.FAILED:
        failed_on = (*(name for name in pod.failed_on if name != agent), agent)
        pod = msgspec.structs.replace(pod, failed_on=failed_on[-ledger.config.failed_on_max :])
    if pod.phase is PodPhase.FINISHED:
        pod = msgspec.structs.replace(pod, recover=False)
    pod = write(ledger, pod)
    if acked(pod):
        ledger.timers.cancel("pod", pod.pod)
        ledger.order_backoff.forget(pod.pod)


def vanish(ledger: AppMasterState, agent: str, pod_id: str) -> None:
    """An agent's full report leaves out a pod that it had: ask for it anew; ResMan heals the place."""
    pod = ledger.pods.get(pod_id)
    if pod is None or not pod.placed or pod.agent != agent or pod.found is None:
        return
    if ended(ledger.jobs[pod.job], pod):
        return
    carried = pod.restarts + _restarts(pod.found)
    pod = ledger.pod_event(pod, SeenDeploying)
    write(ledger, pod, found=None, restarts=carried)
    send(ledger, pod)


def place(ledger: AppMasterState, pod: PodRecord, agent: str, incarnation: int, **facts: Any) -> PodRecord:
    """A container for ``pod`` is there or on its way: another life of it begins."""
    pod = lose(ledger, pod)
    ledger.tell(pod.job, "pod.placed", pod.pod, f"on {agent}, incarnation {incarnation}")
    return write(
        ledger, pod, placed=True, agent=agent, incarnation=incarnation, healthy_s=None, reason=None, **facts
    )


def lose(ledger: AppMasterState, pod: PodRecord, reason: Reason | None = None) -> PodRecord:
    """The container of ``pod``, if it had one, is gone; its agent is remembered for the logs."""
    if not pod.placed:
        return pod
    ledger.timers.cancel("pod", pod.pod)
    ledger.order_backoff.forget(pod.pod)
    ledger.usage.pop(pod.pod, None)
    job = ledger.jobs[pod.job]
    if ended(job, pod):
        return write(ledger, pod, placed=False)
    carried = pod.restarts + (_restarts(pod.found) if pod.found else 0)
    if not leaves(job, pod):
        told = f": {reason.message}" if reason and reason.message else ""
        ledger.tell(pod.job, "pod.lost", pod.pod, f"its container on {pod.agent} is gone{told}")
    pod = ledger.pod_event(pod, ContainerLost)
    return write(ledger, pod, placed=False, found=None, restarts=carried, reason=reason)


# ---- what is wanted


def settle(ledger: AppMasterState, job: JobRecord, pod: PodRecord) -> None:
    """Bring ``pod`` closer to what it shall be: drain, order, or nothing."""
    if not pod.placed or ended(job, pod):
        return
    run = wants_run(job, pod)
    if pod.ordered_incarnation != pod.incarnation:
        if not leaves(job, pod):
            _order(ledger, pod, run=run, revision=pod.target, deep=True, redeploy=False)
        return
    if pod.phase is PodPhase.PENDING:
        # Its container was thought lost and is there after all: ask how it is by the order it had.
        pod = write(ledger, ledger.pod_event(pod, RunOrdered if pod.run else StopOrdered))
        send(ledger, pod)
    if run == pod.run and not (run and (pod.recover or pod.target != pod.revision)):
        if pod.phase is PodPhase.DRAINING:
            write(ledger, ledger.pod_event(pod, DrainCancelled))
        return
    depth = Impact.REDEPLOY
    if run and pod.run and not pod.recover:
        depth = impact(ledger.filled(pod.job, pod.revision), ledger.filled(pod.job, pod.target))
    if depth is Impact.NONE:
        write(ledger, pod, revision=pod.target)
    elif depth is Impact.REDEPLOY:
        if not _drained(ledger, job, pod):
            return
        revision = pod.target if run else pod.revision
        _order(ledger, pod, run=run, revision=revision, deep=True, redeploy=run and pod.recover)
    else:
        _order(ledger, pod, run=True, revision=pod.target, deep=False, redeploy=False)


def send(ledger: AppMasterState, pod: PodRecord) -> None:
    """Owe ``pod``'s present order to its agent, again and again until it is acknowledged."""
    if pod.placed and pod.ordered_incarnation == pod.incarnation:
        ledger.pod_orders.setdefault(pod.agent, {})[pod.pod] = None
        ledger.timers.at(ledger.now_s + ledger.order_backoff.next(pod.pod), "pod", pod.pod)


def build_order(ledger: AppMasterState, pod: PodRecord) -> PodOrder:
    """Return the order that the record stands for; the same generation is always the same order."""
    spec = ledger.filled(pod.job, pod.revision)
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


def _drained(ledger: AppMasterState, job: JobRecord, pod: PodRecord) -> bool:
    """Whether ``pod`` may be taken down now; its endpoints are withdrawn first, for a while."""
    if pod.phase is PodPhase.DRAINING:
        due_s = pod.drain_s or 0.0
    elif endpoints.published(ledger, pod):
        due_s = ledger.now_s + ledger.spec(job.job, job.revision).deploy.drain
        pod = ledger.pod_event(pod, DrainBegan)
        if due_s > ledger.now_s:
            write(ledger, pod, drain_s=due_s)
    else:
        return True
    if due_s > ledger.now_s:
        ledger.timers.at(due_s, "job", job.job)
    return due_s <= ledger.now_s


def _order(
    ledger: AppMasterState, pod: PodRecord, *, run: bool, revision: int, deep: bool, redeploy: bool
) -> PodRecord:
    """Make and owe the next order; a ``deep`` one takes the present program down."""
    generation = pod.generation + 1
    fresh = pod.ordered_incarnation != pod.incarnation
    restarts = pod.restarts
    if run and pod.found and not fresh and pod.revision and (redeploy or revision != pod.revision):
        restarts += _restarts(pod.found) if deep else 0  # AppWorker counts a new program's from 0.
    if deep:
        pod = ledger.pod_event(pod, RunOrdered if run else StopOrdered)
    ledger.timers.cancel("pod", pod.pod)
    ledger.order_backoff.forget(pod.pod)
    pod = write(
        ledger,
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
    send(ledger, pod)
    return pod


def _stop_timeout(ledger: AppMasterState, job: JobRecord) -> float:
    return ledger.spec(job.job, job.revision).deploy.stop_timeout


def _restarts(found: ObservedPod) -> int:
    return sum(task.restarts for task in found.tasks)


def restarts_of(pod: PodRecord) -> int:
    """Return how often programs of ``pod`` were restarted, over all its orders."""
    return pod.restarts + (_restarts(pod.found) if pod.found else 0)


def _reason(found: ObservedPod) -> Reason | None:
    """Return the reason of the task that is worst off."""
    worst_first = (TaskState.FAILED, TaskState.BACKOFF)
    reasons = [
        (task.state not in worst_first, task.name, task.reason)
        for task in found.tasks
        if task.reason is not None
    ]
    if not reasons:
        return None
    _, name, reason = min(reasons, key=lambda entry: entry[0])
    return msgspec.structs.replace(reason, message=f"task {name}: {reason.message}")


def _tell(
    ledger: AppMasterState, before: PodRecord, pod: PodRecord, old: ObservedPod | None, found: ObservedPod
) -> None:
    """Tell what a report changed: each restart with its cause, and each new phase."""
    earlier = {task.name: task for task in old.tasks} if old else {}
    for task in found.tasks:
        last = earlier.get(task.name)
        if task.last_exit is not None and (last is None or last.last_exit != task.last_exit):
            text = f"task {task.name}: {task.last_exit}"
            if task.restarts:
                text += f"; restarted {task.restarts} times so far"
            ledger.tell(pod.job, "pod.exited", pod.pod, text)
    if pod.phase is not before.phase:
        ledger.tell(pod.job, f"pod.{pod.phase}", pod.pod, pod.reason.message if pod.reason else "")
    elif pod.run and found.healthy != (old is not None and old.healthy):
        ledger.tell(pod.job, "pod.healthy" if found.healthy else "pod.unhealthy", pod.pod)
