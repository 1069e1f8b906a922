"""AppMaster's state: tables, what is derived from them, and the output of the current step."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from galaxy.appmaster.logic.config import AppMasterConfig
from galaxy.appmaster.logic.job_history import JobHistory
from galaxy.appmaster.logic.jobs.transitions import JOB_TRANSITIONS, POD_TRANSITIONS, JobEvent, PodEvent
from galaxy.appmaster.logic.outbox import Outbox
from galaxy.appmaster.logic.service_index import ServiceIndex
from galaxy.appmaster.logic.tables import TERMS, AppMasterTables
from galaxy.model.jobspec.package_source import stored_packages_of
from galaxy.model.messages.liveness import LivenessTerms
from galaxy.model.messages.names import APPMASTER
from galaxy.model.messages.trace import TraceEvent, event_id
from galaxy.model.redaction import without_credentials
from galaxy.model.stored.job import DesiredState, JobRecord, PodRecord, TimelineRecord
from galaxy.statemachine.backoff import KeyedBackoff
from galaxy.statemachine.timers import Timers


@dataclass
class TouchedJob:
    """A job to reconcile in this step, with those of its pods that changed; None means all of them.

    ``cause`` is the id of what touched it last.
    """

    pods: dict[str, None] | None
    cause: str


class AppMasterState(AppMasterTables):
    """Everything that the parts of AppMaster's logic read and write.

    Tables are durable. All other state is volatile: ``derive`` rebuilds it from the tables. The counters of
    messages and events and ``identity_serial`` are the exception: their numbers must not repeat within an
    epoch.
    """

    def __init__(self, config: AppMasterConfig) -> None:
        super().__init__(config)
        self._message_count = 0
        self._event_count = 0
        self.identity_serial = 0
        """Serial of the last ``IdentityOrder``. It never decreases while this process runs."""
        self.derive(0, 0.0)

    def derive(self, epoch: int, now_s: float) -> None:
        """Rebuild the volatile state from the tables, for leadership ``epoch`` at ``now_s``."""
        config = self.config
        self.epoch = epoch
        self.now_s = now_s
        self.cause = ""
        """Id of the request, message or timer that is being handled: the cause of events."""
        self.outbox = Outbox()
        self.timers: Timers[tuple[str, str]] = Timers()
        """By (kind, key). Kinds are job, group, pod and ended, and ``identity_sync.TIMER``."""
        self.touched: dict[str, TouchedJob] = {}
        self.awaiting_order: dict[str, dict[str, None]] = {}
        """By job, pods that need an order, in the order in which they and their jobs take their turns."""
        self.orders_left = 0
        """Orders that this step may still build."""
        self.resends_left = 0
        """Orders that this step may still send again."""
        self.order_backoff = KeyedBackoff(config.resend_first_s, config.resend_s_max)
        self.group_backoff = KeyedBackoff(config.resend_first_s, config.resend_s_max)
        self.acked_serials: dict[str, int] = {}
        """By group, the serial of the last order that ResMan acknowledged in this leadership."""
        self.group_versions: dict[str, tuple[int, int]] = {}
        """By group, ResMan's epoch and the status version up to which no status was missed."""
        self.unsent: dict[str, dict[str, None]] = {}
        """By agent, pods whose orders wait until a heartbeat of the agent is read."""
        self.joined_agents: set[str] = set()
        """Agents that are new, or were dead, since failed pods were moved last."""
        self.pods_without_host: dict[str, None] = {}
        """Failed pods that take their turns to move to a host that they have not tried."""
        self.usage: dict[str, tuple[int, int]] = {}
        """By pod, the millicores and bytes that were last reported."""
        self.identity_unacknowledged = True
        self.requests.begin()
        self.job_history = JobHistory(self.history, config.history_max)
        self.services = ServiceIndex()
        for job in self.jobs.values():
            self.index_services(job)

    def message_id(self, kind: str, to: str) -> str:
        """Return the id of the next message; no two messages of one epoch have the same."""
        self._message_count += 1
        return f"{kind}:{to}:{self.epoch}.{self._message_count}"

    @property
    def dead_s(self) -> float:
        """The silence after which ResMan declares an agent dead; nothing is resent to it then."""
        terms = self.liveness.get(TERMS)
        return self.config.dead_s if terms is None else terms.dead_s

    def apply_liveness(self, terms: LivenessTerms) -> None:
        """Follow ResMan's terms, and confirm them, unless a later ResMan has told others."""
        known = self.liveness.get(TERMS)
        if known is None or terms.epoch > known.epoch:
            self.liveness.put(TERMS, terms)
            self.outbox.send_liveness = True

    # ---- jobs to reconcile in this step

    def touch(self, job: str) -> None:
        """Reconcile ``job`` and all of its pods before this step ends."""
        self.touched[job] = TouchedJob(None, self.cause)

    def take_touched(self) -> dict[str, TouchedJob]:
        """Return the touched jobs and clear them."""
        touched, self.touched = self.touched, {}
        return touched

    def begin_step(self, now_s: float) -> None:
        """Start a step with its limits. The last step was committed."""
        self.requests.nonces.accept()
        self.now_s, self.cause = now_s, ""
        self.orders_left = self.config.orders_per_step_max
        self.resends_left = self.config.resends_per_step_max

    def await_order(self, pod: PodRecord) -> None:
        """Have ``pod`` reconciled when it is its turn to get an order, in this step or a later one."""
        self.awaiting_order.setdefault(pod.job, {})[pod.pod] = None

    def put_pod(self, pod: PodRecord) -> PodRecord:
        """Store ``pod`` and, if that is a change, reconcile it and its job before this step ends."""
        if not self.pods.put(pod.pod, pod):
            return pod
        touched = self.touched.get(pod.job)
        if touched is None:
            self.touched[pod.job] = TouchedJob({pod.pod: None}, self.cause)
        elif touched.pods is not None:
            touched.pods[pod.pod] = None
        return pod

    # ---- transitions and events

    def apply_job_event(self, job: JobRecord, event: type[JobEvent], text: str = "") -> JobRecord:
        """Store and record the transition of ``job`` on ``event``; an invalid one changes nothing."""
        after = JOB_TRANSITIONS.next_state(job.state, event)
        if after is None or after == job.state:
            return job
        self.record_event(job.job, f"job.{after}", job.job, text)
        return self.put_job(
            msgspec.structs.replace(job, state=after, since_s=self.now_s, updated_s=self.now_s)
        )

    def apply_pod_event(self, pod: PodRecord, event: type[PodEvent]) -> PodRecord:
        """Return ``pod`` after ``event``, not stored yet; an invalid one changes nothing."""
        after = POD_TRANSITIONS.next_state(pod.phase, event)
        if after is None or after == pod.phase:
            return pod
        return msgspec.structs.replace(pod, phase=after, since_s=self.now_s)

    def record_event(self, job: str, kind: str, subject: str, text: str = "", *, cause: str = "") -> None:
        """Trace an event and add it to the timeline of ``job``, which keeps the last ones.

        ``cause`` defaults to what is being handled.
        """
        self._event_count += 1
        event = TraceEvent(
            kind=kind,
            subject=subject,
            text=without_credentials(text),
            at_s=self.now_s,
            id=event_id(APPMASTER, self.epoch, self._event_count),
            cause=cause or self.cause,
        )
        self.outbox.trace.append(event)
        timeline = self.timelines.get(job)
        events = (*timeline.events, event) if timeline else (event,)
        self.timelines.put(job, TimelineRecord(job=job, events=events[-self.config.events_max :]))

    def drop_revision(self, key: str) -> None:
        """Drop a revision and the values of its secrets; its packages count as used until now."""
        row = self.revisions.get(key)
        for package in stored_packages_of(row.spec) if row else ():
            stored = self.packages.get(package)
            if stored is not None:
                self.packages.put(stored.package, msgspec.structs.replace(stored, used_s=self.now_s))
        super().drop_revision(key)

    def index_services(self, job: JobRecord) -> None:
        """Index the services that ``job`` declares now; a job that is being removed declares none."""
        if job.desired is DesiredState.REMOVE:
            self.services.set_job(job.job, ())
            return
        tasks = self.spec(job.job, job.revision).pod.tasks
        self.services.set_job(job.job, (service.name for task in tasks for service in task.services))
