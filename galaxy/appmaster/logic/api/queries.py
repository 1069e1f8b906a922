"""What people see of jobs, pods and services, built from the state without changing it."""

from __future__ import annotations

from collections.abc import Sequence

from galaxy.appmaster.logic.api import lookup
from galaxy.appmaster.logic.jobs import jobs, pods
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.api.jobs import Discover, EndpointList, JobList, ListJobs, ShowJob
from galaxy.model.api.views import EndpointView, JobSummary, JobView, PodView, TaskView
from galaxy.model.jobspec.demand import demand_of
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.container import Reason
from galaxy.model.stored.job import (
    OVER,
    EndpointState,
    HistoryRecord,
    JobRecord,
    JobState,
    PodPhase,
    PodRecord,
)

REMOVED = "removed"
"""State of a job that only history knows."""


def list_jobs(state: AppMasterState, asked: ListJobs) -> JobList:
    """List jobs by name: those that are live or failed, and with ``all`` what is over or gone too."""
    rows = [job for job in state.jobs.values() if asked.all or job.state is not JobState.FINISHED]
    found = [summarize(job, state.spec(job.job, job.revision), state.job_pods(job.job)) for job in rows]
    if asked.all:
        found += [_past_summary(past) for past in state.history.values()]
    return JobList(jobs=tuple(sorted(found, key=lambda line: (line.name, line.created_s))))


def show_job(state: AppMasterState, asked: ShowJob) -> JobView:
    """Show everything of one job, or what history has kept of it.

    Raises:
        NotFound, Conflict: no such job, or several.
    """
    found = lookup.find_any(state, asked.job)
    if isinstance(found, HistoryRecord):
        return JobView(
            summary=_past_summary(found),
            spec=found.spec,
            pods=tuple(_pod_view(pod, (0, 0)) for pod in found.pods),
            events=found.events,
            exit_code=found.record.exit_code,
            settled=True,
        )
    rows = state.job_pods(found.job)
    spec = state.spec(found.job, found.revision)
    timeline = state.timelines.get(found.job)
    return JobView(
        summary=summarize(found, spec, rows),
        spec=spec,
        pods=tuple(_pod_view(pod, state.usage.get(pod.pod, (0, 0))) for pod in rows),
        endpoints=_endpoints(state, state.endpoints.where("job", found.job), every=True),
        events=timeline.events if timeline else (),
        exit_code=found.exit_code,
        settled=jobs.is_settled(state, found),
        rollout_from=found.rollout.origin if found.rollout else 0,
    )


def discover(state: AppMasterState, asked: Discover) -> EndpointList:
    """List the healthy endpoints of a service, or with ``all`` every one with its state.

    Raises:
        NotFound: no job declares such a service.
    """
    keys = state.endpoints.where("service", asked.service)
    if not keys and asked.service not in state.services:
        raise lookup.not_found_service(state, asked.service)
    return EndpointList(endpoints=_endpoints(state, keys, every=asked.all))


def summarize(job: JobRecord, spec: JobSpec, rows: Sequence[PodRecord]) -> JobSummary:
    """Return the line of a job: counts of pods by state, and what its containers ask together."""
    demand = demand_of(spec)
    phases = [pod.phase for pod in rows]
    held = sum(pod.placed for pod in rows)
    going = (PodPhase.DEPLOYING, PodPhase.BACKOFF, PodPhase.STOPPING)
    return JobSummary(
        job=job.job,
        name=job.name,
        type=job.type,
        state=job.state,
        revision=job.revision,
        replica=job.replica,
        running=phases.count(PodPhase.RUNNING) + phases.count(PodPhase.DRAINING),
        healthy=sum(pod.up for pod in rows),
        pending=phases.count(PodPhase.PENDING),
        deploying=sum(phase in going for phase in phases),
        failed=phases.count(PodPhase.FAILED),
        finished=phases.count(PodPhase.FINISHED),
        user=job.user,
        cpu_milli=held * demand.cpu_milli,
        memory_bytes=held * demand.memory_bytes,
        disk_bytes=held * demand.disk_bytes,
        created_s=job.created_s,
        updated_s=job.updated_s,
        reason=_why(job, rows),
    )


def _past_summary(past: HistoryRecord) -> JobSummary:
    job = past.record
    return JobSummary(
        job=job.job,
        name=job.name,
        type=job.type,
        state=job.ended if job.ended in OVER else REMOVED,
        revision=job.revision,
        replica=job.replica,
        failed=sum(pod.phase is PodPhase.FAILED for pod in past.pods),
        finished=sum(pod.phase is PodPhase.FINISHED for pod in past.pods),
        user=job.user,
        created_s=job.created_s,
        updated_s=past.at_s,
    )


def _why(job: JobRecord, rows: Sequence[PodRecord]) -> Reason | None:
    """Return why a job is not as wanted: its rollout, a pod that failed, one without a container."""
    if job.rollout is not None and job.rollout.stalled is not None:
        return job.rollout.stalled
    for phase, code in (
        (PodPhase.FAILED, "pod-failed"),
        (PodPhase.PENDING, ""),
        (PodPhase.BACKOFF, "pod-down"),
    ):
        those = [pod for pod in rows if pod.phase is phase]
        if those and (code or those[0].reason is not None):
            why = those[0].reason or Reason(code=code)
            message = f"{len(those)} of {job.replica} pods {phase}: {those[0].pod}: {why.message or why.code}"
            return Reason(code=code or why.code, message=message, counts=why.counts, nearest=why.nearest)
    return None


def _pod_view(pod: PodRecord, usage: tuple[int, int]) -> PodView:
    found = pod.observed
    return PodView(
        pod=pod.pod,
        index=pod.index,
        state=pod.phase,
        healthy=pod.up,
        revision=pod.revision or pod.target,
        container=pod.pod,
        incarnation=pod.incarnation,
        agent=pod.agent,
        address=pod.address,
        ports=(found.ports if found and found.ports else pod.ports) if pod.placed else {},
        pid=found.pid if found and pod.placed else 0,
        restarts=pods.restarts_of(pod),
        tasks=tuple(
            TaskView(
                name=task.name,
                state=task.state,
                restarts=task.restarts,
                healthy=task.healthy,
                started_s=task.started_s,
                last_exit=task.last_exit,
                reason=task.reason,
                version=task.version,
            )
            for task in (found.tasks if found else ())
        ),
        reason=pod.reason,
        cpu_milli=usage[0],
        memory_bytes=usage[1],
        updated_s=pod.since_s,
    )


def _endpoints(state: AppMasterState, keys: Sequence[str], *, every: bool) -> tuple[EndpointView, ...]:
    rows = [state.endpoints[key] for key in keys]
    rows = [row for row in rows if every or row.state is EndpointState.HEALTHY]
    rows.sort(key=lambda row: (row.service, len(row.pod), row.pod))
    return tuple(
        EndpointView(service=row.service, pod=row.pod, address=row.address, port=row.port, state=row.state)
        for row in rows
    )
