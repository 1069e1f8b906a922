"""A job's container group: what ResMan is asked for, and what it says of each slot."""

from __future__ import annotations

import msgspec

from galaxy.appmaster.logic.agent_reports import AgentReports
from galaxy.appmaster.logic.jobs import endpoints, pods
from galaxy.appmaster.logic.state import AppMasterState, is_batch
from galaxy.model.jobspec.demand import demand_of
from galaxy.model.messages.container import ContainerState, GroupOrder, GroupStatus, Reason, SlotStatus
from galaxy.model.stored.job import OVER, DesiredState, HistoryRecord, JobRecord, JobState, PodRecord

_GONE = (ContainerState.PENDING, ContainerState.DESTROYING, ContainerState.GONE)
_AT_REST = (*OVER, JobState.STOPPED)


def is_acked(state: AppMasterState, job: JobRecord) -> bool:
    """Whether ResMan has obeyed the last order for the job's group, in this leadership."""
    return state.acked_serials.get(job.job, -1) >= job.serial


def is_released(job: JobRecord, pod: PodRecord) -> bool:
    """Whether the last order gives the container of ``pod`` back."""
    return job.group_remove or pod.index >= job.group_replicas or pod.index in job.group_release


def reconcile(
    state: AppMasterState, agents: AgentReports, job: JobRecord, rows: list[PodRecord]
) -> JobRecord:
    """Ask ResMan for the containers that the job needs, if that is not what it was last asked for."""
    replicas, release, remove = _wanted(state, job, rows)
    if (replicas, release, remove) != (
        job.group_replicas,
        job.group_release,
        job.group_remove,
    ) or not job.serial:
        job = state.put_job(
            msgspec.structs.replace(
                job,
                serial=job.serial + 1,
                group_replicas=replicas,
                group_release=release,
                group_remove=remove,
            )
        )
        state.group_backoff.reset(job.job)
        state.timers.cancel(("group", job.job))
        send(state, job)
    if is_acked(state, job) and job.desired is not DesiredState.REMOVE:  # History wants to know them all.
        for pod in rows:
            if pod.index >= job.replica and not pod.placed and is_released(job, pod):
                job = _drop(state, agents, job, pod)
    return job


def request_start(state: AppMasterState, job: JobRecord) -> JobRecord:
    """Tell ResMan that the owner asked for a start: what failed before holds nothing back any more."""
    if not job.serial:
        return job  # Nothing was ever asked of ResMan.
    job = state.put_job(msgspec.structs.replace(job, serial=job.serial + 1, starts=job.starts + 1))
    state.group_backoff.reset(job.job)
    state.timers.cancel(("group", job.job))
    send(state, job)
    return job


def send(state: AppMasterState, job: JobRecord) -> None:
    """Owe ResMan the group's present order: soon again until it is acknowledged, then now and then."""
    state.group_orders[job.job] = build_order(state, job)
    if is_acked(state, job):
        config = state.config
        audit_s = config.group_poll_at_rest_s if job.state in _AT_REST else config.group_poll_s
        state.timers.at(("group", job.job), state.now_s + audit_s)
    else:
        state.timers.at(("group", job.job), state.now_s + state.group_backoff.next_s(job.job))


def build_order(state: AppMasterState, job: JobRecord) -> GroupOrder:
    """Return the order that the job's record stands for, and how much was heard of the group."""
    seen = state.group_versions.get(job.job, (0, 0)) if is_acked(state, job) else (0, 0)
    return GroupOrder(
        group=job.job,
        epoch=state.epoch,
        serial=job.serial,
        replicas=job.group_replicas,
        demand=demand_of(state.spec(job.job, job.revision)),
        priority=job.type.priority,
        batch=is_batch(job.type),
        remove=job.group_remove,
        release=job.group_release,
        starts=job.starts,
        seen_epoch=seen[0],
        seen=seen[1],
        user=job.user,
    )


def on_status(state: AppMasterState, agents: AgentReports, status: GroupStatus) -> None:
    """Take in what ResMan says of a group; nothing of it is older than what the slots' lives tell."""
    job = state.jobs.get(status.group)
    if job is None:
        return
    if not status.known:
        state.group_versions.pop(job.job, None)
        if job.group_remove:
            _end(state, agents, job)
        elif is_acked(state, job):
            # It had the group and has it no more: say again what is wanted.
            state.acked_serials.pop(job.job, None)
            state.timers.cancel(("group", job.job))
            send(state, job)
        return
    if status.serial >= job.serial and not is_acked(state, job):
        state.acked_serials[job.job] = status.serial
        state.group_backoff.reset(job.job)
        state.timers.cancel(("group", job.job))
        state.timers.at(("group", job.job), state.now_s + state.config.group_poll_s)
        state.touch(job.job)
    if not _is_news(state, status):
        return
    for slot in status.slots:
        _take_slot(state, agents, slot, job.job)
    if status.full and status.serial >= job.serial:
        named = {slot.container for slot in status.slots}
        for pod_id in state.pods.where("job", job.job):
            if pod_id not in named:
                _gone(state, agents, state.pods[pod_id])


