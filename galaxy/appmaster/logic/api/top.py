"""The query for what jobs and pods use now, from the last samples of agents."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from galaxy.appmaster.logic.identity.job_authz import LIST, can_list
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.api.top import ShowTop, TopOrder, TopRow, TopSubject, TopView
from galaxy.model.jobspec.demand import demand_of
from galaxy.model.resources import Resources
from galaxy.model.stored.job import JobRecord, PodRecord
from galaxy.operations.declaration import Caller, query

Key = tuple[int, str]
"""What rows are sorted by: the lowest comes first."""


@query(ShowTop, authority=LIST)
def show_top(state: AppMasterState, body: ShowTop, caller: Caller) -> TopView:
    """Show the jobs or pods that use most, among those that the caller may list."""
    jobs = [
        job
        for job in state.jobs.values()
        if (not body.user or job.user == body.user) and can_list(state, caller.user, job)
    ]
    keyed = _jobs(state, jobs) if body.subject is TopSubject.JOBS else _pods(state, jobs)
    rows = [(_key(body.order, name, used), name, used) for name, used in keyed]
    shown = heapq.nsmallest(body.skip + body.limit, rows)[body.skip :]
    if body.subject is TopSubject.JOBS:
        return TopView(rows=tuple(_job_row(state, name, used) for _, name, used in shown), total=len(rows))
    return TopView(rows=tuple(_pod_row(state, name, used) for _, name, used in shown), total=len(rows))


def _key(order: TopOrder, name: str, used: tuple[int, int]) -> Key:
    return (0 if order is TopOrder.NAME else -used[0] if order is TopOrder.CPU else -used[1]), name


def _pods(state: AppMasterState, jobs: list[JobRecord]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each pod with a container, and the millicores and bytes that it uses."""
    for job in jobs:
        for pod in _placed(state, job):
            yield pod.pod, state.usage.get(pod.pod, (0, 0))


def _jobs(state: AppMasterState, jobs: list[JobRecord]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each job with a container, and what its pods use together."""
    for job in jobs:
        used = [state.usage.get(pod.pod, (0, 0)) for pod in _placed(state, job)]
        if used:
            yield job.job, (sum(cpu for cpu, _ in used), sum(memory for _, memory in used))


def _placed(state: AppMasterState, job: JobRecord) -> Iterator[PodRecord]:
    for key in state.pods.each("job", job.job):
        pod = state.pods[key]
        if pod.placed:
            yield pod


def _job_row(state: AppMasterState, name: str, used: tuple[int, int]) -> TopRow:
    job = state.jobs[name]
    count = sum(1 for _ in _placed(state, job))
    return _row(name, used, _asked(state, job) * count, job, pods=count)


def _pod_row(state: AppMasterState, name: str, used: tuple[int, int]) -> TopRow:
    pod = state.pods[name]
    job = state.jobs[pod.job]
    return _row(name, used, _asked(state, job), job, agent=pod.agent)


def _asked(state: AppMasterState, job: JobRecord) -> Resources:
    return demand_of(state.spec(job.job, job.revision)).resources


def _row(
    name: str, used: tuple[int, int], asked: Resources, job: JobRecord, *, agent: str = "", pods: int = 1
) -> TopRow:
    return TopRow(
        name=name,
        user=job.user,
        agent=agent,
        pods=pods,
        cpu_milli=used[0],
        memory_bytes=used[1],
        asked_cpu_milli=asked.cpu_milli,
        asked_memory_bytes=asked.memory_bytes,
    )
