"""One job: its pods are made and settled, its group asked for, and where it stands concluded."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from galaxy.appmaster.logic.agent_reports import AgentReports
from galaxy.appmaster.logic.jobs import groups, pods
from galaxy.appmaster.logic.jobs.transitions import (
    AllEndedSomeFailed,
    AllFinished,
    AllStopped,
    AllUp,
    RemoveRequested,
    SomeFailed,
)
from galaxy.appmaster.logic.rollout import rollout
from galaxy.appmaster.logic.state import AppMasterState, is_batch
from galaxy.ids import pod_id
from galaxy.model.stored.job import OVER, DesiredState, JobRecord, JobState, PodPhase, PodRecord


def reconcile(
    state: AppMasterState, agents: AgentReports, job_id: str, changed: Iterable[str] | None
) -> None:
    """Bring a job closer to what it shall be; whatever it waits for has a timer or touches it again.

    ``changed`` are the pods to look at; None is all of them.
    """
    job = state.jobs.get(job_id)
    if job is None:
        return
    job = rollout.advance(state, job)
    for key in state.pods.where("job", job_id) if changed is None else tuple(changed):
        pod = state.pods.get(key)
        if pod is not None:
            pods.reconcile(state, job, pod)
    if changed is None or not _is_plain(state, job):
        job = groups.reconcile(state, agents, job, state.job_pods(job_id))
        _update_state(state, job)


def _is_plain(state: AppMasterState, job: JobRecord) -> bool:
    """Whether there is nothing to conclude from a change of single pods, told without listing all."""
    count = state.pods.count
    if job.desired is not DesiredState.RUN or job.rollout is not None or count("job", job.job) != job.replica:
        return False
    if count("phase", (job.job, PodPhase.FINISHED)) or count("phase", (job.job, PodPhase.FAILED)):
        return False
    running = count("phase", (job.job, PodPhase.RUNNING))
    return job.state is JobState.RUNNING or (job.state is JobState.PENDING and running < job.replica)


def make_pods(state: AppMasterState, job: JobRecord) -> None:
    """Make the pods that ``job`` lacks, on its present revision."""
    for index in range(job.replica):
        key = pod_id(job.job, index)
        if key not in state.pods:
            state.put_pod(
                PodRecord(
                    pod=key,
                    job=job.job,
                    index=index,
                    target=job.revision,
                    since_s=state.now_s,
                    generation=job.generation_floor,
                )
            )


def remove(state: AppMasterState, job: JobRecord) -> JobRecord:
    """Begin to remove ``job``: what runs of it is drained and stopped first."""
    ended = job.state
    job = state.apply_job_event(job, RemoveRequested)
    state.timers.cancel(("ended", job.job))
    job = state.put_job(msgspec.structs.replace(job, desired=DesiredState.REMOVE, rollout=None, ended=ended))
    state.remove_services(job.job)
    state.touch(job.job)
    return job


def is_settled(state: AppMasterState, job: JobRecord) -> bool:
    """Whether nothing is on the way any more: what is found is what is wanted."""
    if job.state in OVER:
        return all(not pod.placed for pod in state.job_pods(job.job))
    staying_only = state.pods.count("job", job.job) == job.replica
    if not groups.is_acked(state, job) or job.rollout is not None or not staying_only:
        return False
    if job.state is JobState.STOPPED:
        return True
    return job.state is JobState.RUNNING and _all_up(job, state.job_pods(job.job))


def _update_state(state: AppMasterState, job: JobRecord) -> None:
    """Let follow what the pods' phases add up to."""
    if job.desired is DesiredState.REMOVE or job.state in OVER:
        return
    rows = [pod for pod in state.job_pods(job.job) if pod.index < job.replica]
    if rows and all(pods.is_over(job, pod) for pod in rows):
        _end(state, job, rows)
    elif job.desired is DesiredState.STOP:
        staying_only = state.pods.count("job", job.job) == job.replica
        if staying_only and all(pods.is_down(state, job, pod) for pod in rows):
            state.apply_job_event(job, AllStopped)
    elif job.rollout is None:
        late = [pod for pod in rows if not (pods.is_over(job, pod) or _runs(job, pod))]
        if not late:
            state.apply_job_event(job, AllUp)
        elif not is_batch(job.type) and all(_failed(pod) for pod in late):
            state.apply_job_event(job, SomeFailed, f"{len(late)} of {len(rows)} pods failed for good")


def _end(state: AppMasterState, job: JobRecord, rows: list[PodRecord]) -> None:
    failed = [pod for pod in rows if pod.phase is PodPhase.FAILED]
    code = _exit_code(failed) if is_batch(job.type) else 0
    job = state.put_job(msgspec.structs.replace(job, exit_code=code, rollout=None))
    text = f"{len(rows) - len(failed)} of {len(rows)} pods finished, {len(failed)} failed; exit code {code}"
    job = state.apply_job_event(job, AllEndedSomeFailed if failed else AllFinished, text)
    state.touch(job.job)
    expire(state, job)


def expire(state: AppMasterState, job: JobRecord) -> None:
    """See to it that an ended job does not stay for ever: by age, and by how many there are."""
    state.timers.at(("ended", job.job), job.updated_s + state.config.ended_s)
    for ended_state in OVER:
        surplus = state.jobs.count("state", ended_state) - state.config.ended_max
        if surplus > 0:
            ended = [state.jobs[key] for key in state.jobs.where("state", ended_state)]
            for old in sorted(ended, key=lambda row: row.updated_s)[:surplus]:
                remove(state, old)


def _exit_code(failed: list[PodRecord]) -> int:
    """Return the status of the program that failed first, 1 when none of them ever ran."""
    exits = [
        task.last_exit
        for pod in failed
        for task in (pod.observed.tasks if pod.observed else ())
        if task.last_exit is not None and task.last_exit.status != 0
    ]
    if not failed:
        return 0
    return min(exits, key=lambda last: last.at_s).status if exits else 1


def _all_up(job: JobRecord, rows: list[PodRecord]) -> bool:
    return all(pods.is_over(job, pod) or (pod.up and _runs(job, pod)) for pod in rows)


def _failed(pod: PodRecord) -> bool:
    """Whether ``pod`` has failed for good, and nobody asked for it anew."""
    return pod.phase is PodPhase.FAILED and pods.is_acked(pod) and not pod.recover


def _runs(job: JobRecord, pod: PodRecord) -> bool:
    """Whether the programs of ``pod`` are up, as the job's revision wants them; healthy is more."""
    return pod.phase is PodPhase.RUNNING and pod.revision == job.revision and pods.is_acked(pod)