def _is_news(state: AppMasterState, status: GroupStatus) -> bool:
    """Whether ``status`` may say something new; note up to where nothing of its group was missed.

    What is older than what was heard is not believed. After a gap everything is asked for anew.
    """
    heard, now = state.group_versions.get(status.group), (status.epoch, status.version)
    if heard is not None and status.version and (now < heard or (now == heard and not status.full)):
        return False
    follows = status.full or heard == (status.epoch, status.since)
    if follows and status.version:
        state.group_versions[status.group] = now
    else:
        state.group_versions.pop(status.group, None)
    return True


def _wanted(
    state: AppMasterState, job: JobRecord, rows: list[PodRecord]
) -> tuple[int, tuple[int, ...], bool]:
    """Return replicas, released slots and removal, as the pods' states allow."""
    if job.desired is DesiredState.REMOVE:
        if job.group_remove or all(pods.is_down(state, job, pod) for pod in rows):
            return 0, (), True
        return job.group_replicas, job.group_release, False
    over = job.state in OVER
    release: list[int] = []
    replicas = job.replica
    for pod in rows:
        if pod.index >= job.replica:
            if pods.is_down(state, job, pod):
                release.append(pod.index)
            else:
                replicas = max(replicas, pod.index + 1)
        elif pods.is_over(job, pod) and (over or is_batch(job.type)):
            release.append(pod.index)
    return replicas, tuple(index for index in release if index < replicas), False


def _take_slot(state: AppMasterState, agents: AgentReports, slot: SlotStatus, job_id: str) -> None:
    pod = state.pods.get(slot.container)
    if pod is None or pod.job != job_id or slot.incarnation < pod.incarnation:
        return
    job = state.jobs[job_id]
    if slot.state in _GONE or not slot.agent:
        if pod.placed:
            _gone(state, agents, pod, slot.reason)
            pod = state.pods[pod.pod]
        waits = slot.state is ContainerState.PENDING and not pods.is_over(job, pod)
        pods.write(state, pod, slot=slot.state, reason=slot.reason if waits else pod.reason)
        return
    if pods.is_over(job, pod):
        return  # A new life of a slot that is given back: nothing runs there, nobody looks there.
    facts = {"address": slot.address, "ports": slot.ports, "slot": slot.state}
    if slot.incarnation > pod.incarnation or not pod.placed:
        if pod.placed:
            _gone(state, agents, pod, slot.reason)
        pods.on_placed(state, state.pods[pod.pod], slot.agent, slot.incarnation, **facts)
    else:
        pods.write(state, pod, **facts)


def _gone(state: AppMasterState, agents: AgentReports, pod: PodRecord, reason: Reason | None = None) -> None:
    if pod.placed:
        agents.forget(pod.agent, pod.pod)
        pods.on_lost(state, pod, reason)
    state.touch(pod.job)


def _drop(state: AppMasterState, agents: AgentReports, job: JobRecord, pod: PodRecord) -> JobRecord:
    """Forget a pod whose container is given back; its generations are never used again."""
    state.pods.drop(pod.pod)
    state.usage.pop(pod.pod, None)
    endpoints.withdraw(state, pod.pod)
    state.timers.cancel(("pod", pod.pod))
    state.order_backoff.reset(pod.pod)
    agents.forget(pod.agent, pod.pod)
    if pod.generation <= job.generation_floor:
        return job
    return state.put_job(msgspec.structs.replace(job, generation_floor=pod.generation))


def _end(state: AppMasterState, agents: AgentReports, job: JobRecord) -> None:
    """Everything of a removed job is gone but its history."""
    state.record_event(job.job, "job.removed", job.job)
    timeline = state.timelines.get(job.job)
    rows = state.job_pods(job.job)
    state.keep_history(
        HistoryRecord(
            job=job.job,
            name=job.name,
            record=job,
            spec=state.spec(job.job, job.revision),
            pods=tuple(msgspec.structs.replace(pod, placed=False, up=False) for pod in rows),
            events=timeline.events if timeline else (),
            at_s=state.now_s,
        )
    )
    for pod in rows:
        _drop(state, agents, job, pod)
    for key in state.revisions.where("job", job.job):
        state.drop_revision(key)
    state.timelines.drop(job.job)
    state.jobs.drop(job.job)
    state.remove_services(job.job)
    state.touched.pop(job.job, None)
    state.acked_serials.pop(job.job, None)
    state.group_versions.pop(job.job, None)
    state.group_backoff.reset(job.job)
    for kind in ("group", "job", "ended"):
        state.timers.cancel((kind, job.job))
