"""One job: its pods are created and reconciled, its containers ordered, and its state updated."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

import msgspec

from galaxy.appmaster.logic.agent_reports import AgentReports
from galaxy.appmaster.logic.batch import runs
from galaxy.appmaster.logic.jobs import groups, pods
from galaxy.appmaster.logic.jobs.transitions import (
    AllEndedSomeFailed,
    AllFinished,
    AllStopped,
    AllUp,
    RemoveRequested,
    SomeFailed,
)
from galaxy.appmaster.logic.rollout import evacuation, rollout
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.ids import pod_id
from galaxy.model.messages.pod import TaskState
from galaxy.model.messages.trace import timer_cause
from galaxy.model.stored.job import DesiredState, JobRecord, JobState, PodPhase, PodRecord
from galaxy.model.stored.run import RunState

SHARE_MIN: Final = 16
"""Pods of one job that are ordered in one turn, however many jobs wait."""


def reconcile(
    state: AppMasterState, agents: AgentReports, job_id: str, changed: Iterable[str] | None
) -> None:
    """Take the next steps from a job's observed state towards its desired state.

    ``changed`` are the pods to reconcile; None means all of them. Invariant: everything that the job waits
    for afterwards either has a timer or touches the job when it happens.
    """
    job = state.jobs.get(job_id)
    if job is None:
        return
    job = rollout.advance(state, job)
    evacuation.advance(state, job)
    for key in state.pods.where("job", job_id) if changed is None else tuple(changed):
        pod = state.pods.get(key)
        if pod is not None:
            pods.reconcile(state, job, pod)
    if changed is None or not _is_unaffected(state, job, changed):
        job = groups.reconcile(state, agents, job, state.job_pods(job_id))
        _update_state(state, job)


def order_in_turn(state: AppMasterState) -> bool:
    """Order pods that wait for an order, as many as this step may; return whether there were any.

    All jobs get equal shares, so that the pods of a small job do not wait for those of large ones.
    """
    waiting = state.awaiting_order
    began = bool(waiting) and state.orders_left > 0
    while waiting and state.orders_left > 0:
        share = max(SHARE_MIN, state.orders_left // len(waiting))
        for job_id in list(islice(waiting, state.orders_left)):
            if state.orders_left <= 0:
                break
            keys = waiting.pop(job_id)
            turn = list(islice(keys, min(share, state.orders_left)))
            state.orders_left -= len(turn)
            for key in turn:
                del keys[key]
                job, pod = state.jobs.get(job_id), state.pods.get(key)
                if job is not None and pod is not None:
                    state.cause = timer_cause("orders")
                    pods.reconcile(state, job, pod, may_order=True)
            if keys:
                waiting[job_id] = keys  # Behind the others.
    return began


def create_pods(state: AppMasterState, job: JobRecord) -> None:
    """Create the pods that ``job`` lacks, on its current revision and run."""
    for index in range(job.replica):
        key = pod_id(job.job, index)
        if key not in state.pods:
            state.put_pod(
                PodRecord(
                    pod=key,
                    job=job.job,
                    index=index,
                    target=job.revision,
                    run=job.run,
                    since_s=state.now_s,
                    generation=job.generation_floor,
                )
            )


def remove(state: AppMasterState, job: JobRecord) -> JobRecord:
    """Begin to remove ``job``: its pods are drained and stopped before their containers are released."""
    removed_from = job.state
    job = state.apply_job_event(job, RemoveRequested)
    state.timers.cancel(("ended", job.job))
    job = state.put_job(
        msgspec.structs.replace(job, desired=DesiredState.REMOVE, rollout=None, removed_from=removed_from)
    )
    state.index_services(job)
    state.touch(job.job)
    return job


def schedule_removal(state: AppMasterState, job: JobRecord) -> None:
    """Bound how long a job that is over is kept, and how many such jobs there are."""
    state.timers.set_if_sooner(("ended", job.job), job.updated_s + state.config.ended_s)
    for job_state in [each for each in JobState if each.is_over]:
        surplus = state.jobs.count("state", job_state) - state.config.ended_max
        if surplus > 0:
            over = [state.jobs[key] for key in state.jobs.where("state", job_state)]
            for old in sorted(over, key=lambda each: each.updated_s)[:surplus]:
                remove(state, old)


def is_settled(state: AppMasterState, job: JobRecord) -> bool:
    """Return whether the observed state is the desired state, so that nothing is in progress."""
    if job.state.is_over:
        return True  # Its containers are released in the background.
    if not groups.is_acked(state, job) or job.rollout is not None or not _has_only_its_replicas(state, job):
        return False
    if job.state is JobState.STOPPED:
        return True
    rows = state.job_pods(job.job)
    return job.state is JobState.RUNNING and all(
        pods.is_over(job, pod) or (pod.up and _runs(job, pod) and not pod.recover) for pod in rows
    )


def _is_unaffected(state: AppMasterState, job: JobRecord, changed: Iterable[str]) -> bool:
    """Return whether a change of the pods ``changed`` cannot change the job's state or its containers.

    It uses counts, and reads no pod but those, so that a change of one pod of a large job does not read
    the others. False is always correct.
    """
    if job.desired is not DesiredState.RUN or job.rollout is not None:
        return False
    if not _has_only_its_replicas(state, job):
        return False
    count = state.pods.count
    if job.group_moves or count("leaving", job.job) or count("asked_to_leave", job.job):
        return False
    if count("phase", (job.job, PodPhase.FINISHED)) or count("phase", (job.job, PodPhase.FAILED)):
        return False
    if any(pods.is_crash_looping(state, state.pods[key]) for key in changed if key in state.pods):
        return False
    running = count("phase", (job.job, PodPhase.RUNNING))
    return job.state is JobState.RUNNING or (job.state is JobState.PENDING and running < job.replica)


def _has_only_its_replicas(state: AppMasterState, job: JobRecord) -> bool:
    """Return whether the job has as many pods as replicas: none is being removed."""
    return state.pods.count("job", job.job) == job.replica


def _update_state(state: AppMasterState, job: JobRecord) -> None:
    """Apply the job event that follows from the phases of all pods, if any."""
    if job.desired is DesiredState.REMOVE or job.state.is_over:
        return
    rows = [pod for pod in state.job_pods(job.job) if pod.index < job.replica]
    if rows and all(pods.is_over(job, pod) for pod in rows):
        _end(state, job, rows)
    elif job.desired is DesiredState.STOP:
        if _has_only_its_replicas(state, job) and all(pods.is_down(state, job, pod) for pod in rows):
            state.apply_job_event(job, AllStopped)
    elif job.rollout is None:
        missing = [pod for pod in rows if not (pods.is_over(job, pod) or _runs(job, pod))]
        failed = {pod.pod for pod in missing if not job.type.is_batch and _failed_for_good(pod)}
        looping = {pod.pod for pod in rows if pods.is_crash_looping(state, pod)} - failed
        if not missing and not looping:
            state.apply_job_event(job, AllUp)
        elif (failed or looping) and failed | looping >= {pod.pod for pod in missing}:
            counts = [(len(failed), "failed for good"), (len(looping), "restart again and again")]
            text = ", ".join(f"{count} of {len(rows)} pods {what}" for count, what in counts if count)
            state.apply_job_event(job, SomeFailed, text)


def _end(state: AppMasterState, job: JobRecord, rows: list[PodRecord]) -> None:
    """End a job whose pods have all ended, and its run."""
    failed = [pod for pod in rows if pod.phase is PodPhase.FAILED]
    code = _exit_code(failed) if job.type.is_batch else 0
    job = state.put_job(msgspec.structs.replace(job, exit_code=code, rollout=None))
    text = f"{len(rows) - len(failed)} of {len(rows)} pods finished, {len(failed)} failed; exit code {code}"
    job = state.apply_job_event(job, AllEndedSomeFailed if failed else AllFinished, text)
    runs.end(state, job, RunState.FAILED if failed else RunState.FINISHED, code)
    state.touch(job.job)
    schedule_removal(state, job)


def _exit_code(failed: list[PodRecord]) -> int:
    """Return the status of the first program that failed, in the order of pods and tasks; 1 if none ran.

    The order of time would give a recovered job another exit code although the same programs fail.
    """
    exits = [
        task.last_exit.status
        for pod in sorted(failed, key=lambda pod: pod.index)
        for task in (pod.observed.tasks if pod.observed else ())
        if task.state is TaskState.FAILED and task.last_exit is not None and task.last_exit.status != 0
    ]
    return next(iter(exits), 1) if failed else 0


def _failed_for_good(pod: PodRecord) -> bool:
    """Return whether ``pod`` failed under its last order and no recovery of it was asked for."""
    return pod.phase is PodPhase.FAILED and pods.is_acked(pod) and not pod.recover


def _runs(job: JobRecord, pod: PodRecord) -> bool:
    """Return whether the programs of ``pod`` are up on the job's revision; they need not be healthy."""
    return pod.phase is PodPhase.RUNNING and pod.revision == job.revision and pods.is_acked(pod)
