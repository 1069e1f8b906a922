"""A job's container group: the orders to ResMan, and ResMan's statuses."""

from __future__ import annotations

from typing import Any

import msgspec

from galaxy.appmaster.logic.agent_reports import AgentReports
from galaxy.appmaster.logic.batch import runs
from galaxy.appmaster.logic.jobs import endpoints, moves, pods, resizes
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.jobspec.demand import demand_of
from galaxy.model.messages.container import ContainerState, GroupOrder, GroupStatus, Reason, SlotStatus
from galaxy.model.stored.job import DesiredState, HistoryRecord, JobRecord, JobState, PodRecord
from galaxy.model.stored.run import RunState

_WITHOUT_CONTAINER = (ContainerState.PENDING, ContainerState.DESTROYING, ContainerState.GONE)


def is_acked(state: AppMasterState, job: JobRecord) -> bool:
    """Return whether ResMan acknowledged the last order for the job's group in this leadership."""
    return state.acked_serials.get(job.job, -1) >= job.serial


def is_released(job: JobRecord, pod: PodRecord) -> bool:
    """Return whether the last order releases the container of ``pod``."""
    return job.group_remove or pod.index >= job.group_replicas or pod.index in job.group_release


def reconcile(
    state: AppMasterState, agents: AgentReports, job: JobRecord, rows: list[PodRecord]
) -> JobRecord:
    """Order the containers that the job needs, if that differs from the last order.

    Pods beyond the job's replicas are dropped once their containers are released.
    """
    replicas, release, remove = _desired(state, job, rows)
    moved = moves.leaving(state, job.job)
    keep = resizes.kept_sizes(state, job, rows)
    ordered = (job.group_replicas, job.group_release, job.group_remove, job.group_moves)
    resized = (job.size, keep) != (job.group_size, job.group_keep)
    if (replicas, release, remove, moved) != ordered or resized or not job.serial:
        job = _send_new(
            state,
            msgspec.structs.replace(
                job,
                group_replicas=replicas,
                group_release=release,
                group_remove=remove,
                group_moves=moved,
                group_size=job.size,
                group_keep=keep,
            ),
        )
    if is_acked(state, job) and job.desired is not DesiredState.REMOVE:  # History keeps all pods.
        for pod in rows:
            if pod.index >= job.replica and not pod.placed and is_released(job, pod):
                job = _drop_pod(state, agents, job, pod)
    return job


def request_start(state: AppMasterState, job: JobRecord) -> JobRecord:
    """Order ResMan to place slots at once that wait after failures, because the owner asked for a start."""
    if not job.serial:
        return job  # No order was ever sent.
    return _send_new(state, msgspec.structs.replace(job, starts=job.starts + 1))


def send(state: AppMasterState, job: JobRecord) -> None:
    """Send the group's current order in this step, and set the timer that resends it.

    It is resent with growing pauses until it is acknowledged. After that it is resent at a slow, fixed
    rate, because ResMan's answers replace statuses that were lost.
    """
    state.outbox.group_orders[job.job] = build_order(state, job)
    if is_acked(state, job):
        config = state.config
        at_rest = job.state.is_over or job.state is JobState.STOPPED
        poll_s = config.group_poll_at_rest_s if at_rest else config.group_poll_s
        state.timers.set_if_sooner(("group", job.job), state.now_s + poll_s)
    else:
        state.timers.set_if_sooner(("group", job.job), state.now_s + state.group_backoff.next_s(job.job))


def build_order(state: AppMasterState, job: JobRecord) -> GroupOrder:
    """Build the order from the job's record, with the version of the last status that was applied."""
    seen_epoch, seen = state.group_versions.get(job.job, (0, 0)) if is_acked(state, job) else (0, 0)
    return GroupOrder(
        group=job.job,
        epoch=state.epoch,
        serial=job.serial,
        replicas=job.group_replicas,
        demand=demand_of(state.spec(job.job, job.revision)),
        priority=job.type.priority,
        batch=job.type.is_batch,
        remove=job.group_remove,
        release=job.group_release,
        starts=job.starts,
        seen_epoch=seen_epoch,
        seen=seen,
        user=job.user,
        moves=moves.orders(state, job),
        size=job.group_size,
        keep=job.group_keep,
    )


def on_status(state: AppMasterState, agents: AgentReports, status: GroupStatus) -> None:
    """Apply a status of ResMan. Slots of earlier incarnations are ignored."""
    job = state.jobs.get(status.group)
    if job is None:
        return
    if not status.known:
        _on_unknown(state, agents, job)
        return
    if status.serial >= job.serial and not is_acked(state, job):
        state.acked_serials[job.job] = status.serial
        state.group_backoff.reset(job.job)
        state.timers.set(("group", job.job), state.now_s + state.config.group_poll_s)
        state.touch(job.job)
    if not _accept_version(state, status):
        return
    for slot in status.slots:
        _on_slot(state, agents, slot, job.job)
    if status.full and status.serial >= job.serial:
        named = {slot.container for slot in status.slots}
        for pod_id in state.pods.where("job", job.job):
            if pod_id not in named:
                _on_container_gone(state, agents, state.pods[pod_id])


def _on_unknown(state: AppMasterState, agents: AgentReports, job: JobRecord) -> None:
    """Handle a group that ResMan does not have: it was removed as ordered, or must be ordered again."""
    state.group_versions.pop(job.job, None)
    if job.group_remove:
        _drop_job(state, agents, job)
    elif is_acked(state, job):
        state.acked_serials.pop(job.job, None)
        state.timers.cancel(("group", job.job))
        send(state, job)


