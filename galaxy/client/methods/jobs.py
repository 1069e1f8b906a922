"""Jobs: submit, change, show and wait for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from galaxy.client import waiting
from galaxy.client.job_loading import Job, prepare, read
from galaxy.client.methods.packages import PackageMethods
from galaxy.client.package_staging import stage
from galaxy.model.api.jobs import (
    Accepted,
    JobList,
    ListJobs,
    RecoverPod,
    RemoveJob,
    ShowJob,
    StartJob,
    StopJob,
    SubmitJob,
    UpdateJob,
)
from galaxy.model.api.views import (
    JobSummary,
    JobView,
)
from galaxy.model.jobspec.spec import JobSpec


class JobMethods(PackageMethods):
    """Jobs: submit, change, show and wait for them."""

    def submit(self, job: Job, *, key: str = "", base: str | os.PathLike[str] = "") -> Accepted:
        """Submit a job and return when it is accepted.

        Paths of packages and secret files are relative to ``base``, or to the job file's folder.

        Raises:
            Conflict: a job of the same name exists.
        """
        spec, files = prepare(job, base=base, store=self.store_package)
        return self._ask(SubmitJob(spec=spec, files=files), key)

    def run(self, job: Job, *, timeout_s: float | None = 300.0, key: str = "") -> JobView:
        """Submit a job and wait until all of its pods run, or it has ended; see ``wait``."""
        return self.wait(self.submit(job, key=key).job, timeout_s=timeout_s)

    def update(
        self, job: Job, *, name: str = "", key: str = "", base: str | os.PathLike[str] = ""
    ) -> Accepted:
        """Move a job to a new spec and return when that is accepted. ``name`` defaults to the spec's.

        Secrets and secret files are read again: when their values changed, an equal spec is a new
        revision as well.
        """
        spec, files = prepare(job, base=base, store=self.store_package)
        return self._ask(UpdateJob(job=name or spec.name, spec=spec, files=files), key)

    def stop(self, job: str, *, key: str = "") -> Accepted:
        """Stop a job's programs; its containers stay."""
        return self._ask(StopJob(job=job), key)

    def start(self, job: str, *, key: str = "") -> Accepted:
        """Start the programs of a stopped job in its containers."""
        return self._ask(StartJob(job=job), key)

    def remove(self, job: str, *, key: str = "") -> Accepted:
        """Remove a job and its containers; it stays in the history for a while."""
        return self._ask(RemoveJob(job=job), key)

    def recover(self, target: str, *, key: str = "") -> Accepted:
        """Deploy a pod (``JOB.INDEX``) again, or every failed pod of a job."""
        _, dot, index = target.rpartition(".")
        one = dot and index.isdecimal()
        asked = RecoverPod(pod=target) if one else RecoverPod(job=target)
        return self._ask(asked, key)

    def jobs(self, *, all: bool = False) -> list[JobSummary]:
        """List jobs by name; ``all`` includes ended jobs, as far as history goes."""
        return list(self.job_list(all=all).jobs)

    def job_list(self, *, all: bool = False) -> JobList:
        """List jobs as ``jobs`` does, with the number of jobs that you may not see."""
        first = self._ask(ListJobs(all=all, limit=self.page_limit))
        if not first.next:
            return first
        rest = self._all(ListJobs(all=all, after=first.next), lambda page: page.jobs)
        return JobList(jobs=(*first.jobs, *rest), hidden=first.hidden)

    def job(self, job: str) -> JobView:
        """Return everything about one job, named by its name, id, or the start of its id."""
        return self._ask(ShowJob(job=job))

    def submitted_spec(self, job: str) -> JobSpec:
        """Return the spec of one of your jobs as it was submitted, with the credentials in its URLs.

        Raises:
            Refused: the job is another user's.
        """
        return self._ask(ShowJob(job=job, submitted=True)).spec

    def wait(
        self,
        job: str,
        *,
        timeout_s: float | None = 300.0,
        progress: Callable[[JobView], None] | None = None,
        until: Callable[[JobView], bool] | None = None,
    ) -> JobView:
        """Wait until a job is settled, has ended or is degraded, or ``until`` is true; return its view.

        It also returns after ``timeout_s`` (None means no limit), so check ``settled``. ``progress``
        is called with every view but the first. While the cluster does not answer, it keeps waiting.
        """
        return waiting.wait(
            self._transport,
            self.job,
            job,
            timeout_s=timeout_s,
            progress=progress,
            until=until or waiting.at_rest,
        )

    def spec(self, job: Job) -> JobSpec:
        """Return ``job`` as a checked spec, with its package files stored in the cluster.

        Raises:
            SpecError: the job is invalid; the error lists every problem.
        """
        spec, base = read(job)
        return self.stage(spec, base=base)

    def stage(self, spec: JobSpec, *, base: Path) -> JobSpec:
        """Return ``spec`` with its package files, relative to ``base``, stored in the cluster.

        Raises:
            SpecError: a package does not exist.
            Refused: the cluster has no room for one.
        """
        return stage(spec, base=base, store=self.store_package)
