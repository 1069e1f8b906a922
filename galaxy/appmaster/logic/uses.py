"""Which jobs use a stored package or a secret. Costs grow with these jobs, not with all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from galaxy.appmaster.logic.tables import AppMasterTables, revision_key
from galaxy.model.api.views import PackageView, SecretView
from galaxy.model.stored.job import DesiredState, JobRecord, RevisionRecord
from galaxy.units import counted

SHOWN_MAX: Final = 100
"""Jobs that a view of a package or a secret names."""


def jobs_with_package(tables: AppMasterTables, package: str) -> Iterator[JobRecord]:
    """Yield each job that uses the package in its current or last revision, or in one that its pods have."""
    found: set[str] = set()
    for key in tables.revisions.each("package", package):
        row = tables.revisions[key]
        job = tables.jobs.get(row.job)
        if job is not None and job.job not in found and _is_needed(tables, job, row):
            found.add(job.job)
            yield job


def is_package_used(tables: AppMasterTables, package: str) -> bool:
    """Return whether any job uses the package."""
    return next(jobs_with_package(tables, package), None) is not None


def jobs_with_secret(tables: AppMasterTables, user: str, secret: str) -> Iterator[JobRecord]:
    """Yield each job of ``user`` that refers to the secret in its current revision and has not ended."""
    for key in tables.revisions.each("secret", secret):
        row = tables.revisions[key]
        job = tables.jobs.get(row.job)
        if job is None or job.user != user or row.revision != job.revision:
            continue
        if job.desired is not DesiredState.REMOVE and not job.state.is_over:
            yield job


def shown(jobs: Iterable[JobRecord]) -> tuple[tuple[str, ...], bool]:
    """Return the sorted names of the first ``SHOWN_MAX`` jobs, and whether there are more."""
    names = [job.name for job in islice(jobs, SHOWN_MAX + 1)]
    return tuple(sorted(set(names[:SHOWN_MAX]))), len(names) > SHOWN_MAX


def number(view: PackageView | SecretView) -> str:
    """Return how many jobs use a package or a secret, for messages."""
    return f"more than {SHOWN_MAX} jobs" if view.more_jobs else counted(len(view.jobs), "job")


def _is_needed(tables: AppMasterTables, job: JobRecord, row: RevisionRecord) -> bool:
    if row.revision >= job.revision - 1:
        return True
    return tables.pods.count("revision", revision_key(job.job, row.revision)) > 0
