"""Queries about jobs, pods and services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from galaxy.appmaster.logic.api import lookup
from galaxy.appmaster.logic.batch import runs
from galaxy.appmaster.logic.identity.job_authz import LIST, SHOW, can_list, require_submitted, spec_for
from galaxy.appmaster.logic.jobs import jobs, reasons, resizes, restarts
from galaxy.appmaster.logic.rollout import evacuation
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.api.jobs import Discover, EndpointList, JobList, ListJobs, ShowJob
from galaxy.model.api.views import EndpointView, JobSummary, JobView, PodView, RunView, TaskView
from galaxy.model.jobspec.demand import demand_of
from galaxy.model.messages.container import Reason
from galaxy.model.redaction import without_credentials
from galaxy.model.stored.job import (
    EndpointRecord,
    EndpointState,
    HistoryRecord,
    JobRecord,
    JobState,
    PodPhase,
    PodRecord,
)
from galaxy.model.stored.run import RunRecord
from galaxy.operations.authz import ANY_USER
from galaxy.operations.declaration import Caller, query
from galaxy.operations.paging import page_of, sortable

REMOVED: Final = "removed"
"""State of a job that is only in the history, and of a pod whose container was removed with it."""
_ENDED: Final = (PodPhase.FINISHED, PodPhase.FAILED)


@query(ListJobs, authority=LIST)
def list_jobs(state: AppMasterState, body: ListJobs, caller: Caller) -> JobList:
    """List jobs by name: live and failed ones, and with ``all`` finished and removed ones too."""
    rows: list[JobRecord | HistoryRecord] = [
        job for job in state.jobs.values() if body.all or job.state is not JobState.FINISHED
    ]
    if body.all:
        rows += state.history.values()
    visible = [row for row in rows if can_list(state, caller.user, row)]
    page, after = page_of(visible, _list_key, body)
    hidden = len(rows) - len(visible)
    return JobList(jobs=tuple(_summary(state, row) for row in page), next=after, hidden=hidden)


@query(ShowJob, authority=SHOW)
def show_job(state: AppMasterState, body: ShowJob, caller: Caller) -> JobView:
    """Show one job, or its record in the history.

    Raises:
        NotFound, Conflict: no such job, or several. Refused: ``submitted``, and the caller is not the owner.
    """
    found = lookup.find_any(state, body.job)
    view = _past_view(found) if isinstance(found, HistoryRecord) else _live_view(state, found)
    owner = view.summary.user
    if body.submitted:
        require_submitted(caller.user, owner, body.job)
        return view
    return msgspec.structs.replace(view, spec=spec_for(caller.user, owner, view.spec))


@query(Discover, authority=ANY_USER)
def discover(state: AppMasterState, body: Discover, _: Caller) -> EndpointList:
    """List the healthy endpoints of a service, or with ``all`` every endpoint with its state.

    Raises:
        NotFound: no job declares such a service.
    """
    keys = state.endpoints.where("service", body.service)
    if not keys and body.service not in state.services:
        raise lookup.not_found_service(state, body.service)
    rows = _endpoint_rows(state, keys, every=body.all)
    page, after = page_of(rows, _endpoint_key, body)
    return EndpointList(endpoints=tuple(_endpoint_view(row) for row in page), next=after)


def _list_key(row: JobRecord | HistoryRecord) -> tuple[str, ...]:
    job = row.record if isinstance(row, HistoryRecord) else row
    return job.name, sortable(job.created_s), job.job


def _summary(state: AppMasterState, row: JobRecord | HistoryRecord) -> JobSummary:
    if isinstance(row, HistoryRecord):
        return _past_summary(row)
    if _is_all_up(state, row):
        return _summarize(state, row, (), up=row.replica)
    return _summarize(state, row, state.job_pods(row.job))


def _is_all_up(state: AppMasterState, job: JobRecord) -> bool:
    """Return whether every pod of ``job`` is up and nothing is in progress, by counts that cost nothing."""
    counts = state.pods.count("up", job.job), state.pods.count("job", job.job)
    return job.state is JobState.RUNNING and job.rollout is None and counts == (job.replica, job.replica)


def _past_view(past: HistoryRecord) -> JobView:
    return JobView(
        summary=_past_summary(past),
        spec=past.spec,
        pods=tuple(
            _pod_view(pod, state=str(pod.phase) if pod.phase in _ENDED else REMOVED, reason=pod.reason)
            for pod in past.pods
        ),
        events=past.events,
        exit_code=past.record.exit_code,
        settled=True,
        runs=_runs(past.runs),
    )


def _live_view(state: AppMasterState, job: JobRecord) -> JobView:
    rows = state.job_pods(job.job)
    timeline = state.timelines.get(job.job)
    return JobView(
        summary=_summarize(state, job, rows),
        spec=state.spec(job.job, job.revision),
        pods=tuple(_live_pod_view(state, job, pod) for pod in rows),
        endpoints=_endpoints(state, state.endpoints.where("job", job.job)),
        events=timeline.events if timeline else (),
        exit_code=job.exit_code,
        settled=jobs.is_settled(state, job),
        rollout_from=job.rollout.origin if job.rollout else 0,
        runs=_runs(runs.runs_of(state, job.job)),
    )


def _runs(rows: Sequence[RunRecord]) -> tuple[RunView, ...]:
    return tuple(
        RunView(
            run=row.run,
            state=row.state,
            started_s=row.started_s,
            ended_s=row.ended_s,
            exit_code=row.exit_code,
            attempts=row.attempts,
        )
        for row in rows
    )


def _summarize(
    state: AppMasterState, job: JobRecord, rows: Sequence[PodRecord], *, up: int = 0
) -> JobSummary:
    """Return the summary of a job: counts of pods by phase, and what its containers ask for together.

    ``up`` counts pods that are up and not among ``rows``.
    """
    spec = state.spec(job.job, job.revision)
    phases = [pod.phase for pod in rows if not reasons.is_gone(job, pod)]
    placed = sum(pod.placed for pod in rows) + up
    in_progress = (PodPhase.DEPLOYING, PodPhase.BACKOFF, PodPhase.STOPPING)
    return JobSummary(
        job=job.job,
        name=job.name,
        type=job.type,
        state=job.state,
        revision=job.revision,
        replica=job.replica,
        running=phases.count(PodPhase.RUNNING) + phases.count(PodPhase.DRAINING) + up,
        healthy=sum(pod.up for pod in rows) + up,
        pending=phases.count(PodPhase.PENDING),
        deploying=sum(phase in in_progress for phase in phases),
        failed=phases.count(PodPhase.FAILED),
        finished=phases.count(PodPhase.FINISHED),
        user=job.user,
        **msgspec.structs.asdict(demand_of(spec).resources * placed),
        created_s=job.created_s,
        updated_s=job.updated_s,
        reason=reasons.of_job(state, job, rows),
        in_force=resizes.in_force(state, job, rows),
    )


def _past_summary(past: HistoryRecord) -> JobSummary:
    job = past.record
    return JobSummary(
        job=job.job,
        name=job.name,
        type=job.type,
        state=job.removed_from if job.removed_from and job.removed_from.is_over else REMOVED,
        revision=job.revision,
        replica=job.replica,
        failed=sum(pod.phase is PodPhase.FAILED for pod in past.pods),
        finished=sum(pod.phase is PodPhase.FINISHED for pod in past.pods),
        user=job.user,
        created_s=job.created_s,
        updated_s=past.at_s,
    )


def _live_pod_view(state: AppMasterState, job: JobRecord, pod: PodRecord) -> PodView:
    if reasons.is_gone(job, pod):
        return _pod_view(pod, state=REMOVED, reason=None)
    usage = state.usage.get(pod.pod, (0, 0))
    view = _pod_view(pod, state=str(pod.phase), reason=reasons.of_pod(state, job, pod), usage=usage)
    return msgspec.structs.replace(view, leaving=evacuation.why_here(state, job, pod))


def _pod_view(
    pod: PodRecord, *, state: str, reason: Reason | None, usage: tuple[int, int] = (0, 0)
) -> PodView:
    observed = pod.observed
    return PodView(
        pod=pod.pod,
        index=pod.index,
        state=state,
        healthy=pod.up,
        revision=pod.revision or pod.target,
        container=pod.pod,
        incarnation=pod.incarnation,
        agent=pod.agent,
        address=pod.address,
        ports=(observed.ports if observed and observed.ports else pod.ports) if pod.placed else {},
        pid=observed.pid if observed and pod.placed else 0,
        restarts=restarts.total(pod),
        revision_restarts=restarts.on_revision(pod),
        tasks=tuple(
            TaskView(
                name=task.name,
                state=task.state,
                restarts=task.restarts,
                healthy=task.healthy,
                started_s=task.started_s,
                last_exit=task.last_exit,
                reason=task.reason,
                version=without_credentials(task.version),
                oom_kills=task.oom_kills,
            )
            for task in (observed.tasks if observed else ())
        ),
        reason=reason,
        cpu_milli=usage[0],
        memory_bytes=usage[1],
        updated_s=pod.since_s,
        not_enforced=observed.not_enforced if observed and pod.placed else (),
    )


def _endpoints(state: AppMasterState, keys: Sequence[str]) -> tuple[EndpointView, ...]:
    rows = sorted(_endpoint_rows(state, keys, every=True), key=_endpoint_key)
    return tuple(_endpoint_view(row) for row in rows)


def _endpoint_rows(state: AppMasterState, keys: Sequence[str], *, every: bool) -> list[EndpointRecord]:
    rows = [state.endpoints[key] for key in keys]
    return [row for row in rows if every or row.state is EndpointState.HEALTHY]


def _endpoint_key(row: EndpointRecord) -> tuple[str, ...]:
    """Return the key that sorts endpoints by service, then pods by index."""
    return row.service, f"{len(row.pod):06d}", row.pod, row.address, f"{row.port:05d}"


def _endpoint_view(row: EndpointRecord) -> EndpointView:
    return EndpointView(service=row.service, pod=row.pod, address=row.address, port=row.port, state=row.state)
