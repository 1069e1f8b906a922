"""Jobs as AppMaster stores them: records, their states, and what their owners asked for."""

from __future__ import annotations

from enum import StrEnum

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import JobSpec, JobType
from galaxy.model.messages.container import ContainerState, Leave, Reason
from galaxy.model.messages.pod import ObservedPod
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.run import RunRecord


class DesiredState(StrEnum):
    """What the owner of a job last asked for."""

    RUN = "run"
    STOP = "stop"
    REMOVE = "remove"


class JobState(StrEnum):
    """The state of a job.

    ``stalled``: a rollout updates no further pod because the new revision fails. ``degraded``: some pods
    of a service failed for good, or pods restart again and again, and the others are up; as a rule only
    its owner can change that. ``finished`` and ``failed``: every pod has ended.
    """

    PENDING = "pending"
    RUNNING = "running"
    DEGRADED = "degraded"
    UPDATING = "updating"
    STALLED = "stalled"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    REMOVING = "removing"

    @property
    def is_over(self) -> bool:
        """Whether every pod has ended: no program runs again unless the owner asks for it."""
        return self in (JobState.FINISHED, JobState.FAILED)


class PodPhase(StrEnum):
    """The phase of a pod, as AppMaster sees it.

    ``pending``: it has no container. ``deploying``: ordered to run, not up yet. ``draining``:
    still up, its endpoints are withdrawn, and its programs are about to be stopped.
    """

    PENDING = "pending"
    DEPLOYING = "deploying"
    RUNNING = "running"
    BACKOFF = "backoff"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"


class EndpointState(StrEnum):
    """Whether clients may use an endpoint: only a ``healthy`` one."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


class Rollout(Struct, frozen=True, kw_only=True):
    """A move of pods from revision ``origin`` to the job's own. Times are Unix seconds."""

    origin: int
    began_s: float
    progressed_s: float
    """When a pod last became good on the new revision; at first, when the rollout began."""
    good: int = 0
    """Pods that are good: on the new revision and healthy for long enough."""
    stalled: Reason | None = None
    """Why no further pod is updated, while the rollout is stalled."""


class JobRecord(Struct, frozen=True, kw_only=True):
    """A job. Its specs are in ``revisions``, its pods in ``pods``. Times are Unix seconds.

    ``serial`` counts orders for its container group; ``group_replicas``, ``group_release`` and
    ``group_remove`` are the content of the last one. ``generation_floor`` is at least every
    generation of its dropped pods, so that a pod which is created again never repeats one.
    """

    job: str
    name: str
    type: JobType
    key: str
    """Idempotency key of the request that submitted it, and ``digest`` that of its content."""
    digest: str
    state: JobState
    revision: int
    replica: int
    created_s: float
    updated_s: float
    since_s: float
    """When it entered ``state``."""
    user: str = ""
    desired: DesiredState = DesiredState.RUN
    rollout: Rollout | None = None
    serial: int = 0
    group_replicas: int = 0
    group_release: tuple[int, ...] = ()
    group_remove: bool = False
    group_moves: tuple[tuple[int, int], ...] = ()
    """Index and incarnation of the pods that leave their agents."""
    size: int = 0
    """Number of the size that its containers should have: the first revision that asks for it, 0 at first."""
    group_size: int = 0
    group_keep: tuple[tuple[int, int], ...] = ()
    """Ranges of pods that keep the size which their containers have, because their turn has not come."""
    starts: int = 0
    """How often its owner asked to start or recover it."""
    generation_floor: int = 0
    run: int = 0
    """Number of its latest run; 0 for a job that is not a batch job."""
    exit_code: int | None = None
    removed_from: JobState | None = None
    """The state that it was in when its removal was asked for."""


class RevisionRecord(Struct, frozen=True, kw_only=True):
    """One immutable spec of a job."""

    job: str
    revision: int
    spec: JobSpec
    at_s: float
    user: str = ""
    size: int = 0
    """``JobRecord.size`` of a job with this revision."""


class PodRecord(Struct, frozen=True, kw_only=True):
    """A pod: its desired state, its last order, its place, and its last report.

    ``target`` is the revision that it should run. ``revision``, ``ordered_run``, ``redeploy``,
    ``generation`` and ``ordered_incarnation`` are those of the last order. Reports of a generation
    below ``report_generation_min`` describe a program that a later order has stopped.
    """

    pod: str
    job: str
    index: int
    target: int
    run: int = 0
    """The run that it belongs to; 0 for a pod of a job that is not a batch job."""
    phase: PodPhase = PodPhase.PENDING
    since_s: float = 0.0
    """When it entered ``phase``."""
    revision: int = 0
    """0 until the first order."""
    ordered_run: bool = False
    """Whether the last order was to run its programs, and not to stop them."""
    redeploy: bool = False
    generation: int = 0
    ordered_incarnation: int = 0
    report_generation_min: int = 0
    recover: bool = False
    """Deploy it again even if it is as ordered."""
    slot: ContainerState = ContainerState.PENDING
    placed: bool = False
    """Its container exists or is being created. ``agent`` stays after that, so that logs are found."""
    incarnation: int = 0
    agent: str = ""
    address: str = ""
    ports: dict[str, int] = {}
    drain_s: float | None = None
    """When its programs may be stopped, while it drains."""
    observed: ObservedPod | None = None
    """The last report about this incarnation, without usage."""
    up: bool = False
    """Its programs are up, healthy, and those that were ordered."""
    healthy_s: float | None = None
    """Since when it is up without a break, with all orders acknowledged."""
    restarts: int = 0
    """Restarts of programs that later orders have replaced; ``observed`` has those of the present ones."""
    restarts_generation_min: int = 0
    """Reports of a generation below this count restarts that ``restarts`` contains already."""
    restarts_before: int = 0
    """How many restarts there were when it was moved to ``revision``."""
    reason: Reason | None = None
    failed_on: tuple[str, ...] = ()
    """Agents that it failed on since it was last up, or deployed at its owner's request; the latest last."""
    leaves: int = 0
    """The incarnation that it leaves for one on another agent; 0 for none."""
    leave: Leave | None = None
    """Why it is to leave its agent, as ResMan says; None if it may stay."""
    evacuates: int = 0
    """The incarnation whose programs are stopped so that the pod can leave its agent; 0 for none."""
    size: int = 0
    """Number of the size that its container has; see ``JobRecord.size``."""
    resize: Reason | None = None
    """Why its container does not have the size that was ordered."""

    @property
    def is_evacuating(self) -> bool:
        """Whether the programs of its incarnation are stopped, because it is about to leave its agent."""
        return self.placed and 0 < self.evacuates == self.incarnation

    @property
    def is_leaving(self) -> bool:
        """Whether it still has the incarnation that it leaves."""
        return self.placed and 0 < self.leaves == self.incarnation


class EndpointRecord(Struct, frozen=True, kw_only=True):
    """An address and port where a pod serves a service."""

    service: str
    pod: str
    job: str
    address: str
    port: int
    state: EndpointState


class TimelineRecord(Struct, frozen=True, kw_only=True):
    """The last events of one job, oldest first."""

    job: str
    events: tuple[TraceEvent, ...] = ()


class HistoryRecord(Struct, frozen=True, kw_only=True):
    """A removed job: how it ended, and on which agents the logs of its pods are."""

    job: str
    name: str
    record: JobRecord
    spec: JobSpec
    pods: tuple[PodRecord, ...]
    events: tuple[TraceEvent, ...]
    at_s: float
    """When it was removed, in Unix seconds."""
    runs: tuple[RunRecord, ...] = ()