def _send_new(state: AppMasterState, job: JobRecord) -> JobRecord:
    """Store ``job`` with the next serial and send its order."""
    job = state.put_job(msgspec.structs.replace(job, serial=job.serial + 1))
    state.group_backoff.reset(job.job)
    state.timers.cancel(("group", job.job))
    send(state, job)
    return job


def _accept_version(state: AppMasterState, status: GroupStatus) -> bool:
    """Return whether to apply ``status``, and record the version up to which no status was missed.

    A status that is older than the last one is not applied. After a gap no version is recorded, so
    that the next order asks for all slots.
    """
    applied, now = state.group_versions.get(status.group), (status.epoch, status.version)
    if applied is not None and status.version and (now < applied or (now == applied and not status.full)):
        return False
    follows = status.full or applied == (status.epoch, status.since)
    if follows and status.version:
        state.group_versions[status.group] = now
    else:
        state.group_versions.pop(status.group, None)
    return True


def _desired(
    state: AppMasterState, job: JobRecord, rows: list[PodRecord]
) -> tuple[int, tuple[int, ...], bool]:
    """Return the replicas, released slots and removal to order, as far as the pods' phases allow it.

    A container is released only when nothing runs in it any more.
    """
    if job.desired is DesiredState.REMOVE:
        if job.group_remove or all(pods.is_down(state, job, pod) for pod in rows):
            return 0, (), True
        return job.group_replicas, job.group_release, False
    release: list[int] = []
    replicas = job.replica
    for pod in rows:
        if pod.index >= job.replica:
            if pods.is_down(state, job, pod):
                release.append(pod.index)
            else:
                replicas = max(replicas, pod.index + 1)
        elif pods.never_runs_again(job, pod) or (job.state.is_over and pods.is_over(job, pod)):
            release.append(pod.index)
    return replicas, tuple(index for index in release if index < replicas), False


def _on_slot(state: AppMasterState, agents: AgentReports, slot: SlotStatus, job_id: str) -> None:
    pod = state.pods.get(slot.container)
    if pod is None or pod.job != job_id or slot.incarnation < pod.incarnation:
        return
    job = state.jobs[job_id]
    if slot.state in _WITHOUT_CONTAINER or not slot.agent:
        if pod.placed:
            _on_container_gone(state, agents, pod, slot.reason)
            pod = state.pods[pod.pod]
        waits = slot.state is ContainerState.PENDING and not pods.is_over(job, pod)
        pods.write(state, pod, slot=slot.state, reason=slot.reason if waits else pod.reason)
        return
    if pods.is_over(job, pod):
        if slot.incarnation > pod.incarnation:  # The pod's record keeps the agent that has its logs.
            _on_container_gone(state, agents, pod, slot.reason)
        elif pod.placed:
            pods.write(state, pod, leave=slot.leave)
        return
    facts: dict[str, Any] = {
        "address": slot.address,
        "ports": slot.ports,
        "slot": slot.state,
        "size": slot.size,
        "resize": slot.resize,
        "leave": slot.leave,
    }
    if slot.incarnation > pod.incarnation or not pod.placed:
        if pod.placed:
            _on_container_gone(state, agents, pod, slot.reason)
        pods.on_placed(state, state.pods[pod.pod], slot.agent, slot.incarnation, **facts)
    else:
        was_ready = pod.slot is ContainerState.READY
        if slot.size != pod.size or slot.resize != pod.resize:
            resizes.record(state, pod, slot)
        pod = pods.write(state, pod, **facts)
        if pod.slot is ContainerState.READY and not was_ready:
            pods.on_created(state, pod)


def _on_container_gone(
    state: AppMasterState, agents: AgentReports, pod: PodRecord, reason: Reason | None = None
) -> None:
    if pod.placed:
        agents.remove_pod(pod.agent, pod.pod)
        pods.on_lost(state, pod, reason)
    state.touch(pod.job)


def _drop_pod(state: AppMasterState, agents: AgentReports, job: JobRecord, pod: PodRecord) -> JobRecord:
    """Drop a pod whose container is released; its generations are never used again."""
    state.pods.drop(pod.pod)
    state.usage.pop(pod.pod, None)
    endpoints.withdraw(state, pod.pod)
    state.timers.cancel(("pod", pod.pod))
    state.order_backoff.reset(pod.pod)
    agents.remove_pod(pod.agent, pod.pod)
    if pod.generation <= job.generation_floor:
        return job
    return state.put_job(msgspec.structs.replace(job, generation_floor=pod.generation))


def _drop_job(state: AppMasterState, agents: AgentReports, job: JobRecord) -> None:
    """Drop everything of a removed job except its row in the history."""
    state.record_event(job.job, "job.removed", job.job)
    runs.end(state, job, RunState.REMOVED)
    timeline = state.timelines.get(job.job)
    rows = state.job_pods(job.job)
    state.job_history.add(
        HistoryRecord(
            job=job.job,
            name=job.name,
            record=job,
            spec=state.spec(job.job, job.revision),
            pods=tuple(msgspec.structs.replace(pod, placed=False, up=False) for pod in rows),
            events=timeline.events if timeline else (),
            at_s=state.now_s,
            runs=runs.runs_of(state, job.job),
        )
    )
    for pod in rows:
        _drop_pod(state, agents, job, pod)
    for key in state.revisions.where("job", job.job):
        state.drop_revision(key)
    runs.drop(state, job.job)
    state.timelines.drop(job.job)
    state.jobs.drop(job.job)
    state.services.set_job(job.job, ())
    state.touched.pop(job.job, None)
    state.acked_serials.pop(job.job, None)
    state.group_versions.pop(job.job, None)
    state.group_backoff.reset(job.job)
    for kind in ("group", "job", "ended"):
        state.timers.cancel((kind, job.job))
