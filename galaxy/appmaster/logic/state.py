"""AppMaster's memory: its tables, what it knows only for now, and what the present step owes."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from galaxy.appmaster.logic.config import AppMasterConfig
from galaxy.appmaster.logic.identity.resolve_env import filled
from galaxy.appmaster.logic.jobs.transitions import JOB_TRANSITIONS, POD_TRANSITIONS, JobEvent, PodEvent
from galaxy.model.jobspec.spec import JobSpec, JobType
from galaxy.model.messages.container import GroupOrder
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Send
from galaxy.model.stored.job import (
    DesiredState,
    EndpointRecord,
    HistoryRecord,
    JobRecord,
    PodRecord,
    RevisionRecord,
    TimelineRecord,
)
from galaxy.model.stored.quota import Quota
from galaxy.model.stored.secret import RevisionSecrets, SecretRecord
from galaxy.model.stored.table import Table
from galaxy.model.stored.user import UserRecord
from galaxy.operations.records import RequestRecords
from galaxy.statemachine.backoff import KeyedBackoff
from galaxy.statemachine.timers import Timers


class AppMasterState:
    """Everything that the parts of the logic read and write; one is made for each leadership's life.

    Tables are durable. ``usage`` is by pod: millicores and bytes last reported. ``services``
    are names by the jobs that declare them. ``touched`` are jobs to look at in this step, each with
    the pods of it that changed; None is all of them.
    """

    def __init__(self, config: AppMasterConfig) -> None:
        self.config = config
        self.jobs: Table[JobRecord] = Table(
            "jobs",
            JobRecord,
            {"name": lambda job: job.name, "state": lambda job: job.state, "user": lambda job: job.user},
        )
        self.revision_secrets: Table[RevisionSecrets] = Table("revision_secrets", RevisionSecrets)
        # What is sealed comes first, then revisions, so that what refers to one is never stored before it.
        self.revisions: Table[RevisionRecord] = Table(
            "revisions", RevisionRecord, {"job": lambda row: row.job}
        )
        self.pods: Table[PodRecord] = Table(
            "pods",
            PodRecord,
            {
                "job": lambda pod: pod.job,
                "agent": lambda pod: pod.agent or None,
                "phase": lambda pod: (pod.job, pod.phase),
                "up": lambda pod: pod.job if pod.up else None,
            },
        )
        self.endpoints: Table[EndpointRecord] = Table(
            "endpoints",
            EndpointRecord,
            {"service": lambda row: row.service, "pod": lambda row: row.pod, "job": lambda row: row.job},
        )
        self.requests = RequestRecords(config)
        self.history: Table[HistoryRecord] = Table("history", HistoryRecord, {"name": lambda row: row.name})
        self.timelines: Table[TimelineRecord] = Table("timelines", TimelineRecord)
        self.users: Table[UserRecord] = Table("users", UserRecord)
        self.secrets: Table[SecretRecord] = Table("secrets", SecretRecord, {"user": lambda row: row.user})
        self.quotas: Table[Quota] = Table("quotas", Quota, {"user": lambda row: row.user})
        self.tables: dict[str, Table[Any]] = {
            table.name: table
            for table in (
                self.revision_secrets, self.revisions, self.jobs, self.pods, self.endpoints,
                self.requests.answers, self.history, self.timelines, self.users, self.requests.audit,
                self.secrets, self.quotas,
            )
        }  # fmt: skip
        self._messages = 0
        self.quota_serial = 0
        """Of the quotas last sent; it only grows, as an epoch may begin anew here and not at ResMan."""
        self.begin(0, 0.0)

    def begin(self, epoch: int, now_s: float) -> None:
        """Forget everything that is not in tables."""
        self.epoch = epoch
        self.now_s = now_s
        self.timers: Timers[tuple[str, str]] = Timers()
        """By (kind, key); kinds are job, group, pod, ended, and those of ``quotas``."""
        self.order_backoff = KeyedBackoff(self.config.resend_first_s, self.config.resend_max_s)
        self.group_backoff = KeyedBackoff(self.config.resend_first_s, self.config.resend_max_s)
        self.acked_serials: dict[str, int] = {}
        self.group_versions: dict[str, tuple[int, int]] = {}
        """By group, the epoch and version of ResMan's statuses up to which none was missed."""
        self.unsent: dict[str, dict[str, None]] = {}
        """By agent, pods whose orders wait until a heartbeat of the agent is read."""
        self.usage: dict[str, tuple[int, int]] = {}
        self.services: dict[str, dict[str, None]] = {}
        self.touched: dict[str, dict[str, None] | None] = {}
        self._remembered = deque(sorted((row.at_s, key) for key, row in self.history.items()))
        self.quotas_unacknowledged = bool(self.quotas)
        self.requests.begin()
        self.clear_outbox()

    def clear_outbox(self) -> None:
        self.sends: list[Send] = []
        self.requests.replies = []
        self.traces: list[TraceEvent] = []
        self.group_orders: dict[str, GroupOrder] = {}
        self.quotas_to_send = False
        """Whether the quotas are sent in this step, even if no group is."""
        self.pod_orders: dict[str, dict[str, None]] = {}
        """By agent, the pods whose present order is to be sent."""
        self.report_asks: dict[str, None] = {}

    def message_id(self, kind: str, to: str) -> str:
        """Return the id of the next message: no two of one epoch are alike."""
        self._messages += 1
        return f"{kind}:{to}:{self.epoch}.{self._messages}"

    # ---- jobs

    def touch(self, job: str) -> None:
        """Look at ``job`` and all of its pods before this step ends."""
        self.touched[job] = None

    def put_job(self, job: JobRecord) -> JobRecord:
        self.jobs.put(job.job, job)
        return job

    def spec(self, job: str, revision: int) -> JobSpec:
        """Return the spec of a revision that a job or a pod of it refers to."""
        return self.revisions[revision_key(job, revision)].spec

    def resolved_spec(self, job: str, revision: int) -> JobSpec:
        """Return the spec of a revision with the values of its secrets: for orders, and to compare."""
        spec, sealed = self.spec(job, revision), self.revision_secrets.get(revision_key(job, revision))
        return filled(spec, sealed.values) if sealed else spec

    def drop_revision(self, key: str) -> None:
        self.revisions.drop(key)
        self.revision_secrets.drop(key)

    def apply_job_event(self, job: JobRecord, event: type[JobEvent], text: str = "") -> JobRecord:
        """Let ``event`` happen to ``job``; a pair that the law does not hold changes nothing."""
        after = JOB_TRANSITIONS.next_state(job.state, event)
        if after is None or after == job.state:
            return job
        self.record_event(job.job, f"job.{after}", job.job, text)
        changed = msgspec.structs.replace(job, state=after, since_s=self.now_s, updated_s=self.now_s)
        return self.put_job(changed)

    def job_pods(self, job: str) -> list[PodRecord]:
        """Return the pods of ``job`` by index."""
        pods = self.pods
        return sorted((pods[key] for key in pods.where("job", job)), key=_index)

    # ---- pods

    def put_pod(self, pod: PodRecord) -> PodRecord:
        """Write ``pod``, and look at it and its job before this step ends."""
        if self.pods.get(pod.pod) == pod:
            return pod
        self.pods.put(pod.pod, pod)
        changed = self.touched.setdefault(pod.job, {})
        if changed is not None:
            changed[pod.pod] = None
        return pod

    def apply_pod_event(self, pod: PodRecord, event: type[PodEvent]) -> PodRecord:
        """Return ``pod`` after ``event``, not yet written."""
        after = POD_TRANSITIONS.next_state(pod.phase, event)
        if after is None or after == pod.phase:
            return pod
        return msgspec.structs.replace(pod, phase=after, since_s=self.now_s)

    # ---- stories

    def record_event(self, job: str, kind: str, subject: str, text: str = "") -> None:
        """Trace an event, and keep it among the last ones of ``job``."""
        event = TraceEvent(kind=kind, subject=subject, text=text, at_s=self.now_s)
        self.traces.append(event)
        timeline = self.timelines.get(job)
        events = (*timeline.events, event) if timeline else (event,)
        self.timelines.put(job, TimelineRecord(job=job, events=events[-self.config.events_max :]))

    # ---- what is kept for a while

    def keep_history(self, row: HistoryRecord) -> None:
        """Keep what is known of a job that is gone; the oldest make way."""
        self.history.put(row.job, row)
        self._remembered.append((row.at_s, row.job))
        while len(self._remembered) > self.config.history_max:
            self.history.drop(self._remembered.popleft()[1])

    # ---- services

    def add_services(self, job: JobRecord) -> None:
        """Learn which services ``job`` offers, in place of what it offered before."""
        self.remove_services(job.job)
        if job.desired is not DesiredState.REMOVE:
            for task in self.spec(job.job, job.revision).pod.tasks:
                for service in task.services:
                    self.services.setdefault(service.name, {})[job.job] = None

    def remove_services(self, job: str) -> None:
        for name in [name for name, jobs in self.services.items() if job in jobs]:
            del self.services[name][job]
            if not self.services[name]:
                del self.services[name]


def revision_key(job: str, revision: int) -> str:
    return f"{job}@{revision}"


def is_batch(kind: JobType) -> bool:
    """Whether pods of this type come to an end by themselves, for good."""
    return kind is JobType.BATCH


def _index(pod: PodRecord) -> int:
    return pod.index
