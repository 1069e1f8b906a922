"""Keeps the table with the numbers of jobs, pods and packages. Costs grow with what was written."""

from __future__ import annotations

from collections import Counter

from galaxy.appmaster.logic.tables import AppMasterTables
from galaxy.model.stored.cluster import ALL, JobSums


def count_committed(tables: AppMasterTables) -> None:
    """Count all rows as they were last committed; what was written since follows with ``count_written``."""
    jobs: Counter[str] = Counter(job.state for job in tables.jobs.values())
    pods: Counter[str] = Counter(pod.phase for pod in tables.pods.values())
    size_bytes = sum(row.size_bytes for row in tables.packages.values())
    new_jobs, new_pods = _written(tables)
    jobs.subtract(new_jobs)
    pods.subtract(new_pods)
    _store(tables, jobs, pods, size_bytes - _written_bytes(tables))


def count_written(tables: AppMasterTables) -> None:
    """Add what was written since the last commit; call it once for each commit."""
    jobs, pods = _written(tables)
    if any(jobs.values()) or any(pods.values()) or any(True for _ in tables.packages.written()):
        before = tables.sums.get(ALL) or JobSums()
        jobs.update(before.jobs)
        pods.update(before.pods)
        _store(tables, jobs, pods, before.packages_bytes + _written_bytes(tables))


def packages_bytes(tables: AppMasterTables) -> int:
    """Return the size of all packages in a step, before ``count_written``."""
    return (tables.sums.get(ALL) or JobSums()).packages_bytes + _written_bytes(tables)


def _written(tables: AppMasterTables) -> tuple[Counter[str], Counter[str]]:
    """Return by how much the numbers of jobs and of pods have changed since the last commit."""
    jobs: Counter[str] = Counter()
    pods: Counter[str] = Counter()
    for key, old_job in tables.jobs.written():
        if old_job is not None:
            jobs[old_job.state] -= 1
        if (job := tables.jobs.get(key)) is not None:
            jobs[job.state] += 1
    for key, old_pod in tables.pods.written():
        if old_pod is not None:
            pods[old_pod.phase] -= 1
        if (pod := tables.pods.get(key)) is not None:
            pods[pod.phase] += 1
    return jobs, pods


def _written_bytes(tables: AppMasterTables) -> int:
    """Return by how much the size of all packages has changed since the last commit."""
    size_bytes = 0
    for key, old in tables.packages.written():
        new = tables.packages.get(key)
        size_bytes += (new.size_bytes if new else 0) - (old.size_bytes if old else 0)
    return size_bytes


def _store(tables: AppMasterTables, jobs: Counter[str], pods: Counter[str], packages_bytes: int) -> None:
    sums = JobSums(
        jobs=_named(jobs),
        pods=_named(pods),
        packages=len(tables.packages),
        packages_bytes=packages_bytes,
        packages_bytes_max=tables.config.packages_bytes_max if len(tables.packages) else 0,
    )
    if sums == JobSums():
        tables.sums.drop(ALL)
    else:
        tables.sums.put(ALL, sums)


def _named(counts: Counter[str]) -> dict[str, int]:
    return {str(name): count for name, count in sorted(counts.items()) if count}
