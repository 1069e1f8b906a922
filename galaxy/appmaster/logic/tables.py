"""AppMaster's durable state: its tables, and functions on tables only."""

from __future__ import annotations

from typing import Any, Final

from galaxy.appmaster.logic.config import AppMasterConfig
from galaxy.appmaster.logic.identity.resolve_env import resolve_env, secrets_of
from galaxy.model.jobspec.package_source import stored_packages_of
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.liveness import LivenessTerms
from galaxy.model.stored.cluster import JobSums
from galaxy.model.stored.job import (
    EndpointRecord,
    HistoryRecord,
    JobRecord,
    PodRecord,
    RevisionRecord,
    TimelineRecord,
)
from galaxy.model.stored.package import PACKAGES, PackageRecord
from galaxy.model.stored.quota import Quota
from galaxy.model.stored.run import RunRecord
from galaxy.model.stored.secret import RevisionSecrets, SecretRecord
from galaxy.model.stored.table import Table
from galaxy.model.stored.user import UserRecord
from galaxy.operations.records import RequestRecords

TERMS: Final = "terms"
"""Key of the one row of table ``liveness``: the last terms of ResMan."""


class AppMasterTables:
    """Every table that AppMaster stores, each also in ``tables`` by its name.

    Changes are committed in the order of ``tables``. Secrets of revisions come first, then
    revisions, so that a row is never stored before the rows that it refers to.
    """

    def __init__(self, config: AppMasterConfig) -> None:
        self.config = config
        self.revision_secrets: Table[RevisionSecrets] = Table("revision_secrets", RevisionSecrets)
        self.revisions: Table[RevisionRecord] = Table(
            "revisions",
            RevisionRecord,
            {"job": lambda revision: revision.job},
            multi_indexes={
                "package": lambda revision: stored_packages_of(revision.spec),
                "secret": lambda revision: secrets_of(revision.spec),
            },
        )
        self.jobs: Table[JobRecord] = Table(
            "jobs",
            JobRecord,
            {
                "name": lambda job: job.name,
                "state": lambda job: job.state,
                "user": lambda job: job.user,
                "key": lambda job: job.key,
            },
        )
        self.pods: Table[PodRecord] = Table(
            "pods",
            PodRecord,
            {
                "job": lambda pod: pod.job,
                "agent": lambda pod: pod.agent or None,
                "phase": lambda pod: (pod.job, pod.phase),
                "up": lambda pod: pod.job if pod.up else None,
                "leaving": lambda pod: pod.job if pod.is_leaving else None,
                "tried": lambda pod: True if pod.failed_on else None,
                "asked_to_leave": lambda pod: pod.job if pod.leave or pod.is_evacuating else None,
            },
            multi_indexes={"revision": _revisions_of},
        )
        self.runs: Table[RunRecord] = Table("runs", RunRecord, {"job": lambda run: run.job})
        self.endpoints: Table[EndpointRecord] = Table(
            "endpoints",
            EndpointRecord,
            {
                "service": lambda endpoint: endpoint.service,
                "pod": lambda endpoint: endpoint.pod,
                "job": lambda endpoint: endpoint.job,
            },
        )
        self.packages: Table[PackageRecord] = Table(
            PACKAGES, PackageRecord, {"user": lambda package: package.user}
        )
        self.sums: Table[JobSums] = Table("sums", JobSums)
        self.requests = RequestRecords(config)
        self.history: Table[HistoryRecord] = Table("history", HistoryRecord, {"name": lambda past: past.name})
        self.timelines: Table[TimelineRecord] = Table("timelines", TimelineRecord)
        self.users: Table[UserRecord] = Table("users", UserRecord)
        self.secrets: Table[SecretRecord] = Table(
            "secrets", SecretRecord, {"user": lambda secret: secret.user}
        )
        self.quotas: Table[Quota] = Table("quotas", Quota, {"user": lambda quota: quota.user})
        self.liveness: Table[LivenessTerms] = Table("liveness", LivenessTerms)
        self.tables: dict[str, Table[Any]] = {
            table.name: table
            for table in (
                self.liveness, self.revision_secrets, self.revisions, self.jobs, self.pods, self.endpoints,
                self.requests.answers, self.history, self.timelines, self.users, self.requests.audit,
                self.secrets, self.quotas, self.runs, self.packages, self.sums,
            )
        }  # fmt: skip

    def repair(self) -> None:
        """Drop rows that refer to missing rows; a leader that stopped between two commits may leave some."""
        for job in self.jobs.without(map(str, self.pods.index_values("job"))):
            for key in self.pods.where("job", job):
                self.pods.drop(key)
        for key in [key for key in self.revision_secrets if key not in self.revisions]:
            self.revision_secrets.drop(key)
        for pod in self.pods.without(map(str, self.endpoints.index_values("pod"))):
            for key in self.endpoints.where("pod", pod):
                self.endpoints.drop(key)
        for key in [key for key, run in self.runs.items() if run.job not in self.jobs]:
            self.runs.drop(key)

    def put_job(self, job: JobRecord) -> JobRecord:
        """Store ``job`` and return it."""
        self.jobs.put(job.job, job)
        return job

    def job_pods(self, job: str) -> list[PodRecord]:
        """Return the pods of ``job`` by index."""
        return sorted((self.pods[key] for key in self.pods.where("job", job)), key=lambda pod: pod.index)

    def spec(self, job: str, revision: int) -> JobSpec:
        """Return the spec of a revision that a job or one of its pods refers to."""
        return self.revisions[revision_key(job, revision)].spec

    def size_of(self, job: str, revision: int) -> int:
        """Return the number of the size that the containers of a revision should have."""
        return self.revisions[revision_key(job, revision)].size

    def resolved_spec(self, job: str, revision: int) -> JobSpec:
        """Return the spec of a revision with the values of its secrets, for orders and comparisons."""
        spec, secrets = self.spec(job, revision), self.revision_secrets.get(revision_key(job, revision))
        return resolve_env(spec, secrets.values) if secrets else spec

    def drop_revision(self, key: str) -> None:
        """Drop a revision and the values of its secrets."""
        self.revisions.drop(key)
        self.revision_secrets.drop(key)


def _revisions_of(pod: PodRecord) -> tuple[str, ...]:
    """Return the keys of the revision that a pod has and of that which it should have."""
    target = revision_key(pod.job, pod.target)
    if pod.revision == pod.target:
        return (target,)
    return revision_key(pod.job, pod.revision), target


def revision_key(job: str, revision: int) -> str:
    """Return the key of a revision in the tables ``revisions`` and ``revision_secrets``."""
    return f"{job}@{revision}"
