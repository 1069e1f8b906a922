"""Jobs as AppMaster keeps them: records, the states they are in, and what people wish of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import JobSpec, JobType
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.messages.pod import ObservedPod
from galaxy.model.messages.trace import TraceEvent


class DesiredState(StrEnum):
    """What its owner last asked of a job."""

    RUN = "run"
    STOP = "stop"
    REMOVE = "remove"


class JobState(StrEnum):
    """Where a job is. ``stalled``: a rollout takes no further pod because the new revision fails.

    ``degraded``: pods of a service have failed for good, and nothing but its owner changes that.
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


OVER: Final = (JobState.FINISHED, JobState.FAILED)
"""Where a batch job ends: nothing of it runs again unless its owner says so."""


class PodPhase(StrEnum):
    """Where a pod is, as AppMaster sees it.

    ``pending``: it has no container. ``deploying``: ordered to run, not up yet. ``draining``:
    still up, its endpoints withdrawn, about to be taken down.
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
    """Whether a client should go to an endpoint: only to a ``healthy`` one."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


class Rollout(Struct, frozen=True, kw_only=True):
    """A move of pods from revision ``origin`` to the job's own; times are Unix seconds."""

    origin: int
    began_s: float
    moved_s: float
    """When a pod last became good on the new revision, or the rollout began."""
    good: int = 0
    stalled: Reason | None = None


class JobRecord(Struct, frozen=True, kw_only=True):
    """A job; its specs are in revisions, its pods in pods. Times are Unix seconds.

    ``serial`` counts orders for its container group; ``group_replicas``, ``group_release`` and
    ``group_remove`` are what the last of them said. ``generation_floor`` is above every
    generation of pods that are gone, so that a pod which comes back never repeats one.
    """

    job: str
    name: str
    type: JobType
    key: str
    state: JobState
    revision: int
    replica: int
    created_s: float
    updated_s: float
    since_s: float
    user: str = ""
    desired: DesiredState = DesiredState.RUN
    rollout: Rollout | None = None
    serial: int = 0
    group_replicas: int = 0
    group_release: tuple[int, ...] = ()
    group_remove: bool = False
    starts: int = 0
    """How often its owner asked to start or recover it."""
    generation_floor: int = 0
    exit_code: int | None = None
    ended: JobState | None = None
    """The state it was in when it was asked to go."""


class RevisionRecord(Struct, frozen=True, kw_only=True):
    """One immutable spec of a job."""

    job: str
    revision: int
    spec: JobSpec
    at_s: float
    user: str = ""


class PodRecord(Struct, frozen=True, kw_only=True):
    """A pod: what it shall be, what it was last ordered to be, where it is, what was found.

    ``target`` is the revision that it shall have; ``revision``, ``run``, ``redeploy``,
    ``generation`` and ``ordered_incarnation`` are those of the last order. Reports of a
    generation below ``cut`` speak of a program that the orders since have taken down.
    ``restarts`` counts those of earlier orders. ``failed_on`` names agents it failed on.
    """

    pod: str
    job: str
    index: int
    target: int
    phase: PodPhase = PodPhase.PENDING
    since_s: float = 0.0
    revision: int = 0
    run: bool = False
    redeploy: bool = False
    generation: int = 0
    ordered_incarnation: int = 0
    cut: int = 0
    recover: bool = False
    """Deploy anew, although it is as ordered."""
    slot: ContainerState = ContainerState.PENDING
    placed: bool = False
    """Its container is there or on its way; ``agent`` outlasts it, so that logs are found."""
    incarnation: int = 0
    agent: str = ""
    address: str = ""
    ports: dict[str, int] = {}
    drain_s: float | None = None
    """When its program may be taken down, while it drains."""
    observed: ObservedPod | None = None
    """Last report of this life, without usage."""
    up: bool = False
    """Its program is up, healthy, and the one that was ordered."""
    healthy_s: float | None = None
    """Since when it is up without a break, all orders acknowledged."""
    restarts: int = 0
    reason: Reason | None = None
    failed_on: tuple[str, ...] = ()


class EndpointRecord(Struct, frozen=True, kw_only=True):
    """A place where a service answers."""

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
    """A job that is gone: how it ended, and where its pods' logs still are."""

    job: str
    name: str
    record: JobRecord
    spec: JobSpec
    pods: tuple[PodRecord, ...]
    events: tuple[TraceEvent, ...]
    at_s: float
